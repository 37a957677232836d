"""From a recorded list of verbs to packed weights and a native plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from quickbrown import _native
from quickbrown.backends.native.memory import available_memory
from quickbrown.backends.native.record import Symbol, Vector, Verb
from quickbrown.models.ops import Rope
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.weight import Weight
from quickbrown.types import size
from quickbrown.weights.kept import Kept

LAYOUT = "2"  # of packed weights: another once the same weights become other bytes (tests/native/test_packed.py)
SLICE = 4 << 20  # bytes of a weight that are read before they are given back; as float32 where it is encoded anew
LINEARS = ("linear", "gated_linear")
LOOKED_UP = ("embed", "positions")  # verbs that read rows of a weight
WORTH_KEEPING = 1 << 20  # bytes; less is packed sooner than looked up


class TooLarge(ValueError):
    """Packed weights that the memory cannot hold.

    needed, free  bytes
    """

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"the weights take {size(needed)}, but only {size(free)} of memory are free")
        self.needed, self.free = needed, free


@dataclass(frozen=True)
class Formats:
    """The format that each weight is held in. One that has no kernels gives way to the one that its values are held in.

    dtype  of those that are held as published: "auto" leaves them, "float32" decodes them, "bfloat16" rounds those of
           floats. ValueError for another.
    hold   what a weight shall be held in; its own format unless given
    """

    dtype: str = "auto"
    hold: Callable[[Weight], str] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"dtype must be 'auto', 'float32' or 'bfloat16', not {self.dtype!r}")

    def __call__(self, weight: Weight) -> str:
        format = self.hold(weight) if self.hold else weight.format
        if format == weight.format and self.dtype == "float32":
            return "f32"
        if format == weight.format and self.dtype == "bfloat16" and format in ("f64", "f32", "f16"):
            return "bf16"
        known = FORMATS.get(format)
        return known.held or format if known else format  # what nobody knows is refused where it is packed


def packed_bytes(weights: Iterable[Weight], format: Callable[[Weight], str]) -> int:
    """What weights take when they are packed in these formats, but for what fills up lines of memory."""
    return sum(
        _native.packed_size(format(w), math.prod(w.shape[:-1]), w.shape[-1])
        if len(w.shape) > 1
        else _native.vector_size(math.prod(w.shape))
        for w in weights
    )


class PackedWeights:
    """The weights of a list of verbs, packed in the order of use into one arena, or mapped as they were kept.

    format  the format that a weight is held in; where that is not its own, its rows are decoded and encoded
    packed  called with a weight when bytes of it have been packed, so that its source can give their pages back
    kept    where an earlier process may have kept them: then nothing of the source's weights is read
    mapped  whether one had
    unkept  whether `keep` has something to do

    Raises TooLarge before any memory is taken.
    """

    def __init__(
        self,
        verbs: list[Verb],
        pool: _native.Pool,
        format: Callable[[Weight], str] = Formats(),
        packed: Callable[[Weight], None] | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.pool, self.format, self.packed = pool, format, packed or (lambda weight: None)
        self.weight_index: dict[int, int] = {}  # id of a Weight -> index in the arena
        self._vector_index: dict[tuple[int, float], int] = {}
        if any(w.columns is not None for v in verbs if v.name not in LINEARS for w in v.weights):
            raise ValueError("columns held in another order than their own (desc_act) are put back for linears only")
        # Lookups of tied embeddings use the head's panels, so what is only looked up goes last.
        groups = [group for v in verbs if v.name not in LOOKED_UP for group in v.groups()]
        groups = _distinct(groups + [v.weights for v in verbs if v.name in LOOKED_UP])
        vectors = list({_key(vector): vector for v in verbs for vector in v.vectors()}.values())
        whole = sum(_native.packed_size(self.format(w), *w.shape) for group in groups for w in group)
        whole += sum(_native.vector_size(math.prod(w.shape)) for w, _ in vectors)
        self._groups, self._vectors = groups, vectors  # kept, so that ids stay theirs
        self._facts = {"signature": self._signature()}
        self._kept = kept if kept is not None and kept.limit and whole >= WORTH_KEEPING else None
        arena = self._mapped()
        self.mapped = arena is not None
        self.unkept = not self.mapped and self._kept is not None
        if arena is None and whole > (free := available_memory()):
            raise TooLarge(whole, free)
        self.arena = arena or _native.Weights(whole, pool)
        if not self.mapped:
            self._reserve(self.arena)
            for weight in (w for group in groups for w in group):
                self._fill(self.weight_index[id(weight)], weight)
            for vector in vectors:
                weight, offset = vector
                values = weight.decode().reshape(-1)
                values = values + np.float32(offset) if offset else values
                self.arena.fill_vector(self._vector_index[_key(vector)], values)

    def _reserve(self, arena: _native.Weights) -> None:
        """Give every weight its place, and note its index."""
        for group in self._groups:
            rows, inputs = group[0].shape
            first = arena.reserve(self.format(group[0]), rows, inputs, len(group))
            self.weight_index |= {id(weight): first + i for i, weight in enumerate(group)}
        self._vector_index = {_key(v): arena.reserve_vector(math.prod(v[0].shape)) for v in self._vectors}

    def vector(self, vector: Vector | None) -> int:
        """Its index in the arena; -1 for none."""
        return -1 if vector is None else self._vector_index[_key(vector)]

    def _mapped(self) -> _native.Weights | None:
        """What was kept of just these weights, held in just these formats, each at its place."""
        found = self._kept.open() if self._kept else None
        if found is None or found.facts != self._facts:
            return None
        arena = _native.Weights(np.frombuffer(found.data, np.uint8), self.pool)
        try:
            self._reserve(arena)
        except ValueError:  # too small
            return None
        return arena if arena.bytes == len(found.data) else None

    def keep(self) -> bool:
        """Keep what was packed for the next start, if there is a place for it; whether it is kept now."""
        if self._kept is not None and self.unkept:
            self.unkept = not self._kept.write(self._facts, [self.arena.packed()])
        return not self.unkept

    def _signature(self) -> str:
        """A digest of all that decides what the source's bytes become."""
        groups = [[(w.format, self.format(w), w.shape) for w in group] for group in self._groups]
        vectors = [(w.format, w.shape, *([offset] if offset else [])) for w, offset in self._vectors]
        return sha256(repr((groups, vectors)).encode()).hexdigest()

    def _fill(self, index: int, weight: Weight) -> None:
        """Pack a weight slice by slice, giving the bytes of each back, so that only one copy is in memory."""
        inputs, format = weight.shape[1], self.format(weight)
        width = FORMATS[weight.format].row_bytes(inputs)
        step = max(1, SLICE // (width if format == weight.format else max(width, 4 * inputs)) // 16) * 16
        for number, rows in enumerate(weight.slices(step)):
            if format != weight.format:
                rows = self._encoded(format, Weight(weight.format, (len(rows), inputs), rows))
            self.arena.fill(index, number * step, np.ascontiguousarray(rows))
            self.packed(weight)

    def _encoded(self, format: str, rows: Weight) -> npt.NDArray[np.uint8]:
        """The bytes of these rows in another format."""
        published = FORMATS[rows.format]
        if format == published.held and published.transcode:
            return published.transcode(rows.data)
        values = rows.decode()
        return values.view(np.uint8) if format == "f32" else _native.quantize(format, values, self.pool)


def _key(vector: Vector) -> tuple[int, float]:
    return id(vector[0]), vector[1]


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


class Turns:
    """The rotations of a plan, numbered as they occur in `verbs`, and their variants: one for each span in use."""

    def __init__(self, verbs: list[Verb], plan: _native.Plan) -> None:
        self.plan = plan
        self.ropes = list(dict.fromkeys(v.rope for v in verbs if v.rope))
        self.spans = [0]
        for rope in self.ropes:
            plan.rotation(*self._variants(rope), rope.start, rope.interleaved)

    def _variants(self, rope: Rope) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        frequencies, factors = zip(*map(rope.angles, self.spans), strict=True)
        return np.array(frequencies, np.float64), np.array(factors, np.float64)

    def of(self, spans: Sequence[int]) -> list[int]:
        """The variant of each sequence of a batch, of which `spans` are; made where they are new."""
        if not self.ropes or not any(spans):
            return NO_TURNS
        if not set(spans) <= set(self.spans):
            self.spans = sorted({0, *spans})
            for i, rope in enumerate(self.ropes):
                self.plan.turn(i, *self._variants(rope))
        return [self.spans.index(span) for span in spans]


NO_TURNS: list[int] = []  # all sequences turn as in short texts; never added to


def emit(
    verbs: list[Verb], result: Symbol, weights: PackedWeights, plan: _native.Plan
) -> tuple[dict[Symbol, int], Turns]:
    """Write the verbs into `plan`; the buffer of each symbol. Buffers are used again once nobody reads them."""
    turns = Turns(verbs, plan)
    offsets = state_offsets(verbs)
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
        _emit(verb, plan, weights, turns, buffers, offsets[i])
        for symbol in {s for s in verb.reads() if last[s] == i}:
            if symbol is not verb.residual:
                free.setdefault((symbol.width, symbol.rows), []).append(buffers[symbol])
    plan.result(buffers[result])
    return buffers, turns


def state_offsets(verbs: list[Verb]) -> list[int]:
    """Where the state of each verb begins in a place; then the floats of a place."""
    return list(itertools.accumulate((-(-verb.state // 16) * 16 for verb in verbs), initial=0))


def _emit(
    verb: Verb,
    plan: _native.Plan,
    weights: PackedWeights,
    turns: Turns,
    buffers: dict[Symbol, int],
    state: int,
) -> None:
    inputs, outputs = [buffers[s] for s in verb.inputs], [buffers[s] for s in verb.outputs]
    index = [weights.weight_index[id(w)] for w in verb.weights]
    biases = [weights.vector(None if bias is None else (bias, 0.0)) for bias in verb.biases]
    norm, q_norm, k_norm = (
        -1 if n is None else plan.norm(weights.vector(n.weight), weights.vector(n.bias), n.eps, n.centred)
        for n in (verb.norm, *verb.norms, *([None] * (2 - len(verb.norms))))
    )
    rotation = turns.ropes.index(verb.rope) if verb.rope else -1
    match verb.name:
        case "embed":
            plan.embed(index[0], outputs[0])
        case "positions":
            plan.positions(index[0], verb.range[0], outputs[0])
        case "linear":
            residual = buffers[verb.residual] if verb.residual else -1
            plan.linear(inputs[0], list(zip(index, outputs, biases, strict=True)), norm, residual)
        case "gated_linear":
            gate, up = index
            plan.gated_linear(inputs[0], gate, up, outputs[0], verb.kind, verb.factor, norm, biases[0], biases[1])
        case "rms_norm" | "layer_norm":
            plan.normalise(inputs[0], norm, outputs[0], verb.heads)
        case "rope":
            plan.rope(inputs[0], rotation, verb.heads, outputs[0])
        case "attention":
            q, k, v = inputs if len(inputs) == 3 else (*inputs, -1, -1)
            plan.attention(
                verb.layer,
                q,
                k,
                v,
                outputs[0],
                verb.heads,
                verb.scale,
                rotation,
                verb.window,
                q_norm,
                k_norm,
                verb.factor,
                weights.vector(None if verb.sinks is None else (verb.sinks, 0.0)),
                list(verb.slopes),
            )
        case "short_conv":
            plan.short_conv(inputs[0], weights.vector((verb.filter, 0.0)), biases[0], state, outputs[0])
        case "recurrence":
            q, k, v, beta, decay = inputs
            sizes = verb.heads, verb.key_heads
            plan.recurrence(q, k, v, beta, decay, outputs[0], *sizes, verb.delta, biases[0], state)
        case "decay":
            plan.decay(inputs[0], biases[0], outputs[0])
        case "softplus":
            plan.softplus(inputs[0], outputs[0])
        case "add":
            plan.add(inputs[0], inputs[1], outputs[0])
        case "columns":
            plan.columns(inputs[0], verb.order, outputs[0])
        case "multiply":
            plan.multiply(inputs[0], inputs[1], outputs[0])
        case "scale":
            plan.scale(inputs[0], verb.factor, outputs[0])
        case "softcap":
            plan.softcap(inputs[0], verb.factor, outputs[0])
        case "activate":
            plan.activate(inputs[0], verb.kind, outputs[0])
        case "gated":
            plan.gated(inputs[0], inputs[1], verb.kind, verb.factor, outputs[0])
        case "part":
            plan.part(inputs[0], verb.heads, *verb.range, outputs[0])
        case "join":
            plan.join(inputs[0], inputs[1], verb.heads, outputs[0])
        case "route":
            r = verb.router
            assert r is not None
            [bias, scales] = biases
            chosen = r.top_k, r.sigmoid, r.renormalise, r.scale, r.least, r.groups, r.top_groups, r.group_best
            plan.route(inputs[0], *chosen, bias, scales, outputs[0])
        case "experts":
            parts = list(zip(index, biases, strict=True))
            plan.experts(inputs[0], inputs[1], parts, verb.kind, verb.factor, outputs[0])
        case "gate_rows":
            plan.gate_rows(inputs[0], inputs[1], outputs[0])
        case "rows":
            plan.rows(inputs[0], outputs[0])
        case unknown:
            raise NotImplementedError(f"the native backend has no verb {unknown!r}")
