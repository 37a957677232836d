"""What the commands share: their shape, their parser, and the options that describe a text."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from quickbrown.cli.progress import Bars
from quickbrown.types import SamplingParams

if TYPE_CHECKING:
    from quickbrown.llm import LLM

USAGE_ERROR = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Refuses in one sentence, with the nearest name that exists."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def parse(self, argv: list[str]) -> argparse.Namespace:
        args, unknown = self.parse_known_args(argv)
        for word in unknown:
            if word.startswith("-") and word != "--":
                near = difflib.get_close_matches(word.partition("=")[0], list(self._option_string_actions), n=1)
                self.error(f"there is no option {word}" + (f"; did you mean {near[0]}?" if near else ""))
        if unknown:
            self.error(f"{unknown[0]!r} is one word too many; a text of several words goes in quotes")
        return args

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


@dataclass(frozen=True)
class Command:
    """`qb NAME`: what it is for, the options it takes, and what it does; `run` returns the exit code."""

    name: str
    help: str
    declare: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]

    def parser(self) -> Parser:
        parser = Parser(f"qb {self.name}", self.help)
        self.declare(parser)
        return parser


# An option that was not given is absent from the namespace: each default exists once, in SamplingParams or LLM.
SAMPLING: dict[str, dict[str, Any]] = {
    "max_new_tokens": {"metavar": "N", "type": int, "help": "most tokens to write"},
    "temperature": {"metavar": "T", "type": float, "help": "0 takes the likeliest token, 1 draws as the model says"},
    "top_k": {"metavar": "K", "type": int, "help": "draw among the K likeliest tokens; 0 is off"},
    "top_p": {"metavar": "P", "type": float, "help": "draw among the fewest tokens that reach probability P; 1 is off"},
    "min_p": {"metavar": "P", "type": float, "help": "drop tokens below this share of the likeliest's; 0 is off"},
    "seed": {"metavar": "S", "type": int, "help": "same seed, same text"},
    "max_time": {"metavar": "SECONDS", "type": float, "help": "end the text where it is after this time"},
    "stop": {"metavar": "STR", "action": "append", "help": "end the text before this string; may be repeated"},
    "ignore_eos": {"action": "store_true", "help": "go on after the model's own end of text"},
}
LOADING: dict[str, dict[str, Any]] = {
    "threads": {
        "metavar": "N",
        "type": int,
        "help": "threads to compute with (default: the physical cores it may use)",
    },
    "memory": {
        "metavar": "BYTES",
        "help": "for keys and values, like 2GB or 512MiB (default: four texts of the full context, "
        "at most a quarter of what is free)",
    },
    "dtype": {
        "choices": ["auto", "float32"],
        "help": "float32 computes without rounding to fewer bits (default: auto)",
    },
    "activations": {
        "choices": ["auto", "bf16"],
        "help": "what quantized weights multiply: bf16 is nearer to the unrounded model than auto's 8 bits, and slower",
    },
}


def declare_model(parser: Parser) -> None:
    parser.add_argument(
        "-m", "--model", default=argparse.SUPPRESS, help="name or GGUF file of the model (default: smollm2-135m)"
    )
    for name, settings in LOADING.items():
        parser.add_argument(flag(name), default=argparse.SUPPRESS, **settings)


def declare_sampling(parser: Parser) -> None:
    group = parser.add_argument_group("how the text is written")
    defaults = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
    for name, settings in SAMPLING.items():
        value = defaults[name]
        meaning = settings["help"] + (f" (default: {value})" if type(value) in (int, float) else "")
        group.add_argument(flag(name), default=argparse.SUPPRESS, **{**settings, "help": meaning})


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def given(args: argparse.Namespace, table: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The options of a table that were typed."""
    return {name: getattr(args, name) for name in table if hasattr(args, name)}


def load(args: argparse.Namespace) -> LLM:
    """The model that was asked for, after the sampling options were found good: a mistyped one costs no load."""
    SamplingParams(**given(args, SAMPLING))
    from quickbrown import LLM

    model = {"model": args.model} if hasattr(args, "model") else {}
    with Bars() as bars:
        return LLM(**model, **given(args, LOADING), progress=bars)


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A line on stderr, below whatever was written so far."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def size(count: float) -> str:
    """Bytes for people: 93.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
