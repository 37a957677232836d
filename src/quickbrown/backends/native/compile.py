"""From a recorded list of verbs to packed weights and a native plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from quickbrown import _native
from quickbrown.backends.native.record import Symbol, Verb
from quickbrown.quant.weight import Weight

SLICE = 4 << 20  # bytes of a weight that are read before they are given back


class PackedWeights:
    """The weights of a list of verbs, packed in the order of use into one arena.

    dtype   "auto" packs weights as published, "float32" decodes them first
    packed  called with a weight when bytes of it have been packed, so that its source can give their pages back
    """

    def __init__(
        self, verbs: list[Verb], pool: _native.Pool, dtype: str = "auto", packed: Callable[[Weight], None] | None = None
    ) -> None:
        self.dtype, self.packed = dtype, packed or (lambda weight: None)
        self.weight_index: dict[int, int] = {}  # id of a Weight -> index in the arena
        self.vector_index: dict[int, int] = {}
        # Lookups of tied embeddings use the head's panels, so what is only looked up goes last.
        groups = [
            v.weights if v.name == "gated" else [w] for v in verbs if v.name != "embed" for w in v.weights or [None]
        ]
        groups += [v.weights for v in verbs if v.name == "embed"]
        groups = _distinct([g for g in groups if g != [None]])
        norms = list({id(v.norm[0]): v.norm[0] for v in verbs if v.norm}.values())
        size = sum(_native.packed_size(self.format(w), *w.shape) for group in groups for w in group)
        size += sum(_native.vector_size(w.shape[0]) for w in norms)
        self.arena = _native.Weights(size, pool)
        for group in groups:
            rows, inputs = group[0].shape
            first = self.arena.reserve(self.format(group[0]), rows, inputs, len(group))
            for i, weight in enumerate(group):
                self.weight_index[id(weight)] = first + i
                self._fill(first + i, weight)
        for weight in norms:
            self.vector_index[id(weight)] = self.arena.add_vector(weight.decode())
        self._keep = [w for group in groups for w in group] + norms  # ids stay theirs

    def format(self, weight: Weight) -> str:
        """The format that `weight` is held in."""
        return "f32" if self.dtype == "float32" else weight.format

    def _fill(self, index: int, weight: Weight) -> None:
        """Pack a weight slice by slice, giving the bytes of each back, so that only one copy is in memory."""
        inputs = weight.shape[1]
        step = max(1, SLICE // weight.data.shape[1] // 16) * 16
        for first in range(0, weight.shape[0], step):
            rows = weight.data[first : first + step]
            if self.format(weight) != weight.format:
                rows = Weight(weight.format, (len(rows), inputs), rows).decode().view(np.uint8)
            self.arena.fill(index, first, np.ascontiguousarray(rows))
            self.packed(weight)


def _distinct(groups: list[list[Weight]]) -> list[list[Weight]]:
    """Each weight once, where it comes first."""
    seen: set[int] = set()
    out = []
    for group in groups:
        fresh = [w for w in group if id(w) not in seen]
        seen |= {id(w) for w in fresh}
        if fresh:
            out.append(fresh)
    return out


def emit(verbs: list[Verb], result: Symbol, weights: PackedWeights, plan: _native.Plan) -> dict[Symbol, int]:
    """Write the verbs into `plan`; the buffer of each symbol. Buffers are used again once nobody reads them."""
    last = {s: i for i, v in enumerate(verbs) for s in v.reads()}
    last[result] = len(verbs)
    buffers: dict[Symbol, int] = {}
    free: dict[tuple[int, bool], list[int]] = {}

    def place(symbol: Symbol) -> int:
        spare = free.get((symbol.width, symbol.rows))
        buffers[symbol] = spare.pop() if spare else plan.buffer(symbol.width, symbol.rows)
        return buffers[symbol]

    for i, verb in enumerate(verbs):
        if verb.residual is not None and last[verb.residual] == i:  # added in place
            buffers[verb.outputs[0]] = buffers[verb.residual]
        else:
            for symbol in verb.outputs:
                place(symbol)
        _emit(verb, plan, weights, [buffers[s] for s in verb.inputs], [buffers[s] for s in verb.outputs], buffers)
        for symbol in {s for s in verb.reads() if last[s] == i}:
            if symbol is not verb.residual:
                free.setdefault((symbol.width, symbol.rows), []).append(buffers[symbol])
    plan.result(buffers[result])
    return buffers


def _emit(
    verb: Verb,
    plan: _native.Plan,
    weights: PackedWeights,
    inputs: list[int],
    outputs: list[int],
    buffers: dict[Symbol, int],
) -> None:
    index = [weights.weight_index[id(w)] for w in verb.weights]
    norm, eps = (weights.vector_index[id(verb.norm[0])], verb.norm[1]) if verb.norm else (-1, 0.0)
    no_turn: Any = np.zeros(0)
    turn = no_turn if verb.frequencies is None else np.ascontiguousarray(verb.frequencies, np.float64)
    match verb.name:
        case "embed":
            plan.embed(index[0], outputs[0])
        case "linear":
            residual = buffers[verb.residual] if verb.residual else -1
            plan.linear(inputs[0], list(zip(index, outputs, strict=True)), norm, eps, residual)
        case "gated":
            plan.gated(inputs[0], index[0], index[1], outputs[0], norm, eps)
        case "rms_norm":
            plan.rms_norm(inputs[0], norm, eps, outputs[0])
        case "rope":
            plan.rope(inputs[0], turn, verb.heads, outputs[0])
        case "attention":
            q, k, v = inputs
            plan.attention(verb.layer, q, k, v, outputs[0], verb.heads, verb.scale, turn)
        case "add":
            plan.add(inputs[0], inputs[1], outputs[0])
        case "swiglu":
            plan.swiglu(inputs[0], inputs[1], outputs[0])
        case "rows":
            plan.rows(inputs[0], outputs[0])
        case unknown:
            raise NotImplementedError(f"the native backend has no verb {unknown!r}")
