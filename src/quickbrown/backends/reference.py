"""What each verb means, in numpy: slow, obvious, the specification that fast backends are compared with.

It simulates what a backend rounds: the input of a linear (to int8 per 32, or bf16, by the weight's format and what the
model asks) and the keys, values, queries and attention weights (to bf16, unless the model runs in float32). Sums are
exact to float64 where a fast backend uses one float32 chain, so the two differ by float32 summation error alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.backends import sampling
from quickbrown.engine.batch import NO_DRAWS, Batch, Draws, Ints
from quickbrown.models.ops import Rope
from quickbrown.quant.weight import Weight

Array = npt.NDArray[np.float32]

BLOCK = 64  # tokens in a KV block
CHUNK = 256  # keys in an attention chunk, anchored at absolute position 0

# What the input of a linear is rounded to, by the format of its weight.
ACTIVATION = {
    "f32": "f32", "f16": "f32", "bf16": "bf16", "q8_0": "int8", "q4_0": "int8", "q4_1": "int8",
    "nf4": "f32", "fp4": "f32", "q4_k": "int8", "q6_k": "int8", "q5_0": "int8", "q5_1": "int8", "q5_k": "int8",
    "iq4_nl": "int8", "mxfp4": "int8", "u4z": "int8", "u8z": "int8", "e4m3": "f32",
}  # fmt: skip


def activation(format: str, wide: bool = False) -> str:
    """What the input of a linear is rounded to: a key of `ROUND`. wide: bf16 in the place of int8."""
    rounded = ACTIVATION[format]
    return "bf16" if wide and rounded == "int8" else rounded


def to_bf16(x: npt.NDArray[Any]) -> Array:
    """Round float32 to the nearest bfloat16, ties to even; denormals become zero."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return np.where(np.abs(x) < 2.0**-126, np.float32(0), rounded).astype(np.float32)


def to_int8(x: Array) -> Array:
    """Round rows to int8 with one float32 scale per 32 values, and back: max|x| maps to 127."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(groups).max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = np.where(largest > 0, np.float32(127) / largest, np.float32(0)).astype(np.float32)
    rounded: Array = np.rint(groups * inverse) * (largest / np.float32(127))
    return rounded.reshape(x.shape).astype(np.float32)


ROUND: dict[str, Callable[[Array], Array]] = {"f32": lambda x: x, "bf16": to_bf16, "int8": to_int8}


def turns(batch: Batch, rope: Rope) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """cos and sin for each token, times the rotation's factor: (T, 1, D / 2) each."""
    spans = batch.spans if len(batch.spans) else [0] * (len(batch.starts) - 1)
    angles, factors = zip(*(rope.angles(span) for span in spans), strict=True)
    counts = np.diff(batch.starts)
    turned = np.asarray(batch.positions)[:, None] * np.repeat(angles, counts, 0)
    factor = np.repeat(factors, counts)[:, None]
    return (factor * np.cos(turned))[:, None], (factor * np.sin(turned))[:, None]


class ReferenceOps:
    """The verbs of `models.ops` on numpy arrays, over keys and values of `layers` layers in `blocks` blocks.

    kv    "bf16" or "f32": what keys, values, queries and attention weights are rounded to
    wide  the input of linears with quantized weights is rounded to bf16, not to int8
    """

    def __init__(
        self, layers: int, blocks: int, kv_heads: int, head_dim: int, kv: str = "bf16", wide: bool = False
    ) -> None:
        self.round_kv, self.wide = ROUND[kv], wide
        shape = (layers, blocks * BLOCK, kv_heads, head_dim)
        self.keys, self.values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

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

    def rms_norm(self, x: Array, w: Weight, eps: float, heads: int = 1) -> Array:
        parts = x.reshape(len(x), heads, -1)
        mean = np.mean(np.square(parts, dtype=np.float64), -1, keepdims=True)
        out: Array = (parts / np.sqrt(mean + eps) * w.decode()).astype(np.float32)
        return out.reshape(x.shape)

    def rope(self, x: Array, batch: Batch, heads: int, rope: Rope) -> Array:
        cos, sin = turns(batch, rope)
        a, b = np.split(x.reshape(len(x), heads, -1), 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape).astype(np.float32)

    def attention(
        self,
        layer: int,
        q: Array,
        k: Array,
        v: Array,
        batch: Batch,
        heads: int,
        kv_heads: int,
        scale: float,
        window: int = 0,
    ) -> Array:
        keys, values = self.keys[layer], self.values[layer]  # (slots, kv_heads, D)
        dim = keys.shape[-1]
        out = np.empty((len(q), heads, dim), np.float32)
        queries = self.round_kv(q).reshape(len(q), kv_heads, heads // kv_heads, dim)
        for s in range(len(batch.starts) - 1):
            begin, end = batch.starts[s], batch.starts[s + 1]
            table = np.asarray(batch.blocks[batch.block_starts[s] : batch.block_starts[s + 1]])
            slots = (table[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)  # slot of each position
            new = slots[np.asarray(batch.positions[begin:end])]
            keys[new] = self.round_kv(k[begin:end]).reshape(-1, kv_heads, dim)
            values[new] = self.round_kv(v[begin:end]).reshape(-1, kv_heads, dim)
            for t in range(begin, end):
                seen = slots[: batch.positions[t] + 1]
                first = max(0, len(seen) - window) if window else 0
                out[t] = self._attend(queries[t], keys[seen], values[seen], scale, first).reshape(heads, dim)
        return out.reshape(q.shape)

    def _attend(self, q: Array, keys: Array, values: Array, scale: float, first: int) -> npt.NDArray[np.float64]:
        """One token: q (kv_heads, G, D), which sees keys and values (n, kv_heads, D) from position `first` on
        -> (kv_heads, G, D).

        Weights are rounded relative to the maximum that is seen of their own chunk of 256 keys, and summed as rounded.
        """
        out = np.zeros(q.shape, np.float64)
        total = np.zeros((*q.shape[:2], 1))
        top = np.full((*q.shape[:2], 1), -np.inf)
        for chunk in range(first // CHUNK * CHUNK, len(keys), CHUNK):
            seen = slice(max(chunk, first), chunk + CHUNK)
            k, v = keys[seen].astype(np.float64), values[seen].astype(np.float64)
            scores = np.einsum("hgd,nhd->hgn", q.astype(np.float64), k) * scale
            largest = scores.max(-1, keepdims=True)
            weights = self.round_kv(np.exp(scores - largest).astype(np.float32)).astype(np.float64)
            higher = np.maximum(top, largest)
            old, new = np.exp(top - higher), np.exp(largest - higher)
            out = out * old + np.einsum("hgn,nhd->hgd", weights, v) * new
            total = total * old + weights.sum(-1, keepdims=True) * new
            top = higher
        return out / total

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def swiglu(self, gate: Array, up: Array) -> Array:
        with np.errstate(over="ignore"):
            out: Array = (gate / (1 + np.exp(-gate.astype(np.float64))) * up).astype(np.float32)
        return out

    def rows(self, x: Array, batch: Batch) -> Array:
        return x[np.asarray(batch.logit_rows, np.intp)]


class ReferenceRunner:
    """A Runner (engine/runner.py) on the reference verbs. `model` is a family object with `config` and `forward`."""

    block_size = BLOCK

    def __init__(self, model: Any, blocks: int = 16, kv: str = "bf16") -> None:
        c = model.config
        self.model, self.vocab_size, self._blocks = model, c.vocab_size, blocks
        self.ops = ReferenceOps(c.num_hidden_layers, blocks, c.num_key_value_heads, c.head_dim, kv)
        self._logits = np.zeros((0, c.vocab_size), np.float32)

    def room(self) -> int:
        return self._blocks

    def run(self, batch: Batch, draws: Draws = NO_DRAWS) -> list[tuple[int, float]]:
        self._logits = self.model.forward(self.ops, np.asarray(batch.tokens), batch)
        return sampling.sample(self._logits, draws)

    def redraw(self, draws: Draws, processed: Array) -> list[tuple[int, float]]:
        return sampling.redraw(self._logits, draws, processed)

    def logits(self) -> Array:
        return self._logits

    def copy(self, source: int, target: int) -> None:
        for memory in (self.ops.keys, self.ops.values):
            memory[:, target * BLOCK : (target + 1) * BLOCK] = memory[:, source * BLOCK : (source + 1) * BLOCK]
