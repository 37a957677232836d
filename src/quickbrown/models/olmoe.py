"""OLMoE: mixtures of many small experts; queries and keys are normalised over all heads (Muennighoff et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, Weights, projections
from quickbrown.models.config import SILU, RopeConfig, all_heads, derived
from quickbrown.models.experts import EXPERT_SETTINGS, EXPERT_TENSORS, Mixture, check_experts, separate
from quickbrown.models.gguf import HEAD_NORMS, SETTINGS, TENSORS, Gguf
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k, v and o have biases; intermediate_size: of each expert."""

    IDLE = SILU | {"clip_qkv": (None,)}

    vocab_size: int = 50304
    hidden_size: int = 2048
    intermediate_size: int = 2048
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    num_key_value_heads: int = derived(all_heads)
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    num_experts: int = 64
    num_experts_per_tok: int = 8
    norm_topk_prob: bool = False

    def check(self) -> None:
        super().check()
        check_experts(self.num_experts, self.num_experts_per_tok)


GGUF = Gguf(
    settings=SETTINGS | {name: EXPERT_SETTINGS[name] for name in ("expert_count", "expert_used_count")},
    equal={
        "attention.value_length": "head_dim",
        "rope.dimension_count": "head_dim",
        "expert_feed_forward_length": "intermediate_size",
    },
    tensors=TENSORS | HEAD_NORMS | EXPERT_TENSORS,
)


class Model(Decoder):
    """The weights of an OLMoE by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mixture(norm(x)); q and k are normalised too, each as a whole."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.q_norm = RMSNorm(weights, at + "self_attn.q_norm", q, c.rms_norm_eps)
        self.k_norm = RMSNorm(weights, at + "self_attn.k_norm", kv, c.rms_norm_eps)
        self.attention = Attention(c, index, turn)
        self.mixture_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        router = Router(top_k=c.num_experts_per_tok, renormalise=c.norm_topk_prob)
        gate = Linear(weights, at + "mlp.gate", c.num_experts, c.hidden_size)
        networks = separate(weights, at + "mlp.experts", c.hidden_size, c.intermediate_size, c.num_experts)
        self.mixture = Mixture(gate, networks, router)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        q = self.q_norm(ops, self.q(ops, h))
        k = self.k_norm(ops, self.k(ops, h))
        h = self.attention(ops, q, k, self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mixture(ops, self.mixture_norm(ops, x)))
