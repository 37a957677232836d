"""Text on a terminal: what may be sent to it, and rows at its end that can still change."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from quickbrown.cli.command import note, write

if TYPE_CHECKING:
    from rich.console import Console

# Control characters but tab and line end, what turns the direction of writing, what cannot be written.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def shown(text: str) -> str:
    """A text that a terminal may be sent: control characters as \\x1b and the like, so that they do nothing."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def say(text: str) -> None:
    """Lines of the program's own, with words of others perhaps, on standard error; on a terminal divided at blanks."""
    lines = shown(text).split("\n")
    if sys.stderr.isatty():
        width = max(shutil.get_terminal_size().columns - 1, 10)
        lines = [part for line in lines for part in textwrap.wrap(line, width, replace_whitespace=False) or [""]]
    note("\n".join(lines))


class Screen:
    """The end of a terminal: lines that stay, and below them rows that are drawn anew."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: list[str] = []

    @property
    def width(self) -> int:
        """Columns to write in; the last one stays free, as terminals differ in what they do after it."""
        return max(self.console.width - 1, 1)

    @property
    def height(self) -> int:
        return max(self.console.height - 1, 1)

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines in the place of the live rows."""
        self._put(lines)
        self._live = list(lines)

    def keep(self, lines: Sequence[str]) -> None:
        """Put these lines in the place of the live rows; they stay."""
        self._put([*lines, ""] if lines else [])
        self._live = []

    def _put(self, lines: Sequence[str]) -> None:
        up = sum(self._rows(line) for line in self._live) - 1
        begin = "\r" + (f"\x1b[{up}A" if up > 0 else "")
        if self._live or lines:
            write(begin + "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J")

    def _rows(self, line: str) -> int:
        """How many rows a line takes that was written when the terminal was perhaps wider: terminals wrap it anew."""
        from rich.cells import cell_len

        return max(-(-cell_len(STYLE.sub("", line)) // max(self.console.width, 1)), 1)


@contextlib.contextmanager
def unechoed() -> Iterator[None]:
    """While it lasts, what is typed is kept for later, as it is, and not shown in the middle of an answer."""
    try:
        import termios
    except ImportError:  # on Windows
        yield
        return
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError, OSError):
        yield
        return
    silent = [*before]
    silent[0] &= ~termios.ICRNL  # or else an Enter would come later as a Ctrl-J
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
