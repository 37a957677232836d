"""What a row of logits says of the token that came."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Judged(NamedTuple):
    """Natural logarithms, of the distribution at temperature 1.

    logprob       of the token that came
    entropy       of the distribution
    rank          how many tokens were likelier
    alternatives  the likeliest tokens and their log-probabilities, the lowest id first of several alike
    """

    logprob: float
    entropy: float
    rank: int
    alternatives: tuple[tuple[int, float], ...]


def judge(logits: npt.NDArray[np.float32], token: int, top: int) -> Judged:
    """A row of logits (V,) about a token, and its `top` likeliest ones. Raises ValueError for a row with a NaN."""
    largest = logits.max()
    if not np.isfinite(largest):
        raise ValueError("the logits hold a NaN or an infinity; the model or its file is damaged")
    x = logits.astype(np.float64) - float(largest)
    weights = np.exp(x)
    total = float(weights.sum())
    norm = float(np.log(total))
    heavy = weights > 0  # so that 0 * -inf is 0
    entropy = norm - float((weights[heavy] * x[heavy]).sum()) / total
    rank = int((x > x[token]).sum())
    best: tuple[tuple[int, float], ...] = ()
    if top:
        least = np.partition(x, len(x) - top)[len(x) - top]
        found = np.flatnonzero(x >= least)
        order = found[np.argsort(-x[found], kind="stable")][:top]
        best = tuple((int(i), float(x[i]) - norm) for i in order)
    return Judged(float(x[token]) - norm, max(0.0, entropy), rank, best)


def windows(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """How a text that is longer than the context is read: (begin, end, first) of each pass, which reads begin to end
    and judges the tokens from `first` on. Each begins `stride` tokens behind the one before.

    Every token but the text's first is judged once, in the first pass that reads it: with at least context - stride
    tokens before it, or all there are.
    """
    found, judged = [], 1
    for begin in range(0, length, stride):
        end = min(begin + context, length)
        if end > judged:
            found.append((begin, end, judged))
            judged = end
        if end == length:
            break
    return found
