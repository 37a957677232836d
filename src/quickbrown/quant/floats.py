"""Floats of 8 bits with a scale for each row, block or tensor: the native format that holds them."""

from __future__ import annotations

from functools import partial

import numpy as np

from quickbrown.quant.formats import E4M3, Bytes, Floats
from quickbrown.quant.published import Published
from quickbrown.quant.weight import MadeWeight

_BLOCK = 64  # columns that share a scale in the native format
_E5M2: Floats = (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32)
_BOOKS = {"F8_E4M3": E4M3, "F8_E5M2": _E5M2}


def scaled(what: str, numbers: Published, scales: Floats, block: tuple[int, int]) -> MadeWeight:
    """value[r, c] = number[r, c] * scales[r // block[0], c // block[1]], exactly.

    numbers  F8_E4M3 or F8_E5M2, (out, in)
    scales   float32, (ceil(out / block[0]), ceil(in / block[1]))
    held     e4m3; f32 where columns or blocks are no multiple of 64, and for F8_E5M2

    Raises ValueError where they do not fit, and (as the bytes are made) for numbers that are none.
    """
    if numbers.dtype not in _BOOKS or len(numbers.shape) != 2 or 0 in numbers.shape:
        raise ValueError(f"{what} is {numbers.dtype} of shape {numbers.shape}, not F8_E4M3 or F8_E5M2 of (out, in)")
    bits: Bytes = numbers.of(what, numbers.dtype, *numbers.shape).view(np.uint8)
    outputs, inputs = numbers.shape
    wanted = (-(-outputs // block[0]), -(-inputs // block[1]))
    if scales.shape != wanted:
        raise ValueError(f"scales of {what} have shape {scales.shape}, not {wanted}")
    if not np.isfinite(scales).all():
        raise ValueError(f"a scale of {what} is not finite")
    packed = numbers.dtype == "F8_E4M3" and inputs % _BLOCK == 0 and (block[1] % _BLOCK == 0 or block[1] >= inputs)
    make = _e4m3 if packed else _f32
    return MadeWeight(
        "e4m3" if packed else "f32", (outputs, inputs), partial(make, what, numbers.dtype, bits, scales, block)
    )


def whole_tensor(shape: tuple[int, ...], scale: Floats) -> tuple[Floats, tuple[int, int]]:
    """The scales and the block of a tensor with one scale, or one a row, in whatever shape that came."""
    if len(shape) != 2 or scale.size not in (1, shape[0]):
        raise ValueError(f"{scale.size} scales are neither one nor one for each row of shape {shape}")
    each = shape[0] if scale.size == 1 else 1
    return scale.reshape(-1, 1), (each, shape[1])


def _check(what: str, dtype: str, bits: Bytes) -> None:
    if not np.isfinite(_BOOKS[dtype][bits]).all() if dtype == "F8_E5M2" else ((bits & 127) == 127).any():
        raise ValueError(f"{what} holds what is not a number")


def _row_scales(scales: Floats, block: tuple[int, int], first: int, last: int) -> Floats:
    return scales[np.arange(first, last) // block[0]]


def _e4m3(what: str, dtype: str, bits: Bytes, scales: Floats, block: tuple[int, int], first: int, last: int) -> Bytes:
    numbers = bits[first:last]
    _check(what, dtype, numbers)
    of_block = np.arange(0, bits.shape[1], _BLOCK) // block[1]
    each = _row_scales(scales, block, first, last)[:, of_block].astype("<f4")[..., None].view(np.uint8)
    return np.concatenate([each, numbers.reshape(last - first, -1, _BLOCK)], -1).reshape(last - first, -1)


def _f32(what: str, dtype: str, bits: Bytes, scales: Floats, block: tuple[int, int], first: int, last: int) -> Bytes:
    numbers = bits[first:last]
    _check(what, dtype, numbers)
    each = _row_scales(scales, block, first, last)[:, np.arange(bits.shape[1]) // block[1]]
    return np.ascontiguousarray(_BOOKS[dtype][numbers] * each, "<f4").view(np.uint8)
