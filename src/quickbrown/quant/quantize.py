"""Numbers to encoded weights, rounded as ggml's reference does: plain, for tests and tiny random models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from quickbrown.quant.formats import FORMATS, Bytes, Floats
from quickbrown.quant.weight import Weight


def quantize(values: Floats, format: str) -> Weight:
    """Encode float32 values of shape (out, in) or (n,) in a format of `FORMATS`.

    Raises ValueError for an unknown format, for rows that are not whole blocks, and for values that are not finite.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim == 0 or not values.size:
        raise ValueError(f"a weight needs at least one value and one axis, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("only finite values can be quantized")
    rows = values.reshape(-1, values.shape[-1])
    width = FORMATS[format].row_bytes(rows.shape[1])
    data = _ENCODERS[format](rows).reshape(rows.shape[0], width)
    return Weight(format, values.shape, np.ascontiguousarray(data))


def _f32(rows: Floats) -> Bytes:
    return rows.astype("<f4").view(np.uint8)


def _f16(rows: Floats) -> Bytes:
    with np.errstate(over="ignore"):
        return rows.astype("<f2").view(np.uint8)


def _bf16(rows: Floats) -> Bytes:
    bits = rows.view(np.uint32)
    even = (bits + np.uint32(0x7FFF) + (bits >> 16 & np.uint32(1))) >> 16
    return even.astype("<u2").view(np.uint8)


def _inverse(d: Floats) -> Floats:
    """1 / d, and 0 where d is 0."""
    return np.divide(1, d, out=np.zeros_like(d), where=d != 0)


def _half(x: Floats) -> Bytes:
    """(rows, blocks, 1) as float16 bytes, (rows, blocks, 2)."""
    with np.errstate(over="ignore"):
        return x.astype("<f2").view(np.uint8)


def _pack(q: Bytes) -> Bytes:
    """Nibbles (rows, blocks, 32) -> (rows, blocks, 16)."""
    return (q[..., :16] | q[..., 16:] << 4).astype(np.uint8)


def _q8_0(rows: Floats) -> Bytes:
    x = rows.reshape(rows.shape[0], -1, 32)
    d = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    q = (x * _inverse(d)).astype(np.float64)  # in which q + 0.5 is exact
    whole = np.trunc(q + np.copysign(0.5, q)).astype(np.int8)  # halves go away from zero
    return np.concatenate([_half(d), whole.view(np.uint8)], axis=-1)


def _q4_0(rows: Floats) -> Bytes:
    x = rows.reshape(rows.shape[0], -1, 32)
    farthest = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)
    d = farthest / np.float32(-8)
    q = np.minimum(np.trunc(x * _inverse(d) + np.float32(8.5)), 15).astype(np.uint8)
    return np.concatenate([_half(d), _pack(q)], axis=-1)


def _q4_1(rows: Floats) -> Bytes:
    x = rows.reshape(rows.shape[0], -1, 32)
    low = x.min(-1, keepdims=True)
    d = (x.max(-1, keepdims=True) - low) / np.float32(15)
    q = np.minimum(np.trunc((x - low) * _inverse(d) + np.float32(0.5)), 15).astype(np.uint8)
    return np.concatenate([_half(d), _half(low), _pack(q)], axis=-1)


_ENCODERS: dict[str, Callable[[Floats], Bytes]] = {
    "f32": _f32, "f16": _f16, "bf16": _bf16, "q8_0": _q8_0, "q4_0": _q4_0, "q4_1": _q4_1,
}  # fmt: skip
