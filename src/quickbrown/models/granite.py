"""Granite: a Llama with four multipliers: of embeddings, scores, what a layer adds, and logits (IBM 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, RopeConfig
from quickbrown.models.gguf import PERMUTED, SETTINGS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k, v and o have biases; mlp_bias: whether gate, up and down have.

    embedding_multiplier  of embeddings
    attention_multiplier  of scores, where others divide by the root of head_dim
    residual_multiplier   of what attention and network add
    logits_scaling        logits are divided by it
    """

    IDLE = SILU

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    embedding_multiplier: float = 1.0
    logits_scaling: float = 1.0
    residual_multiplier: float = 1.0
    attention_multiplier: float = 1.0


_SCALES = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "logit_scale": "logits_scaling",
    "residual_scale": "residual_multiplier",
}
GGUF = Gguf(settings=SETTINGS | _SCALES, permuted=PERMUTED)


class Model(Decoder):
    """The weights of a Granite by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)

    def embed(self, ops: Ops[X], tokens: X) -> X:
        return ops.scale(super().embed(ops, tokens), self.config.embedding_multiplier)

    def logits(self, ops: Ops[X], x: X) -> X:
        return ops.scale(super().logits(ops, x), 1 / self.config.logits_scaling)


class Layer:
    """x + m attention(norm(x)), then x + m mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.attention = Attention(c, index, turn, scale=c.attention_multiplier)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size, c.mlp_bias)
        self.multiplier = c.residual_multiplier

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, ops.scale(self.o(ops, h), self.multiplier))
        return ops.add(x, ops.scale(self.mlp(ops, self.mlp_norm(ops, x)), self.multiplier))
