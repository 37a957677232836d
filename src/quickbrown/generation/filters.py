"""Filters: which tokens may be drawn at all. Each takes scores (B, V) float32 and gives new ones."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

OUT = -math.inf


def quiet() -> np.errstate:
    """For arithmetic in which inf and nan come and go as they should."""
    return np.errstate(over="ignore", invalid="ignore")


def whole(value: Any, name: str, least: int) -> int:
    """A whole number of at least `least`. Raises ValueError for anything else."""
    try:
        found = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = least - 1
    if found < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return found


def number(value: Any, name: str, good: Callable[[float], bool], meaning: str) -> float:
    """A number that is good. Raises ValueError for anything else."""
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.number)) or not good(float(value)):
        raise ValueError(f"{name} must be {meaning}, not {value!r}")
    return float(value)


def _only(scores: Scores, keep: Mask, filler: float) -> Scores:
    """The scores where `keep` is set, `filler` elsewhere: np.where, several times faster."""
    out = np.full(scores.shape, filler, scores.dtype)
    at = np.flatnonzero(keep)
    out.ravel()[at] = scores.ravel()[at]
    return out


def _softmax(scores: Scores) -> Scores:
    with quiet():  # a row that is -inf throughout becomes nan
        p: Scores = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
    return p


def log_softmax(scores: Scores) -> Scores:
    with quiet():
        shifted: Scores = scores - scores.max(-1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def _entropy(logp: Scores) -> Scores:
    """(B, 1), in nats, of log-probabilities (B, V)."""
    p = np.exp(logp)
    total: Scores = -(p * np.where(p > 0, logp, 0)).sum(-1, keepdims=True)
    return total


def _running(p: Scores) -> Scores:
    """Running sums along the last axis, added up in float64 and rounded to float32."""
    return np.cumsum(p, -1, dtype=np.float64).astype(np.float32)


def _least_of_top(scores: Scores, k: int) -> Scores:
    """(B, 1): the k-th largest score of each row, k cut to the vocabulary."""
    at = scores.shape[1] - min(k, scores.shape[1])
    return np.partition(scores, at, -1)[:, at, None]


class _Filter:
    """What filters have in common: the score of tokens that are dropped, and how many are never dropped."""

    def __init__(self, filter_value: float = OUT, min_tokens_to_keep: int = 1) -> None:
        self.filter_value = filter_value
        self.min_tokens_to_keep = whole(min_tokens_to_keep, "min_tokens_to_keep", 1)


class Temperature:
    """Divides scores: below 1 likely tokens become likelier, above 1 less so."""

    def __init__(self, temperature: float) -> None:
        advice = "a number above 0; for the likeliest token at every step use do_sample=False"
        self.temperature = number(temperature, "temperature", lambda x: x > 0, advice)

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        with quiet():
            return scores / np.float32(self.temperature)


class TopK(_Filter):
    """Keeps the k highest scores, and all that equal the least of them."""

    def __init__(self, top_k: int, filter_value: float = OUT, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_k = max(whole(top_k, "top_k", 1), self.min_tokens_to_keep)

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return _only(scores, scores >= _least_of_top(scores, self.top_k), self.filter_value)


class TopP(_Filter):
    """Keeps the fewest likeliest tokens whose probabilities reach top_p together; of equal ones, lower ids first."""

    def __init__(self, top_p: float, filter_value: float = OUT, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.top_p = number(top_p, "top_p", lambda x: 0 <= x <= 1, "from 0 to 1")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        out = np.full_like(scores, self.filter_value)
        for row, into in zip(scores, out, strict=True):
            alive = np.flatnonzero(row > OUT)  # what an earlier filter dropped weighs nothing
            found = row[alive]
            rising = np.sort(found)
            reached = _running(_softmax(rising[None])[0])
            dropped = int(np.searchsorted(reached, np.float32(1 - self.top_p), "right"))
            dropped = max(0, min(dropped, len(rising) - self.min_tokens_to_keep))
            if dropped < len(rising):
                least = rising[dropped]
                above = len(rising) - int(np.searchsorted(rising, least, "right"))
                equal = np.flatnonzero(found == least)[: len(rising) - dropped - above]
                kept = alive[np.concatenate([np.flatnonzero(found > least), equal])]
                into[kept] = row[kept]
        return out


class TopH(_Filter):
    """Of the 100 likeliest tokens, keeps the first whose summed entropy stays within top_h of all of it (arXiv
    2509.02510)."""

    def __init__(self, top_h: float, filter_value: float = OUT) -> None:
        super().__init__(filter_value)
        self.top_h = number(top_h, "top_h", lambda x: 0 < x <= 1, "above 0 and at most 1")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        count = min(100, scores.shape[1])
        top = np.argpartition(scores, -count, -1)[:, -count:]
        found = np.take_along_axis(scores, top, -1)
        order = np.argsort(-found, -1, kind="stable")
        top, found = np.take_along_axis(top, order, -1), np.take_along_axis(found, order, -1)
        logp = log_softmax(found)
        p = np.exp(logp)
        terms = -p * np.where(p > 0, logp, 0)
        kept = (_running(terms) <= np.float32(self.top_h) * terms.sum(-1, keepdims=True)) & (p > 0)
        kept[:, 0] = True
        out = np.full_like(scores, self.filter_value)
        rows, at = np.nonzero(kept)
        out[rows, top[rows, at]] = found[rows, at]
        return out


class MinP(_Filter):
    """Drops tokens less likely than `min_p` times the likeliest."""

    def __init__(self, min_p: float, filter_value: float = OUT, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.min_p = number(min_p, "min_p", lambda x: 0 <= x <= 1, "from 0 to 1")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        p = _softmax(scores)
        keep = p >= np.float32(self.min_p) * p.max(-1, keepdims=True)
        if self.min_tokens_to_keep > 1:
            keep |= scores >= _least_of_top(scores, self.min_tokens_to_keep)
        return _only(scores, keep, self.filter_value)


class Typical(_Filter):
    """Keeps the tokens whose log-probability is nearest to the entropy, until their probabilities reach `mass` (arXiv
    2202.00666)."""

    def __init__(self, mass: float = 0.9, filter_value: float = OUT, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.mass = number(mass, "typical_p", lambda x: 0 < x < 1, "above 0 and below 1")

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        out = np.full_like(scores, self.filter_value)
        for row, into in zip(scores, out, strict=True):
            alive = np.flatnonzero(row > OUT)
            if not alive.size:
                continue
            logp = log_softmax(row[None, alive])
            distance = np.abs(-logp - _entropy(logp))[0]
            order = np.argsort(distance, kind="stable")
            reached = _running(np.exp(logp[0, order]))
            last = min(int(np.count_nonzero(reached < np.float32(self.mass))), len(order) - 1)
            keep = distance[order] <= distance[order[last]]
            keep[: self.min_tokens_to_keep] = True
            kept = alive[order[keep]]
            into[kept] = row[kept]
        return out


class _Cutoff(_Filter):
    """Keeps tokens of at least some probability, and the likeliest."""

    def __init__(self, epsilon: float, name: str, filter_value: float, min_tokens_to_keep: int) -> None:
        super().__init__(filter_value, min_tokens_to_keep)
        self.epsilon = number(epsilon, name, lambda x: 0 < x < 1, "above 0 and below 1")

    def _cut(self, scores: Scores, p: Scores, least: Any) -> Scores:
        keep = (p >= least) | (scores >= _least_of_top(scores, self.min_tokens_to_keep))
        return _only(scores, keep, self.filter_value)


class Epsilon(_Cutoff):
    """Drops tokens less likely than `epsilon` (arXiv 2210.15191)."""

    def __init__(self, epsilon: float, filter_value: float = OUT, min_tokens_to_keep: int = 1) -> None:
        super().__init__(epsilon, "epsilon_cutoff", filter_value, min_tokens_to_keep)

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        return self._cut(scores, _softmax(scores), np.float32(self.epsilon))


class Eta(_Cutoff):
    """Drops tokens less likely than the lesser of `epsilon` and sqrt(epsilon) * exp(-entropy) (arXiv 2210.15191)."""

    def __init__(self, epsilon: float, filter_value: float = OUT, min_tokens_to_keep: int = 1) -> None:
        super().__init__(epsilon, "eta_cutoff", filter_value, min_tokens_to_keep)

    def __call__(self, input_ids: Ids, scores: Scores) -> Scores:
        logp = log_softmax(scores)
        epsilon = np.float32(self.epsilon)
        return self._cut(scores, np.exp(logp), np.minimum(epsilon, np.sqrt(epsilon) * np.exp(-_entropy(logp))))
