"""A weight knows its own encoding: nobody else asks whether it is float or 4 bits."""

from __future__ import annotations

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
