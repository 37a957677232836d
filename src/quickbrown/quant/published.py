"""Tensors of a quantized checkpoint as they are published, before one knows what they mean together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import Bytes, Floats

Integers = npt.NDArray[np.integer]

# How numpy holds each type of a safetensors file; what it has no type for, as bits.
_TYPES = {
    "BOOL": "u1", "U8": "u1", "I8": "i1", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1", "I16": "<i2", "U16": "<u2",
    "F16": "<f2", "BF16": "<u2", "I32": "<i4", "U32": "<u4", "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8",
}  # fmt: skip
_INTEGERS = ("BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64")


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """One tensor of a file.

    dtype  as safetensors spell it: "I32", "F16", "F8_E4M3", ...
    data   its bytes, uint8, (n,): a view of the mapped file

    `of`, `integers` and `floats` raise ValueError where it is not what is expected of it.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Bytes

    def of(self, what: str, dtype: str, *shape: int) -> npt.NDArray[Any]:
        """The array, if it has this type and shape; -1 is an axis of any size. `what` is its name, for errors."""
        fits = len(shape) == len(self.shape) and all(a in (-1, b) for a, b in zip(shape, self.shape, strict=True))
        if self.dtype != dtype or not fits:
            wanted = ", ".join("any" if size == -1 else str(size) for size in shape)
            raise ValueError(f"{what} is {self.dtype} of shape {self.shape}, not {dtype} of shape ({wanted})")
        return self._array(what)

    def integers(self, what: str) -> Integers:
        """The array, if it is one of whole numbers."""
        if self.dtype not in _INTEGERS:
            raise ValueError(f"{what} is {self.dtype}, not whole numbers")
        array: Integers = self._array(what)
        return array

    def number(self, what: str) -> int:
        """The one whole number that it holds."""
        array = self.integers(what)
        if array.size != 1:
            raise ValueError(f"{what} holds {array.size} numbers, not one")
        return int(array.reshape(()))

    def floats(self, what: str) -> Floats:
        """The array, if it is one of floats of at least 16 bits or powers of two, in float32: the same values."""
        if self.dtype not in ("F16", "BF16", "F32", "F8_E8M0"):
            raise ValueError(f"{what} is {self.dtype}, not F16, BF16 or F32")
        array = self._array(what)
        if self.dtype == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        if self.dtype == "F8_E8M0":
            return np.ldexp(np.float32(1), array.astype(np.int32) - 127).astype(np.float32)
        return array.astype(np.float32)

    def _array(self, what: str) -> npt.NDArray[Any]:
        if self.dtype not in _TYPES:
            raise ValueError(f"{what} is of type {self.dtype}, which is not read")
        kind = np.dtype(_TYPES[self.dtype])
        if math.prod(self.shape) * kind.itemsize != len(self.data):
            raise ValueError(f"{what} has {len(self.data)} bytes, which are not {self.dtype} of shape {self.shape}")
        return np.frombuffer(self.data, kind).reshape(self.shape)


Parts = Mapping[str, Published]


def take(parts: Parts, *suffixes: str) -> list[Published]:
    """The tensors with these suffixes. Raises ValueError for the first that is missing."""
    for suffix in suffixes:
        if suffix not in parts:
            raise ValueError(f"its tensor {suffix.lstrip('.')!r} is missing")
    return [parts[suffix] for suffix in suffixes]
