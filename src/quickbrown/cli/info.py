"""qb info: what is in a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from quickbrown.cli.command import Command, Parser, load, size, write


def declare(parser: Parser) -> None:
    parser.add_argument("model", help="name or GGUF file of the model")


def run(args: argparse.Namespace) -> int:
    write("\n".join(lines(load(args).info())) + "\n")
    return 0


def lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A fact a line, tables indented below their name; a name that speaks of `bytes` is a size."""
    wide = max(map(len, facts), default=0)
    for name, value in facts.items():
        label = f"{indent}{name if indent else name.replace('_', ' '):{wide}}"
        if isinstance(value, Mapping):
            yield label.rstrip()
            yield from lines(value, indent + "  ")
        elif isinstance(value, (list, tuple)):
            yield f"{label}  {', '.join(map(str, value))}"
        elif isinstance(value, bool) or value is None:
            yield f"{label}  {'yes' if value else 'no'}"
        elif isinstance(value, int):
            yield f"{label}  {value:,}" + (f" ({size(value)})" if "bytes" in name and value >= 1000 else "")
        else:
            yield f"{label}  {value}"


INFO = Command("info", "Show what is in a model: family, sizes, formats and how they are held.", declare, run)
