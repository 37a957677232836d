"""Seed-OSS: a Llama whose q, k and v have biases, and whose heads have a size of their own (ByteDance Seed 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, RopeConfig, all_heads, derived, equal_heads
from quickbrown.models.gguf import TENSORS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k and v have biases; attention_out_bias: o; mlp_bias: gate, up and down."""

    IDLE = SILU

    vocab_size: int = 155136
    hidden_size: int = 4096
    intermediate_size: int = 27648
    num_hidden_layers: int = 64
    num_attention_heads: int = 80
    num_key_value_heads: int = derived(all_heads, 8)
    head_dim: int = derived(equal_heads, 128)
    max_position_embeddings: int = 524288
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = True
    attention_out_bias: bool = False
    mlp_bias: bool = False


_FFN_NORM = {"blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm"}
GGUF = Gguf(tensors={name: published for name, published in TENSORS.items() if "ffn_norm" not in name} | _FFN_NORM)


class Model(Decoder):
    """The weights of a Seed-OSS by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        biased = ("qkv" if c.attention_bias else "") + ("o" if c.attention_out_bias else "")
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, biased)
        self.attention = Attention(c, index, turn)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size, c.mlp_bias)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
