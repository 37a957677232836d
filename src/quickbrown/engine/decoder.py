"""What the engine asks of those who decide: what to guess, what to draw from, and what to make of it.

`generation` and callers fill this.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from quickbrown.types import Edit

if TYPE_CHECKING:
    from quickbrown.engine.sequence import Sequence


class Row(NamedTuple):
    """What one row of logits decided."""

    token: int  # drawn from the row with the request's parameters and noise
    logprob: float | None  # of that token in the unfiltered row at temperature 1; None unless the request wants it
    position: int  # where that token would stand in the sequence


class Processor(Protocol):
    """Changes the logits of a request before its parameters filter them and a token is drawn.

    It runs on the engine's thread; an exception that it raises ends its request only.
    """

    def __call__(self, tokens: Seq[int], sample: int, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The row to draw from, (V,) float32, given the model's own, which must be left as it is.

        tokens  the text so far, prompt included
        sample  which sample of the request it is for

        May be asked again about the same text: keep no count of calls.
        """
        ...


class Editor(Processor, Protocol):
    """A processor that can say what it does in edits, which the runner makes itself in the step's one call."""

    def edits(self, tokens: Seq[int], sample: int) -> Seq[Edit] | None:
        """What it does to the row after a text; None if it must be called instead. As often as it is asked."""
        ...


class Decoder(Protocol):
    """Writes requests: one, or all that have it. It owns no loop; an exception that it raises ends its request only.

    Both methods may be asked again about the same text: keep no count of calls.
    """

    def propose(self, sequences: list[Sequence]) -> list[list[int]]:
        """Guesses of the tokens that follow each, run with its last token in the next step; usually [].

        Asked once a step about all sequences that it writes and of which the last token is all that is left to run. The
        engine shortens a list to what the step, the memory and `max_new_tokens` allow.
        """
        ...

    def accept(self, sequences: list[Sequence], rows: list[list[Row]]) -> list[tuple[Sequence, list[int], float]]:
        """Which sequence continues with which tokens (at least one), and its score: each once, in the order given.

        rows[i] belongs to sequences[i]: rows[i][0] says what follows its last token, rows[i][j] what follows
        guess j - 1 of its `draft`, which means something only if the guesses up to there are accepted.
        A sequence that stands for several samples is given once for each, with rows drawn with that sample's seed.
        """
        ...


class Meter(Protocol):
    """Is told how long steps take."""

    def step(self, texts: int, tokens: int, seconds: float) -> None:
        """A step in which nothing but texts was written: how many, how many tokens ran, guesses too, and how long."""
        ...
