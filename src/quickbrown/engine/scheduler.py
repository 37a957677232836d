"""Which sequences run in a step, and how many tokens of each."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass
from operator import attrgetter

from quickbrown.engine.blocks import BlockPool, StatePool, digest, root
from quickbrown.engine.sequence import EngineError, Sequence

Work = list[tuple[Sequence, int]]  # how many tokens of each sequence run, from its first that is not stored

LEAST_READ = 16  # tokens of prompts a step; sixteen rows take about five times as long as one, not sixteen times
DEEP = 1024  # tokens, for a model of which nothing is known

by_order = attrgetter("order")


@dataclass(slots=True)
class Share:
    """What is left of a step for tokens beside the one that every running sequence has.

    deep  a token so far into its text counts as two at its beginning, since attention reads all before it; inf: as one
    """

    left: float
    deep: float = math.inf

    def weight(self, sequence: Sequence) -> float:
        """Of the next token of a sequence."""
        return 1 + sequence.stored / self.deep

    def most(self, sequence: Sequence) -> int:
        """How many tokens of a sequence it holds."""
        return max(0, int(self.left / self.weight(sequence)))

    def take(self, sequence: Sequence, count: int) -> None:
        self.left -= count * self.weight(sequence)


class Scheduler:
    """First come, first served, under a budget of tokens a step and the memory of `pool` and `states`.

    `running` and `waiting` are each in the order of arrival: only the head of `waiting` is admitted, and only the
    youngest running sequence is preempted. Every running sequence moves by at least one token a step, so reading a
    prompt holds up nobody's text. Nor does it slow texts down much: while some are being written, a step reads no more
    tokens of prompts than it writes texts, deep ones counting more, so that it takes at most about twice as long as
    without them. Where texts are few, it reads LEAST_READ, so that prompts do not wait for ever. Guesses, which are the
    texts' own, get what is left of the budget.

    deep    the depth in a text at which reading a token takes about twice as long as at its beginning
    states  where the model has such; None where it has not
    """

    def __init__(self, pool: BlockPool, budget: int, states: StatePool | None = None, deep: float = DEEP) -> None:
        if budget < 1:
            raise ValueError(f"budget must be at least one token a step, not {budget}")
        self.pool = pool
        self.states = states
        self.budget = budget
        self.deep = deep
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn; it must fit in an empty pool at its longest."""
        insort(self.waiting, sequence, key=by_order)

    def fork(self, sequence: Sequence) -> None:
        """Take in a sequence that holds the blocks of a running one."""
        insort(self.running, sequence, key=by_order)

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
        while len(self.running) > self.budget:  # forks came
            self.preempt()
        reading, guessing = self.shares()
        for sequence in self.running:  # which preempt() shortens at its end
            while not self.space(sequence):
                if self.preempt() is sequence:
                    break
            else:
                share = guessing if is_written(sequence) else reading
                count = self.grant(sequence, 1 + share.most(sequence))
                work.append((sequence, count))
                share.take(sequence, count - 1)
        while reading.left >= 1 and self.waiting and self.admit(self.waiting[0]):
            sequence = self.waiting.pop(0)
            insort(self.running, sequence, key=by_order)
            count = self.grant(sequence, max(1, reading.most(sequence)))
            work.append((sequence, count))
            reading.take(sequence, count)
        return work

    def shares(self) -> tuple[Share, Share]:
        """What this step has for tokens of prompts, and for guesses."""
        spare = self.budget - len(self.running)
        written = sum(map(is_written, self.running))
        read = len(self.running) - written  # which have their one token
        if not written:
            return Share(spare), Share(0)
        if not read and not self.waiting:
            return Share(0), Share(spare)
        most = min(spare, max(written, LEAST_READ, read) - read)
        return Share(most, self.deep), Share(spare - most)

    def admit(self, sequence: Sequence) -> bool:
        """Give a waiting sequence the known blocks that its text begins with, if memory has room for the rest of it and
        for its states."""
        length, size = len(sequence.tokens), self.pool.size
        most = (length - 1) // size  # at least one token is left to run
        self.identify(sequence, most)
        found, state = self.pool.find(sequence.digests[:most]), None
        if self.states is not None:
            if 2 * (len(self.running) + 1) > len(self.states.holders):  # to read from and to write to
                return False
            found, state = self.remembered(sequence, found, self.states)
        idle = sum(not self.pool.holders[block] for block in found)
        if -(-length // size) - len(found) > self.pool.available - idle:
            return False
        sequence.blocks = [self.pool.hold(block) for block in found]
        if state is not None and self.states is not None:
            sequence.state = self.states.hold(state)
        sequence.named = len(found)
        sequence.stored = len(found) * size
        if sequence.reused < 0:
            sequence.reused = sequence.stored
        return True

    def remembered(self, sequence: Sequence, found: list[int], states: StatePool) -> tuple[list[int], int | None]:
        """Of the known blocks that a text begins with, those up to the last behind which its states are known too, and
        where those are."""
        for count in range(len(found), 0, -1):
            if (state := states.known.get(sequence.digests[count - 1])) is not None:
                return found[:count], state
        return [], None

    def space(self, sequence: Sequence) -> int:
        """How many more tokens of a running sequence memory could store."""
        if self.states is not None and not self.states.available:
            return 0
        free = self.pool.available - self.shares_its_end(sequence)
        return max(0, (len(sequence.blocks) + free) * self.pool.size - sequence.stored) if free >= 0 else 0

    def shares_its_end(self, sequence: Sequence) -> bool:
        """Whether others hold the block that the next token is to be written to."""
        at = sequence.stored // self.pool.size
        return at < len(sequence.blocks) and self.pool.holders[sequence.blocks[at]] > 1

    def grant(self, sequence: Sequence, most: int) -> int:
        """Let up to `most` tokens run, and take blocks for them; returns how many."""
        del sequence.draft[sequence.left - 1 :]  # the row after the last guess writes a token too
        known = len(sequence.tokens) - sequence.stored
        count = min(known + len(sequence.draft), most, self.space(sequence))
        if self.states is not None:
            count = self.stop_at_block(sequence, count)
            sequence.written = self.states.take()
        del sequence.draft[max(0, count - known) :]
        if self.shares_its_end(sequence):
            at = sequence.stored // self.pool.size
            sequence.blocks[at] = self.pool.copy(sequence.blocks[at])
        while len(sequence.blocks) * self.pool.size < sequence.stored + count:
            sequence.blocks.append(self.pool.take())
        return count

    def stop_at_block(self, sequence: Sequence, count: int) -> int:
        """How many of the next `count` tokens run, so that the step ends with a block where it can: states are known
        there only. So the last full block of a prompt always ends a step."""
        size, first = self.pool.size, sequence.stored
        end = min(first + count, len(sequence.tokens) - 1) // size * size
        return end - first if end > first else count

    def advance(self, sequence: Sequence, ran: int, right: int) -> None:
        """After a step: of the `ran` tokens of a sequence in it, the first `right` are its text's, and stored.

        States are those behind all that ran. Where not all of it was right, those before the step stand, and what was
        right of it runs again.
        """
        if self.states is not None and sequence.written is not None:
            gone: int | None = sequence.written
            if right < ran:
                right = 0
            else:
                gone, sequence.state = sequence.state, sequence.written
            sequence.written = None
            if gone is not None:
                self.states.drop(gone)
        sequence.stored += right

    def settle(self, sequence: Sequence) -> None:
        """After a step: make known what is full now, blocks and the states behind them, and take back blocks that only
        guesses needed."""
        size = self.pool.size
        full = sequence.stored // size
        if full > sequence.named:
            self.identify(sequence, full)
            for i in range(sequence.named, full):
                self.pool.name(sequence.blocks[i], sequence.digests[i])
            sequence.named = full
            if self.states is not None and sequence.state is not None and sequence.stored == full * size:
                self.states.name(sequence.state, sequence.digests[full - 1])
        while (len(sequence.blocks) - 1) * size >= len(sequence.tokens):
            self.pool.drop(sequence.blocks.pop())

    def identify(self, sequence: Sequence, blocks: int) -> None:
        """Compute the digests of a text's first full blocks, as far as that has not been done."""
        size, digests = self.pool.size, sequence.digests
        for i in range(len(digests), blocks):
            before = digests[-1] if digests else root(sequence.request.span)
            digests.append(digest(before, sequence.tokens[i * size : (i + 1) * size]))

    def preempt(self) -> Sequence:
        """Send the youngest running sequence back to the head of the queue.

        Its text stays, and as much of its memory as nobody needs meanwhile; the rest is computed again.
        """
        sequence = self.running.pop()
        self.release(sequence)
        self.add(sequence)
        return sequence

    def release(self, sequence: Sequence) -> None:
        """Drop a sequence's blocks, the last one first: of those that stay known, it is the first to be taken."""
        for block in reversed(sequence.blocks):
            self.pool.drop(block)
        if self.states is not None:
            for place in (sequence.state, sequence.written):
                if place is not None:
                    self.states.drop(place)
        sequence.blocks = []
        sequence.state = sequence.written = None
        sequence.stored = sequence.named = 0
        sequence.draft = []

    def check(self) -> None:
        """Raise EngineError unless everything above holds between two steps."""
        self.pool.check([*self.running, *self.waiting])
        if self.states is not None:
            self.states.check([*self.running, *self.waiting], self.pool.size)
        for what, sequences in (("run", self.running), ("wait", self.waiting)):
            if sequences != sorted(sequences, key=by_order):
                raise EngineError(f"those that {what} are not in the order of arrival: {[s.name for s in sequences]}")
            for sequence in sequences:
                if sequence.left < 1:
                    raise EngineError(f"{sequence.name} has written all it may, but is still there to {what}")
        for sequence in self.waiting:
            if sequence.blocks or sequence.stored or sequence.named or sequence.draft:
                raise EngineError(f"{sequence.name} waits, but holds memory or guesses")
        for sequence in self.running:
            if not 0 <= sequence.stored < len(sequence.tokens):
                stored = f"{sequence.stored} of {len(sequence.tokens)} tokens"
                raise EngineError(f"{sequence.name} stores {stored}; at least one must be left to run")


def is_written(sequence: Sequence) -> bool:
    """Whether a sequence has been read up to its last token, so that each step writes it on."""
    return sequence.stored + 1 == len(sequence.tokens)
