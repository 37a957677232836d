"""Rewriting a recorded list of verbs into fewer, larger ones. Every rewrite keeps each value's bits.

The five stages of a Llama layer that come out: norm + q, k, v · rope + attention · o + residual ·
norm + gate, up + activation · down + residual.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import numpy.typing as npt

from quickbrown import _native
from quickbrown.backends.native.record import Symbol, Verb


def fuse(verbs: list[Verb], result: Symbol) -> list[Verb]:
    """A new list that computes the same `result`; the verbs given are not changed."""
    for rewrite in (_join_linears, _gate, _rotate_in_attention, _norm_first, _add_residual):
        verbs = rewrite(verbs, _uses(verbs, result))
    return verbs


def _uses(verbs: list[Verb], result: Symbol) -> Counter[Symbol]:
    """How often each symbol is read; the result once more."""
    return Counter([s for v in verbs for s in v.reads()] + [result])


def _makers(verbs: list[Verb]) -> dict[Symbol, Verb]:
    return {s: v for v in verbs for s in v.outputs}


def _join_linears(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """Linears of the same input become one with several outputs, where the first of them stands."""
    out: list[Verb] = []
    first: dict[tuple[Symbol, str], Verb] = {}
    for verb in verbs:
        if verb.name == "linear":
            key = (verb.inputs[0], _activation(verb))
            if key in first:
                first[key].outputs += verb.outputs
                first[key].weights += verb.weights
                continue
            verb = first[key] = Verb("linear", verb.inputs, list(verb.outputs), list(verb.weights))
        out.append(verb)
    return out


def _activation(verb: Verb) -> str:
    """Weights that round their input differently cannot share it."""
    return _native.activation(verb.weights[0].format)


def _gate(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """linear(x, gate), linear(x, up), swiglu become one verb whose panels alternate."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        pair = made.get(verb.inputs[0]) if verb.name == "swiglu" else None
        if pair is not None and pair.outputs == verb.inputs and all(uses[s] == 1 for s in verb.inputs):
            alike = len({(w.format, w.shape) for w in pair.weights}) == 1
            if alike and pair.weights[0] is not pair.weights[1]:
                gone.add(id(pair))
                verb = Verb("gated", pair.inputs, verb.outputs, pair.weights)
        out.append(verb)
    return [v for v in out if id(v) not in gone]


def _rotate_in_attention(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """rope(q), rope(k), attention become attention that rotates as it reads."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        if verb.name == "attention":
            q, k, v = verb.inputs
            q_turn, k_turn = made.get(q), made.get(k)
            alone = uses[q] == uses[k] == 1
            if alone and q_turn is not None and k_turn is not None and _turns_alike(q_turn, k_turn):
                gone |= {id(q_turn), id(k_turn)}
                inputs = [q_turn.inputs[0], k_turn.inputs[0], v]
                verb = dataclasses.replace(verb, inputs=inputs, frequencies=q_turn.frequencies)
        out.append(verb)
    return [v for v in out if id(v) not in gone]


def _turns_alike(a: Verb, b: Verb) -> bool:
    return a.name == b.name == "rope" and np.array_equal(_frequencies(a), _frequencies(b))


def _frequencies(verb: Verb) -> npt.NDArray[np.float64]:
    return np.zeros(0) if verb.frequencies is None else verb.frequencies


def _norm_first(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """rms_norm read by one linear only becomes that linear's first act."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        norm = made.get(verb.inputs[0]) if verb.name in ("linear", "gated") else None
        if norm is not None and norm.name == "rms_norm" and uses[verb.inputs[0]] == 1:
            gone.add(id(norm))
            verb = Verb(verb.name, norm.inputs, verb.outputs, verb.weights, norm=norm.norm)
        out.append(verb)
    return [v for v in out if id(v) not in gone]


def _add_residual(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """add(x, linear(h, w)) becomes a linear that adds as it stores."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        if verb.name == "add":
            residual, branch = verb.inputs
            linear = made.get(branch)
            if linear is not None and linear.name == "linear" and linear.outputs == [branch] and uses[branch] == 1:
                gone.add(id(linear))
                verb = Verb("linear", linear.inputs, verb.outputs, linear.weights, linear.norm, residual)
        out.append(verb)
    return [v for v in out if id(v) not in gone]
