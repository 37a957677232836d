"""Rotary positions (Su et al. 2021): how fast each pair of a head's values turns, and ways to stretch that over length.

A token at position p is turned by the angles p * w, with w = theta ** (-2i / D) for i < D / 2 radians a position, where
D is what of a head turns. Every
type but `default` changes w, some by the length of the text; two of them also multiply cos and sin by a factor, which
sharpens attention over long texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.types import UnknownOption

Angles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rope:
    """One kind of rotation, the same for texts of any length. Told apart from others by identity.

    frequencies  (N,) float64, radians a position, of N pairs; the other values of a head stay
    factor       on cos and sin
    start        the first of those 2 N values in a head
    interleaved  the pairs are adjacent values, not the same places of two halves
    """

    frequencies: Angles
    factor: float = 1.0
    start: int = field(default=0, kw_only=True)
    interleaved: bool = field(default=False, kw_only=True)

    def span(self, length: int) -> int:
        """What of a text's final length, prompt and all that may be written, its angles depend on.

        Texts of one span are turned alike. 0 stands for every length that the model was trained on.
        """
        return 0

    def reach(self, positions: int) -> int:
        """How long a text may be, of a model with so many positions."""
        return positions

    def angles(self, span: int = 0) -> tuple[Angles, float]:
        """(N,) radians a position of texts of this span, and the factor on cos and sin."""
        return self.frequencies, self.factor


@dataclass(frozen=True, eq=False, kw_only=True)
class Dynamic(Rope):
    """Texts longer than `trained` turn more slowly, each by its own length: theta grows with it (NTK-aware scaling)."""

    theta: float
    stretch: float
    trained: int

    def span(self, length: int) -> int:
        return length if length > self.trained else 0

    def reach(self, positions: int) -> int:
        return int(positions * self.stretch)

    def angles(self, span: int = 0) -> tuple[Angles, float]:
        if not span:
            return super().angles()
        dim = 2 * len(self.frequencies)
        grown = 1 + self.stretch * (span / self.trained - 1)
        return _frequencies(self.theta * grown ** (dim / (dim - 2)), dim), self.factor


@dataclass(frozen=True, eq=False, kw_only=True)
class LongRope(Rope):
    """Texts longer than `trained` turn by other frequencies, all of them by the same."""

    long: Angles
    trained: int

    def span(self, length: int) -> int:
        return int(length > self.trained)

    def angles(self, span: int = 0) -> tuple[Angles, float]:
        return self.long if span else self.frequencies, self.factor


def rope(
    parameters: Mapping[str, Any],
    head_dim: int,
    max_position_embeddings: int,
    *,
    start: int = 0,
    interleaved: bool = False,
) -> Rope:
    """The rotation that `rope_parameters` of a config.json describe: `rope_type`, `rope_theta`,
    `partial_rotary_factor`, which is the part of head_dim that turns, and the type's own. start and interleaved as
    `Rope` has them.

    A parameter that is None counts as missing. Raises ValueError for a type that is unknown, for values that cannot
    be, and for a parameter that the type does not have.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    kind = given.pop("rope_type", "default")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"rope_type is {kind!r}; the types that are supported are {', '.join(_TYPES)}")
    part = given.pop("partial_rotary_factor", 1)
    if not _is_number(part) or part > 1:
        raise ValueError(f"partial_rotary_factor must be a number above 0 and at most 1, not {part!r}")
    dims = head_dim if kind == "proportional" else int(head_dim * part)
    if dims < 2 or dims % 2:
        turning = "" if part == 1 else f", of which {dims} turn"
        raise ValueError(f"heads have {head_dim} values{turning}, and rotary positions need an even number")
    p = _Parameters(kind, given, part)
    made = _TYPES[kind](p, dims, max_position_embeddings)
    p.finish()
    return replace(made, start=start, interleaved=interleaved)


class _Parameters:
    """Checked reading. A type asks for everything that it has; `finish` refuses by name what nobody asked for.

    part  partial_rotary_factor
    """

    def __init__(self, kind: str, given: Mapping[str, Any], part: float) -> None:
        self.kind, self.given, self.part, self.known = kind, given, part, ["rope_type"]

    def _take(self, name: str, default: Any, meaning: str, good: Callable[[Any], bool]) -> Any:
        self.known.append(name)
        if name not in self.given and default is None:
            raise ValueError(f"rope_type {self.kind!r} needs {name}, {meaning}")
        value = self.given.get(name, default)
        if not good(value):
            raise ValueError(f"{name} of rope_type {self.kind!r} must be {meaning}, not {value!r}")
        return value

    def number(self, name: str, default: float | None = None, *, above: float = 0.0) -> float:
        return float(self._take(name, default, f"a number above {above:g}", lambda x: _is_number(x) and x > above))

    def optional(self, name: str) -> float | None:
        """A number above 0, or None where there is none."""
        self.known.append(name)
        return self.number(name) if name in self.given else None

    def scale(self, name: str) -> float:
        """A number above 0, or 0, which is also what a missing one stands for."""
        return float(self._take(name, 0.0, "a number of at least 0", lambda x: x == 0 or _is_number(x)))

    def length(self, name: str, default: int) -> int:
        return int(
            self._take(name, default, "a whole number above 1", lambda x: _is_number(x) and x > 1 and x == int(x))
        )

    def flag(self, name: str, default: bool) -> bool:
        return bool(self._take(name, default, "true or false", lambda x: isinstance(x, bool)))

    def numbers(self, name: str, count: int) -> Angles:
        """(count,) numbers above 0."""

        def good(x: Any) -> bool:
            return isinstance(x, (list, tuple)) and len(x) == count and all(map(_is_number, x))

        meaning = f"a list of {count} numbers above 0, one for each pair of a head's values"
        return np.asarray(self._take(name, None, meaning, good), np.float64)

    def finish(self) -> None:
        for name in self.given:
            if name not in self.known:
                raise ValueError(f"rope_type {self.kind!r}: {UnknownOption(name, self.known)}")


def _is_number(value: Any) -> bool:
    """Above 0, and of a size with which nothing below leaves the range of float64."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 1e-15 <= value <= 1e15


def _frequencies(theta: float, dim: int) -> Angles:
    """theta ** (-2i / dim) for i < dim / 2."""
    return np.asarray(theta ** (-2.0 * np.arange(dim // 2) / dim), np.float64)


def _default(p: _Parameters, dim: int, longest: int) -> Rope:
    return Rope(_frequencies(p.number("rope_theta"), dim))


def _linear(p: _Parameters, dim: int, longest: int) -> Rope:
    """All positions are `factor` times closer together (Chen et al. 2023)."""
    return Rope(_frequencies(p.number("rope_theta"), dim) / p.number("factor"))


def _proportional(p: _Parameters, dim: int, longest: int) -> Rope:
    """The first pairs turn as fast as in a head that turns as a whole, the others not at all (Gemma 4)."""
    kept = _frequencies(p.number("rope_theta"), dim) / p.number("factor", 1.0)
    kept[int(p.part * dim // 2) :] = 0
    return Rope(kept)


def _dynamic(p: _Parameters, dim: int, longest: int) -> Rope:
    theta, factor = p.number("rope_theta"), p.number("factor")
    if dim < 4:
        raise ValueError("rope_type 'dynamic' needs heads of at least 4 values")
    return Dynamic(_frequencies(theta, dim), theta=theta, stretch=factor, trained=longest)


def _yarn(p: _Parameters, dim: int, longest: int) -> Rope:
    """Pairs that turn often in the trained length keep their speed, those that turn seldom are slowed `factor` times,
    and in between there is a ramp over i (Peng et al. 2023)."""
    theta = p.number("rope_theta", above=1)
    trained = p.length("original_max_position_embeddings", longest)
    factor = p.number("factor", longest / trained)
    fast, slow = p.number("beta_fast", 32), p.number("beta_slow", 1)
    mscale, mscale_all = p.scale("mscale"), p.scale("mscale_all_dim")
    truncate = p.flag("truncate", True)
    given = p.optional("attention_factor")

    def pair(turns: float) -> float:
        """The i whose pair makes so many turns in the trained length."""
        return dim * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(fast), pair(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 if high == low else 0
    slowed = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)

    def magnitude(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

    usual = magnitude(mscale) / magnitude(mscale_all) if mscale and mscale_all else magnitude(1)
    kept = _frequencies(theta, dim)
    return Rope(kept * (1 - slowed) + kept / factor * slowed, usual if given is None else given)


def _longrope(p: _Parameters, dim: int, longest: int) -> Rope:
    """Each pair has a divisor of its own, one for texts as long as trained and one for longer (Ding et al. 2024)."""
    kept = _frequencies(p.number("rope_theta"), dim)
    trained = p.length("original_max_position_embeddings", longest)
    factor = p.number("factor", longest / trained)
    short, long = p.numbers("short_factor", dim // 2), p.numbers("long_factor", dim // 2)
    given = p.optional("attention_factor")
    if given is None:
        given = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return LongRope(kept / short, given, long=kept / long, trained=trained)


def _llama3(p: _Parameters, dim: int, longest: int) -> Rope:
    """By how often a pair turns in the trained length: above `high_freq_factor` times it keeps its speed, below
    `low_freq_factor` it is slowed `factor` times, in between a mean of both (Llama 3.1)."""
    kept = _frequencies(p.number("rope_theta"), dim)
    trained = p.length("original_max_position_embeddings", longest)
    factor, low = p.number("factor"), p.number("low_freq_factor")
    high = p.number("high_freq_factor", above=low)
    share = np.clip((trained * kept / (2 * math.pi) - low) / (high - low), 0, 1)
    return Rope(kept * share + kept / factor * (1 - share))


_TYPES: dict[str, Callable[[_Parameters, int, int], Rope]] = {
    "default": _default,
    "linear": _linear,
    "proportional": _proportional,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
}
