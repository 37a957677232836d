"""Integers that stand on a grid, (q - zero) * scale for each group of a row: the native format that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from quickbrown.quant.formats import Bytes, Floats
from quickbrown.quant.weight import Columns, MadeWeight

GROUP = 32  # columns that share a scale in every native format of integers
_ROWS = 4096  # whose scales are looked at together


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Rows of integers q, where value[r, c] = (q[r, c] - zeros[r, g]) * scales[r, g] for the group g of column c.

    shape    (out, in)
    bits     8: q comes as bytes; 4: as nibbles, two columns a byte, the first in the low half
    q        (first, last) -> those rows, uint8, (last - first, in * bits / 8)
    scales   (first, last) -> float32, (last - first, groups); finite
    zeros    the same; what q is taken off, whole or not
    group    columns that share a scale: column c is of group c // group
    columns  as in `Weight`: the order in which q has the columns, None for their own
    groups   instead of `group`, the group of each column: where they cannot be put side by side
    """

    shape: tuple[int, int]
    bits: int
    q: Callable[[int, int], Bytes]
    scales: Callable[[int, int], Floats]
    zeros: Callable[[int, int], Floats]
    group: int
    columns: Columns | None = None
    groups: Columns | None = None

    def weight(self) -> MadeWeight:
        """The smallest format that holds all values exactly; its bytes are made as they are asked for.

        q4_0, q8_0  scales are float16, and every zero is the middle
        u4z, u8z    zeros are float16, and for u4z scales too
        f32         groups are no multiple of 32
        """
        format = self._format()
        return MadeWeight(format, self.shape, partial(_MAKE[format], self), self.columns)

    def _format(self) -> str:
        fits = self.groups is None and self.group % GROUP == 0 and self.shape[1] % GROUP == 0
        half_scales, half_zeros, middle = True, True, True
        for first in range(0, self.shape[0], _ROWS):
            last = min(first + _ROWS, self.shape[0])
            scales, zeros = self.scales(first, last), self.zeros(first, last)
            if not np.isfinite(scales).all() or not np.isfinite(zeros).all():
                raise ValueError("a scale or a zero point is not finite")
            half_scales = half_scales and _is_half(scales)
            half_zeros = half_zeros and _is_half(zeros)
            middle = middle and bool((zeros == 1 << self.bits - 1).all())
        if not fits or not half_zeros:
            return "f32"
        if half_scales and middle:
            return "q4_0" if self.bits == 4 else "q8_0"
        return "u4z" if half_scales and self.bits == 4 else "u8z"

    def bytes(self, first: int, last: int) -> Bytes:
        """q, one a byte."""
        return self.q(first, last) if self.bits == 8 else unpack(self.q(first, last), 4)


def unpack(stream: Bytes, bits: int) -> Bytes:
    """Rows of numbers of 1 to 8 bits each, end to end from the lowest bit of the first byte on, one a byte."""
    if bits == 8:
        return stream
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        fields: Bytes = stream[..., None] >> shifts & np.uint8((1 << bits) - 1)
        return fields.reshape(*stream.shape[:-1], -1)
    single = np.unpackbits(stream, axis=-1, bitorder="little")
    whole = single[..., : single.shape[-1] // bits * bits].reshape(*stream.shape[:-1], -1, bits)
    return np.asarray(whole @ (1 << np.arange(bits)).astype(np.uint8), np.uint8)


def nibbles(q: Bytes) -> Bytes:
    """(rows, in) below 16 -> (rows, in / 2), the first of two in the low half."""
    return np.asarray(q[:, 0::2] | q[:, 1::2] << 4, np.uint8)


def _is_half(values: Floats) -> bool:
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32) == values).all())


def _spread(grid: Grid, values: Floats, dtype: str) -> Bytes:
    """(rows, groups) -> bytes of one for each 32 columns, (rows, in / 32, size)."""
    each = np.repeat(values, min(grid.group, grid.shape[1]) // GROUP, 1)[:, : grid.shape[1] // GROUP]
    return each.astype(dtype)[..., None].view(np.uint8)


def _joined(*parts: Bytes) -> Bytes:
    """Parts of blocks, (rows, blocks, size) each, one behind the other."""
    return np.concatenate(parts, -1).reshape(len(parts[0]), -1)


def _q4_0(grid: Grid, first: int, last: int) -> Bytes:
    packed = grid.q(first, last).reshape(last - first, -1, 16)
    low, high = packed[..., :8], packed[..., 8:]  # of values 0 to 15, and of 16 to 31
    pairs = np.empty_like(packed)
    pairs[..., 0::2] = low & 15 | high << 4
    pairs[..., 1::2] = low >> 4 | high & 0xF0
    return _joined(_spread(grid, grid.scales(first, last), "<f2"), pairs)


def _q8_0(grid: Grid, first: int, last: int) -> Bytes:
    q = grid.q(first, last).reshape(last - first, -1, 32) ^ np.uint8(128)  # q - 128 as int8
    return _joined(_spread(grid, grid.scales(first, last), "<f2"), q)


def _u4z(grid: Grid, first: int, last: int) -> Bytes:
    d, z = _spread(grid, grid.scales(first, last), "<f2"), _spread(grid, grid.zeros(first, last), "<f2")
    return _joined(d, z, grid.q(first, last).reshape(last - first, -1, 16))


def _u8z(grid: Grid, first: int, last: int) -> Bytes:
    d, z = _spread(grid, grid.scales(first, last), "<f4"), _spread(grid, grid.zeros(first, last), "<f2")
    return _joined(d, z, grid.bytes(first, last).reshape(last - first, -1, 32))


def _f32(grid: Grid, first: int, last: int) -> Bytes:
    groups = np.arange(grid.shape[1]) // grid.group if grid.groups is None else grid.groups
    q = grid.bytes(first, last)[:, : grid.shape[1]].astype(np.float32)
    values = (q - grid.zeros(first, last)[:, groups]) * grid.scales(first, last)[:, groups]
    return np.ascontiguousarray(values, "<f4").view(np.uint8)


_MAKE = {"q4_0": _q4_0, "q8_0": _q8_0, "u4z": _u4z, "u8z": _u8z, "f32": _f32}


def constant(value: float, groups: int) -> Callable[[int, int], Floats]:
    """The same number for every group of every row."""
    return lambda first, last: np.full((last - first, groups), value, np.float32)


def side_by_side(groups: Columns, size: int) -> Columns | None:
    """The order of columns in which each group's stand together, the groups ascending; None where a group does not have
    `size` of them."""
    counts = np.bincount(groups)
    if not (counts == size).all():
        return None
    return np.argsort(groups, kind="stable").astype(np.int64)


def slices(rows: int, at_a_time: int) -> Iterator[tuple[int, int]]:
    for first in range(0, rows, at_a_time):
        yield first, min(first + at_a_time, rows)
