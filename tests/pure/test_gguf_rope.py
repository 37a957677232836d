"""Rotations that a GGUF file stretches: they turn as the same model's in the spelling of config.json do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gguf_writer import tiny_gguf, write_gguf
from quickbrown.models.rope import rope
from quickbrown.quant.quantize import quantize
from quickbrown.quant.weight import Weight
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.source import BadFile

DIM, LONGEST, TRAINED = 16, 256, 64  # of TINY, and what a stretched model was trained on
THETA = {"rope_theta": 10000.0}


def vector(values) -> Weight:
    return quantize(np.asarray(values, np.float32), "f32")


def written(path, settings=None, tensors=None, **config) -> GgufSource:
    """A tiny model's file with more settings, named without their architecture and `rope.scaling.`, and tensors."""
    metadata, weights = tiny_gguf(**config)
    prefix = f"{metadata['general.architecture']}.rope.scaling."
    metadata |= {prefix + key: value for key, value in (settings or {}).items()}
    return GgufSource(write_gguf(path / "m.gguf", metadata, weights | (tensors or {})))


def turned(source: GgufSource):
    return rope(source.config["rope_parameters"], DIM, LONGEST)


def test_divisors_of_llama_3(tmp_path):
    """Converters write what llama3's rule divides each pair's speed by. Here it is computed as they do."""
    factor, low, high, trained = 8.0, 1.0, 4.0, TRAINED
    plain = 10000.0 ** (-2 * np.arange(DIM // 2) / DIM)
    divisors = []
    for speed in plain:
        wavelength = 2 * math.pi / speed
        if wavelength < trained / high:
            divisors.append(1.0)
        elif wavelength > trained / low:
            divisors.append(factor)
        else:
            smooth = (trained / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    found = turned(written(tmp_path, tensors={"rope_freqs.weight": vector(divisors)}))
    wanted = rope(
        {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high}
        | {"original_max_position_embeddings": trained} | THETA, DIM, LONGEST,
    )  # fmt: skip
    for length in (1, LONGEST):
        frequencies, on_both = found.angles(found.span(length))
        assert np.allclose(frequencies, wanted.angles()[0], rtol=1e-6, atol=0)  # divisors are float32
        assert on_both == 1.0
    assert not np.allclose(frequencies, plain)


def test_yarn(tmp_path):
    settings = {"type": "yarn", "factor": 4.0, "original_context_length": TRAINED, "finetuned": True}
    wanted = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED} | THETA
    same(turned(written(tmp_path, settings)), wanted)
    same(
        turned(written(tmp_path, settings | {"yarn_beta_fast": 2.0, "yarn_beta_slow": 0.5})),
        wanted | {"beta_fast": 2.0, "beta_slow": 0.5},
    )
    found = turned(written(tmp_path, settings | {"attn_factor": 0.5}))
    assert found.angles()[1] == pytest.approx(0.5 * (0.1 * math.log(4) + 1))


def test_yarn_of_full_attention_alone(tmp_path):
    """OLMo 3's files are an OLMo 2's with windows. Their attn_factor is config.json's attention_factor as it stands."""
    yarn = {"type": "yarn", "factor": 4.0, "original_context_length": TRAINED}
    row = {"model_type": "olmo3", "rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), THETA)}
    row |= {"sliding_window": 7, "layer_types": ("full_attention", "sliding_attention")}
    usual = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED} | THETA
    for settings, more in ((yarn, {}), (yarn | {"attn_factor": 1.25}, {"attention_factor": 1.25})):
        source = written(tmp_path, settings, **row)
        assert source.config["model_type"] == "olmo3"
        full, sliding = (source.config["rope_parameters"][f"{kind}_attention"] for kind in ("full", "sliding"))
        same(rope(full, DIM, LONGEST), usual | more)
        same(rope(sliding, DIM, LONGEST), {"rope_type": "default"} | THETA)
    with pytest.raises(BadFile, match="yarn_attn_factor"):
        written(tmp_path, yarn | {"yarn_attn_factor": 1.25}, **row)


def test_linear(tmp_path):
    same(turned(written(tmp_path, {"type": "linear", "factor": 4.0})), {"rope_type": "linear", "factor": 4.0} | THETA)
    same(turned(written(tmp_path, {"type": "none", "factor": 4.0})), {"rope_type": "default"} | THETA)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_longrope(tmp_path, family):
    pairs = DIM // 4 if family == "phi3" else DIM // 2
    config = {"model_type": "phi3", "rope_parameters": THETA | {"rope_type": "default", "partial_rotary_factor": 0.5}}
    short, long = 1 + np.arange(pairs) / 8, 2.0 + np.arange(pairs)
    source = written(
        tmp_path,
        {"type": "longrope", "original_context_length": TRAINED, "attn_factor": 1.25},
        {"rope_factors_short.weight": vector(short), "rope_factors_long.weight": vector(long)},
        **(config if family == "phi3" else {}),
    )
    found = rope(source.config["rope_parameters"], DIM, LONGEST)
    plain = 10000.0 ** (-np.arange(pairs) / pairs)
    for length, divisors in ((TRAINED, short), (TRAINED + 1, long)):
        frequencies, on_both = found.angles(found.span(length))
        assert np.allclose(frequencies, plain / divisors, rtol=1e-6, atol=0)
        assert on_both == 1.25


@pytest.mark.parametrize(
    ("settings", "tensors", "said"),
    [
        ({"type": "yarn", "factor": "four"}, {}, "must be a number, not 'four'"),
        ({"type": 7}, {}, "must be a text"),
        ({"type": "linear", "factor": -1.0}, {}, "factor"),
        ({"type": "linear", "factor": math.nan}, {}, "factor"),
        ({"type": "yarn", "factor": math.nan, "attn_factor": 1.0}, {}, "factor"),
        ({"type": "yarn", "factor": 4.0, "yarn_log_multiplier": 0.1}, {}, "yarn_log_multiplier.*not supported"),
        ({"type": "spiral"}, {}, "rope.scaling.type.*not supported"),
        ({}, {"rope_freqs.weight": vector([1.0] * 7)}, "list of 8 numbers"),
        ({}, {"rope_freqs.weight": vector([0.0] * 8)}, "list of 8 numbers above 0"),
        ({}, {"rope_freqs.weight": quantize(np.ones((8, 8), np.float32), "f32")}, "shape"),
        ({}, {"rope_factors_long.weight": vector([1.0] * 8)}, "rope_factors_long"),
        (
            {"type": "longrope", "original_context_length": TRAINED, "attn_factor": 0.0},
            {f"rope_factors_{of}.weight": vector([1.0] * 8) for of in ("short", "long")},
            "attention_factor.*above 0, not 0",
        ),
        ({"type": "linear", "factor": 2.0}, {"rope_freqs.weight": vector([1.0] * 8)}, "rope_freqs"),
    ],
)  # fmt: skip
def test_refused(tmp_path, settings, tensors, said):
    with pytest.raises(BadFile, match=said):
        written(tmp_path, settings, tensors)


def same(found, wanted) -> None:
    theirs = rope(wanted, DIM, LONGEST)
    assert np.allclose(found.angles()[0], theirs.angles()[0], rtol=1e-12, atol=0)
    assert found.angles()[1] == pytest.approx(theirs.angles()[1], rel=1e-12)
