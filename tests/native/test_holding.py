"""Weights held in another format than their own: encoded slice by slice while they are packed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import tiny
from quickbrown import _native
from quickbrown.backends.native.compile import SLICE, Formats, PackedWeights
from quickbrown.backends.native.record import Recorder
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.quant.quantize import ENCODABLE, quantize, quantize_searched
from quickbrown.quant.weight import Weight
from quickbrown.weights.tiny import TinySource

SHAPE = {"intermediate_size": 128, "num_hidden_layers": 1}


def encoded(weight: Weight, format: str) -> Weight:
    """What a held weight must be, by the specification."""
    if format == weight.format or len(weight.shape) == 1:
        return weight
    values = weight.decode()
    return quantize_searched(values) if format == "q4_1" else quantize(values, format)


def logits(model, **options):
    return tiny.logits(NativeRunner(model, blocks=1, threads=2, **options), tiny.text(40)).tobytes()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("format", ENCODABLE)
def test_a_model_held_in_another_format(format, tied):
    """The very logits of a model published in that format, also where the embedding is the head; but not its own."""
    source = TinySource(format="bf16", tie_word_embeddings=tied, **SHAPE)
    weights = {name: source.get(name) for name in source.names()}
    published = tiny.model_of(source.config, {name: encoded(w, format) for name, w in weights.items()})
    held = logits(tiny.model_of(source.config, weights), hold=lambda weight: format)
    assert held == logits(published)
    if format not in ("bf16", "f16", "f32"):  # of bfloat16 those hold every value, but round inputs otherwise
        assert held != logits(tiny.model_of(source.config, weights))


def test_some_weights_held_in_another_format():
    """Linears of one input whose weights round it differently are not joined; the others are as they were."""
    source = TinySource(format="bf16", **SHAPE)
    weights = {name: source.get(name) for name in source.names()}
    chosen = {"model.layers.0.self_attn.k_proj.weight": "q8_0", "model.layers.0.mlp.up_proj.weight": "nf4"}
    mixed = {name: encoded(w, chosen.get(name, w.format)) for name, w in weights.items()}
    by_id = {id(weights[name]): format for name, format in chosen.items()}
    model = tiny.model_of(source.config, weights)
    want = logits(tiny.model_of(source.config, mixed))
    for fused in (True, False):
        assert logits(model, hold=lambda w: by_id.get(id(w), w.format), fused=fused) == want


@pytest.mark.parametrize("format", ENCODABLE)
def test_dtypes(format):
    """bfloat16 rounds weights of floats and leaves the others; float32 decodes all; what `hold` chooses stays."""
    formats = {"f32": "bf16", "f16": "bf16"}
    weight = quantize(np.ones((16, 64), np.float32), format)
    assert Formats()(weight) == format
    assert Formats("bfloat16")(weight) == formats.get(format, format)
    assert Formats("float32")(weight) == "f32"
    for dtype in ("auto", "bfloat16", "float32"):
        other = "nf4" if format != "nf4" else "q8_0"
        assert Formats(dtype, lambda w, other=other: other)(weight) == other
        assert Formats(dtype, lambda w: w.format)(weight) == Formats(dtype)(weight)

    model = tiny.llama(format, **SHAPE)
    runner = NativeRunner(model, blocks=1, threads=1, dtype="bfloat16")
    assert runner.kv.block_bytes == 64 * 2 * 2 * 16 * 2  # tokens, keys and values, kv heads, values a head, bytes
    assert (logits(model, dtype="bfloat16") == logits(model)) == (format not in formats)


@pytest.mark.parametrize("dtype", ["float16", "bf16", "", None])
def test_unknown_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be 'auto', 'float32' or 'bfloat16', not "):
        NativeRunner(tiny.llama(), blocks=1, dtype=dtype)


def test_what_cannot_be_held_is_refused():
    """Rows that are not whole blocks, an unknown format, values that are not finite."""
    model = tiny.llama("f32", intermediate_size=96)
    with pytest.raises(ValueError, match="a row of 96 values is not a whole number of blocks of 64"):
        NativeRunner(model, blocks=1, hold=lambda weight: "nf4")
    with pytest.raises(ValueError, match="no packed kernel for weights of format 'q9_0'"):
        NativeRunner(model, blocks=1, hold=lambda weight: "q9_0")
    source = TinySource(**SHAPE)
    weights = {name: source.get(name) for name in source.names()}
    bad = np.full((64, 128), np.nan, np.float32)
    weights["model.layers.0.mlp.down_proj.weight"] = Weight("f32", bad.shape, bad.view(np.uint8))
    with pytest.raises(ValueError, match="only finite values can be quantized"):
        NativeRunner(tiny.model_of(source.config, weights), blocks=1, hold=lambda weight: "q8_0")


def test_only_a_slice_is_decoded_at_a_time():
    """A large weight is never there in float32, and each slice of it is given back once it is packed."""
    rows, inputs = 16384, 2048
    data = np.zeros((rows, inputs * 2), np.uint8)
    weight = Weight("bf16", (rows, inputs), data)
    recorder = Recorder()
    recorder.embed(weight, None)
    given_back = []
    tracemalloc.start()
    try:
        held = PackedWeights(recorder.verbs, _native.Pool(2), Formats(hold=lambda w: "nf4"), given_back.append)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert given_back == [weight] * (rows * inputs * 4 // SLICE)  # so that none is larger in float32 either
    assert most < 8 * SLICE < rows * inputs * 4 // 2, f"{most >> 20} MB"  # twice its size as float32, and temporaries
    assert held.arena.bytes == rows * inputs // 64 * 36
