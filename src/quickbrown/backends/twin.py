"""Two backends side by side: names the first verb on which they part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


class Parted(AssertionError):
    """The message names step, verb, shape and the largest difference."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A value as each side has it."""

    left: Any
    right: Any


class Twin:
    """Ops that run every verb on both sides and compare.

    left, right  two Ops; each gets its own earlier results, or with lockstep=True both get the left's, so that
                 one verb's error is not the next one's input
    tolerance    largest difference allowed, relative to the largest magnitude of the left result
    """

    def __init__(self, left: Any, right: Any, tolerance: float, lockstep: bool = True) -> None:
        self.left, self.right, self.tolerance, self.lockstep = left, right, tolerance, lockstep
        self.steps = 0
        self.worst: dict[str, float] = {}

    def __getattr__(self, verb: str) -> Callable[..., Pair]:
        def both(*args: Any, **options: Any) -> Pair:
            lefts = [a.left if isinstance(a, Pair) else a for a in args]
            rights = [a.right if isinstance(a, Pair) else a for a in args]
            left = getattr(self.left, verb)(*lefts, **options)
            right = getattr(self.right, verb)(*(lefts if self.lockstep else rights), **options)
            self.steps += 1
            magnitude = float(np.abs(left).max(initial=0.0)) or 1.0
            gap = float(np.abs(left - right).max(initial=0.0)) / magnitude if left.shape == right.shape else np.inf
            self.worst[verb] = max(self.worst.get(verb, 0.0), gap)
            if not gap <= self.tolerance:
                raise Parted(
                    f"step {self.steps}, {verb}: the sides differ by {gap:.2g} of {magnitude:.3g}, "
                    f"shapes {left.shape} and {right.shape}; {self.tolerance:.2g} is allowed"
                )
            return Pair(left, right)

        return both
