"""Weights of formats that numbers cannot be encoded in: valid blocks of random bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import ENCODABLE, quantize
from quickbrown.quant.weight import Weight

# How far values of random bits lie apart, in parts of d, and where d stands, if not at 0.
_SPREAD = {
    "q4_k": 170, "q5_k": 340, "q6_k": 1370, "q5_0": 9.2, "q5_1": 9.2, "iq4_nl": 70, "mxfp4": 6, "q2_k": 14, "q3_k": 42,
    "s8_k": 1330, "tq1_0": 0.8, "tq2_0": 1.2, "iq4_xs": 1300, "iq3_s": 170, "iq3_xxs": 160, "iq2_s": 48, "iq2_xs": 48,
    "iq2_xxs": 48, "iq1_s": 7, "iq1_m": 7, "nvfp4": 6, "u4z": 4.6, "u8z": 74, "e4m3": 100,
}  # fmt: skip
_CENTRE = {"q4_k": -7.5, "q5_k": -15.5, "q5_1": -15.5, "q2_k": -1.5}  # the minimum that makes their mean 0, of d
_AT = {"q6_k": 208, "q2_k": 80, "q3_k": 108, "tq1_0": 52, "tq2_0": 64}  # the byte where d stands, if not 0
NUMBERS = {"f64": "<f8", "u8": "u1", "i8": "i1", "i16": "<i2", "i32": "<i4", "i64": "<i8"}
_ZERO = {"u4z": (2, 7.5), "u8z": (4, 127.5)}  # the byte where a zero point stands, and the middle


def random_weight(format: str, shape: tuple[int, int], random: np.random.Generator, spread: Any = 1.0) -> Weight:
    """A weight of whole blocks, whose values have mean 0 and about the standard deviation `spread`, of each row if it
    has shape (rows, 1): normal values encoded, where the format allows it, else random scales of either sign."""
    if format in ENCODABLE:
        return quantize((random.standard_normal(shape) * spread).astype(np.float32), format)
    if format in NUMBERS:
        numbers = random.standard_normal(shape) * spread
        if format != "f64":
            numbers = np.rint(random.standard_normal(shape) * 40).clip(0 if format == "u8" else -127, 127)
        return Weight(format, shape, numbers.astype(NUMBERS[format]).view(np.uint8))
    if format.startswith("f8"):  # e4m3: to a quarter of its largest number, the sign drawn with the rest
        codes = random.integers(0, 256, shape, np.uint8)
        exponents = (np.round(np.log2(np.broadcast_to(spread, shape))) + (7 if format == "f8_e4m3" else 15)).clip(0, 28)
        bits = 3 if format == "f8_e4m3" else 2
        top = np.minimum(exponents, 12 if bits == 3 else 28).astype(np.uint8)
        return Weight(format, shape, codes & (0x80 | (1 << bits) - 1) | top << bits)
    f = FORMATS[format]
    blocks = (shape[0], f.row_bytes(shape[1]) // f.block_bytes)
    data = random.integers(0, 256, (*blocks, f.block_bytes), np.uint8)
    d = np.broadcast_to(spread * random.uniform(0.5, 1.3, blocks) / _SPREAD[format], blocks)
    if format == "mxfp4":
        data[..., 0] = 128 + np.round(np.log2(d))
        return Weight(format, shape, data.reshape(shape[0], -1))
    if format == "nvfp4":  # exponents of E4M3 with their fractions
        exponents = np.clip(np.round(np.log2(d)) + 8, 0, 14).astype(np.uint8)[..., None]
        data[..., :4] = data[..., :4] & 7 | exponents << 3
        return Weight(format, shape, data.reshape(shape[0], -1))
    d = d * random.choice([-1.0, 1.0], blocks)
    if format == "s8_k":
        data[..., :4] = d.astype("<f4")[..., None].view(np.uint8)
        data[..., 4:20] = random.integers(-31, 32, (*blocks, 16)).astype(np.int8).view(np.uint8)
        return Weight(format, shape, data.reshape(shape[0], -1))
    if format == "iq1_m":  # four bits of d in the upper half of every other byte
        quarters = d.astype("<f2").view("<u2")[..., None] >> np.arange(0, 16, 4, dtype=np.uint16) & 15
        data[..., 49::2] = data[..., 49::2] & 15 | quarters.astype(np.uint8) << 4
        return Weight(format, shape, data.reshape(shape[0], -1))
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
    if format in _CENTRE:
        least = d * _CENTRE[format] * (1 if format == "q5_1" else -1)
        data[..., at + 2 : at + 4] = least.astype("<f2")[..., None].view(np.uint8)
    return Weight(format, shape, data.reshape(shape[0], -1))
