"""The nouns that cross rooms. This module imports no other room but `options`."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from quickbrown.options import (
    ABOVE_0,
    BIASES,
    COUNT,
    CUTOFF,
    DECAY,
    ENDS,
    FLAG,
    ID,
    ID_OR_IDS,
    IDS,
    MOST,
    PART,
    SECONDS,
    SEEDS,
    SIZE,
    STRINGS,
    WORDS,
    Check,
    number,
    option,
    options,
    plain,
    whole,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


# Headings of the options
LENGTH, DRAWING, LOGITS = "how long the text becomes", "how tokens are drawn", "what is done to logits first"
SPEED, RESULT = "how fast it comes", "what comes back"


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


class TooLong(ValueError):
    """A text that could not be finished even if it had all memory, or the model's whole context, to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a text is to be written. One set of defaults for `LLM`, the command line and the server.

    Options that transformers has too bear its names and do what they do there, with other defaults. Filters apply in
    the order temperature, top_h, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, each on what the one
    before left, behind everything that changes logits.

    Raises ValueError, with a sentence, for a value out of range.
    """

    # How long the text becomes
    max_new_tokens: int = option(256, whole(1, MOST), LENGTH, "N", "most tokens to write")
    max_length: int | None = option(None, SIZE, LENGTH, "N", "most tokens of prompt and text together")
    min_new_tokens: int | None = option(None, COUNT, LENGTH, "N", "write no end before so many tokens")
    min_length: int = option(0, COUNT, LENGTH, "N", "write no end before prompt and text together have so many tokens")
    max_time: float | None = option(
        None, SECONDS, LENGTH, "SECONDS", "end the text where it is after this time, counted from the call; None is off"
    )
    stop: tuple[str, ...] = option(
        (), STRINGS, LENGTH, "TEXT", "end the text before this string, which is cut from it", also=("stop_strings",)
    )
    eos_token_id: int | tuple[int, ...] | None = option(
        None, ENDS, LENGTH, "IDS", "tokens that end the text, instead of the model's own; -1 is one that never comes"
    )
    ignore_eos: bool = option(False, FLAG, LENGTH, "", "go on after the model's own end of text")

    # How tokens are drawn
    do_sample: bool | None = option(
        None, FLAG, DRAWING, "", "draw, at temperature 1 unless one is given; otherwise a temperature decides"
    )
    temperature: float = option(
        0.0,
        number(lambda x: 0 <= x <= 1e6, "from 0 to 1,000,000"),
        DRAWING,
        "X",
        "0 takes the likeliest token; otherwise logits are divided by it before the draw: 1 draws as the model says",
    )
    top_k: int = option(
        0, whole(0, MOST, " (0 is off)"), DRAWING, "N", "draw among so many of the likeliest tokens; 0 is off"
    )
    top_p: float = option(
        1.0, PART, DRAWING, "X", "draw among the fewest tokens that together reach this probability; 1 is off"
    )
    min_p: float = option(
        0.0,
        number(lambda x: 0 <= x <= 1, "between 0 and 1"),
        DRAWING,
        "X",
        "drop tokens less likely than this share of the likeliest one's probability; 0 is off",
    )
    top_h: float | None = option(
        None, PART, DRAWING, "X", "draw among tokens that hold this share of the distribution's entropy; None is off"
    )
    typical_p: float = option(
        1.0, PART, DRAWING, "X", "draw among the tokens of most typical surprise that reach this probability; 1 is off"
    )
    epsilon_cutoff: float = option(0.0, CUTOFF, DRAWING, "X", "drop tokens less probable than this; 0 is off")
    eta_cutoff: float = option(
        0.0, CUTOFF, DRAWING, "X", "the same, but less strict where the distribution is wide; 0 is off"
    )
    seed: int | tuple[int, ...] | None = option(
        None, SEEDS, DRAWING, "N", "same seed, same text: one for the call, from which each row draws its own"
    )

    # What is done to logits first
    repetition_penalty: float = option(
        1.0, ABOVE_0, LOGITS, "X", "make tokens of prompt and text this much less likely; below 1 more; 1 is off"
    )
    encoder_repetition_penalty: float = option(
        1.0, ABOVE_0, LOGITS, "X", "make tokens of the prompt this much likelier; below 1 less; 1 is off"
    )
    no_repeat_ngram_size: int = option(
        0, COUNT, LOGITS, "N", "write no run of so many tokens that prompt or text have already; 0 is off"
    )
    encoder_no_repeat_ngram_size: int = option(
        0, COUNT, LOGITS, "N", "write no run of so many tokens that the prompt has; 0 is off"
    )
    bad_words: tuple[str, ...] = option(
        (), STRINGS, LOGITS, "TEXT", "never write this, as the vocabulary cuts it with a blank before it and without"
    )
    bad_words_ids: tuple[tuple[int, ...], ...] | None = option(
        None, WORDS, LOGITS, "JSON", "never complete these runs of tokens: [[5], [7, 8]]"
    )
    sequence_bias: Any = option(
        None, BIASES, LOGITS, "JSON", "add to the logit of the last token of a run: [[[7, 8], -2.5]]"
    )
    suppress_tokens: tuple[int, ...] | None = option(None, IDS, LOGITS, "IDS", "never write these tokens")
    begin_suppress_tokens: tuple[int, ...] | None = option(
        None, IDS, LOGITS, "IDS", "do not begin the text with one of these tokens"
    )
    forced_bos_token_id: int | None = option(None, ID, LOGITS, "N", "the token that follows a prompt of a single token")
    forced_eos_token_id: int | tuple[int, ...] | None = option(
        None,
        ID_OR_IDS,
        LOGITS,
        "IDS",
        "the token, or one of several, that ends a text which the length ends",
    )
    exponential_decay_length_penalty: tuple[int, float] | None = option(
        None, DECAY, LOGITS, "JSON", "make an end likelier from so many new tokens on, by a growing factor: [20, 1.05]"
    )
    remove_invalid_values: bool = option(
        False, FLAG, LOGITS, "", "take a NaN for 0, and infinite logits for large ones"
    )
    renormalize_logits: bool = option(False, FLAG, LOGITS, "", "make log-probabilities of what the others left")

    # How fast it comes
    prompt_lookup_num_tokens: int = option(
        0,
        COUNT,
        SPEED,
        "N",
        "guess up to so many tokens a step that followed earlier in prompt or text, where that saves time: good for "
        "summaries and edits; the text stays the same; 0 is off",
    )
    max_matching_ngram_size: int = option(
        3, SIZE, SPEED, "N", "look those up by the last so many tokens of the text at most"
    )

    # What comes back
    logprobs: bool = option(
        False, FLAG, RESULT, "", "report the log-probability of each chosen token, in the model's own distribution"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            value = (given,) if field.name in ("stop", "bad_words") and isinstance(given, str) else plain(given)
            rule: Check = field.metadata["option"].check
            if not (value is None and field.default is None) and not rule.good(value):
                raise ValueError(f"{field.name} must be {rule.meaning}, not {given!r}")
            object.__setattr__(self, field.name, value)
        if self.do_sample is not None and self.do_sample != (self.temperature > 0):
            raise ValueError(
                f"do_sample={self.do_sample} and temperature={self.temperature} contradict each other: "
                "0 takes the likeliest token, and any other temperature draws; leave one of them out"
            )
        if self.min_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}, but max_new_tokens is {self.max_new_tokens}; "
                "make one smaller or the other larger"
            )

    @classmethod
    def from_options(cls, given: Mapping[str, object]) -> SamplingParams:
        """Keyword arguments of a caller. Raises UnknownOption for a name that nothing honours."""
        known = options(cls)
        names = {other: name for name, one in known.items() for other in (name, *one.also)}
        chosen: dict[str, Any] = {}
        for other, value in given.items():
            if other not in names:
                raise UnknownOption(other, list(known))
            if names[other] in chosen:
                raise ValueError(f"{other} and {names[other]} are one option; give it once")
            chosen[names[other]] = value
        if "max_new_tokens" in chosen and chosen.get("max_length") is not None:
            raise ValueError("max_new_tokens and max_length both say how long the text may become; give one of them")
        if chosen.get("do_sample") is True and "temperature" not in chosen:
            chosen["temperature"] = 1.0
        return cls(**chosen)


SamplingParams.__doc__ = f"{SamplingParams.__doc__}\n" + "".join(
    f"    {name:34}{one.meaning}\n" for name, one in options(SamplingParams).items()
)


def size(count: float) -> str:
    """Bytes for people: 93.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class Event(NamedTuple):
    """What one step added to one sample of a request: tokens (perhaps none), and how it ended, if it did.

    reused    how many tokens of the prompt were found in memory, and not computed again
    guessed   how many guesses have run so far
    accepted  how many of those came true
    """

    request: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    finish: Finish | None = None
    sample: int = 0
    reused: int = 0
    guessed: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished text. `tokens` include the stop token, if one ended it; `text` does not.

    reused_tokens    how many of the prompt's tokens another text had left in memory: they cost nothing
    guessed_tokens   how many guesses at its tokens were run, to write several in one step
    accepted_tokens  how many of those came true: so many steps were saved
    seed             the row's own seed, if it drew: `seed=[that]` writes this text again, alone or in company
    """

    text: str
    tokens: tuple[int, ...]
    prompt_tokens: int
    finish: Finish
    logprobs: tuple[float, ...] | None = None
    seed: int | None = None
    reused_tokens: int = 0
    guessed_tokens: int = 0
    accepted_tokens: int = 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class TokenScore:
    """What a model made of one token of a text, given those before it. Natural logarithms, at temperature 1.

    token         its id
    logprob       its log-probability; nan for a first token, which nothing stands before
    entropy       of the distribution that it was drawn from; nan likewise
    rank          how many tokens the model held for likelier; -1 likewise
    alternatives  the likeliest tokens there, with their log-probabilities
    """

    token: int
    logprob: float = math.nan
    entropy: float = math.nan
    rank: int = -1
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """What a model made of a text: `tokens`, each judged once, but a first one that nothing stands before."""

    tokens: tuple[TokenScore, ...]

    @property
    def judged(self) -> int:
        """How many tokens have a log-probability."""
        return sum(one.rank >= 0 for one in self.tokens)

    @property
    def logprob(self) -> float:
        """Of the whole text: the sum over its tokens; nan if none was judged."""
        return math.fsum(one.logprob for one in self.tokens if one.rank >= 0) if self.judged else math.nan

    @property
    def perplexity(self) -> float:
        return perplexity(self.logprob, self.judged)


def perplexity(logprob: float, judged: int) -> float:
    """exp(-logprob / judged); nan if no token was judged, inf beyond what a float holds."""
    try:
        return math.exp(-logprob / judged) if judged else math.nan
    except OverflowError:
        return math.inf
