"""The text so far, and what is asked of it at every token, kept from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class History:
    """A text that grows, and goes back where guesses were wrong. It is counted on, never anew.

    tokens  its ids, prompt included
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = list(tokens)
        self._first: dict[int, int] = {}  # where each token stands first, ascending
        self._order = np.empty(64, np.int32)  # those tokens
        self._counted = 0  # how many of `tokens` are in these
        self._runs: dict[int, _Runs] = {}  # by their size

    def become(self, tokens: Sequence[int]) -> None:
        """Hold another text; what is known of its beginning, if that is the same, stays."""
        known = len(self.tokens)
        if list(tokens[:known]) != self.tokens:
            pairs = zip(self.tokens, tokens, strict=False)
            known = next((at for at, (a, b) in enumerate(pairs) if a != b), min(known, len(tokens)))
            self._forget(known)
        self.tokens += tokens[known:]

    def _forget(self, length: int) -> None:
        """Go back to the first `length` tokens."""
        while self._first and next(reversed(self._first.values())) >= length:
            self._first.popitem()
        self._counted = min(self._counted, length)
        for runs in self._runs.values():
            runs.forget(self.tokens, length)
        del self.tokens[length:]

    def distinct(self) -> npt.NDArray[np.int32]:
        """Its distinct tokens, (k,), in the order in which they came: a view, valid until it becomes another text."""
        for at in range(self._counted, len(self.tokens)):
            token = self.tokens[at]
            if token not in self._first:
                count = len(self._first)
                if count == len(self._order):
                    self._order = np.concatenate([self._order, self._order])
                self._first[token] = at
                self._order[count] = token
        self._counted = len(self.tokens)
        return self._order[: len(self._first)]

    def completing(self, size: int, tail: Sequence[int]) -> npt.NDArray[np.int32]:
        """The tokens that complete, after tail, a run of `size` tokens which this text has, (k,); some come twice."""
        if size == 1:
            return self.distinct()
        if len(tail) < size - 1:
            return np.empty(0, np.int32)
        runs = self._runs.setdefault(size, _Runs(size))
        runs.read(self.tokens)
        ends = runs.ends.get(tuple(tail[1 - size :]), ())
        return np.array([self.tokens[end] for end in ends], np.int32)


class _Runs:
    """Where a text's runs of `size` >= 2 tokens end, by all their tokens but the last."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.ends: dict[tuple[int, ...], list[int]] = {}  # ascending
        self._read = size - 1  # the first end that is not among them

    def read(self, tokens: list[int]) -> None:
        for end in range(self._read, len(tokens)):
            self.ends.setdefault(tuple(tokens[end + 1 - self.size : end]), []).append(end)
        self._read = max(self._read, len(tokens))

    def forget(self, tokens: list[int], length: int) -> None:
        for end in range(max(length, self.size - 1), self._read):
            self.ends[tuple(tokens[end + 1 - self.size : end])].remove(end)
        self._read = max(self.size - 1, min(self._read, length))
