"""A weight knows its own encoding: nobody else asks whether it is float or 4 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import FORMATS

Columns = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor as published.

    format   a key of `quant.formats.FORMATS`
    shape    logical shape: (out, in), or (n,) for a vector
    data     uint8, (rows, bytes a row), C-contiguous, rows = product of shape[:-1]; often a view of a mapped file
    columns  where `data` holds the columns of a matrix in another order: the input that each of them multiplies, (in,)
    """

    format: str
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]
    columns: Columns | None = None

    def between(self, first: int, last: int) -> npt.NDArray[np.uint8]:
        """Rows `first` to `last` of `data`."""
        return self.data[first:last]

    def slices(self, rows: int) -> Iterator[npt.NDArray[np.uint8]]:
        """`data`, so many rows at a time."""
        data = self.data
        for first in range(0, len(data), rows):
            yield data[first : first + rows]

    def rows(self, start: int, stop: int) -> Weight:
        """Entries along the first axis: the same bytes, in any format; of a vector, in formats of single values."""
        if not 0 <= start < stop <= self.shape[0]:
            raise ValueError(f"a weight of shape {self.shape} has no rows {start} to {stop}")
        if len(self.shape) == 1:
            size = FORMATS[self.format].row_bytes(1)
            return Weight(self.format, (stop - start,), self.data[:, start * size : stop * size])
        each = math.prod(self.shape[1:-1])
        return PartWeight(self, (stop - start, *self.shape[1:]), lambda: self.between(start * each, stop * each))

    def part(self, index: int) -> Weight:
        """One entry along the first of three or more axes: the same bytes."""
        each = math.prod(self.shape[1:-1])
        return PartWeight(self, self.shape[1:], lambda: self.between(index * each, (index + 1) * each))

    def picked(self, rows: npt.NDArray[np.intp]) -> Weight:
        """Some rows of a matrix in any order, in any format; entries of a vector, in formats of single values: a copy
        each time it is read."""
        if len(self.shape) == 1:
            size = FORMATS[self.format].row_bytes(1)
            return PartWeight(self, (len(rows),), lambda: self.data.reshape(-1, size)[rows].reshape(1, -1))
        return PartWeight(self, (len(rows), *self.shape[1:]), lambda: self.data[rows])

    def transposed(self) -> Weight:
        """A matrix (K, N) as (N, K), in formats of single values: a copy each time it is read."""
        size, (inputs, outputs) = FORMATS[self.format].row_bytes(1), self.shape
        if self.columns is not None:
            raise ValueError("a weight whose columns are held in another order is not transposed")

        def read() -> npt.NDArray[np.uint8]:
            values = self.data.reshape(inputs, outputs, size).swapaxes(0, 1)
            return np.ascontiguousarray(values).reshape(outputs, inputs * size)

        return PartWeight(self, (outputs, inputs), read)

    def plus(self, more: float) -> Weight:
        """The values of a vector and a number more, sums of float32: made each time they are read."""
        read = lambda: (self.decode() + np.float32(more)).view(np.uint8).reshape(1, -1)  # noqa: E731
        return MovedWeight("f32", self.shape, read)

    def stacked(self, more: Sequence[Weight]) -> Weight:
        """This vector and others below each other, (1 + others, n) in float32: made each time they are read."""
        all = [self, *more]
        return MovedWeight("f32", (len(all), *self.shape), lambda: np.stack([w.decode() for w in all]).view(np.uint8))

    def decode(self) -> npt.NDArray[np.float32]:
        """The values that the bytes mean, float32, of `shape`."""
        with np.errstate(over="ignore", invalid="ignore"):  # scales may be as large as a file says
            values = FORMATS[self.format].decode(self.data)
        if self.columns is not None:
            values = values[:, np.argsort(self.columns)]
        return values.reshape(self.shape)


class MovedWeight(Weight):
    """A tensor whose bytes lie elsewhere in another order: `data` is a copy, made anew each time it is asked for."""

    _read: Callable[[], npt.NDArray[np.uint8]]

    def __init__(self, format: str, shape: tuple[int, ...], read: Callable[[], npt.NDArray[np.uint8]]) -> None:
        for name, value in (("format", format), ("shape", shape), ("_read", read), ("columns", None)):
            object.__setattr__(self, name, value)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        return self._read()


class PartWeight(MovedWeight):
    """A weight that is read out of another, `whole`, in its format unless given."""

    whole: Weight

    def __init__(
        self, whole: Weight, shape: tuple[int, ...], read: Callable[[], npt.NDArray[np.uint8]], format: str = ""
    ) -> None:
        super().__init__(format or whole.format, shape, read)
        object.__setattr__(self, "whole", whole)
        object.__setattr__(self, "columns", whole.columns)


class JoinedWeight(PartWeight):
    """Two weights (..., R, K) as one (..., 2 R, K) whose rows alternate, or else lie below each other.

    What is asked of one of the two alone is that one's, in its own format; of both only where their formats agree.
    """

    pair: tuple[Weight, Weight]
    alternate: bool

    def __init__(self, pair: tuple[Weight, Weight], alternate: bool, whole: Weight | None = None) -> None:
        *outer, rows, inputs = pair[0].shape
        super().__init__(whole or pair[0], (*outer, 2 * rows, inputs), self._both, pair[0].format)
        object.__setattr__(self, "pair", pair)
        object.__setattr__(self, "alternate", alternate)

    def _both(self) -> npt.NDArray[np.uint8]:
        formats = {weight.format for weight in self.pair}
        if len(formats) > 1:
            raise ValueError(f"two weights in {' and '.join(sorted(formats))} are not read as one")
        rows = self.pair[0].shape[-2]
        one, other = (weight.data.reshape(-1, rows, weight.data.shape[-1]) for weight in self.pair)
        both = np.stack([one, other], 2) if self.alternate else np.concatenate([one, other], 1)
        return both.reshape(-1, both.shape[-1])

    def part(self, index: int) -> Weight:
        one, other = self.pair
        return JoinedWeight((one.part(index), other.part(index)), self.alternate, self)

    def rows(self, start: int, stop: int) -> Weight:
        return self.picked(np.arange(start, stop))

    def picked(self, rows: npt.NDArray[np.intp]) -> Weight:
        """Of a matrix."""
        count = self.pair[0].shape[0]
        sides, places = (rows % 2, rows // 2) if self.alternate else (rows // count, rows % count)
        if (sides != sides[0]).any():
            return super().picked(rows)
        one = self.pair[sides[0]]
        whole = np.array_equal(places, np.arange(count))
        return PartWeight(
            self, (len(rows), *self.shape[1:]), lambda: one.data if whole else one.data[places], one.format
        )


class MadeWeight(Weight):
    """A tensor published in another encoding: `make(first, last)` gives rows of `data`, anew each time."""

    _make: Callable[[int, int], npt.NDArray[np.uint8]]

    def __init__(
        self,
        format: str,
        shape: tuple[int, ...],
        make: Callable[[int, int], npt.NDArray[np.uint8]],
        columns: Columns | None = None,
    ) -> None:
        for name, value in (("format", format), ("shape", shape), ("_make", make), ("columns", columns)):
            object.__setattr__(self, name, value)

    def between(self, first: int, last: int) -> npt.NDArray[np.uint8]:
        return self._make(first, last)

    def slices(self, rows: int) -> Iterator[npt.NDArray[np.uint8]]:
        """So many rows at a time, so that never more of them are made."""
        total = math.prod(self.shape[:-1])
        for first in range(0, total, rows):
            yield self._make(first, min(first + rows, total))

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        return self._make(0, math.prod(self.shape[:-1]))


def inputs_last(weight: Weight) -> MadeWeight:
    """Matrices (..., in, out) of a stack as (..., out, in), in formats of single values."""
    *outer, inputs, outputs = weight.shape
    size = FORMATS[weight.format].row_bytes(1)

    def make(first: int, last: int) -> npt.NDArray[np.uint8]:
        stack = weight.data.reshape(-1, inputs, outputs, size)
        columns = [
            stack[i, :, max(0, first - i * outputs) : min(outputs, last - i * outputs)].swapaxes(0, 1)
            for i in range(first // outputs, -(-last // outputs))
        ]
        return np.concatenate(columns).reshape(last - first, inputs * size)

    return MadeWeight(weight.format, (*outer, outputs, inputs), make)
