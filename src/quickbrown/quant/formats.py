"""What a weight's bytes mean: one row a format. The numpy `decode` is the specification of the kernels.

Block formats cut a row into blocks of 32, 64 or 256 values; multi-byte numbers are little-endian.

    q8_0  34 bytes  float16 d | 32 x int8 q               value = d * q
    q4_0  18 bytes  float16 d | 16 bytes of nibbles       value = d * (q - 8)
    q4_1  20 bytes  float16 d | float16 m | 16 bytes      value = d * q + m
    q5_0  22 bytes  float16 d | 32 fifth bits | 16 bytes  value = d * (q - 16)
    q5_1  24 bytes  float16 d | float16 m | 32 fifth bits | 16 bytes  value = d * q + m
    iq4_nl 18 bytes float16 d | 16 bytes of nibbles       value = d * IQ4_NL[q]
    mxfp4 17 bytes  uint8 e | 16 bytes of nibbles         value = 2^(e - 128) * MXFP4[q]
    nf4   36 bytes  float32 a | 32 bytes of nibbles       value = a * NF4[q]
    fp4   36 bytes  float32 a | 32 bytes of nibbles       value = a * FP4[q]
    u4z   20 bytes  float16 d | float16 z | 16 bytes of nibbles   value = d * (q - z)
    u8z   38 bytes  float32 d | float16 z | 32 x uint8 q          value = d * (q - z)
    e4m3  68 bytes  float32 a | 64 x uint8 q              value = a * e4m3(q), no q a NaN
    q4_k 144 bytes  float16 d | float16 n | 12 bytes of s, m | 128 bytes of nibbles               value = d s q - n m
    q5_k 176 bytes  float16 d | float16 n | 12 bytes of s, m | 32 of fifth bits | 128 of nibbles  value = d s q - n m
    s8_k 276 bytes  float32 d | 16 x int8 s | 256 x int8 q, no file's: what finer types are held in  value = d s q
    q6_k 210 bytes  128 bytes of nibbles | 64 of upper bits | 16 x int8 s | float16 d             value = d s (q - 32)

In 16 bytes of nibbles, byte j holds q of value j in its low half and q of value j + 16 in its high half; bit j of the
fifth bits belongs to value j. In those of u4z, byte j holds q of value 2j in its low half and q of value 2j + 1 in its
high half; in the 32 bytes of nf4 and fp4 it is the other way round. e4m3 is a sign, 4 bits of exponent, 3 of fraction
(Micikevicius et al. 2022). A block of 256 values has a scale s for each 32 (q6_k, s8_k: 16). Its nibbles come in four
times 32 bytes: low halves 32 values, high halves the next 32 (q6_k: twice 64 bytes, low halves 64 values, high ones
the next).

q2_k, q3_k, iq4_xs and the last rows of the table are plain numbers, or described in `ggml.py`. The last ones have no
kernels: weights of such a type are held in a format that has some, the smallest that has all of their values, or f32
where none has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

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
IQ4_NL: Floats = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_MXFP4_MAGNITUDES = np.array([0, 1, 2, 3, 4, 6, 8, 12])  # twice those of a 4-bit float, for half the scale
MXFP4: Floats = np.concatenate([_MXFP4_MAGNITUDES, -_MXFP4_MAGNITUDES]).astype(np.float32)
# What a float of 8 bits means, 4 of exponent and 3 of fraction: 0x7f and 0xff are NaN, and there is no infinity.
_e4, _f3 = np.arange(128) >> 3, np.arange(128) & 7
_E4M3_MAGNITUDES = np.where(_e4 > 0, np.ldexp(8 + _f3, _e4 - 10), np.ldexp(_f3, -9))
_E4M3_MAGNITUDES[127] = np.nan
E4M3: Floats = np.concatenate([_E4M3_MAGNITUDES, -_E4M3_MAGNITUDES]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Format:
    """An encoding of rows of numbers.

    name         as in `Weight.format`
    ggml_type    its number in a GGUF file; None for one that those do not have
    block        values a block; a row is whole blocks
    block_bytes  bytes a block
    decode       uint8 (rows, blocks * block_bytes) -> float32 (rows, blocks * block)
    held         of a format without kernels: the one that its weights are held in
    transcode    the bytes of the same values in that one; unless given, what `decode` gives is encoded
    exact        whether `decode` gives all of its values: float32 has fewer digits than some numbers
    """

    name: str
    ggml_type: int | None
    block: int
    block_bytes: int
    decode: Callable[[Bytes], Floats]
    held: str | None = None
    transcode: Callable[[Bytes], Bytes] | None = None
    exact: bool = True

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


def _fifth(bits: Bytes) -> Bytes:
    """(rows, blocks, 4) -> (rows, blocks, 32): 16 where bit j of the 32 is set, else 0."""
    return np.unpackbits(bits, axis=-1, bitorder="little") * np.uint8(16)


def _q5_0(data: Bytes) -> Floats:
    blocks = _blocks(data, 22)
    values = _scales(blocks, 0) * (_nibbles(blocks[..., 6:]) + _fifth(blocks[..., 2:6]) - np.float32(16))
    return values.reshape(data.shape[0], -1)


def _q5_1(data: Bytes) -> Floats:
    blocks = _blocks(data, 24)
    values = _scales(blocks, 0) * (_nibbles(blocks[..., 8:]) + _fifth(blocks[..., 4:8])) + _scales(blocks, 2)
    return values.reshape(data.shape[0], -1)


def _iq4_nl(data: Bytes) -> Floats:
    blocks = _blocks(data, 18)
    values = _scales(blocks, 0) * IQ4_NL[_nibbles(blocks[..., 2:]).astype(np.intp)]
    return values.reshape(data.shape[0], -1)


def _mxfp4(data: Bytes) -> Floats:
    blocks = _blocks(data, 17)
    scales = np.ldexp(np.float32(1), blocks[..., :1].astype(np.int32) - 128).astype(np.float32)
    return np.asarray(scales * MXFP4[_nibbles(blocks[..., 1:]).astype(np.intp)], np.float32).reshape(data.shape[0], -1)


def _with_minima(blocks: Bytes, q: Bytes) -> Floats:
    """(rows, blocks, size), and q (rows, blocks, 8, 32) -> (rows, blocks * 256).

    Of the 12 bytes, 0 to 3 hold s of groups 0 to 3 in 6 bits, 4 to 7 hold m; 8 to 11 the lower 4 bits of s and of m of
    groups 4 to 7, whose upper 2 bits are the upper ones of bytes 0 to 7.
    """
    first, second, third = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    s = np.concatenate([first & 63, third & 15 | first >> 6 << 4], -1).astype(np.float32)
    m = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], -1).astype(np.float32)
    values = (_scales(blocks, 0) * s)[..., None] * q.astype(np.float32) - (_scales(blocks, 2) * m)[..., None]
    return values.reshape(len(blocks), -1)


def _pairs(packed: Bytes, bytes: int) -> Bytes:
    """(rows, blocks, 128) nibbles -> (rows, blocks, 256): of so many bytes the low halves, then the high halves."""
    parts = packed.reshape(*packed.shape[:2], -1, bytes)
    return np.stack([parts & 15, parts >> 4], axis=-2).reshape(*packed.shape[:2], 256)


def _q4_k(data: Bytes) -> Floats:
    blocks = _blocks(data, 144)
    return _with_minima(blocks, _pairs(blocks[..., 16:], 32).reshape(*blocks.shape[:2], 8, 32))


def _q5_k(data: Bytes) -> Floats:
    """Bit g of the fifth bits' byte j belongs to value j of group g."""
    blocks = _blocks(data, 176)
    q = _pairs(blocks[..., 48:], 32).reshape(*blocks.shape[:2], 8, 32)
    fifth = blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & np.uint8(1)
    return _with_minima(blocks, q + fifth * np.uint8(16))


def _q6_k(data: Bytes) -> Floats:
    """Bits 2g and 2g + 1 of byte j of 32 upper ones belong to value j of group g of 32; four groups to 32 bytes."""
    blocks = _blocks(data, 210)
    shape = blocks.shape[:2]
    upper = blocks[..., 128:192].reshape(*shape, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    q = (_pairs(blocks[..., :128], 64) | upper.reshape(*shape, 256) << 4).astype(np.float32) - 32
    scales = _scales(blocks, 208) * blocks[..., 192:208].view(np.int8).astype(np.float32)
    return np.asarray(scales[..., None] * q.reshape(*shape, 16, 16), np.float32).reshape(len(blocks), -1)


def _s8_k(data: Bytes) -> Floats:
    blocks = _blocks(data, 276)
    s, q = blocks[..., 4:20].view(np.int8), blocks[..., 20:].view(np.int8)
    scales = _f32_scales(blocks) * s.astype(np.float32)
    values = scales[..., None] * q.reshape(*s.shape, 16).astype(np.float32)
    return np.asarray(values, np.float32).reshape(len(blocks), -1)


def _f32_scales(blocks: Bytes) -> Floats:
    """The float32 at the start of each block: (rows, blocks, size) -> (rows, blocks, 1)."""
    return np.ascontiguousarray(blocks[..., :4]).view("<f4").astype(np.float32)


def _u4z(data: Bytes) -> Floats:
    blocks = _blocks(data, 20)
    q = np.stack([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], -1).reshape(*blocks.shape[:2], 32).astype(np.float32)
    return np.asarray(_scales(blocks, 0) * (q - _scales(blocks, 2)), np.float32).reshape(data.shape[0], -1)


def _u8z(data: Bytes) -> Floats:
    blocks = _blocks(data, 38)
    values = _f32_scales(blocks) * (blocks[..., 6:].astype(np.float32) - _scales(blocks, 4))
    return np.asarray(values, np.float32).reshape(data.shape[0], -1)


def _e4m3(data: Bytes) -> Floats:
    blocks = _blocks(data, 68)
    return np.asarray(_f32_scales(blocks) * E4M3[blocks[..., 4:]], np.float32).reshape(data.shape[0], -1)


def _by_book(data: Bytes, book: Floats) -> Floats:
    blocks = _blocks(data, 36)
    packed = blocks[..., 4:]
    nibbles = np.stack([packed >> 4, packed & 15], axis=-1).reshape(*packed.shape[:2], 64)
    return np.asarray(_f32_scales(blocks) * book[nibbles], np.float32).reshape(data.shape[0], -1)


def _nf4(data: Bytes) -> Floats:
    return _by_book(data, NF4)


def _fp4(data: Bytes) -> Floats:
    return _by_book(data, FP4)


def _number(dtype: str) -> Callable[[Bytes], Floats]:
    """Plain numbers of a dtype, rounded to float32 where they have more digits."""

    def decode(data: Bytes) -> Floats:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(data).view(dtype).astype(np.float32)

    return decode


def _f8_e4m3(data: Bytes) -> Floats:
    return E4M3[data]


def _f8_e5m2(data: Bytes) -> Floats:
    """The upper half of a float16."""
    return (np.ascontiguousarray(data).astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def _as_bf16(decode: Callable[[Bytes], Floats]) -> Callable[[Bytes], Bytes]:
    """The upper halves of float32 values whose lower ones are zero."""

    def transcode(data: Bytes) -> Bytes:
        with np.errstate(invalid="ignore"):
            return (decode(data).view(np.uint32) >> 16).astype("<u2").view(np.uint8)

    return transcode


def _ggml(name: str) -> Callable[[Bytes], npt.NDArray[Any]]:
    """A function of `ggml.py`, which is imported when it is first used: few files need it."""
    return lambda data: getattr(import_module("quickbrown.quant.ggml"), name)(data)


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
        Format("q4_k", 12, 256, 144, _q4_k),
        Format("q6_k", 14, 256, 210, _q6_k),
        Format("q5_0", 6, 32, 22, _q5_0),
        Format("q5_1", 7, 32, 24, _q5_1),
        Format("q5_k", 13, 256, 176, _q5_k),
        Format("iq4_nl", 20, 32, 18, _iq4_nl),
        Format("mxfp4", 39, 32, 17, _mxfp4),
        Format("u4z", None, 32, 20, _u4z),
        Format("u8z", None, 32, 38, _u8z),
        Format("e4m3", None, 64, 68, _e4m3),
        Format("s8_k", None, 256, 276, _s8_k),
        Format("q2_k", 10, 256, 84, _ggml("q2_k")),
        Format("q3_k", 11, 256, 110, _ggml("q3_k")),
        Format("iq4_xs", 23, 256, 136, _ggml("iq4_xs")),
        Format("f64", 28, 1, 8, _number("<f8"), "f32", exact=False),
        Format("f8_e4m3", None, 1, 1, _f8_e4m3, "bf16", _as_bf16(_f8_e4m3)),
        Format("f8_e5m2", None, 1, 1, _f8_e5m2, "bf16", _as_bf16(_f8_e5m2)),
        Format("u8", None, 1, 1, _number("u1"), "bf16", _as_bf16(_number("u1"))),
        Format("i8", 24, 1, 1, _number("i1"), "bf16", _as_bf16(_number("i1"))),
        Format("i16", 25, 1, 2, _number("<i2"), "f32"),
        Format("i32", 26, 1, 4, _number("<i4"), "f32", exact=False),
        Format("i64", 27, 1, 8, _number("<i8"), "f32", exact=False),
        Format("iq2_xxs", 16, 256, 66, _ggml("iq2_xxs"), "s8_k", _ggml("iq2_xxs_as_s8_k")),
        Format("iq2_xs", 17, 256, 74, _ggml("iq2_xs"), "s8_k", _ggml("iq2_xs_as_s8_k")),
        Format("iq3_xxs", 18, 256, 98, _ggml("iq3_xxs"), "s8_k", _ggml("iq3_xxs_as_s8_k")),
        Format("iq1_s", 19, 256, 50, _ggml("iq1_s"), "s8_k", _ggml("iq1_s_as_s8_k")),
        Format("iq3_s", 21, 256, 110, _ggml("iq3_s"), "q6_k", _ggml("iq3_s_as_q6_k")),
        Format("iq2_s", 22, 256, 82, _ggml("iq2_s"), "s8_k", _ggml("iq2_s_as_s8_k")),
        Format("iq1_m", 29, 256, 56, _ggml("iq1_m"), "s8_k", _ggml("iq1_m_as_s8_k")),
        Format("tq1_0", 34, 256, 54, _ggml("tq1_0"), "q4_0", _ggml("tq1_0_as_q4_0")),
        Format("tq2_0", 35, 256, 66, _ggml("tq2_0"), "q4_0", _ggml("tq2_0_as_q4_0")),
        Format("nvfp4", 40, 64, 36, _ggml("nvfp4"), "bf16", _as_bf16(_ggml("nvfp4"))),
    )
}
