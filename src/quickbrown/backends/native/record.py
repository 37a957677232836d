"""Recording: a family's forward pass, run once on symbols, leaves the list of verbs it speaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from quickbrown.models.ops import Rope


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """A value that a step will compute: `width` floats for each token, or for each row that wants logits."""

    width: int
    rows: bool = False


Norm = tuple[Any, float]  # weight, eps


@dataclass(slots=True, eq=False)
class Verb:
    """One verb as recorded, or several fused into one by `fuse.py`.

    inputs   symbols read, in the verb's order
    outputs  symbols written, in the order of `weights` for a linear
    weights  encoded weights it reads
    biases   of a linear, None or a vector for each of `weights`
    norm     RMS norm applied to the input first: (weight, eps)
    order    of columns: which column of the input each of the output is
    norms    of an attention, RMS norms of each head of q and of k: (weight, eps) each
    """

    name: str
    inputs: list[Symbol]
    outputs: list[Symbol]
    weights: list[Any] = field(default_factory=list)
    biases: list[Any] = field(default_factory=list)
    norm: Norm | None = None
    norms: tuple[Norm, Norm] | None = None
    residual: Symbol | None = None
    rope: Rope | None = None
    order: Any = None
    heads: int = 1
    layer: int = 0
    scale: float = 0.0
    window: int = 0

    def reads(self) -> list[Symbol]:
        return [*self.inputs, *([self.residual] if self.residual else [])]

    def vectors(self) -> list[Any]:
        """Every norm's weight and every bias."""
        norms = [self.norm] if self.norm else self.norms or []
        return [weight for weight, _ in norms] + [bias for bias in self.biases if bias is not None]


class Recorder:
    """Ops (models/ops.py) that compute nothing and write down what is asked. `tokens` and `batch` stay symbolic."""

    def __init__(self) -> None:
        self.verbs: list[Verb] = []
        self._ordered: dict[tuple[Symbol, bytes], Symbol] = {}

    def _note(self, verb: Verb) -> Symbol:
        self.verbs.append(verb)
        return verb.outputs[0]

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

    def rms_norm(self, x: Symbol, w: Any, eps: float, heads: int = 1) -> Symbol:
        return self._note(Verb("rms_norm", [x], [Symbol(x.width, x.rows)], norm=(w, eps), heads=heads))

    def rope(self, x: Symbol, batch: Any, heads: int, rope: Rope) -> Symbol:
        return self._note(Verb("rope", [x], [Symbol(x.width)], rope=rope, heads=heads))

    def attention(
        self,
        layer: int,
        q: Symbol,
        k: Symbol,
        v: Symbol,
        batch: Any,
        heads: int,
        kv_heads: int,
        scale: float,
        window: int = 0,
    ) -> Symbol:
        return self._note(
            Verb("attention", [q, k, v], [Symbol(q.width)], heads=heads, layer=layer, scale=scale, window=window)
        )

    def add(self, a: Symbol, b: Symbol) -> Symbol:
        return self._note(Verb("add", [a, b], [Symbol(a.width, a.rows)]))

    def swiglu(self, gate: Symbol, up: Symbol) -> Symbol:
        return self._note(Verb("swiglu", [gate, up], [Symbol(gate.width, gate.rows)]))

    def rows(self, x: Symbol, batch: Any) -> Symbol:
        return self._note(Verb("rows", [x], [Symbol(x.width, True)]))
