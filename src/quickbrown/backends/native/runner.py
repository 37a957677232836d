"""The engine's Runner on native plans: one call into the extension a step, whatever the number of layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown import _native
from quickbrown.backends.native.compile import Formats, PackedWeights, emit, state_offsets
from quickbrown.backends.native.fuse import fuse
from quickbrown.backends.native.record import Recorder
from quickbrown.backends.native.threads import usable_threads
from quickbrown.engine.batch import NO_DRAWS, Batch, Draws
from quickbrown.engine.runner import places
from quickbrown.models.ops import KvLayer
from quickbrown.quant.weight import Weight
from quickbrown.weights.kept import Kept


def kv_block_bytes(kv: str, layers: Sequence[KvLayer]) -> int:
    """What 64 tokens' keys and values take: "bf16", "f32" or "int8", of these layers."""
    return _native.KvMemory(kv, 1, layers).block_bytes


class NativeRunner:
    """Runs a family's model (an object with `config` and `forward`).

    blocks  KV blocks of 64 tokens; memory is taken from the system as they are first used
    dtype   "auto": weights as published, keys and values in bf16; "float32": both in float32; "bfloat16": weights of
            floats and keys and values in bf16
    hold    the format in which a weight of two axes is held, where that shall not be its own
    packed  called with a weight when bytes of it have been packed and its source may give them back
    wide    the input of linears with quantized weights is rounded to bf16, not to int8
    kv      what keys and values are stored in: "bf16", "f32" or "int8"; by dtype unless given
    """

    block_size: int = _native.BLOCK

    def __init__(
        self,
        model: Any,
        *,
        blocks: int,
        threads: int | None = None,
        dtype: str = "auto",
        fused: bool = True,
        packed: Callable[[Weight], None] | None = None,
        hold: Callable[[Weight], str] | None = None,
        wide: bool = False,
        kept: Kept | None = None,
        kv: str | None = None,
    ) -> None:
        c = model.config
        recorder = Recorder(c.kv_layers)
        self.result = result = model.forward(recorder, None, None)
        held = Formats(dtype, hold)
        self.verbs = verbs = (
            fuse(recorder.verbs, result, held, wide) if fused else recorder.verbs
        )  # one instruction each
        self.vocab_size: int = c.vocab_size
        self.pool = _native.Pool(threads or usable_threads())
        self.weights = PackedWeights(verbs, self.pool, held, packed, kept)
        self.layers, self.wide, self.kv_type = c.kv_layers, wide, kv or ("f32" if dtype == "float32" else "bf16")
        self._prepare(blocks)

    def _prepare(self, blocks: int) -> None:
        """Take memory, and write the plan that uses it."""
        self.kv = _native.KvMemory(self.kv_type, blocks, self.layers)
        floats = state_offsets(self.verbs)[-1]
        self.memory = _native.StateMemory(places(blocks) if floats else 0, floats)
        self.plan = _native.Plan(self.pool, self.weights.arena, self.kv, self.wide, self.memory)
        _, self.turns = emit(self.verbs, self.result, self.weights, self.plan)
        self.draws = _native.Draws(self.plan)

    def multiplies(self, weight: Weight) -> str:
        """What a linear with this weight multiplies, as `Pool.peak` names it: "int8", "bf16" or "f32"."""
        return _native.activation(self.weights.format(weight), self.wide).removesuffix("_groups")

    def beside(self, other: NativeRunner) -> NativeRunner:
        """Another runner of the same weights, which are held once, on the threads of `other` and with memory for as
        many tokens: not to be run while that one is."""
        made = copy.copy(self)
        made.pool = other.pool
        made._prepare(other.room())
        return made

    def room(self) -> int:
        return self.kv.blocks

    def states(self) -> int:
        return self.memory.places

    def run(self, batch: Batch, draws: Draws = NO_DRAWS) -> list[tuple[int, float]]:
        return self.draws.run(
            batch.tokens,
            batch.positions,
            batch.starts,
            batch.blocks,
            batch.block_starts,
            batch.logit_rows,
            batch.fresh,
            draws.rows,
            draws.seeds,
            draws.positions,
            draws.temperatures,
            draws.top_k,
            draws.top_p,
            draws.min_p,
            draws.logprobs,
            self.turns.of(batch.spans),
            draws.edits,
            batch.reads,
            batch.writes,
        )

    def redraw(self, draws: Draws, processed: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
        return self.draws.redraw(
            draws.rows,
            draws.seeds,
            draws.positions,
            draws.temperatures,
            draws.top_k,
            draws.top_p,
            draws.min_p,
            draws.logprobs,
            processed,
        )

    def logits(self) -> npt.NDArray[np.float32]:
        return self.plan.logits()

    def copy(self, source: int, target: int) -> None:
        self.kv.copy(source, target)
