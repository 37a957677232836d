"""A model that no one publishes: it speaks every verb without a state, each with all of its options, in two layers."""

from __future__ import annotations

import functools
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from quickbrown.models.ops import KvLayer
from quickbrown.models.rope import rope
from quickbrown.quant.quantize import quantize
from quickbrown.quant.weight import Weight

HIDDEN, INNER, HEADS, HEAD, VALUE = 64, 96, 4, 24, 16
POSITIONS = 640


class Model:
    """Weights as `quantize` makes them in the format; vectors in f32."""

    def __init__(self, format: str = "f32", kv_heads: int = 2, vocab_size: int = 320) -> None:
        self.format, self.kv_heads = format, kv_heads
        self.config = SimpleNamespace(
            state_sizes=(),
            num_attention_heads=HEADS,
            kv_layers=(KvLayer(kv_heads, HEAD, VALUE),) * 2,
            vocab_size=vocab_size,
        )
        parameters = {"rope_theta": 100.0, "partial_rotary_factor": 0.5}
        self.ropes = [rope(parameters, HEAD, 512, start=8, interleaved=True), rope(parameters, HEAD, 512)]

    @functools.cache  # noqa: B019 - a weight is known by its identity
    def weight(self, name: str, rows: int, inputs: int) -> Weight:
        values = np.random.default_rng(list(name.encode())).standard_normal((rows, inputs), np.float32)
        return quantize((0.5 if "table" in name else 0.7 * inputs**-0.5) * values, self.format)

    @functools.cache  # noqa: B019
    def vector(self, name: str, *shape: int) -> Weight:
        values = np.random.default_rng(list(name.encode())).standard_normal(shape, np.float32)
        return quantize(np.float32("bias" not in name) + np.float32(0.2) * values, "f32")

    def linear(self, ops: Any, x: Any, name: str, rows: int, inputs: int) -> Any:
        return ops.linear(x, self.weight(name, rows, inputs), self.vector(name + ".bias", rows))

    def forward(self, ops: Any, tokens: Any, batch: Any) -> Any:
        table = self.weight("table", self.config.vocab_size, HIDDEN)
        x = ops.scale(ops.embed(table, tokens), 1.5)
        x = ops.add(x, ops.positions(self.weight("table of positions", POSITIONS, HIDDEN), batch, 2))
        for layer in range(2):
            x = self.layer(ops, x, batch, layer)
        h = ops.layer_norm(ops.rows(x, batch), None, self.vector("last.bias", HIDDEN), 1e-5)
        return ops.softcap(ops.linear(h, table), 5.0)

    def layer(self, ops: Any, x: Any, batch: Any, layer: int) -> Any:
        at, kv_heads = f"{layer}.", self.kv_heads
        h = ops.layer_norm(x, self.vector(at + "norm", HIDDEN), self.vector(at + "norm.bias", HIDDEN), 1e-5)
        widths = [HEADS * HEAD, kv_heads * (HEAD - 8), kv_heads * VALUE, 8]
        ends = np.cumsum([0, *widths]).tolist()
        whole = self.weight(at + "qkv", ends[-1], HIDDEN)
        q, k, v, common = (ops.linear(h, whole.rows(a, b)) for a, b in pairwise(ends))
        k = ops.join(k, common, kv_heads, True)
        if layer == 0:
            q = ops.rms_norm(q, None, 1e-6, HEADS)
            k = ops.rms_norm(k, self.vector("k", HEAD), 1e-6, kv_heads, -0.5)
        else:
            q = ops.layer_norm(q, self.vector("q", HEAD), self.vector("q.bias", HEAD), 1e-5, HEADS)
            k = ops.layer_norm(k, None, None, 1e-5, kv_heads)
        q, k = (ops.rope(y, batch, n, self.ropes[layer]) for y, n in ((q, HEADS), (k, kv_heads)))
        options = {"window": 100, "softcap": 4.0} if layer else {"slopes": [0.5, 0.25, 0.1, 0.01]}
        sinks = self.vector(at + "sinks", HEADS)
        h = ops.attention(layer, q, k, v, batch, HEADS, kv_heads, HEAD**-0.5, sinks=sinks, **options)
        x = ops.add(x, self.linear(ops, h, at + "o", HIDDEN, HEADS * VALUE))
        h = ops.rms_norm(x, self.vector(at + "second", HIDDEN), 1e-6, 1, 1.0)
        gate, up = (self.linear(ops, h, at + name, INNER, HIDDEN) for name in ("gate", "up"))
        inner = ops.gated(gate, up, "clamped", 1.0) if layer else ops.gated(gate, up, "gelu_tanh")
        kind = "relu2" if layer else "sigmoid"
        inner = ops.multiply(inner, ops.activate(ops.part(inner, 1, 0, INNER), kind))
        return ops.add(x, ops.rms_norm(self.linear(ops, inner, at + "down", HIDDEN, INNER), None, 1e-5))
