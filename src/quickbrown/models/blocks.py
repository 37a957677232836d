"""What families share: the frame of a decoder, and the pieces of a layer. A piece is called with `ops` and its input.

Every piece finds its weights by their published names: `Linear(weights, "lm_head")` holds `lm_head.weight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from quickbrown.models.ops import Ops, W, X
from quickbrown.models.rope import Rope, rope

Weights = Mapping[str, W]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The fields of config.json that the mathematics of every family reads, under their published names."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: Mapping[str, Any]
    tie_word_embeddings: bool


@dataclass(frozen=True, kw_only=True)
class LayeredConfig(Config):
    """Of families whose layers may differ in what they see. Raises ValueError for layers that cannot be.

    layer_types     of each layer: "full_attention", or "sliding_attention" for one that sees a window
    sliding_window  how many tokens that window has, the one that looks included
    """

    layer_types: tuple[str, ...]
    sliding_window: int | None

    def __post_init__(self) -> None:
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} of {self.num_hidden_layers} layers")
        for kind in self.layer_types:
            if kind not in ("full_attention", "sliding_attention"):
                raise ValueError(f"layer_types has {kind!r}; 'full_attention' and 'sliding_attention' are supported")
        if "sliding_attention" in self.layer_types and not self.sliding_window:
            raise ValueError("layer_types has 'sliding_attention', which needs a sliding_window")

    def window(self, layer: int) -> int:
        """What `Attention` takes: 0 for a layer that sees everything."""
        return self.sliding_window or 0 if self.layer_types[layer] == "sliding_attention" else 0


class Layer(Protocol):
    """One of a decoder's layers."""

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        """(T, hidden_size) -> (T, hidden_size)."""
        ...


class Decoder:
    """Tokens become vectors, layers change them, and the last of them are compared with the vectors of all tokens.

    layer  makes a layer of (config, weights, its index, the rotation that all layers share)
    """

    def __init__(self, config: Any, weights: Weights, layer: Callable[[Any, Weights, int, Rope], Layer]) -> None:
        c: Config = config
        turn = rope(c.rope_parameters, c.head_dim, c.max_position_embeddings)
        self.config, self.ropes = config, [turn]
        self.embedding = weights["model.embed_tokens.weight"]
        self.layers = [layer(c, weights, i, turn) for i in range(c.num_hidden_layers)]
        self.norm = RMSNorm(weights, "model.norm", c.rms_norm_eps)
        self.head = self.embedding if c.tie_word_embeddings else weights["lm_head.weight"]

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        """Tokens (T,) to logits (R, vocab_size)."""
        x = ops.embed(self.embedding, tokens)
        for layer in self.layers:
            x = layer.forward(ops, x, batch)
        return ops.linear(self.norm(ops, ops.rows(x, batch)), self.head)


class Linear:
    """x W^T, and + b where there is a bias."""

    def __init__(self, weights: Weights, name: str, bias: bool = False) -> None:
        self.weight = weights[name + ".weight"]
        self.bias = weights[name + ".bias"] if bias else None

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.linear(x, self.weight, self.bias)


def projections(weights: Weights, name: str, biased: str = "") -> list[Linear]:
    """q, k, v and o of an attention; `biased` names those that have a bias."""
    return [Linear(weights, f"{name}.{part}_proj", part in biased) for part in "qkvo"]


class RMSNorm:
    """Rows, or each of the `heads` parts of a row, to a root mean square of 1, then times w."""

    def __init__(self, weights: Weights, name: str, eps: float, heads: int = 1) -> None:
        self.weight, self.eps, self.heads = weights[name + ".weight"], eps, heads

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.rms_norm(x, self.weight, self.eps, self.heads)


class Attention:
    """Grouped-query attention of layer `index` with rotary positions, over a window if that is not 0."""

    def __init__(self, config: Config, index: int, rope: Rope, window: int = 0) -> None:
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.scale = config.head_dim**-0.5
        self.index, self.rope, self.window = index, rope, window

    def __call__(self, ops: Ops[X], q: X, k: X, v: X, batch: Any) -> X:
        q = ops.rope(q, batch, self.heads, self.rope)
        k = ops.rope(k, batch, self.kv_heads, self.rope)
        return ops.attention(self.index, q, k, v, batch, self.heads, self.kv_heads, self.scale, self.window)


class SwiGLU:
    """down(gate(x) * sigmoid(gate(x)) * up(x))."""

    def __init__(self, weights: Weights, name: str, bias: bool = False) -> None:
        self.gate, self.up, self.down = (
            Linear(weights, f"{name}.{part}_proj", bias) for part in ("gate", "up", "down")
        )

    def __call__(self, ops: Ops[X], x: X) -> X:
        return self.down(ops, ops.swiglu(self.gate(ops, x), self.up(ops, x)))
