"""One step's arrays: every token of every sequence in one flat list, nothing padded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from quickbrown.types import Edit, SamplingParams

Ints = Sequence[int]  # lists, where it matters: making a small numpy array takes longer than filling it
Floats = Sequence[float]


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of S sequences, R of whose rows want logits. All numbers fit in int32.

    The tokens of one sequence are adjacent and their positions ascend by one.
    A token at position p of a sequence lives in slot p % block_size of block p // block_size of its table. Where the
    model has states, those of a sequence's text before this step are read from one place, and those after it written to
    another, which nobody else in the step reads or writes.
    """

    tokens: Ints  # (T,)
    positions: Ints  # (T,)
    starts: Ints  # (S + 1,) sequence s owns tokens starts[s]:starts[s + 1]
    blocks: Ints  # block tables, one after another
    block_starts: Ints  # (S + 1,) sequence s owns blocks[block_starts[s]:block_starts[s + 1]]
    logit_rows: Ints  # (R,) indices into tokens, ascending
    fresh: Ints  # blocks taken since the last step: cleared before anything is written
    spans: Ints = field(default_factory=list)  # (S,) Request.span of each sequence; empty means all 0
    reads: Ints = field(default_factory=list)  # (S,) places of states, -1 for those of no text; empty without states
    writes: Ints = field(default_factory=list)  # (S,) places of states; empty without states


@dataclass(slots=True)
class Draws:
    """What to draw from the logits of a step: one entry a draw, all of the same length. Floats are taken as float32."""

    rows: list[int] = field(default_factory=list)  # which of the R logit rows
    seeds: list[int] = field(default_factory=list)  # 0 to 2**64 - 1
    positions: list[int] = field(default_factory=list)  # of the token that is drawn; with the seed it keys the noise
    temperatures: list[float] = field(default_factory=list)
    top_k: list[int] = field(default_factory=list)
    top_p: list[float] = field(default_factory=list)
    min_p: list[float] = field(default_factory=list)
    logprobs: bool = False  # whether log-probabilities of the drawn tokens are wanted (else nan)
    edits: list[tuple[int, Edit]] = field(default_factory=list)  # an index of a draw, and what edits its row, in order

    def add(self, row: int, seed: int, position: int, params: SamplingParams, edits: Iterable[Edit] = ()) -> None:
        """One more draw. Rows ascend where there are edits."""
        self.edits += [(len(self.rows), edit) for edit in edits]
        self.rows.append(row)
        self.seeds.append(seed)
        self.positions.append(position)
        self.temperatures.append(params.temperature)
        self.top_k.append(params.top_k)
        self.top_p.append(params.top_p)
        self.min_p.append(params.min_p)
        self.logprobs |= params.logprobs


NO_DRAWS = Draws()  # never added to
