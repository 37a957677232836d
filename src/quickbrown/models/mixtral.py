"""Mixtral: a Mistral whose layers have several networks, of which each token takes two (Jiang et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, Weights, projections
from quickbrown.models.config import SILU, RopeConfig, all_heads, derived
from quickbrown.models.experts import Mixture, check_experts, separate
from quickbrown.models.gguf import PERMUTED, SETTINGS, TENSORS, Gguf
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """intermediate_size: of each expert.

    sliding_window: how many tokens a layer sees, itself included; None for all.
    """

    IDLE = SILU
    THETA = 1000000.0

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads, 8)
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    num_local_experts: int = 8
    num_experts_per_tok: int = 2

    def check(self) -> None:
        super().check()
        check_experts(self.num_local_experts, self.num_experts_per_tok)


GGUF = Gguf(
    settings=SETTINGS | {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"},
    tensors=TENSORS
    | {
        "blk.{}.ffn_gate_inp": "model.layers.{}.block_sparse_moe.gate",
        "blk.{}.ffn_gate_exps": "model.layers.{}.block_sparse_moe.experts.{}.w1",
        "blk.{}.ffn_up_exps": "model.layers.{}.block_sparse_moe.experts.{}.w3",
        "blk.{}.ffn_down_exps": "model.layers.{}.block_sparse_moe.experts.{}.w2",
    },
    permuted=PERMUTED,
)


class Model(Decoder):
    """The weights of a Mixtral by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)) over the window, then x + mixture(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c)
        self.attention = Attention(c, index, turn, c.sliding_window or 0)
        self.mixture_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        router = Router(top_k=c.num_experts_per_tok, renormalise=True)
        gate = Linear(weights, at + "block_sparse_moe.gate", c.num_local_experts, c.hidden_size)
        sizes = c.hidden_size, c.intermediate_size, c.num_local_experts
        networks = separate(weights, at + "block_sparse_moe.experts", *sizes, ("w1", "w3", "w2"))
        self.mixture = Mixture(gate, networks, router)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mixture(ops, self.mixture_norm(ops, x)))
