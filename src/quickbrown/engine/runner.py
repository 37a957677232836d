"""What the engine needs of a machine. Backends conform to this; the engine imports none of them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from quickbrown.engine.batch import Batch, Draws, Ints


class Runner(Protocol):
    """Runs steps over paged KV memory of `room()` blocks of `block_size` slots."""

    block_size: int
    vocab_size: int

    def room(self) -> int:
        """How many blocks there are; they are numbered from 0."""
        ...

    def run(self, batch: Batch) -> None:
        """Compute the logits of `batch.logit_rows`; they stay valid until the next call."""
        ...

    def sample(self, draws: Draws) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Draw tokens from the logits of the last step: token ids (n,), log-probabilities (n,) or nan."""
        ...

    def logits(self) -> npt.NDArray[np.float32]:
        """The logits of the last step, (R, vocab_size) float32; a view, valid until the next `run`."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Copy one block's keys and values, all layers."""
        ...
