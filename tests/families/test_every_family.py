"""Every family, from a table of tiny configs: one body."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import rounding
import tiny
from gguf_writer import write_tiny_llama
from quickbrown.backends.native.eager import NativeOps
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.backends.reference import ReferenceOps, ReferenceRunner
from quickbrown.backends.twin import Parted, Twin
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.tiny import TinySource

CONFIGS = {
    "llama": {},
    "untied": {"tie_word_embeddings": False},
    "one query head a key head": {"num_key_value_heads": 4},
    "one key head": {"num_key_value_heads": 1},
    "wide heads": {"head_dim": 32},
    "narrow heads": {"hidden_size": 160, "head_dim": 16, "num_attention_heads": 6, "num_key_value_heads": 3},
    "another rope and eps": {"rope_theta": 500.0, "rms_norm_eps": 1e-2, "num_hidden_layers": 3},
}
FORMATS = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")
both = [
    pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS)),
    pytest.mark.parametrize("format", FORMATS),
]


def reference_ops(kind, model, blocks, kv="bf16"):
    c = model.config
    return kind(c.num_hidden_layers, blocks, c.num_key_value_heads, c.head_dim, kv)


def one_step(tokens):
    blocks = -(-len(tokens) // tiny.BLOCK)
    table = np.arange(blocks, dtype=np.int32)
    return tiny.batch([tiny.Part(tokens, 0, len(tokens), table)], table)


class TestNative:
    pytestmark = both

    def test_chunked_is_whole_and_batched_is_alone(self, config, format):
        """To the byte: a prompt in chunks of 5, and two other texts in the same steps."""
        model = tiny.llama(format, **config)
        runner = NativeRunner(model, blocks=6, threads=2)
        texts = [tiny.text(length, seed) for seed, length in enumerate((70, 33, 41))]
        whole = [tiny.logits(runner, t) for t in texts]
        assert len({rows[5].tobytes() for rows in whole}) == 3
        assert tiny.logits(runner, texts[0], 5).tobytes() == whole[0].tobytes()
        tables = np.split(np.random.default_rng(0).permutation(6).astype(np.int32), 3)
        parts = [tiny.Part(t, 0, len(t), table) for t, table in zip(texts, tables, strict=True)]
        runner.run(tiny.batch(parts, np.arange(6)))
        assert runner.logits().tobytes() == np.concatenate(whole).tobytes()

    def test_twin_finds_no_parting(self, config, format):
        """Native and reference verb by verb, each verb on the reference's input.

        What may differ is what `Bounding` derives on the same values. Where a key's weight may round to either
        neighbour in bfloat16, that is up to 2^-8 of its share; everywhere else it is float32 sums.
        """
        model, tokens = tiny.llama(format, **config), tiny.text(20)
        batch = one_step(tokens)
        bounding = reference_ops(rounding.Bounding, model, 1)
        model.forward(bounding, tokens, batch)
        assert max(bounding.allowed.values()) < 2**-8
        twin = Twin(
            reference_ops(ReferenceOps, model, 1),
            reference_ops(NativeOps, model, 1),
            tolerance=max(bounding.allowed.values()),
        )
        result = model.forward(twin, tokens, batch)
        assert result.left.shape == (20, model.config.vocab_size)
        assert set(twin.worst) == {"embed", "linear", "rms_norm", "rope", "attention", "swiglu", "add", "rows"}
        for verb in ("linear", "rms_norm", "swiglu"):
            assert twin.worst[verb] <= bounding.allowed[verb] < 1e-4

    def test_a_gguf_file_gives_the_same_bytes(self, config, format, tmp_path):
        """Out through tests/gguf_writer.py, whose q and k rows lie in GGUF's order, and in through the reader."""
        file = write_tiny_llama(tmp_path / "tiny.gguf", format, seed=3, **config)
        source = GgufSource(file)
        known = tiny.llama(format, seed=3, vocab_size=source.config["vocab_size"], **config)
        read = tiny.model(source)
        eps = np.float32(known.config.rms_norm_eps).item()  # which is what the file can hold
        assert read.config == dataclasses.replace(known.config, rms_norm_eps=eps)
        tokens = tiny.text(30, vocabulary=known.config.vocab_size)
        a, b = (tiny.logits(NativeRunner(m, blocks=1, threads=2), tokens) for m in (read, known))
        assert a.tobytes() == b.tobytes()
        assert len(np.unique(a)) > 100


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_native_is_the_reference_in_float32(config):
    """Logits of the whole model, whole and in chunks. A key too many, a wrong head or rotation moves them by their own
    size; `close` refuses to allow a fiftieth of that."""
    model, tokens = tiny.llama("f32", **config), tiny.text(24)
    runner = NativeRunner(model, blocks=1, threads=2, dtype="float32")
    for chunk in (24, 7):
        got = tiny.logits(runner, tokens, chunk)
        assert rounding.close(f"chunk {chunk}", got, model, tokens, one_step(tokens), "f32")[1] < 1e-3


@pytest.mark.parametrize("format", FORMATS)
def test_native_is_the_reference_as_published(format):
    """The same with every rounding of inputs, keys and values in it."""
    model, tokens = tiny.llama(format, **CONFIGS["another rope and eps"]), tiny.text(24)
    got = tiny.logits(NativeRunner(model, blocks=1, threads=2), tokens)
    rounding.close(format, got, model, tokens, one_step(tokens), "bf16")


@pytest.mark.parametrize("format", FORMATS)
def test_float32_is_the_decoded_weights(format):
    """dtype="float32" of an encoded model is the model of its decoded weights, to the byte."""
    source, tokens = TinySource(format=format, seed=2), tiny.text(20)
    encoded = tiny.model(source)
    decoded = tiny.model_of(source.config, {name: tiny.decoded(source.get(name)) for name in source.names()})
    runners = [
        NativeRunner(encoded, blocks=1, dtype="float32"),
        NativeRunner(decoded, blocks=1, dtype="float32"),
        NativeRunner(encoded, blocks=1),
    ]
    first, second, rounded = (tiny.logits(r, tokens).tobytes() for r in runners)
    assert first == second
    assert first != rounded


def test_the_reference_reads_chunks_too():
    """Chunked, batched and whole agree in the specification itself, but for sums that numpy orders by shape: far below
    what a key more or less would change."""
    model = tiny.llama("q8_0")
    texts = [tiny.text(70), tiny.text(33, 1)]
    whole = [tiny.logits(ReferenceRunner(model), t) for t in texts]
    runner = ReferenceRunner(model)
    tables = np.array([3, 1], np.int32), np.array([0], np.int32)
    got = [[], []]
    for past, end in ((0, 13), (13, 33), (33, 70)):
        here = [0, 1] if past < 33 else [0]
        runner.run(tiny.batch([tiny.Part(texts[s], past, end, tables[s]) for s in here]))
        for s, rows in zip(here, np.split(runner.logits(), len(here)), strict=True):
            got[s].append(rows)
    for a, b in zip(whole, map(np.concatenate, got), strict=True):
        np.testing.assert_allclose(a, b, atol=rounding.U * 64 * np.abs(a).max())


class Broken(NativeOps):
    """One verb slightly wrong."""

    wrong = ""
    by = 1e-3

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name == object.__getattribute__(self, "wrong"):
            return lambda *args: found(*args) * np.float32(1 + self.by)
        return found


@pytest.mark.parametrize("verb", ["embed", "linear", "rms_norm", "rope", "attention", "swiglu", "add", "rows"])
def test_twin_names_the_broken_verb(verb):
    """A verb off by a thousandth is named, and no other; in float32, where rounding explains a hundredth of that."""
    model, tokens = tiny.llama("f32"), tiny.text(20)
    batch = one_step(tokens)
    bounding = reference_ops(rounding.Bounding, model, 1, "f32")
    model.forward(bounding, tokens, batch)
    allowed = max(bounding.allowed.values())
    assert allowed < Broken.by / 2
    left, right = reference_ops(ReferenceOps, model, 1, "f32"), reference_ops(Broken, model, 1, "f32")
    right.wrong = verb
    with pytest.raises(Parted, match=rf"^step \d+, {verb}: the sides differ by "):
        model.forward(Twin(left, right, allowed), tokens, batch)
    right.wrong = ""
    model.forward(Twin(reference_ops(ReferenceOps, model, 1, "f32"), right, allowed), tokens, batch)
