"""Numbers to encoded weights: the specification of the kernels that do it as a model is loaded, byte for byte.

`quantize` rounds as ggml's reference does. `quantize_searched` is what the kernels do for q4_1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import FORMATS, FP4, NF4, Bytes, Floats
from quickbrown.quant.weight import Weight

Doubles = npt.NDArray[np.float64]

TARGETS = {"q4": "q4_1", "q8": "q8_0", "nf4": "nf4", "fp4": "fp4"}
_ALREADY_SMALL = 5  # bits a value
_LARGEST_HALF = 65504
_GROUPS = 1 << 14  # of 32 values, searched at a time


def holding(quantize: str, head: Weight, embedding: Weight) -> Callable[[Weight], str]:
    """In which format each weight of a model is to be held, by what its user calls it: a key of `TARGETS`.

    What is small already stays as it is, and so do the head, the embedding, vectors, and rows that are not whole blocks
    of the new format. Raises ValueError for an unknown name.
    """
    if quantize not in TARGETS:
        raise ValueError(f"quantize must be one of {', '.join(TARGETS)}, not {quantize!r}")
    target = FORMATS[TARGETS[quantize]]

    def held(weight: Weight) -> str:
        kept = weight is head or weight is embedding or len(weight.shape) != 2 or weight.shape[-1] % target.block
        form = FORMATS[weight.format]
        small = FORMATS[form.held or form.name].bits <= max(target.bits, _ALREADY_SMALL)
        return weight.format if kept or small else target.name

    return held


def quantize(values: Floats, format: str) -> Weight:
    """Encode float32 values of shape (out, in) or (n,) in a format of `ENCODABLE`.

    Raises ValueError for a format that is not in `ENCODABLE`, for rows that are not whole blocks, and for values that
    are not finite.
    """
    if format not in ENCODABLE:
        fault = "can only be read" if format in FORMATS else "is unknown"
        raise ValueError(f"the format {format!r} {fault}; numbers can be encoded in {', '.join(ENCODABLE)}")
    return _encode(values, format, _ENCODERS[format])


def quantize_searched(values: Floats) -> Weight:
    """Encode float32 values of shape (out, in) or (n,) in q4_1, with the d and m that come nearest to them.

    Of each 32 values the range and eight cut ones are tried, each with the line of least squares through what they
    round to; for normal values the squared error is a fifth less than that of `quantize(values, "q4_1")`. Raises
    ValueError as `quantize` does, and for magnitudes above 65504, the largest number that m can be.
    """
    values = np.ascontiguousarray(values, np.float32)
    if values.size and np.abs(values).max() > _LARGEST_HALF:
        raise ValueError(f"values above {_LARGEST_HALF} cannot be held in q4_1")
    return _encode(values, "q4_1", _searched)


def _encode(values: Floats, format: str, encoder: Callable[[Floats], Bytes]) -> Weight:
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim == 0 or not values.size:
        raise ValueError(f"a weight needs at least one value and one axis, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("only finite values can be quantized")
    rows = values.reshape(-1, values.shape[-1])
    width = FORMATS[format].row_bytes(rows.shape[1])
    data = encoder(rows).reshape(rows.shape[0], width)
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
    """1 / d, and 0 where d is 0 or so small that float32 cannot hold it."""
    with np.errstate(over="ignore"):
        inverse = np.divide(1, d, out=np.zeros_like(d), where=d != 0)
    return np.where(np.abs(inverse) <= np.float32(3e38), inverse, np.float32(0))


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
    farthest = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1) + np.float32(0)  # no negative zero
    d = farthest / np.float32(-8)
    q = np.minimum(np.trunc(x * _inverse(d) + np.float32(8.5)), 15).astype(np.uint8)
    return np.concatenate([_half(d), _pack(q)], axis=-1)


def _q4_1(rows: Floats) -> Bytes:
    x = rows.reshape(rows.shape[0], -1, 32)
    low = x.min(-1, keepdims=True)
    d = (x.max(-1, keepdims=True) - low) / np.float32(15)
    q = np.minimum(np.trunc((x - low) * _inverse(d) + np.float32(0.5)), 15).astype(np.uint8)
    return np.concatenate([_half(d), _half(low), _pack(q)], axis=-1)


def _searched(rows: Floats) -> Bytes:
    x = rows.reshape(-1, 32)
    found = [_search(x[i : i + _GROUPS].astype(np.float64)) for i in range(0, len(x), _GROUPS)]
    return np.concatenate(found)


def _search(x: Doubles) -> Bytes:
    """(groups, 32) -> (groups, 20). Every operation is rounded to float64 by itself, and sums have one order."""
    low, high = x.min(-1) + 0.0, x.max(-1) + 0.0  # of -0 and 0 the smaller is anyone's choice: here 0 is both
    width, sum_x = high - low, _total(x)
    with np.errstate(all="ignore"):  # a range of 0, and scales that are too large: they do not win
        d, m = _rounded(width / 15), _rounded(low)
        q = _nearest(x, d, m)
        best = _error(x, d, m, q)
        for a in (0.0, 0.03, 0.06):
            for b in (0.0, 0.03, 0.06):
                start = low + a * width
                tried = _nearest(x, ((high - b * width) - start) / 15, start)
                sum_q, sum_qq = tried.sum(-1), (tried * tried).sum(-1)
                slope = (32 * _total(x * tried) - sum_x * sum_q) / (32 * sum_qq - sum_q * sum_q)
                new_d = _rounded(slope)
                new_m = _rounded((sum_x - new_d * sum_q) / 32)
                tried = _nearest(x, new_d, new_m)
                error = _error(x, new_d, new_m, tried)
                better = (width > 0) & (error < best)
                best = np.where(better, error, best)
                d, m = np.where(better, new_d, d), np.where(better, new_m, m)
                q = np.where(better[:, None], tried, q)
    halves = np.stack([d, m], axis=-1).astype("<f2").view(np.uint8)
    return np.concatenate([halves, _pack(q.astype(np.uint8))], axis=-1)


def _rounded(v: Doubles) -> Doubles:
    """To float32, and to float16."""
    return v.astype(np.float32).astype(np.float16).astype(np.float64)


def _nearest(x: Doubles, d: Doubles, m: Doubles) -> Doubles:
    """The q from 0 to 15 for which d * q + m is nearest to x."""
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d > 0)
    return np.floor(np.clip((x - m[:, None]) * inverse[:, None], 0, 15) + 0.5)


def _error(x: Doubles, d: Doubles, m: Doubles, q: Doubles) -> Doubles:
    e = x - (d[:, None] * q + m[:, None])
    return _total(e * e)


def _total(v: Doubles) -> Doubles:
    """(groups, 32) -> (groups,): the sum, in the order in which vectors of 8 add."""
    s = ((v[:, :8] + v[:, 8:16]) + v[:, 16:24]) + v[:, 24:]
    s = s[:, :4] + s[:, 4:]
    s = s[:, :2] + s[:, 2:]
    return s[:, 0] + s[:, 1]


def _by_book(rows: Floats, nibble: Callable[[Floats], Bytes]) -> Bytes:
    x = rows.reshape(rows.shape[0], -1, 64)
    largest = np.abs(x).max(-1, keepdims=True)
    share = np.divide(x, largest, out=np.zeros_like(x), where=largest > 0)
    q = nibble(share).astype(np.uint8)
    packed = q[..., ::2] << 4 | q[..., 1::2]
    return np.concatenate([largest.astype("<f4").view(np.uint8), packed], axis=-1)


def _middles(parts: Floats) -> Floats:
    """Between neighbours of ascending parts."""
    wide = parts.astype(np.float64)
    return ((wide[:-1] + wide[1:]) / 2).astype(np.float32)


def _nf4(rows: Floats) -> Bytes:
    """The nearest part, the lower of two that are as near."""
    middles = _middles(NF4)
    return _by_book(rows, lambda share: np.searchsorted(middles, share).astype(np.uint8))


def _fp4(rows: Floats) -> Bytes:
    """The nearest magnitude, the lower of two that are as near, and the sign."""
    order = FP4[:8].argsort().astype(np.uint8)
    middles = _middles(FP4[order])

    def nibble(share: Floats) -> Bytes:
        sign = np.where(share < 0, np.uint8(8), np.uint8(0))
        return np.asarray(order[np.searchsorted(middles, np.abs(share))] | sign, np.uint8)

    return _by_book(rows, nibble)


_ENCODERS: dict[str, Callable[[Floats], Bytes]] = {
    "f32": _f32, "f16": _f16, "bf16": _bf16, "q8_0": _q8_0, "q4_0": _q4_0, "q4_1": _q4_1,
    "nf4": _nf4, "fp4": _fp4,
}  # fmt: skip
ENCODABLE = tuple(_ENCODERS)
