"""The verbs one at a time on arrays, through the same kernels and instructions as a plan: for tests and the twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown import _native
from quickbrown.backends.native.compile import PackedWeights, emit
from quickbrown.backends.native.record import Recorder, Symbol
from quickbrown.engine.batch import Batch
from quickbrown.quant.weight import Weight

Array = npt.NDArray[np.float32]


class NativeOps:
    """Ops (models/ops.py) on numpy arrays. Each call makes a plan of one verb, so this is slow.

    An input array enters as an embedding table in f32 that each token looks its own row up in, which copies it.
    """

    def __init__(
        self, layers: int, blocks: int, kv_heads: int, head_dim: int, kv: str = "bf16", threads: int = 2
    ) -> None:
        self.pool = _native.Pool(threads)
        self.kv = _native.KvMemory(kv, blocks, layers, kv_heads, head_dim)

    def _run(self, verb: str, arrays: list[Array], args: list[Any], batch: Batch | None = None) -> Array:
        length = len(arrays[0])
        recorder = Recorder()
        inputs: list[Symbol] = []
        for x in arrays:
            data = np.ascontiguousarray(x, np.float32)
            inputs.append(recorder.embed(Weight("f32", data.shape, data.view(np.uint8)), None))
        result = getattr(recorder, verb)(*inputs, *args)
        plan = _native.Plan(self.pool, (weights := PackedWeights(recorder.verbs, self.pool)).arena, self.kv)
        buffers = emit(recorder.verbs, result, weights, plan)
        return self._step(plan, length, batch, buffers[result], result.width)

    def _step(self, plan: _native.Plan, length: int, batch: Batch | None, buffer: int, width: int) -> Array:
        index = np.arange(length, dtype=np.int32)
        none = np.zeros(0, np.int32)
        if batch is None:  # no verb looks at sequences: one token each, nothing stored
            blocks = -(-length // _native.BLOCK)
            ends = np.array([0, length], np.int32)
            plan.run(index, index, ends, np.zeros(blocks, np.int32), np.array([0, blocks], np.int32), none, none)
        else:
            plan.run(
                index, batch.positions, batch.starts, batch.blocks, batch.block_starts, batch.logit_rows, batch.fresh
            )
        stride = -(-width // 16) * 16
        return plan.contents(buffer, stride)[:, :width].copy()

    def embed(self, table: Weight, tokens: npt.NDArray[np.int32]) -> Array:
        recorder = Recorder()
        result = recorder.embed(table, None)
        plan = _native.Plan(self.pool, (weights := PackedWeights(recorder.verbs, self.pool)).arena, self.kv)
        buffers = emit(recorder.verbs, result, weights, plan)
        positions, n = np.arange(len(tokens), dtype=np.int32), -(-len(tokens) // _native.BLOCK)
        ends, none = np.array([0, len(tokens)], np.int32), np.zeros(0, np.int32)
        table_blocks = np.zeros(n, np.int32)
        plan.run(np.asarray(tokens, np.int32), positions, ends, table_blocks, np.array([0, n], np.int32), none, none)
        return plan.contents(buffers[result], -(-result.width // 16) * 16)[:, : result.width].copy()

    def linear(self, x: Array, w: Weight) -> Array:
        return self._run("linear", [x], [w])

    def rms_norm(self, x: Array, w: Weight, eps: float) -> Array:
        return self._run("rms_norm", [x], [w, eps])

    def rope(self, x: Array, batch: Batch, heads: int, frequencies: npt.NDArray[np.float64]) -> Array:
        return self._run("rope", [x], [batch, heads, frequencies], batch)

    def attention(
        self, layer: int, q: Array, k: Array, v: Array, batch: Batch, heads: int, kv_heads: int, scale: float
    ) -> Array:
        recorder = Recorder()
        tables = [np.ascontiguousarray(x, np.float32) for x in (q, k, v)]
        inputs = [recorder.embed(Weight("f32", x.shape, x.view(np.uint8)), None) for x in tables]
        result = recorder.attention(layer, *inputs, batch, heads, kv_heads, scale)
        plan = _native.Plan(self.pool, (weights := PackedWeights(recorder.verbs, self.pool)).arena, self.kv)
        buffers = emit(recorder.verbs, result, weights, plan)
        return self._step(plan, len(q), batch, buffers[result], result.width)

    def add(self, a: Array, b: Array) -> Array:
        return self._run("add", [a, b], [])

    def swiglu(self, gate: Array, up: Array) -> Array:
        return self._run("swiglu", [gate, up], [])

    def rows(self, x: Array, batch: Batch) -> Array:
        return self._run("rows", [x], [batch], batch)
