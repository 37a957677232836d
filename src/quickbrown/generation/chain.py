"""Logits processors of one prompt, one behind another, as the engine asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.generation.history import History
from quickbrown.types import Edit


class Chain:
    """An engine's Processor of those that `processors.build` gives.

    chain  in order; each is called with ids (1, length) and scores (1, width)
    width  of a row
    """

    def __init__(self, chain: Sequence[Any], width: int) -> None:
        self.chain = chain
        self.width = width
        self.expressible = all(hasattr(one, "edits") for one in chain)
        self.histories: dict[int, History] = {}  # by sample

    def __call__(self, tokens: Sequence[int], sample: int, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        text, scores = np.asarray(tokens, np.int64)[None], logits[None]
        for processor in self.chain:
            scores = processor(text, scores)
        row: npt.NDArray[np.float32] = scores[0]
        return row

    def edits(self, tokens: Sequence[int], sample: int) -> list[Edit] | None:
        """What they do to the row after a text, if edits say it."""
        if not self.expressible:
            return None
        history = self.histories.setdefault(sample, History())
        history.become(tokens)
        found: list[Edit] = []
        for processor in self.chain:
            edits = processor.edits(history, self.width)
            if edits is None:
                return None
            found += edits
        return found
