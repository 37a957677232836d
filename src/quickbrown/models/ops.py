"""The verbs that families are written in: the formula and the shapes of each.

T tokens of all sequences lie in one flat array, R of its rows want logits. Activations are float32 at every verb's
border; what a verb rounds inside (activations of `linear`, keys and values of `attention`) belongs to the backend and
the loaded model, and `backends/reference.py` simulates it. X is whatever the backend passes around: an array, a torch
tensor, or a symbol while a plan is recorded.

Verbs with a state keep numbers of each text, float32, as many however long it is: zeros before its first token, then
what its tokens have made of them, one after the other. `layer` says whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from quickbrown.models.rope import Rope as Rope  # verbs' arguments, so that backends find them here
from quickbrown.models.routing import Router as Router

X = TypeVar("X")
W = Any  # a quant.weight.Weight; models do not look inside

# What `activate` and `gated` know.
#   silu       x / (1 + exp(-x)). Elfwing et al. 2017
#   gelu       x P(X <= x), X of the standard normal distribution. Hendrycks & Gimpel 2016
#   gelu_tanh  x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x**3))), their approximation
#   relu       max(x, 0)
#   relu2      max(x, 0)**2. So et al. 2021
#   sigmoid    1 / (1 + exp(-x))
#   tanh
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "tanh")


class KvLayer(NamedTuple):
    """What a layer of `attention` keeps of a token: keys (kv_heads, head_dim) and values (kv_heads, value_dim)."""

    kv_heads: int
    head_dim: int
    value_dim: int


class Ops(Protocol[X]):
    """What a backend must be able to do. `tokens` and `batch` are this step's, handed through by the family."""

    def embed(self, table: W, tokens: X) -> X:
        """table[tokens]: table (V, H) -> (T, H)."""
        ...

    def linear(self, x: X, w: W, bias: W | None = None) -> X:
        """x @ w.T + bias: x (T, K), w (N, K), bias (N,) -> (T, N)."""
        ...

    def positions(self, table: W, batch: Any, offset: int = 0) -> X:
        """table[batch.positions + offset]: learned positions, table (P, H) -> (T, H). Gehring et al. 2017.

        A text of more than P - offset tokens is refused with ValueError.
        """
        ...

    def rms_norm(self, x: X, w: W | None, eps: float, heads: int = 1, offset: float = 0.0) -> X:
        """x / sqrt(mean(x**2) + eps) * (w + offset), over each of the `heads` equal parts of a row: x (T, heads * D)
        -> same. w (D,), which all parts share, or (heads, D), or None for no weight; w + offset is a sum of float32.
        Zhang & Sennrich 2019; of heads: Henry et al. 2020.
        """
        ...

    def layer_norm(self, x: X, w: W | None, bias: W | None, eps: float, heads: int = 1) -> X:
        """(x - mean(x)) / sqrt(mean((x - mean(x))**2) + eps) * w + bias, over each of the `heads` equal parts of a row:
        x (T, heads * D) -> same. w and bias as `rms_norm` has w. Ba et al. 2016.
        """
        ...

    def rope(self, x: X, batch: Any, heads: int, rope: Rope) -> X:
        """Rotate pairs of each head: with (frequencies, factor) = rope.angles(span of the sequence) and
        angle = position * frequencies, a pair (a, b) becomes factor * (a cos - b sin, b cos + a sin):
        (T, heads * D) -> same; frequencies (N,), radians a position, of N <= D / 2 pairs. Su et al. 2021.

        Of the 2 N values from `rope.start` on, the pairs are (x[i], x[N + i]), or where rope.interleaved
        (x[2 i], x[2 i + 1]); the head's other values stay.
        """
        ...

    def attention(
        self,
        layer: int,
        q: X,
        k: X | None,
        v: X | None,
        batch: Any,
        heads: int,
        kv_heads: int,
        scale: float,
        window: int = 0,
        softcap: float = 0.0,
        sinks: W | None = None,
        slopes: Sequence[float] | None = None,
    ) -> X:
        """Store k and v of the new tokens in a layer of what the config keeps (`Config.kv_layers`), then let each token
        attend to its sequence up to its own position, itself included: softmax(scale * q k^T) v, query head h reading
        kv head h // (heads / kv_heads). Without k and v, read what another attention has stored in that layer.
        q (T, heads * D), k (T, kv_heads * D), v (T, kv_heads * E) -> (T, heads * E); E = D but for latent attention
        (DeepSeek-AI 2024). Vaswani et al. 2017; Ainslie et al. 2023.

        window > 0: a token at position p sees positions above p - window only, `window` of them. Beltagy et al. 2020.
        softcap > 0: a score s becomes softcap * tanh(s / softcap). Bello et al. 2016; Gemma 2.
        slopes (heads,): a score becomes s + slope * (position of the key - of the query). Press et al. 2021 (ALiBi).
        sinks (heads,): of each head a score more in the softmax, whose value is zero. Xiao et al. 2023; gpt-oss.
        In this order, on scale * q k^T; a sink is taken as it is.
        """
        ...

    def short_conv(self, layer: int, x: X, w: W, bias: W | None, batch: Any) -> X:
        """Each channel's last L values, its own included, times their weights: y[t, c] = bias[c] + sum over j < L of
        w[c, 0, j] * x[t - L + 1 + j, c], over the tokens of a text: x (T, C), w (C, 1, L), bias (C,) -> (T, C). Its
        state is the last L - 1 of x. van den Oord et al. 2016; before linear attention: Fu et al. 2023.
        """
        ...

    def recurrence(
        self,
        layer: int,
        q: X,
        k: X,
        v: X,
        beta: X,
        decay: X,
        batch: Any,
        heads: int,
        key_heads: int,
        delta: bool = False,
        skip: W | None = None,
    ) -> X:
        """Linear attention that forgets: the state of each head is a matrix S (K, V), and one token after the other

            S = decay * S
            S = S + k u^T  where u = beta * v, or with delta beta * (v - S^T k)
            y = S^T q + skip * v

        q and k (T, key_heads * K), of which head h reads h // (heads / key_heads), v (T, heads * V), beta and decay
        (T, heads), skip (heads,) -> (T, heads * V). Katharopoulos et al. 2020; with delta Yang et al. 2024 (gated delta
        networks); as a state space Dao & Gu 2024 (Mamba-2), where q is C, k is B and beta the time step.
        """
        ...

    def decay(self, x: X, log_rate: W) -> X:
        """exp(-exp(log_rate) * x), what is left after a time x: x (T, N), log_rate (N,) -> (T, N). Gu & Dao 2023."""
        ...

    def softplus(self, x: X) -> X:
        """log(1 + exp(x)): (T, N) -> (T, N). Dugas et al. 2001."""
        ...

    def add(self, a: X, b: X) -> X:
        """a + b: (T, H) -> (T, H)."""
        ...

    def multiply(self, a: X, b: X) -> X:
        """a * b: (T, H) -> (T, H)."""
        ...

    def scale(self, x: X, factor: float | W) -> X:
        """x * factor, a number or a weight of one value, (1,): (T, H) -> (T, H)."""
        ...

    def softcap(self, x: X, cap: float) -> X:
        """cap * tanh(x / cap): (T, H) -> (T, H). Gemma 2."""
        ...

    def activate(self, x: X, kind: str) -> X:
        """A function of each value, (T, F) -> (T, F), by its name in `ACTIVATIONS`."""
        ...

    def gated(self, gate: X, up: X, kind: str, limit: float = 0.0) -> X:
        """activate(gate, kind) * up: (T, F) -> (T, F). Shazeer 2020.

        kind "clamped", with limit > 0: gate = min(gate, limit), up = max(min(up, limit), -limit), then
        gate * sigmoid(1.702 * gate) * (up + 1), of gpt-oss.
        """
        ...

    def part(self, x: X, heads: int, begin: int, end: int) -> X:
        """Values begin .. end of each head: (T, heads * D) -> (T, heads * (end - begin))."""
        ...

    def join(self, a: X, b: X, heads: int, shared: bool = False) -> X:
        """[a | b] of each head: a (T, heads * A), b (T, heads * B), or shared by all (T, B) -> (T, heads * (A + B))."""
        ...

    def route(self, logits: X, router: Router, bias: W | None = None, scales: W | None = None) -> X:
        """The experts that each token takes: logits (T, E), bias (E,), which is added to scores while choosing only,
        scales (E,), which weights are multiplied by at last -> (T, 2 * top_k), the numbers of the experts, ascending,
        then their weights. `Router` says how; Shazeer et al. 2017.
        """
        ...

    def experts(
        self,
        x: X,
        routing: X,
        gate: Sequence[W],
        up: Sequence[W],
        down: Sequence[W],
        biases: tuple[Sequence[W], Sequence[W], Sequence[W]] | None = None,
        kind: str = "silu",
        limit: float = 0.0,
    ) -> X:
        """The sum over a token's experts e, in the order of its routing, of
        weight * linear(gated(linear(x, gate[e]), linear(x, up[e]), kind, limit), down[e]), each linear with its bias if
        there are biases: x (T, H), routing (T, 2 * top_k) as `route` gives it; E of each weight, gate and up (F, H),
        down (H, F), biases (F,), (F,), (H,) -> (T, H). Shazeer et al. 2017; of gated networks: Jiang et al. 2024.
        """
        ...

    def gate_rows(self, x: X, gate: X) -> X:
        """x / (1 + exp(-gate)): x (T, H), gate (T, 1) -> (T, H)."""
        ...

    def rows(self, x: X, batch: Any) -> X:
        """x[batch.logit_rows]: (T, H) -> (R, H)."""
        ...
