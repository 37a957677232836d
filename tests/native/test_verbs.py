"""Every verb of the native backend against the reference: formats, instruction sets, odd shapes.

Bounds are derived in tests/rounding.py, element by element; `compare` refuses one that would let anything through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import rounding
import variants
from encoded import random_weight
from quickbrown import _native
from quickbrown.backends.native.compile import PackedWeights, emit
from quickbrown.backends.native.eager import NativeOps
from quickbrown.backends.native.record import Recorder
from quickbrown.backends.reference import ACTIVATION, ReferenceOps
from quickbrown.engine.batch import Batch
from quickbrown.models.ops import ACTIVATIONS, KvLayer
from quickbrown.models.rope import rope
from quickbrown.models.routing import Router
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import quantize

ONE = [KvLayer(1, 16, 16)]
TOKENS = (1, 3, 5, 17)
WHOLE = (
    (1, 32),
    (1, 64),
    (17, 64),
    (48, 96),
    (40, 128),
    (33, 288),
    (5, 576),
    (33, 256),
    (20, 768),
)  # rows, inputs: for formats of blocks of 32
ODD = ((1, 1), (5, 7), (17, 33), (16, 16), (100, 257), (48, 100))  # for the others
WIDTHS = (1, 7, 16, 33, 64, 100, 257)


@pytest.fixture(scope="module")
def native():
    return NativeOps(ONE, 1)


@pytest.fixture(scope="module")
def reference():
    return ReferenceOps(ONE, 1)


@pytest.fixture
def random(request):
    return np.random.default_rng(list(request.node.name.encode()))


def sizes(random, count):
    """Very different ones, (count, 1)."""
    return 10.0 ** random.uniform(-3, 3, (count, 1))


def normal(random, *shape):
    """Rows of very different size."""
    return (random.standard_normal(shape) * sizes(random, shape[0]).reshape(-1, *[1] * (len(shape) - 1))).astype("f")


def shapes(format):
    block = FORMATS[format].block
    return [shape for shape in WHOLE + ODD if shape[1] % block == 0]


def one_sequence(count, blocks=1):
    """`count` tokens from position 0 on, every second one wanted."""
    ends, every = np.array([0, count], np.int32), np.arange(count, dtype=np.int32)
    table = np.arange(blocks, dtype=np.int32)
    return Batch(every, every, ends, table, np.array([0, blocks], np.int32), every[::2].copy(), table)


@pytest.mark.parametrize("format", FORMATS)
def test_embed(format, native, reference, random):
    """Rows decode to the same bits: each value is one product and at most one sum, in float32 on both sides."""
    for rows, width in shapes(format):
        table = random_weight(format, (rows, width), random, sizes(random, rows))
        for count in TOKENS:
            tokens = random.integers(0, rows, count).astype(np.int32)
            got, want = native.embed(table, tokens), reference.embed(table, tokens)
            assert got.tobytes() == want.tobytes(), f"{rows} x {width}, tokens {tokens}"


@pytest.mark.parametrize("format", FORMATS)
def test_linear(format, native, reference, random):
    """Ordinary inputs, a row of zeros, a group of 32 zeros, and an outlier that leaves the others few bits."""
    multiply(format, native, reference, random, wide=False)


@pytest.mark.parametrize("format", [format for format, rounded in ACTIVATION.items() if rounded == "int8"])
def test_linear_on_bf16(format, random):
    """The same, of inputs that are not rounded to int8."""
    native, reference = NativeOps(ONE, 1, wide=True), ReferenceOps(ONE, 1, wide=True)
    multiply(format, native, reference, random, wide=True)
    w, x = random_weight(format, (16, 256), random, sizes(random, 16)), normal(random, 1, 256)
    assert native.linear(x, w).tobytes() != NativeOps(ONE, 1).linear(x, w).tobytes()


def multiply(format, native, reference, random, wide):
    for rows, inputs in shapes(format):
        w = random_weight(format, (rows, inputs), random, sizes(random, rows))
        for count in TOKENS:
            x = normal(random, count, inputs)
            x[-1, :32] = 0
            x[0, inputs // 2] *= 1000
            if count > 3:
                x[2] = 0
            got, want = native.linear(x, w), reference.linear(x, w)
            bound = rounding.linear(x, w, wide=wide)
            rounding.compare(f"linear {format} {count} x {rows} x {inputs}", got, want, bound)
            if count > 3:
                assert not got[2].any(), "zeros in, something out"
            bias = quantize(normal(random, rows), "f32")
            got = native.linear(x, w, bias)
            bound = rounding.linear(x, w, bias, wide=wide)
            rounding.compare(f"biased {count} x {rows} x {inputs}", got, reference.linear(x, w, bias), bound)
            if count > 3:
                assert got[2].tobytes() == bias.decode().tobytes(), "zeros in, not the bias out"


def test_rms_norm(native, reference, random):
    for width in WIDTHS:
        w = quantize(normal(random, width), "f32")
        for count in TOKENS:
            x = normal(random, count, width)
            for eps in (1e-5, 1e-6):
                got, want = native.rms_norm(x, w, eps), reference.rms_norm(x, w, eps)
                rounding.compare(f"rms_norm {count} x {width}", got, want, rounding.rms_norm(x, w, eps))


@pytest.mark.parametrize(("dim", "heads"), [(16, 1), (16, 5), (64, 3), (80, 2), (128, 4)])
def test_rms_norm_of_heads(dim, heads, native, reference, random):
    """Each part by its own mean: one part a thousand times the others changes nothing of them."""
    w = quantize(normal(random, dim), "f32")
    for count in TOKENS:
        x = normal(random, count, heads * dim)
        x[:, :dim] *= 1000
        got, want = native.rms_norm(x, w, 1e-6, heads), reference.rms_norm(x, w, 1e-6, heads)
        rounding.compare(f"rms_norm {count} x {heads} x {dim}", got, want, rounding.rms_norm(x, w, 1e-6, heads))
        for head in range(heads):
            part = slice(head * dim, (head + 1) * dim)
            alone = native.rms_norm(np.ascontiguousarray(x[:, part]), w, 1e-6)
            assert got[:, part].tobytes() == alone.tobytes(), f"head {head} of {heads} x {dim}"


@pytest.mark.parametrize("kind", ["own weights", "no weight", "offset", "odd parts"])
def test_other_rms_norms(kind, native, reference, random):
    """A weight for each head, none, a weight to which 1 is added as float32, parts that are no whole vectors."""
    for heads, dim in ((1, 7), (3, 16), (4, 80), (2, 24)):
        if kind == "own weights" and dim % 16:
            continue
        shape = (heads, dim) if kind == "own weights" else (dim,)
        w = None if kind == "no weight" else quantize(normal(random, *shape), "f32")
        offset = 1.0 if kind == "offset" else 0.0
        for count in TOKENS:
            x = normal(random, count, heads * dim)
            got, want = native.rms_norm(x, w, 1e-6, heads, offset), reference.rms_norm(x, w, 1e-6, heads, offset)
            bound = rounding.rms_norm(x, w, 1e-6, heads, offset)
            rounding.compare(f"rms_norm, {kind}, {count} x {heads} x {dim}", got, want, bound)


def test_layer_norm(native, reference, random):
    """Rows far from zero too, where a variance as a difference of means would be lost."""
    for width in WIDTHS:
        w, bias = (quantize(normal(random, width), "f32") for _ in range(2))
        for count in TOKENS:
            x = normal(random, count, width)
            x[-1] += 100
            for weights in ((w, bias), (w, None), (None, None)):
                got, want = native.layer_norm(x, *weights, 1e-5), reference.layer_norm(x, *weights, 1e-5)
                bound = rounding.layer_norm(x, *weights, 1e-5)
                rounding.compare(f"layer_norm {count} x {width}", got, want, np.maximum(bound, 1e-30))


@pytest.mark.parametrize(("heads", "dim"), [(3, 16), (4, 80), (2, 24), (5, 7)])
def test_layer_norm_of_heads(heads, dim, native, reference, random):
    """By a weight and a bias that all share, or each its own."""
    shapes = [(dim,), (heads, dim)] if dim % 16 == 0 else [(dim,)]
    for shape in shapes:
        w, bias = (quantize(normal(random, *shape), "f32") for _ in range(2))
        for count in TOKENS:
            x = normal(random, count, heads * dim)
            got, want = native.layer_norm(x, w, bias, 1e-5, heads), reference.layer_norm(x, w, bias, 1e-5, heads)
            rounding.compare(f"{count} x {heads} x {dim}", got, want, rounding.layer_norm(x, w, bias, 1e-5, heads))


def test_rms_norm_of_zeros(native):
    """eps keeps the quotient finite."""
    assert not native.rms_norm(np.zeros((3, 20), np.float32), quantize(np.ones(20, np.float32), "f32"), 1e-5).any()


@pytest.mark.parametrize("dim", [16, 64, 80, 128])
def test_rope(dim, native, reference, random):
    """Also far from position 0, where an angle computed in float32 would be off by 4 U * 8000 = 2e-3 radians."""
    turn = rope({"rope_theta": 10000.0}, dim, 8192)
    for count in TOKENS:
        for heads in (1, 3):
            x = normal(random, count, heads * dim)
            for first in (0, 8000):
                positions = np.arange(first, first + count, dtype=np.int32)
                blocks = (first + count) // 64 + 1
                b = one_sequence(count, blocks)
                table = np.zeros(blocks, np.int32)
                b = replace(b, positions=positions, blocks=table, fresh=table[:0])
                got, want = native.rope(x, b, heads, turn), reference.rope(x, b, heads, turn)
                rounding.compare(f"rope {count} x {heads} x {dim}", got, want, rounding.rope(x, b, heads, turn))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("dim", "part", "start"), [(64, 0.25, 0), (80, 0.25, 0), (96, 0.5, 16), (192, 1 / 3, 128), (24, 1, 0)]
)
def test_rope_of_parts(interleaved, dim, part, start, native, reference, random):
    """Halves and adjacent pairs, of a part of each head, wherever it begins; the rest is the same bits."""
    turn = rope({"rope_theta": 10000.0, "partial_rotary_factor": part}, dim, 8192, start=start, interleaved=interleaved)
    stays = [i for i in range(dim) if not start <= i < start + 2 * len(turn.frequencies)]
    for count in TOKENS:
        x, b = normal(random, count, 3 * dim), one_sequence(count)
        got, want = native.rope(x, b, 3, turn), reference.rope(x, b, 3, turn)
        rounding.compare(f"rope {count} x 3 x {dim}", got, want, rounding.rope(x, b, 3, turn))
        for rows in (got, want):
            kept = rows.reshape(count, 3, dim)[..., stays]
            assert kept.tobytes() == x.reshape(count, 3, dim)[..., stays].tobytes()
    other = replace(turn, interleaved=not interleaved)
    assert native.rope(x, b, 3, other).tobytes() != got.tobytes()


@pytest.mark.parametrize("dim", [16, 64])
def test_rope_of_spans(dim, native, reference, random):
    """Sequences of one step that turn differently, with a factor on cos and sin; more of them than the step before."""
    half = dim // 2
    parameters = {
        "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
        "short_factor": [1.0 + i / half for i in range(half)], "long_factor": [2.0 + i for i in range(half)],
    }  # fmt: skip
    long = rope(parameters, dim, 256)
    dynamic = rope({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, dim, 64)
    assert long.factor > 1
    counts = [3, 1, 5, 2]
    starts = np.cumsum([0, *counts])
    positions = np.concatenate([np.arange(10 * i, 10 * i + n) for i, n in enumerate(counts)]).astype(np.int32)
    i, none = np.arange(11), np.zeros(0, np.int32)
    for turn, several in ((long, [[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], []]), (dynamic, [[0, 70, 99, 70]])):
        x = normal(random, 11, 2 * dim)
        seen = {}
        for spans in several:
            b = Batch(i, positions, starts, np.zeros(4, np.int32), np.arange(5), none, none, spans)
            got, want = native.rope(x, b, 2, turn), reference.rope(x, b, 2, turn)
            rounding.compare(f"rope of spans {spans}", got, want, rounding.rope(x, b, 2, turn))
            for s, span in enumerate(spans):
                rows = got[starts[s] : starts[s + 1]].tobytes()
                assert seen.setdefault((s, span), rows) == rows, "a sequence turns as its neighbours say"
        for s in (1, 2):
            assert len({rows for (of, _), rows in seen.items() if of == s}) == len(
                {span for of, span in seen if of == s}
            )


def test_a_rope_that_other_spans_replace(native):
    """Spans come and go; a plan's table follows them, and each span gives the same as in a table of its own."""
    turn = rope({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, 16, 64)
    recorder = Recorder()
    x = recorder.embed(quantize(np.ones((1, 16), np.float32), "f32"), None)
    turned = recorder.rope(x, None, 1, turn)
    weights = PackedWeights(recorder.verbs, native.pool)
    plan = _native.Plan(native.pool, weights.arena, native.kv)
    buffers, turns = emit(recorder.verbs, turned, weights, plan)
    for spans in ([100, 0], [0, 200], [100, 300], [0, 0], [200, 200]):
        plan.run([0, 0], [60, 60], [0, 1, 2], [0, 0], [0, 1, 2], [], [], turns.of(spans))
        for row, span in zip(plan.contents(buffers[turned], 16), spans, strict=True):
            angles = 60 * turn.angles(span)[0]
            want = np.concatenate([np.cos(angles) - np.sin(angles), np.cos(angles) + np.sin(angles)])
            assert np.allclose(row, want, rtol=0, atol=1e-6), f"span {span} of {spans}"
    for wrong in ([3, 0], [-1, 0], [0], [0, 0, 0]):
        with pytest.raises(ValueError, match=r"^batch: (no rotation of that variant|turns must be one for each)"):
            plan.run([0, 0], [60, 60], [0, 1, 2], [0, 0], [0, 1, 2], [], [], wrong)


def test_add(native, reference, random):
    """One sum: the same bits."""
    for width in WIDTHS:
        for count in TOKENS:
            a, b = normal(random, count, width), normal(random, count, width)
            assert native.add(a, b).tobytes() == reference.add(a, b).tobytes(), f"{count} x {width}"


def test_multiply_and_scale(native, reference, random):
    """One product: the same bits."""
    for width in WIDTHS:
        for count in TOKENS:
            a, b = normal(random, count, width), normal(random, count, width)
            assert native.multiply(a, b).tobytes() == reference.multiply(a, b).tobytes(), f"{count} x {width}"
            for factor in (0.22, 12.0, -3.7, 0.0):
                assert native.scale(a, factor).tobytes() == reference.scale(a, factor).tobytes(), f"{factor}"


# Where exponentials overflow to infinity or vanish, where polynomials meet, zeros of both signs.
EDGES = [0, -0.0, 1e-30, -1e-30, 1e-4, -1e-4, 0.35, -0.35, 1, -1, 3, -3, 9, -9, 13.2, -13.2, 14, -14, 20, -20]
EDGES += [43.6, -43.6, 44.5, -44.5, 87, -87, 88, -88, 88.5, -88.5, 89, -89, 100, -100, 1000, -1000, 1e12, -1e12]


def edged(random, count, width, most=np.inf):
    """Edges among ordinary values."""
    edges = np.array([x for x in EDGES if abs(x) <= most], np.float32)
    values = np.concatenate([edges, 4 * random.standard_normal(count * width).astype(np.float32)])
    return random.permutation(values)[: count * width].reshape(count, width)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activate(kind, native, reference, random):
    """The largest values alone, since the bound must be far below the largest result."""
    for width in WIDTHS:
        for count in TOKENS:
            for x in (edged(random, count, width), edged(random, count, width, 5)):
                got, want = native.activate(x, kind), reference.activate(x, kind)
                rounding.compare(f"{kind} {count} x {width}", got, want, rounding.activate(x, kind))
    every = np.linspace(-12, 12, 100_001, dtype=np.float32)[None]
    got, want = native.activate(every, kind), reference.activate(every, kind)
    rounding.compare(kind, got, want, rounding.activate(every, kind))


@pytest.mark.parametrize("kind", [*ACTIVATIONS, "clamped"])
def test_gated(kind, native, reference, random):
    limit = 7.0 if kind == "clamped" else 0.0
    for width in WIDTHS:
        for count in TOKENS:
            gate, up = edged(random, count, width), np.clip(normal(random, count, width), -100, 100)
            got, want = native.gated(gate, up, kind, limit), reference.gated(gate, up, kind, limit)
            rounding.compare(f"{kind} {count} x {width}", got, want, rounding.gated(gate, up, kind, limit))


def test_padding_stays_zero(native, random):
    """A sigmoid of padding is not zero; the norm behind it must not see that."""
    x, w = normal(random, 3, 7), quantize(np.ones(7, np.float32), "f32")

    def both(recorder, symbols):
        return recorder.layer_norm(recorder.activate(symbols[0], "sigmoid"), w, None, 1e-5)

    apart = native.layer_norm(native.activate(x, "sigmoid"), w, None, 1e-5)
    assert native._run(both, [x]).tobytes() == apart.tobytes()


@pytest.mark.parametrize("cap", [0.5, 30.0, 50.0])
def test_softcap(cap, native, reference, random):
    """Also of values so small that they stay what they are."""
    for width in WIDTHS:
        for count in TOKENS:
            x = cap * edged(random, count, width)
            rounding.compare(f"{cap}", native.softcap(x, cap), reference.softcap(x, cap), rounding.softcap(x, cap))
    small = np.float32(1e-4) * np.linspace(-1, 1, 1001, dtype=np.float32)[None]
    rounding.compare("small", native.softcap(small, cap), small, np.abs(small) * 1e-6)


def test_what_is_not_a_number_stays_one(native):
    x = np.array([[np.nan, 1.0, -np.nan]], np.float32)
    for kind in ("silu", "gelu", "gelu_tanh", "relu", "relu2", "tanh"):
        assert np.isnan(native.activate(x, kind)).tolist() == [[True, False, True]], kind
    assert np.isnan(native.softcap(x, 30.0)).tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("heads", "dim", "begin", "end"), [(1, 7, 2, 7), (3, 16, 0, 5), (5, 33, 32, 33), (2, 192, 0, 128)]
)
def test_part_and_join(heads, dim, begin, end, native, reference, random):
    """The same bits; and joining the parts gives back the whole."""
    for count in TOKENS:
        x = normal(random, count, heads * dim)
        part = native.part(x, heads, begin, end)
        assert part.tobytes() == reference.part(x, heads, begin, end).tobytes()
        for rest in ((0, begin), (end, dim)):
            if rest[0] < rest[1]:
                other = native.part(x, heads, *rest)
                joined = native.join(part, other, heads)
                assert joined.tobytes() == reference.join(part, other, heads).tobytes()
                assert native.part(joined, heads, 0, end - begin).tobytes() == part.tobytes()
        one = normal(random, count, 5)
        joined = native.join(part, one, heads, True)
        assert joined.tobytes() == reference.join(part, one, heads, True).tobytes()


@pytest.mark.parametrize("format", ["f32", "bf16", "q8_0"])
def test_positions(format, native, reference, random):
    """Row offset + position, for texts that begin anywhere; a text longer than the table is refused."""
    table = random_weight(format, (80, 64), random, sizes(random, 80))
    starts, positions = np.array([0, 3, 5]), np.array([7, 8, 9, 60, 61], np.int32)
    b = Batch(np.arange(5), positions, starts, np.zeros(2, np.int32), np.arange(3), positions[:0], positions[:0])
    for offset in (0, 2):
        got, want = native.positions(table, b, offset), reference.positions(table, b, offset)
        assert got.tobytes() == want.tobytes() == table.decode()[positions + offset].tobytes()
    for ops in (native, reference):
        with pytest.raises(ValueError, match="the model knows 61 positions, and a sequence has more"):
            ops.positions(table, b, 19)


ROUTERS = {
    "softmax": Router(top_k=2),
    "softmax of the chosen": Router(top_k=3, renormalise=True),
    "all": Router(top_k=12, scale=2.5),
    "one": Router(top_k=1, sigmoid=True),
    "sigmoid": Router(top_k=4, sigmoid=True, renormalise=True, scale=1.5),
    "best of groups": Router(top_k=3, groups=4, top_groups=2, scale=16.0),
    "two best of groups": Router(top_k=4, sigmoid=True, renormalise=True, groups=3, top_groups=2, group_best=2),
    "groups of one": Router(top_k=2, groups=12, top_groups=5),
}


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ROUTERS)
def test_route(name, biased, native, reference, random):
    """The same experts; weights that the rounding of float64 to float32 may move to a neighbour. Every third row has
    equal logits, every fifth one logits of which the scores are equal."""
    router = ROUTERS[name]
    bias, scales = None, None
    if biased:
        bias = quantize((random.standard_normal(12) / 4).astype(np.float32), "f32")
        scales = quantize(random.uniform(0.5, 2, 12).astype(np.float32), "f32")
    for count in TOKENS:
        logits = (4 * random.standard_normal((count, 12))).astype(np.float32)
        logits[::3] = np.round(logits[::3] / 4)
        logits[::5, ::2] += 100
        got, want = (ops.route(logits, router, bias, scales) for ops in (native, reference))
        assert got[:, : router.top_k].tobytes() == want[:, : router.top_k].tobytes(), f"{count} tokens"
        rounding.compare(f"weights of {count} tokens", got, want, 2 * rounding.U * rounding.SLACK * want)


def test_route_by_hand(native, reference):
    """Values that can be seen. Of equal logits the first are chosen, which torch does not promise."""
    half = [0.5, 0.5]
    third = quantize(np.array([0, 0, 0.6, 0], np.float32), "f32")
    for router, bias, logits, experts, weights in (
        (Router(top_k=2), None, [0, 0, 0, 0], [0, 1], [0.25, 0.25]),
        (Router(top_k=2, renormalise=True), None, [0, 1, 0, 1], [1, 3], half),
        (Router(top_k=2, scale=3.0), None, [-200, 0, 0, -200], [1, 2], [1.5, 1.5]),
        (Router(top_k=1, sigmoid=True), third, [0, 0, -1000, 0], [2], [0]),
        (Router(top_k=1, sigmoid=True, renormalise=True), third, [0, 0, -1000, 0], [2], [0]),
        (Router(top_k=2, sigmoid=True), None, [0, 0, 1000, 0], [0, 2], [0.5, 1]),
        (Router(top_k=2, groups=2), None, [0, -500, 0, -500], [0, 1], [0.5, 0]),
        (Router(top_k=2, groups=2, sigmoid=True), None, [0, -9999, 0, 0], [0, 1], [0.5, 0]),
        (Router(top_k=2, groups=2, sigmoid=True, group_best=2), None, [0, -9999, 0, 0], [2, 3], half),
    ):
        for ops in (native, reference):
            got = ops.route(np.array([logits], np.float32), router, bias)
            assert got.tolist() == [[*experts, *weights]], f"{router} of {logits}"


def mixture(format, random, experts, width, hidden, biased):
    """Gates, ups and downs, and their biases or None."""
    shapes = ((hidden, width), (hidden, width), (width, hidden))
    made = [[random_weight(format, shape, random, shape[1] ** -0.5) for _ in range(experts)] for shape in shapes]
    vectors = [[quantize(normal(random, n), "f32") for _ in range(experts)] for n, _ in shapes]
    return (*made, tuple(vectors) if biased else None)


def routings(random, count, experts):
    """For each token and number of experts: chosen at random; all the same; and the last expert only."""
    for top_k in sorted({1, min(2, experts), experts}):
        chosen = np.sort([random.permutation(experts)[:top_k] for _ in range(count)], -1)
        weights = random.uniform(-1, 1, chosen.shape)
        for numbers in (chosen, np.broadcast_to(chosen[:1], chosen.shape), experts - top_k + 0 * chosen + range(top_k)):
            yield np.hstack([numbers, weights]).astype(np.float32)


@pytest.mark.parametrize("format", FORMATS)
def test_experts(format, native, random):
    """What each expert makes of a token has the bits of the verbs alone, which other tests hold against the reference;
    their sum lies as near the exact one as its roundings explain."""
    block = FORMATS[format].block
    for experts, width, hidden, kind in (
        (1, 33, 17, ("silu",)), (5, 96, 64, ("clamped", 2.0)), (3, 256, 256, ("silu",)), (4, 256, 512, ("gelu_tanh",)),
    ):  # fmt: skip
        if width % block or hidden % block:
            continue
        weights = mixture(format, random, experts, width, hidden, biased=experts != 3)
        biases = weights[3] or [[None] * experts] * 3
        for count in TOKENS:
            x = normal(random, count, width)
            each = []
            for gate, up, down, gate_bias, up_bias, down_bias in zip(*weights[:3], *biases, strict=True):
                gates, ups = native.linear(x, gate, gate_bias), native.linear(x, up, up_bias)
                each.append(native.linear(native.gated(gates, ups, *kind), down, down_bias))
            for routing in routings(random, count, experts):
                numbers, shares = np.split(routing, 2, -1)
                results = np.stack(each)[numbers.astype(int), np.arange(count)[:, None]]
                want = np.einsum("tk,tkh->th", shares, results, dtype=np.float64)
                got = native.experts(x, routing, *weights, *kind)
                what = f"{count} tokens, {shares.shape[1]} of {experts} experts of {width} x {hidden}"
                rounding.compare(what, got, want, rounding.mixed(results, shares))


@pytest.mark.parametrize("format", ["f32", "bf16", "q8_0", "q4_1", "mxfp4"])
@pytest.mark.parametrize("wide", [False, True])
def test_experts_are_those_of_the_reference(format, wide, random):
    """Within what the roundings between an expert's weights explain, of which some fall to the other neighbour."""
    native, reference = NativeOps(ONE, 1, wide=wide), ReferenceOps(ONE, 1, wide=wide)
    weights = mixture(format, random, 3, 96, 64, biased=True)
    x = random.standard_normal((17, 96)).astype(np.float32)
    for routing in routings(random, 17, 3):
        got, want = (ops.experts(x, routing, *weights, "clamped", 2.0) for ops in (native, reference))
        bound = rounding.experts(x, routing, *weights, "clamped", 2.0, wide=wide)
        rounding.compare(f"{routing.shape[1] // 2} of 3 experts", got, want, bound)


def test_a_token_does_not_see_who_else_takes_its_experts(random):
    """The same bytes alone, in company, and on one to three threads: of odd panels, and where experts go without."""
    for format, width, hidden in (("f32", 33, 17), ("bf16", 100, 40), ("q4_1", 96, 160), ("q6_k", 256, 256)):
        weights = mixture(format, random, 6, width, hidden, biased=True)
        x = normal(random, 23, width)
        routing = np.hstack([np.sort([random.permutation(5)[:3] for _ in x], -1), random.uniform(-1, 1, (23, 3))])
        routing = routing.astype(np.float32)
        alone = [NativeOps(ONE, 1, threads=1).experts(x[i : i + 1], routing[i : i + 1], *weights) for i in range(23)]
        assert len({row.tobytes() for row in alone}) == 23
        for threads in (1, 2, 3):
            ops = NativeOps(ONE, 1, threads=threads)
            for part in (slice(0, 1), slice(0, 2), slice(3, 8), slice(0, 23), slice(22, None, -1)):
                got = ops.experts(x[part], routing[part], *weights)
                assert got.tobytes() == np.concatenate(alone[part]).tobytes(), f"{format}, {threads} threads, {part}"


def test_gate_rows(native, reference, random):
    """One product, of a sigmoid that may round to its neighbour."""
    for width in WIDTHS:
        for count in TOKENS:
            x, gate = normal(random, count, width), np.clip(normal(random, count, 1), -1000, 1000)
            got, want = native.gate_rows(x, gate), reference.gate_rows(x, gate)
            rounding.compare(f"gate_rows {count} x {width}", got, want, 4 * rounding.U * np.abs(want) + 1e-40)


def several(lengths, pasts=None, reads=None, writes=None):
    """A step of some sequences, so many new tokens of each, whose states begin unless `reads` says where they are."""
    starts = np.cumsum([0, *lengths]).tolist()
    pasts = pasts or [0] * len(lengths)
    positions = [past + i for past, length in zip(pasts, lengths, strict=True) for i in range(length)]
    blocks = list(range(len(lengths)))
    reads, writes = reads or [-1] * len(lengths), writes or blocks
    return Batch([0] * starts[-1], positions, starts, blocks, [*blocks, len(lengths)], [], blocks, [], reads, writes)


def in_steps(verb, whole, lengths, cuts):
    """What a verb makes of texts whose rows lie one after the other in the arrays `whole`, in steps of so many tokens
    of each: (T, N), in the order of `whole`. Places are used by turns, and hold what other texts have left there."""
    starts = np.cumsum([0, *lengths])
    out = [[] for _ in lengths]
    for step, past in enumerate(range(0, max(lengths), cuts)):
        here = [s for s, length in enumerate(lengths) if past < length]
        spans = [slice(starts[s] + past, starts[s] + min(past + cuts, lengths[s])) for s in here]
        counts = [span.stop - span.start for span in spans]
        reads = [2 * s + (step - 1) % 2 for s in here] if step else None
        batch = several(counts, [past] * len(here), reads, [2 * s + step % 2 for s in here])
        got = verb(*(np.concatenate([a[span] for span in spans]) for a in whole), batch)
        for s, rows in zip(here, np.split(got, np.cumsum(counts)[:-1]), strict=True):
            out[s].append(rows)
    return np.concatenate([np.concatenate(rows) for rows in out])


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("channels", "length"), [(1, 2), (16, 3), (40, 4), (64, 4), (130, 3), (257, 9)])
def test_short_conv(channels, length, biased, random):
    """Texts shorter and longer than the filter. In steps of one and of three tokens: the same bytes."""
    native, reference = NativeOps(ONE, 4), ReferenceOps(ONE, 4)
    lengths = (1, 2, 11, 5)
    x = normal(random, sum(lengths), channels)
    w = random_weight("f32", (channels, length), random, sizes(random, channels))
    w = replace(w, shape=(channels, 1, length))
    bias = quantize(normal(random, channels), "f32") if biased else None
    batch = several(lengths)
    got = native.short_conv(0, x, w, bias, batch)
    bound = rounding.short_conv(x, w, bias, batch)
    rounding.compare(f"{channels} x {length}", got, reference.short_conv(0, x, w, bias, batch), bound)
    for cuts in (1, 3):
        parts = in_steps(lambda x, batch: native.short_conv(0, x, w, bias, batch), [x], lengths, cuts)
        assert parts.tobytes() == got.tobytes()
        parts = in_steps(lambda x, batch: reference.short_conv(0, x, w, bias, batch), [x], lengths, cuts)
        rounding.compare(f"steps of {cuts}", parts, got, 2 * bound)


RECURRENCES = [  # heads, key heads, keys, values
    (1, 1, 1, 16), (2, 1, 5, 16), (4, 2, 16, 32), (6, 3, 24, 48), (2, 2, 128, 64), (3, 1, 64, 16),
]  # fmt: skip


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize(("heads", "key_heads", "keys", "values"), RECURRENCES)
def test_recurrence(heads, key_heads, keys, values, delta, skips, random):
    """Keys of length 1, as the delta rule needs them. In steps of one and of three tokens: the same bytes."""
    native, reference = NativeOps(ONE, 4), ReferenceOps(ONE, 4)
    lengths = (1, 2, 11, 5)
    count = sum(lengths)
    q, k, v = (normal(random, count, n) for n in (key_heads * keys, key_heads * keys, heads * values))
    k = k.reshape(count, key_heads, keys)
    k = (k / np.linalg.norm(k, axis=-1, keepdims=True)).reshape(count, -1).astype(np.float32)
    beta = random.uniform(0, 1, (count, heads)).astype(np.float32)
    decay = random.uniform(0.5, 1, (count, heads)).astype(np.float32)
    skip = quantize(random.standard_normal(heads).astype(np.float32), "f32") if skips else None
    rest, batch = (heads, key_heads, delta, skip), several(lengths)
    given = [q, k, v, beta, decay]
    got = native.recurrence(0, *given, batch, *rest)
    want, bound = reference.recurrence(0, *given, batch, *rest), rounding.recurrence(*given, batch, *rest)
    gap = np.abs(got - want)
    assert (gap <= bound).all(), f"off by {(gap / bound).max():.3g} of what is allowed"
    assert np.linalg.norm(bound) < np.linalg.norm(want) / 1000
    for cuts in (1, 3):
        parts = in_steps(lambda *a: native.recurrence(0, *a, *rest), given, lengths, cuts)
        assert parts.tobytes() == got.tobytes()
        parts = in_steps(lambda *a: reference.recurrence(0, *a, *rest), given, lengths, cuts)
        assert (np.abs(parts - got) <= 3 * bound).all()


def test_recurrence_by_hand(native, reference):
    """Two tokens of one head whose key is 1: S becomes beta v, then decay S, corrected by beta of what it lacks."""
    ones, batch = np.ones((2, 1), np.float32), several([2])
    v = np.float32([[8] * 16, [4] * 16])
    beta, decay = np.float32([[0.5], [0.25]]), np.float32([[1.0], [0.5]])
    for ops in (native, reference):
        got = ops.recurrence(0, ones, ones, v, beta, decay, batch, 1, 1, True)
        assert got[:, 0].tolist() == [4.0, 2.0 + 0.25 * (4 - 2)]
        got = ops.recurrence(0, ones, 2 * ones, v, beta, decay, batch, 1, 1, False, quantize(np.float32([10]), "f32"))
        assert got[:, 0].tolist() == [2 * 4.0 + 80, 0.5 * 8 + 2 * 0.25 * 4 + 40]


def test_decay_and_softplus(native, reference, random):
    x = np.concatenate([normal(random, 17, 5), np.float32([[0, -0.0, 90, -90, 20], [1e-30, -1e-30, 1e4, -1e4, 700]])])
    rates = quantize(np.float32([-20, -2, 0, 1, 5]), "f32")
    close = 2 * rounding.U * rounding.SLACK
    for got, want in (
        (native.softplus(x), reference.softplus(x)),
        (native.decay(np.abs(x), rates), reference.decay(np.abs(x), rates)),
    ):
        assert (np.abs(got - want) <= close * np.abs(want) + 2.0**-126).all()
    assert native.softplus(np.float32([[0.0]])) == np.float32(np.log(2))
    assert native.decay(np.float32([[1.0]]), quantize(np.float32([0.0]), "f32")) == np.float32(np.exp(-1))


def test_rows(native, reference, random):
    for width in WIDTHS:
        for count in TOKENS:
            x, b = normal(random, count, width), one_sequence(count)
            assert native.rows(x, b).tobytes() == reference.rows(x, b).tobytes(), f"{count} x {width}"


def steps(random, lengths, blocks):
    """Batches that write several sequences together: lengths[i][s] new tokens of sequence s in step i.

    Tables are drawn from `blocks` blocks without order, so that a neighbour's block is never the next number.
    """
    totals = np.sum(lengths, 0)
    free = random.permutation(blocks).astype(np.int32)
    needs = -(-totals // 64)
    tables = np.split(free[: needs.sum()], np.cumsum(needs)[:-1])
    past = np.zeros(len(totals), int)
    made = []
    for i, new in enumerate(lengths):
        took = [s for s in range(len(totals)) if new[s]]
        positions = np.concatenate([np.arange(past[s], past[s] + new[s]) for s in took]).astype(np.int32)
        starts = np.cumsum([0, *(new[s] for s in took)]).astype(np.int32)
        table = np.concatenate([tables[s] for s in took])
        block_starts = np.cumsum([0, *(needs[s] for s in took)]).astype(np.int32)
        rows = np.arange(len(positions), dtype=np.int32)
        made.append(Batch(rows, positions, starts, table, block_starts, rows, free if i == 0 else free[:0]))
        past += new
    return made


ATTENTION = [
    # head_dim, heads, kv_heads, lengths
    (16, 4, 2, [(17, 63, 1), (1, 3, 5), (5, 1, 17)]),
    (64, 9, 3, [(17, 63, 66), (1, 3, 5)]),
    (80, 6, 2, [(5, 64, 1), (3, 1, 1)]),
    (128, 8, 1, [(17, 3), (1, 65)]),
    (64, 3, 3, [(300, 5), (1, 1), (3, 255)]),  # more than one chunk of 256 keys: by query tile, and by chunk
    (16, 96, 1, [(17, 260), (1, 1)]),  # as many rows as one item may have
]


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8"])
@pytest.mark.parametrize(("dim", "heads", "kv_heads", "lengths"), ATTENTION)
def test_attention(kv, dim, heads, kv_heads, lengths, random):
    """Several sequences in scattered blocks, prompts in chunks, then single tokens.

    The bound knows which weights may round to the other neighbour in bfloat16. It is far below what the loss of one
    key of 300 would do; and a query twice as sharp in every second step makes one key dominate.
    """
    blocks = 12
    native, reference = (kind([KvLayer(kv_heads, dim, dim)] * 2, blocks, kv) for kind in (NativeOps, ReferenceOps))
    for i, batch in enumerate(steps(random, lengths, blocks)):
        count = len(batch.tokens)
        q, k, v = (random.standard_normal((count, n * dim)).astype(np.float32) for n in (heads, kv_heads, kv_heads))
        args = q * (1 + i % 2), k, v, batch, heads, kv_heads, dim**-0.5
        got, want = native.attention(1, *args), reference.attention(1, *args)
        bound = rounding.attention(reference, 1, args[0], batch, heads, kv_heads, dim**-0.5)
        rounding.compare(f"attention {kv}, step {i}", got, want, bound)


WINDOWS = [
    # window, head_dim, heads, kv_heads, lengths
    (1, 16, 2, 1, [(17, 300), (1, 1)]),
    (3, 16, 4, 2, [(17, 63, 1), (1, 3, 5), (5, 1, 17)]),
    (64, 64, 3, 3, [(300, 5), (1, 1), (3, 255), (1, 1)]),
    (200, 16, 4, 2, [(620, 250), (1, 1), (4, 9)]),  # the first chunk is seen by nobody in the end
    (256, 16, 96, 1, [(17, 260), (1, 1)]),
    (1000, 80, 2, 1, [(300, 5), (1, 1)]),  # longer than the texts: sees everything
]


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8"])
@pytest.mark.parametrize(("window", "dim", "heads", "kv_heads", "lengths"), WINDOWS)
def test_attention_over_a_window(kv, window, dim, heads, kv_heads, lengths, random):
    """Every seventh value is huge: one that is seen and should not be, or the other way round, swamps the rest."""
    blocks = 16
    native, reference = (kind([KvLayer(kv_heads, dim, dim)] * 2, blocks, kv) for kind in (NativeOps, ReferenceOps))
    for i, batch in enumerate(steps(random, lengths, blocks)):
        count = len(batch.tokens)
        q, k, v = (random.standard_normal((count, n * dim)).astype(np.float32) for n in (heads, kv_heads, kv_heads))
        v += (1000.0 * (np.asarray(batch.positions) % 7 == 0))[:, None].astype(np.float32)
        args = q, k, v, batch, heads, kv_heads, dim**-0.5, window
        got, want = native.attention(1, *args), reference.attention(1, *args)
        bound = rounding.attention(reference, 1, q, batch, heads, kv_heads, dim**-0.5, window)
        rounding.compare(f"attention {kv}, window {window}, step {i}", got, want, bound)


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8"])
def test_attention_of_layers_of_other_sizes(kv, random):
    """Each keeps its own heads, and one that stores nothing reads what another has stored, as that one does: over the
    same window the very bytes, over another one more or less."""
    layers, blocks = [KvLayer(2, 24, 24), KvLayer(1, 64, 48), KvLayer(3, 16, 16)], 12
    native, reference = NativeOps(layers, blocks, kv), ReferenceOps(layers, blocks, kv)
    for batch in steps(random, [(300, 5), (1, 1), (3, 255)], blocks):
        count = len(batch.tokens)
        for layer, (kv_heads, dim, value_dim) in enumerate(layers):
            heads, scale = 6, dim**-0.5
            widths = (heads * dim, kv_heads * dim, kv_heads * value_dim)
            q, k, v = (random.standard_normal((count, width)).astype(np.float32) for width in widths)
            shape = (batch, heads, kv_heads, scale)
            got = native.attention(layer, q, k, v, *shape)
            want = reference.attention(layer, q, k, v, *shape)
            rounding.compare("stored", got, want, rounding.attention(reference, layer, q, *shape))
            assert native.attention(layer, q, None, None, *shape).tobytes() == got.tobytes()
            seen = native.attention(layer, q, None, None, *shape, 100)
            assert reference.attention(layer, q, None, None, *shape).tobytes() == want.tobytes()
            want = reference.attention(layer, q, None, None, *shape, 100)
            rounding.compare("read", seen, want, rounding.attention(reference, layer, q, *shape, 100))


@pytest.mark.parametrize("kv", ["bf16", "f32"])  # int8 has no values that are no numbers
def test_a_block_that_is_taken_again_holds_nothing(kv, random):
    """Values that are no numbers, behind those of the text that takes their block next: the bytes of memory that was
    never used."""
    q, k, v = (random.standard_normal((70, 16)).astype(np.float32) for _ in range(3))
    used = NativeOps(ONE, 2, kv)
    assert np.isnan(used.attention(0, q, k, v * np.nan, one_sequence(70, 2), 1, 1, 0.25)).all()
    rows = [ops.attention(0, q[:9], k[:9], v[:9], one_sequence(9), 1, 1, 0.25) for ops in (used, NativeOps(ONE, 2, kv))]
    assert np.isfinite(rows[0]).all()
    assert rows[0].tobytes() == rows[1].tobytes()


def test_a_window_changes_something(random):
    """The same inputs with a window of 5 and of 6: rows 0 to 4 are the same bytes, later ones differ."""
    q, k, v = (random.standard_normal((9, 16)).astype(np.float32) for _ in range(3))
    rows = [NativeOps(ONE, 1).attention(0, q, k, v, one_sequence(9), 1, 1, 0.25, w) for w in (0, 5, 6)]
    for none, five, six in zip(*(r[:5] for r in rows), strict=True):
        assert none.tobytes() == five.tobytes() == six.tobytes()
    assert rows[0][5].tobytes() == rows[2][5].tobytes() != rows[1][5].tobytes()
    assert len({r[6:].tobytes() for r in rows}) == 3


BENT = [
    # options, head_dim, value_dim, heads, kv_heads, lengths
    ({"softcap": 3.0}, 16, 16, 4, 2, [(17, 300), (1, 1)]),
    ({"softcap": 50.0, "window": 70}, 64, 64, 3, 1, [(17, 270), (1, 1)]),
    ({"sinks": True}, 64, 64, 4, 1, [(300, 5), (1, 1), (3, 255)]),
    ({"sinks": True, "window": 128}, 64, 64, 2, 2, [(300, 5), (1, 1)]),
    ({"slopes": True}, 64, 64, 8, 8, [(300, 5), (1, 1), (3, 255)]),
    ({"softcap": 20.0, "sinks": True, "slopes": True, "window": 99}, 32, 32, 8, 2, [(300, 5), (9, 1)]),
    ({}, 192, 128, 4, 4, [(270, 5), (1, 1)]),
    ({"softcap": 10.0}, 16, 48, 4, 2, [(17, 30), (1, 1)]),
    ({}, 80, 80, 4, 4, [(17, 270), (1, 1)]),
    ({}, 96, 96, 2, 1, [(17, 270), (1, 1)]),
    ({}, 256, 256, 2, 1, [(17, 30), (1, 1)]),
    ({}, 24, 24, 4, 2, [(17, 270), (1, 1)]),
    ({"sinks": True}, 8, 40, 4, 1, [(17, 270), (5, 1)]),
    ({}, 4, 2, 3, 3, [(17, 70), (1, 1)]),
]


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8"])
@pytest.mark.parametrize(("options", "dim", "value_dim", "heads", "kv_heads", "lengths"), BENT)
def test_attention_of_other_kinds(kv, options, dim, value_dim, heads, kv_heads, lengths, random):
    """Caps, sinks, slopes, and heads of any size. What each changes is far more than the bound allows."""
    blocks = 16
    sizes = ([KvLayer(kv_heads, dim, value_dim)], blocks, kv)
    native, reference = NativeOps(*sizes), ReferenceOps(*sizes)
    options = dict(options)
    if "sinks" in options:
        options["sinks"] = quantize(random.uniform(-2, 5, heads).astype(np.float32), "f32")
    if "slopes" in options:
        options["slopes"] = [2.0 ** (-8 * (i + 1) / heads) for i in range(heads)]
    for i, batch in enumerate(steps(random, lengths, blocks)):
        count = len(batch.tokens)
        widths = (heads * dim, kv_heads * dim, kv_heads * value_dim)
        q, k, v = (random.standard_normal((count, width)).astype(np.float32) for width in widths)
        shape, scale = (batch, heads, kv_heads), 2 * dim**-0.5
        got = native.attention(0, q, k, v, *shape, scale, **options)
        want = reference.attention(0, q, k, v, *shape, scale, **options)
        bound = rounding.attention(reference, 0, q, *shape, scale, **options)
        rounding.compare(f"attention {kv}, step {i}", got, want, bound)
        for name in options:
            less = {key: value for key, value in options.items() if key != name}
            without = ReferenceOps(*sizes)
            without.keys[:], without.values[:] = reference.keys, reference.values
            without.value_scales[:] = reference.value_scales
            without = without.attention(0, q, k, v, *shape, scale, **less)
            assert (np.abs(without - want) > bound).mean() > 0.1 or i, f"{name} changes nothing"


@pytest.mark.parametrize("kv", ["bf16", "int8"])
def test_attention_never_reads_what_it_should_not(kv, random):
    """Blocks full of another text's huge values, then taken again: without clearing or masking they would swamp all.

    Layer 0 is written with 1e30 and layer 1 must not see it either.
    """
    native, reference = (kind([KvLayer(1, 16, 16)] * 2, 2, kv) for kind in (NativeOps, ReferenceOps))
    dirty, clean = one_sequence(128, 2), one_sequence(5, 1)
    huge = np.full((128, 16), 1e30, np.float32)
    native.attention(1, huge, huge, huge, dirty, 1, 1, 0.25)
    for layer in (0, 1):
        q, k, v = (random.standard_normal((5, 16)).astype(np.float32) for _ in range(3))
        b = clean if layer == 0 else replace(clean, fresh=clean.fresh[:0])
        args = q, k, v, b, 1, 1, 0.25
        got, want = native.attention(layer, *args), reference.attention(layer, *args)
        rounding.compare("attention", got, want, rounding.attention(reference, layer, q, b, 1, 1, 0.25))


@pytest.mark.skipif(variants.INNER, reason="one run of it is enough")
@pytest.mark.parametrize("use", ["print(variant())", "print(_native.Pool(1).threads, _native.Plan)"])
def test_unknown_instruction_set(use):
    """A sentence that names what is known, from whoever asks for kernels; importing alone is no reason to fail."""
    run = python("from quickbrown import _native; from quickbrown.backends.native import variant; " + use, "nonsense")
    if "variant()" in use:
        assert run.returncode == 1, run
        assert "RuntimeError: QB_ISA=nonsense is not a known instruction set; known here are: scalar" in run.stderr
    else:
        assert run.returncode == 0, run


@pytest.mark.skipif(variants.INNER, reason="one run of it is enough")
def test_unknown_instruction_set_stops_a_model():
    code = (
        "from quickbrown.backends.native.eager import NativeOps; import numpy as np; "
        "NativeOps([(1, 16, 16)], 1).add(np.ones((1, 1), 'f'), np.ones((1, 1), 'f'))"
    )
    run = python(code, "nonsense")
    assert run.returncode == 1, run
    assert "RuntimeError: QB_ISA=nonsense is not a known instruction set" in run.stderr


@pytest.mark.skipif(variants.INNER, reason="one run of it is enough")
def test_impossible_instruction_set():
    """One that the build knows and this CPU lacks."""
    known = python("from quickbrown.backends.native import variant; variant()", "?").stderr.strip()
    known = known.rpartition("known here are: ")[2].rstrip(".").split()
    missing = [name for name in known if name not in (variants.IN_USE, *variants.OTHERS)]
    assert known
    if not missing:
        pytest.skip(f"this CPU can run all of {', '.join(known)}; one without AVX-512 would run this")
    run = python("from quickbrown.backends.native import variant; variant()", missing[0])
    assert run.returncode == 1, run
    assert f"RuntimeError: QB_ISA={missing[0]} is impossible here: this CPU lacks " in run.stderr


def python(code, isa):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"QB_ISA": isa}, capture_output=True, text=True, timeout=60
    )


class TestOthers:
    pytestmark = variants.outer_only

    def test_under(self, name):
        """All of the above under each other instruction set of this machine."""
        variants.again(__file__, name)
