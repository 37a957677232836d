"""Llama: RMS norm, rotary positions, grouped-query attention, SwiGLU (Touvron et al. 2023; Grattafiori et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models import blocks
from quickbrown.models.blocks import Attention, Decoder, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(blocks.Config):
    """attention_bias: whether q, k, v and o have biases; mlp_bias: whether gate, up and down have."""

    attention_bias: bool
    mlp_bias: bool


class Model(Decoder):
    """The weights of a Llama by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", "qkvo" if c.attention_bias else "")
        self.attention = Attention(c, index, turn)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.rms_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.mlp_bias)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
