"""qb bench: how fast a model is on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from quickbrown.cli.command import Command, Parser, declare_model, load, size, write
from quickbrown.cli.info import lines

COUNTS = {
    "prompt": (512, "tokens of the prompt whose reading is measured"),
    "new": (64, "tokens that each text is continued by"),
    "depth": (16, "tokens of each text before it is continued"),
    "batch": (1, "texts that are continued together"),
    "repeat": (5, "times that each is measured"),
}


def declare(parser: Parser) -> None:
    for name, (value, meaning) in COUNTS.items():
        parser.add_argument(f"--{name}", metavar="N", type=int, default=value, help=f"{meaning} (default: {value})")
    parser.add_argument("--json", action="store_true", help="write one line of JSON")
    declare_model(parser)


def run(args: argparse.Namespace) -> int:
    from quickbrown.bench.measure import Task, measure

    task = Task(**{name: getattr(args, name) for name in COUNTS})
    figures = measure(lambda: load(args), task)
    write((json.dumps(figures) if args.json else "\n".join(lines(table(figures)))) + "\n")
    return 0


def table(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of `measure` as `lines` shows them."""
    task = figures["task"]
    peak = figures["peak_bytes"]
    return {
        "model": figures["model"],
        "kernels": f"{figures['kernels']}, {figures['threads']} threads",
        "loading": f"{figures['load_seconds']:.3f} s",
        "warm-up": f"{figures['warm_up_seconds']:.3f} s, not counted below",
        "first token": f"{span(figures['first_token_seconds'], 3)} s after a prompt of {task['prompt']} tokens",
        "prompt": f"{span(figures['prompt_tokens_per_second'], 1)} tokens/s",
        "decode": f"{span(figures['decode_tokens_per_second'], 1)} tokens/s, "
        f"{task['batch']} x {task['new']} tokens after {task['depth']}",
        "peak memory": "unknown here" if peak is None else size(peak),
        "repetitions": f"{task['repeat']}; a figure is their median (least-most)",
        "versions": figures["versions"],
    }


def span(spread: Mapping[str, float], digits: int) -> str:
    return f"{spread['median']:.{digits}f} ({spread['least']:.{digits}f}-{spread['most']:.{digits}f})"


BENCH = Command("bench", "Measure how fast a model reads and writes here, and its memory.", declare, run)
