"""Weights of formats that numbers cannot be encoded in: valid blocks of random bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import ENCODABLE, quantize
from quickbrown.quant.weight import Weight
from rounding import MINIMA

# How far values of random bits lie apart, in parts of d, and where d stands, if not at 0.
_SPREAD = {
    "q4_k": 170,
    "q5_k": 340,
    "q6_k": 1370,
    "q5_0": 9.2,
    "q5_1": 9.2,
    "iq4_nl": 70,
    "mxfp4": 6,
    "u4z": 4.6,
    "u8z": 74,
    "e4m3": 100,
}
_CENTRE = {"q4_k": -7.5, "q5_k": -15.5, "q5_1": -15.5}  # the minimum that makes their mean 0, in parts of d
_AT = {"q6_k": 208}
_ZERO = {"u4z": (2, 7.5), "u8z": (4, 127.5)}  # the byte where a zero point stands, and the middle


def random_weight(format: str, shape: tuple[int, int], random: np.random.Generator, spread: Any = 1.0) -> Weight:
    """A weight of whole blocks, whose values have mean 0 and about the standard deviation `spread`, of each row if it
    has shape (rows, 1): normal values encoded, where the format allows it, else random scales of either sign."""
    if format in ENCODABLE:
        return quantize((random.standard_normal(shape) * spread).astype(np.float32), format)
    f = FORMATS[format]
    blocks = (shape[0], f.row_bytes(shape[1]) // f.block_bytes)
    data = random.integers(0, 256, (*blocks, f.block_bytes), np.uint8)
    d = np.broadcast_to(spread * random.uniform(0.5, 1.3, blocks) / _SPREAD[format], blocks)
    if format == "mxfp4":
        data[..., 0] = 128 + np.round(np.log2(d))
        return Weight(format, shape, data.reshape(shape[0], -1))
    d = d * random.choice([-1.0, 1.0], blocks)
    if format in _ZERO:
        place, middle = _ZERO[format]
        zero = middle * random.uniform(0.7, 1.3, blocks)
        data[..., place : place + 2] = zero.astype("<f2")[..., None].view(np.uint8)
    if format == "e4m3":
        data[(data & 127) == 127] = 0  # not numbers
    if format in ("u8z", "e4m3"):
        data[..., :4] = d.astype("<f4")[..., None].view(np.uint8)
        return Weight(format, shape, data.reshape(shape[0], -1))
    at = _AT.get(format, 0)
    data[..., at : at + 2] = d.astype("<f2")[..., None].view(np.uint8)
    if format in MINIMA:
        least = d * _CENTRE[format] * (1 if format == "q5_1" else -1)
        data[..., 2:4] = least.astype("<f2")[..., None].view(np.uint8)
    return Weight(format, shape, data.reshape(shape[0], -1))
