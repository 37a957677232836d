"""Blocks of KV memory: which are free, and how many sequences hold each of the others."""

from __future__ import annotations

from collections.abc import Iterable

from quickbrown.engine.sequence import EngineError, Sequence


class BlockPool:
    """`count` blocks of `size` slots, numbered from 0.

    holders  how many sequences hold each block
    free     those that nobody holds; the one dropped last is taken first, so that memory never used stays untouched
    fresh    blocks taken since the last step that ran; whoever ran it clears the list
    """

    def __init__(self, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"memory must have at least one block of at least one slot, not {count} of {size}")
        self.size = size
        self.holders = [0] * count
        self.free = list(reversed(range(count)))
        self.fresh: list[int] = []

    def take(self) -> int:
        """A free block, held once. Raises EngineError if there is none."""
        if not self.free:
            raise EngineError(f"a block was taken, but all {len(self.holders)} are held")
        block = self.free.pop()
        self.holders[block] = 1
        self.fresh.append(block)
        return block

    def hold(self, block: int) -> int:
        """Hold a held block once more."""
        if self.holders[block] < 1:
            raise EngineError(f"block {block} was shared, but nobody holds it")
        self.holders[block] += 1
        return block

    def drop(self, block: int) -> None:
        """Undo one `take` or `hold`; a block that nobody holds any more is free."""
        if self.holders[block] < 1:
            raise EngineError(f"block {block} was dropped, but nobody holds it")
        self.holders[block] -= 1
        if not self.holders[block]:
            self.free.append(block)

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raise EngineError unless the books agree with the block tables of all sequences there are."""
        held = [0] * len(self.holders)
        for sequence in sequences:
            name = f"the sequence of request {sequence.request.id}"
            if len(set(sequence.blocks)) < len(sequence.blocks):
                raise EngineError(f"{name} has a block twice in its table {sequence.blocks}")
            if len(sequence.blocks) * self.size < sequence.stored:
                raise EngineError(f"{name} stores {sequence.stored} tokens in {len(sequence.blocks)} blocks")
            for block in sequence.blocks:
                held[block] += 1
        for block, (counted, booked) in enumerate(zip(held, self.holders, strict=True)):
            if counted != booked:
                raise EngineError(f"block {block} is in {counted} tables, but {booked} holders are booked")
        free = [block for block, holders in enumerate(self.holders) if not holders]
        if sorted(self.free) != free:
            raise EngineError(f"blocks {free} have no holder, but the free list is {sorted(self.free)}")
