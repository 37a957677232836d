"""Phi-1.5 and Phi-2: attention and network side by side behind one layer norm, biases everywhere, and of each head a
part that turns (Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights
from quickbrown.models.config import RopeConfig
from quickbrown.models.gguf import LAYER_NORM, TENSORS, Gguf, without
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """qk_layernorm: whether queries and keys are normalised, head by head."""

    IDLE = {"hidden_act": ("gelu_new", "gelu_pytorch_tanh")}  # noqa: RUF012

    vocab_size: int = 51200
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    qk_layernorm: bool = False

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"partial_rotary_factor": 0.5, **raw}


GGUF = Gguf(
    settings=LAYER_NORM,
    equal={"attention.value_length": "head_dim"},
    tensors=without(TENSORS, "blk.{}.ffn_norm", "blk.{}.ffn_gate")
    | {
        "output_norm": "model.final_layernorm",
        "blk.{}.attn_output": "model.layers.{}.self_attn.dense",
        "blk.{}.ffn_up": "model.layers.{}.mlp.fc1",
        "blk.{}.ffn_down": "model.layers.{}.mlp.fc2",
    },
    partial=True,
)


class Model(Decoder):
    """The weights of a Phi by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        c = config
        norm = LayerNorm(weights, "model.final_layernorm", c.hidden_size, c.layer_norm_eps)
        super().__init__(config, weights, Layer, norm)
        self.head_bias = weights.take("lm_head.bias", c.vocab_size)

    def logits(self, ops: Ops[X], x: X) -> X:
        return ops.linear(x, self.head, self.head_bias)


class Layer:
    """x + attention(norm(x)) + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        hidden, heads, kv_heads = c.hidden_size, c.num_attention_heads, c.num_key_value_heads
        q, kv, attention = heads * c.head_dim, kv_heads * c.head_dim, at + "self_attn."
        self.norm = LayerNorm(weights, at + "input_layernorm", hidden, c.layer_norm_eps)
        self.q = Linear(weights, attention + "q_proj", q, hidden, True)
        self.k = Linear(weights, attention + "k_proj", kv, hidden, True)
        self.v = Linear(weights, attention + "v_proj", kv, hidden, True)
        self.o = Linear(weights, attention + "dense", hidden, q, True)
        self.q_norm = self.k_norm = None
        if c.qk_layernorm:
            self.q_norm = LayerNorm(weights, attention + "q_layernorm", c.head_dim, c.layer_norm_eps, True, heads)
            self.k_norm = LayerNorm(weights, attention + "k_layernorm", c.head_dim, c.layer_norm_eps, True, kv_heads)
        self.attention = Attention(c, index, turn)
        up = Linear(weights, at + "mlp.fc1", c.intermediate_size, hidden, True)
        down = Linear(weights, at + "mlp.fc2", hidden, c.intermediate_size, True)
        self.mlp = MLP(up, down, "gelu_tanh")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.norm(ops, x)
        q, k = self.q(ops, h), self.k(ops, h)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(ops, q), self.k_norm(ops, k)
        seen = self.o(ops, self.attention(ops, q, k, self.v(ops, h), batch))
        return ops.add(ops.add(seen, self.mlp(ops, h)), x)
