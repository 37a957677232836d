"""qb info: what a model is, without loading it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from quickbrown.cli.command import Command, Parser, whole, write
from quickbrown.cli.progress import Bars
from quickbrown.types import size
from quickbrown.weights import hub


def declare(parser: Parser) -> None:
    parser.add_argument("model", help="name, GGUF file or folder of the model")
    parser.add_argument(
        "--context",
        metavar="N",
        type=whole,
        help="say the memory for a text of N tokens (default: the model's context)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from quickbrown.describe import describe

    with Bars() as bars:
        path = hub.locate(args.model, progress=bars)
    facts = describe(path, args.context)
    if known := hub.catalogue().get(args.model):
        facts["license"] = known.license
    facts = {name: value for name, value in facts.items() if value is not None}
    write(json.dumps(facts, indent=2) + "\n" if args.json else "\n".join(lines(facts)) + "\n")
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


INFO = Command(
    "info",
    "Show what a model is, how it is held, and if it can run here.",
    declare,
    run,
    "MODEL [options]",
    """
qb info smollm2-135m
qb info model.gguf --context 4096      memory for a text of so many tokens
qb info ./folder --json
""",
)
