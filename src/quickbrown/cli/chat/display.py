"""How an answer is shown while it comes: as Markdown on a terminal, or as it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from quickbrown.cli.chat.screen import Screen, say, shown
from quickbrown.cli.command import write

if TYPE_CHECKING:
    from quickbrown.cli.chat.markdown import Stream


class Display(Protocol):
    """One answer being shown."""

    def begin(self, already: str) -> None:
        """An answer is waited for. `already`: what of it was said before, where it is gone on with."""

    def thought(self, text: str) -> None: ...

    def said(self, text: str) -> None: ...

    def draw(self) -> None:
        """Show what has come."""

    @property
    def pause(self) -> float | None:
        """Seconds until `draw` is to be called, if nothing comes before."""

    def end(self) -> None: ...


class Plain:
    """The words as they are, and nothing else. On a terminal they are made safe."""

    pause = None

    def begin(self, already: str) -> None:
        self._thought = 0
        self._last = ""
        self._clean = sys.stdout.isatty()

    def thought(self, text: str) -> None:
        self._thought += len(text)

    def said(self, text: str) -> None:
        if not self._last:
            text = text.lstrip("\n")
        if text:
            self._last = text[-1]
            write(shown(text) if self._clean else text)

    def draw(self) -> None:
        pass

    def end(self) -> None:
        if self._last not in ("", "\n"):
            write("\n")
        if self._thought:
            say(folded(self._thought))


class Rich:
    """Markdown, below a line that stands for what was thought."""

    def __init__(self) -> None:
        self._screen: Screen | None = None
        self._stream: Stream | None = None

    @property
    def screen(self) -> Screen:
        if self._screen is None:
            from rich.console import Console

            self._screen = Screen(Console(highlight=False, soft_wrap=False))
        return self._screen

    def begin(self, already: str) -> None:
        self._thought = 0
        self._stream = None
        self.screen.draw([self._dim("...")])
        from quickbrown.cli.chat.markdown import Stream, last_block

        self._new = Stream(self.screen)
        self._already = last_block(already)

    def thought(self, text: str) -> None:
        self._thought += len(text)
        self.screen.draw([self._dim(f"thinking ... {self._thought:,} characters")])

    def said(self, text: str) -> None:
        if self._stream is None:
            if not text.strip():  # what comes between the thought and the words
                return
            self._fold()
            self._stream = self._new
            text = self._already + (text if self._already else text.lstrip("\n"))
        self._stream.feed(text)

    def draw(self) -> None:
        if self._stream is not None:
            self._stream.draw()

    @property
    def pause(self) -> float | None:
        return None if self._stream is None else self._stream.pause

    def end(self) -> None:
        if self._stream is None:
            self._fold()
        else:
            self._stream.finish()

    def _fold(self) -> None:
        self.screen.keep([self._dim(folded(self._thought))] if self._thought else [])

    def _dim(self, text: str) -> str:
        """A line of the program's own, cut to the width."""
        console = self.screen.console
        with console.capture() as capture:
            console.print(text[: self.screen.width], style="dim", end="", markup=False)
        return capture.get()


def folded(characters: int) -> str:
    return f"(thought for {characters:,} characters; /show reasoning)"
