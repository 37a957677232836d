"""Rewriting a recorded list of verbs into fewer, larger ones. Every rewrite keeps each value's bits.

The five stages of a Llama layer that come out: norm + q, k, v · rope + attention · o + residual ·
norm + gate, up + activation · down + residual.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

from quickbrown import _native
from quickbrown.backends.native.record import Symbol, Verb

Held = Callable[[Any], str]  # the format that a weight is held in


def fuse(verbs: list[Verb], result: Symbol, held: Held, wide: bool = False) -> list[Verb]:
    """A new list that computes the same `result`; the verbs given are not changed. `wide` as the plan has it."""
    verbs = _join_linears(verbs, held, wide)
    verbs = _gate(verbs, _uses(verbs, result), held)
    for rewrite in (_rotate_in_attention, _norm_in_attention, _norm_first, _add_residual):
        verbs = rewrite(verbs, _uses(verbs, result))
    return verbs


def _uses(verbs: list[Verb], result: Symbol) -> Counter[Symbol]:
    """How often each symbol is read; the result once more."""
    return Counter([s for v in verbs for s in v.reads()] + [result])


def _makers(verbs: list[Verb]) -> dict[Symbol, Verb]:
    return {s: v for v in verbs for s in v.outputs}


def _join_linears(verbs: list[Verb], held: Held, wide: bool) -> list[Verb]:
    """Linears of the same input become one with several outputs, where the first of them stands. Weights that round
    their input differently cannot share it."""
    out: list[Verb] = []
    first: dict[tuple[Symbol, str], Verb] = {}
    for verb in verbs:
        if verb.name == "linear":
            key = (verb.inputs[0], _native.activation(held(verb.weights[0]), wide))
            if key in first:
                first[key].outputs += verb.outputs
                first[key].weights += verb.weights
                first[key].biases += verb.biases
                continue
            verb = first[key] = Verb("linear", verb.inputs, list(verb.outputs), list(verb.weights), list(verb.biases))
        out.append(verb)
    return out


def _gate(verbs: list[Verb], uses: Counter[Symbol], held: Held) -> list[Verb]:
    """linear(x, gate), linear(x, up), gated become one verb whose panels alternate."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        pair = made.get(verb.inputs[0]) if verb.name == "gated" else None
        if pair is not None and pair.outputs == verb.inputs and all(uses[s] == 1 for s in verb.inputs):
            alike = len({(held(w), w.shape) for w in pair.weights}) == 1
            if alike and pair.weights[0] is not pair.weights[1]:
                gone.add(id(pair))
                verb = dataclasses.replace(
                    verb, name="gated_linear", inputs=pair.inputs, weights=pair.weights, biases=pair.biases
                )
        out.append(verb)
    return [v for v in out if id(v) not in gone]


def _rotate_in_attention(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """rope(q), rope(k) if there is one, attention become attention that rotates as it reads."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        if verb.name == "attention":
            turned = verb.inputs[:2]
            turns = [turn for s in turned if (turn := made.get(s)) and turn.name == "rope" and uses[s] == 1]
            if len(turns) == len(turned) and len({turn.rope for turn in turns}) == 1:
                gone |= {id(turn) for turn in turns}
                inputs = [*(turn.inputs[0] for turn in turns), *verb.inputs[2:]]
                verb = dataclasses.replace(verb, inputs=inputs, rope=turns[0].rope)
        out.append(verb)
    return [v for v in out if id(v) not in gone]


def _norm_in_attention(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """Norms of q's heads and of k's, if there is one, attention become attention that normalises as it reads."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        if verb.name == "attention":
            normed = verb.inputs[:2]
            dim = verb.inputs[0].width // verb.heads
            makers = [maker for s in normed if (maker := made.get(s)) and _is_head_norm(maker, dim) and uses[s] == 1]
            if len(makers) == len(normed):
                gone |= {id(maker) for maker in makers}
                inputs = [*(maker.inputs[0] for maker in makers), *verb.inputs[2:]]
                verb = dataclasses.replace(verb, inputs=inputs, norms=tuple(m.norm for m in makers if m.norm))
        out.append(verb)
    return [v for v in out if id(v) not in gone]


def _is_head_norm(verb: Verb, dim: int) -> bool:
    """Whether it normalises parts of `dim` values."""
    return _is_norm(verb) and verb.outputs[0].width == verb.heads * dim


def _is_norm(verb: Verb) -> bool:
    return verb.name in ("rms_norm", "layer_norm")


def _norm_first(verbs: list[Verb], uses: Counter[Symbol]) -> list[Verb]:
    """A norm read by one linear only becomes that linear's first act."""
    made = _makers(verbs)
    gone: set[int] = set()
    out: list[Verb] = []
    for verb in verbs:
        norm = made.get(verb.inputs[0]) if verb.name in ("linear", "gated_linear") else None
        if norm is not None and _is_norm(norm) and norm.heads == 1 and uses[verb.inputs[0]] == 1:
            gone.add(id(norm))
            verb = dataclasses.replace(verb, inputs=norm.inputs, norm=norm.norm)
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
            alone = linear is not None and linear.outputs == [branch] and uses[branch] == 1
            if linear is not None and alone and linear.name == "linear":
                gone.add(id(linear))
                verb = dataclasses.replace(linear, outputs=verb.outputs, residual=residual)
        out.append(verb)
    return [v for v in out if id(v) not in gone]
