"""The verbs one at a time on arrays, through the same kernels and instructions as a plan: for tests and the twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from quickbrown import _native
from quickbrown.backends.native.compile import PackedWeights, emit, state_offsets
from quickbrown.backends.native.record import Recorder, Symbol, Verb
from quickbrown.engine.batch import Batch, Ints
from quickbrown.engine.runner import places
from quickbrown.models.ops import KvLayer, Rope, Router
from quickbrown.quant.weight import Weight

Array = npt.NDArray[np.float32]


class NativeOps:
    """Ops (models/ops.py) on numpy arrays. Each call makes a plan of one verb, so this is slow.

    An input array enters as an embedding table in f32 that each token looks its own row up in, which copies it.
    """

    def __init__(
        self, layers: Sequence[KvLayer], blocks: int, kv: str = "bf16", wide: bool = False, threads: int = 2
    ) -> None:
        self.wide, self.layers = wide, layers
        self.pool = _native.Pool(threads)
        self.kv = _native.KvMemory(kv, blocks, layers)
        self.states: dict[tuple[str, int], _native.StateMemory] = {}  # of a verb and a layer
        self._batch: Batch | None = None  # the last one, whose fresh blocks are cleared

    def _run(
        self,
        record: Callable[[Recorder, list[Symbol]], Symbol],
        arrays: list[Array],
        batch: Batch | None = None,
        tokens: npt.NDArray[np.int32] | None = None,
    ) -> Array:
        """Record one verb on the symbols of `arrays`, run it once, return its result."""
        recorder = Recorder(self.layers)
        inputs = []
        for x in arrays:
            data = np.ascontiguousarray(x, np.float32)
            inputs.append(recorder.embed(Weight("f32", data.shape, data.view(np.uint8)), None))
        result = record(recorder, inputs)
        weights = PackedWeights(recorder.verbs, self.pool)
        memory = self._memory(recorder.verbs)
        plan = _native.Plan(self.pool, weights.arena, self.kv, self.wide, memory)
        buffers, turns = emit(recorder.verbs, result, weights, plan)
        if tokens is None:
            tokens = np.arange(len(arrays[0]), dtype=np.int32)
        if batch is None:  # the verb looks at no sequence: one that nothing is stored of will do
            count, blocks = len(tokens), -(-len(tokens) // _native.BLOCK)
            batch = Batch(range(count), range(count), [0, count], [0] * blocks, [0, blocks], [], [])
            fresh: Ints = []
        else:
            fresh = [] if batch is self._batch else batch.fresh
            self._batch = batch
        b, turn = batch, turns.of(batch.spans)
        states = (b.reads, b.writes) if memory else ()
        rest = b.logit_rows, fresh, turn, *states
        plan.run(tokens.tolist(), b.positions, b.starts, b.blocks, b.block_starts, *rest)
        return plan.contents(buffers[result], -(-result.width // 16) * 16)[:, : result.width].copy()

    def _memory(self, verbs: list[Verb]) -> _native.StateMemory | None:
        """Where the last verb keeps its states, if it has any."""
        key, floats = (verbs[-1].name, verbs[-1].layer), state_offsets(verbs)[-1]
        if floats and key not in self.states:
            self.states[key] = _native.StateMemory(places(self.kv.blocks), floats)
        return self.states[key] if floats else None

    def embed(self, table: Weight, tokens: npt.NDArray[np.int32]) -> Array:
        return self._run(lambda r, _: r.embed(table, None), [], tokens=np.asarray(tokens, np.int32))

    def linear(self, x: Array, w: Weight, bias: Weight | None = None) -> Array:
        return self._run(lambda r, s: r.linear(s[0], w, bias), [x])

    def positions(self, table: Weight, batch: Batch, offset: int = 0) -> Array:
        tokens = np.zeros(len(batch.positions), np.int32)
        return self._run(lambda r, _: r.positions(table, batch, offset), [], batch, tokens)

    def rms_norm(self, x: Array, w: Weight | None, eps: float, heads: int = 1, offset: float = 0.0) -> Array:
        return self._run(lambda r, s: r.rms_norm(s[0], w, eps, heads, offset), [x])

    def layer_norm(self, x: Array, w: Weight | None, bias: Weight | None, eps: float, heads: int = 1) -> Array:
        return self._run(lambda r, s: r.layer_norm(s[0], w, bias, eps, heads), [x])

    def rope(self, x: Array, batch: Batch, heads: int, rope: Rope) -> Array:
        return self._run(lambda r, s: r.rope(s[0], batch, heads, rope), [x], batch)

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
        rest = (batch, heads, kv_heads, scale, window, softcap, sinks, slopes)
        if k is None or v is None:
            return self._run(lambda r, s: r.attention(layer, s[0], None, None, *rest), [q], batch)
        return self._run(lambda r, s: r.attention(layer, s[0], s[1], s[2], *rest), [q, k, v], batch)

    def short_conv(self, layer: int, x: Array, w: Weight, bias: Weight | None, batch: Batch) -> Array:
        return self._run(lambda r, s: r.short_conv(layer, s[0], w, bias, batch), [x], batch)

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
        rest = (batch, heads, key_heads, delta, skip)
        return self._run(
            lambda r, s: r.recurrence(layer, s[0], s[1], s[2], s[3], s[4], *rest), [q, k, v, beta, decay], batch
        )

    def decay(self, x: Array, log_rate: Weight) -> Array:
        return self._run(lambda r, s: r.decay(s[0], log_rate), [x])

    def softplus(self, x: Array) -> Array:
        return self._run(lambda r, s: r.softplus(s[0]), [x])

    def add(self, a: Array, b: Array) -> Array:
        return self._run(lambda r, s: r.add(s[0], s[1]), [a, b])

    def multiply(self, a: Array, b: Array) -> Array:
        return self._run(lambda r, s: r.multiply(s[0], s[1]), [a, b])

    def scale(self, x: Array, factor: float | Weight) -> Array:
        return self._run(lambda r, s: r.scale(s[0], factor), [x])

    def softcap(self, x: Array, cap: float) -> Array:
        return self._run(lambda r, s: r.softcap(s[0], cap), [x])

    def activate(self, x: Array, kind: str) -> Array:
        return self._run(lambda r, s: r.activate(s[0], kind), [x])

    def gated(self, gate: Array, up: Array, kind: str, limit: float = 0.0) -> Array:
        return self._run(lambda r, s: r.gated(s[0], s[1], kind, limit), [gate, up])

    def part(self, x: Array, heads: int, begin: int, end: int) -> Array:
        return self._run(lambda r, s: r.part(s[0], heads, begin, end), [x])

    def join(self, a: Array, b: Array, heads: int, shared: bool = False) -> Array:
        return self._run(lambda r, s: r.join(s[0], s[1], heads, shared), [a, b])

    def route(self, logits: Array, router: Router, bias: Weight | None = None, scales: Weight | None = None) -> Array:
        return self._run(lambda r, s: r.route(s[0], router, bias, scales), [logits])

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
        return self._run(lambda r, s: r.experts(s[0], s[1], gate, up, down, biases, kind, limit), [x, routing])

    def gate_rows(self, x: Array, gate: Array) -> Array:
        return self._run(lambda r, s: r.gate_rows(s[0], s[1]), [x, gate])

    def rows(self, x: Array, batch: Batch) -> Array:
        return self._run(lambda r, s: r.rows(s[0], batch), [x], batch)
