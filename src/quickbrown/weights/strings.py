"""Many short texts in one piece of memory, found by what they say, without a Python object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
_U64s = npt.NDArray[np.uint64]

LONGEST = 65535  # bytes of a text that can be found
_STEP = 8  # bytes that are compared at once
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(_STEP + 1)], np.uint64)  # the first so many bytes
_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


class Strings(Sequence[str]):
    """A list of n texts that cannot be changed. A str is made when one is asked for.

    data    where they lie, in any order, perhaps overlapping, each of them valid UTF-8; 8 bytes follow the last
    begins  (n,) int64, the place of each in `data`
    sizes   (n,) int64, the bytes of each
    """

    def __init__(self, data: bytes, begins: Places, sizes: Places) -> None:
        self.data, self.begins, self.sizes = data, begins, sizes

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """Raises UnicodeEncodeError for a lone surrogate."""
        encoded = [text.encode() for text in texts]
        sizes = np.array([len(text) for text in encoded], np.int64)
        return cls(b"".join([*encoded, bytes(_STEP)]), np.cumsum(sizes) - sizes, sizes)

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return self.take(at)
        begin = int(self.begins[at])
        return str(self.data[begin : begin + int(self.sizes[at])], "utf-8")

    def __iter__(self) -> Iterator[str]:
        return iter(self.take(slice(None)))

    def take(self, which: slice | npt.NDArray[Any]) -> list[str]:
        """Some of them, in this order."""
        begins = self.begins[which]
        both = zip(begins.tolist(), (begins + self.sizes[which]).tolist(), strict=True)
        return [str(self.data[begin:end], "utf-8") for begin, end in both]

    def part(self, which: slice | npt.NDArray[Any]) -> Strings:
        """Some of them, in this order, in the same memory."""
        return Strings(self.data, self.begins[which], self.sizes[which])


class Index:
    """Finds texts in a list of tokens. Raises ValueError for a list in which they cannot be found.

    That is one that is empty, has an empty or very long token, has one twice, or two with one hash (64 bits), which no
    vocabulary has by chance.
    """

    def __init__(self, tokens: Strings) -> None:
        self.tokens = tokens
        if not len(tokens):
            raise ValueError("is empty")
        if not tokens.sizes.min():
            raise ValueError("has an empty token")
        self.longest = int(tokens.sizes.max())
        if self.longest > LONGEST:
            raise ValueError(f"has a token of {self.longest:,} bytes, more than the {LONGEST:,} that are allowed")
        hashes = _hashes(tokens)
        order = np.argsort(hashes)
        hashes = hashes[order]
        for place in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist():
            one, other = tokens.take(np.sort(order[place : place + 2]))
            if one == other:
                raise ValueError(f"has the token {one!r} twice")
            raise ValueError(f"has two tokens of one hash, {one!r} and {other!r}")
        bits = len(tokens).bit_length()
        self._shift = np.uint64(64 - bits)
        counts = np.bincount((hashes >> self._shift).astype(np.int64), minlength=1 << bits)
        self._starts = np.cumsum(counts) - counts  # where the hashes begin whose first bits are a number
        self._hashes = np.append(hashes, ~np.uint64(0))  # so that there is one at every place that is looked at
        self._order = np.append(order, -1).astype(np.int32)

    def find(self, texts: Strings) -> Ids:
        """(n,) int32: where in the list each text is; -1 for what is not in it."""
        able = texts.sizes <= self.longest
        if not able.all():
            found = np.full(len(texts), -1, np.int32)
            found[able] = self.find(texts.part(able))
            return found
        hashes = _hashes(texts)
        near = self._starts[hashes >> self._shift]
        for _ in range(2):  # few have more before them that begin with the same bits
            near += self._hashes[near] < hashes
        far = np.flatnonzero(self._hashes[near] < hashes)
        near[far] = np.searchsorted(self._hashes[:-1], hashes[far])
        found = np.where(self._hashes[near] == hashes, self._order[near], np.int32(-1))
        found[self.tokens.sizes[found] != texts.sizes] = -1
        long = np.flatnonzero((texts.sizes > _STEP) & (found >= 0))  # of one size and shorter, the hash tells all
        found[long[~same(texts.part(long), self.tokens.part(found[long]))]] = -1
        return found


def same(texts: Strings, others: Strings) -> npt.NDArray[np.bool_]:
    """(n,): whether each text is the other, or the beginning of a longer other."""
    one, two = _bytes(texts), _bytes(others)
    equal = np.ones(len(texts), np.bool_)
    for which, done, mask in _steps(texts.sizes):
        differ = (one[texts.begins[which] + done] ^ two[others.begins[which] + done]) & mask
        equal[which] &= differ == 0
    return equal


def _hashes(texts: Strings) -> _U64s:
    """(n,): no two texts of one size, up to 8 bytes, share one: every step can be undone."""
    data = _bytes(texts)
    hashes = texts.sizes.astype(np.uint64)
    for which, done, mask in _steps(texts.sizes):
        mixed = (hashes[which] ^ (data[texts.begins[which] + done] & mask)) * _FACTOR
        hashes[which] = mixed ^ (mixed >> _SHIFT)
    return hashes


def _steps(sizes: Places) -> Iterator[tuple[Any, int, _U64s]]:
    """Of n texts 8 bytes after 8 bytes: which are that long, the bytes before, and a mask of those that count."""
    which: Any = slice(None)
    for done in range(0, int(sizes.max(initial=0)), _STEP):
        if done:
            which = np.flatnonzero(sizes > done) if done == _STEP else which[sizes[which] > done]
        yield which, done, _MASKS[np.minimum(sizes[which] - done, _STEP)]


def _bytes(texts: Strings) -> _U64s:
    """The 8 bytes from each place on."""
    return np.ndarray((max(len(texts.data) - _STEP + 1, 0),), "<u8", texts.data, 0, (1,))
