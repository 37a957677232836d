"""What each verb means, in numpy: slow, obvious, the specification that fast backends are compared with.

It simulates what a backend rounds: the input of a linear (to int8 per 32, or bf16, by the weight's format and what the
model asks) and the keys, values, queries and attention weights (to bf16, or integers, unless the model runs in
float32). Sums are exact to float64 where a fast backend uses one float32 chain, so the two differ by float32 summation
error alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.backends import sampling
from quickbrown.engine.batch import NO_DRAWS, Batch, Draws, Ints
from quickbrown.engine.runner import places
from quickbrown.models.ops import KvLayer, Rope, Router
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.weight import Weight

Array = npt.NDArray[np.float32]

BLOCK = 64  # tokens in a KV block
CHUNK = 256  # keys in an attention chunk, anchored at absolute position 0

LEAST_GROUP = 2.0**-119  # of a linear's input as integers: 127 / max|x| is finite above it (csrc/kernels/rows.inl)

# Of keys, values, queries and weights of keys as integers: the largest, and the least that one may stand for.
KEY, QUERY, WEIGHT = 127, 32512, 65535
LEAST_SCALE = 2.0**-100

# What the input of a linear is rounded to, by the format of its weight.
ACTIVATION = {
    "f32": "f32", "f16": "f32", "bf16": "bf16", "q8_0": "int8", "q4_0": "int8", "q4_1": "int8",
    "nf4": "f32", "fp4": "f32", "q4_k": "int8", "q6_k": "int8", "q5_0": "int8", "q5_1": "int8", "q5_k": "int8",
    "iq4_nl": "int8", "mxfp4": "int8", "u4z": "int8", "u8z": "int8", "e4m3": "f32",
    "s8_k": "int8", "q2_k": "int8", "q3_k": "int8", "iq4_xs": "int8",
}  # fmt: skip


def activation(format: str, wide: bool = False) -> str:
    """What the input of a linear is rounded to: a key of `ROUND`. wide: bf16 in the place of int8."""
    rounded = ACTIVATION[FORMATS[format].held or format]
    return "bf16" if wide and rounded == "int8" else rounded


def to_bf16(x: npt.NDArray[Any]) -> Array:
    """Round float32 to the nearest bfloat16, ties to even; denormals become zero."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.abs(x) < 2.0**-126, np.float32(0), rounded).astype(np.float32)


def to_int8(x: Array) -> Array:
    """Round rows to int8 with one float32 scale per 32 values, and back: max|x| maps to 127, what is tiny to 0."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = np.where(largest > LEAST_GROUP, np.float32(127) / largest, np.float32(0)).astype(np.float32)
    rounded: Array = np.rint(groups * inverse) * (largest / np.float32(127))
    return rounded.reshape(x.shape).astype(np.float32)


def to_integers(x: Array, most: int) -> tuple[npt.NDArray[np.float64], Array]:
    """Round rows to integers up to `most` with one float32 scale each: (..., D) -> (..., D) and (..., 1)."""
    largest = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(LEAST_SCALE * most))
    scale = largest / np.float32(most)
    return np.rint(x / scale).astype(np.float64), scale


ROUND: dict[str, Callable[[Array], Array]] = {"f32": lambda x: x, "bf16": to_bf16, "int8": to_int8}


def turns(batch: Batch, rope: Rope) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """cos and sin for each token, times the rotation's factor: (T, 1, N) each, of N pairs."""
    spans = batch.spans if len(batch.spans) else [0] * (len(batch.starts) - 1)
    angles, factors = zip(*(rope.angles(span) for span in spans), strict=True)
    counts = np.diff(batch.starts)
    turned = np.asarray(batch.positions)[:, None] * np.repeat(angles, counts, 0)
    factor = np.repeat(factors, counts)[:, None]
    return (factor * np.cos(turned))[:, None], (factor * np.sin(turned))[:, None]


def pairs(rope: Rope) -> tuple[slice, slice]:
    """Where in a head the first and the second values of the pairs are that a rotation turns."""
    start, count = rope.start, len(rope.frequencies)
    if rope.interleaved:
        return slice(start, start + 2 * count, 2), slice(start + 1, start + 2 * count, 2)
    return slice(start, start + count), slice(start + count, start + 2 * count)


def sigmoid(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore"):
        out: npt.NDArray[np.float64] = 1 / (1 + np.exp(-x.astype(np.float64)))
    return out


def _gelu(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    tail = np.array([math.erfc(-value / math.sqrt(2)) for value in x.ravel().tolist()]).reshape(x.shape)
    out: npt.NDArray[np.float64] = x * tail / 2
    return out


# The functions of `models.ops.ACTIVATIONS`. With 1 + tanh(u) = 2 sigmoid(2 u).
ACTIVATE: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]] = {
    "silu": lambda x: x * sigmoid(x),
    "gelu": _gelu,
    "gelu_tanh": lambda x: x * sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x.astype(np.float64) ** 3)),
    "relu": lambda x: np.maximum(x, 0.0),
    "relu2": lambda x: np.maximum(x, 0.0).astype(np.float64) ** 2,
    "sigmoid": sigmoid,
    "tanh": lambda x: np.tanh(x.astype(np.float64)),
}


def scored(
    q: npt.NDArray[np.float64],
    keys: npt.NDArray[np.float64],
    scale: float,
    softcap: float,
    slope: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Scores of a token, the last of `keys` (n, kv_heads, D), for q (kv_heads, G, D): (kv_heads, G, n)."""
    scores: npt.NDArray[np.float64] = np.einsum("hgd,nhd->hgn", q, keys) * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    return scores + slope * np.arange(1 - len(keys), 1)


def choose(logits: Array, router: Router, bias: Array | None) -> npt.NDArray[np.intp]:
    """A token's experts, ascending: (E,) -> (top_k,)."""
    # Where only their order matters, logits are compared themselves: two of them may have the same score.
    by_score = router.sigmoid or bias is not None or router.group_best > 1
    keys = expert_scores(logits, router).astype(np.float32) if by_score else logits
    keys = (keys if bias is None else keys + bias).reshape(router.groups, -1)
    best = -np.sort(-keys, axis=-1)[:, : router.group_best]
    groups = np.argsort(-best.sum(-1), kind="stable")[: router.top_groups]
    members = np.sort(groups)[:, None] * keys.shape[1] + np.arange(keys.shape[1])
    allowed = members.reshape(-1)  # experts, ascending, so that the first of equals is the lowest
    return np.sort(allowed[np.argsort(-keys.reshape(-1)[allowed], kind="stable")[: router.top_k]])


def expert_scores(logits: Array, router: Router) -> npt.NDArray[np.float64]:
    """(E,) -> (E,)."""
    if router.sigmoid:
        return sigmoid(logits)
    scores: npt.NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits.max())
    scores /= scores.sum()
    return scores


def expert_weights(
    logits: Array, router: Router, chosen: npt.NDArray[np.intp], scales: Weight | None = None
) -> npt.NDArray[np.float64]:
    """Of a token's experts: logits (E,), chosen (top_k,), scales (E,) -> (top_k,)."""
    weights: npt.NDArray[np.float64] = expert_scores(logits, router)[chosen]
    if router.renormalise:
        weights = weights / max(weights.sum(), router.least)
    weights = weights * router.scale
    return weights if scales is None else weights * scales.decode()[chosen]


class ReferenceOps:
    """The verbs of `models.ops` on numpy arrays, over the keys and values of these layers in `blocks` blocks.

    kv    "bf16", "f32" or "int8": what keys, values, queries and attention weights are rounded to. int8: integers of 8
          bits, and of 16 for queries and weights, with a scale for each vector; of weights, which are multiplied by
          the scale of their value before, for each chunk of 256 keys
    wide  the input of linears with quantized weights is rounded to bf16, not to int8
    """

    def __init__(self, layers: Sequence[KvLayer], blocks: int, kv: str = "bf16", wide: bool = False) -> None:
        self.kv, self.wide = kv, wide
        slots = blocks * BLOCK
        self.keys = [np.zeros((slots, layer.kv_heads, layer.head_dim)) for layer in layers]
        self.values = [np.zeros((slots, layer.kv_heads, layer.value_dim)) for layer in layers]
        self.value_scales = [np.zeros((slots, layer.kv_heads, 1)) for layer in layers]
        self.states: dict[tuple[str, int, int], Array] = {}  # of a verb, a layer and a place

    def embed(self, table: Weight, tokens: Ints) -> Array:
        rows = Weight(table.format, (len(tokens), *table.shape[1:]), table.data[np.asarray(tokens)])
        return rows.decode()

    def linear(self, x: Array, w: Weight, bias: Weight | None = None) -> Array:
        order = slice(None) if w.columns is None else w.columns  # groups of 32 are rounded as they are held
        rounded = ROUND[activation(w.format, self.wide)](x[:, order])
        out = rounded.astype(np.float64) @ w.decode()[:, order].T.astype(np.float64)
        if bias is not None:
            out += bias.decode()
        result: Array = out.astype(np.float32)
        return result

    def positions(self, table: Weight, batch: Batch, offset: int = 0) -> Array:
        rows = np.asarray(batch.positions) + offset
        if rows.max() >= len(table.data):
            raise ValueError(f"the model knows {len(table.data) - offset} positions, and a sequence has more")
        return self.embed(table, rows.tolist())

    def rms_norm(self, x: Array, w: Weight | None, eps: float, heads: int = 1, offset: float = 0.0) -> Array:
        parts = x.reshape(len(x), heads, -1)
        mean = np.mean(np.square(parts, dtype=np.float64), -1, keepdims=True)
        weight = np.float32(1) if w is None else w.decode().reshape(-1, parts.shape[-1]) + np.float32(offset)
        out: Array = (parts / np.sqrt(mean + eps) * weight).astype(np.float32)
        return out.reshape(x.shape)

    def layer_norm(self, x: Array, w: Weight | None, bias: Weight | None, eps: float, heads: int = 1) -> Array:
        parts = x.reshape(len(x), heads, -1).astype(np.float64)
        parts = parts - parts.mean(-1, keepdims=True)
        out = parts / np.sqrt(np.mean(parts * parts, -1, keepdims=True) + eps)
        if w is not None:
            out = out * w.decode()
        if bias is not None:
            out = out + bias.decode()
        result: Array = out.reshape(x.shape).astype(np.float32)
        return result

    def rope(self, x: Array, batch: Batch, heads: int, rope: Rope) -> Array:
        cos, sin = turns(batch, rope)
        out = x.reshape(len(x), heads, -1).astype(np.float64)
        first, second = pairs(rope)
        a, b = out[..., first], out[..., second]
        out[..., first], out[..., second] = a * cos - b * sin, b * cos + a * sin
        return out.reshape(x.shape).astype(np.float32)

    def attention(
        self,
        layer: int,
        q: Array,
        k: Array | None,
        v: Array | None,
        batch: Batch,
        heads: int,
        kv_heads: int,
        scale: float,
        window: int = 0,
        softcap: float = 0.0,
        sinks: Weight | None = None,
        slopes: Sequence[float] | None = None,
    ) -> Array:
        keys, values = self.keys[layer], self.values[layer]  # (slots, kv_heads, D), (slots, kv_heads, E)
        scales = self.value_scales[layer]  # (slots, kv_heads, 1)
        dim, value_dim = keys.shape[-1], values.shape[-1]
        out = np.empty((len(q), heads, value_dim), np.float32)
        grouped = (kv_heads, heads // kv_heads)
        queries, _ = self.round_kv(q.reshape(len(q), *grouped, dim), QUERY)
        sink = None if sinks is None else sinks.decode().astype(np.float64).reshape(*grouped, 1)
        slope = np.array(slopes or [0.0] * heads, np.float32).astype(np.float64).reshape(*grouped, 1)
        for s in range(len(batch.starts) - 1):
            begin, end = batch.starts[s], batch.starts[s + 1]
            table = np.asarray(batch.blocks[batch.block_starts[s] : batch.block_starts[s + 1]])
            slots = (table[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)  # slot of each position
            if k is not None and v is not None:
                new = slots[np.asarray(batch.positions[begin:end])]
                keys[new], _ = self.round_kv(k[begin:end].reshape(-1, kv_heads, dim), KEY)
                values[new], scales[new] = self.round_kv(v[begin:end].reshape(-1, kv_heads, value_dim), KEY)
            for t in range(begin, end):
                seen = slots[: batch.positions[t] + 1]
                first = max(0, len(seen) - window) if window else 0
                scores = scored(queries[t], keys[seen], scale, softcap, slope)
                out[t] = self._attend(scores, values[seen], scales[seen], first, sink).reshape(heads, value_dim)
        return out.reshape(len(q), -1)

    def _attend(
        self,
        all_scores: npt.NDArray[np.float64],
        values: npt.NDArray[np.float64],
        scales: npt.NDArray[np.float64],
        position: int,
        sink: npt.NDArray[np.float64] | None,
    ) -> npt.NDArray[np.float64]:
        """One token, of scores (kv_heads, G, n), which sees values (n, kv_heads, E) from a position on, and perhaps a
        sink (kv_heads, G, 1) -> (kv_heads, G, E).

        Weights are rounded relative to the maximum that is seen of their own chunk of 256 keys.
        """
        kv_heads, groups, count = all_scores.shape
        out = np.zeros((kv_heads, groups, values.shape[-1]), np.float64)
        total = np.zeros((kv_heads, groups, 1))
        top = np.full((kv_heads, groups, 1), -np.inf)
        for chunk in range(position // CHUNK * CHUNK, count, CHUNK):
            seen = slice(max(chunk, position), chunk + CHUNK)
            scores = all_scores[..., seen]
            largest = scores.max(-1, keepdims=True)
            weights, summed = self.round_weights(np.exp(scores - largest), scales[seen])
            higher = np.maximum(top, largest)
            old, new = np.exp(top - higher), np.exp(largest - higher)
            out = out * old + np.einsum("hgn,nhd->hgd", weights, values[seen]) * new
            total = total * old + summed.sum(-1, keepdims=True) * new
            top = higher
        if sink is not None:
            higher = np.maximum(top, sink)
            out = out * np.exp(top - higher)
            total = total * np.exp(top - higher) + np.exp(sink - higher)
        return out / total

    def round_kv(self, x: Array, most: int) -> tuple[npt.NDArray[np.float64], Array]:
        """Vectors as keys, values and queries are held, (..., D), and what one is worth where they are integers up to
        `most`, (..., 1)."""
        if self.kv == "int8":
            integers, scale = to_integers(x, most)
            return integers * scale, scale
        return ROUND[self.kv](x).astype(np.float64), np.ones_like(x[..., :1])

    def round_weights(
        self, weights: npt.NDArray[np.float64], scales: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """A chunk's weights (kv_heads, G, n), of values with these scales (n, kv_heads, 1): as they are multiplied with
        the values, and as they are summed."""
        if self.kv == "int8":
            scale = scales.transpose(1, 2, 0)
            scaled = weights * scale
            worth = scaled.max(-1, keepdims=True) / WEIGHT
            return np.rint(scaled / worth) * worth / scale, weights
        rounded = ROUND[self.kv](weights.astype(np.float32)).astype(np.float64)
        return rounded, rounded

    def short_conv(self, layer: int, x: Array, w: Weight, bias: Weight | None, batch: Batch) -> Array:
        channels, _, length = w.shape
        taps = w.decode().reshape(channels, length).T.astype(np.float64)
        out = np.empty(x.shape, np.float64)
        for s in range(len(batch.starts) - 1):
            begin, end = batch.starts[s], batch.starts[s + 1]
            seen = np.concatenate([self._state("short_conv", layer, batch, s, (length - 1, channels)), x[begin:end]])
            for t in range(begin, end):
                out[t] = (taps * seen[t - begin : t - begin + length]).sum(0)
            self.states["short_conv", layer, batch.writes[s]] = seen[end - begin :].astype(np.float32)
        if bias is not None:
            out += bias.decode()
        return out.astype(np.float32)

    def recurrence(
        self,
        layer: int,
        q: Array,
        k: Array,
        v: Array,
        beta: Array,
        decay: Array,
        batch: Batch,
        heads: int,
        key_heads: int,
        delta: bool = False,
        skip: Weight | None = None,
    ) -> Array:
        each = heads // key_heads
        queries, keys = (np.repeat(a.reshape(len(a), key_heads, -1), each, 1).astype(np.float64) for a in (q, k))
        values = v.reshape(len(v), heads, -1).astype(np.float64)
        sizes = heads, keys.shape[-1], values.shape[-1]
        out = np.empty(values.shape)
        for s in range(len(batch.starts) - 1):
            state = self._state("recurrence", layer, batch, s, sizes)
            for t in range(batch.starts[s], batch.starts[s + 1]):
                state = decay[t, :, None, None] * state
                wrong = np.einsum("hkv,hk->hv", state, keys[t]) if delta else 0.0
                state += np.einsum("hk,hv->hkv", keys[t], beta[t, :, None] * (values[t] - wrong))
                out[t] = np.einsum("hkv,hk->hv", state, queries[t])
            self.states["recurrence", layer, batch.writes[s]] = state.astype(np.float32)
        if skip is not None:
            out += skip.decode()[:, None] * values
        return out.reshape(len(v), -1).astype(np.float32)

    def _state(
        self, verb: str, layer: int, batch: Batch, sequence: int, shape: tuple[int, ...]
    ) -> npt.NDArray[np.float64]:
        """What a sequence has as it comes to a step."""
        place = batch.reads[sequence]
        if place < 0:
            return np.zeros(shape)
        return self.states[verb, layer, place].astype(np.float64)

    def decay(self, x: Array, log_rate: Weight) -> Array:
        return np.exp(-np.exp(log_rate.decode().astype(np.float64)) * x).astype(np.float32)

    def softplus(self, x: Array) -> Array:
        return np.logaddexp(0.0, x.astype(np.float64)).astype(np.float32)

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def multiply(self, a: Array, b: Array) -> Array:
        return a * b

    def scale(self, x: Array, factor: float | Weight) -> Array:
        return x * np.float32(factor.decode()[0] if isinstance(factor, Weight) else factor)

    def softcap(self, x: Array, cap: float) -> Array:
        out: Array = (cap * np.tanh(x.astype(np.float64) / cap)).astype(np.float32)
        return out

    def activate(self, x: Array, kind: str) -> Array:
        return ACTIVATE[kind](x).astype(np.float32)

    def gated(self, gate: Array, up: Array, kind: str, limit: float = 0.0) -> Array:
        if kind == "clamped":
            gate, up = np.minimum(gate, np.float32(limit)), np.clip(up, np.float32(-limit), np.float32(limit))
            return (gate * sigmoid(1.702 * gate.astype(np.float64)) * (up.astype(np.float64) + 1)).astype(np.float32)
        return (ACTIVATE[kind](gate) * up).astype(np.float32)

    def part(self, x: Array, heads: int, begin: int, end: int) -> Array:
        return x.reshape(len(x), heads, -1)[..., begin:end].reshape(len(x), -1)

    def join(self, a: Array, b: Array, heads: int, shared: bool = False) -> Array:
        first, second = a.reshape(len(a), heads, -1), b.reshape(len(b), 1 if shared else heads, -1)
        second = np.broadcast_to(second, (len(b), heads, second.shape[-1]))
        return np.concatenate([first, second], -1).reshape(len(a), -1)

    def route(self, logits: Array, router: Router, bias: Weight | None = None, scales: Weight | None = None) -> Array:
        values = None if bias is None else bias.decode()
        chosen = [choose(row, router, values) for row in logits]
        weights = [expert_weights(row, router, numbers, scales) for row, numbers in zip(logits, chosen, strict=True)]
        return np.hstack([chosen, weights]).astype(np.float32)

    def experts(
        self,
        x: Array,
        routing: Array,
        gate: Sequence[Weight],
        up: Sequence[Weight],
        down: Sequence[Weight],
        biases: tuple[Sequence[Weight], Sequence[Weight], Sequence[Weight]] | None = None,
        kind: str = "silu",
        limit: float = 0.0,
    ) -> Array:
        numbers, weights = np.split(routing, 2, axis=-1)
        gate_bias, up_bias, down_bias = biases or [[None] * len(gate)] * 3
        out = np.zeros((len(x), down[0].shape[0]), np.float64)
        for place in range(numbers.shape[1]):
            for e in np.unique(numbers[:, place]).astype(int):
                tokens = numbers[:, place] == e
                gates, ups = self.linear(x[tokens], gate[e], gate_bias[e]), self.linear(x[tokens], up[e], up_bias[e])
                result = self.linear(self.gated(gates, ups, kind, limit), down[e], down_bias[e])
                out[tokens] += weights[tokens, place, None].astype(np.float64) * result
        return out.astype(np.float32)

    def gate_rows(self, x: Array, gate: Array) -> Array:
        return x * sigmoid(gate).astype(np.float32)

    def rows(self, x: Array, batch: Batch) -> Array:
        return x[np.asarray(batch.logit_rows, np.intp)]


class ReferenceRunner:
    """A Runner (engine/runner.py) on the reference verbs. `model` is a family object with `config` and `forward`."""

    block_size = BLOCK

    def __init__(self, model: Any, blocks: int = 16, kv: str = "bf16") -> None:
        c = model.config
        self.model, self.vocab_size, self._blocks = model, c.vocab_size, blocks
        self.ops = ReferenceOps(c.kv_layers, blocks, kv)
        self._logits = np.zeros((0, c.vocab_size), np.float32)

    def room(self) -> int:
        return self._blocks

    def states(self) -> int:
        return places(self._blocks) if self.model.config.state_sizes else 0

    def run(self, batch: Batch, draws: Draws = NO_DRAWS) -> list[tuple[int, float]]:
        self._logits = self.model.forward(self.ops, np.asarray(batch.tokens), batch)
        return sampling.sample(self._logits, draws)

    def redraw(self, draws: Draws, processed: Array) -> list[tuple[int, float]]:
        return sampling.redraw(self._logits, draws, processed)

    def logits(self) -> Array:
        return self._logits

    def copy(self, source: int, target: int) -> None:
        for memory in (*self.ops.keys, *self.ops.values, *self.ops.value_scales):
            memory[target * BLOCK : (target + 1) * BLOCK] = memory[source * BLOCK : (source + 1) * BLOCK]
