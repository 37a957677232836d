"""Linears as torchao publishes them in safetensors files: tensor classes taken apart: `weight` is `_weight_qdata`, ...

    _weight_qdata       int8 (out, in) of Int8Tensor and IntxUnpackedToInt8Tensor, F8_E4M3 of Float8Tensor
    _weight_scale       float, one for the tensor, for each row, or for each group of a row
    _weight_zero_point  whole or not, one beside each scale; may be missing: then 0

    W = (q - zero) * scale

Values are exact. Packings for one kernel (Int4TilePackedTo4dTensor, ...) are not read, nor is Int4Tensor, whose scales
have groups before outputs: it means q * scale + zero, which no packed format holds exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quickbrown.quant.floats import scaled, whole_tensor
from quickbrown.quant.formats import Bytes, Floats
from quickbrown.quant.integers import Grid
from quickbrown.quant.published import Parts, Published, take
from quickbrown.quant.weight import Weight

_Q, _SCALE, _ZERO, _BEFORE = "._weight_qdata", "._weight_scale", "._weight_zero_point", "._weight_act_pre_scale"


class TorchAo:
    """The encoding of a checkpoint."""

    suffixes = (_Q, _SCALE, _ZERO, _BEFORE)
    unread = ("._weight_act_quant_scale", "._weight_act_quant_zero_point")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.summary = "torchao"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a linear, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        numbers, scale = take(parts, _Q, _SCALE)
        if _BEFORE in parts:
            raise ValueError("its inputs are to be scaled (act_pre_scale), which is not read")
        if numbers.dtype == "F8_E4M3":
            return scaled("qdata", numbers, *whole_tensor(numbers.shape, scale.floats("scale")))
        if numbers.dtype != "I8":
            raise ValueError(f"qdata is {numbers.dtype} of shape {numbers.shape}; I8 and F8_E4M3 are read")
        q = numbers.of("qdata", "I8", -1, -1)
        outputs, inputs = q.shape
        groups = max(scale.floats("scale").size // max(outputs, 1), 1)
        found = scale.floats("scale")
        alone = found.size == 1 or (found.size == outputs * groups and scale.shape[0] == outputs)
        if not q.size or not alone or inputs % groups:
            raise ValueError(f"scale has shape {scale.shape}, and qdata {numbers.shape}")

        def each(what: str, tensor: Published, first: int, last: int) -> Floats:
            """One for each group of rows."""
            found = tensor.integers(what).astype(np.float32) if tensor.dtype[0] in "IU" else tensor.floats(what)
            if found.size == 1:
                return np.full((last - first, groups), found.reshape(()), np.float32)
            if found.size != outputs * groups:
                raise ValueError(f"{what} has shape {tensor.shape}, and there are {groups} groups in {outputs} rows")
            return found.reshape(outputs, groups)[first:last]

        def held(first: int, last: int) -> Bytes:
            return q[first:last].view(np.uint8) ^ np.uint8(128)

        def zeros(first: int, last: int) -> Floats:
            if _ZERO not in parts:
                return np.full((last - first, groups), 128, np.float32)
            return each("zero_point", parts[_ZERO], first, last) + np.float32(128)

        def scales(first: int, last: int) -> Floats:
            return each("scale", scale, first, last)

        return Grid((outputs, inputs), 8, held, scales, zeros, inputs // groups).weight()
