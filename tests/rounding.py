"""How far two honest computations of a verb may lie apart: bounds, element by element, derived from their roundings.

Every float32 operation rounds by at most U, relative to its result; a value that went through n of them is off by at
most n U / (1 - n U), written n U SLACK here (n U stays below 0.01 throughout). `reference.py` rounds once, at each
verb's end. The native kernels keep the chains of operations that csrc/kernels describes, counted below; the portable
variant rounds products and sums separately, which costs one more rounding a product than a fused multiply-add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.backends.reference import (
    ACTIVATE,
    CHUNK,
    QUERY,
    ROUND,
    WEIGHT,
    ReferenceOps,
    activation,
    expert_weights,
    pairs,
    scored,
    sigmoid,
    turns,
)
from quickbrown.engine.batch import Batch
from quickbrown.models.ops import KvLayer
from quickbrown.models.rope import Rope
from quickbrown.models.routing import Router
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import quantize
from quickbrown.quant.weight import Weight

Floats = npt.NDArray[Any]

U = 2.0**-24
SLACK = 1.01
TINY = 2.0**-126  # what is smaller is zero in the native kernels (csrc/core/denormals.h)
EXP2 = 7 * U  # exp2 of csrc/kernels/rows.inl: the polynomial 2e-7 = 3.4 U, its evaluation by Horner 3 U


def compare(what: str, got: Floats, want: Floats, bound: Floats | float) -> float:
    """Fail unless |got - want| <= bound everywhere; else the largest gap, relative to the largest magnitude."""
    assert got.shape == want.shape, f"{what}: shapes {got.shape} and {want.shape}"
    gap = np.abs(got.astype(np.float64) - want)
    bound = np.broadcast_to(bound, gap.shape)
    largest = float(np.abs(want).max(initial=0)) or 1.0
    # A bound as large as the numbers themselves would let anything through.
    assert bound.max(initial=0) < largest / 8, f"{what}: the bound {bound.max():.2g} says nothing beside {largest:.2g}"
    bound = bound + TINY
    if not (gap <= bound).all():
        wrong = ~(gap <= bound)
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {wrong.sum()} of {gap.size} elements lie outside their bound, the first at {at}: "
            f"{got[at]!r}, not {want[at]!r}; the gap is {gap[at]:.3g}, {bound[at]:.3g} is allowed"
        )
    return float(gap.max(initial=0)) / largest


# Formats with a minimum, and the bytes of a block where there are only the q.
MINIMA = {
    "q4_1": slice(4, None), "q5_1": slice(4, None), "q4_k": slice(16, None), "q5_k": slice(16, None),
    "q2_k": slice(16, 80),
}  # fmt: skip

ZEROS = {"u4z": 8, "u8z": 128}  # what a kernel takes off q before it adds what that differs from the zero point by


def held(w: Weight) -> Weight:
    """The weight that kernels multiply: the same values in a format that has some."""
    form = FORMATS[w.format]
    if form.held is None:
        return w
    return Weight(form.held, w.shape, form.transcode(w.data)) if form.transcode else quantize(w.decode(), form.held)


def parts(w: Weight) -> Floats:
    """Magnitudes that a kernel adds up for each weight: |w|, but |d q| + |m| where the minimum is added apart."""
    values = w.decode().astype(np.float64)
    if w.format in ZEROS:
        f, rows = FORMATS[w.format], w.data.reshape(w.shape[0], -1, FORMATS[w.format].block_bytes).copy()
        if w.format == "u4z":
            rows[..., 4:] = 0x88
        else:
            rows[..., 6:] = 128
        least = f.decode(rows.reshape(w.data.shape)).astype(np.float64)  # d * (middle - zero)
        own = f.decode(w.data).astype(np.float64)
        return np.abs(own - least) + np.abs(least)
    if w.format not in MINIMA:
        return np.abs(_held(w, values))
    bare = w.data.reshape(w.shape[0], -1, FORMATS[w.format].block_bytes).copy()
    bare[..., MINIMA[w.format]] = 0
    least = Weight(w.format, w.shape, bare.reshape(w.data.shape)).decode().astype(np.float64)
    return np.abs(values - least) + np.abs(least)


def _held(w: Weight, values: Floats) -> Floats:
    """Columns in the order in which they are held."""
    return values if w.columns is None else values[:, w.columns]


def widest(w: Weight) -> Floats:
    """Magnitudes that a kernel on bf16 adds up for each weight: it multiplies 128 + u, or for u of 8 bits
    (128 + lower half) + 16 * (128 + upper half), and takes off what that is too much.

    In a group that uses its range, d times that is at most 24 times the largest weight (iq4_nl: 17 * 128 + 241 d, and
    its largest entries are 104, 113 and 127 d; all others less). Groups of s8_k need not use theirs: 17 * 128 + 255 d.
    Those of q2_k and q3_k are small beside 128: 131 d and 135 d.
    """
    if w.format == "s8_k":
        blocks = w.data.reshape(w.shape[0], -1, 276)
        d, s = blocks[..., :4].copy().view("<f4"), blocks[..., 4:20].view(np.int8)
        return parts(w) + np.repeat(np.abs(d.astype(np.float64) * s) * (17 * 128 + 255), 16, -1).reshape(w.shape)
    if w.format == "q2_k":
        blocks = w.data.reshape(w.shape[0], -1, 84)
        d, s = blocks[..., 80:82].copy().view("<f2"), blocks[..., :16] & 15
        return parts(w) + np.repeat(np.abs(d.astype(np.float64) * s) * 131, 16, -1).reshape(w.shape)
    if w.format == "q3_k":
        blocks = w.data.reshape(w.shape[0], -1, 110)
        d, packed = blocks[..., 108:].copy().view("<f2"), blocks[..., 96:108, None]
        lower, upper = packed[..., :8, :] >> [0, 4] & 15, packed[..., 8:, :] >> [0, 2, 4, 6] & 3
        s = np.concatenate([*np.moveaxis(lower, -1, 0)], -1) + 16.0 * np.concatenate([*np.moveaxis(upper, -1, 0)], -1)
        return parts(w) + np.repeat(np.abs(d.astype(np.float64) * (s - 32)) * 135, 16, -1).reshape(w.shape)
    values = np.abs(_held(w, w.decode().astype(np.float64)))
    groups = values.reshape(*w.shape[:-1], -1, 16 if w.format == "q6_k" else 32)
    most = np.broadcast_to(24 * groups.max(-1, keepdims=True), groups.shape)
    return parts(w) + most.reshape(values.shape)


def linear(x: Floats, w: Weight, bias: Weight | None = None, any_order: bool = False, wide: bool = False) -> Floats:
    """(T, N) for x (T, K). The input's rounding is the same operations on both sides, so it adds nothing. A bias is one
    more sum, wherever in the chain.

    any_order  for sums of K products in whatever order: K - 1 sums, a product, the reference's rounding
    """
    w = held(w)
    rounded, inputs = activation(w.format, wide), w.shape[1]
    by_groups = rounded != activation(w.format)
    if any_order:
        steps = inputs + 1
    elif by_groups:
        # a group: two chains of 8 units of 2, their join (and that of two halves of a byte), the sum of x (a tree of
        # 5 and a join) and its product, the scale and its product; sums over groups; the reference's three
        sums = 2 if w.format in MINIMA or w.format in ZEROS else 1
        sums *= 2 if w.format in ("q6_k", "s8_k", "q2_k", "q3_k") else 1
        steps = 2 * 8 + 2 + 6 + 1 + 3 + inputs // 32 * sums + 3
    elif rounded == "int8":
        # a group: its scale, its product and the sums over groups (twice where a minimum is added);
        # the reference: the decoded weight, the decoded input, the result
        # a zero point: the difference from it and its product with d too
        steps = inputs // 32 * (2 if w.format in MINIMA or w.format in ZEROS else 1) + 2 + 3 + 2 * (w.format in ZEROS)
    else:
        # four chains over padded inputs, a product, two joins; the reference's rounding
        steps = -(-inputs // 8) * 2 + 1 + 2 + 1
    x = x if w.columns is None else x[:, w.columns]
    size = np.abs(ROUND[rounded](x)).astype(np.float64) @ (widest(w) if by_groups else parts(w)).T
    if bias is not None:
        steps, size = steps + 1, size + np.abs(bias.decode())
    return steps * U * SLACK * size


def rms_norm(
    x: Floats, w: Weight | None, eps: float, heads: int = 1, offset: float = 0.0, any_order: bool = False
) -> Floats:
    """(T, heads * D). The sum of squares has no cancellation, so its roundings count relative, halved by the root."""
    width = x.shape[-1] // heads
    chain = width if any_order else -(-width // 32) + 1 + 4  # two chains of 16 lanes each, their join, a tree
    # product; division, eps as float32, sum with it | root, reciprocal, two products, the reference's rounding
    steps = 0.5 * (chain + 1 + 3) + 5
    part = x.astype(np.float64).reshape(len(x), heads, width)
    out = part / np.sqrt(np.mean(part * part, -1, keepdims=True) + eps)
    out *= 1 if w is None else w.decode().reshape(-1, width) + np.float32(offset)
    return steps * U * SLACK * np.abs(out.reshape(x.shape))


def layer_norm(
    x: Floats, w: Weight | None, bias: Weight | None, eps: float, heads: int = 1, any_order: bool = False
) -> Floats:
    """(T, heads * D). The mean is off by its sum's roundings, d = x - mean by that and its own. That moves the variance
    by its square alone, since d without it adds up to zero.
    """
    width = x.shape[-1] // heads
    chain = width if any_order else -(-width // 32) + 1 + 4
    part = x.astype(np.float64).reshape(len(x), heads, width)
    shift = (chain + 1) * U * np.mean(np.abs(part), -1, keepdims=True)
    part = part - part.mean(-1, keepdims=True)
    variance = np.mean(part * part, -1, keepdims=True) + eps
    # product, two of d; division, eps as float32, sum with it | root, reciprocal, d, two products, the bias, the
    # reference's rounding
    steps = 0.5 * (chain + 3 + 3) + 7
    weight = np.abs(1 if w is None else w.decode()) / np.sqrt(variance)
    bound = weight * (shift + np.abs(part) * (steps * U + 0.5 * shift**2 / variance))
    bound += 0 if bias is None else 2 * U * np.abs(bias.decode())
    return SLACK * bound.reshape(x.shape)


def rope(x: Floats, batch: Batch, heads: int, rope: Rope, angle_steps: float = 0) -> Floats:
    """(T, heads * D): cos and sin as float32, a product, a sum, the reference's rounding; a factor on cos and sin, as
    float32 too, and its product. What does not turn is the same bits.

    angle_steps  roundings of an angle, where they are computed in float32
    """
    sizes = np.abs(x.astype(np.float64)).reshape(len(x), heads, -1)
    first, second = pairs(rope)
    a, b = sizes[..., first], sizes[..., second]
    cos, sin = (np.abs(turned) for turned in turns(batch, rope))
    steps = 4 if rope.factor == 1 else 6
    moved = 0.0
    if angle_steps:
        spans = np.repeat(batch.spans or [0] * (len(batch.starts) - 1), np.diff(batch.starts))
        angles = np.array([p * rope.angles(span)[0] for p, span in zip(batch.positions, spans, strict=True)])
        moved = angle_steps * U * rope.factor * angles[:, None] * (a + b)
    bound = np.zeros_like(sizes)
    bound[..., first] = steps * U * (a * cos + b * sin) + moved
    bound[..., second] = steps * U * (b * cos + a * sin) + moved
    return SLACK * bound.reshape(x.shape)


# tanh = -m / (m + 2), m = exp2_minus_1(t): of csrc/kernels/rows.inl. The polynomial is off by 0.4 U, its evaluation by
# 3 U, and by 2 more once it is scaled and 1 is taken off; t by 2 U, which moves m by as much at most. A relative error
# of m counts up to twice. Then a sum and a quotient.
TANH = (2 * (0.4 + 3 + 2 + 2 + 2) + 2) * U
TINY = 2.0**-126  # what exp2 leaves out, or more


def activate(x: Floats, kind: str) -> Floats:
    """Of e = exp2(t) in x / (1 + e), t is off by some U |t|, which is felt as far as e / (1 + e) goes; then a sum and a
    quotient. Where exp2 overflows, t is above 127 and 0 stands for less than |x| 2^-126. Last the reference's rounding.
    """
    x = x.astype(np.float64)
    value = np.abs(ACTIVATE[kind](x))
    if kind in ("silu", "sigmoid", "gelu_tanh"):
        exponent, steps = x, 2  # the constant and the product
        if kind == "gelu_tanh":  # a square, a constant, its product, a sum with another, a product
            exponent, steps = math.sqrt(8 / math.pi) * (x + 0.044715 * x**3), 6
        own = (steps * U * np.abs(exponent) * sigmoid(-exponent) + EXP2 + 2 * U) * value
        own += np.where(exponent < -87, TINY * np.maximum(np.abs(x), 1), 0)
    elif kind == "gelu":
        # a Q(a) of a = |x|: three roundings of a^2 / 2; 8 terms by Horner, whose magnitudes add up to 1.34 of the
        # result, of two roundings each; t is off by 3 U, which counts 2.9 times; the polynomial 1 U, two products
        tail = np.abs(ACTIVATE["gelu"](-np.abs(x)))
        own = (1.5 * x**2 + 7 + 16 * 1.34 + 8.7 + 1 + 2) * U * tail + 2 * U * value
        own += np.where(np.abs(x) > 13, TINY * np.abs(x), 0)
    else:
        own = {"relu": 0.0, "relu2": U, "tanh": TANH}[kind] * value
    return SLACK * (own + U * value)


def gated(gate: Floats, up: Floats, kind: str, limit: float = 0.0) -> Floats:
    """One product more than `activate`; "clamped" also has a sum, and takes a third rounding for its constant."""
    if kind == "clamped":
        gate, up = np.minimum(gate, np.float32(limit)).astype(np.float64), np.clip(up, -limit, limit) + 1.0
        exponent = 1.702 * gate
        value = np.abs(gate) * sigmoid(exponent)
        own = (3 * U * np.abs(exponent) * sigmoid(-exponent) + EXP2 + 2 * U) * value
        own += np.where(exponent < -87, TINY * np.abs(gate), 0)
        return SLACK * np.abs(up) * (own + 3 * U * value)
    value = np.abs(ACTIVATE[kind](gate.astype(np.float64)))
    return SLACK * np.abs(up) * (activate(gate, kind) + U * value)


def softcap(x: Floats, cap: float) -> Floats:
    """A quotient, which counts once at most, tanh, a product, the reference's rounding."""
    return SLACK * (TANH + 3 * U) * np.abs(cap * np.tanh(x.astype(np.float64) / cap))


def attention(
    ops: ReferenceOps,
    layer: int,
    q: Floats,
    batch: Batch,
    heads: int,
    kv_heads: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Weight | None = None,
    slopes: Any = None,
) -> Floats:
    """(T, heads * E), from the keys and values that `ops` holds after the verb ran."""
    dim, grouped = ops.keys[layer].shape[-1], (kv_heads, heads // kv_heads)
    queries, _ = ops.round_kv(q.reshape(len(q), *grouped, dim), QUERY)
    slope = np.array(slopes or [0.0] * heads, np.float32).astype(np.float64).reshape(*grouped, 1)
    sink = None if sinks is None else sinks.decode().astype(np.float64).reshape(*grouped, 1)
    out = np.empty((len(q), heads, ops.values[layer].shape[-1]))
    for s in range(len(batch.starts) - 1):
        table = batch.blocks[batch.block_starts[s] : batch.block_starts[s + 1]]
        slots = (table[:, None] * 64 + np.arange(64)).reshape(-1)
        for t in range(batch.starts[s], batch.starts[s + 1]):
            end = batch.positions[t] + 1
            first = max(0, end - window) if window else 0
            keys, values = ops.keys[layer][slots[:end]], ops.values[layer][slots[first:end]]
            scales = ops.value_scales[layer][slots[first:end]]
            scores = scored(queries[t], keys, scale, softcap, slope)[..., first:]
            sizes = scored(np.abs(queries[t]), np.abs(keys[first:]), scale, 0.0, np.zeros_like(slope))
            most = capped = sizes.max(-1, keepdims=True)  # of any |score| as summed, and as capped
            # Of both a score and the largest: a chain of D + 1 roundings, and what they are made of it. An exact sum of
            # integers is rounded as it becomes a float32, as are the product of two scales and that with the sum.
            error = most * U * (6 if ops.kv == "int8" else 2 * dim + 2)
            if softcap:  # a constant of three roundings, its product, tanh
                capped = np.minimum(most, softcap)
                error += 8 * U * most + 2 * TANH * capped
            far = np.abs(slope) * (end - first)
            if slopes is not None:  # a scaled score, the product with a distance, their sum
                error += 6 * U * (capped + far)
            # The shift by the largest and the product with the scale (2), the scale's own three roundings and the sum's
            # on a difference of at most twice the largest (8).
            error += 10 * U * (capped + far)
            out[t] = _attend(ops, scores, error, capped + far, values, scales, first, sink).reshape(heads, -1)
    return out.reshape(len(q), -1)


def _attend(
    ops: ReferenceOps, scores: Floats, error: Floats, most: Floats, values: Floats, scales: Floats, position: int,
    sink: Floats | None,
) -> Floats:  # fmt: skip
    """Of scores and values that begin at a position; a difference of scores of at most `most` is off by `error`."""
    count = scores.shape[-1]
    borders = [0, *range(CHUNK - position % CHUNK, count, CHUNK), count]
    chunks = len(borders) - 1 + (sink is not None)
    eta = error + EXP2
    # Merging chunks, and the sink as one: the same exponentials of differences of maxima.
    merged = (chunks - 1) * (10 * (most + (0 if sink is None else np.abs(sink))) * U + EXP2)
    weights, changed, summed, unsure = (np.empty_like(scores) for _ in range(4))
    top = scores.max(-1, keepdims=True)
    for first, end in pairwise(borders):
        part = scores[..., first:end]
        largest = part.max(-1, keepdims=True)
        exact = np.exp(part - largest)
        share = np.exp(largest - top)
        for array, found in zip(
            (weights, changed, summed, unsure), rounded_weights(ops, exact, eta, scales[first:end]), strict=True
        ):
            array[..., first:end] = share * found
    total = summed.sum(-1, keepdims=True) + (0 if sink is None else np.exp(sink - top))
    result = np.einsum("hgn,nhd->hgd", weights, values) / total
    size = np.einsum("hgn,nhd->hgd", weights, np.abs(values)) / total
    moved = np.einsum("hgn,nhd->hgd", changed, np.abs(values)) + unsure.sum(-1, keepdims=True) * np.abs(result)
    # Sums over a chunk's keys and a product, in numerator (any order: count) and denominator; two operations a merge;
    # reciprocal, product, the reference's rounding.
    steps = 2 * (min(count, CHUNK) + 1 + 3 * chunks) + 3
    return SLACK * (moved / total + (2 * merged + steps * U) * size)


def rounded_weights(ops: ReferenceOps, exact: Floats, eta: Floats, scales: Floats) -> tuple[Floats, ...]:
    """A chunk's weights, each off by a share of eta at most, as they are multiplied with values, and how much they may
    differ from that; the same as they are summed.

    Rounding is monotonic: a weight that is off rounds to something between what the two ends of its range round to.
    """
    if ops.kv != "int8":
        low, mid, high = (ops.round_weights(exact * factor, scales)[0] for factor in (1 - eta, 1, 1 + eta))
        changed = np.maximum(high - mid, mid - low)
        return mid, changed, mid, changed
    # Beside the weight, the largest one of them is off, and four products are rounded on the way to an integer, and two
    # on the way to what that is worth.
    scale = scales.transpose(1, 2, 0)
    worth = (exact * scale).max(-1, keepdims=True) / WEIGHT
    off = 2 * eta + 4 * U
    low, mid, high = (np.rint(exact * scale * factor / worth) for factor in (1 - off, 1, 1 + off))
    changed = (np.maximum(high - mid, mid - low) + (eta + 2 * U) * mid) * worth / scale
    return mid * worth / scale, changed, exact, eta * exact


def short_conv(x: Floats, w: Weight, bias: Weight | None, batch: Batch) -> Floats:
    """(T, C): a product and a sum for each tap, the bias in the place of the first sum, the reference's rounding. Of a
    step that begins its texts."""
    channels, _, length = w.shape
    taps = np.abs(w.decode().reshape(channels, length).T.astype(np.float64))
    size = np.zeros(x.shape) if bias is None else np.tile(np.abs(bias.decode()), (len(x), 1)).astype(np.float64)
    for begin, end in pairwise(batch.starts):
        for j in range(length):
            back = min(length - 1 - j, end - begin)
            size[begin + back : end] += taps[j] * np.abs(x[begin : end - back])
    return (2 * length + 1) * U * SLACK * size


def recurrence(
    q: Floats, k: Floats, v: Floats, beta: Floats, decay: Floats, batch: Batch, heads: int, key_heads: int,
    delta: bool = False, skip: Weight | None = None, any_order: bool = False,
) -> Floats:  # fmt: skip
    """(T, heads * V), of a step that begins its texts.

    `off` is how far a column of a state may be off, as a length over its K rows. A token multiplies that by decay, and
    where delta by I - beta k k^T, which makes no vector longer while beta |k|^2 is at most 2; and adds what is rounded
    in it: sums over K of the state times k, what is made of them, and each row of the state. `seen` bounds the
    magnitudes that such sums add up. In one order those are the state's; in any, where sums over keys and over tokens
    take the place of the state (in chunks), those of all that was added to it.
    """
    each, keys = heads // key_heads, k.shape[1] // key_heads
    queries, all_keys = (np.repeat(a.reshape(len(a), key_heads, -1), each, 1).astype(np.float64) for a in (q, k))
    values = v.reshape(len(v), heads, -1).astype(np.float64)
    out = np.empty(values.shape)
    for begin, end in pairwise(batch.starts):
        # four chains of a product and a sum, two joins; decay's product, a difference, beta's product
        steps = 2 * keys + 2 * (end - begin) + 24 if any_order else 2 * -(-keys // 4) + 2 + 3
        state = seen = np.zeros((heads, keys, values.shape[-1]))
        off = np.zeros((heads, values.shape[-1]))
        for t in range(begin, end):
            kt, qt, d, b = all_keys[t], queries[t], decay[t, :, None], beta[t, :, None].astype(np.float64)
            state, seen, off = d[..., None] * state, d[..., None] * seen, d * off
            length = np.linalg.norm(kt, axis=-1)[:, None]
            assert not delta or (b * length**2 <= 2).all()
            wrong = np.einsum("hkv,hk->hv", state, kt) if delta else np.zeros_like(values[t])
            u = b * (values[t] - wrong)
            unsure = np.abs(b) * 3 * (np.abs(values[t]) + np.abs(wrong))
            if delta:
                unsure += np.abs(b) * steps * np.einsum("hkv,hk->hv", seen, np.abs(kt))
            state = state + kt[..., None] * u[:, None]
            seen = seen + np.abs(kt[..., None] * u[:, None]) if any_order else np.abs(state)
            added = np.linalg.norm(np.abs(state) + 2 * np.abs(kt[..., None] * u[:, None]), axis=1)
            off = off + U * (length * unsure + 3 * added)
            size = np.einsum("hkv,hk->hv", seen, np.abs(qt))
            out[t] = np.linalg.norm(qt, axis=-1)[:, None] * off + (steps + 1) * U * size
    if skip is not None:
        out += 3 * U * np.abs(skip.decode()[:, None] * values)
    return SLACK * out.reshape(len(v), -1)


def mixed(results: Floats, weights: Floats) -> Floats:
    """sum(weights * results, 1), (T, H), of results (T, top_k, H) and weights (T, top_k): a product and top_k - 1 fused
    sums, or products and sums, and the reference's rounding."""
    steps = weights.shape[1] + 1
    return steps * U * SLACK * np.einsum("tk,tkh->th", np.abs(weights), np.abs(results), dtype=np.float64)


def rounded(x: Floats, bound: Floats, kind: str) -> Floats:
    """How far the rounding of a linear's input may move values that are off by `bound`: one that lies near a border
    falls to its other neighbour, and the scale of int8 moves with the largest of its group."""
    if kind == "f32":
        return bound
    if kind == "bf16":
        mid = ROUND[kind](x)
        return np.maximum(ROUND[kind](x + bound) - mid, mid - ROUND[kind](x - bound)).astype(np.float64)
    size, off = np.abs(x).reshape(len(x), -1, 32).astype(np.float64), bound.reshape(len(x), -1, 32)
    step, moved = size.max(-1, keepdims=True) / 127 + 2.0**-149, off.max(-1, keepdims=True) / 127
    near = 2 * U * size  # the quotient's own rounding
    most = np.rint(np.minimum((size + off + near) / np.maximum(step - moved, 2.0**-149), 127))
    least = np.rint(np.maximum(size - off - near, 0) / (step + moved))
    return ((most - least) * (step + moved) + 127 * moved).reshape(x.shape)


def experts(
    x: Floats, routing: Floats, gate: Any, up: Any, down: Any, biases: Any = None, kind: str = "silu",
    limit: float = 0.0, wide: bool = False,
) -> Floats:  # fmt: skip
    """(T, H): two linears, what they are off by in `gated` and in the rounding behind it, a linear, and the sum."""
    ops = ReferenceOps([KvLayer(1, 16, 16)], 1, wide=wide)
    numbers, shares = np.split(routing, 2, -1)
    gate_bias, up_bias, down_bias = biases or [[None] * len(gate)] * 3
    total = np.zeros((len(x), down[0].shape[0]))
    results = np.zeros((len(x), numbers.shape[1], down[0].shape[0]), np.float32)
    for place, chosen in enumerate(numbers.T.astype(int)):
        for e in np.unique(chosen):
            own = chosen == e
            g, u = ops.linear(x[own], gate[e], gate_bias[e]), ops.linear(x[own], up[e], up_bias[e])
            dg = linear(x[own], gate[e], gate_bias[e], wide=wide)
            du = linear(x[own], up[e], up_bias[e], wide=wide)
            hidden = ops.gated(g, u, kind, limit)
            corners = [ops.gated(g + a * dg, u + b * du, kind, limit) for a in (-1, 1) for b in (-1, 1)]
            off = gated(g, u, kind, limit) + np.maximum.reduce([np.abs(corner - hidden) for corner in corners])
            moved = rounded(hidden, off, activation(down[e].format, wide)) @ np.abs(down[e].decode()).T
            results[own, place] = ops.linear(hidden, down[e], down_bias[e])
            moved = moved + linear(hidden, down[e], down_bias[e], wide=wide)
            total[own] += np.abs(shares[own, place, None]) * moved
    return total + mixed(results, shares)


class Bounding(ReferenceOps):
    """The reference, which notes what its verbs' roundings explain.

    allowed      verb -> the largest gap, relative to the largest magnitude of the result: what `twin.Twin` may allow
    disturb      a seed: every result is moved up or down, at random, by all that its bound allows
    any_order    for a side whose sums have any order: torch, for one
    angle_steps  roundings of an angle on a side that computes them in float32: torch, again
    chosen       the experts of every `route` of another run, which are taken here too; those of this run unless given
    """

    def __init__(
        self, layers: Sequence[KvLayer], blocks: int, kv: str = "bf16", *,
        disturb: int | None = None, any_order: bool = False, angle_steps: float = 0, wide: bool = False,
        chosen: Sequence[Floats] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(layers, blocks, kv, wide)
        self.given, self.chosen = chosen, []
        self.allowed: dict[str, float] = {}
        self.random = None if disturb is None else np.random.default_rng(disturb)
        self.any_order, self.angle_steps = any_order, angle_steps

    def _note(self, verb: str, result: Floats, bound: Floats) -> Floats:
        self.allowed[verb] = max(self.allowed.get(verb, 0.0), float(bound.max() / np.abs(result).max()))
        if self.random is None:
            return result
        return np.where(self.random.random(bound.shape) < 0.5, result - bound, result + bound).astype(np.float32)

    def linear(self, x: Floats, w: Weight, bias: Weight | None = None) -> Floats:
        return self._note("linear", super().linear(x, w, bias), linear(x, w, bias, self.any_order, self.wide))

    def rms_norm(self, x: Floats, w: Weight | None, eps: float, heads: int = 1, offset: float = 0.0) -> Floats:
        bound = rms_norm(x, w, eps, heads, offset, self.any_order)
        return self._note("rms_norm", super().rms_norm(x, w, eps, heads, offset), bound)

    def layer_norm(self, x: Floats, w: Weight | None, bias: Weight | None, eps: float, heads: int = 1) -> Floats:
        bound = layer_norm(x, w, bias, eps, heads, self.any_order)
        return self._note("layer_norm", super().layer_norm(x, w, bias, eps, heads), bound)

    def rope(self, x: Floats, batch: Batch, heads: int, rotation: Rope) -> Floats:
        bound = rope(x, batch, heads, rotation, self.angle_steps)
        return self._note("rope", super().rope(x, batch, heads, rotation), bound)

    def attention(
        self, layer: int, q: Floats, k: Floats, v: Floats, batch: Batch, *rest: Any, **options: Any
    ) -> Floats:
        result = super().attention(layer, q, k, v, batch, *rest, **options)
        return self._note("attention", result, attention(self, layer, q, batch, *rest, **options))

    def short_conv(self, layer: int, x: Floats, w: Weight, bias: Weight | None, batch: Batch) -> Floats:
        return self._note("short_conv", super().short_conv(layer, x, w, bias, batch), short_conv(x, w, bias, batch))

    def recurrence(self, layer: int, *rest: Any, **options: Any) -> Floats:
        bound = recurrence(*rest, **options, any_order=self.any_order)
        return self._note("recurrence", super().recurrence(layer, *rest, **options), bound)

    def decay(self, x: Floats, log_rate: Weight) -> Floats:
        """Made in double and rounded once, on either side; or in float32: the rate, a product, the exponential."""
        result = super().decay(x, log_rate)
        steps = 2 + (5 * np.exp(log_rate.decode()) * x + 2 if self.any_order else 0)
        return self._note("decay", result, SLACK * U * steps * np.abs(result).astype(np.float64))

    def softplus(self, x: Floats) -> Floats:
        """The same: an exponential, whose relative error the logarithm takes over at most, and the logarithm."""
        result = super().softplus(x)
        return self._note("softplus", result, SLACK * U * (8 if self.any_order else 2) * np.abs(result).astype(float))

    def softcap(self, x: Floats, cap: float) -> Floats:
        return self._note("softcap", super().softcap(x, cap), softcap(x, cap))

    def activate(self, x: Floats, kind: str) -> Floats:
        return self._note("activate", super().activate(x, kind), activate(x, kind))

    def route(self, logits: Floats, router: Router, bias: Weight | None = None, scales: Weight | None = None) -> Floats:
        """Weights are rounded to float32 once, on either side. Where a disturbed logit would make another expert the
        best, that is a jump that no bound of the sums behind it says anything about."""
        result = super().route(logits, router, bias, scales)
        if self.given is not None:
            chosen = self.given[len(self.chosen)].astype(int)
            each = zip(logits, chosen, strict=True)
            weights = [expert_weights(row, router, numbers, scales) for row, numbers in each]
            result = np.hstack([chosen, weights]).astype(np.float32)
        self.chosen.append(result[:, : router.top_k])
        return result

    def experts(self, x: Floats, routing: Floats, *weights: Any) -> Floats:
        """Their networks' own verbs are disturbed already; what is left is the sum."""
        result = super().experts(x, routing, *weights)
        if self.random is None:
            return self._note("experts", result, experts(x, routing, *weights, wide=self.wide))
        numbers, shares = np.split(routing, 2, -1)
        ones = np.ones((len(x), 1), np.float32)
        quiet = ReferenceOps([KvLayer(1, 16, 16)], 1, wide=self.wide)
        each = [quiet.experts(x, np.hstack([e[:, None], ones]), *weights) for e in numbers.T]
        return self._note("experts", result, mixed(np.stack(each, 1), shares))

    def gated(self, gate: Floats, up: Floats, kind: str, limit: float = 0.0) -> Floats:
        return self._note("gated", super().gated(gate, up, kind, limit), gated(gate, up, kind, limit))


def forward(model: Any, tokens: Any, batch: Batch, kv: str, **options: Any) -> tuple[Floats, list[Floats]]:
    """Logits of a family object on `Bounding`, and the experts that it chose."""
    c = model.config
    blocks = int(batch.blocks.max()) + 1
    ops = Bounding(c.kv_layers, blocks, kv, **options)
    return model.forward(ops, tokens, batch), ops.chosen


def close(
    what: str,
    got: Floats,
    model: Any,
    tokens: Any,
    batch: Batch,
    kv: str,
    *,
    seeds: int = 2,
    wide: bool = False,
    **side: Any,
) -> tuple[float, float]:
    """Fail unless a whole model's logits are as near the reference's as roundings explain; else the root mean square
    of the gap and of what was allowed, relative to that of the logits.

    Worst cases of every verb, multiplied through the layers, would allow anything. But rounding errors of many sums are
    as good as uncorrelated (Higham & Mary 2019), and to first order the logits move by J e for the errors e of all
    verbs, with variance sum(J^2 e^2). Errors of random sign and of the full size that each verb's bound allows
    (`disturb`) have the largest variance there is, so a row's gap must not have a larger root mean square; and no
    element may be off by 6 of them. Where inputs, keys or weights of keys are rounded to bfloat16 or int8, one that
    falls to its other neighbour is a jump that few rows see: there the worst row of those runs is what any may show.

    side  what `Bounding` takes: any_order, angle_steps
    """
    want, chosen = forward(model, tokens, batch, kv, wide=wide)
    shaken = [
        forward(model, tokens, batch, kv, wide=wide, disturb=seed, chosen=chosen, **side)[0] for seed in range(seeds)
    ]

    def rms(x: Floats) -> Floats:
        return np.sqrt(np.mean(np.square(x, dtype=np.float64), -1, keepdims=True))

    gap, allowed, size = np.abs(got - want), np.maximum.reduce([rms(x - want) for x in shaken]), rms(want)
    if kv != "f32":
        allowed = np.full_like(allowed, allowed.max())
    assert (allowed < size / 50).all(), f"{what}: what is allowed says nothing: {(allowed / size).max():.2g}"
    compare(what, got, want, 6 * allowed)
    assert (rms(gap) <= allowed).all(), f"{what}: rows lie {(rms(gap) / allowed).max():.3g} of what is allowed away"
    return float((rms(gap) / size).max()), float((allowed / size).max())
