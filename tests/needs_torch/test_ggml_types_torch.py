"""Blocks of random bytes, as the package `gguf` reads them: the same bits, of every type that it can read."""

from __future__ import annotations

import numpy as np
import pytest

from quickbrown.quant.formats import FORMATS
from quickbrown.quant.weight import Weight

gguf = pytest.importorskip("gguf", reason="compares with the gguf package; `make test-torch` installs it")
from gguf import quants  # noqa: E402

NAMES = {f.name: t for f in FORMATS.values() for t in gguf.GGMLQuantizationType if t.value == f.ggml_type}


@pytest.mark.parametrize("name", [name for name in NAMES if FORMATS[name].block > 1])
def test_random_bytes(name):
    """3072 blocks reach every code, and scales that are not finite."""
    f = FORMATS[name]
    assert (f.block, f.block_bytes) == gguf.GGML_QUANT_SIZES[NAMES[name]]
    data = np.random.default_rng(2).integers(0, 256, (64, 48 * f.block_bytes), np.uint8)
    got = Weight(name, (64, 48 * f.block), data).decode()
    with np.errstate(all="ignore"):
        want = quants.dequantize(data, NAMES[name])
    assert got.shape == want.shape
    assert ((got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))).all()
    assert np.isnan(got).any() == (name not in ("nvfp4", "mxfp4"))


def test_every_type_that_files_have():
    """All of the package's, but those of activations, and one whose layout it does not say."""
    assert {t.name for t in gguf.GGMLQuantizationType} - {t.name for t in NAMES.values()} <= {"Q8_1", "Q8_K", "Q1_0"}
