"""Types of GGUF files without kernels: their values one by one as published, and the same values in other formats."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from encoded import random_weight
from quickbrown.quant import books
from quickbrown.quant.formats import FORMATS, IQ4_NL, MXFP4
from quickbrown.quant.quantize import quantize
from quickbrown.quant.weight import Weight

HELD = [f.name for f in FORMATS.values() if f.held]
BLOCKS = [name for name in HELD if FORMATS[name].block > 1]


def half(data: bytes) -> float:
    return float(np.frombuffer(data, "<f2")[0])


def sixes(packed: bytes) -> list[int]:
    """The 16 scales of 6 bits in 12 bytes of q3_k: four bits in the first 8, two in the last 4."""
    return [(packed[i % 8] >> 4 * (i // 8) & 15 | (packed[8 + i % 4] >> 2 * (i // 4) & 3) << 4) - 32 for i in range(16)]


def even(seven: int) -> int:
    return seven | bin(seven).count("1") % 2 << 7


def value(name: str, data: bytes, i: int) -> float:
    """Value i of a block, by the words of the format's description alone. In float64."""

    def word(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    def point(index: int, minus: int = 0) -> int:
        book = books.points(name if name[:3] != "iq1" else "iq1")
        at = i % book.shape[1]
        return int(book[index, at]) * (-1 if minus >> i % 8 & 1 else 1)

    part, at = divmod(i, 128)
    low = 2 * (at // 32)  # where two bits of 32 values in a row stand
    match name:
        case "q2_k":
            q = data[16 + 32 * part + i % 32] >> low & 3
            return half(data[80:82]) * (data[i // 16] & 15) * q - half(data[82:84]) * (data[i // 16] >> 4)
        case "q3_k":
            q = data[32 + 32 * part + i % 32] >> low & 3 | (data[i % 32] >> i // 32 & 1) << 2
            return half(data[108:110]) * sixes(data[96:108])[i // 16] * (q - 4)
        case "tq1_0":
            if i < 160:
                byte, digit = data[i % 32], i // 32
            elif i < 240:
                byte, digit = data[32 + i % 16], (i - 160) // 16
            else:
                byte, digit = data[48 + i % 4], (i - 240) // 4
            return half(data[52:54]) * ((byte * 3**digit % 256) * 3 // 256 - 1)
        case "tq2_0":
            return half(data[64:66]) * ((data[32 * part + i % 32] >> low & 3) - 1)
        case "iq4_xs":
            g = i // 32
            s = data[4 + g // 2] >> 4 * (g % 2) & 15 | (word(2, 2) >> 2 * g & 3) << 4
            return half(data[:2]) * (s - 32) * IQ4_NL[data[8 + 16 * g + i % 16] >> 4 * (i % 32 // 16) & 15]
        case "iq3_s":
            index = data[2 + i // 4] | (data[66 + i // 32] >> i // 4 % 8 & 1) << 8
            s = data[106 + i // 64] >> 4 * (i // 32 % 2) & 15
            return half(data[:2]) * (2 * s + 1) * point(index, data[74 + i // 8])
        case "iq3_xxs":
            rest = word(66 + 4 * (i // 32), 4)
            minus = even(rest >> 7 * (i // 8 % 4) & 127)
            return half(data[:2]) * (2 * (rest >> 28) + 1) / 4 * point(data[2 + i // 4], minus)
        case "iq2_s":
            index = data[2 + i // 8] | (data[66 + i // 32] >> 2 * (i // 8 % 4) & 3) << 8
            s = data[74 + i // 32] >> 4 * (i // 16 % 2) & 15
            return half(data[:2]) * (2 * s + 1) / 8 * point(index, data[34 + i // 8])
        case "iq2_xs":
            both = word(2 + 2 * (i // 8), 2)
            s = data[66 + i // 32] >> 4 * (i // 16 % 2) & 15
            return half(data[:2]) * (2 * s + 1) / 8 * point(both & 511, even(both >> 9))
        case "iq2_xxs":
            rest = word(6 + 8 * (i // 32), 4)
            minus = even(rest >> 7 * (i // 8 % 4) & 127)
            return half(data[:2]) * (2 * (rest >> 28) + 1) / 8 * point(data[2 + 8 * (i // 32) + i // 8 % 4], minus)
        case "iq1_s":
            rest = word(34 + 2 * (i // 32), 2)
            index = data[2 + i // 8] | (rest >> 3 * (i // 8 % 4) & 7) << 8
            return half(data[:2]) * (2 * (rest >> 12 & 7) + 1) * (point(index) + (-1 if rest >> 15 else 1) / 8)
        case "iq1_m":
            d = sum(word(48 + 2 * k, 2) >> 12 << 4 * k for k in range(4))
            s = word(48 + 2 * (i // 64), 2) >> 3 * (i // 16 % 4) & 7
            upper = data[32 + i // 16] >> 4 * (i // 8 % 2) & 15
            index = data[i // 8] | (upper & 7) << 8
            return half(struct.pack("<H", d)) * (2 * s + 1) * (point(index) + (-1 if upper >> 3 else 1) / 8)
        case "s8_k":
            d, s, q = (np.frombuffer(data[a:b], t) for a, b, t in ((0, 4, "<f4"), (4, 20, "i1"), (20, 276, "i1")))
            return float(np.float32(float(d[0]) * int(s[i // 16]))) * int(q[i])  # the one place that rounds
        case "nvfp4":
            e = data[i // 16]
            exponent, fraction = e >> 3 & 15, e & 7
            scale = fraction * 2.0**-9 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7)
            q = data[4 + i // 16 * 8 + i % 8] >> 4 * (i % 16 // 8) & 15
            return (0 if e == 127 else scale) / 2 * MXFP4[q]
    raise AssertionError(name)


@pytest.mark.parametrize("name", [*BLOCKS, "s8_k", "q2_k", "q3_k", "iq4_xs"])
def test_values_one_by_one(name):
    f = FORMATS[name]
    w = random_weight(name, (5, 3 * f.block), np.random.default_rng(1))
    blocks = w.data.reshape(-1, f.block_bytes)
    want = [[np.float32(value(name, block.tobytes(), i)) for i in range(f.block)] for block in blocks]
    assert w.decode().dtype == np.float32
    assert (w.decode().reshape(-1, f.block) == np.array(want)).all()


@pytest.mark.parametrize("name", HELD)
def test_held_forms_have_the_same_values(name):
    """Of every scale that is finite. What is held in fewer bits than float32 loses nothing."""
    f = FORMATS[name]
    width = max(f.block, 32)
    w = random_weight(name, (40, 4 * width), np.random.default_rng(3), 1e-3 ** np.linspace(-1, 1, 40)[:, None])
    held = Weight(f.held, w.shape, f.transcode(w.data)) if f.transcode else quantize(w.decode(), f.held)
    assert held.data.shape == (40, FORMATS[f.held].row_bytes(4 * width))
    assert (held.decode().view(np.uint32) == w.decode().view(np.uint32)).all()
    assert len(np.unique(w.decode())) > 50


@pytest.mark.parametrize("name", [name for name in BLOCKS if FORMATS[name].transcode])
def test_every_code_moves(name):
    f = FORMATS[name]
    data = np.random.default_rng(4).integers(0, 256, (96, 16 * f.block_bytes), np.uint8)
    w = Weight(name, (96, 16 * f.block), data)
    held = Weight(f.held, w.shape, f.transcode(data))
    one, other = w.decode(), held.decode()
    assert ((one.view(np.uint32) == other.view(np.uint32)) | (np.isnan(one) & np.isnan(other))).all()


def test_plain_numbers():
    rows = {
        "f64": ("<f8", [1.0, -2.5, 1e300, -1e300, 2**-160, np.nan], [1.0, -2.5, np.inf, -np.inf, 0.0, np.nan]),
        "u8": ("u1", [0, 255], [0.0, 255.0]),
        "i8": ("i1", [-128, 127, 0], [-128.0, 127.0, 0.0]),
        "i16": ("<i2", [-32768, 32767], [-32768.0, 32767.0]),
        "i32": ("<i4", [-(2**31), 2**24 + 1], [-(2.0**31), 2.0**24]),
        "i64": ("<i8", [-(2**63), 2**40 + 1], [-(2.0**63), 2.0**40]),
    }
    for name, (dtype, numbers, values) in rows.items():
        data = np.array([numbers], dtype).view(np.uint8)
        np.testing.assert_array_equal(FORMATS[name].decode(data), np.array([values], np.float32))


def test_floats_of_8_bits():
    """Every code, as the OCP specification of 8-bit floats has them."""
    codes = np.arange(256, dtype=np.uint8)[None]

    def number(code: int, bits: int, bias: int) -> float:
        e, m = code >> bits & (127 >> bits), code & (1 << bits) - 1
        return (-1) ** (code >> 7) * (m / 2**bits + (e > 0)) * 2.0 ** (max(e, 1) - bias)

    e4m3 = [number(code, 3, 7) if code & 127 != 127 else np.nan for code in range(256)]
    e5m2 = [number(code, 2, 15) if code & 127 < 124 else np.nan for code in range(256)]
    e5m2[124], e5m2[252] = np.inf, -np.inf
    for name, values in (("f8_e4m3", e4m3), ("f8_e5m2", e5m2)):
        decoded = FORMATS[name].decode(codes)
        np.testing.assert_array_equal(decoded, np.array([values], np.float32))
        np.testing.assert_array_equal(FORMATS["bf16"].decode(FORMATS[name].transcode(codes)), decoded)
    assert max(x for x in e4m3 if x == x) == 448
    assert sorted(e5m2[:124])[-1] == 57344


def test_books():
    """256 to 2048 points, all different, in the order of their codes."""
    sizes = {"iq1": (2048, 8), "iq2_xxs": (256, 8), "iq2_xs": (512, 8), "iq2_s": (1024, 8), "iq3_xxs": (256, 4)}
    for name, size in (sizes | {"iq3_s": (512, 4)}).items():
        points = books.points(name)
        assert points.shape == size
        order = np.lexsort(points.T)
        assert (order == np.arange(len(points))).all()
        assert len(np.unique(points, axis=0)) == len(points)
    assert (books.points("iq2_xxs")[:3] == [[8] * 8, [43] + [8] * 7, [25, 25] + [8] * 6]).all()
    assert books.signs()[0b10000001].tolist() == [-1, 1, 1, 1, 1, 1, 1, -1]
    assert [bin(byte).count("1") % 2 for byte in books.even()] == [0] * 128
