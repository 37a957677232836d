"""The finer types of GGUF files: what their bytes mean, and for those without kernels (all but q2_k, q3_k and iq4_xs)
the same values in formats that have some.

Blocks are of 256 values (nvfp4: 64), multi-byte numbers little-endian, d and n float16. Most have a scale for each
16 or 32 values, and value = scale * q with small whole q, which float32 holds exactly:

    q2_k     84 bytes  16 bytes of s, m | 64 of q | d | n                    value = d s q - n m, of 16
    q3_k    110 bytes  32 of upper bits | 64 of q | 12 of s | d              value = d s (q - 4), of 16
    tq1_0    54 bytes  48 of 5 q each | 4 of 4 q each | d                    value = d (q - 1)
    tq2_0    66 bytes  64 of q | d                                           value = d (q - 1)
    iq4_xs  136 bytes  d | 2 of upper bits of s | 4 of s | 128 of nibbles    value = d s IQ4_NL[q], of 32
    iq3_s   110 bytes  d | 64 of points | 8 of ninth bits | 32 of signs | 4 of s   value = d (2 s + 1) q, of 32
    iq3_xxs  98 bytes  d | 64 of points | 8 x 4 of signs and s               value = d (2 s + 1) / 4 q, of 32
    iq2_s    82 bytes  d | 32 of points | 32 of signs | 8 of upper bits | 8 of s   value = d (2 s + 1) / 8 q, of 16
    iq2_xs   74 bytes  d | 32 x 2 of points and signs | 8 of s               value = d (2 s + 1) / 8 q, of 16
    iq2_xxs  66 bytes  d | 8 x 8 of points, signs and s                      value = d (2 s + 1) / 8 q, of 32
    iq1_s    50 bytes  d | 32 of points | 8 x 2 of upper bits, s and shift   value = d (2 s + 1) / 64 q, of 32
    iq1_m    56 bytes  32 of points | 16 of upper bits and shifts | 8 of s and d   value = d (2 s + 1) / 64 q, of 16
    nvfp4    36 bytes  4 of E4M3 scales | 32 of nibbles                      value = e / 2 MXFP4[q], of 16

Points are those of `books`: q of 8 values (iq3: 4) at once. Those of iq1 are -1, 0 and 1, times 64, and a shift of 8
up or down for all 8: q that are small beside 128 would lose digits in kernels on bf16. The values are those of ggml's
own reference, which its package `gguf` has in numpy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from quickbrown.quant import books
from quickbrown.quant.formats import IQ4_NL, MXFP4, Bytes, Floats

Quants = npt.NDArray[np.int8]

_QUARTER, _EIGHTH, _SIXTYFOURTH = (np.float32(2.0**-n) for n in (2, 3, 6))


def _blocks(data: Bytes, size: int) -> Bytes:
    """(rows, blocks * size) -> (rows * blocks, size)."""
    return np.ascontiguousarray(data).reshape(-1, size)


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block: (n, size) -> (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _words(blocks: Bytes, start: int, stop: int, dtype: str) -> npt.NDArray[np.uint32]:
    """Bytes `start` to `stop` of each block, as numbers of a dtype: (n, count)."""
    return np.ascontiguousarray(blocks[:, start:stop]).view(dtype).astype(np.uint32)


def _fields(packed: Bytes, bits: int, run: int) -> Bytes:
    """Numbers of 1, 2 or 4 bits, (n, m) -> (n, m * 8 / bits): of each `run` bytes the lowest of all, then the next."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    parts = packed.reshape(len(packed), -1, 1, run) >> shifts & np.uint8((1 << bits) - 1)
    return parts.reshape(len(packed), -1)


def _join(data: Bytes, scales: Floats, q: Quants) -> Floats:
    """Scales (n, groups) times q (n, values), as rows like those of `data`."""
    values = q.reshape(*scales.shape, -1).astype(np.float32)
    values *= scales[..., None]
    return values.reshape(len(data), -1)


def q2_k(data: Bytes) -> Floats:
    blocks = _blocks(data, 84)
    s, m = (blocks[:, :16] & 15).astype(np.float32), (blocks[:, :16] >> 4).astype(np.float32)
    values = _fields(blocks[:, 16:80], 2, 32).reshape(-1, 16, 16).astype(np.float32)
    values *= (_half(blocks, 80) * s)[..., None]
    values -= (_half(blocks, 82) * m)[..., None]
    return values.reshape(len(data), -1)


def q3_k(data: Bytes) -> Floats:
    """Byte j of the upper bits has one for value j of each group of 32; byte j of the last four of s has the upper two
    bits of scales j, j + 4, j + 8 and j + 12."""
    blocks = _blocks(data, 110)
    low = _fields(blocks[:, 96:104], 4, 8)
    scales = (low | _fields(blocks[:, 104:108], 2, 4) << 4).view(np.int8) - np.int8(32)
    q = _fields(blocks[:, 32:96], 2, 32) | _fields(blocks[:, :32], 1, 32) << 2
    return _join(data, _half(blocks, 108) * scales, q.view(np.int8) - np.int8(4))


def _tq1_0(blocks: Bytes) -> Quants:
    """A byte is a fraction of 256 whose digits to the base 3 are q: the first is the whole part of 3 times it."""

    def digits(packed: Bytes, count: int) -> Bytes:
        powers = np.array([3**i for i in range(count)], np.uint8)[:, None]
        return (packed[:, None] * powers).reshape(len(packed), -1)

    rest = np.concatenate([digits(blocks[:, :32], 5), digits(blocks[:, 32:48], 5), digits(blocks[:, 48:52], 4)], 1)
    return (rest.astype(np.uint16) * np.uint16(3) >> 8).astype(np.int8) - np.int8(1)


def tq1_0(data: Bytes) -> Floats:
    blocks = _blocks(data, 54)
    return _join(data, _half(blocks, 52), _tq1_0(blocks))


def tq1_0_as_q4_0(data: Bytes) -> Bytes:
    blocks = _blocks(data, 54)
    return _q4_0(data, blocks[:, 52:], _tq1_0(blocks))


def _tq2_0(blocks: Bytes) -> Quants:
    return _fields(blocks[:, :64], 2, 32).view(np.int8) - np.int8(1)


def tq2_0(data: Bytes) -> Floats:
    blocks = _blocks(data, 66)
    return _join(data, _half(blocks, 64), _tq2_0(blocks))


def tq2_0_as_q4_0(data: Bytes) -> Bytes:
    blocks = _blocks(data, 66)
    return _q4_0(data, blocks[:, 64:], _tq2_0(blocks))


def _q4_0(data: Bytes, d: Bytes, q: Quants) -> Bytes:
    """Blocks of q4_0 of d (n, 2) and q from -8 to 7 (n, 256), as rows like those of `data`."""
    u = (q + np.int8(8)).view(np.uint8).reshape(-1, 8, 2, 16)
    out = np.empty((len(u), 8, 18), np.uint8)
    out[..., :2], out[..., 2:] = d[:, None], u[:, :, 0] | u[:, :, 1] << 4
    return out.reshape(len(data), -1)


Parts = tuple[Floats, Quants, Quants]  # d (n, 1), scales (n, 8 or 16), q (n, 256): value = d * scale * q


def _reader(size: int, parts: Callable[[Bytes], Parts]) -> tuple[Callable[[Bytes], Floats], Callable[[Bytes], Bytes]]:
    """Of blocks of so many bytes: their values, and the same as blocks of s8_k."""

    def decode(data: Bytes) -> Floats:
        d, scales, q = parts(_blocks(data, size))
        return _join(data, d * scales, q)

    def as_s8_k(data: Bytes) -> Bytes:
        with np.errstate(invalid="ignore"):  # a d that is no number stays none
            d, scales, q = parts(_blocks(data, size))
        out = np.empty((len(q), 276), np.uint8)
        out[:, :4] = d.astype("<f4").view(np.uint8)
        out[:, 4:20] = np.repeat(scales, 16 // scales.shape[1], 1).view(np.uint8)
        out[:, 20:] = q.view(np.uint8)
        return out.reshape(len(data), -1)

    return decode, as_s8_k


def iq4_xs(data: Bytes) -> Floats:
    blocks = _blocks(data, 136)
    upper = _words(blocks, 2, 4, "<u2") >> np.arange(0, 16, 2, dtype=np.uint32) & 3
    scales = (_fields(blocks[:, 4:8], 4, 1) | upper.astype(np.uint8) << 4).view(np.int8) - np.int8(32)
    return _join(data, _half(blocks, 0) * scales, IQ4_NL.astype(np.int8)[_fields(blocks[:, 8:], 4, 16)])


def _points(book: str, index: npt.NDArray[np.integer], minus: Bytes | None = None) -> Quants:
    """The points of a book by their numbers (n, count), signed by a bit for each value (n, bytes): (n, values)."""
    points = books.points(book)
    word = f"u{points.shape[1]}"
    q: Quants = points.view(word)[:, 0][index].view(np.int8).reshape(len(index), -1)
    if minus is not None:
        q = q * books.signs().view("u8")[:, 0][minus].view(np.int8)
    return q


def _odd(s: npt.NDArray[np.integer]) -> Quants:
    return (2 * s + 1).astype(np.int8)


def _iq2_xxs(blocks: Bytes) -> Parts:
    """Of each 8 bytes, 4 number points, and 4 hold four times 7 signs and s in the upper 4 bits."""
    index = blocks[:, 2:].reshape(-1, 8, 8)[..., :4].reshape(-1, 32)
    rest = _words(blocks, 2, 66, "<u4")[:, 1::2]
    return _half(blocks, 0) * _EIGHTH, _odd(rest >> 28), _points("iq2_xxs", index, _sevens(rest))


def _sevens(words: npt.NDArray[np.uint32]) -> Bytes:
    """Four times 7 bits of each word: signs of 8 values each. (n, words) -> (n, 4 * words)."""
    sevens = words[..., None] >> np.arange(0, 28, 7, dtype=np.uint32) & 127
    minus: Bytes = books.even()[sevens].reshape(len(words), -1)
    return minus


def _iq2_xs(blocks: Bytes) -> Parts:
    words = _words(blocks, 2, 66, "<u2")
    q = _points("iq2_xs", words & 511, books.even()[words >> 9])
    return _half(blocks, 0) * _EIGHTH, _odd(_fields(blocks[:, 66:], 4, 1)), q


def _iq2_s(blocks: Bytes) -> Parts:
    index = blocks[:, 2:34] | _fields(blocks[:, 66:74], 2, 1).astype(np.uint16) << 8
    return _half(blocks, 0) * _EIGHTH, _odd(_fields(blocks[:, 74:], 4, 1)), _points("iq2_s", index, blocks[:, 34:66])


def _iq3_xxs(blocks: Bytes) -> Parts:
    rest = _words(blocks, 66, 98, "<u4")
    return _half(blocks, 0) * _QUARTER, _odd(rest >> 28), _points("iq3_xxs", blocks[:, 2:66], _sevens(rest))


def _iq3_s(blocks: Bytes) -> Parts:
    index = blocks[:, 2:66] | _fields(blocks[:, 66:74], 1, 1).astype(np.uint16) << 8
    return _half(blocks, 0), _odd(_fields(blocks[:, 106:], 4, 1)), _points("iq3_s", index, blocks[:, 74:106])


def iq3_s(data: Bytes) -> Floats:
    blocks = _blocks(data, 110)
    d, scales, q = _iq3_s(blocks)
    return _join(data, d * scales, q)


def iq3_s_as_q6_k(data: Bytes) -> Bytes:
    blocks = _blocks(data, 110)
    _, scales, q = _iq3_s(blocks)
    u = (q + np.int8(32)).view(np.uint8)
    out = np.empty((len(u), 210), np.uint8)
    halves = (u & np.uint8(15)).reshape(-1, 2, 2, 64)
    out[:, :128] = (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(-1, 128)
    four = (u >> 4).reshape(-1, 2, 4, 32)
    out[:, 128:192] = (four[:, :, 0] | four[:, :, 1] << 2 | four[:, :, 2] << 4 | four[:, :, 3] << 6).reshape(-1, 64)
    out[:, 192:208], out[:, 208:] = np.repeat(scales, 2, 1).view(np.uint8), blocks[:, :2]
    return out.reshape(len(data), -1)


def _shifted(index: npt.NDArray[np.integer], down: npt.NDArray[np.bool_]) -> Quants:
    """Points of iq1 (n, 32), times 64, all 8 values of each 8 more or less: (n, 256)."""
    q = _points("iq1", index).reshape(len(index), -1, 8) * np.int8(64)
    return (q + np.where(down, np.int8(-8), np.int8(8))[..., None]).reshape(len(index), -1)


def _iq1_s(blocks: Bytes) -> Parts:
    """Of 16 bits, 12 are the upper 3 of four points, 3 are s, and the last is set for a shift down."""
    rest = _words(blocks, 34, 50, "<u2")
    upper = (rest[..., None] >> np.arange(0, 12, 3, dtype=np.uint32) & 7).reshape(-1, 32)
    down = np.repeat(rest >> 15 != 0, 4, 1)
    return _half(blocks, 0) * _SIXTYFOURTH, _odd(rest >> 12 & 7), _shifted(blocks[:, 2:34] | upper << 8, down)


def _iq1_m(blocks: Bytes) -> Parts:
    """The upper 4 bits of the last four 16-bit words are those of d, the lowest first; the rest is four s of 3 bits."""
    words = _words(blocks, 48, 56, "<u2")
    d = (words >> 12 << np.arange(0, 16, 4, dtype=np.uint32)).sum(1, dtype=np.uint32, keepdims=True)
    s = (words[..., None] >> np.arange(0, 12, 3, dtype=np.uint32) & 7).reshape(-1, 16)
    upper = _fields(blocks[:, 32:48], 4, 1)
    q = _shifted(blocks[:, :32] | (upper & 7).astype(np.uint16) << 8, upper >= 8)
    return d.astype("<u2").view("<f2").astype(np.float32) * _SIXTYFOURTH, _odd(s), q


iq3_xxs, iq3_xxs_as_s8_k = _reader(98, _iq3_xxs)
iq2_s, iq2_s_as_s8_k = _reader(82, _iq2_s)
iq2_xs, iq2_xs_as_s8_k = _reader(74, _iq2_xs)
iq2_xxs, iq2_xxs_as_s8_k = _reader(66, _iq2_xxs)
iq1_s, iq1_s_as_s8_k = _reader(50, _iq1_s)
iq1_m, iq1_m_as_s8_k = _reader(56, _iq1_m)


def nvfp4(data: Bytes) -> Floats:
    """A scale is E4M3 without a sign, 127 read as 0. Of 8 bytes, low halves are 8 values, high ones the next 8."""
    blocks = _blocks(data, 36)
    exponent, fraction = blocks[:, :4] >> 3 & 15, (blocks[:, :4] & 7).astype(np.float32)
    scales = np.ldexp(fraction + np.where(exponent, 8, 0), np.maximum(exponent, 1).astype(np.int32) - 11)
    scales = np.where(blocks[:, :4] == 127, 0, scales).astype(np.float32)
    return _join(data, scales, MXFP4.astype(np.int8)[_fields(blocks[:, 4:], 4, 8)])
