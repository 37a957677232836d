"""Which sequences run in a step, and how many tokens of each."""

from __future__ import annotations

from collections import deque

from quickbrown.engine.blocks import BlockPool
from quickbrown.engine.sequence import EngineError, Sequence

Work = list[tuple[Sequence, int]]  # how many tokens of each sequence run, from its first that is not stored


class Scheduler:
    """First come, first served, under a budget of tokens a step and the memory of `pool`.

    `running` and then `waiting` are in the order of arrival: only the head of `waiting` is admitted, and only the
    youngest running sequence is preempted. So all but the youngest have read their prompt, and walking `running`
    in order puts decodes before prefills. Every running sequence moves by at least one token a step.
    """

    def __init__(self, pool: BlockPool, budget: int) -> None:
        if budget < 1:
            raise ValueError(f"budget must be at least one token a step, not {budget}")
        self.pool = pool
        self.budget = budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn; it must fit in an empty pool at its longest."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, and take its blocks back."""
        self.release(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> Work:
        """The work of the next step, blocks taken for it and drafts shortened to it; [] if nobody is here."""
        work: Work = []
        spare = self.budget - len(self.running)  # what is left when every running sequence has its one token
        for sequence in self.running:
            while not self.space(sequence):
                if self.preempt() is sequence:
                    break
            else:
                count = self.grant(sequence, 1 + spare)
                work.append((sequence, count))
                spare -= count - 1
        while spare and self.waiting and len(self.waiting[0].tokens) <= self.space(self.waiting[0]):
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            count = self.grant(sequence, spare)
            work.append((sequence, count))
            spare -= count
        return work

    def space(self, sequence: Sequence) -> int:
        """How many more tokens of a sequence memory could store."""
        return (len(sequence.blocks) + len(self.pool.free)) * self.pool.size - sequence.stored

    def grant(self, sequence: Sequence, most: int) -> int:
        """Let up to `most` tokens run, and take blocks for them; returns how many."""
        del sequence.draft[sequence.left - 1 :]  # the row after the last guess writes a token too
        known = len(sequence.tokens) - sequence.stored
        count = min(known + len(sequence.draft), most, self.space(sequence))
        del sequence.draft[max(0, count - known) :]
        while len(sequence.blocks) * self.pool.size < sequence.stored + count:
            sequence.blocks.append(self.pool.take())
        return count

    def trim(self, sequence: Sequence) -> None:
        """Take back the blocks that only guesses needed."""
        while (len(sequence.blocks) - 1) * self.pool.size >= len(sequence.tokens):
            self.pool.drop(sequence.blocks.pop())

    def preempt(self) -> Sequence:
        """Send the youngest running sequence back to the head of the queue, to be computed again later.

        It cannot come back in the same step: it needs one block more than it gave, and one was wanted.
        """
        sequence = self.running.pop()
        self.release(sequence)
        self.waiting.appendleft(sequence)
        return sequence

    def release(self, sequence: Sequence) -> None:
        """Take a sequence's blocks back; its text stays."""
        for block in sequence.blocks:
            self.pool.drop(block)
        sequence.blocks = []
        sequence.stored = 0
        sequence.draft = []

    def check(self) -> None:
        """Raise EngineError unless everything above holds between two steps."""
        self.pool.check([*self.running, *self.waiting])
        if len(self.running) > self.budget:
            raise EngineError(f"{len(self.running)} sequences run under a budget of {self.budget} tokens")
        for sequence in self.waiting:
            if sequence.blocks or sequence.stored or sequence.draft:
                raise EngineError(f"request {sequence.request.id} waits, but holds memory or guesses")
        for sequence in self.running:
            if not 0 <= sequence.stored < len(sequence.tokens):
                stored = f"{sequence.stored} of {len(sequence.tokens)} tokens"
                raise EngineError(f"request {sequence.request.id} stores {stored}; at least one must be left to run")
            if sequence.left < 1:
                raise EngineError(f"request {sequence.request.id} has written all it may, but still runs")
