"""A draft model: a smaller one guesses, this one checks.

Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023), with keyed noise in the place of
their rule of acceptance: both models draw with the same noise, and a guess is kept exactly when it is the token that
this model draws. So the text is that of plain decoding, token for token, sampled as greedily.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from quickbrown.generation.decoders.sample import Drawn, S, Sample, Written, taken

MOST = 5  # guesses a step, unless somebody says


class Model(Protocol):
    """Guesses how texts go on: engine/draft.py."""

    def behind(self, text: Any) -> int: ...
    def guess(self, texts: Any, counts: list[int]) -> list[list[int]]: ...


class Pays(Protocol):
    """Says how many guesses are worth asking for; generation/gain.py has one."""

    def counts(self, lefts: Sequence[int], behind: Sequence[int]) -> list[int]: ...
    def took(self, guesses: int, seconds: float) -> None: ...
    def judged(self, guesses: int, right: int) -> None: ...


class Drafted(Sample):
    """Writes all requests that a draft model guesses for.

    most  guesses a step
    pays  says how many are worth it; None: all, always
    """

    def __init__(
        self, model: Model, most: int = MOST, pays: Pays | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.model, self.most, self.pays, self.clock = model, most, pays, clock

    def propose(self, sequences: Sequence[Written]) -> list[list[int]]:
        counts = [min(self.most, sequence.left - 1) for sequence in sequences]
        for i, sequence in enumerate(sequences):
            processor = sequence.request.processor
            if processor is not None and not hasattr(processor, "edits"):
                counts[i] = 0  # a caller's own function is asked about the text alone
        if self.pays is None:
            return self.model.guess(sequences, counts)
        worth = self.pays.counts([sequence.left for sequence in sequences], list(map(self.model.behind, sequences)))
        counts = list(map(min, counts, worth))
        if not any(counts):
            return [[] for _ in sequences]
        begin = self.clock()
        guesses = self.model.guess(sequences, counts)
        self.pays.took(max(map(len, guesses)), self.clock() - begin)
        return guesses

    def accept(self, sequences: Sequence[S], rows: Sequence[Sequence[Drawn]]) -> list[tuple[S, list[int], float]]:
        if self.pays is not None:
            for sequence, its in zip(sequences, rows, strict=True):
                if sequence.draft:
                    right = len(taken(its, sequence.draft)) - 1
                    self.pays.judged(len(sequence.draft), right)
        return super().accept(sequences, rows)
