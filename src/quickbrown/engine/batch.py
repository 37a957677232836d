"""One step's arrays: every token of every sequence in one flat list, nothing padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Ints = Sequence[int]  # lists, where it matters: making a small numpy array takes longer than filling it
Floats = Sequence[float]


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of S sequences, R of whose rows want logits. All numbers fit in int32.

    The tokens of one sequence are adjacent and their positions ascend by one.
    A token at position p of a sequence lives in slot p % block_size of block p // block_size of its table.
    """

    tokens: Ints  # (T,)
    positions: Ints  # (T,)
    starts: Ints  # (S + 1,) sequence s owns tokens starts[s]:starts[s + 1]
    blocks: Ints  # block tables, one after another
    block_starts: Ints  # (S + 1,) sequence s owns blocks[block_starts[s]:block_starts[s + 1]]
    logit_rows: Ints  # (R,) indices into tokens, ascending
    fresh: Ints  # blocks taken since the last step: cleared before anything is written


@dataclass(frozen=True, slots=True)
class Draws:
    """What to draw from the logits of a step: one entry a draw, all of the same length. Floats are taken as float32."""

    rows: Ints = field(default_factory=list)  # which of the R logit rows
    seeds: Ints = field(default_factory=list)  # 0 to 2**64 - 1
    positions: Ints = field(default_factory=list)  # of the token that is drawn; with the seed it keys the noise
    temperatures: Floats = field(default_factory=list)
    top_k: Ints = field(default_factory=list)
    top_p: Floats = field(default_factory=list)
    min_p: Floats = field(default_factory=list)
    logprobs: bool = False  # whether log-probabilities of the drawn tokens are wanted (else nan)


NO_DRAWS = Draws()
