"""Do draws follow a distribution? Pearson's χ² test, and the draws that the tests of both samplers put to it."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.backends.sampling import kept
from quickbrown.generation.seeds import hashed, row_seeds

Floats = npt.NDArray[Any]
Tokens = npt.NDArray[Any]
Keys = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]  # seeds and positions, one of each a draw

# Counts less likely than this have another distribution. The noise is fixed, so a test passes always or never; the
# bound is so low because there are a thousand tests, and because it is χ²'s: a cell that expects 5 counts is Poisson's
# rather, and where χ² with one degree of freedom says 1e-9, at 6.1 deviations, it says 1e-6 (19 counts or more).
LEAST = 1e-9


def sf(x: float, freedom: int) -> float:
    """The probability that χ² with a whole number of degrees of freedom exceeds x: Q(freedom / 2, x / 2).

    Q(a + 1, h) = Q(a, h) + h^a e^-h / Γ(a + 1), from Q(0, h) = 0 or Q(1/2, h) = erfc √h up: a finite sum of positive
    terms, so nothing cancels, however small the result.
    """
    if x <= 0 or x == math.inf:
        return float(x <= 0)
    h = x / 2
    steps = np.arange(freedom % 2 / 2, freedom / 2)
    tail = math.erfc(math.sqrt(h)) if freedom % 2 else 0.0
    return tail + math.fsum(math.exp(a * math.log(h) - h - math.lgamma(a + 1)) for a in steps.tolist())


def pearson(counts: Tokens, chances: Floats, least: float = 5.0) -> tuple[float, int]:
    """Σ (count - expected)² / expected over cells, and its degrees of freedom: a cell less than there are.

    Outcomes are put in order of their expectations, and joined from the rarest up until each cell expects `least`:
    cells depend on what is expected, never on what was counted, or χ² would not be the distribution of the sum.
    A count where the chance is 0 makes the sum infinite. Raises ValueError if fewer than two cells are left.
    """
    expected = counts.sum() * chances / chances.sum()
    if counts[expected == 0].any():
        return math.inf, 1
    order = np.argsort(expected, kind="stable")
    order = order[expected[order] > 0]
    starts, held = [0], 0.0
    for i, e in enumerate(expected[order].tolist(), 1):
        held += e
        if held >= least:
            starts.append(i)
            held = 0.0
    starts.pop()  # of a cell that is empty, or too small: then it stays with the one before
    if len(starts) < 2:
        raise ValueError(f"{counts.sum()} draws make {len(starts)} cells of {least:g}: that tests nothing")
    expected, got = (np.add.reduceat(values[order], starts) for values in (expected, counts))
    return float(((got - expected) ** 2 / expected).sum()), len(starts) - 1


def likelihood(counts: Tokens, chances: Floats) -> float:
    """How often counts stray at least this far from the chances that they have (not necessarily normalised)."""
    return sf(*pearson(counts, chances))


def compare(what: str, counts: Tokens, chances: Floats) -> None:
    """Fail if anything was drawn that has no chance, or the counts are less likely than LEAST."""
    outside = np.flatnonzero((chances == 0) & (counts > 0))
    assert not outside.size, f"{what}: {outside[:5].tolist()} drawn, which cannot be"
    q = likelihood(counts, chances)
    assert q > LEAST, f"{what}: {counts.sum()} draws stray as far as this with a probability of {q:.2g}"


KINDS = ("peaked", "flat", "tied", "ruled out")


@functools.cache
def table(vocabulary: int) -> npt.NDArray[np.float32]:
    """A row of logits of each of KINDS."""
    random = np.random.default_rng(vocabulary)
    x = random.standard_normal((4, vocabulary)).astype(np.float32)
    x[0] *= 1.5
    x[1] *= 0.01
    x[2] = np.rint(1.5 * x[2])
    x[3, random.permutation(vocabulary)[: vocabulary // 2]] = -math.inf
    return x


# float32 holds these exactly, so both samplers have the same.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 3},
    {"top_k": 300},
    {"top_p": 0.875},
    {"min_p": 0.0625},
    {"temperature": 0.5, "top_p": 0.984375, "min_p": 0.015625},
    {"temperature": 2.0, "top_k": 50, "min_p": 0.125},
    {"temperature": 2.0, "top_k": 6, "top_p": 0.9375, "min_p": 0.25},
]


def chances(logits: Floats, temperature: float = 1.0, **filters: Any) -> Floats:
    """The distribution that draws are to follow; float64, sums to 1."""
    p = kept(logits, temperature, **filters)
    return p / p.sum()


def _key(seeds: Any, positions: Any) -> Keys:
    seeds, positions = np.broadcast_arrays(np.asarray(seeds, np.uint64), np.asarray(positions, np.int64))
    return seeds, positions


def _of(rows: list[tuple[int, ...]]) -> npt.NDArray[np.uint64]:
    return np.array(rows, np.uint64).ravel()


def _texts(n: int) -> Keys:
    """4 samples each of many rows of a call, 16 tokens a text."""
    at = np.arange(n)
    return _key(_of(row_seeds(5, -(-n // 64), 4))[at // 16], 40 + at % 16)


def _by_position(n: int) -> Keys:
    return _key(77, np.arange(n))


def _by_seed(n: int) -> Keys:
    return _key(_of(row_seeds(77, n, 1)), 9)


# The keys of n draws. What is drawn over them follows the distribution ...
ALONG = {"positions": _by_position, "seeds": _by_seed, "texts": _texts}

# ... and those of n / 2 pairs, one after another, that must know nothing of each other. Pairs share no draw: the counts
# of pairs that overlap do not follow χ².
PAIRS = {
    "a position and the next": _by_position,
    "an odd position and the next": lambda n: _key(77, 1 + np.arange(n)),
    "a row and the next": _by_seed,
    "a sample and the next": lambda n: _key(_of(row_seeds(3, n // 4, 4)), 9),
    "a call and the next": lambda n: _key([hashed(77, call, 0) for call in range(1, n + 1)], 9),
    "a call's seed and the next": lambda n: _key(_of([row_seeds(seed, 1, 1)[0] for seed in range(n)]), 9),
    "a row's seed and the next": lambda n: _key(np.arange(n), 9),
    "a row's seed and the next, at the position before": lambda n: _key(np.arange(n), 9 - np.arange(n) % 2),
}


@functools.cache
def keys(name: str, n: int) -> Keys:
    return (ALONG | PAIRS)[name](n)


def pairs(tokens: Tokens, p: Floats) -> tuple[Tokens, Floats]:
    """Counts of the pairs drawn, and the chances they have if the tokens of each are independent; (V * V,)."""
    first, second = tokens[0::2].astype(np.int64), tokens[1::2]
    return np.bincount(first * len(p) + second, minlength=len(p) ** 2), np.outer(p, p).ravel()


# Noise that is keyed wrongly: what would be used for (seeds, positions), and the test that must notice.
FAULTS = {
    "the position is ignored": (lambda s, p: (s, p * 0), "positions"),
    "the seed is ignored": (lambda s, p: (s * 0, p), "seeds"),
    "positions are counted in a byte": (lambda s, p: (s, p & 255), "positions"),
    "positions lose their lowest bit": (lambda s, p: (s, p | 1), "a position and the next"),
    "odd positions share the next one's noise": (lambda s, p: (s, p + p % 2), "an odd position and the next"),
    "seeds lose their lowest bit": (lambda s, p: (s | 1, p), "a row's seed and the next"),
    "samples share their row's noise": (lambda s, p: (np.repeat(s[::4], 4), p), "a sample and the next"),
    "seed and position are combined by xor": (
        lambda s, p: (s * 0, s.astype(np.int64) ^ p),
        "a row's seed and the next, at the position before",
    ),
    "seed and position are added": (
        lambda s, p: (s * 0, s.astype(np.int64) + p),
        "a row's seed and the next, at the position before",
    ),
}


@functools.cache
def one() -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """A row and parameters under which every parameter shows: 17 of 30 tokens stay, of 0.4 % to 48 %."""
    logits = np.random.default_rng(30).normal(0, 4, 30).astype(np.float32)
    return logits, {"temperature": 2.0, "top_k": 22, "top_p": 0.984375}


def mistakes() -> dict[str, Floats]:
    """Distributions near that of `one`, of which a test must say that its draws do not follow them.

    The statistic of n draws of p against q exceeds that against p by about n Σ (p - q)² / q: 118 or more for each, of
    200,000 draws. With 16 degrees of freedom p itself exceeds 76 once in 10^9.
    """
    logits, options = one()
    p = chances(logits, **options)
    likelier, rarer = p.copy(), p.copy()
    likelier[np.argsort(-p)[0]] *= 1.05
    rarer[np.argsort(-p)[2]] *= 0.92
    return {
        "the temperature 2 % up": chances(logits, **options | {"temperature": 2.0 * 1.02}),
        "the temperature 2 % down": chances(logits, **options | {"temperature": 2.0 / 1.02}),
        "the likeliest token 5 % up": likelier,
        "the third token 8 % down": rarer,
        "top_k ignored": chances(logits, **options | {"top_k": 0}),
        "top_p ignored": chances(logits, **options | {"top_p": 1.0}),
        "ids off by one": np.roll(p, 1),
    }
