"""What a draw means, in numpy: the specification that every sampler is tested against."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from quickbrown.engine.batch import Draws
from quickbrown.types import Edit, EditKind

Logits = npt.NDArray[np.float32]
LOWEST = float(np.finfo(np.float32).min)


def mix(z: int) -> int:
    """One step of SplitMix64, uint64 to uint64 (Steele, Lea & Flood 2014)."""
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def uniform(seed: int, position: int) -> float:
    """The noise of one token: a multiple of 2**-53 in [0, 1), the same wherever and whenever it is asked for.

    seed and position are whole numbers from 0 to 2**64 - 1.
    """
    return (mix(mix(seed) ^ position) >> 11) * 2.0**-53


def kept(
    logits: Logits, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> npt.NDArray[np.float64]:
    """The distribution that is drawn from: (V,) logits to (V,) float64, probabilities of the tokens that stay
    (not renormalised), 0 for the others.

    temperature  0 leaves the likeliest token only (ties: the lowest id); otherwise p = softmax(logits / temperature)
    top_k        leaves the first k tokens in order of falling logits (ties: the lowest ids first); 0 is off
    top_p        leaves the fewest tokens, in the same order, whose sum is at least top_p of the sum of those that top_k
                 left; 1 is off
    min_p        drops tokens with p < min_p * max(p)

    A logit of -inf is never drawn; one of +inf wins like at temperature 0.
    Raises ValueError if a logit is nan or all are -inf.
    """
    x = logits.astype(np.float64)
    best = valid(x)
    p = np.zeros_like(x)
    if temperature == 0 or x[best] == math.inf:
        p[best] = 1
        return p
    p = np.where(x == -math.inf, 0.0, np.exp((np.maximum(x, LOWEST) - x[best]) / temperature))
    p /= p.sum()
    order = np.argsort(-x, kind="stable")
    if top_k:
        p[order[top_k:]] = 0
    if top_p < 1:
        reached = np.cumsum(p[order])
        p[order[np.searchsorted(reached, top_p * reached[-1]) + 1 :]] = 0
    p[p < min_p * p.max()] = 0
    return p


def edited(logits: Logits, edits: Iterable[Edit]) -> Logits:
    """A row, (V,), as edits make it, one after another, in float32."""
    out = logits.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for kind, ids, values in edits:
            if kind == EditKind.ONLY:
                allowed = np.unpackbits(ids.view(np.uint8), count=len(out), bitorder="little")
                out[allowed == 0] = -math.inf
                continue
            for id, value in zip(ids, np.broadcast_to(values, ids.shape), strict=True):
                if kind == EditKind.SCALE:
                    out[id] = out[id] * value if out[id] < 0 else out[id] / value
                elif kind == EditKind.ADD:
                    out[id] += value
                else:
                    out[id] = value
    return out


def draw(
    logits: Logits,
    temperature: float,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    position: int = 0,
) -> int:
    """A token from `kept`: the first in order of ids at which the running sum exceeds `uniform` times the whole sum."""
    p = kept(logits, temperature, top_k, top_p, min_p)
    ids = np.flatnonzero(p)
    reached = np.cumsum(p[ids])
    at = np.searchsorted(reached, uniform(seed, position) * reached[-1], side="right")
    return int(ids[min(at, len(ids) - 1)])


def logprob(logits: Logits, token: int) -> float:
    """The log-probability of a token in softmax(logits), (V,), of which logits of +inf share everything.

    Raises ValueError if a logit is nan or all are -inf.
    """
    x = logits.astype(np.float64)
    top = x[valid(x)]
    if top == math.inf:
        x = np.where(x == math.inf, 0.0, -math.inf)
        top = np.float64(0)
    return float(x[token] - top - np.log(np.exp(x - top).sum()))


def sample(logits: Logits, draws: Draws) -> list[tuple[int, float]]:
    """Every draw of a step from its row of (R, V), as its edits make it: token ids, and log-probabilities or nan.

    The log-probabilities are of the rows as they are.
    """
    edits: dict[int, list[Edit]] = {}
    for i, edit in draws.edits:
        edits.setdefault(i, []).append(edit)
    rows = [edited(logits[row], edits.get(i, ())) for i, row in enumerate(draws.rows)]
    return redraw(logits, draws, np.array(rows, np.float32).reshape(-1, logits.shape[1]))


def redraw(logits: Logits, draws: Draws, processed: Logits) -> list[tuple[int, float]]:
    """Draw i takes its token from processed[i], (V,), and its log-probability from row draws.rows[i] of (R, V)."""
    drawn = []
    for i, row in enumerate(processed):
        token = draw(
            row,
            temperature=float(np.float32(draws.temperatures[i])),
            top_k=int(draws.top_k[i]),
            top_p=float(np.float32(draws.top_p[i])),
            min_p=float(np.float32(draws.min_p[i])),
            seed=int(draws.seeds[i]),
            position=int(draws.positions[i]),
        )
        drawn.append((token, logprob(logits[draws.rows[i]], token) if draws.logprobs else math.nan))
    return drawn


def valid(x: npt.NDArray[np.float64]) -> int:
    """The likeliest token of a row, the lowest id if several are. Raises ValueError if there is none."""
    best = int(x.argmax())  # of the first nan, if there is one
    if math.isnan(x[best]):
        raise ValueError(f"the logit of token {best} is nan: nothing can be drawn from this row")
    if x[best] == -math.inf:
        raise ValueError("all logits are -inf: no token may be drawn from this row")
    return best
