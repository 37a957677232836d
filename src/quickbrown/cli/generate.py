"""qb generate: continue a text, or answer a message."""

from __future__ import annotations

import argparse
import codecs
import json
import math
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from quickbrown.cli.command import (
    SAMPLING,
    Command,
    Parser,
    declare_model,
    declare_sampling,
    given,
    load,
    note,
    text_of,
    whole,
    write,
)
from quickbrown.types import Completion

if TYPE_CHECKING:
    from quickbrown.llm import LLM
    from quickbrown.streams import BatchStream, Text


def declare(parser: Parser) -> None:
    add = parser.add_argument
    add("prompt", nargs="?", help="the text to continue; - reads standard input (less one line end at its end)")
    add("-f", "--file", metavar="FILE", help="read the prompt from a file")
    add("--chat", action="store_true", help="the prompt is a message: answer it, by the model's chat template")
    add("--raw", action="store_true", help="the prompt is continued as it is (this is the default)")
    add("--system", metavar="TEXT", help="what the model is told before the message; implies --chat")
    add(
        "-n", "--num-return-sequences", metavar="N", dest="n", type=whole, default=1,
        help="write so many texts; needs a temperature, or all would be the same (default: 1)",
    )  # fmt: skip
    add(
        "--echo",
        action="store_true",
        help="write the prompt first (always done where a terminal shows a text continued)",
    )
    add("--stats", action="store_true", help="end with a line of figures on standard error")
    add("--json", action="store_true", help="write events instead of text, a line of JSON each")
    add(
        "--jsonl", metavar="IN",
        help='write all texts of a file together: a line is a prompt in quotes, or {"prompt": ...} or '
        '{"messages": [...]}, with options of its own',
    )  # fmt: skip
    add(
        "--output", metavar="OUT",
        help="where the lines of --jsonl go; what is in it already is not written again (default: standard output)",
    )  # fmt: skip
    declare_model(parser)
    declare_sampling(parser)


def run(args: argparse.Namespace) -> int:
    if args.raw and (args.chat or args.system is not None):
        raise ValueError("--raw continues a text and --chat answers a message; leave one out")
    options = given(args, SAMPLING)
    if args.jsonl is not None:
        from quickbrown.cli.batch import batch

        return batch(args, options)
    if args.output is not None:
        raise ValueError("--output belongs to --jsonl; a single text goes to standard output: qb generate ... > FILE")
    draws = options.get("temperature", 0) > 0 or (options.get("do_sample") and "temperature" not in options)
    if args.n > 1 and not draws:
        raise ValueError(f"{args.n} texts would all be the same without a draw; give --temperature 1 or --do-sample")
    text = text_of(args.prompt, args.file, "prompt")
    start = time.perf_counter()
    llm = load(args)
    loaded = time.perf_counter() - start
    if args.json:
        options["logprobs"] = True
    prompt = prompt_of(text, args)
    with closing(llm.stream_batch([prompt], n=args.n, **options)) as stream:
        if args.json:
            event("start", {"model": str(llm.path), "load_seconds": round(loaded, 6)})
            tell(llm, stream)
        elif args.n == 1:
            spell(stream, text if args.echo or (sys.stdout.isatty() and prompt == text) else "")
        else:
            for number, completion in enumerate(stream.read(), 1):
                end = "" if completion.text.endswith("\n") else "\n"
                write(f"--- {number} of {args.n} ---\n{completion.text}{end}")
        if args.stats:
            note(figures(stream.completions, loaded, stream.first_token_seconds, stream.seconds))
    return 0


def prompt_of(text: str, args: argparse.Namespace) -> Any:
    """The text, or the conversation that it is the last message of."""
    if args.system is None and not args.chat:
        return text
    opening = [] if args.system is None else [{"role": "system", "content": args.system}]
    return [*opening, {"role": "user", "content": text}]


def spell(stream: BatchStream, prompt: str) -> None:
    """Write a text as it comes, and a line end behind it, whatever happens after its first letter."""
    last = ""
    try:
        if prompt:
            write(last := prompt)
        for _, last in stream:
            write(last)
    except BaseException:
        if last and not last.endswith("\n"):
            write("\n")
        raise
    if not last.endswith("\n"):
        write("\n")


def event(kind: str, facts: dict[str, Any]) -> None:
    write(json.dumps({"event": kind} | facts, ensure_ascii=False) + "\n")


def tell(llm: LLM, stream: BatchStream) -> None:
    """Events of each token as it comes, and of how each text ended, whatever happens."""
    rows = [Told(llm, text) for text in stream.texts]
    try:
        for row, _ in stream:
            rows[row].tokens()
    finally:
        stream.close()
        for told in rows:
            told.tokens()
            event("end", {"row": told.text.row} | record(told.text.completion) | timings(told.text))


class Told:
    """A text, and how many of its tokens have been told."""

    def __init__(self, llm: LLM, text: Text) -> None:
        self.llm, self.text, self.count = llm, text, 0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def tokens(self) -> None:
        """Tell the new ones. `text` is what a token adds in whole characters, of special tokens their name."""
        tokens = list(self.text.tokens)
        for at in range(self.count, len(tokens)):
            text = self.decoder.decode(self.llm.tokenizer.token_bytes(tokens[at]))
            logprob = finite(self.text.logprobs[at])
            event("token", {"row": self.text.row, "id": tokens[at], "text": text, "logprob": logprob})
        self.count = len(tokens)


def record(completion: Completion) -> dict[str, Any]:
    """A finished text, as a line of JSON tells it."""
    finish = completion.finish
    return {
        "text": completion.text,
        "finish_reason": str(finish.reason),
        "stopped_by": finish.detail,
        "prompt_tokens": completion.prompt_tokens,
        "new_tokens": len(completion.tokens),
        "seed": completion.seed,
    }


def timings(text: Text) -> dict[str, float | None]:
    """What depends on the machine and on other texts."""
    first, total = text.first_token_seconds, text.seconds
    rate = rate_of(len(text.tokens), first, total)
    return {
        "reused_tokens": text.completion.reused_tokens,
        "guessed_tokens": text.completion.guessed_tokens,
        "accepted_tokens": text.completion.accepted_tokens,
        "first_token_seconds": finite(round(first, 6)),
        "seconds": finite(round(total, 6)),
        "tokens_per_second": None if rate is None else round(rate, 2),
    }


def finite(value: float) -> float | None:
    """A number as JSON can say it: None for nan and infinities."""
    return value if math.isfinite(value) else None


def rate_of(written: int, first: float, total: float) -> float | None:
    """Tokens a second after the first one; None where that says nothing."""
    return (written - 1) / (total - first) if written > 1 and total > first else None


def figures(completions: list[Completion], loaded: float, first: float, total: float) -> str:
    """One line: what it took to load, to read the prompt, to write each token after the first, and why it ended."""
    written = sum(len(one.tokens) for one in completions)
    rate = rate_of(written, first, total)
    guessed, accepted = (sum(getattr(one, f"{what}_tokens") for one in completions) for what in ("guessed", "accepted"))
    right = f" ({accepted} of {guessed} guesses right)" if guessed else ""
    ends = []
    for one in completions:
        cause = "" if one.finish.detail is None else f" ({one.finish.detail!r})"
        ends.append(f"{one.finish.reason}{cause}")
    return (
        f"loaded in {loaded:.3f} s, {completions[0].prompt_tokens} prompt tokens, first token after {first:.3f} s, "
        f"{written} new tokens, {'no rate' if rate is None else f'{rate:.1f} tokens/s'}{right}, "
        f"{', '.join(ends)}"
    )


EXAMPLES = """
qb "The quick brown"                             continue a text
qb generate --chat "Why is the sky blue?"        answer a message
qb generate -f letter.txt --max-new-tokens 100   continue a file
git diff | qb generate --system "Describe this change." -
qb "Once upon a time" --temperature 0.8 --seed 7 -n 3
qb generate --jsonl in.jsonl --output out.jsonl  many texts together; goes on where it was stopped
qb "The quick brown" --json | jq .text           tokens and log-probabilities for programs
"""
GENERATE = Command("generate", "Continue a text, or answer a message.", declare, run, "[PROMPT] [options]", EXAMPLES)
