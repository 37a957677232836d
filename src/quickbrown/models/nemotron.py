"""Nemotron: layer norms around 1, a squared ReLU without a gate, half of each head turns (Parmar et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights, projections
from quickbrown.models.config import RopeConfig, all_heads, derived, equal_heads
from quickbrown.models.gguf import LAYER_NORM, TENSORS, Gguf, without
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k, v and o have biases; mlp_bias: up and down."""

    IDLE = {"hidden_act": ("relu2",)}  # noqa: RUF012
    PART = 0.5

    vocab_size: int = 256000
    hidden_size: int = 6144
    intermediate_size: int = 24576
    num_hidden_layers: int = 32
    num_attention_heads: int = 48
    num_key_value_heads: int = derived(all_heads)
    head_dim: int = derived(equal_heads)
    max_position_embeddings: int = 4096
    norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False


GGUF = Gguf(
    settings=LAYER_NORM | {"attention.layer_norm_epsilon": "norm_eps"},
    equal={"attention.value_length": "head_dim"},
    tensors=without(TENSORS, "blk.{}.ffn_gate"),
    raised=("norm",),
    told={"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"},
    partial=True,
)


class Norm(LayerNorm):
    """A layer norm whose weights are published less 1."""

    def __init__(self, weights: Weights, name: str, config: Config) -> None:
        super().__init__(weights, name, config.hidden_size, config.norm_eps)
        self.weight = self.weight.plus(1.0)


class Model(Decoder):
    """The weights of a Nemotron by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = Norm(weights, "model.norm", config)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        hidden, inner = c.hidden_size, c.intermediate_size
        self.attention_norm = Norm(weights, at + "input_layernorm", c)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.attention = Attention(c, index, turn)
        self.mlp_norm = Norm(weights, at + "post_attention_layernorm", c)
        up = Linear(weights, at + "mlp.up_proj", inner, hidden, c.mlp_bias)
        self.mlp = MLP(up, Linear(weights, at + "mlp.down_proj", hidden, inner, c.mlp_bias), "relu2")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
