"""Streamers: told of tokens as generate() chooses them, they show or hand out text."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from queue import Queue
from typing import TYPE_CHECKING, Any

import numpy as np

from quickbrown.hf.arrays import to_numpy
from quickbrown.hf.stopping_criteria import core_of
from quickbrown.text.pieces import Pieces
from quickbrown.types import UnknownOption

if TYPE_CHECKING:
    import asyncio


class BaseStreamer:
    """What a caller writes. generate() calls, in the caller's thread, `put` with the prompts (B, n) and then with each
    step's tokens (B,), pads for rows that have ended, both of the kind of its input_ids; and `end`, come what may."""

    def put(self, value: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no put; a streamer needs one")

    def end(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no end; a streamer needs one")


class TextStreamer(BaseStreamer):
    """Prints text as it comes: whole characters, each as soon as it is known.

    tokenizer            of `AutoTokenizer`, or a `quickbrown.text.tokenizer.Tokenizer`
    skip_prompt          leave out the prompts
    skip_special_tokens  leave out tokens that mark structure and are no text; they are shown unless this is True

    Of several rows the first is printed as it comes, the others behind it, each beginning a line of its own. A streamer
    can be used for one call after another. What is to happen to text is `on_finalized_text`.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_kwargs
        core_of(tokenizer)
        for name, value in decode_kwargs.items():
            if name not in ("skip_special_tokens", "clean_up_tokenization_spaces"):
                raise UnknownOption(name, ["skip_prompt", "skip_special_tokens", "clean_up_tokenization_spaces"])
            if name == "clean_up_tokenization_spaces" and value:
                raise ValueError("clean_up_tokenization_spaces=True would change text that was shown; leave it out")
        self._rows: list[_Row] = []
        self._shown = 0  # the row that is printed as it comes

    def put(self, value: Any) -> None:
        """The prompts, (B, n) or (n,); then tokens, (B,) or (B, k), or of a single row any number."""
        tokens = to_numpy(value)
        if not self._rows:
            self._begin(np.atleast_2d(tokens))
        else:
            for row, new in enumerate(tokens.reshape(len(self._rows), -1).tolist()):
                self.put_row(row, new)

    def put_row(self, row: int, tokens: Sequence[int]) -> None:
        """The next tokens of a row."""
        if text := self._rows[row].pieces.push(tokens):
            self._take(row, text)

    def end_row(self, row: int) -> None:
        """A row has all its tokens."""
        if not self._rows[row].ended:
            self._rows[row].ended = True
            if text := self._rows[row].pieces.finish():
                self._take(row, text)
            self._row_ended(row)

    def end(self) -> None:
        """No more tokens come."""
        for row in range(len(self._rows)):
            self.end_row(row)
        self._rows, self._shown = [], 0
        self.on_finalized_text("", stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Text that will not change any more; `stream_end` once, at the end of all."""
        sys.stdout.write(text + ("\n" if stream_end else ""))
        sys.stdout.flush()

    def _begin(self, prompts: Any) -> None:
        skip = bool(self.decode_kwargs.get("skip_special_tokens", False))
        core = core_of(self.tokenizer)
        self._rows = [_Row(Pieces(core, skip_special=skip, opening=True)) for _ in prompts]
        pad = getattr(self.tokenizer, "pad_token_id", None) if len(prompts) > 1 else None
        for row, prompt in enumerate(prompts.tolist()):
            if not self.skip_prompt:
                text = [i for i, token in enumerate(prompt) if token != pad]  # pads may stand on either side
                self.put_row(row, prompt[text[0] : text[-1] + 1] if text else [])

    def _take(self, row: int, text: str) -> None:
        """Some text of a row."""
        if row == self._shown:
            self.on_finalized_text(text)
        else:
            self._rows[row].waiting.append(text)

    def _row_ended(self, row: int) -> None:
        while self._shown < len(self._rows) - 1 and self._rows[self._shown].ended:
            self._shown += 1
            self.on_finalized_text("\n" + "".join(self._rows[self._shown].waiting))


class _Row:
    """One text: `waiting` are its pieces while another is printed."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.waiting: list[str] = []
        self.ended = False


class TextIteratorStreamer(TextStreamer, Iterator[Any]):
    """Text as it comes, for another thread to iterate over: str, or of several rows (row, str).

    timeout  most seconds to wait for the next piece; then the iteration raises queue.Empty
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: Queue[Any] = Queue()
        self.stop_signal = None
        self.timeout = timeout

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(self.stop_signal)

    def __iter__(self) -> TextIteratorStreamer:
        return self

    def __next__(self) -> Any:
        value = self.text_queue.get(timeout=self.timeout)
        if value is self.stop_signal:
            raise StopIteration
        return value

    def _take(self, row: int, text: str) -> None:
        if len(self._rows) == 1:
            self.on_finalized_text(text)
        else:
            self.text_queue.put((row, text))

    def _row_ended(self, row: int) -> None:
        pass


class AsyncTextIteratorStreamer(TextStreamer, AsyncIterator[Any]):
    """TextIteratorStreamer for asyncio: made in a running event loop, `async for` there, fed from any thread.

    timeout  most seconds to wait for the next piece; then the iteration raises asyncio.TimeoutError
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        import asyncio

        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: asyncio.Queue[Any] = asyncio.Queue()
        self.stop_signal = None
        self.timeout = timeout
        self.loop = asyncio.get_running_loop()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._send(text)
        if stream_end:
            self._send(self.stop_signal)

    def __aiter__(self) -> AsyncTextIteratorStreamer:
        return self

    async def __anext__(self) -> Any:
        import asyncio

        value = await asyncio.wait_for(self.text_queue.get(), self.timeout)
        if value is self.stop_signal:
            raise StopAsyncIteration
        return value

    def _send(self, value: Any) -> None:
        self.loop.call_soon_threadsafe(self.text_queue.put_nowait, value)

    def _take(self, row: int, text: str) -> None:
        if len(self._rows) == 1:
            self.on_finalized_text(text)
        else:
            self._send((row, text))

    def _row_ended(self, row: int) -> None:
        pass
