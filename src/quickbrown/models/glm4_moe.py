"""GLM-4.5: mixtures chosen by sigmoids and a bias, beside networks that every token takes (Zeng et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, Count, RopeConfig
from quickbrown.models.experts import (
    CHOSEN_SETTINGS,
    CHOSEN_TENSORS,
    EXPERT_TENSORS,
    Mixture,
    Shared,
    check_experts,
    check_groups,
    separate,
)
from quickbrown.models.gguf import HEAD_NORMS, IDLE, SETTINGS, TENSORS, Gguf, without
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k and v have biases; use_qk_norm: whether q and k are normalised, head by head.

    first_k_dense_replace  so many layers have one network of intermediate_size, the others mixtures
    n_shared_experts       size of the network beside a mixture, in experts
    n_group, topk_group    experts of so many groups of so many are chosen from
    """

    IDLE = SILU

    vocab_size: int = 151552
    hidden_size: int = 4096
    intermediate_size: int = 10944
    num_hidden_layers: int = 46
    num_attention_heads: int = 96
    num_key_value_heads: int = 8
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    use_qk_norm: bool = False
    first_k_dense_replace: Count = 1
    moe_intermediate_size: int = 1408
    n_routed_experts: int = 128
    n_shared_experts: int = 1
    num_experts_per_tok: int = 8
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"partial_rotary_factor": 0.5, **raw}

    def check(self) -> None:
        super().check()
        check_experts(self.n_routed_experts, self.num_experts_per_tok)
        check_groups(self.n_routed_experts, self.n_group, self.topk_group, self.num_experts_per_tok)


GGUF = Gguf(
    settings=SETTINGS | CHOSEN_SETTINGS,
    defaults={"rope.freq_base": 10000.0, "expert_group_count": 1, "expert_group_used_count": 1},
    equal={"attention.value_length": "head_dim"},
    idle=IDLE | {"expert_gating_func": 2},  # sigmoids
    tensors=without(TENSORS, "blk.{}.ffn_norm")
    | HEAD_NORMS
    | EXPERT_TENSORS
    | CHOSEN_TENSORS
    | {"blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm"},
    told={"attention_bias": "blk.0.attn_q.bias", "use_qk_norm": "blk.0.attn_q_norm.weight"},
    ahead=True,
    partial=True,
)


class Model(Decoder):
    """The weights of a GLM-4.5 by their published names, and its forward pass over the verbs of `models.ops`."""

    UNREAD = (r"model\.layers\.(46|92)\..*",)  # behind the last layer: predicts a token more

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x)); q and k may be normalised too, head by head."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkv" if c.attention_bias else "")
        self.norms: list[RMSNorm] = []
        if c.use_qk_norm:
            heads = {"q": c.num_attention_heads, "k": c.num_key_value_heads}
            self.norms = [
                RMSNorm(weights, at + f"self_attn.{part}_norm", c.head_dim, c.rms_norm_eps, count)
                for part, count in heads.items()
            ]
        self.attention = Attention(c, index, turn)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp: Shared | SwiGLU
        if index >= c.first_k_dense_replace:
            self.mlp = self._mixture(c, weights, at + "mlp")
        else:
            self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    @staticmethod
    def _mixture(c: Config, weights: Weights, name: str) -> Shared:
        """Experts chosen by sigmoids and a bias (DeepSeek-AI 2024b)."""
        router = Router(
            top_k=c.num_experts_per_tok,
            sigmoid=True,
            renormalise=c.norm_topk_prob,
            scale=c.routed_scaling_factor,
            groups=c.n_group,
            top_groups=c.topk_group,
            group_best=2 if c.n_group > 1 else 1,
        )
        gate = Linear(weights, name + ".gate", c.n_routed_experts, c.hidden_size)
        bias = weights.take(name + ".gate.e_score_correction_bias", c.n_routed_experts)
        networks = separate(weights, name + ".experts", c.hidden_size, c.moe_intermediate_size, c.n_routed_experts)
        inner = c.moe_intermediate_size * c.n_shared_experts
        network = SwiGLU(weights, name + ".shared_experts", c.hidden_size, inner)
        return Shared(Mixture(gate, networks, router, bias), network)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        q, k = self.q(ops, h), self.k(ops, h)
        if self.norms:
            q, k = (norm(ops, part) for norm, part in zip(self.norms, (q, k), strict=True))
        h = self.attention(ops, q, k, self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
