"""qb generate: continue a text."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing

from quickbrown.cli.command import (
    SAMPLING,
    USAGE_ERROR,
    Command,
    Parser,
    declare_model,
    declare_sampling,
    given,
    load,
    note,
    write,
)
from quickbrown.types import Completion


def declare(parser: Parser) -> None:
    parser.add_argument(
        "prompt", nargs="?", help="the text to continue; - reads standard input (less one line end at its end)"
    )
    parser.add_argument("--echo", action="store_true", help="write the prompt first (always done on a terminal)")
    parser.add_argument("--stats", action="store_true", help="end with a line of figures on standard error")
    declare_model(parser)
    declare_sampling(parser)


def run(args: argparse.Namespace) -> int:
    if args.prompt is None and sys.stdin.isatty():
        note('qb generate: no prompt; try: qb generate "The quick brown", or - to read standard input')
        return USAGE_ERROR
    prompt = read_input() if args.prompt in (None, "-") else args.prompt
    start = time.perf_counter()
    llm = load(args)
    loaded = time.perf_counter() - start
    with closing(llm.stream(prompt, **given(args, SAMPLING))) as stream:
        last = ""
        try:
            if args.echo or sys.stdout.isatty():
                write(last := prompt)
            for last in stream:
                write(last)
        finally:
            if not last.endswith("\n"):
                write("\n")
        if args.stats:
            note(figures(stream.completion, loaded, stream.first_token_seconds, stream.seconds))
    return 0


def read_input() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 text: byte {error.start} cannot be read") from None


def figures(completion: Completion, loaded: float, first: float, total: float) -> str:
    """One line: what it took to load, to read the prompt, to write each token after the first, and why it ended."""
    written = len(completion.tokens)
    rate = f"{(written - 1) / (total - first):.1f} tokens/s" if written > 1 and total > first else "no rate"
    cause = "" if completion.finish.detail is None else f" ({completion.finish.detail!r})"
    return (
        f"loaded in {loaded:.3f} s · {completion.prompt_tokens} prompt tokens · first token after {first:.3f} s · "
        f"{written} new tokens · {rate} · {completion.finish.reason}{cause}"
    )


GENERATE = Command("generate", "Continue a text.", declare, run)
