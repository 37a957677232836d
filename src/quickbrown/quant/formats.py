"""What a weight's bytes mean: one row a format. The numpy `decode` is the specification of the kernels.

Block formats cut a row into blocks of 32 values; multi-byte numbers are little-endian.

    q8_0  34 bytes  float16 d | 32 x int8 q               value = d * q
    q4_0  18 bytes  float16 d | 16 bytes of nibbles       value = d * (q - 8)
    q4_1  20 bytes  float16 d | float16 m | 16 bytes      value = d * q + m

In 16 bytes of nibbles, byte j holds q of value j in its low half and q of value j + 16 in its high half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Format:
    """An encoding of rows of numbers.

    name         as in `Weight.format`
    ggml_type    its number in a GGUF file
    block        values a block; a row is whole blocks
    block_bytes  bytes a block
    decode       uint8 (rows, blocks * block_bytes) -> float32 (rows, blocks * block)
    """

    name: str
    ggml_type: int
    block: int
    block_bytes: int
    decode: Callable[[Bytes], Floats]

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


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("f32", 0, 1, 4, _f32),
        Format("f16", 1, 1, 2, _f16),
        Format("bf16", 30, 1, 2, _bf16),
        Format("q8_0", 8, 32, 34, _q8_0),
        Format("q4_0", 2, 32, 18, _q4_0),
        Format("q4_1", 3, 32, 20, _q4_1),
    )
}
