"""Linears as HQQ publishes them (Badri and Shaji 2023): 1, 2, 3, 4 or 8 bits, zero points that need not be whole.

A weight (out, in) is first reshaped, to (rows, group_size) for axis 1, or to (group_size, rows) for axis 0, so that a
group is a row, or a column, of that. Then n rows far from each other share an item: row i, i + step, i + 2 step, ... of
step = ceil(rows / n), the first in the highest bits.

    W_q          bytes with 8 / bits fields; of 3 bits, int32 with 10 fields in the lowest 30 bits
    scale, zero  float, one for each group
    shape        (2); nbits, axis, group_size: one number each; packing, compute_dtype, ...: not needed

    W = (q - zero) * scale

Values are exact in float32, where HQQ computes them in `compute_dtype`. With axis 0 no 32 columns share a scale: such
weights are held in f32.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import Bytes, Floats
from quickbrown.quant.integers import Grid, nibbles
from quickbrown.quant.published import Parts, Published, take
from quickbrown.quant.weight import MadeWeight, Weight

_FACTS = (
    ".nbits", ".group_size", ".shape", ".axis", ".packing", ".unpack_view_dtype", ".view_as_float", ".quant_scale",
    ".quant_zero", ".compute_dtype", ".offload_meta", ".encoded_state_dict", ".stores_quant_config", ".channel_wise",
    ".optimize", ".round_zero",
)  # fmt: skip
Items = npt.NDArray[Any]


class Hqq:
    """The encoding of a checkpoint."""

    suffixes = (".W_q", ".scale", ".zero", *_FACTS)
    unread = ()

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.summary = "hqq"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a linear, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        packed, scale, zero, said = take(parts, ".W_q", ".scale", ".zero", ".shape")
        for name in (".quant_scale", ".quant_zero", ".view_as_float"):
            if name in parts and parts[name].number(name[1:]):
                raise ValueError(f"{name[1:]} is true, which is not read")
        nbits, along_rows = take(parts, ".nbits", ".axis")
        bits, axis = nbits.number("nbits"), along_rows.number("axis")
        shape = tuple(int(n) for n in said.integers("shape").reshape(-1))
        if bits not in (1, 2, 3, 4, 8) or axis not in (0, 1):
            raise ValueError(f"nbits is {bits} and axis {axis}; 1, 2, 3, 4, 8 and 0, 1 are read")
        if len(shape) != 2 or not all(0 < n < 1 << 31 for n in shape):
            raise ValueError(f"shape is {shape}, not (out, in)")
        size, along = shape[0] * shape[1], shape[1 - axis]
        group = parts[".group_size"].number("group_size") if ".group_size" in parts else along
        if group < 1 or size % group:
            raise ValueError(f"group_size is {group}, which does not divide the {size} values of shape {shape}")
        rows, columns = (size // group, group) if axis == 1 else (group, size // group)
        fields = 10 if bits == 3 else 8 // bits
        step = -(-rows // fields)
        if fields * step != rows and bits != 3:
            raise ValueError(f"{rows} rows do not fill bytes of {fields}")
        items = packed.of("W_q", "I32" if bits == 3 else "U8", step, columns)
        for name, tensor in (("scale", scale), ("zero", zero)):
            if tensor.floats(name).size != size // group:
                raise ValueError(f"{name} has shape {tensor.shape}, and there are {size // group} groups")
        if axis == 0:
            return MadeWeight("f32", shape, partial(_across, shape, bits, items, scale, zero))
        if shape[1] % group:
            raise ValueError(f"group_size is {group}, which does not divide the {shape[1]} inputs")
        each = shape[1] // group  # groups of a row
        small = bits <= 4 and shape[1] % 2 == 0

        def q(first: int, last: int) -> Bytes:
            numbers = _rows(items, bits, np.arange(first * each, last * each)).reshape(last - first, shape[1])
            return nibbles(numbers) if small else numbers

        def of(name: str, tensor: Published, first: int, last: int) -> Floats:
            return tensor.floats(name).reshape(-1, each)[first:last]

        return Grid(
            (shape[0], shape[1]), 4 if small else 8, q, partial(of, "scale", scale), partial(of, "zero", zero), group
        ).weight()


def _rows(items: Items, bits: int, rows: npt.NDArray[np.int64]) -> Bytes:
    """Rows of what was packed, one number a byte."""
    fields = 10 if bits == 3 else 8 // bits
    shifts = ((fields - 1 - rows // len(items)) * bits).astype(items.dtype)[:, None]
    return np.asarray(items[rows % len(items)] >> shifts & (1 << bits) - 1, np.uint8)


def _across(
    shape: tuple[int, int], bits: int, items: Items, scale: Published, zero: Published, first: int, last: int
) -> Bytes:
    """Values of axis 0: the one at i of all, row after row, is of group i % columns."""
    at = np.arange(first * shape[1], last * shape[1])
    rows, groups = at // items.shape[1], at % items.shape[1]
    fields = 10 if bits == 3 else 8 // bits
    shifts = ((fields - 1 - rows // len(items)) * bits).astype(items.dtype)
    q = (items[rows % len(items), groups] >> shifts & (1 << bits) - 1).astype(np.float32)
    values = (q - zero.floats("zero").reshape(-1)[groups]) * scale.floats("scale").reshape(-1)[groups]
    rows_made: Floats = values.astype("<f4").reshape(last - first, shape[1])
    return rows_made.view(np.uint8)
