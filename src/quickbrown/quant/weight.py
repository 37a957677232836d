"""A weight knows its own encoding: nobody else asks whether it is float or 4 bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import FORMATS


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor as published.

    format  a key of `quant.formats.FORMATS`
    shape   logical shape: (out, in), or (n,) for a vector
    data    uint8, (rows, bytes a row), C-contiguous, rows = product of shape[:-1]; often a view of a mapped file
    """

    format: str
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]

    def rows(self, start: int, stop: int) -> Weight:
        """Entries along the first axis: the same bytes, in any format; of a vector, in formats of single values."""
        if not 0 <= start < stop <= self.shape[0]:
            raise ValueError(f"a weight of shape {self.shape} has no rows {start} to {stop}")
        if len(self.shape) == 1:
            size = FORMATS[self.format].row_bytes(1)
            return Weight(self.format, (stop - start,), self.data[:, start * size : stop * size])
        each = math.prod(self.shape[1:-1])
        return PartWeight(self, (stop - start, *self.shape[1:]), lambda: self.data[start * each : stop * each])

    def part(self, index: int) -> Weight:
        """One entry along the first of three or more axes: the same bytes."""
        each = math.prod(self.shape[1:-1])
        return PartWeight(self, self.shape[1:], lambda: self.data[index * each : (index + 1) * each])

    def picked(self, rows: npt.NDArray[np.intp]) -> Weight:
        """Some rows of a matrix in any order, in any format: a copy each time it is read."""
        return PartWeight(self, (len(rows), *self.shape[1:]), lambda: self.data[rows])

    def transposed(self) -> Weight:
        """A matrix (K, N) as (N, K), in formats of single values: a copy each time it is read."""
        size, (inputs, outputs) = FORMATS[self.format].row_bytes(1), self.shape

        def read() -> npt.NDArray[np.uint8]:
            values = self.data.reshape(inputs, outputs, size).swapaxes(0, 1)
            return np.ascontiguousarray(values).reshape(outputs, inputs * size)

        return PartWeight(self, (outputs, inputs), read)

    def decode(self) -> npt.NDArray[np.float32]:
        """The values that the bytes mean, float32, of `shape`."""
        return FORMATS[self.format].decode(self.data).reshape(self.shape)


class MovedWeight(Weight):
    """A tensor whose bytes lie elsewhere in another order: `data` is a copy, made anew each time it is asked for."""

    _read: Callable[[], npt.NDArray[np.uint8]]

    def __init__(self, format: str, shape: tuple[int, ...], read: Callable[[], npt.NDArray[np.uint8]]) -> None:
        for name, value in (("format", format), ("shape", shape), ("_read", read)):
            object.__setattr__(self, name, value)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        return self._read()


class PartWeight(MovedWeight):
    """A weight that is read out of another, `whole`."""

    whole: Weight

    def __init__(self, whole: Weight, shape: tuple[int, ...], read: Callable[[], npt.NDArray[np.uint8]]) -> None:
        super().__init__(whole.format, shape, read)
        object.__setattr__(self, "whole", whole)
