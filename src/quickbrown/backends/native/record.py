"""Recording: a family's forward pass, run once on symbols, leaves the list of verbs it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quickbrown.models.ops import KvLayer, Rope, Router
from quickbrown.quant.weight import Weight


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """A value that a step will compute: `width` floats for each token, or for each row that wants logits."""

    width: int
    rows: bool = False


Vector = tuple[Any, float]  # a weight of one axis, or of heads by axis; what is added to it


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """RMS norm, or layer norm if centred, which may have a bias."""

    weight: Vector
    bias: Vector | None
    eps: float
    centred: bool = False


@dataclass(slots=True, eq=False)
class Verb:
    """One verb as recorded, or several fused into one by `fuse.py`.

    inputs   symbols read, in the verb's order; of an attention that stores nothing, q alone
    outputs  symbols written, in the order of `weights` for a linear
    weights  encoded weights it reads; of experts gate, up and down of each, one expert after the other
    biases   of a linear and of experts, None or a vector for each of `weights`; of a route bias and scales; of a
             short_conv one or None; the skip of a recurrence, or None; the log_rate of a decay
    norm     applied to the input first
    norms    of an attention, those of each head of q and of k, if there is one
    sinks    of an attention, a vector
    kind     of `activate`, `gated` and `experts`
    factor   of `scale`; the cap of `softcap` and `attention`; the limit of `gated` and `experts`
    range    begin and end of a `part`; of `positions` the offset, and nothing
    filter   of a `short_conv`: (C, 1, L)
    state    how many floats it keeps of each text
    delta    of a `recurrence`
    order    of columns: which column of the input each of the output is
    """

    name: str
    inputs: list[Symbol]
    outputs: list[Symbol]
    weights: list[Any] = field(default_factory=list)
    biases: list[Any] = field(default_factory=list)
    norm: Norm | None = None
    norms: tuple[Norm, ...] = ()
    residual: Symbol | None = None
    rope: Rope | None = None
    router: Router | None = None
    order: Any = None
    heads: int = 1
    layer: int = 0
    scale: float = 0.0
    window: int = 0
    sinks: Any = None
    slopes: Sequence[float] = ()
    kind: str = ""
    factor: float = 0.0
    range: tuple[int, int] = (0, 0)
    filter: Any = None
    state: int = 0
    key_heads: int = 1
    delta: bool = False

    def reads(self) -> list[Symbol]:
        return [*self.inputs, *([self.residual] if self.residual else [])]

    def groups(self) -> list[list[Any]]:
        """Its weights; those in one list have panels that alternate."""
        if self.name == "gated_linear":
            return [self.weights]
        if self.name == "experts":
            parts = (self.weights[i : i + 3] for i in range(0, len(self.weights), 3))
            return [group for gate, up, down in parts for group in ([gate, up], [down])]
        return [[weight] for weight in self.weights]

    def vectors(self) -> list[Vector]:
        """Of every norm, every bias, the sinks, and the filter."""
        norms = [self.norm] if self.norm else self.norms
        found = [vector for norm in norms for vector in (norm.weight, norm.bias) if vector is not None]
        found += [(bias, 0.0) for bias in self.biases if bias is not None]
        return found + [(vector, 0.0) for vector in (self.sinks, self.filter) if vector is not None]


class Recorder:
    """Ops (models/ops.py) that compute nothing and write down what is asked. `tokens` and `batch` stay symbolic.

    layers  what attention stores
    """

    def __init__(self, layers: Sequence[KvLayer] = ()) -> None:
        self.layers = layers
        self.verbs: list[Verb] = []
        self._ordered: dict[tuple[Symbol, bytes], Symbol] = {}
        self._ones: dict[int, Weight] = {}  # of norms without a weight, by width

    def _note(self, verb: Verb) -> Symbol:
        self.verbs.append(verb)
        return verb.outputs[0]

    def _weight(self, w: Any, width: int) -> Any:
        if w is not None:
            return w
        if width not in self._ones:
            self._ones[width] = Weight("f32", (width,), np.ones((1, width), np.float32).view(np.uint8))
        return self._ones[width]

    def embed(self, table: Any, tokens: Any) -> Symbol:
        return self._note(Verb("embed", [], [Symbol(table.shape[1])], [table]))

    def linear(self, x: Symbol, w: Any, bias: Any = None) -> Symbol:
        if w.columns is not None:
            x = self._columns(x, w.columns)
        return self._note(Verb("linear", [x], [Symbol(w.shape[0], x.rows)], [w], [bias]))

    def _columns(self, x: Symbol, order: Any) -> Symbol:
        """x with its columns in another order, made once for all weights that are held in it."""
        key = (x, order.tobytes())
        if key not in self._ordered:
            self._ordered[key] = self._note(Verb("columns", [x], [Symbol(x.width, x.rows)], order=order))
        return self._ordered[key]

    def positions(self, table: Any, batch: Any, offset: int = 0) -> Symbol:
        return self._note(Verb("positions", [], [Symbol(table.shape[1])], [table], range=(offset, 0)))

    def rms_norm(self, x: Symbol, w: Any, eps: float, heads: int = 1, offset: float = 0.0) -> Symbol:
        norm = Norm((self._weight(w, x.width // heads), 0.0 if w is None else offset), None, eps)
        return self._note(Verb("rms_norm", [x], [Symbol(x.width, x.rows)], norm=norm, heads=heads))

    def layer_norm(self, x: Symbol, w: Any, bias: Any, eps: float, heads: int = 1) -> Symbol:
        weight = (self._weight(w, x.width // heads), 0.0)
        norm = Norm(weight, None if bias is None else (bias, 0.0), eps, centred=True)
        return self._note(Verb("layer_norm", [x], [Symbol(x.width, x.rows)], norm=norm, heads=heads))

    def rope(self, x: Symbol, batch: Any, heads: int, rope: Rope) -> Symbol:
        return self._note(Verb("rope", [x], [Symbol(x.width)], rope=rope, heads=heads))

    def attention(
        self,
        layer: int,
        q: Symbol,
        k: Symbol | None,
        v: Symbol | None,
        batch: Any,
        heads: int,
        kv_heads: int,
        scale: float,
        window: int = 0,
        softcap: float = 0.0,
        sinks: Any = None,
        slopes: Sequence[float] | None = None,
    ) -> Symbol:
        return self._note(
            Verb(
                "attention",
                [q] if k is None or v is None else [q, k, v],
                [Symbol(self.layers[layer].value_dim * heads)],
                heads=heads,
                layer=layer,
                scale=scale,
                window=window,
                factor=softcap,
                sinks=sinks,
                slopes=() if slopes is None else slopes,
            )
        )

    def short_conv(self, layer: int, x: Symbol, w: Any, bias: Any, batch: Any) -> Symbol:
        state = (w.shape[2] - 1) * (-(-x.width // 16) * 16)  # rows as buffers have them
        return self._note(Verb("short_conv", [x], [Symbol(x.width)], biases=[bias], layer=layer, filter=w, state=state))

    def recurrence(
        self,
        layer: int,
        q: Symbol,
        k: Symbol,
        v: Symbol,
        beta: Symbol,
        decay: Symbol,
        batch: Any,
        heads: int,
        key_heads: int,
        delta: bool = False,
        skip: Any = None,
    ) -> Symbol:
        return self._note(
            Verb(
                "recurrence",
                [q, k, v, beta, decay],
                [Symbol(v.width)],
                biases=[skip],
                layer=layer,
                heads=heads,
                key_heads=key_heads,
                delta=delta,
                state=k.width // key_heads * v.width,
            )
        )

    def decay(self, x: Symbol, log_rate: Any) -> Symbol:
        return self._note(Verb("decay", [x], [Symbol(x.width, x.rows)], biases=[log_rate]))

    def softplus(self, x: Symbol) -> Symbol:
        return self._note(Verb("softplus", [x], [Symbol(x.width, x.rows)]))

    def add(self, a: Symbol, b: Symbol) -> Symbol:
        return self._note(Verb("add", [a, b], [Symbol(a.width, a.rows)]))

    def multiply(self, a: Symbol, b: Symbol) -> Symbol:
        return self._note(Verb("multiply", [a, b], [Symbol(a.width, a.rows)]))

    def scale(self, x: Symbol, factor: Any) -> Symbol:
        factor = float(factor.decode()[0]) if isinstance(factor, Weight) else factor
        return self._note(Verb("scale", [x], [Symbol(x.width, x.rows)], factor=factor))

    def softcap(self, x: Symbol, cap: float) -> Symbol:
        return self._note(Verb("softcap", [x], [Symbol(x.width, x.rows)], factor=cap))

    def activate(self, x: Symbol, kind: str) -> Symbol:
        return self._note(Verb("activate", [x], [Symbol(x.width, x.rows)], kind=kind))

    def gated(self, gate: Symbol, up: Symbol, kind: str, limit: float = 0.0) -> Symbol:
        return self._note(Verb("gated", [gate, up], [Symbol(gate.width, gate.rows)], kind=kind, factor=limit))

    def part(self, x: Symbol, heads: int, begin: int, end: int) -> Symbol:
        return self._note(Verb("part", [x], [Symbol(heads * (end - begin), x.rows)], heads=heads, range=(begin, end)))

    def join(self, a: Symbol, b: Symbol, heads: int, shared: bool = False) -> Symbol:
        width = a.width + b.width * (heads if shared else 1)
        return self._note(Verb("join", [a, b], [Symbol(width, a.rows)], heads=heads))

    def route(self, logits: Symbol, router: Router, bias: Any = None, scales: Any = None) -> Symbol:
        chosen = Symbol(2 * router.top_k, logits.rows)
        return self._note(Verb("route", [logits], [chosen], biases=[bias, scales], router=router))

    def experts(
        self,
        x: Symbol,
        routing: Symbol,
        gate: Sequence[Any],
        up: Sequence[Any],
        down: Sequence[Any],
        biases: tuple[Sequence[Any], Sequence[Any], Sequence[Any]] | None = None,
        kind: str = "silu",
        limit: float = 0.0,
    ) -> Symbol:
        weights = [weight for expert in zip(gate, up, down, strict=True) for weight in expert]
        vectors = [bias for expert in zip(*biases, strict=True) for bias in expert] if biases else [None] * len(weights)
        out = Symbol(down[0].shape[0], x.rows)
        return self._note(Verb("experts", [x, routing], [out], weights, vectors, kind=kind, factor=limit))

    def gate_rows(self, x: Symbol, gate: Symbol) -> Symbol:
        return self._note(Verb("gate_rows", [x, gate], [Symbol(x.width, x.rows)]))

    def rows(self, x: Symbol, batch: Any) -> Symbol:
        return self._note(Verb("rows", [x], [Symbol(x.width, True)]))
