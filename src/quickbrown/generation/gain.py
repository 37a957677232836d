"""Which guesses pay, by how long steps take: more tokens in a step cost time, guesses that come true save steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

MOST = 64  # tokens a step: where more run, a token more costs what it saves
LEAST = 0.15  # of a step's time: what guesses must be expected to save; smaller savings are often none
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
    says of now. The number that ran last time and again tells the first behind others too: such a step takes a little
    longer, and if that were its cost, the pace would be taken for faster each time, and what runs seldom for cheaper.
    What has not run for long is forgotten: then its neighbours say what it costs, so that a mistaken figure is not kept
    for ever.
    """

    def __init__(self) -> None:
        self.texts = 1  # written in the last step
        self.last = 0  # its tokens
        self.base = 0  # the tokens of the last two steps in a row that had as many
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
        if tokens in (self.last, self.base):
            self.pace *= 1 + (min(its / expected, DISTURBED) - 1) / 4
        else:
            measures = self.measures.setdefault(tokens, deque([expected], MEASURES))
            measures.append(min(its, DISTURBED * expected))
            middle = sorted(measures)
            self.costs[tokens] = (middle[len(middle) // 2] + middle[(len(middle) - 1) // 2]) / 2
        if tokens == self.last:
            self.base = tokens
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
        if not chances or chances[0] < LEAST or self.texts + len(chances) > MOST:
            return 0  # most often, and at once: this is asked at every token
        plain = self.cost(self.texts)
        best, count, right, expected = LEAST * plain, 0, 1.0, 0.0
        for guesses, chance in enumerate(chances, 1):
            right *= chance
            if right < LEAST:
                break
            expected = right * guesses if states else expected + right
            extra = (self.cost(self.texts + guesses) - plain) * (2 - right if states else 1)
            saved = expected * plain / self.texts - extra
            if saved > best:
                best, count = saved, guesses
        return count


class DraftGain:
    """Whether a draft model's guesses are worth what it takes to make them and to check them.

    They cannot be judged without having been made, so what they may cost is bounded: they are paid from an account, to
    which each step adds SHARE of its time, and guesses that come true what they save. Where they are not expected to
    pay, they are tried when it holds enough.

    steps   what steps cost
    most    guesses a step
    run     the time of a run of the draft model, of that of a step, where nothing was measured
    states  whether the texts have states (as in `Gain.guesses`)
    """

    SHARE = 0.01
    TRIED = 2  # guesses of a trial
    READ = 8  # tokens that a draft model reads in the time of one guess
    REMEMBERED = 64  # guesses

    def __init__(self, steps: Gain, most: int, run: float = 0.25, states: bool = False) -> None:
        self.steps, self.most, self.run, self.states = steps, most, run, states
        self.made, self.right = 4.0, 2.6  # of guesses at right texts, how many came true: as if four had been made
        self.seconds = math.nan  # of a run of the draft model
        self.account = math.nan  # seconds
        self.trial = False  # whether the guesses of this step are one
        self.texts, self.late = 1, 0  # of this step, and tokens that the draft reads in it

    @property
    def chance(self) -> float:
        """That a guess comes true, if those before it do."""
        return self.right / self.made

    def counts(self, lefts: Sequence[int], behind: Sequence[int]) -> list[int]:
        """How many guesses to make at each text.

        lefts   tokens that each may still become longer by
        behind  tokens of each that the draft has not read
        """
        self.texts = texts = len(lefts)
        plain = self.steps.pace * self.steps.cost(texts)
        if math.isnan(plain):
            return [0] * texts
        run = self.run * plain if math.isnan(self.seconds) else self.seconds
        self.account = 1.5 * plain if math.isnan(self.account) else min(self.account + self.SHARE * plain, 8 * plain)
        saved = [self.saved(count, run) for count in range(1, self.most + 1)]
        best = max(saved)
        self.trial = best < LEAST * plain
        if self.trial:
            count = min(self.TRIED, self.most)
            if self.account < self.checking(count) + run * (count + sum(behind) / self.READ):
                return [0] * texts
            self.account -= self.checking(count)
            self.late = sum(behind)
            return [count] * texts
        count = saved.index(best) + 1
        if self.account < 0:
            return [0] * texts
        steps = 1 + count * self.chance  # tokens a step
        counts = [
            count if best / texts * left / steps > run * late / self.READ else 0
            for left, late in zip(lefts, behind, strict=True)
        ]
        self.late = sum(late for count, late in zip(counts, behind, strict=True) if count)
        if any(counts):
            self.account -= self.checking(count)
        return counts

    def checking(self, count: int) -> float:
        """Seconds that a step takes longer with so many guesses at each text."""
        return self.steps.pace * (self.steps.cost(self.texts * (1 + count)) - self.steps.cost(self.texts))

    def saved(self, count: int, run: float) -> float:
        """Seconds that so many guesses at each text are expected to save in a step."""
        if self.texts * (1 + count) > MOST:
            return -math.inf
        chances = [self.chance**guess for guess in range(1, count + 1)]
        right = count * chances[-1] if self.states else sum(chances)
        again = 2 - chances[-1] if self.states else 1
        return self.steps.pace * self.steps.cost(self.texts) * right - self.checking(count) * again - count * run

    def took(self, guesses: int, seconds: float) -> None:
        """The draft model ran: at most so many guesses a text came of it."""
        if runs := guesses + self.late / self.READ:
            each = seconds / runs
            self.account -= seconds if self.trial else each * guesses  # else reading is to pay in the long run
            self.seconds = each if math.isnan(self.seconds) else self.seconds + (each - self.seconds) / 8

    def judged(self, guesses: int, right: int) -> None:
        """Of the guesses at one text, so many came true."""
        self.account += right * self.steps.pace * self.steps.cost(self.texts) / self.texts
        if self.made >= self.REMEMBERED:
            self.made, self.right = self.made / 2, self.right / 2
        self.made += right + (right < guesses)
        self.right += right
