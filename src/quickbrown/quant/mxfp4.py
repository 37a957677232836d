"""4-bit floats, 32 to a power of two (Open Compute Project 2023, MXFP4), as gpt_oss publishes its experts.

    NAME_blocks  bytes (experts, out, in / 32, 16): nibbles, the first of two in the low half
    NAME_scales  bytes (experts, out, in / 32)

    W = float4(nibble) * 2^(scale - 127)

Values are exact. The weight is called NAME, and has the shape (experts, out, in): linears keep outputs first, where the
module that the name stands for has them last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from quickbrown.quant.formats import Bytes
from quickbrown.quant.published import Parts, take
from quickbrown.quant.weight import MadeWeight, Weight

_GROUP = 32


class Mxfp4:
    """The encoding of a checkpoint."""

    suffixes = ("_blocks", "_scales")
    unread = ()

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.summary = "mxfp4"

    def weight(self, parts: Parts) -> Weight:
        """The weight, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        blocks, scales = take(parts, "_blocks", "_scales")
        if len(blocks.shape) not in (3, 4) or blocks.shape[-1] != _GROUP // 2 or 0 in blocks.shape:
            raise ValueError(f"blocks have shape {blocks.shape}, not ([experts,] out, in / 32, 16)")
        *outer, groups, _ = blocks.shape
        rows = math.prod(outer)
        packed = blocks.of("blocks", "U8", *blocks.shape).view(np.uint8).reshape(rows, -1)
        powers = scales.of("scales", "U8", *blocks.shape[:-1]).view(np.uint8).reshape(rows, groups)
        return mxfp4((*outer, groups * _GROUP), packed, powers)


def mxfp4(shape: tuple[int, ...], packed: Bytes, powers: Bytes) -> MadeWeight:
    """Nibbles (rows, in / 2), the first of two in the low half, and powers of two, plus 127, (rows, in / 32)."""

    def rows(first: int, last: int) -> Bytes:
        """Of each 32: the low halves are values 0 to 15, the high ones 16 to 31."""
        pairs = packed[first:last].reshape(last - first, -1, 16)
        low, high = pairs[..., :8], pairs[..., 8:]
        out = np.empty((*pairs.shape[:2], 17), np.uint8)
        out[..., 0] = powers[first:last]
        out[..., 1::2] = low & 15 | high << 4
        out[..., 2::2] = low >> 4 | high & 0xF0
        return out.reshape(last - first, -1)

    return MadeWeight("mxfp4", shape, rows)
