"""qb score: how well a model knows a text."""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from typing import Any

from quickbrown.cli.command import Command, Parser, declare_model, load, text_of, whole, write
from quickbrown.cli.generate import finite
from quickbrown.cli.progress import Count
from quickbrown.types import perplexity


def declare(parser: Parser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="texts to score; - or none reads standard input")
    parser.add_argument(
        "--stride", metavar="N", type=whole,
        help="of a text longer than the context: judge each token with at least context - N before it, in passes that "
        "begin N tokens apart; smaller is better and slower (default: half the context)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="write a line of JSON for each file")
    declare_model(parser)


def run(args: argparse.Namespace) -> int:
    texts = {name: text_of(None, name, "text") for name in args.files or ["-"]}
    for name, text in texts.items():
        if not text:
            raise ValueError(f"{'standard input' if name == '-' else name} is empty; there is nothing to score")
    llm = load(args)
    rows = []
    for name, text in texts.items():
        with Count("tokens", 0) as count:
            score = llm.score(text, stride=args.stride, progress=partial(tell, count))
        rows.append(figures(name, len(score.tokens), score.judged, score.logprob, len(text.encode())))
    known = [row for row in rows if row["judged"]]
    if len(known) > 1:
        names = ("tokens", "judged", "logprob", "bytes")
        rows.append(figures("all", *(sum(row[name] for row in known) for name in names)))
    if args.json:
        for row in rows:
            said = {name: finite(value) if isinstance(value, float) else value for name, value in row.items()}
            write(json.dumps(said, ensure_ascii=False) + "\n")
        return 0
    wide = max(len("file"), *(len(row["file"]) for row in rows))
    write(f"{'file':{wide}} {'tokens':>9} {'log-prob':>12} {'a token':>8} {'perplexity':>11} {'bits/byte':>9}\n")
    for row in rows:
        if not row["judged"]:
            write(f"{row['file']:{wide}} {row['tokens']:9,}  nothing stands before its only token\n")
            continue
        write(
            f"{row['file']:{wide}} {row['tokens']:9,} {row['logprob']:12.2f} {row['logprob'] / row['judged']:8.3f} "
            f"{row['perplexity']:11.3f} {row['bits_per_byte']:9.3f}\n"
        )
    return 0


def tell(count: Count, done: int, total: int) -> None:
    count.total = total
    count(done, done)


def figures(file: str, tokens: int, judged: int, logprob: float, size: int) -> dict[str, Any]:
    """A row: natural logarithms, summed over the tokens that were judged; nan and inf where there is nothing to say."""
    return {
        "file": file,
        "bytes": size,
        "tokens": tokens,
        "judged": judged,
        "logprob": logprob,
        "perplexity": perplexity(logprob, judged),
        "bits_per_byte": -logprob / math.log(2) / size,
    }


EXAMPLES = """
qb score letter.txt story.txt        which of them does the model expect more?
cat *.md | qb score                  log-probability and perplexity of a pipe
qb score book.txt --stride 256       more context before each token, and slower
"""
SCORE = Command("score", "Log-probability and perplexity of files.", declare, run, "[FILE ...] [options]", EXAMPLES)
