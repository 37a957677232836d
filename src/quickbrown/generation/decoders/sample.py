"""The plain way to write: the tokens that were drawn, one a step, and more where guesses came true."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Protocol, TypeVar


class Drawn(Protocol):
    """A row that has been drawn from."""

    @property
    def token(self) -> int: ...


class Asked(Protocol):
    """What is to be written."""

    @property
    def prompt(self) -> tuple[int, ...]: ...
    @property
    def processor(self) -> object | None: ...


class Written(Protocol):
    """A text being written, as the engine has it (engine/sequence.py)."""

    @property
    def request(self) -> Asked: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def samples(self) -> tuple[int, ...]: ...
    @property
    def state(self) -> int | None: ...
    @property
    def left(self) -> int: ...
    @property
    def draft(self) -> list[int]: ...


S = TypeVar("S", bound=Written)


class Sample:
    """Takes the drawn tokens. Greedy decoding is the same at temperature 0, where the draw is the likeliest token."""

    def propose(self, sequences: Sequence[Written]) -> list[list[int]]:
        """No guesses."""
        return [[] for _ in sequences]

    def accept(self, sequences: Sequence[S], rows: Sequence[Sequence[Drawn]]) -> list[tuple[S, list[int], float]]:
        """Each sequence goes on with what its last token's row drew, and as long as that is what was guessed, with what
        the guess's row drew. A draw depends on the text before it and on its position alone, so this is the text that
        would have been written without guesses."""
        return [(sequence, taken(its, sequence.draft), 0.0) for sequence, its in zip(sequences, rows, strict=True)]


def taken(rows: Sequence[Drawn], draft: Sequence[int]) -> list[int]:
    """The tokens of rows that answer to the text itself: the first, and each behind a guess that came true."""
    tokens = []
    for row, guess in zip_longest(rows, draft):
        tokens.append(row.token)
        if row.token != guess:
            break
    return tokens
