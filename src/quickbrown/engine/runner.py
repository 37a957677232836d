"""What the engine needs of a machine. Backends conform to this; the engine imports none of them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from quickbrown.engine.batch import NO_DRAWS, Batch, Draws


def places(blocks: int) -> int:
    """How many places for states go with so many blocks, where a model has states: two for each of four texts, and one
    for every 16 blocks, so that of texts read some time ago there are states to go on from."""
    return 8 + blocks // 16


class Runner(Protocol):
    """Runs steps over paged KV memory of `room()` blocks of `block_size` slots."""

    block_size: int
    vocab_size: int

    def room(self) -> int:
        """How many blocks there are; they are numbered from 0."""
        ...

    def states(self) -> int:
        """How many places for the states of a text there are; 0 where the model has none."""
        ...

    def run(self, batch: Batch, draws: Draws = NO_DRAWS) -> list[tuple[int, float]]:
        """Compute the logits of `batch.logit_rows`, valid until the next call, and draw: (token, log-probability) each.

        The token is drawn from the row as `draws.edits` make it; the log-probability is of the row as it is, which it
        stays, and nan unless `draws` wants it. One call, because what Python does between two is slow: its
        code and data have left the caches while the weights passed through.
        """
        ...

    def redraw(self, draws: Draws, processed: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
        """Draw from changed rows of the last step: `processed[i]`, (V,) float32, is what draw i takes its token from.

        The log-probability is that of the token in the row as it was, `draws.rows[i]`.
        """
        ...

    def logits(self) -> npt.NDArray[np.float32]:
        """The logits of the last step, (R, vocab_size) float32; a view, valid until the next `run`."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Copy one block's keys and values, all layers."""
        ...
