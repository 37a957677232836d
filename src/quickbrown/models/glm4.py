"""GLM-4-0414: norms before and after attention and network, and of each head the first half turns, by adjacent pairs
(GLM Team 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, FusedSwiGLU, RMSNorm, Weights, projections
from quickbrown.models.config import SILU, RopeConfig, all_heads, derived, equal_heads
from quickbrown.models.gguf import TENSORS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k and v have biases."""

    IDLE = SILU

    vocab_size: int = 151552
    hidden_size: int = 4096
    intermediate_size: int = 13696
    num_hidden_layers: int = 40
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads, 2)
    head_dim: int = derived(equal_heads, 128)
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 0.00000015625
    tie_word_embeddings: bool = False
    attention_bias: bool = True

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"partial_rotary_factor": 0.5, **raw}

    @property
    def rotary_dim(self) -> int:
        """Of a head, the values that turn."""
        return int(self.head_dim * self.rope_parameters.get("partial_rotary_factor", 1))


_APART = ("blk.{}.ffn_gate", "blk.{}.ffn_up", "blk.{}.ffn_norm")
GGUF = Gguf(
    fixed={"rope_parameters": {"partial_rotary_factor": 0.5}},
    equal={"attention.value_length": "head_dim", "rope.dimension_count": "rotary_dim"},
    tensors={name: published for name, published in TENSORS.items() if name not in _APART}
    | {
        "blk.{}.ffn_up": "model.layers.{}.mlp.gate_up_proj",
        "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
        "blk.{}.post_attention_norm": "model.layers.{}.post_self_attn_layernorm",
        "blk.{}.post_ffw_norm": "model.layers.{}.post_mlp_layernorm",
    },
)


class Model(Decoder):
    """The weights of a GLM-4 by their published names, and its forward pass over the verbs of `models.ops`."""

    INTERLEAVED = True

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x)))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm, self.attention_after, self.mlp_norm, self.mlp_after = (
            RMSNorm(weights, f"{at}{name}_layernorm", c.hidden_size, c.rms_norm_eps)
            for name in ("input", "post_self_attn", "post_attention", "post_mlp")
        )
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkv" if c.attention_bias else "")
        self.attention = Attention(c, index, turn)
        self.mlp = FusedSwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.attention_after(ops, self.o(ops, h)))
        return ops.add(x, self.mlp_after(ops, self.mlp(ops, self.mlp_norm(ops, x))))
