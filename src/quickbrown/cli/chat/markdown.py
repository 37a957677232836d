"""Markdown on a terminal while it is being written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from rich import markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.syntax import Syntax
from rich.table import Table

from quickbrown.cli.chat.screen import STYLE, Screen, shown

SHARE = 5.0  # a drawing is followed by this many times as long without one, ...
PAUSE = 0.03  # ... and by so many seconds at least
CHUNK = 60  # lines of a code block after which the next blank line divides it
_BLANKS = re.compile(r" +((?:\x1b\[[0-9;]*m)*)$")


def line_end(state: StateInline, silent: bool) -> bool:
    """Line ends are kept, and the blanks that a line begins with: not all code stands between ```."""
    if state.src[state.pos] != "\n":
        return False
    if not silent:
        state.pending = state.pending.rstrip(" ")
        state.push("hardbreak", "br", 0)
    state.pos += 1
    return True


# HTML is text, as the terminal shows none; of images the address is shown, as of links.
PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("image")
PARSER.inline.ruler.at("newline", line_end)


class Heading(markdown.Heading):
    """On the left, of whatever level."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class Code(markdown.CodeBlock):
    """In the terminal's own colours, without a frame, so that it can be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(
            str(self.text).rstrip("\n"),
            self.lexer_name,
            theme="ansi_dark",
            word_wrap=True,
            background_color="default",
        )


class Item(markdown.ListItem):
    def render_bullet(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in super().render_bullet(console, options):
            if isinstance(segment, Segment) and segment.text == " \u2022 " and not console.encoding.startswith("utf"):
                segment = Segment(" * ", segment.style)
            yield segment


class Grid(markdown.TableElement):
    """Without blank lines around it: all blocks have those."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                table.show_edge = False
            yield table


class Rendered(markdown.Markdown):
    """A text as the terminal shows it: addresses of links are to be seen."""

    elements: ClassVar = markdown.Markdown.elements | {
        "heading_open": Heading,
        "fence": Code,
        "code_block": Code,
        "list_item_open": Item,
        "table_open": Grid,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = PARSER.parse(text)


class Stream:
    """Shows Markdown as it comes. Blocks that are finished stay on the screen; only the last is drawn anew.

    A drawing is followed by a pause that is longer than it took, so that it never takes more than a sixth of the time.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._text = ""  # of the block that is not finished
        self._above = 0  # rows of it that have left the live rows, as it is higher than the terminal
        self._gap = False  # whether a blank line comes before it
        self._due = 0.0  # when it may be drawn again
        self._drawn = True

    def feed(self, text: str) -> None:
        self._text += shown(text.replace("\r\n", "\n"))
        self._drawn = False
        if time.monotonic() >= self._due:
            self.draw()

    @property
    def pause(self) -> float | None:
        """Seconds until what has come is to be drawn; None if it has been."""
        return None if self._drawn else max(self._due - time.monotonic(), 0.0)

    def finish(self) -> None:
        self._keep_finished()
        self._keep(self._text, gap=False)
        self._text = ""

    def draw(self) -> None:
        start = time.monotonic()
        self._keep_finished()
        rest = self._lines(self._text)[self._above :]
        if (much := len(rest) - self.screen.height) > 0:
            self.screen.keep(rest[:much])
            self._above += much
            rest = rest[much:]
        self.screen.draw(rest)
        now = time.monotonic()
        self._due = now + max((now - start) * SHARE, PAUSE)
        self._drawn = True

    def _keep_finished(self) -> None:
        """Let the blocks stay that nothing that comes later can change."""
        while (cut := boundary(self._text)) is not None:
            at, rest, gap = cut
            self._keep(self._text[:at], gap)
            self._text = rest

    def _keep(self, text: str, gap: bool) -> None:
        self.screen.keep(self._lines(text)[self._above :])
        self._above = 0
        self._gap = gap

    def _lines(self, text: str) -> list[str]:
        """The rows of a text, with their styles, and the blank one that comes before."""
        console = self.screen.console
        with console.capture() as capture:
            console.print(Rendered(text), width=self.screen.width, end="")
        lines = trimmed([_BLANKS.sub(r"\1", line) for line in capture.get().split("\n")])
        return ["", *lines] if self._gap and lines else lines


def trimmed(lines: list[str]) -> list[str]:
    """Without blank lines at the beginning and the end."""
    full = [i for i, line in enumerate(lines) if STYLE.sub("", line).strip()]
    return lines[full[0] : full[-1] + 1] if full else []


def boundary(text: str) -> tuple[int, str, bool] | None:
    """Where the first blocks of a text end that are finished: up to which character, the text that is left, and whether
    a blank line is between the two. None if there is but one block.
    """
    tokens = PARSER.parse(text)
    blocks = [token for token in tokens if token.level == 0 and token.nesting >= 0 and token.map]
    if len(blocks) > 1:
        at = offset(text, start(blocks[-1]))
        return at, text[at:], True
    if not blocks:
        return None
    if blocks[0].type in ("bullet_list_open", "ordered_list_open"):
        return last_item(text, tokens)
    if blocks[0].type == "fence":
        return half_of_code(text, blocks[0])
    return None


def last_item(text: str, tokens: Iterable[Token]) -> tuple[int, str, bool] | None:
    items = [token for token in tokens if token.type == "list_item_open" and token.level == 1]
    if len(items) < 2:
        return None
    at = offset(text, start(items[-1]))
    return at, text[at:], False


def half_of_code(text: str, fence: Token) -> tuple[int, str, bool] | None:
    """A long block of code is divided at a blank line, so that what is drawn anew stays short."""
    lines = text.split("\n")
    first = start(fence)
    assert fence.map is not None
    blank = next((i for i in range(first + CHUNK, fence.map[1] - 1) if not lines[i].strip()), None)
    if blank is None:
        return None
    return offset(text, blank), "\n".join([lines[first], *lines[blank + 1 :]]), True


def start(token: Token) -> int:
    assert token.map is not None
    return token.map[0]


def offset(text: str, line: int) -> int:
    """Where a line begins."""
    at = 0
    for _ in range(line):
        at = text.index("\n", at) + 1
    return at


def last_block(text: str) -> str:
    """The end of a text that was cut off, from where its last block begins, so that what comes can be read with it."""
    while (cut := boundary(text)) is not None:
        text = cut[1]
    return text
