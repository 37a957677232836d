"""Texts being written: fed on the engine's thread, read by whoever asked for them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

from quickbrown.engine.engine import failure
from quickbrown.engine.sequence import Request
from quickbrown.engine.thread import EngineThread
from quickbrown.text.pieces import Pieces
from quickbrown.types import Completion, Event, Finish, FinishReason

if TYPE_CHECKING:
    import asyncio

Piece = tuple[int, str, bool]  # of which row, the text, and whether it is the last
Out = Callable[[Piece], None]  # told of every piece, on the engine's thread
# Sees a text and its new tokens, on the engine's thread, and may end it there.
Watch = Callable[["Text", tuple[int, ...]], Finish | None]


class GenerationError(RuntimeError):
    """The model failed in the middle of a text. `completions` are all rows of the call, as far as they came."""

    def __init__(self, message: str, completions: list[Completion]) -> None:
        super().__init__(message)
        self.completions = completions


class NoPieces:
    """For a model without a vocabulary: tokens only."""

    stopped = None
    pending = False

    def push(self, tokens: Sequence[int]) -> str:
        return ""

    def finish(self) -> str:
        return ""


class Text:
    """One row of a call: one sample of one prompt.

    row                   its number in the call
    sample                which sample of its prompt it is
    tokens                what has been written so far
    logprobs              of those, if they are wanted
    finish                why it ended, or None
    started               when it was asked for, `time.perf_counter` seconds
    first_token_seconds   from then to the first token, nan before
    seconds               from then to the end, nan before
    """

    def __init__(
        self,
        engine: EngineThread,
        request: Request,
        sample: int,
        row: int,
        pieces: Pieces | NoPieces,
        out: Out,
        watch: Watch | None = None,
    ) -> None:
        self.row = row
        self.sample = sample
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish: Finish | None = None
        self.started = time.perf_counter()
        self.first_token_seconds = float("nan")
        self.seconds = float("nan")
        self._engine, self._request, self._pieces, self._out = engine, request, pieces, out
        self._watch = watch
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._reused = self._guessed = self._accepted = 0

    def take(self, event: Event) -> None:
        """What a step added to it: token by token, since any may end it."""
        for one in singly(event):
            self._take(one)

    def _take(self, event: Event) -> None:
        with self._lock:
            if self.finish is not None:
                return
            if event.tokens and not self.tokens:
                self.first_token_seconds = time.perf_counter() - self.started
            self.logprobs += event.logprobs or ()
            self.tokens += event.tokens  # last: who sees a token sees its log-probability
            self._reused, self._guessed, self._accepted = event.reused, event.guessed, event.accepted
            piece = self._pieces.push(event.tokens)
            seen = self._watch(self, event.tokens) if self._watch and event.tokens else None
            if self._pieces.stopped is not None:
                piece += self._end(Finish(FinishReason.STOP, self._pieces.stopped))
                self.abandon()
            elif event.finish is not None:
                piece += self._end(event.finish)
            elif seen is not None:
                piece += self._end(seen)
                self.abandon()
            self._texts.append(piece)
            ended = self.finish is not None
        if piece or ended:
            self._out((self.row, piece, ended))

    def end(self, finish: Finish) -> None:
        """End it where it is, unless it has ended already."""
        with self._lock:
            if self.finish is not None:
                return
            self._texts.append(piece := self._end(finish))
        self._out((self.row, piece, True))

    @property
    def certain(self) -> bool:
        """Whether no text is held back that a stop string may still cut off. For use by a Watch."""
        return not self._pieces.pending

    @property
    def stopped(self) -> str | None:
        """The stop string that ended it, if one did."""
        return self._pieces.stopped

    def close(self) -> None:
        """Nobody wants more of it."""
        if self.finish is None:
            self.abandon()
            with contextlib.suppress(RuntimeError):  # an event loop that was closed: then nobody waits there either
                self.end(Finish(FinishReason.CANCELLED))

    def abandon(self) -> None:
        """Have the engine stop writing it. Takes no lock."""
        self._engine.cancel(self._request.id, self.sample)

    def _end(self, finish: Finish) -> str:
        self.finish = finish
        self.seconds = time.perf_counter() - self.started
        return self._pieces.finish()

    @property
    def completion(self) -> Completion:
        with self._lock:
            if self.finish is None:
                raise ValueError("the text is still being written; iterate to its end or close it first")
            params = self._request.params
            return Completion(
                text="".join(self._texts),
                tokens=tuple(self.tokens),
                prompt_tokens=len(self._request.prompt),
                finish=self.finish,
                logprobs=tuple(self.logprobs) if params.logprobs else None,
                seed=self._request.seeds[self.sample] if params.temperature > 0 else None,
                reused_tokens=self._reused,
                guessed_tokens=self._guessed,
                accepted_tokens=self._accepted,
            )


def singly(event: Event) -> Iterator[Event]:
    """An event of several tokens, of which guesses came true, as if each had come in a step of its own."""
    last = len(event.tokens) - 1
    if last < 1:
        yield event
        return
    for at in range(last + 1):
        logprobs = None if event.logprobs is None else event.logprobs[at : at + 1]
        yield event._replace(
            tokens=event.tokens[at : at + 1], logprobs=logprobs, finish=event.finish if at == last else None
        )


class Texts:
    """The samples of one request: a sink of the engine's thread."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.texts = texts

    def take(self, event: Event) -> None:
        self.texts[event.sample].take(event)

    def fail(self, error: BaseException) -> None:
        for text in self.texts:
            with contextlib.suppress(RuntimeError):  # as in `close`
                text.end(failure(error))


class Reader:
    """Some rows of a call, for whoever asked for them. They are written whether or not anybody reads: a slow reader
    holds up nobody. One that is closed, or let go, ends them.

    owner  kept alive as long as this is
    """

    def __init__(self, owner: object, texts: Sequence[Text]) -> None:
        self._owner = owner
        self.texts = texts

    def close(self) -> None:
        """End what has not ended; what was written stays in the completions."""
        for text in self.texts:
            text.close()

    def __del__(self) -> None:  # anywhere, while any lock is held
        for text in self.texts:
            if text.finish is None:
                text.abandon()

    @property
    def completions(self) -> list[Completion]:
        """All rows. Raises ValueError while one is still being written."""
        return [text.completion for text in self.texts]

    @property
    def completion(self) -> Completion:
        """The only row."""
        [completion] = self.completions
        return completion

    @property
    def first_token_seconds(self) -> float:
        """From the call to the first token of any row; nan before."""
        return min((text.first_token_seconds for text in self.texts), key=lambda s: (s != s, s))

    @property
    def seconds(self) -> float:
        """From the call to the end of the last row; nan before."""
        seconds = [text.seconds for text in self.texts]
        return max(seconds) if all(s == s for s in seconds) else float("nan")

    def checked(self) -> list[Completion]:
        """All rows, which have ended. Raises GenerationError if the model failed in one."""
        for text in self.texts:
            if text.finish is not None and text.finish.reason is FinishReason.ERROR:
                where = f"row {text.row}: " if len(self.texts) > 1 else ""
                raise GenerationError(f"{where}{text.finish.detail}", self.completions)
        return self.completions


def ends(put: Out) -> Out:
    """Passes on the last piece of each row only: nobody wakes up for the others."""

    def out(piece: Piece) -> None:
        if piece[2]:
            put(piece)

    return out


class BatchStream(Reader):
    """Texts written together: iterate over (row, piece). Pieces are whole characters, given as soon as they are known.

    A row is the number of its prompt, or, if several texts of each are written, prompt * n + sample. The iteration
    raises GenerationError at its end, when all rows have ended, if the model failed in one.
    """

    def __init__(self, owner: object, texts: Sequence[Text], pieces: SimpleQueue[Piece]) -> None:
        super().__init__(owner, texts)
        self._pieces = pieces
        self._left = len(texts)  # whose last piece has not been read

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        while self._left:
            row, text, last = self._pieces.get()
            self._left -= last
            if text:
                return row, text
        self.checked()
        raise StopIteration

    def read(self) -> list[Completion]:
        """All of it."""
        try:
            for _ in self:
                pass
        finally:
            self.close()
        return self.completions


class Stream(Reader):
    """One text: iterate over its pieces, whole characters, given as soon as they are known.

    The iteration raises GenerationError at its end if the model failed.
    """

    def __init__(self, owner: object, texts: Sequence[Text], pieces: SimpleQueue[Piece]) -> None:
        super().__init__(owner, texts)
        self._batch = BatchStream(owner, texts, pieces)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._batch)[1]

    def read(self) -> Completion:
        """All of it."""
        [completion] = self._batch.read()
        return completion


class AsyncBatchStream(Reader):
    """BatchStream for asyncio: `async for row, piece in stream`, in the event loop in which it was made."""

    def __init__(self, owner: object, texts: Sequence[Text], pieces: asyncio.Queue[Piece]) -> None:
        super().__init__(owner, texts)
        self._pieces = pieces
        self._left = len(texts)  # whose last piece has not been read

    def __aiter__(self) -> AsyncIterator[tuple[int, str]]:
        return self

    async def __anext__(self) -> tuple[int, str]:
        while self._left:
            row, text, last = await self._pieces.get()
            self._left -= last
            if text:
                return row, text
        self.checked()
        raise StopAsyncIteration

    async def read(self) -> list[Completion]:
        """All of it. A task that is cancelled here ends the texts."""
        try:
            async for _ in self:
                pass
        finally:
            self.close()
        return self.completions


class AsyncStream(Reader):
    """Stream for asyncio: `async for piece in stream`, in the event loop in which it was made."""

    def __init__(self, owner: object, texts: Sequence[Text], pieces: asyncio.Queue[Piece]) -> None:
        super().__init__(owner, texts)
        self._batch = AsyncBatchStream(owner, texts, pieces)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return (await anext(self._batch))[1]

    async def read(self) -> Completion:
        """All of it. A task that is cancelled here ends the text."""
        [completion] = await self._batch.read()
        return completion
