"""What can be said of how a text is written: the values that an option may have, and how it is shown.

`types.SamplingParams` is made of options, each said once; the flags of `qb`, their help and the tables in the documents
are made from it. `hf/generation_fields.py` shares the checks. This module imports no other room.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple


class Check(NamedTuple):
    """What a value must be: a test that never raises, and the words for it."""

    good: Callable[[Any], bool]
    meaning: str


class Option(NamedTuple):
    """What stands behind a field of `SamplingParams`.

    check    what it may be
    meaning  what it does, in the words of the help and of the documents
    group    the heading it is shown under
    value    what stands for its value there, which also says how it is read: "" (a flag), N (a whole number), X (a
             number), SECONDS, TEXT (may be repeated), IDS (token ids), JSON
    also     other names that it may be given by
    """

    check: Check
    meaning: str
    group: str
    value: str = ""
    also: tuple[str, ...] = ()


def option(default: Any, check: Check, group: str, value: str, meaning: str, also: tuple[str, ...] = ()) -> Any:
    """A field of a dataclass with an Option behind it."""
    return dataclasses.field(default=default, metadata={"option": Option(check, meaning, group, value, also)})


def options(cls: Any) -> dict[str, Option]:
    """Name -> Option of the fields of a dataclass, in order."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(cls)}


def plain(value: Any) -> Any:
    """A value with Python's own numbers in the place of numpy's, and tuples for lists."""
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    return value


def is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def whole(least: int, most: float = math.inf, note: str = "") -> Check:
    bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most:,}"
    return Check(lambda value: is_whole(value) and least <= value <= most, f"a whole number {bounds}{note}")


def is_number(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, str)) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def number(good: Callable[[Any], bool], meaning: str) -> Check:
    return Check(lambda value: is_number(value) and good(value), meaning)


def is_seed(value: object) -> bool:
    """Whether noise can be keyed by a value: a whole number from 0 to 2**64 - 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) < 2**64


def are_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(is_whole(i) and i >= 0 for i in value)


def are_strings(value: Any) -> bool:
    values = [value] if isinstance(value, str) else value
    return isinstance(values, (list, tuple)) and all(isinstance(s, str) and s for s in values)


def _are_words(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(are_ids, value))


def _is_whole_or_several(value: Any) -> bool:
    return is_whole(value) or (isinstance(value, (list, tuple)) and len(value) > 0 and all(map(is_whole, value)))


def _are_biases(value: Any) -> bool:
    if not isinstance(value, (Mapping, list, tuple)) or not value:
        return False
    pairs = value.items() if isinstance(value, Mapping) else value
    pairs = [p if isinstance(p, (list, tuple)) and len(p) == 2 else (None, None) for p in pairs]
    return all(are_ids(ids) and isinstance(bias, (int, float)) and not math.isnan(bias) for ids, bias in pairs)


def _is_decay(value: Any) -> bool:
    pair = isinstance(value, (list, tuple)) and len(value) == 2
    return pair and is_whole(value[0]) and value[0] >= 0 and is_number(value[1]) and value[1] > 0


def _are_seeds(value: Any) -> bool:
    return all(map(is_seed, value if isinstance(value, (list, tuple)) else (value,)))


MOST = 2**31 - 1  # of what is counted in 32 bits

FLAG = Check(lambda value: isinstance(value, bool), "True or False")
COUNT = whole(0)
SIZE = whole(1)
ABOVE_0 = number(lambda x: x > 0, "a number above 0")
SHARE = number(lambda x: 0 <= x <= 1, "from 0 to 1")
PART = number(lambda x: 0 < x <= 1, "above 0 and at most 1")
CUTOFF = number(lambda x: 0 <= x < 1, "at least 0 (which is off) and below 1")
SECONDS = number(lambda x: x > 0, "None or a number of seconds above 0")
ID = Check(lambda value: is_whole(value) and value >= 0, "a token id")
ID_OR_IDS = Check(lambda value: ID.good(value) or are_ids(value), "a token id or a list of token ids")
IDS = Check(lambda value: value in ([], ()) or are_ids(value), "a list of token ids")
ENDS = Check(_is_whole_or_several, "a token id or a list of them")  # -1 is one that never comes
WORDS = Check(_are_words, "a list of lists of ids")
BIASES = Check(_are_biases, "a dict of tuples of ids to numbers, or a list of [ids, number]")
DECAY = Check(_is_decay, "a pair of a start and a factor above 0")
STRINGS = Check(are_strings, "strings that are not empty")
SEEDS = Check(_are_seeds, "None, a whole number from 0 to 2**64 - 1, or several")
