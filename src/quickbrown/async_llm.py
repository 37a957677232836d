"""AsyncLLM: an LLM for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, overload

from quickbrown.llm import LLM, Messages, Prompt, grouped, split
from quickbrown.streams import AsyncBatchStream, AsyncStream, Out, Piece, Reader, Text, ends
from quickbrown.types import Completion


class AsyncLLM:
    """An LLM whose methods are awaited. Texts are written on the LLM's own thread, and never hold up the event loop.

    model    an LLM, which others may go on using, or what `LLM` takes, with the same arguments beside it; loading does
             hold up the event loop: `await AsyncLLM.load(...)` does not

    A task that is cancelled while it waits for a whole text ends it. A stream's text ends when the stream is closed or
    let go, so that waiting for its next piece may be given up and taken up again.
    """

    def __init__(self, model: LLM | str | os.PathLike[str] = "smollm2-135m", **loading: Any) -> None:
        if isinstance(model, LLM) and loading:
            raise TypeError(f"{next(iter(loading))} belongs to loading a model, but this one is loaded")
        self.llm = model if isinstance(model, LLM) else LLM(model, **loading)

    @classmethod
    async def load(cls, model: str | os.PathLike[str] = "smollm2-135m", **loading: Any) -> AsyncLLM:
        """Load a model on a thread of its own. Arguments and errors are those of `LLM`."""
        return cls(await asyncio.to_thread(LLM, model, **loading))

    def close(self) -> None:
        """As `LLM.close`."""
        self.llm.close()

    @overload
    async def generate(self, prompt: str, *, n: None = None, **options: Any) -> Completion: ...
    @overload
    async def generate(self, prompt: str, *, n: int, **options: Any) -> list[Completion]: ...
    @overload
    async def generate(self, prompt: Sequence[Prompt], *, n: None = None, **options: Any) -> list[Completion]: ...
    @overload
    async def generate(self, prompt: Sequence[Prompt], *, n: int, **options: Any) -> list[list[Completion]]: ...
    async def generate(self, prompt: str | Sequence[Prompt], *, n: int | None = None, **options: Any) -> Any:
        """As `LLM.generate`."""
        if isinstance(prompt, str):
            return (await self._all([prompt], n, options))[0]
        return await self._all(prompt, n, options)

    @overload
    async def chat(self, messages: Messages, *, n: None = None, **options: Any) -> Completion: ...
    @overload
    async def chat(self, messages: Messages, *, n: int, **options: Any) -> list[Completion]: ...
    @overload
    async def chat(self, messages: Sequence[Messages], *, n: None = None, **options: Any) -> list[Completion]: ...
    @overload
    async def chat(self, messages: Sequence[Messages], *, n: int, **options: Any) -> list[list[Completion]]: ...
    async def chat(self, messages: Messages | Sequence[Messages], *, n: int | None = None, **options: Any) -> Any:
        """As `LLM.chat`."""
        conversations, several = split(messages)
        written = await self._all([self.llm.conversation(one) for one in conversations], n, options)
        return written if several else written[0]

    def stream(self, prompt: str, **options: Any) -> AsyncStream:
        """As `LLM.stream`, read with `async for`."""
        return AsyncStream(*self._begin([prompt], None, options))

    def stream_chat(self, messages: Messages, **options: Any) -> AsyncStream:
        """As `LLM.stream_chat`, read with `async for`."""
        return AsyncStream(*self._begin([self.llm.conversation(messages)], None, options))

    def stream_batch(self, prompts: Sequence[Prompt], *, n: int | None = None, **options: Any) -> AsyncBatchStream:
        """As `LLM.stream_batch`, read with `async for`."""
        return AsyncBatchStream(*self._begin(prompts, n, options))

    async def _all(self, prompts: Sequence[Prompt], n: int | None, options: dict[str, Any]) -> list[Any]:
        """What is written of each prompt: a Completion, or n in a list."""
        last: asyncio.Queue[Piece] = asyncio.Queue()
        reader = Reader(self.llm, self.llm.write(prompts, n, options, ends(into(last))))
        try:
            for _ in reader.texts:
                await last.get()
        finally:
            reader.close()
        return grouped(reader.checked(), n)

    def _begin(
        self, prompts: Sequence[Prompt], n: int | None, options: dict[str, Any]
    ) -> tuple[LLM, list[Text], asyncio.Queue[Piece]]:
        """What a stream is made of."""
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        return self.llm, self.llm.write(prompts, n, options, into(pieces)), pieces


def into(queue: asyncio.Queue[Piece]) -> Out:
    """Puts pieces into a queue of the running event loop, from any thread. It never waits: a queue has no bound."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("AsyncLLM works inside a running event loop; where there is none, use LLM") from None

    def out(piece: Piece) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, piece)

    return out
