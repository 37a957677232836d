"""Phi-3 and Phi-4: a Llama whose q, k and v are one weight, and gate and up too; of a head perhaps only a part turns
(Abdin et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, FusedSwiGLU, Linear, RMSNorm, Weights, split
from quickbrown.models.config import SILU, RopeConfig
from quickbrown.models.gguf import SETTINGS, TENSORS, Gguf, without
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """sliding_window: how many tokens a layer sees, itself included; None for all.

    original_max_position_embeddings: how long texts were in training, before `longrope` stretched them.
    """

    IDLE = SILU

    vocab_size: int = 32064
    hidden_size: int = 3072
    intermediate_size: int = 8192
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 4096
    original_max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    sliding_window: int | None = None

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was called su or yarn is longrope."""
        name = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
        given = raw.get(name) or {}
        if not isinstance(given, dict):
            return raw
        rope = dict(given)
        kind = rope.pop("rope_type", rope.pop("type", "default"))
        rope |= {"rope_type": "longrope" if kind in ("su", "yarn") else kind}
        if rope["rope_type"] not in ("default", "longrope"):
            raise ValueError(f"rope_type is {kind!r}, which is not supported; supported are 'default' and 'longrope'")
        rope.setdefault("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
        if rope["rope_type"] == "longrope":
            trained = raw.get("original_max_position_embeddings", 4096)
            rope.setdefault("original_max_position_embeddings", trained)
        return {**raw, name: rope}


GGUF = Gguf(
    settings=SETTINGS | {"attention.sliding_window": "sliding_window"},
    tensors=without(TENSORS, *(f"blk.{{}}.{name}" for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")))
    | {
        "blk.{}.attn_qkv": "model.layers.{}.self_attn.qkv_proj",
        "blk.{}.ffn_up": "model.layers.{}.mlp.gate_up_proj",
    },
    equal={"attention.value_length": "head_dim"},
    partial=True,
)


class Model(Decoder):
    """The weights of a Phi-3 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v = split(weights, at + "self_attn.qkv_proj", (q, kv, kv), c.hidden_size)
        self.o = Linear(weights, at + "self_attn.o_proj", c.hidden_size, q)
        self.attention = Attention(c, index, turn, c.sliding_window or 0)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = FusedSwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
