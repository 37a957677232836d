"""The verbs that families are written in: the formula and the shapes of each.

T tokens of all sequences lie in one flat array, R of its rows want logits. Activations are float32 at every verb's
border; what a verb rounds inside (activations of `linear`, keys and values of `attention`) belongs to the backend and
the loaded model, and `backends/reference.py` simulates it. X is whatever the backend passes around: an array, a torch
tensor, or a symbol while a plan is recorded.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from quickbrown.models.rope import Rope as Rope  # a verb's argument, so that backends find it here

X = TypeVar("X")
W = Any  # a quant.weight.Weight; models do not look inside


class Ops(Protocol[X]):
    """What a backend must be able to do. `tokens` and `batch` are this step's, handed through by the family."""

    def embed(self, table: W, tokens: X) -> X:
        """table[tokens]: table (V, H) -> (T, H)."""
        ...

    def linear(self, x: X, w: W, bias: W | None = None) -> X:
        """x @ w.T + bias: x (T, K), w (N, K), bias (N,) -> (T, N)."""
        ...

    def rms_norm(self, x: X, w: W, eps: float, heads: int = 1) -> X:
        """x / sqrt(mean(x**2) + eps) * w, over each of the `heads` equal parts of a row: x (T, heads * D), w (D,),
        which all of them share -> (T, heads * D). Zhang & Sennrich 2019; of heads: Henry et al. 2020.
        """
        ...

    def rope(self, x: X, batch: Any, heads: int, rope: Rope) -> X:
        """Rotate each head's halves: with x = [a | b], (frequencies, factor) = rope.angles(span of the sequence) and
        angle = position * frequencies, factor * [a cos - b sin | b cos + a sin]: (T, heads * D) -> same;
        frequencies (D / 2,), radians a position. Su et al. 2021.
        """
        ...

    def attention(
        self, layer: int, q: X, k: X, v: X, batch: Any, heads: int, kv_heads: int, scale: float, window: int = 0
    ) -> X:
        """Store k and v of the new tokens, then let each token attend to its sequence up to its own position, itself
        included: softmax(scale * q k^T) v, query head h reading kv head h // (heads / kv_heads).
        q (T, heads * D), k and v (T, kv_heads * D) -> (T, heads * D). Vaswani et al. 2017; Ainslie et al. 2023.

        window > 0: a token at position p sees positions above p - window only, `window` of them. Beltagy et al. 2020.
        """
        ...

    def add(self, a: X, b: X) -> X:
        """a + b: (T, H) -> (T, H)."""
        ...

    def swiglu(self, gate: X, up: X) -> X:
        """gate / (1 + exp(-gate)) * up: (T, F) -> (T, F). Shazeer 2020."""
        ...

    def rows(self, x: X, batch: Any) -> X:
        """x[batch.logit_rows]: (T, H) -> (R, H)."""
        ...
