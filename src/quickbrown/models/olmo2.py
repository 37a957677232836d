"""OLMo 2: what attention and network give is normalised, not what they are given, and so are all queries of a token
together, and all keys (OLMo Team 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, RopeConfig
from quickbrown.models.gguf import HEAD_NORMS, TENSORS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k, v and o have biases."""

    IDLE = SILU

    vocab_size: int = 50304
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False


_NORMS = HEAD_NORMS | {
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
_BEFORE = ("blk.{}.attn_norm", "blk.{}.ffn_norm")
GGUF = Gguf(tensors={name: published for name, published in TENSORS.items() if name not in _BEFORE} | _NORMS)


class Model(Decoder):
    """The weights of an OLMo 2 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + norm(attention(x)), then x + norm(mlp(x)); q and k are normalised too, each as a whole.

    window  as `Attention` takes it
    """

    def __init__(self, config: Any, weights: Weights, index: int, turn: Rope, window: int = 0) -> None:
        c, at = config, f"model.layers.{index}."
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.q_norm = RMSNorm(weights, at + "self_attn.q_norm", q, c.rms_norm_eps)
        self.k_norm = RMSNorm(weights, at + "self_attn.k_norm", kv, c.rms_norm_eps)
        self.attention = Attention(c, index, turn, window)
        self.attention_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)
        self.mlp_norm = RMSNorm(weights, at + "post_feedforward_layernorm", c.hidden_size, c.rms_norm_eps)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        q = self.q_norm(ops, self.q(ops, x))
        k = self.k_norm(ops, self.k(ops, x))
        h = self.attention(ops, q, k, self.v(ops, x), batch)
        x = ops.add(x, self.attention_norm(ops, self.o(ops, h)))
        return ops.add(x, self.mlp_norm(ops, self.mlp(ops, x)))
