"""Linears of 8-bit floats with scales of their own (DeepSeek-AI 2024, `quant_method` "fp8"; and "fbgemm_fp8").

    weight            F8_E4M3 (out, in)
    weight_scale_inv  float (ceil(out / rows), ceil(in / columns)) for blocks of weight_block_size, or one for all
    weight_scale      the same under another name, or (out, 1): one for each row

    W = weight * its scale

Values are exact. How inputs were to be rounded (activation_scheme, activation_scale, input_scale) is not read: they are
rounded less here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quickbrown.quant import settings
from quickbrown.quant.floats import scaled, whole_tensor
from quickbrown.quant.published import Parts, take
from quickbrown.quant.weight import Weight

_SCALES = (".weight_scale_inv", ".weight_scale")


class Fp8:
    """The encoding of a checkpoint. Raises ValueError for a config that says what is not read."""

    suffixes = (".weight", *_SCALES)
    unread = (".activation_scale", ".input_scale", ".input_scale_ub", ".k_scale", ".v_scale")

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings.refuse(config, {"fmt": ("e4m3", "float8_e4m3fn", None)})
        self.block = settings.block(config, "weight_block_size")
        rows = "" if self.block is None else f", blocks of {self.block[0]} x {self.block[1]}"
        self.summary = f"{config.get('quant_method')}, 8-bit floats{rows}"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a linear, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        numbers = take(parts, ".weight")[0]
        named = [suffix for suffix in _SCALES if suffix in parts]
        if len(named) != 1:
            raise ValueError(f"it has {len(named)} of the tensors weight_scale_inv and weight_scale; it needs one")
        scales = parts[named[0]].floats(named[0].lstrip("."))
        if self.block is not None and scales.ndim == 2:
            return scaled("weight", numbers, scales, self.block)
        return scaled("weight", numbers, *whole_tensor(numbers.shape, scales))
