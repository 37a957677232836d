"""Qwen2 with mixtures of experts; beside them all tokens take one network, through a gate (Yang et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, Count, LayerType, PerLayer, WindowConfig, all_heads, derived
from quickbrown.models.experts import EXPERT_SETTINGS, EXPERT_TENSORS, Mixture, Networks, check_experts, separate
from quickbrown.models.gguf import SETTINGS, TENSORS, Gguf
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope


def windows_between(c: Config) -> tuple[str, ...]:
    seen = 0 if c.sliding_window is None else c.max_window_layers
    return tuple(
        "sliding_attention" if i % 2 == 0 and i < seen else "full_attention" for i in range(c.num_hidden_layers)
    )


@dataclass(frozen=True, kw_only=True)
class Config(WindowConfig):
    """decoder_sparse_step, mlp_only_layers: every so many layers, less those listed, one has a mixture of experts; the
    others have one network of intermediate_size
    """

    IDLE = SILU

    vocab_size: int = 151936
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = derived(all_heads, 16)
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    layer_types: PerLayer[LayerType] = derived(windows_between)
    qkv_bias: bool = True
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[Count, ...] = derived(lambda c: ())
    num_experts: int = 60
    num_experts_per_tok: int = 4
    norm_topk_prob: bool = False
    moe_intermediate_size: int = 1408
    shared_expert_intermediate_size: int = 5632

    def check(self) -> None:
        super().check()
        check_experts(self.num_experts, self.num_experts_per_tok)

    def mixed(self, layer: int) -> bool:
        """Whether this layer has a mixture."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


GGUF = Gguf(
    settings=SETTINGS | EXPERT_SETTINGS | {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
    tensors=TENSORS
    | EXPERT_TENSORS
    | {
        "blk.{}.ffn_gate_inp_shexp": "model.layers.{}.mlp.shared_expert_gate",
        "blk.{}.ffn_gate_shexp": "model.layers.{}.mlp.shared_expert.gate_proj",
        "blk.{}.ffn_up_shexp": "model.layers.{}.mlp.shared_expert.up_proj",
        "blk.{}.ffn_down_shexp": "model.layers.{}.mlp.shared_expert.down_proj",
    },
)


class Model(Decoder):
    """The weights of a Qwen2-MoE by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Shared:
    """mixture(x) + sigmoid(gate(x)) * network(x)."""

    def __init__(self, config: Any, weights: Weights, name: str) -> None:
        c = config
        router = Router(top_k=c.num_experts_per_tok, renormalise=c.norm_topk_prob)
        gate = Linear(weights, name + ".gate", c.num_experts, c.hidden_size)
        self.mixture = Mixture(gate, self.networks(c, weights, name + ".experts"), router)
        self.network = SwiGLU(weights, name + ".shared_expert", c.hidden_size, c.shared_expert_intermediate_size)
        self.open = Linear(weights, name + ".shared_expert_gate", 1, c.hidden_size)

    @staticmethod
    def networks(config: Any, weights: Weights, name: str) -> Networks:
        return separate(weights, name, config.hidden_size, config.moe_intermediate_size, config.num_experts)

    def __call__(self, ops: Ops[X], x: X) -> X:
        return ops.add(self.mixture(ops, x), ops.gate_rows(self.network(ops, x), self.open(ops, x)))


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkv" if c.qkv_bias else "")
        self.attention = Attention(c, index, turn, c.window(index))
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp: Shared | SwiGLU
        if c.mixed(index):
            self.mlp = Shared(c, weights, at + "mlp")
        else:
            self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
