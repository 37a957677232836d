"""Gemma: GELU in the gates, norms around 1, embeddings times the root of their size (Gemma Team 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, GeGLU, RMSNorm, Weights, projections
from quickbrown.models.config import RopeConfig, all_heads, derived, equal_heads
from quickbrown.models.gguf import Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope

# Early files say "gelu" and mean its approximation.
GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu")


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k, v and o have biases."""

    IDLE = {"hidden_act": GELU, "use_bidirectional_attention": (None, False)}  # noqa: RUF012

    vocab_size: int = 256000
    hidden_size: int = 3072
    intermediate_size: int = 24576
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = derived(all_heads, 16)
    head_dim: int = derived(equal_heads, 256)
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False


GGUF = Gguf(raised=("norm",))


class GemmaDecoder(Decoder):
    """A decoder of any Gemma: embeddings times sqrt(hidden_size), and a norm around 1 before the head."""

    def __init__(self, config: Any, weights: Weights, layer: Any) -> None:
        c = config
        super().__init__(c, weights, layer, RMSNorm(weights, "model.norm", c.hidden_size, c.rms_norm_eps, 1, 1.0))

    def embed(self, ops: Ops[X], tokens: X) -> X:
        return ops.scale(super().embed(ops, tokens), self.config.hidden_size**0.5)


class Model(GemmaDecoder):
    """The weights of a Gemma by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps, 1, 1.0)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.attention = Attention(c, index, turn)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps, 1, 1.0)
        self.mlp = GeGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
