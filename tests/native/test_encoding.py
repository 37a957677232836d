"""Numbers to encoded rows in C++: byte for byte what quant/quantize.py, the specification, makes of them."""

from __future__ import annotations

import numpy as np
import pytest

import variants
from quickbrown import _native
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import ENCODABLE, quantize, quantize_searched

NORMAL = np.random.default_rng(11).standard_normal((96, 256)).astype(np.float32)
ROWS = {
    "normal": NORMAL,
    "positive": np.abs(NORMAL),
    "outliers": NORMAL**5,
    "far from zero": (100 + NORMAL * 1e-5).astype(np.float32),
    "whole numbers": np.round(NORMAL * 2),
    "small": NORMAL * np.float32(1e-6),
    "below float16": NORMAL * np.float32(1e-12),
    "denormal": NORMAL * np.float32(1e-39),
    "nearly nothing": NORMAL * np.float32(1e-44),
    "large": (NORMAL * 20_000).clip(-65504, 65504),
    "constant": np.full((2, 64), 0.1, np.float32),
    "zeros": np.zeros((2, 64), np.float32),
    "zeros of both signs": np.where(NORMAL > 0, np.float32(0), np.float32(-0.0)),
}


@pytest.fixture(scope="module")
def pool():
    return _native.Pool(2)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("format", ENCODABLE)
def test_equals_the_specification(pool, format, rows):
    rows = np.ascontiguousarray(rows, np.float32)
    expected = quantize_searched(rows) if format == "q4_1" else quantize(rows, format)
    found = _native.quantize(format, rows, pool)
    assert found.shape == expected.data.shape
    assert (found == expected.data).all()


@pytest.mark.parametrize("format", ENCODABLE)
def test_refuses_what_the_specification_refuses(pool, format):
    for wrong in (np.nan, np.inf, -np.inf):
        rows = NORMAL[:2].copy()
        rows[1, 255] = wrong
        with pytest.raises(ValueError, match="finite"):
            _native.quantize(format, rows, pool)
        with pytest.raises(ValueError, match=r"finite|65504"):
            (quantize_searched if format == "q4_1" else lambda x: quantize(x, format))(rows)
    if (block := FORMATS[format].block) > 1:
        with pytest.raises(ValueError, match=f"(multiple|blocks) of {block}"):
            _native.quantize(format, np.ascontiguousarray(NORMAL[:, : block + 1]), pool)
    if format == "q4_1":
        with pytest.raises(ValueError, match="65504"):
            _native.quantize(format, np.full((1, 32), 65536, np.float32), pool)


@pytest.mark.parametrize("format", [f.name for f in FORMATS.values() if f.name not in ENCODABLE and not f.held])
def test_formats_that_are_only_read(pool, format):
    with pytest.raises(ValueError, match="cannot be encoded"):
        _native.quantize(format, NORMAL, pool)
    with pytest.raises(ValueError, match=f"'{format}' can only be read; numbers can be encoded in f32"):
        quantize(NORMAL, format)


class TestOtherInstructionSets:
    pytestmark = variants.outer_only

    def test_under(self, name):
        """All of the above under each other instruction set of this machine."""
        variants.again(__file__, name)
