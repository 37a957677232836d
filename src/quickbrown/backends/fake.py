"""A Runner without a model: it really keeps tokens in blocks, and answers from all that it reads back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quickbrown.backends.sampling import mix, redraw, sample
from quickbrown.engine.batch import NO_DRAWS, Batch, Draws

EMPTY = -1


class FakeRunner:
    """Logits that are a fixed function of the text, read through the block table, so that a fault in paging changes it.

    Every rule between engine and runner is asserted; a broken one raises AssertionError.

    states  how many places for states there are; the states of a text are the text
    """

    def __init__(
        self, vocab_size: int = 32, blocks: int = 16, block_size: int = 4, seed: int = 0, states: int = 0
    ) -> None:
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.seed = seed
        self.slots = np.full((blocks, block_size), EMPTY, np.int64)
        self.texts: list[list[int]] = [[EMPTY]] * states
        self.homes: dict[int, tuple[int, ...]] = {}  # the head of the table in which a block was first written
        self.rows = np.empty((0, vocab_size), np.float32)

    def room(self) -> int:
        """How many blocks there are."""
        return len(self.slots)

    def states(self) -> int:
        """How many places for states there are."""
        return len(self.texts)

    def answer(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """The logits after a text, (vocab_size,) float32: what `run` gives if the text is stored as it should be."""
        state = self.seed
        for token in tokens:
            state = mix(state ^ token)
        return 2 * np.random.default_rng(state).standard_normal(self.vocab_size, np.float32)

    def run(self, batch: Batch, draws: Draws = NO_DRAWS) -> list[tuple[int, float]]:
        """Store the tokens, then read back every text that a row is wanted of, and draw as specified."""
        self.check(batch)
        for block in batch.fresh:
            self.slots[block] = EMPTY
            self.homes.pop(block, None)
        tables = [list(batch.blocks[start:end]) for start, end in pairwise(batch.block_starts)]
        owners = [owner for owner, (start, end) in enumerate(pairwise(batch.starts)) for _ in range(start, end)]
        writers: dict[int, int] = {}
        for owner, token, position in zip(owners, batch.tokens, batch.positions, strict=True):
            index, offset = divmod(position, self.block_size)
            assert index < len(tables[owner]), f"position {position} lies behind the table {tables[owner]}"
            block = tables[owner][index]
            assert writers.setdefault(block, owner) == owner, f"block {block} is written by two sequences"
            home = tuple(tables[owner][: index + 1])
            assert self.homes.setdefault(block, home) == home, f"block {block} was not cleared for its new sequence"
            self.slots[block, offset] = token
        if self.texts:
            self.move(batch, tables)
        rows = []
        for row in batch.logit_rows:
            length = batch.positions[row] + 1
            text = self.slots[tables[owners[row]]].ravel()[:length].tolist()
            assert EMPTY not in text, f"slot {text.index(EMPTY)} of a sequence is read before it was written"
            rows.append(self.answer(text))
        self.rows = np.array(rows, np.float32).reshape(-1, self.vocab_size)
        return self.sample(draws) if draws.rows else []

    def move(self, batch: Batch, tables: list[list[int]]) -> None:
        """Write the states of each text behind those that were read, which must be of what its blocks store."""
        touched = [*batch.writes, *(place for place in batch.reads if place >= 0)]
        assert len(batch.reads) == len(batch.writes) == len(tables), "each sequence must read and write states"
        assert min(touched) >= 0, f"states are written to {batch.writes}"
        assert len(set(batch.writes)) == len(batch.writes), f"two sequences write states to one of {batch.writes}"
        assert not set(batch.writes) & set(batch.reads), f"{batch.writes} are written and {batch.reads} read"
        spans = zip(pairwise(batch.starts), tables, batch.reads, batch.writes, strict=True)
        for (start, end), table, read, write in spans:
            text = [] if read < 0 else self.texts[read]
            stored = self.slots[table].ravel()[: batch.positions[start]].tolist()
            assert text == stored, f"states are read of {text}, and {stored} is stored"
            self.texts[write] = [*text, *batch.tokens[start:end]]

    def sample(self, draws: Draws) -> list[tuple[int, float]]:
        """Draw from the last rows."""
        return sample(self.rows, draws)

    def redraw(self, draws: Draws, processed: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
        """Draw from changed rows."""
        return redraw(self.rows, draws, processed)

    def logits(self) -> npt.NDArray[np.float32]:
        """The logits of the last step, (R, vocab_size)."""
        return self.rows

    def copy(self, source: int, target: int) -> None:
        """Copy one block, to be written by another sequence."""
        self.slots[target] = self.slots[source]
        self.homes.pop(target, None)

    def check(self, batch: Batch) -> None:
        """Assert what Batch promises."""
        total = len(batch.tokens)
        assert len(batch.positions) == total, "each token must have its position"
        assert len(batch.starts) == len(batch.block_starts), "each sequence must have tokens and a table"
        for name, starts, end in (
            ("starts", batch.starts, total), ("block_starts", batch.block_starts, len(batch.blocks)),
        ):  # fmt: skip
            assert [starts[0], starts[-1]] == [0, end], f"{name} is {starts}, of {end} in all"
            assert all(a < b for a, b in pairwise(starts)), f"{name} is {starts}: a sequence has nothing"
        for name, values, limit in (
            ("tokens", batch.tokens, self.vocab_size), ("blocks", batch.blocks, len(self.slots)),
            ("fresh", batch.fresh, len(self.slots)), ("logit_rows", batch.logit_rows, total),
        ):  # fmt: skip
            assert all(0 <= value < limit for value in values), f"{name} is {values}, outside 0 to {limit - 1}"
        assert len(set(batch.fresh)) == len(batch.fresh), f"fresh names a block twice: {batch.fresh}"
        assert all(a < b for a, b in pairwise(batch.logit_rows)), f"logit_rows do not ascend: {batch.logit_rows}"
        assert min(batch.positions) >= 0, f"positions are {batch.positions}"
        jumps = {i for i, (a, b) in enumerate(pairwise(batch.positions), 1) if b != a + 1}
        assert jumps <= set(batch.starts), f"positions jump inside a sequence: {batch.positions}"
