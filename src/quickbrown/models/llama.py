"""Llama: RMS norm, rotary positions, grouped-query attention, SwiGLU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.ops import Ops, W, X
from quickbrown.models.rope import frequencies


@dataclass(frozen=True, kw_only=True)
class Config:
    """The fields of config.json that the mathematics reads, under their published names."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool


class Llama:
    """Weights by their published names, and the forward pass over the verbs of `models.ops`."""

    def __init__(self, config: Config, weights: Mapping[str, W]) -> None:
        self.config = config
        self.embedding = weights["model.embed_tokens.weight"]
        self.layers = [Layer(weights, f"model.layers.{i}.") for i in range(config.num_hidden_layers)]
        self.norm = weights["model.norm.weight"]
        self.head = self.embedding if config.tie_word_embeddings else weights["lm_head.weight"]

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        """Tokens (T,) to logits (R, vocab_size)."""
        c = self.config
        turn = frequencies(c.head_dim, c.rope_theta)
        x = ops.embed(self.embedding, tokens)
        for i, layer in enumerate(self.layers):
            h = ops.rms_norm(x, layer.attention_norm, c.rms_norm_eps)
            q = ops.rope(ops.linear(h, layer.q), batch, c.num_attention_heads, turn)
            k = ops.rope(ops.linear(h, layer.k), batch, c.num_key_value_heads, turn)
            v = ops.linear(h, layer.v)
            h = ops.attention(i, q, k, v, batch, c.num_attention_heads, c.num_key_value_heads, c.head_dim**-0.5)
            x = ops.add(x, ops.linear(h, layer.o))
            h = ops.rms_norm(x, layer.mlp_norm, c.rms_norm_eps)
            h = ops.swiglu(ops.linear(h, layer.gate), ops.linear(h, layer.up))
            x = ops.add(x, ops.linear(h, layer.down))
        x = ops.rms_norm(ops.rows(x, batch), self.norm, c.rms_norm_eps)
        return ops.linear(x, self.head)


class Layer:
    """The weights of one block."""

    def __init__(self, weights: Mapping[str, W], at: str) -> None:
        self.attention_norm = weights[at + "input_layernorm.weight"]
        self.q, self.k, self.v, self.o = (weights[at + f"self_attn.{name}_proj.weight"] for name in "qkvo")
        self.mlp_norm = weights[at + "post_attention_layernorm.weight"]
        self.gate, self.up, self.down = (weights[at + f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
