"""EXAONE 4: what attention and the MLP give is normalised, not what they read (LG AI Research 2025).

Layers that see a window rotate; where there are such layers, those that see everything do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, LayeredConfig, LayerType, PerLayer, all_heads, derived, equal_heads
from quickbrown.models.gguf import HEAD_NORMS, SETTINGS, TENSORS, Gguf, without
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


def full_every(c: Config) -> tuple[str, ...]:
    if c.sliding_window is None:
        return ("full_attention",) * c.num_hidden_layers
    every = c.sliding_window_pattern
    return tuple("sliding_attention" if (i + 1) % every else "full_attention" for i in range(c.num_hidden_layers))


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """sliding_window_pattern: unless they are listed, every so many-th layer sees everything."""

    IDLE = SILU

    vocab_size: int = 102400
    hidden_size: int = 4096
    intermediate_size: int = 16384
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads, 32)
    head_dim: int = derived(equal_heads)
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    sliding_window: int | None = 4096
    sliding_window_pattern: int = derived(lambda c: 4, 4)
    layer_types: PerLayer[LayerType] = derived(full_every)

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """A pattern may be written as "LLLG", local and global layers, which is 4."""
        pattern = raw.get("sliding_window_pattern")
        if isinstance(pattern, str):
            if pattern != "L" * (len(pattern) - 1) + "G":
                raise ValueError(f"sliding_window_pattern is {pattern!r}; a number or one like 'LLLG' is supported")
            return {**raw, "sliding_window_pattern": len(pattern)}
        return raw


_NORMS = {
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
GGUF = Gguf(
    settings=SETTINGS
    | {"attention.sliding_window": "sliding_window", "attention.sliding_window_pattern": "layer_types"},
    tensors=without(TENSORS, "blk.{}.attn_norm", "blk.{}.ffn_norm") | HEAD_NORMS | _NORMS,
)


class Model(Decoder):
    """The weights of an EXAONE 4 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + norm(attention(x)), then x + norm(mlp(x)); q and k are normalised head by head."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        window = c.window(index)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c)
        self.q_norm = RMSNorm(weights, at + "self_attn.q_norm", c.head_dim, c.rms_norm_eps, c.num_attention_heads)
        self.k_norm = RMSNorm(weights, at + "self_attn.k_norm", c.head_dim, c.rms_norm_eps, c.num_key_value_heads)
        self.attention = Attention(c, index, turn if window or c.sliding_window is None else None, window)
        self.attention_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)
        self.mlp_norm = RMSNorm(weights, at + "post_feedforward_layernorm", c.hidden_size, c.rms_norm_eps)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        q = self.q_norm(ops, self.q(ops, x))
        k = self.k_norm(ops, self.k(ops, x))
        h = self.attention(ops, q, k, self.v(ops, x), batch)
        x = ops.add(x, self.attention_norm(ops, self.o(ops, h)))
        return ops.add(x, self.mlp_norm(ops, self.mlp(ops, x)))
