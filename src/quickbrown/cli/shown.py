"""Tokens and numbers as terminals of any kind show them."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata

_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def coloured() -> bool:
    """Whether standard output takes colours, and nobody minds (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns() -> int | None:
    """How wide the terminal is; None where there is none, and nothing need be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def quoted(data: bytes) -> str:
    """A token's bytes in quotes: what is no character, or would move the cursor, as an escape."""
    text = data.decode("utf-8", "surrogateescape")
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is a part of a character
        return f"\\x{code - 0xDC00:02x}"
    return letter if letter.isprintable() else f"\\u{code:04x}"


def harmless(text: str) -> str:
    """A text without what would move the cursor, but for line ends and tabs."""
    return "".join(
        letter if letter in "\n\t" else _escaped(letter) if not letter.isprintable() else letter for letter in text
    )


def width(text: str) -> int:
    """Columns that a text takes: letters of East Asia take two, marks that combine none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def cut(text: str, columns: int | None) -> str:
    """A line, ended by dots where it is too wide."""
    if columns is None or width(text) <= columns:
        return text
    kept = ""
    for letter in text:
        if width(kept + letter) > columns - 3:
            break
        kept += letter
    return kept + "..."[: max(columns, 0)]
