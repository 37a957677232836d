"""Qwen3: the query and the key of every head are normalised before they are rotated (Yang et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, WindowConfig, all_heads, derived, equal_heads
from quickbrown.models.gguf import HEAD_NORMS, TENSORS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(WindowConfig):
    """attention_bias: whether q, k, v and o have biases."""

    IDLE = SILU

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads, 32)
    head_dim: int = derived(equal_heads, 128)
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False


GGUF = Gguf(tensors=TENSORS | HEAD_NORMS)


class Model(Decoder):
    """The weights of a Qwen3 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x)); q and k are normalised too, head by head."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.q_norm = RMSNorm(weights, at + "self_attn.q_norm", c.head_dim, c.rms_norm_eps, c.num_attention_heads)
        self.k_norm = RMSNorm(weights, at + "self_attn.k_norm", c.head_dim, c.rms_norm_eps, c.num_key_value_heads)
        self.attention = Attention(c, index, turn, c.window(index))
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        q = self.q_norm(ops, self.q(ops, h))
        k = self.k_norm(ops, self.k(ops, h))
        h = self.attention(ops, q, k, self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
