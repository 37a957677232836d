"""Qwen3 with mixtures of experts (Yang et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, Count, RopeConfig, derived
from quickbrown.models.experts import EXPERT_SETTINGS, EXPERT_TENSORS, Mixture, check_experts, separate
from quickbrown.models.gguf import HEAD_NORMS, SETTINGS, TENSORS, Gguf
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k, v and o have biases.

    use_sliding_window                    whether every layer sees a window of sliding_window tokens only
    decoder_sparse_step, mlp_only_layers  every so many layers, less those listed, one has a mixture of experts; the
                                          others have one network of intermediate_size
    """

    IDLE = SILU

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    num_key_value_heads: int = 4
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[Count, ...] = derived(lambda c: ())
    num_experts: int = 128
    num_experts_per_tok: int = 8
    norm_topk_prob: bool = False
    moe_intermediate_size: int = 768

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        if "num_local_experts" in raw and "num_experts" not in raw:
            return {**raw, "num_experts": raw["num_local_experts"]}
        return raw

    def settle(self) -> None:
        if not self.use_sliding_window:
            self.set("sliding_window", None)

    def check(self) -> None:
        super().check()
        check_experts(self.num_experts, self.num_experts_per_tok)

    def mixed(self, layer: int) -> bool:
        """Whether this layer has a mixture."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


GGUF = Gguf(
    settings=SETTINGS | EXPERT_SETTINGS,
    fixed={"norm_topk_prob": True},
    tensors=TENSORS | HEAD_NORMS | EXPERT_TENSORS,
)


class Model(Decoder):
    """The weights of a Qwen3-MoE by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x)); q and k are normalised too, head by head."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.q_norm = RMSNorm(weights, at + "self_attn.q_norm", c.head_dim, c.rms_norm_eps, c.num_attention_heads)
        self.k_norm = RMSNorm(weights, at + "self_attn.k_norm", c.head_dim, c.rms_norm_eps, c.num_key_value_heads)
        self.attention = Attention(c, index, turn, c.sliding_window or 0)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp: Mixture | SwiGLU
        if c.mixed(index):
            router = Router(top_k=c.num_experts_per_tok, renormalise=c.norm_topk_prob)
            gate = Linear(weights, at + "mlp.gate", c.num_experts, c.hidden_size)
            networks = separate(weights, at + "mlp.experts", c.hidden_size, c.moe_intermediate_size, c.num_experts)
            self.mlp = Mixture(gate, networks, router)
        else:
            self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        q = self.q_norm(ops, self.q(ops, h))
        k = self.k_norm(ops, self.k(ops, h))
        h = self.attention(ops, q, k, self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
