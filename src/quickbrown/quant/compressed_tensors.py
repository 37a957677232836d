"""Linears as compressed-tensors publishes them (llm-compressor). What the tensors are says the `format` of the config.

    pack-quantized    weight_packed int32 (out, words): q + 2^(bits - 1) of 1 to 8 bits each, a stream along the row;
                      weight_shape (2); weight_zero_point int32 (words, groups): the same, a stream down the column
    int-quantized     weight int8 (out, in), weight_zero_point int8 (out, groups)
    float-quantized   weight F8_E4M3 (out, in)
    naive-quantized   one of those two
    mxfp4-pack-quantized   weight_packed bytes (out, in / 2): 4-bit floats, the first of two in the low half;
                      weight_scale bytes (out, in / 32): powers of two, plus 127
    nvfp4-pack-quantized   the same; weight_scale F8_E4M3 (out, in / 16), weight_global_scale float32 (1)
    all others        weight_scale float: (1) for the tensor, (out, 1) for rows, (out, groups), or blocks of rows and
                      columns; weight_g_idx int32 (in), with actorder "group": the group of each column

    W = (q - zero) * scale; where no zero point is published it is 0; of nvfp4 q * (scale / global scale)

Values are exact, those of nvfp4 to 22 bits. How inputs, keys and values were to be rounded
(input_activations, kv_cache_scheme) is not read: they are rounded as every model's are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from quickbrown.quant import settings
from quickbrown.quant.floats import scaled, whole_tensor
from quickbrown.quant.formats import Bytes, Floats
from quickbrown.quant.integers import Grid, constant, nibbles, side_by_side, unpack
from quickbrown.quant.mxfp4 import mxfp4
from quickbrown.quant.nvfp4 import nvfp4
from quickbrown.quant.published import Parts, Published, take
from quickbrown.quant.weight import Columns, Weight

_READ = (
    "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mxfp4-pack-quantized",
    "nvfp4-pack-quantized", "dense",
)  # fmt: skip


class CompressedTensors:
    """The encoding of a checkpoint. Raises ValueError for a config that says what is not read."""

    suffixes = (
        ".weight", ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx",
        ".weight_global_scale",
    )  # fmt: skip
    unread = (
        ".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", ".k_scale", ".v_scale", ".q_scale",
        ".input_global_scale",
    )  # fmt: skip

    def __init__(self, config: Mapping[str, Any]) -> None:
        default = str(config.get("format", "dense"))
        groups = config.get("config_groups") or {}
        if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
            raise ValueError("config_groups must be an object of objects")
        if config.get("sparsity_config"):
            raise ValueError(f"sparsity_config is {config['sparsity_config']!r}, which is not read")
        if config.get("transform_config"):
            raise ValueError("transform_config is there, and rotations of weights are not read")
        formats, schemes = set(), []
        for group in groups.values():
            formats.add(str(group.get("format") or default))
            weights = group.get("weights")
            if isinstance(weights, dict):
                schemes.append(weights)
        self.formats = formats or {default}
        for format in sorted(self.formats):
            if format not in _READ:
                raise ValueError(f"format is {format!r}; read are {', '.join(_READ)}")
        self.bits = {settings.whole(scheme, "num_bits") for scheme in schemes}
        if not all(1 <= bits <= 8 for bits in self.bits):
            raise ValueError(f"num_bits is {max(self.bits)}; 1 to 8 are read")
        self.blocks = {found for s in schemes if (found := settings.block(s, "block_structure")) is not None}
        self.sizes = {size for s in schemes if (size := settings.whole(s, "group_size", missing=-1)) > 0}
        kinds = sorted({f"{s.get('num_bits')}-bit {s.get('type', 'int')}, by {s.get('strategy')}" for s in schemes})
        self.summary = f"compressed-tensors, {'; '.join([*sorted(formats), *kinds])}"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a linear, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        if ".weight_packed" in parts:
            if ".weight" in parts:
                raise ValueError("is there both packed and as it was")
            return self._floats(parts) if parts[".weight_packed"].dtype == "U8" else self._packed(parts)
        weight, scale = take(parts, ".weight", ".weight_scale")
        if weight.dtype == "I8":
            return self._bytes(parts, weight)
        scales = scale.floats("weight_scale")
        for block in sorted(self.blocks):
            if scales.shape == tuple(-(-n // each) for n, each in zip(weight.shape, block, strict=False)):
                return scaled("weight", weight, scales, block)
        if len(weight.shape) == 2 and scales.ndim == 2 and scales.shape[1] > 1:
            size = self._size(weight.shape[1], scales.shape[1])
            return scaled("weight", weight, scales, (1, size))
        return scaled("weight", weight, *whole_tensor(weight.shape, scales))

    def _floats(self, parts: Parts) -> Weight:
        packed, scale = take(parts, ".weight_packed", ".weight_scale")
        kind, group = ("nvfp4", 16) if ".weight_global_scale" in parts else ("mxfp4", 32)
        if f"{kind}-pack-quantized" not in self.formats or len(packed.shape) != 2:
            raise ValueError(f"weight_packed is {packed.dtype} of shape {packed.shape}, and the format is not {kind}")
        if ".weight_zero_point" in parts:
            raise ValueError("its floats have zero points, which are not read")
        outputs, inputs = packed.shape[0], packed.shape[1] * 2
        if inputs % group or not packed.data.size:
            raise ValueError(f"weight_packed of shape {packed.shape} holds no whole groups of {group} values")
        pairs = packed.of("weight_packed", "U8", *packed.shape).view(np.uint8)
        if kind == "mxfp4":
            powers = scale.of("weight_scale", "U8", outputs, inputs // group).view(np.uint8)
            return mxfp4((outputs, inputs), pairs, powers)
        whole = parts[".weight_global_scale"].floats("weight_global_scale")
        if whole.size != 1:
            raise ValueError(f"weight_global_scale holds {whole.size} numbers, not one")
        scales = scale.of("weight_scale", "F8_E4M3", outputs, inputs // group)
        return nvfp4(pairs, scales, np.float32(whole.reshape(())))

    def _packed(self, parts: Parts) -> Weight:
        packed, said = take(parts, ".weight_packed", ".weight_shape")
        shape = tuple(int(n) for n in said.integers("weight_shape").reshape(-1))
        if len(shape) != 2 or not all(0 < n < 1 << 31 for n in shape):
            raise ValueError(f"weight_shape is {shape}, not (out, in)")
        outputs, inputs = shape
        fitting = [bits for bits in sorted(self.bits) if packed.shape == (outputs, _words(inputs, bits))]
        if len(fitting) != 1:
            raise ValueError(f"weight_packed of shape {packed.shape} is not of the bits that the config says")
        bits = fitting[0]
        words = packed.of("weight_packed", "I32", outputs, _words(inputs, bits))
        middle = 1 << bits - 1

        def q(first: int, last: int) -> Bytes:
            return unpack(np.ascontiguousarray(words[first:last]).view(np.uint8), bits)[:, :inputs]

        def zeros(groups: int) -> Callable[[int, int], Floats]:
            if ".weight_zero_point" not in parts:
                return constant(middle, groups)
            stored = parts[".weight_zero_point"].of("weight_zero_point", "I32", _words(outputs, bits), groups)
            return lambda first, last: np.ascontiguousarray(
                unpack(np.ascontiguousarray(stored.T).view(np.uint8), bits)[:, first:last].T
            ).astype(np.float32)

        return self._grid(parts, (outputs, inputs), bits, q, zeros)

    def _bytes(self, parts: Parts, weight: Published) -> Weight:
        numbers = weight.of("weight", "I8", -1, -1)
        if not numbers.size:
            raise ValueError("weight is empty")

        def q(first: int, last: int) -> Bytes:
            return numbers[first:last].view(np.uint8) ^ np.uint8(128)

        def zeros(groups: int) -> Callable[[int, int], Floats]:
            if ".weight_zero_point" not in parts:
                return constant(128, groups)
            stored = parts[".weight_zero_point"].integers("weight_zero_point")
            if stored.size == 1:
                return constant(float(stored.reshape(())) + 128, groups)
            if stored.shape != (len(numbers), groups):
                raise ValueError(f"weight_zero_point has shape {stored.shape}, not {(len(numbers), groups)}")
            return lambda first, last: stored[first:last].astype(np.float32) + np.float32(128)

        return self._grid(parts, (numbers.shape[0], numbers.shape[1]), 8, q, zeros)

    def _grid(
        self,
        parts: Parts,
        shape: tuple[int, int],
        bits: int,
        q: Callable[[int, int], Bytes],
        zeros: Callable[[int], Callable[[int, int], Floats]],
    ) -> Weight:
        """q (rows, in), one a byte and never below 0, with the scales of the tensor, of rows or of groups."""
        outputs, inputs = shape
        scale = take(parts, ".weight_scale")[0]
        one = scale.floats("weight_scale").size == 1
        if not one and (len(scale.shape) != 2 or scale.shape[0] != outputs):
            raise ValueError(f"weight_scale has shape {scale.shape}, and the weight {shape}")
        groups = 1 if one else scale.shape[1]
        group = inputs if groups == 1 else self._size(inputs, groups)

        def scales(first: int, last: int) -> Floats:
            found = scale.floats("weight_scale")
            return np.full((last - first, 1), found.reshape(()), np.float32) if one else found[first:last]

        order, irregular = _order(parts.get(".weight_g_idx"), inputs, group, groups)
        small = bits <= 4 and inputs % 2 == 0

        def held(first: int, last: int) -> Bytes:
            numbers = q(first, last)
            if order is not None:
                numbers = numbers[:, order]
            return nibbles(numbers) if small else numbers

        return Grid(shape, 4 if small else 8, held, scales, zeros(groups), group, order, irregular).weight()

    def _size(self, inputs: int, groups: int) -> int:
        """Columns of a group."""
        for size in sorted(self.sizes):
            if -(-inputs // size) == groups:
                return size
        raise ValueError(f"it has {groups} groups of {inputs} inputs, and group_size is {sorted(self.sizes) or None}")


def _words(numbers: int, bits: int) -> int:
    return -(-numbers * bits // 32)


def _order(g_idx: Published | None, inputs: int, group: int, groups: int) -> tuple[Columns | None, Columns | None]:
    """As in gptq.py; all -1 stands for no order."""
    if g_idx is None:
        return None, None
    of_column = g_idx.of("weight_g_idx", "I32", inputs).astype(np.int64)
    if (of_column == -1).all() or np.array_equal(of_column, np.arange(inputs) // group):
        return None, None
    if of_column.min() < 0 or of_column.max() >= groups:
        raise ValueError(f"weight_g_idx names groups from {of_column.min()} to {of_column.max()}; there are {groups}")
    order = side_by_side(of_column, group)
    return (order, None) if order is not None else (None, of_column)
