"""Numbers to four bits: the nearest that a code book has, and the search for a scale and a minimum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickbrown.quant.formats import FORMATS, FP4, NF4
from quickbrown.quant.quantize import holding, quantize, quantize_searched
from quickbrown.quant.weight import Weight


def errors(weight: Weight, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The squared error of each 32 values."""
    difference = weight.decode().astype(np.float64) - values
    return np.asarray((difference**2).reshape(-1, 32).sum(-1))


def nibbles(weight: Weight) -> list[int]:
    """Of the first block of a code book's format, in the order of the values."""
    return [q for byte in weight.data[0, 4:36].tolist() for q in (byte >> 4, byte & 15)]


def test_the_search_never_loses_and_gains_a_fifth():
    values = np.random.default_rng(1).standard_normal((64, 1024)).astype(np.float32)
    searched, plain = errors(quantize_searched(values), values), errors(quantize(values, "q4_1"), values)
    assert (searched <= plain * (1 + 1e-6)).all()
    assert 0.7 < searched.mean() / plain.mean() < 0.83
    outliers = values * np.where(np.arange(1024) % 32 == 0, 4, 1).astype(np.float32)
    assert (
        errors(quantize_searched(outliers), outliers).sum() < 0.95 * errors(quantize(outliers, "q4_1"), outliers).sum()
    )


@given(
    seed=st.integers(0, 2**32),
    scale=st.sampled_from([1e-44, 1e-7, 1e-3, 1.0, 3000.0]),
    shift=st.sampled_from([0.0, 1.0, -40.0]),
    power=st.sampled_from([1, 3, 0]),
)
@settings(max_examples=50, deadline=None)
def test_the_search_never_loses(seed, scale, shift, power):
    """Whatever the values: tiny, far from zero, mostly in one place, equal."""
    values = np.random.default_rng(seed).standard_normal((4, 64)) ** power * scale + shift
    values = values.clip(-65504, 65504).astype(np.float32)
    weight, plain = quantize_searched(values), quantize(values, "q4_1")
    assert (weight.format, weight.shape, weight.data.shape) == ("q4_1", values.shape, plain.data.shape)
    slack = 32 * (np.abs(values).max() * 2.0**-22) ** 2  # decode's own rounding to float32
    assert (errors(weight, values) <= errors(plain, values) * (1 + 1e-5) + slack).all()


def test_what_lies_on_a_line_is_found():
    """d and m that float16 holds come back exactly, though ends were cut off while looking for them."""
    q = np.random.default_rng(2).integers(0, 16, (8, 64))
    q[:, ::32], q[:, 1::32] = 0, 15
    values = (q * 0.25 - 3).astype(np.float32)
    assert (quantize_searched(values).decode() == values).all()


def test_a_search_over_nothing():
    for value in (0.0, -0.0, 1.0, -65504.0, 65504.0):
        values = np.full((2, 32), value, np.float32)
        assert (quantize_searched(values).decode() == values).all()
    both = np.where(np.arange(32) % 2, -0.0, 0.0).astype(np.float32)[None]
    assert quantize_searched(both).data.tolist() == quantize_searched(both[:, ::-1]).data.tolist() == [[0] * 20]


def test_the_search_does_not_depend_on_how_many_groups_there_are():
    values = np.random.default_rng(3).standard_normal((40_000, 32)).astype(np.float32)
    whole = quantize_searched(values).data
    for row in (0, 16383, 16384, 39_999):
        assert (quantize_searched(values[row : row + 1]).data == whole[row]).all()


def test_what_cannot_be_searched():
    with pytest.raises(ValueError, match="above 65504 cannot be held in q4_1"):
        quantize_searched(np.full((1, 32), 65536, np.float32))
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"finite|65504"):
            quantize_searched(np.full((1, 32), wrong, np.float32))
    with pytest.raises(ValueError, match="multiple of 32"):
        quantize_searched(np.zeros((2, 48), np.float32))
    with pytest.raises(ValueError, match="at least one value"):
        quantize_searched(np.zeros((0, 32), np.float32))


@pytest.mark.parametrize(("format", "book"), [("nf4", NF4), ("fp4", FP4)])
def test_code_books_give_the_nearest(format, book):
    values = np.random.default_rng(4).standard_normal((3, 256)).astype(np.float32)
    weight = quantize(values, format)
    scale = np.abs(values).reshape(3, 4, 64).max(-1, keepdims=True)
    best = np.abs(values.reshape(3, 4, 64, 1) / scale[..., None] - book).min(-1)
    got = np.abs((values - weight.decode()).reshape(3, 4, 64) / scale)
    np.testing.assert_allclose(got, best, atol=1e-6)
    assert (weight.data.reshape(3, 4, 36)[..., :4].copy().view(np.float32) == scale).all()


@pytest.mark.parametrize(("format", "book"), [("nf4", NF4), ("fp4", FP4)])
def test_code_books_keep_their_own_values(format, book):
    values = np.tile(book * np.float32(3), 4)[None]
    assert (quantize(values, format).decode() == values).all()
    expected = list(range(16)) * 4
    if format == "fp4":
        expected = [0 if q == 8 else q for q in expected]  # there is one zero
    assert nibbles(quantize(values, format)) == expected
    assert not quantize(np.zeros((1, 64), np.float32), format).decode().any()


def test_half_way_goes_down():
    """Between two values of a code book: to the lower one, of FP4 to the smaller magnitude."""
    values = np.zeros((1, 64), np.float32)
    values[0, :5] = [1, 0.75, -0.75, 5 / 12, (1 + NF4[14].astype(np.float64)) / 2]
    assert nibbles(quantize(values, "fp4"))[:4] == [3, 2, 10, 4]
    values[0, 3] = 5 / 6
    assert nibbles(quantize(values, "fp4"))[3] == 2
    assert nibbles(quantize(values, "nf4"))[4] == 14


def test_pairs_of_nibbles():
    """Value 2j in the high half of byte j, as bitsandbytes packs them: the other way round neighbours change places."""
    values = np.zeros((1, 64), np.float32)
    values[0, :3] = [1, -1, 1]
    assert quantize(values, "nf4").data[0, :6].tolist() == [0, 0, 0x80, 0x3F, 0xF0, 0xF7]


@pytest.mark.parametrize(
    ("quantized", "formats"),
    [
        ("q4", {"f32": "q4_1", "f16": "q4_1", "bf16": "q4_1", "q8_0": "q4_1", "q4_0": "q4_0", "q4_1": "q4_1"}),
        ("q8", {"f32": "q8_0", "f16": "q8_0", "bf16": "q8_0", "q8_0": "q8_0", "q4_0": "q4_0", "q4_1": "q4_1"}),
        ("nf4", {"f32": "nf4", "f16": "nf4", "bf16": "nf4", "q8_0": "nf4", "q4_0": "q4_0", "q4_1": "q4_1"}),
        ("fp4", {"f32": "fp4", "f16": "fp4", "bf16": "fp4", "q8_0": "fp4", "q4_0": "q4_0", "q4_1": "q4_1"}),
    ],
)
def test_what_weights_are_held_in(quantized, formats):
    head, table = (quantize(np.zeros((4, 64), np.float32), "bf16") for _ in range(2))
    held = holding(quantized, head, table)
    for published, expected in formats.items():
        assert held(quantize(np.zeros((4, 64), np.float32), published)) == expected
    assert held(head) == held(table) == "bf16"
    assert held(quantize(np.zeros(64, np.float32), "f32")) == "f32"
    assert held(quantize(np.zeros((4, 48), np.float32), "f16")) == "f16"
    assert (held(quantize(np.zeros((4, 96), np.float32), "f16")) == "f16") == (FORMATS[formats["f32"]].block == 64)


def test_no_such_quantization():
    weight = quantize(np.zeros((1, 1), np.float32), "f32")
    with pytest.raises(ValueError, match="quantize must be one of q4, q8, nf4, fp4, not 'q5'"):
        holding("q5", weight, weight)
