"""Blocks of KV memory: who holds them, and what those hold that nobody does."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b

from quickbrown.engine.sequence import EngineError, Sequence

START = b""  # the digest of no tokens


def digest(before: bytes, tokens: Iterable[int]) -> bytes:
    """What a full block is known by: 32 bytes of BLAKE2b (RFC 7693) over the digest of the block before and its tokens.

    So it stands for the whole text up to its end. Two texts never share one, short of breaking the hash.
    """
    return blake2b(before + array("i", tokens).tobytes(), digest_size=32).digest()


def root(span: int) -> bytes:
    """What the first block of a text follows: texts of different spans share no block."""
    return START if not span else digest(b"span", [span])


class BlockPool:
    """`count` blocks of `size` slots, numbered from 0.

    holders  how many sequences hold each block
    digests  what each full block is known by, b"" for the others: the same text is stored as the same bytes, whoever
             wrote it, so that any sequence that begins with it may hold it too
    known    the block of each digest
    free     those that nobody holds or knows; the one dropped last is taken first, so that memory never used stays
             untouched
    idle     those that nobody holds, but that are known; the one dropped first is taken first when `free` is empty
    fresh    blocks taken since the last step that ran, in order; whoever ran it clears them
    copies   (from, to): to be done before the next step runs, in order
    """

    def __init__(self, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"memory must have at least one block of at least one slot, not {count} of {size}")
        self.size = size
        self.holders = [0] * count
        self.digests = [START] * count
        self.known: dict[bytes, int] = {}
        self.free = list(reversed(range(count)))
        self.idle: dict[int, None] = {}
        self.fresh: dict[int, None] = {}
        self.copies: list[tuple[int, int]] = []

    @property
    def available(self) -> int:
        """How many blocks could be taken."""
        return len(self.free) + len(self.idle)

    def take(self) -> int:
        """A block that nobody holds, held once and empty. Raises EngineError if there is none."""
        if self.free:
            block = self.free.pop()
        elif self.idle:
            block = next(iter(self.idle))
            del self.idle[block]
            del self.known[self.digests[block]]
            self.digests[block] = START
        else:
            raise EngineError(f"a block was taken, but all {len(self.holders)} are held")
        self.holders[block] = 1
        self.fresh[block] = None
        return block

    def hold(self, block: int) -> int:
        """Hold a held or known block once more."""
        if not self.holders[block]:
            if block not in self.idle:
                raise EngineError(f"block {block} was shared, but nobody holds or knows it")
            del self.idle[block]
        self.holders[block] += 1
        return block

    def drop(self, block: int) -> None:
        """Undo one `take` or `hold`."""
        if self.holders[block] < 1:
            raise EngineError(f"block {block} was dropped, but nobody holds it")
        self.holders[block] -= 1
        if not self.holders[block]:
            if self.digests[block]:
                self.idle[block] = None
            else:
                self.free.append(block)

    def copy(self, block: int) -> int:
        """Give up a hold of a block for a copy of it, to write into. Raises EngineError if no block is left."""
        target = self.take()
        del self.fresh[target]  # not to be cleared after it was copied to
        self.copies.append((block, target))
        self.drop(block)
        return target

    def name(self, block: int, digest: bytes) -> None:
        """Let a full block be found by its digest; if one is found by it already, that one stays."""
        if digest not in self.known:
            self.known[digest] = block
            self.digests[block] = digest

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """The known blocks of a text's digests, up to the first that is not known."""
        found = []
        for one in digests:
            if (block := self.known.get(one)) is None:
                break
            found.append(block)
        return found

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raise EngineError unless the books agree with the block tables of all sequences there are."""
        held = [0] * len(self.holders)
        for sequence in sequences:
            if len(set(sequence.blocks)) < len(sequence.blocks):
                raise EngineError(f"{sequence.name} has a block twice in its table {sequence.blocks}")
            if len(sequence.blocks) * self.size < sequence.stored:
                raise EngineError(f"{sequence.name} stores {sequence.stored} tokens in {len(sequence.blocks)} blocks")
            if sequence.named * self.size > sequence.stored or (sequence.named + 1) * self.size <= sequence.stored:
                raise EngineError(f"{sequence.name} stores {sequence.stored} tokens, but named {sequence.named} blocks")
            before = START
            for i in range(max(len(sequence.digests), sequence.named)):
                before = digest(before, sequence.tokens[i * self.size : (i + 1) * self.size])
                if sequence.digests[i] != before:
                    raise EngineError(f"the digest of block {i} of {sequence.name} is that of another text")
            for i, block in enumerate(sequence.blocks):
                held[block] += 1
                if self.digests[block] and (i >= sequence.named or self.digests[block] != sequence.digests[i]):
                    raise EngineError(f"block {block} is known as another text than that of {sequence.name}")
        for block, (counted, booked) in enumerate(zip(held, self.holders, strict=True)):
            if counted != booked:
                raise EngineError(f"block {block} is in {counted} tables, but {booked} holders are booked")
        unheld = [block for block, holders in enumerate(self.holders) if not holders]
        for what, books, those in (
            ("free", self.free, [block for block in unheld if not self.digests[block]]),
            ("idle", self.idle, [block for block in unheld if self.digests[block]]),
        ):
            if sorted(books) != those:
                raise EngineError(f"the {what} blocks are {those}, but the books say {sorted(books)}")
        if self.known != {digest: block for block, digest in enumerate(self.digests) if digest}:
            raise EngineError("the blocks known by their digests are not those that have one")
