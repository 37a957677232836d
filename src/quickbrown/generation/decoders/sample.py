"""The plain way to write: one token a step, the one that was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

S = TypeVar("S")


class Drawn(Protocol):
    """A row that has been drawn from."""

    @property
    def token(self) -> int: ...


class Sample:
    """Takes the drawn token. Greedy decoding is the same at temperature 0, where the draw is the likeliest token."""

    def propose(self, sequence: object) -> list[int]:
        """No guesses."""
        return []

    def accept(self, sequences: Sequence[S], rows: Sequence[Sequence[Drawn]]) -> list[tuple[S, list[int], float]]:
        """Each sequence goes on with what its last token's row drew."""
        return [(sequence, [drawn[0].token], 0.0) for sequence, drawn in zip(sequences, rows, strict=True)]
