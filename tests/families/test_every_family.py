"""Every family, from a table of tiny configs: one body."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import rounding
import theirs
import tiny
from configs import ROWS, family
from gguf_writer import holds, write_tiny_gguf
from quickbrown.backends.native.eager import NativeOps
from quickbrown.backends.native.record import Recorder
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.backends.reference import ReferenceOps, ReferenceRunner
from quickbrown.backends.twin import Parted, Twin
from quickbrown.models.families import ARCHITECTURES, FILES, MODEL_TYPES, of_model_type
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.safetensors import SafetensorsSource
from quickbrown.weights.tiny import TinySource

FAMILIES = [name for name in ROWS if name == family(name)]
FORMATS = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")
MODELS = [(name, format) for name in ROWS for format in ("f32", "bf16", "q4_1")]
MODELS += [(name, format) for name in FAMILIES for format in ("f16", "q8_0", "q4_0", "nf4", "fp4")]
IN_GGUF = [(n, f) for n in ROWS if holds(**ROWS[n]) for f in (FORMATS if n in FAMILIES else ("f32", "q4_1"))]
every = pytest.mark.parametrize(("name", "format"), MODELS)
# What norms after a part of a layer give is as large as what it is added to, and so are the roundings in it: of these
# families, several tiny layers make of what is allowed more than would tell anything.
NORMS_AFTER = ("gemma3", "gemma3_text", "gemma4", "gemma4_text", "olmo2", "olmo3")
NORMS_INSIDE = (
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
)  # the same of what a delta network gives


def made(name, format, **more):
    fields = ROWS[name] | more
    return tiny.family(family(name), format, **{k: v for k, v in fields.items() if k != "model_type"})


def reference_ops(kind, model, blocks, kv="bf16"):
    return kind(model.config.kv_layers, blocks, kv)


def one_step(model, tokens):
    table = np.arange(-(-len(tokens) // tiny.BLOCK), dtype=np.int32)
    part = tiny.Part(tokens, 0, len(tokens), table, span=tiny.span(model, len(tokens)), **tiny.states(model))
    return tiny.batch([part], table)


def whole(runner, model, tokens, chunk=1 << 30):
    return tiny.logits(runner, tokens, chunk, span=tiny.span(model, len(tokens)))


@every
def test_chunked_is_whole_and_batched_is_alone(name, format):
    """To the byte: a prompt in chunks of 5, and three other texts in the same steps, each turned as its length asks."""
    model = made(name, format)
    runner = NativeRunner(model, blocks=8, threads=2)
    texts = [tiny.text(length, seed) for seed, length in enumerate((70, 33, 12, 41))]
    alone = [whole(runner, model, t) for t in texts]
    assert len({rows[5].tobytes() for rows in alone}) == 4
    assert whole(runner, model, texts[0], 5).tobytes() == alone[0].tobytes()
    tables = np.split(np.random.default_rng(0).permutation(8).astype(np.int32), 4)
    parts = [
        tiny.Part(t, 0, len(t), table, span=tiny.span(model, len(t)), **tiny.states(model, first=2 * i))
        for i, (t, table) in enumerate(zip(texts, tables, strict=True))
    ]
    runner.run(tiny.batch(parts, np.arange(8)))
    assert runner.logits().tobytes() == np.concatenate(alone).tobytes()


@pytest.mark.parametrize("name", ROWS)
def test_configs_say_what_layers_keep(name):
    """Memory is made by what the config says, and used by what the verbs ask for."""
    model = made(name, "f32")
    recorder = Recorder(model.config.kv_layers)
    model.forward(recorder, None, None)
    storing = [verb.layer for verb in recorder.verbs if verb.name == "attention" and len(verb.inputs) == 3]
    assert storing == list(range(len(model.config.kv_layers)))
    assert tuple(verb.state for verb in recorder.verbs if verb.state) == model.config.state_sizes


@every
def test_twin_finds_no_parting(name, format):
    """Native and reference verb by verb, each verb on the reference's input.

    What may differ is what `Bounding` derives on the same values. Where a key's weight may round to either
    neighbour in bfloat16, that is up to 2^-8 of its share, and of the sum that all are divided by; everywhere else it
    is float32 sums.
    """
    model, tokens = made(name, format), tiny.text(20)
    batch = one_step(model, tokens)
    bounding = reference_ops(rounding.Bounding, model, 1)
    model.forward(bounding, tokens, batch)
    assert max(bounding.allowed.values()) < 2**-7
    twin = Twin(
        reference_ops(ReferenceOps, model, 1),
        reference_ops(NativeOps, model, 1),
        tolerance=max(bounding.allowed.values()),
    )
    result = model.forward(twin, tokens, batch)
    assert result.left.shape == (20, model.config.vocab_size)
    assert twin.worst.keys() >= {"embed", "linear", "attention" if model.config.kv_layers else "recurrence", "rows"}
    for verb in twin.worst.keys() & {"linear", "rms_norm", "rope", "gated"}:
        assert twin.worst[verb] <= bounding.allowed[verb] < 1e-4


@pytest.mark.parametrize("name", [name for name in ROWS if made(name, "f32").config.kv_layers])
def test_keys_and_values_of_8_bits(name):
    """Verb by verb as the reference has them, in chunks as whole, and logits near those of float32 keys and values.

    Measured mean divergences of these random models are 1.1e-3 and less, four to twenty times those of bfloat16; 7.3e-3
    of the one that makes 2.1e-3 of bfloat16's roundings, too.
    """
    model, tokens = made(name, "f32"), tiny.text(70)
    batch, blocks = one_step(model, tokens[:20]), 2
    bounding = reference_ops(rounding.Bounding, model, 1, "int8")
    model.forward(bounding, tokens[:20], batch)
    left, right = reference_ops(ReferenceOps, model, 1, "int8"), reference_ops(NativeOps, model, 1, "int8")
    model.forward(Twin(left, right, max(bounding.allowed.values())), tokens[:20], batch)
    runner = NativeRunner(model, blocks=blocks, threads=2, dtype="float32", kv="int8")
    got = whole(runner, model, tokens)
    assert whole(runner, model, tokens, 5).tobytes() == got.tobytes()
    exact = whole(NativeRunner(model, blocks=blocks, threads=2, dtype="float32"), model, tokens)
    divergence = (np.exp(log_softmax(exact)) * (log_softmax(exact) - log_softmax(got))).sum(-1)
    assert not (got == exact).all()
    assert divergence.mean() < (1e-2 if name == "gemma3_text" else 2e-3)


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize(("name", "format"), IN_GGUF)
def test_a_gguf_file_gives_the_same_bytes(name, format, tmp_path):
    """Out through tests/gguf_writer.py, in GGUF's names and layout, and in through the reader."""
    file = write_tiny_gguf(tmp_path / "tiny.gguf", format, seed=3, **ROWS[name])
    source = GgufSource(file)
    known = tiny.model(TinySource(format=format, seed=3, **ROWS[name] | {"vocab_size": source.config["vocab_size"]}))
    read = tiny.model(source)
    assert read.config == as_held(known.config, of_model_type(family(name)).gguf.settings.values())
    tokens = tiny.text(30, vocabulary=known.config.vocab_size)
    a, b = (tiny.logits(NativeRunner(m, blocks=1, threads=2), tokens) for m in (read, known))
    assert a.tobytes() == b.tobytes()
    assert len(np.unique(a)) > 100


def as_held(config, said):
    """A config with the numbers that a GGUF file says as it holds them, in float32."""
    numbers = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in said}
    numbers = {name: float(np.float32(value)) for name, value in numbers.items() if isinstance(value, float)}
    return dataclasses.replace(config, **numbers)


@pytest.mark.parametrize("name", theirs.SIGHT)
def test_the_text_of_a_model_that_sees(name, tmp_path):
    """Its config lies inside the model's, and its weights have longer names."""
    source, tokens = TinySource(seed=3, **ROWS[name]), tiny.text(20)
    theirs.write_published(tmp_path, source)
    read = SafetensorsSource(tmp_path)
    assert read.config == source.config
    got, want = (tiny.logits(NativeRunner(tiny.model(of), blocks=1, threads=2), tokens) for of in (read, source))
    assert got.tobytes() == want.tobytes()


def test_every_family_has_a_row():
    assert (
        {MODEL_TYPES[family(name)] for name in ROWS} == {MODEL_TYPES[family(name)] for name in FAMILIES} == set(FILES)
    )
    assert set(ARCHITECTURES.values()) == {MODEL_TYPES[family(name)] for name, _ in IN_GGUF}


@pytest.mark.parametrize("name", ROWS)
def test_native_is_the_reference_in_float32(name):
    """Logits of the whole model, whole and in chunks. A key too many, a wrong head or rotation moves them by their own
    size; `close` refuses to allow a fiftieth of that."""
    model, tokens = made(name, "f32"), tiny.text(24)
    runner = NativeRunner(model, blocks=1, threads=2, dtype="float32")
    for chunk in (24, 7):
        got = whole(runner, model, tokens, chunk)
        assert rounding.close(f"chunk {chunk}", got, model, tokens, one_step(model, tokens), "f32")[1] < 1e-3


@pytest.mark.parametrize("window", [1, 7, 64, 100, 255, 256, 257, 300])
def test_windows_of_long_texts(window):
    """Texts of more than two chunks of 256 keys: which chunks a token passes over, and where in a chunk its window
    begins, depends on its position alone, so that chunks of a prompt and single tokens give the same bytes."""
    fields = {"sliding_window": window, "num_hidden_layers": 1, "max_position_embeddings": 1024}
    model, tokens = tiny.family("mistral", **fields), tiny.text(600)
    table = np.arange(10)
    rows = sorted({0, window - 1, window, 255, 256, 257, 255 + window, 256 + window, 511, 512, 599})
    part = tiny.Part(tokens, 0, 600, table, [row for row in rows if row < 600])
    runner = NativeRunner(model, blocks=10, threads=2, dtype="float32")
    runner.run(tiny.batch([part], table))
    got = np.array(runner.logits())
    rounding.close(f"window {window}", got, model, tokens, tiny.batch([part], table), "f32")
    chunked = tiny.logits(runner, tokens, 37)
    assert chunked[part.rows].tobytes() == got.tobytes()
    runner.run(tiny.batch([tiny.Part(tokens, 599, 600, table)]))
    assert runner.logits().tobytes() == got[-1:].tobytes()


def test_every_option_moves_the_logits():
    """No two of these models answer alike, though they have the same weights where they have the same names."""
    tokens = tiny.text(40)
    rows = {name: whole(ReferenceRunner(made(name, "f32"), kv="f32"), made(name, "f32"), tokens) for name in ROWS}
    names = list(rows)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert np.abs(rows[one] - rows[other]).max() > 1e-2, f"{one} is {other}"
    plain = tiny.family("mistral", sliding_window=None)
    assert (whole(ReferenceRunner(plain, kv="f32"), plain, tokens) == rows["llama"]).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", [*FAMILIES, "llama, another rope and eps", "qwen3, all"])
def test_native_is_the_reference_as_published(name, format):
    """The same with every rounding of inputs, keys and values in it."""
    fewer = {"num_hidden_layers": 1} if name in NORMS_AFTER + NORMS_INSIDE else {}
    if name in NORMS_INSIDE:
        fewer["layer_types"] = ("linear_attention",)
    model, tokens = made(name, format, **fewer), tiny.text(24)
    got = whole(NativeRunner(model, blocks=1, threads=2), model, tokens)
    rounding.close(f"{name} {format}", got, model, tokens, one_step(model, tokens), "bf16")


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
    alone = [tiny.logits(ReferenceRunner(model), t) for t in texts]
    runner = ReferenceRunner(model)
    tables = np.array([3, 1], np.int32), np.array([0], np.int32)
    got = [[], []]
    for past, end in ((0, 13), (13, 33), (33, 70)):
        here = [0, 1] if past < 33 else [0]
        runner.run(tiny.batch([tiny.Part(texts[s], past, end, tables[s]) for s in here]))
        for s, rows in zip(here, np.split(runner.logits(), len(here)), strict=True):
            got[s].append(rows)
    for a, b in zip(alone, map(np.concatenate, got), strict=True):
        np.testing.assert_allclose(a, b, atol=rounding.U * 64 * np.abs(a).max())


class Broken(NativeOps):
    """One verb slightly wrong."""

    wrong = ""
    by = 1e-3

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name == object.__getattribute__(self, "wrong"):
            return lambda *args, **options: found(*args, **options) * np.float32(1 + self.by)
        return found


@pytest.mark.parametrize("verb", ["embed", "linear", "rms_norm", "rope", "attention", "gated", "add", "rows"])
def test_twin_names_the_broken_verb(verb):
    """A verb off by a thousandth is named, and no other; in float32, where rounding explains a hundredth of that."""
    model, tokens = tiny.llama("f32"), tiny.text(20)
    batch = one_step(model, tokens)
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_types": ("full_attention",)}, "must be a list of 2 types, one for each layer"),
        ({"layer_types": ("full_attention", "chunked_attention")}, "'chunked_attention'; 'full_attention' and"),
        ({"layer_types": ("full_attention", "sliding_attention")}, "without use_sliding_window and a sliding_window"),
        ({"rope_parameters": {"rope_type": "axial"}}, "rope_type is 'axial'"),
    ],
)
def test_models_that_cannot_be(fields, message):
    for model_type in ("qwen2", "qwen3"):
        with pytest.raises(ValueError, match=message):
            tiny.model(TinySource(model_type=model_type, **fields))
