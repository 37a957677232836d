"""The nouns that cross rooms. This module imports no other room."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class FinishReason(str, enum.Enum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    TIME = "time"
    CANCELLED = "cancelled"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


class EditKind(enum.IntEnum):
    """What an Edit does. csrc/sample/edits.h numbers them alike."""

    SCALE = 0  # logits times the value where they are negative, else divided by it
    ADD = 1  # the value added to the logit
    PUT = 2  # the value instead of the logit
    ONLY = 3  # -inf instead of every logit but those whose bit is set


class Edit(NamedTuple):
    """One change of a row of logits, (V,) float32, as plain data; backends/sampling.py says what it means.

    ids     (k,) int32, from 0 to V - 1, taken one after another; of ONLY a bit for each of V, the lowest first, in
            (ceil(V / 32),) int32
    values  (1,) float32 for all ids, or (k,); of ONLY (0,)
    """

    kind: EditKind
    ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Finish:
    """How a sequence ended: the reason, and what caused it.

    `detail` is the stop token's id (int) or the stop string (str) for `stop`, the message for `error`, else None.
    """

    reason: FinishReason
    detail: int | str | None = None


class UnknownOption(TypeError):
    """An option that nothing honours; the message names the nearest one that exists."""

    def __init__(self, name: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known options: {', '.join(sorted(known))}."
        super().__init__(f"unknown option {name!r}; {hint}")


def is_seed(value: object) -> bool:
    """Whether noise can be keyed by a value: a whole number from 0 to 2**64 - 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) < 2**64


class TooLong(ValueError):
    """A text that could not be finished even if it had all memory, or the model's whole context, to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a text is to be written. One set of defaults for `LLM`, the command line and the server.

    max_new_tokens  most tokens to write, >= 1
    temperature     0 takes the likeliest token; otherwise logits are divided by it before the draw
    top_k           draw among the k likeliest only; 0 is off
    top_p           draw among the fewest tokens that together reach this probability; 1 is off
    min_p           drop tokens less likely than this share of the likeliest one's probability; 0 is off
    seed            one for the call: every row of it draws its own from that; several, one a prompt: that row's own,
                    under which it is what it would be alone; None takes the next of `set_seed`, or a fresh one
    max_time        seconds after which a text ends where it is, counted from the call; None is off
    stop            strings that end the text; they are cut from it
    ignore_eos      go on after the model's own end-of-text tokens
    logprobs        report the log-probability of each chosen token (of the unfiltered distribution at temperature 1)

    Filters apply in the order temperature, top_k, top_p, min_p, each on what the one before left.
    Raises ValueError, with a sentence, for a value out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | tuple[int, ...] | None = None
    max_time: float | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "max_time"):
            value = getattr(self, name)
            if isinstance(value, Integral) and not isinstance(value, bool):  # numpy's become Python's
                object.__setattr__(self, name, int(value))
            elif isinstance(value, Real) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))

        def check(name: str, kind: type, good: bool, meaning: str) -> None:
            value = getattr(self, name)
            if (isinstance(value, bool) and kind is not bool) or not good:
                raise ValueError(f"{name} must be {meaning}, not {value!r}")

        def number(value: object) -> bool:
            return isinstance(value, (int, float)) and math.isfinite(value)

        def integer(value: object) -> bool:
            return isinstance(value, int)

        most = 2**31 - 1
        check(
            "max_new_tokens",
            int,
            integer(self.max_new_tokens) and 1 <= self.max_new_tokens <= most,
            "a whole number of at least 1",
        )
        check("temperature", float, number(self.temperature) and 0 <= self.temperature <= 1e6, "from 0 to 1,000,000")
        check("top_k", int, integer(self.top_k) and 0 <= self.top_k <= most, "a whole number of at least 0 (0 is off)")
        check("top_p", float, number(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1")
        check("min_p", float, number(self.min_p) and 0 <= self.min_p <= 1, "between 0 and 1")
        seed = self.seed
        if isinstance(seed, (list, tuple)):
            seed = tuple(int(one) if is_seed(one) else one for one in seed)
        object.__setattr__(self, "seed", seed)
        check(
            "seed",
            int,
            seed is None or all(map(is_seed, seed if isinstance(seed, tuple) else (seed,))),
            "None, a whole number from 0 to 2**64 - 1, or several",
        )
        check(
            "max_time",
            float,
            self.max_time is None or (number(self.max_time) and self.max_time > 0),
            "None or a number of seconds above 0",
        )
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, (list, tuple)) or not all(isinstance(s, str) and s for s in stop):
            raise ValueError(f"stop must be strings that are not empty, not {self.stop!r}")
        object.__setattr__(self, "stop", tuple(stop))
        check("ignore_eos", bool, isinstance(self.ignore_eos, bool), "True or False")
        check("logprobs", bool, isinstance(self.logprobs, bool), "True or False")

    @classmethod
    def from_options(cls, options: dict[str, object]) -> SamplingParams:
        """Keyword arguments of a caller. Raises UnknownOption for a name that nothing honours."""
        known = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise UnknownOption(name, known)
        return cls(**options)  # type: ignore[arg-type]


class Event(NamedTuple):
    """What one step added to one sample of a request: tokens (perhaps none), and how it ended, if it did.

    reused  how many tokens of the prompt were found in memory, and not computed again
    """

    request: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    finish: Finish | None = None
    sample: int = 0
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished text. `tokens` include the stop token, if one ended it; `text` does not.

    reused_tokens  how many of the prompt's tokens another text had left in memory: they cost nothing
    seed           the row's own seed, if it drew: `seed=[that]` writes this text again, alone or in company
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Finish
    logprobs: tuple[float, ...] | None = None
    seed: int | None = None
    reused_tokens: int = 0

    def __str__(self) -> str:
        return self.text
