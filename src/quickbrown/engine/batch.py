"""One step's arrays: every token of every sequence in one flat list, nothing padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of S sequences, R of whose rows want logits. All arrays are int32 and contiguous.

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
    """What to draw from the logits of the step just run: one entry a draw, all arrays of the same length."""

    rows: Ints  # which of the R logit rows
    seeds: npt.NDArray[np.uint64]
    positions: npt.NDArray[np.int64]  # position of the token that is drawn; with the seed it keys the noise
    temperatures: npt.NDArray[np.float32]
    top_k: Ints
    top_p: npt.NDArray[np.float32]
    min_p: npt.NDArray[np.float32]
    logprobs: bool  # whether log-probabilities of the drawn tokens are wanted (else nan)
