"""4-bit floats, 16 to a scale of 8 bits, and one scale for the tensor (NVIDIA 2025, NVFP4), as compressed-tensors has
them: value = float4(nibble) * (e4m3(scale) / global scale), in float32.

`s8_k` holds them where the scales of each 256 columns lie within a factor of 16 of each other, a smaller one being a
multiple of the same power of two: s is the fraction of a scale of 4 bits moved up by up to 3, q twice the float moved
up by what is left. Its values come of other roundings to float32, of 1 / (global scale) and of that times s, so that
they are the same to 22 bits. Otherwise they are held in f32, exactly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import E4M3, MXFP4, Bytes
from quickbrown.quant.integers import slices
from quickbrown.quant.weight import MadeWeight

GROUP = 16
_BLOCK = 256
_ROWS = 4096  # whose scales are looked at together
_MOST = 4  # powers of two between scales of a block: s * q then stays below what s8_k can add up exactly
_HALVES = MXFP4.astype(np.int8)  # twice the floats

Exponents = npt.NDArray[np.int8]


def nvfp4(packed: Bytes, scales: Bytes, whole: np.float32) -> MadeWeight:
    """Nibbles (out, in / 2), the first of two in the low half, codes of E4M3 without a sign (out, in / 16), and the
    scale of the tensor. Raises ValueError for scales that are no positive numbers."""
    shape = (len(packed), packed.shape[1] * 2)
    if not np.isfinite(whole) or whole <= 0:
        raise ValueError(f"weight_global_scale is {whole}, not a positive number")
    if (scales >= 127).any():
        raise ValueError("weight_scale has scales that are no number or below 0")

    def nibbles(first: int, last: int) -> Bytes:
        return np.stack([packed[first:last] & 15, packed[first:last] >> 4], -1).reshape(last - first, shape[1])

    def as_f32(first: int, last: int) -> Bytes:
        with np.errstate(over="ignore", invalid="ignore"):  # the scale may be as small as a file says
            each = np.repeat(E4M3[scales[first:last]] / whole, GROUP, 1)
            return (_HALVES[nibbles(first, last)] * np.float32(0.5) * each).astype("<f4").view(np.uint8)

    def as_s8_k(first: int, last: int) -> Bytes:
        fraction, exponent, least = _parts(scales[first:last])
        up = exponent - least
        s = np.where(fraction == 0, 0, fraction << np.minimum(up, 3))
        q = _HALVES[nibbles(first, last)].reshape(*up.shape, GROUP) << np.maximum(up - 3, 0)[..., None]
        with np.errstate(over="ignore"):
            d = np.ldexp(np.float32(0.5) / whole, least[..., 0]).astype("<f4")
        out = np.empty((*d.shape, 276), np.uint8)
        out[..., :4] = d[..., None].view(np.uint8)
        out[..., 4:20] = s.astype(np.int8).view(np.uint8)
        out[..., 20:] = q.astype(np.int8).view(np.uint8).reshape(*d.shape, _BLOCK)
        return out.reshape(last - first, -1)

    if shape[1] % _BLOCK == 0 and all(_near(scales[first:last]) for first, last in slices(len(scales), _ROWS)):
        return MadeWeight("s8_k", shape, as_s8_k)
    return MadeWeight("f32", shape, as_f32)


def _parts(scales: Bytes) -> tuple[Exponents, Exponents, Exponents]:
    """(rows, groups) -> fractions below 16 and powers of two, (rows, blocks, 16), and the least power of each block:
    scale = fraction * 2^power. That of a zero is as large as the least."""
    blocks = scales.reshape(len(scales), -1, _BLOCK // GROUP).astype(np.int8)
    field = blocks >> 3
    fraction, exponent = (blocks & 7) + (field > 0) * np.int8(8), np.maximum(field, 1) - np.int8(10)
    least = np.where(fraction == 0, np.int8(5), exponent).min(-1, keepdims=True)
    return fraction, np.where(fraction == 0, least, exponent), least


def _near(scales: Bytes) -> bool:
    _, exponent, least = _parts(scales)
    return bool((exponent - least <= _MOST).all())
