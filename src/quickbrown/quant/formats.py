"""What a weight's bytes mean: one row a format. The numpy `decode` is the specification of the kernels.

Block formats cut a row into blocks of 32 or 64 values; multi-byte numbers are little-endian.

    q8_0  34 bytes  float16 d | 32 x int8 q               value = d * q
    q4_0  18 bytes  float16 d | 16 bytes of nibbles       value = d * (q - 8)
    q4_1  20 bytes  float16 d | float16 m | 16 bytes      value = d * q + m
    nf4   36 bytes  float32 a | 32 bytes of nibbles       value = a * NF4[q]
    fp4   36 bytes  float32 a | 32 bytes of nibbles       value = a * FP4[q]

In 16 bytes of nibbles, byte j holds q of value j in its low half and q of value j + 16 in its high half. In 32 bytes,
byte j holds q of value 2j in its high half and q of value 2j + 1 in its low half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


# Code books of the nibbles, scaled to 1. NF4: quantiles of a normal distribution, 0 among them (Dettmers et al. 2023).
# FP4: a sign, two bits of exponent and one of fraction.
NF4: Floats = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
_FP4_MAGNITUDES = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3]) / 12
FP4: Floats = np.concatenate([_FP4_MAGNITUDES, -_FP4_MAGNITUDES]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Format:
    """An encoding of rows of numbers.

    name         as in `Weight.format`
    ggml_type    its number in a GGUF file; None for one that those do not have
    block        values a block; a row is whole blocks
    block_bytes  bytes a block
    decode       uint8 (rows, blocks * block_bytes) -> float32 (rows, blocks * block)
    """

    name: str
    ggml_type: int | None
    block: int
    block_bytes: int
    decode: Callable[[Bytes], Floats]

    @property
    def bits(self) -> float:
        """Bits a value, scales included."""
        return 8 * self.block_bytes / self.block

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` values. Raises ValueError where they are not whole blocks."""
        blocks, rest = divmod(columns, self.block)
        if rest:
            raise ValueError(f"{self.name} needs rows of a multiple of {self.block} values, not {columns}")
        return blocks * self.block_bytes


def _f32(data: Bytes) -> Floats:
    return np.ascontiguousarray(data).view("<f4").astype(np.float32)


def _f16(data: Bytes) -> Floats:
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _bf16(data: Bytes) -> Floats:
    return (np.ascontiguousarray(data).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _blocks(data: Bytes, size: int) -> Bytes:
    """(rows, blocks * size) -> (rows, blocks, size)."""
    return np.ascontiguousarray(data).reshape(data.shape[0], data.shape[1] // size, size)


def _scales(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block: (rows, blocks, size) -> (rows, blocks, 1)."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Floats:
    """(rows, blocks, 16) -> (rows, blocks, 32), 0 to 15."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.float32)


def _q8_0(data: Bytes) -> Floats:
    blocks = _blocks(data, 34)
    values = _scales(blocks, 0) * blocks[..., 2:].view(np.int8).astype(np.float32)
    return values.reshape(data.shape[0], -1)


def _q4_0(data: Bytes) -> Floats:
    blocks = _blocks(data, 18)
    values = _scales(blocks, 0) * (_nibbles(blocks[..., 2:]) - np.float32(8))
    return values.reshape(data.shape[0], -1)


def _q4_1(data: Bytes) -> Floats:
    blocks = _blocks(data, 20)
    values = _scales(blocks, 0) * _nibbles(blocks[..., 4:]) + _scales(blocks, 2)
    return values.reshape(data.shape[0], -1)


def _by_book(data: Bytes, book: Floats) -> Floats:
    blocks = _blocks(data, 36)
    packed = blocks[..., 4:]
    nibbles = np.stack([packed >> 4, packed & 15], axis=-1).reshape(*packed.shape[:2], 64)
    scales = np.ascontiguousarray(blocks[..., :4]).view("<f4").astype(np.float32)
    return np.asarray(scales * book[nibbles], np.float32).reshape(data.shape[0], -1)


def _nf4(data: Bytes) -> Floats:
    return _by_book(data, NF4)


def _fp4(data: Bytes) -> Floats:
    return _by_book(data, FP4)


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("f32", 0, 1, 4, _f32),
        Format("f16", 1, 1, 2, _f16),
        Format("bf16", 30, 1, 2, _bf16),
        Format("q8_0", 8, 32, 34, _q8_0),
        Format("q4_0", 2, 32, 18, _q4_0),
        Format("q4_1", 3, 32, 20, _q4_1),
        Format("nf4", None, 64, 36, _nf4),
        Format("fp4", None, 64, 36, _fp4),
    )
}
