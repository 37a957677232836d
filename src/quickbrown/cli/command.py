"""What the commands share: their shape, their parser, and the options that describe a text."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from quickbrown.cli.progress import Bars
from quickbrown.options import options
from quickbrown.types import SamplingParams

if TYPE_CHECKING:
    from quickbrown.llm import LLM

USAGE_ERROR = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Refuses in one sentence, with the nearest name that exists."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, usage=f"{prog} [options]")

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


def ids(text: str) -> list[int]:
    """5,6: token ids with commas between them."""
    if not re.fullmatch(r"-?\d{1,9}(,-?\d{1,9})*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"give token ids with commas between them, like 5,6, not {text!r}")
    return list(map(int, text.split(",")))


def parsed(text: str) -> Any:
    """A value in JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON: {error}") from None


# How a value is read that help shows as ... (see options.Option)
_READ: dict[str, dict[str, Any]] = {
    "": {"action": "store_true"},
    "N": {"type": int},
    "X": {"type": float},
    "SECONDS": {"type": float},
    "TEXT": {"action": "append"},
    "IDS": {"type": ids},
    "JSON": {"type": parsed},
}
# An option that was not given is absent from the namespace: each default exists once, in SamplingParams or LLM.
SAMPLING = {name: one for name, one in options(SamplingParams).items() if name != "logprobs"}
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
    """The options of `SamplingParams`, under their headings."""
    groups: dict[str, Any] = {}
    defaults = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
    for name, one in SAMPLING.items():
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        settings = dict(_READ[one.value])
        if one.value:
            settings["metavar"] = one.value
        repeated = "; may be repeated" if one.value == "TEXT" else ""
        value = f" (default: {defaults[name]})" if type(defaults[name]) in (int, float) else ""
        groups[one.group].add_argument(
            *map(flag, (name, *one.also)),
            dest=name,
            default=argparse.SUPPRESS,
            help=one.meaning.replace("%", "%%") + repeated + value,
            **settings,
        )


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def given(args: argparse.Namespace, table: Iterable[str]) -> dict[str, Any]:
    """The options of a table that were typed."""
    return {name: getattr(args, name) for name in table if hasattr(args, name)}


def load(args: argparse.Namespace) -> LLM:
    """The model that was asked for, after the sampling options were found good: a mistyped one costs no load."""
    SamplingParams.from_options(given(args, SAMPLING))
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
