"""Writes what documents say of the command line and of its options, from the code's own tables."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from quickbrown.options import options
from quickbrown.types import SamplingParams

DOCS = Path(__file__).parents[1] / "docs"
DEFAULTS = DOCS / "defaults.md"
COMMAND = "python tests/cli_page.py"
_TABLE = re.compile(r"^\| option \| default \| meaning \|\n(?:\|.*\n)+", re.MULTILINE)


def defaults() -> str:
    """docs/defaults.md with the table of today."""
    text = DEFAULTS.read_text("utf-8")
    assert len(_TABLE.findall(text)) == 1
    values = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
    rows = "".join(f"| `{name}` | {values[name]} | {one.meaning} |\n" for name, one in options(SamplingParams).items())
    return _TABLE.sub(lambda _: f"| option | default | meaning |\n|---|---|---|\n{rows}", text)


if __name__ == "__main__":
    DEFAULTS.write_text(defaults(), "utf-8")
