"""The recorded plan: fusing changes no bit, a step costs the same Python for any depth, copied blocks are the text, and
a batch that makes no sense is refused in a sentence."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace

import numpy as np
import pytest

import mixture
import rounding
import tiny
import variants
from quickbrown import _native
from quickbrown.backends.native import runner as runner_module
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.engine.batch import Batch
from quickbrown.engine.engine import Engine
from quickbrown.engine.sequence import Request
from quickbrown.generation.decoders.sample import Sample
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import ENCODABLE
from quickbrown.types import SamplingParams

WHOLE = {"intermediate_size": 128}  # whole blocks of every format
ODD = {"hidden_size": 70, "intermediate_size": 101, "head_dim": 16, "vocab_size": 323}  # nothing a multiple of 16


@pytest.mark.parametrize(
    ("format", "config"),
    [(format, WHOLE) for format in ENCODABLE]
    + [(format, ODD) for format in ("f32", "f16", "bf16")]
    + [("q4_1", {"tie_word_embeddings": False, "num_key_value_heads": 4})],
)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_fused_is_unfused(format, config, dtype):
    """The same bytes from five fused stages a layer as from one verb at a time, for a prompt and for single tokens."""
    model = tiny.llama(format, **config)
    fused, plain = (NativeRunner(model, blocks=2, threads=2, dtype=dtype, fused=f) for f in (True, False))
    assert fused.plan.instructions == 2 + 5 * 2 + 1, "nothing was fused"  # embed; two layers; rows; norm and head
    assert plain.plan.instructions == 2 + 15 * 2 + 2
    tokens = tiny.text(40)
    for chunk in (33, 1):
        assert tiny.logits(fused, tokens, chunk).tobytes() == tiny.logits(plain, tokens, chunk).tobytes()


WINDOW = {"use_sliding_window": True, "sliding_window": 20, "layer_types": ("full_attention", "sliding_attention")}
FAMILIES = [
    # family, config, instructions of a layer, and of one verb at a time
    ("llama", {"attention_bias": True}, 5, 15),
    ("llama", {"mlp_bias": True}, 5, 15),
    ("mistral", {"sliding_window": 20}, 5, 15),
    ("qwen2", WINDOW, 5, 15),
    ("qwen3", WINDOW, 5, 17),
    ("qwen3", {"attention_bias": True, "head_dim": 80, **ODD}, 5, 17),
]


@pytest.mark.parametrize(("family", "config", "few", "many"), FAMILIES)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_fused_families_are_unfused(family, config, few, many, dtype):
    """Biases, norms of heads and windows: each is fused, and changes no bit where it is."""
    format = "f16" if "hidden_size" in config else "q8_0"
    model = tiny.family(family, format, **(config | ({} if "hidden_size" in config else WHOLE)))
    fused, plain = (NativeRunner(model, blocks=2, threads=2, dtype=dtype, fused=f) for f in (True, False))
    assert fused.plan.instructions == 2 + few * 2 + 1
    assert plain.plan.instructions == 2 + many * 2 + 2
    tokens = tiny.text(40)
    for chunk in (33, 1):
        assert tiny.logits(fused, tokens, chunk).tobytes() == tiny.logits(plain, tokens, chunk).tobytes()


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize("format", ["f32", "q8_0"])
def test_every_verb_fused_is_unfused(format, dtype):
    """Norms, rotations and norms of heads go where they are read, biases and residuals where they are added, gates are
    one with their linears; nothing changes a bit. Weights that are rows of another are packed as any."""
    model = mixture.Model(format)
    fused, plain = (NativeRunner(model, blocks=2, threads=2, dtype=dtype, fused=f) for f in (True, False))
    # embed, scale, positions, add; q k v and common, join, attention, o, gate up, part, activate, multiply, down, norm,
    # add; rows, head, softcap
    assert fused.plan.instructions == 4 + 2 * 11 + 3
    assert plain.plan.instructions == 4 + 2 * 23 + 4
    tokens = tiny.text(70)
    for chunk in (33, 1):
        assert tiny.logits(fused, tokens, chunk).tobytes() == tiny.logits(plain, tokens, chunk).tobytes()


def test_every_verb_is_the_reference():
    """A whole model, in float32 and as published."""
    tokens = tiny.text(60)
    table = np.arange(1)
    batch = tiny.batch([tiny.Part(tokens, 0, 60, table)], table)
    for format, dtype in (("f32", "float32"), ("f32", "auto")):
        model = mixture.Model(format)
        got = tiny.logits(NativeRunner(model, blocks=1, threads=2, dtype=dtype), tokens, 23)
        rounding.close(format, got, model, tokens, batch, "f32" if dtype == "float32" else "bf16")


def test_texts_of_several_spans_in_one_step():
    """Each text's rows are those that it has alone with its own span, whoever turns otherwise beside it; and a span
    that comes up later, in the midst of others' texts, changes none of theirs."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [float(i + 2) for i in range(8)]}
    longrope = {"rope_type": "longrope", "original_max_position_embeddings": 64, "factor": 4.0} | factors
    for rope, spans in (({"rope_type": "dynamic", "factor": 2.0}, (0, 300, 0, 500)), (longrope, (0, 1, 1, 0))):
        model = tiny.llama("q8_0", rope_parameters=rope | {"rope_theta": 10000.0})
        texts = [tiny.text(40, seed) for seed in range(4)]
        tables = [np.array([i], np.int32) for i in range(4)]

        def run(runner, which, begin, end, spans=spans, texts=texts, tables=tables):
            parts = [tiny.Part(texts[i], begin, end, tables[i]) for i in which]
            fresh = np.concatenate([tables[i] for i in which]) if begin == 0 else tiny.NONE
            runner.run(replace(tiny.batch(parts, fresh), spans=[spans[i] for i in which]))
            return np.array(runner.logits()).reshape(len(which), end - begin, -1)

        alone = [run(NativeRunner(model, blocks=4, threads=1), [i], 0, 40)[0] for i in range(4)]
        runner = NativeRunner(model, blocks=4, threads=2)
        first = run(runner, [0, 1], 0, 20)
        more = run(runner, [2, 3], 0, 20)
        rest = run(runner, [0, 1, 2, 3], 20, 40)
        together = [np.concatenate([(*first, *more)[i], rest[i]]) for i in range(4)]
        for i in range(4):
            assert together[i].tobytes() == alone[i].tobytes(), f"text {i} of span {spans[i]}"
        straight = tiny.logits(runner, texts[1])
        assert straight.tobytes() != alone[1].tobytes(), "a span changes nothing"


class Counted:
    """An object of the extension, or the extension, with every use of it counted."""

    def __init__(self, inner, counts):
        self._inner, self._counts = inner, counts

    def __getattr__(self, name):
        self._counts.append(name)
        return getattr(self._inner, name)


def cost_of_steps(layers, monkeypatch, steps):
    """Per step of an engine that writes three texts: uses of the extension, and Python frames."""
    runner = NativeRunner(tiny.llama("q4_1", num_hidden_layers=layers), blocks=8, threads=2)
    engine = Engine(runner, budget=16)  # so that prompts are read in chunks at first
    for i in range(3):
        params = SamplingParams(max_new_tokens=steps + 10, temperature=float(i), seed=i)
        engine.add(Request(i, tuple(tiny.text(15, i).tolist()), Sample(), params, (i,)))
    counts: list[str] = []
    frames: list[str] = []
    native = {name for name, held in vars(runner).items() if "_native" in type(held).__module__}
    assert {"plan", "draws"} <= native
    for name in native:
        monkeypatch.setattr(runner, name, Counted(getattr(runner, name), counts))
    monkeypatch.setattr(runner_module, "_native", Counted(_native, counts))
    costs = []
    gc.collect()
    gc.disable()  # others' callbacks at a collection would be counted
    try:
        for _ in range(steps):
            counts.clear()
            frames.clear()
            sys.setprofile(lambda frame, event, argument: frames.append(event) if event == "call" else None)
            engine.step()
            sys.setprofile(None)
            costs.append((tuple(counts), len(frames)))
    finally:
        sys.setprofile(None)
        gc.enable()
        monkeypatch.undo()
    assert len(engine.live) == 3
    return costs


def test_python_does_not_grow_with_layers(monkeypatch):
    """Each step of a model of 30 layers: the very calls and as many frames as of one of 2. Every object of the
    extension that a runner holds is watched, so a call from anywhere but C++ is seen."""
    few, many = (cost_of_steps(layers, monkeypatch, 12) for layers in (2, 30))
    assert few == many
    for calls, frames in few:
        assert calls == ("run",)
        assert frames > 5


def test_no_memory_is_taken_after_warming_up():
    """The second time that the same texts are written, and in each step of a text that stays in its chunk."""
    runner = NativeRunner(tiny.llama("q4_1"), blocks=16, threads=2)
    seen = []
    for _ in range(2):
        engine = Engine(runner)
        for i in range(3):
            params = SamplingParams(max_new_tokens=100, temperature=0.5, top_p=0.9)
            engine.add(Request(i, tuple(tiny.text(60, i).tolist()), Sample(), params, (i,)))
        growths = []
        while not engine.idle:
            engine.step()
            growths.append(runner.plan.growths)
        seen.append(growths)
    assert seen[0][0] > 0, "nothing is counted"
    assert len(seen[0]) == 100
    assert len(set(seen[0][1:])) == 1, f"grew while decoding: {seen[0]}"
    assert set(seen[1]) == {seen[0][-1]}, f"grew the second time: {seen[1]}"


def test_copied_blocks_are_the_text():
    """`copy` gives a second sequence the same past, and neither sees what the other writes after it."""
    runner = NativeRunner(tiny.llama("q8_0"), blocks=3, threads=2)
    common, ends = tiny.text(50), [tiny.text(10, seed) for seed in (1, 2)]
    texts = [np.concatenate([common, end]) for end in ends]
    want = [tiny.logits(runner, t) for t in texts]
    tables = [np.array([b], np.int32) for b in (0, 2)]
    runner.run(tiny.batch([tiny.Part(texts[0], 0, 50, tables[0])], np.arange(3)))
    runner.copy(0, 2)
    for past in range(50, 60):
        runner.run(tiny.batch([tiny.Part(t, past, past + 1, table) for t, table in zip(texts, tables, strict=True)]))
        assert runner.logits()[0].tobytes() == want[0][past].tobytes()
        assert runner.logits()[1].tobytes() == want[1][past].tobytes()
    for bad in ((3, 0), (0, 3)):
        with pytest.raises(IndexError, match="no block of that number"):
            runner.copy(*bad)


# -- what is refused -------------------------------------------------------------------------------------------------

GOOD = {
    "tokens": [1, 2, 3, 4, 5],
    "positions": [0, 1, 2, 0, 1],
    "starts": [0, 3, 5],
    "blocks": [0, 1, 2],
    "block_starts": [0, 2, 3],
    "logit_rows": [0, 2, 4],
    "fresh": [0, 1, 2],
}
MOST = 2**31 - 1
WRONG = [
    {"tokens": [1, 2, 320, 4, 5]},
    {"tokens": [1, 2, -1, 4, 5]},
    {"tokens": [1, 2, MOST, 4, 5]},
    {"tokens": [1, 2, 3, 4]},
    {"tokens": [], "positions": [], "starts": [0], "block_starts": [0], "blocks": [], "logit_rows": []},
    {"positions": [0, 1, 2, 0]},
    {"positions": [0, 1, 3, 0, 1]},
    {"positions": [0, 1, 1, 0, 1]},
    {"positions": [-1, 0, 1, 0, 1]},
    {"positions": [126, 127, 128, 0, 1]},  # behind the two blocks
    {"positions": [0, 1, 2, 63, 64]},
    {"positions": [0, 1, 2, MOST, -MOST - 1]},
    {"positions": [MOST - 2, MOST - 1, MOST, 0, 1]},
    {"starts": [0, 5, 5]},
    {"starts": [0, 3, 4]},
    {"starts": [0, 3, 6]},
    {"starts": [1, 3, 5]},
    {"starts": [0, 5]},
    {"starts": [0, MOST, 5]},
    {"starts": [0, -MOST - 1, 5]},
    {"starts": []},
    {"starts": [], "block_starts": []},
    {"blocks": [0, 8, 2]},
    {"blocks": [0, -1, 2]},
    {"blocks": [0, 1]},
    {"block_starts": [0, 3, 3]},
    {"block_starts": [0, 4, 3]},
    {"block_starts": [0, MOST, 3]},
    {"block_starts": [0, 2, 4]},
    {"block_starts": [1, 2, 3]},
    {"block_starts": [0, 3]},
    {"logit_rows": [0, 5]},
    {"logit_rows": [-1, 0]},
    {"logit_rows": [2, 0]},
    {"logit_rows": [2, 2]},
    {"logit_rows": [0, MOST]},
    {"fresh": [8]},
    {"fresh": [-1]},
]


def made(fields):
    return Batch(**{name: np.array(value, np.int32) for name, value in fields.items()})


@pytest.fixture(scope="module")
def small():
    return NativeRunner(tiny.llama("q4_1"), blocks=8, threads=2)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_bad_batches_are_refused(wrong, small):
    """A sentence, and the next good batch gives the bytes it gave before."""
    small.run(made(GOOD))
    before = small.logits().tobytes()
    with pytest.raises((ValueError, IndexError), match=r"^batch: \S+( \S+){3,}$"):
        small.run(made(GOOD | wrong))
    small.run(made(GOOD))
    assert small.logits().tobytes() == before


def test_bad_batches_are_all_bad(small):
    """Each of the above differs from the good one, which is taken; and so is one that wants no logits."""
    assert len({str(wrong) for wrong in WRONG}) == len(WRONG)
    assert all(GOOD[name] != value for wrong in WRONG for name, value in wrong.items())
    small.run(made(GOOD | {"logit_rows": []}))
    assert small.logits().shape == (0, 320)


@pytest.mark.parametrize("name", GOOD)
def test_arrays_of_other_shapes_are_refused(name, small):
    batch = made(GOOD)
    for wrong in (np.array([GOOD[name]], np.int32), np.int32(3), None):
        with pytest.raises(TypeError):
            small.run(replace(batch, **{name: wrong}))


def test_arrays_of_other_types_are_not_cut_down(small):
    batch = made(GOOD)
    wide = np.array([1, 2, 2**32 + 3, 4, 5])
    with pytest.raises((TypeError, ValueError)):
        small.run(replace(batch, tokens=wide))


def test_a_plan_needs_a_result_and_steps():
    pool = _native.Pool(1)
    weights, kv = _native.Weights(0, pool), _native.KvMemory("bf16", 1, [(1, 16, 16)])
    plan = _native.Plan(pool, weights, kv)
    with pytest.raises(ValueError, match="the plan has no result"):
        plan.run(*(np.array(GOOD[n], np.int32) for n in GOOD))
    with pytest.raises(ValueError, match="no buffer of that number"):
        plan.result(0)


def test_verbs_that_do_not_fit_are_refused():
    """Biases, norms of heads, rotations and windows, each in a sentence."""
    pool = _native.Pool(1)
    weights, kv = _native.Weights(1 << 16, pool), _native.KvMemory("bf16", 1, [(2, 16, 16)])
    w = weights.add("f32", 64, [np.zeros((32, 256), np.uint8)])
    long, bias = (weights.add_vector(np.ones(n, np.float32)) for n in (33, 32))
    head = weights.add_vector(np.ones(16, np.float32))
    plan = _native.Plan(pool, weights, kv)
    x, y, q, out = (plan.buffer(n) for n in (64, 32, 64, 64))
    turn = plan.rotation(np.ones((1, 8)), np.ones(1))
    other = plan.rotation(np.ones((2, 16)), np.ones(2))
    norm, head = (plan.norm(v, -1, 1e-5) for v in (weights.add_vector(np.ones(64, np.float32)), head))
    plan.linear(x, [(w, y, bias)], norm)
    plan.normalise(x, head, out, 4)
    plan.attention(0, q, y, y, out, 4, 0.25, turn, 5, head, head)
    wrong = {
        "a bias does not fit its output": lambda: plan.linear(x, [(w, y, long)]),
        "a residual does not fit the output": lambda: plan.linear(x, [(w, y, bias)], residual=x),
        "a norm of heads needs equal parts": lambda: plan.normalise(x, head, out, 5),
        "a norm's weight does not fit its input": lambda: plan.normalise(x, head, out, 2),
        "no norm of that number": lambda: plan.linear(x, [(w, y, bias)], 7),
        "only a centred norm has a bias": lambda: plan.norm(bias, bias, 1e-5),
        "a norm's bias does not fit its weight": lambda: plan.norm(bias, long, 1e-5, True),
        "a norm changes no shape": lambda: plan.normalise(x, norm, y),
        "a rotation needs frequencies": lambda: plan.rotation(np.ones((1, 8)), np.ones(0)),
        "a rotation's variants do not fit its heads": lambda: plan.turn(turn, np.ones((2, 9)), np.ones(2)),
        "no rotation of that number": lambda: plan.turn(2, np.ones((2, 8)), np.ones(2)),
        "rope: heads and frequencies do not fit": lambda: plan.rope(x, turn, 5, out),
        "attention: frequencies do not fit the heads": lambda: plan.attention(0, q, y, y, out, 4, 0.25, other),
        "attention: a window cannot be negative": lambda: plan.attention(0, q, y, y, out, 4, 0.25, turn, -1),
        "both or not at all": lambda: plan.attention(0, q, y, y, out, 4, 0.25, turn, 0, head),
        "a soft cap cannot be negative": lambda: plan.attention(0, q, y, y, out, 4, 0.25, softcap=-1.0),
        "a sink for each head": lambda: plan.attention(0, q, y, y, out, 4, 0.25, sinks=bias),
        "a slope for each head": lambda: plan.attention(0, q, y, y, out, 4, 0.25, slopes=[1.0]),
        "a soft cap must be above 0": lambda: plan.softcap(x, 0.0, out),
        "there is no nonlinearity 'swish'": lambda: plan.activate(x, "swish", out),
        "activate: 'clamped' takes a gate": lambda: plan.activate(x, "clamped", out),
        "a clamped gate needs a limit above 0": lambda: plan.gated(x, x, "clamped", 0.0, out),
        "multiply changes no shape": lambda: plan.multiply(x, y, out),
        "part: heads have no such values": lambda: plan.part(x, 4, 8, 17, y),
        "part: the values do not fit": lambda: plan.part(x, 4, 8, 16, out),
        "join: the heads do not fit": lambda: plan.join(y, y, 3, out),
        "the table of positions does not fit": lambda: plan.positions(w, 0, y),
        "the table of positions has no row": lambda: plan.positions(w, 32, x),
    }
    for sentence, ask in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            ask()
    with pytest.raises(IndexError, match="no vector of that number"):
        plan.linear(x, [(w, y, 9)])
    assert plan.instructions == 3


def test_verbs_with_states_that_do_not_fit_are_refused():
    pool = _native.Pool(1)
    weights, kv = _native.Weights(1 << 12, pool), _native.KvMemory("bf16", 1, [])
    filter, odd = (weights.add_vector(np.ones(n, np.float32)) for n in (96, 33))
    plan = _native.Plan(pool, weights, kv, False, _native.StateMemory(2, 64 + 512))
    x, out, keys, scalars = (plan.buffer(n) for n in (32, 32, 16, 2))
    rows = plan.buffer(2, True)

    def recurrence(q=keys, k=keys, v=x, beta=scalars, decay=scalars, out=out, heads=2, key_heads=1, skip=-1, state=64):
        plan.recurrence(q, k, v, beta, decay, out, heads, key_heads, True, skip, state)

    plan.short_conv(x, filter, -1, 0, out)
    recurrence()
    wrong = {
        "short_conv takes tokens and overwrites none": lambda: plan.short_conv(x, filter, -1, 0, x),
        "short_conv: no filter": lambda: plan.short_conv(x, -1, -1, 0, out),
        "short_conv: the filter does not fit": lambda: plan.short_conv(x, odd, -1, 0, out),
        "a bias does not fit its output": lambda: plan.short_conv(x, filter, odd, 0, out),
        "a verb's state does not fit its place": lambda: plan.short_conv(x, filter, -1, 528, out),
        "state does not fit its place": lambda: recurrence(state=80),
        "does not fit its place": lambda: recurrence(state=63),
        "recurrence: inputs do not fit the heads": lambda: recurrence(heads=3),
        "recurrence: inputs do not fit each other": lambda: recurrence(q=x),
        "heads must have a multiple of 16 values": lambda: recurrence(v=keys, out=plan.buffer(16)),
        "one number a head is needed": lambda: recurrence(beta=keys),
        "recurrence works on tokens": lambda: recurrence(decay=rows),
        "recurrence cannot overwrite its input": lambda: recurrence(out=x),
        "decay: no rates": lambda: plan.decay(scalars, -1, scalars),
        "softplus changes no shape": lambda: plan.softplus(scalars, x),
    }
    for sentence, ask in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            ask()
    with pytest.raises(ValueError, match="a multiple of 16 floats"):
        _native.StateMemory(2, 65)
    assert plan.instructions == 2


@pytest.mark.parametrize(
    ("reads", "writes", "sentence"),
    [
        ([], [], "each sequence must read its states from a place and write them to one"),
        ([0], [1, 2], "each sequence must read its states"),
        ([-1, -2], [0, 1], "no place of that number"),
        ([-1, 8], [0, 1], "no place of that number"),
        ([-1, 2], [0, 8], "no place of that number"),
        ([-1, 2], [-1, 1], "no place of that number"),
        ([3, 3], [1, 1], "is nobody else's in this step"),
        ([3, 1], [1, 2], "is nobody else's in this step"),
        ([3, 2], [1, 2], "is nobody else's in this step"),
    ],
)
def test_steps_whose_states_cannot_be_are_refused(reads, writes, sentence):
    fields = {"layer_types": ("conv", "full_attention"), "block_multiple_of": 64}
    runner = NativeRunner(tiny.family("lfm2", **fields), blocks=2, threads=1)
    good = Batch([5, 6, 7], [0, 1, 0], [0, 2, 3], [0, 1], [0, 1, 2], [1], [], [], [-1, 3], [1, 2])
    runner.run(good)
    with pytest.raises(ValueError, match=sentence):
        runner.run(replace(good, reads=reads, writes=writes))
    with pytest.raises(ValueError, match="no place of that number"):
        NativeRunner(tiny.llama(), blocks=2, threads=1).run(good)


@pytest.mark.parametrize("format", [f.name for f in FORMATS.values() if f.held is None])
def test_wrong_sizes_are_refused_at_packing(format):
    pool = _native.Pool(2)
    block = FORMATS[format].block
    width = max(64, block)
    row = FORMATS[format].row_bytes(width)
    size = _native.packed_size(format, 20, width)
    good = np.zeros((20, row), np.uint8)

    def add(sources, inputs=width, room=size, name=format):
        return _native.Weights(room, pool).add(name, inputs, sources)

    assert add([good]) == 0
    for wrong in (np.zeros((20, row - 1), np.uint8), np.zeros((20, row + 1), np.uint8)):
        with pytest.raises(ValueError, match=f"a weight of 20 rows of {row} bytes came with"):
            add([wrong])
    with pytest.raises(ValueError, match="nothing to pack"):
        add([])
    with pytest.raises(ValueError, match="same number of rows"):
        add([np.zeros((0, row), np.uint8)])
    with pytest.raises(ValueError, match="same number of rows"):
        add([good, good[:4].copy()], room=2 * size)
    with pytest.raises(ValueError, match="more room than was set aside"):
        add([good], room=size - 64)
    with pytest.raises(ValueError, match="not a whole number of blocks"):
        add([good], inputs=0)
    with pytest.raises(ValueError, match="no packed kernel for weights of format 'q9_9'"):
        add([good], name="q9_9")
    for huge in (2**61, 2**63 - block, 2**62 + block):
        with pytest.raises((ValueError, OverflowError), match=r"\w+ \w+ \w+"):
            add([good], inputs=huge)
    if block > 1:
        with pytest.raises(ValueError, match="not a whole number of blocks"):
            add([good], inputs=width - 1)


def test_slices_are_packed_as_the_whole_and_checked():
    """A weight filled in slices has the same rows as one added at once; what is no whole panel inside it is refused."""
    data = np.random.default_rng(0).standard_normal((40, 32)).astype(np.float32).view(np.uint8)
    pool = _native.Pool(2)
    weights = _native.Weights(2 * _native.packed_size("f32", 40, 32), pool)
    whole, sliced = weights.add("f32", 32, [data]), weights.reserve("f32", 40, 32, 1)
    for first, last in ((32, 40), (0, 16), (16, 32)):
        weights.fill(sliced, first, data[first:last].copy())
    rows = []
    for index in (whole, sliced):
        plan = _native.Plan(pool, weights, _native.KvMemory("f32", 1, [(1, 16, 16)]))
        out = plan.buffer(32)
        plan.embed(index, out)
        plan.result(out)
        i, none = np.arange(40, dtype=np.int32), np.zeros(0, np.int32)
        plan.run(i, i, np.array([0, 40], np.int32), np.zeros(1, np.int32), np.array([0, 1], np.int32), none, none)
        rows.append(plan.contents(out, 32).copy())
    assert rows[0].tobytes() == rows[1].tobytes() == data.tobytes()
    for first, count in ((8, 16), (0, 8), (32, 16), (48, 16), (2**63, 16)):
        with pytest.raises(ValueError, match="are not whole panels of a weight of 40 rows"):
            weights.fill(sliced, first, np.zeros((count, 128), np.uint8))
    with pytest.raises(ValueError, match="rows of 128 bytes came with 160 bytes"):
        weights.fill(sliced, 0, np.zeros((16, 10), np.uint8))
    with pytest.raises(IndexError, match="no weight of that number"):
        weights.fill(7, 0, data)


def test_other_wrong_sizes():
    pool = _native.Pool(1)
    weights = _native.Weights(64, pool)
    with pytest.raises(ValueError, match="empty vector"):
        weights.add_vector(np.zeros(0, np.float32))
    with pytest.raises(ValueError, match="more room than was set aside"):
        weights.add_vector(np.zeros(17, np.float32))
    for layer in ((0, 16, 16), (1, 0, 16), (1, 16, 0), (1, 16, 1025), (1, 2048, 16)):
        with pytest.raises(ValueError, match="heads must have at most 1024 values, and no dimension can be zero"):
            _native.KvMemory("bf16", 1, [(1, 16, 16), layer])
    with pytest.raises(ValueError, match="there must be blocks to keep keys in"):
        _native.KvMemory("bf16", 0, [(1, 16, 16)])
    with pytest.raises(ValueError, match="bf16, f32 or int8"):
        _native.KvMemory("f16", 1, [(1, 16, 16)])
    with pytest.raises(OverflowError, match="a size does not fit in memory addresses"):
        _native.KvMemory("bf16", 2**40, [(2**10, 1024, 1024)] * 2**10)
    with pytest.raises(MemoryError):
        _native.KvMemory("bf16", 2**20, [(2**8, 1024, 1024)] * 2**10)
    for threads in (0, -1, 2**20):
        with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
            _native.Pool(threads)


class TestOthers:
    pytestmark = variants.outer_only

    def test_under(self, name):
        """All of the above under each other instruction set of this machine."""
        variants.again(__file__, name)
