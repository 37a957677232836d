"""Granite with mixtures of experts: a Mixtral whose embeddings, scores, branches and logits are scaled (IBM 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, Weights, projections
from quickbrown.models.config import SILU, RopeConfig, all_heads, derived
from quickbrown.models.experts import Mixture, Networks, check_experts
from quickbrown.models.gguf import PERMUTED, SETTINGS, TENSORS, Gguf, without
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """intermediate_size: of each expert; attention_bias: whether q, k, v and o have biases.

    embedding_multiplier  times embeddings     attention_multiplier  times scores, in the place of head_dim ** -0.5
    residual_multiplier   times each branch    logits_scaling        what logits are divided by
    """

    IDLE = SILU

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads)
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    embedding_multiplier: float = 1.0
    attention_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0
    num_local_experts: int = 8
    num_experts_per_tok: int = 2

    def check(self) -> None:
        super().check()
        check_experts(self.num_local_experts, self.num_experts_per_tok)


_AT = "model.layers.{}.block_sparse_moe."
GGUF = Gguf(
    settings=SETTINGS
    | {
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
        "embedding_scale": "embedding_multiplier",
        "attention.scale": "attention_multiplier",
        "residual_scale": "residual_multiplier",
        "logit_scale": "logits_scaling",
    },
    tensors=without(TENSORS, *(f"blk.{{}}.ffn_{part}" for part in ("gate", "up", "down")))
    | {"blk.{}.ffn_gate_inp": _AT + "router.layer", "blk.{}.ffn_down_exps": _AT + "output_linear"},
    joined={_AT + "input_linear.weight": ("blk.{}.ffn_gate_exps.weight", "blk.{}.ffn_up_exps.weight")},
    permuted=PERMUTED,
)


class Model(Decoder):
    """The weights of a Granite-MoE by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        x = ops.scale(ops.embed(self.embedding, tokens), self.config.embedding_multiplier)
        for layer in self.layers:
            x = layer.forward(ops, x, batch)
        logits = ops.linear(self.norm(ops, ops.rows(x, batch)), self.head)
        return ops.scale(logits, 1 / self.config.logits_scaling)


def networks(c: Any, weights: Weights, name: str) -> Networks:
    """Gates lie above ups in one stack of all experts, downs in another."""
    experts, inner, hidden = c.num_local_experts, c.intermediate_size, c.hidden_size
    both = weights.take(name + ".input_linear.weight", experts, 2 * inner, hidden)
    down = weights.take(name + ".output_linear.weight", experts, hidden, inner)
    return Networks(
        [both.part(e).rows(0, inner) for e in range(experts)],
        [both.part(e).rows(inner, 2 * inner) for e in range(experts)],
        [down.part(e) for e in range(experts)],
    )


class Layer:
    """x + r attention(norm(x)), then x + r mixture(norm(x)), r the residual multiplier."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.attention = Attention(c, index, turn)
        self.attention.scale = c.attention_multiplier
        self.mixture_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        router = Router(top_k=c.num_experts_per_tok, renormalise=True)
        gate = Linear(weights, at + "block_sparse_moe.router.layer", c.num_local_experts, c.hidden_size)
        self.mixture = Mixture(gate, networks(c, weights, at + "block_sparse_moe"), router)
        self.residual_multiplier = c.residual_multiplier

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, ops.scale(self.o(ops, h), self.residual_multiplier))
        return ops.add(x, ops.scale(self.mixture(ops, self.mixture_norm(ops, x)), self.residual_multiplier))
