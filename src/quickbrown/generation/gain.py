"""Which guesses pay, by how long steps take: more tokens in a step cost time, guesses that come true save steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

MOST = 64  # tokens a step: where more run, a token more costs what it saves
LEAST = 0.05  # of a step's time: what guesses must be expected to save
FORGOTTEN = 512  # steps after which what was measured is too old
MEASURES = 9  # of each number of tokens, the last ones, of which the median counts
DISTURBED = 4  # times what was expected: a step that took longer tells no more


def usual(tokens: int) -> float:
    """The time of a step of so many tokens, of that of a step of one, where nothing was measured."""
    return 1 + (tokens - 1) / 4


class Gain:
    """What steps cost, measured as they run, and the guesses that are worth it.

    Two things are known: how long a step of one token takes at the moment, which moves with the machine and the length
    of the texts, and how much longer one of several takes, which hardly does. A step like the one before tells the
    first; one of another number of tokens, beside it, the second. So neither has to be tried out to know what the other
    says of now. What has not run for long is forgotten: then its neighbours say what it costs, so that a mistaken
    figure is not kept for ever.
    """

    def __init__(self) -> None:
        self.texts = 1  # written in the last step
        self.last = 0  # its tokens
        self.steps = 0
        self.pace = math.nan  # seconds of a step of one token
        self.costs: dict[int, float] = {}  # of a step of so many tokens, in steps of one
        self.measures: dict[int, deque[float]] = {}  # of which those are the medians
        self.measured: dict[int, int] = {}  # when the last was, by `steps`

    def step(self, texts: int, tokens: int, seconds: float) -> None:
        """A step of so many texts ran, and so many tokens of them."""
        self.texts = texts
        if tokens > MOST or seconds <= 0:
            return
        self.steps += 1
        expected = self.cost(tokens)
        if math.isnan(self.pace):
            self.pace = seconds / expected
        its = seconds / self.pace
        if tokens == self.last:
            self.pace *= 1 + (min(its / expected, DISTURBED) - 1) / 4
        else:
            measures = self.measures.setdefault(tokens, deque([expected], MEASURES))
            measures.append(min(its, DISTURBED * expected))
            self.costs[tokens] = median(measures)
        self.last = tokens
        self.measured[tokens] = self.steps
        if self.steps % MOST == 0:
            for old in [one for one, when in self.measured.items() if when < self.steps - FORGOTTEN]:
                del self.costs[old], self.measures[old], self.measured[old]

    def cost(self, tokens: int) -> float:
        """The time of a step of so many tokens, of that of a step of one. What was not measured lies on a line between
        the next that were, and beyond them as is usual."""
        if (known := self.costs.get(tokens)) is not None:
            return known
        below = max((one for one in self.costs if one < tokens), default=0)
        above = min((one for one in self.costs if one > tokens), default=0)
        if below and above:
            share = (tokens - below) / (above - below)
            return self.costs[below] * (1 - share) + self.costs[above] * share
        if near := below or above:
            return self.costs[near] * usual(tokens) / usual(near)
        return usual(tokens)

    def guesses(self, chances: Sequence[float], states: bool = False) -> int:
        """How many guesses at one text save the most time; 0 where none is expected to save any.

        chances  that each comes true, if those before it do
        states   whether what came true is run again where not all of it did (engine/scheduler.py)
        """
        if not chances or self.texts + len(chances) > MOST:
            return 0
        plain = self.cost(self.texts)
        best, count, right, expected = LEAST * plain, 0, 1.0, 0.0
        for guesses, chance in enumerate(chances, 1):
            right *= chance
            expected = right * guesses if states else expected + right
            extra = (self.cost(self.texts + guesses) - plain) * (2 - right if states else 1)
            saved = expected * plain / self.texts - extra
            if saved > best:
                best, count = saved, guesses
        return count
