"""Blocks of KV memory and places for states: who holds them, and what those hold that nobody does."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from hashlib import blake2b
from typing import ClassVar

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


class Pool:
    """`count` pieces of memory of one kind, numbered from 0, which texts hold and share.

    kind     what messages call a piece
    holders  how many sequences hold each
    digests  what each is known by, b"" for the others: the same text is stored as the same bytes, whoever wrote it, so
             that any sequence that begins with it may hold it too
    known    the piece of each digest
    free     those that nobody holds or knows; the one dropped last is taken first, so that memory never used stays
             untouched
    idle     those that nobody holds, but that are known; the one dropped first is taken first when `free` is empty
    """

    kind: ClassVar[str]

    def __init__(self, count: int) -> None:
        self.holders = [0] * count
        self.digests = [START] * count
        self.known: dict[bytes, int] = {}
        self.free = list(reversed(range(count)))
        self.idle: dict[int, None] = {}

    @property
    def available(self) -> int:
        """How many could be taken."""
        return len(self.free) + len(self.idle)

    def take(self) -> int:
        """One that nobody holds, held once. Raises EngineError if there is none."""
        if self.free:
            piece = self.free.pop()
        elif self.idle:
            piece = next(iter(self.idle))
            del self.idle[piece]
            del self.known[self.digests[piece]]
            self.digests[piece] = START
        else:
            raise EngineError(f"a {self.kind} was taken, but all {len(self.holders)} are held")
        self.holders[piece] = 1
        return piece

    def hold(self, piece: int) -> int:
        """Hold a held or known one once more."""
        if not self.holders[piece]:
            if piece not in self.idle:
                raise EngineError(f"{self.kind} {piece} was shared, but nobody holds or knows it")
            del self.idle[piece]
        self.holders[piece] += 1
        return piece

    def drop(self, piece: int) -> None:
        """Undo one `take` or `hold`."""
        if self.holders[piece] < 1:
            raise EngineError(f"{self.kind} {piece} was dropped, but nobody holds it")
        self.holders[piece] -= 1
        if not self.holders[piece]:
            if self.digests[piece]:
                self.idle[piece] = None
            else:
                self.free.append(piece)

    def name(self, piece: int, digest: bytes) -> None:
        """Let one be found by the digest of its text; if another is found by it already, that one stays."""
        if digest not in self.known:
            self.known[digest] = piece
            self.digests[piece] = digest

    def balance(self, held: Seq[int]) -> None:
        """Raise EngineError unless the books agree with how often each is held."""
        for piece, (counted, booked) in enumerate(zip(held, self.holders, strict=True)):
            if counted != booked:
                raise EngineError(f"{self.kind} {piece} is in {counted} tables, but {booked} holders are booked")
        unheld = [piece for piece, holders in enumerate(self.holders) if not holders]
        for what, books, those in (
            ("free", self.free, [piece for piece in unheld if not self.digests[piece]]),
            ("idle", self.idle, [piece for piece in unheld if self.digests[piece]]),
        ):
            if sorted(books) != those:
                raise EngineError(f"the {what} {self.kind}s are {those}, but the books say {sorted(books)}")
        if self.known != {digest: piece for piece, digest in enumerate(self.digests) if digest}:
            raise EngineError(f"the {self.kind}s known by their digests are not those that have one")


class BlockPool(Pool):
    """Blocks of `size` tokens' keys and values. Full ones are known by the text up to their end.

    fresh    blocks taken since the last step that ran, in order; whoever ran it clears them
    copies   (from, to): to be done before the next step runs, in order
    """

    kind = "block"

    def __init__(self, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"memory must have at least one block of at least one slot, not {count} of {size}")
        super().__init__(count)
        self.size = size
        self.fresh: dict[int, None] = {}
        self.copies: list[tuple[int, int]] = []

    def take(self) -> int:
        """A block that nobody holds, held once and empty. Raises EngineError if there is none."""
        block = super().take()
        self.fresh[block] = None
        return block

    def copy(self, block: int) -> int:
        """Give up a hold of a block for a copy of it, to write into. Raises EngineError if no block is left."""
        target = self.take()
        del self.fresh[target]  # not to be cleared after it was copied to
        self.copies.append((block, target))
        self.drop(block)
        return target

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
        self.balance(held)


class StatePool(Pool):
    """Places for the states of a text: what those layers keep of it that do not keep every token.

    A step reads a text's states from one place and writes them to another, so what is to stay is never copied: a place
    that two hold is a fork, one that is known a snapshot, and one that was read still stands where the step fails or
    guesses in it do. Known are those of texts that end with a block, by its digest.
    """

    kind = "place"

    def check(self, sequences: Iterable[Sequence], size: int) -> None:
        """Raise EngineError unless the books agree with what all sequences hold that there are, between two steps.

        size  tokens in a block
        """
        held = [0] * len(self.holders)
        for sequence in sequences:
            if sequence.written is not None:
                raise EngineError(f"{sequence.name} is to write its states to {sequence.written}, but no step runs")
            if (sequence.state is None) != (sequence.stored == 0):
                raise EngineError(
                    f"{sequence.name} stores {sequence.stored} tokens and has its states in {sequence.state}"
                )
            if sequence.state is None:
                continue
            held[sequence.state] += 1
            if known := self.digests[sequence.state]:
                blocks, rest = divmod(sequence.stored, size)
                if rest or known != sequence.digests[blocks - 1]:
                    raise EngineError(f"place {sequence.state} is known as another text than that of {sequence.name}")
        self.balance(held)
