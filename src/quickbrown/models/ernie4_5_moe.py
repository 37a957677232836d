"""ERNIE 4.5 with mixtures of experts, chosen by softmax and a bias, beside a network that every token takes (Baidu
2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, Count, RopeConfig, all_heads, derived
from quickbrown.models.experts import CHOSEN_TENSORS, EXPERT_TENSORS, Mixture, Shared, check_experts, separate
from quickbrown.models.gguf import SETTINGS, TENSORS, Gguf
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """use_bias: whether all linears but those of experts have biases, the head too.

    moe_k                             how many experts a token takes
    moe_layer_start_index, _end_index the first and the last layer with a mixture, of which every moe_layer_interval-th
                                      has one; the others have one network of intermediate_size
    moe_num_shared_experts            size of the network beside a mixture, in experts; 0 for none
    moe_norm_min                      what the sum of a token's weights, by which they are divided, is at least
    """

    IDLE = SILU
    THETA = 500000.0

    vocab_size: int = 103424
    hidden_size: int = 2560
    intermediate_size: int = 12288
    num_hidden_layers: int = 28
    num_attention_heads: int = 20
    num_key_value_heads: int = derived(all_heads, 4)
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    use_bias: bool = False
    moe_intermediate_size: int = 1536
    moe_k: int = 6
    moe_num_experts: int = 64
    moe_num_shared_experts: Count = 2
    moe_layer_start_index: Count = 1
    moe_layer_end_index: Count = derived(lambda c: c.num_hidden_layers - 1)
    moe_layer_interval: int = 1
    moe_norm_min: float = 1e-12

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**raw, "moe_layer_end_index": None} if raw.get("moe_layer_end_index", -1) == -1 else raw

    def check(self) -> None:
        super().check()
        check_experts(self.moe_num_experts, self.moe_k)

    def mixed(self, layer: int) -> bool:
        """Whether this layer has a mixture."""
        among = self.moe_layer_start_index <= layer <= self.moe_layer_end_index
        return among and (layer + 1) % self.moe_layer_interval == 0


GGUF = Gguf(
    settings=SETTINGS
    | {
        "expert_count": "moe_num_experts",
        "expert_used_count": "moe_k",
        "expert_shared_count": "moe_num_shared_experts",
        "expert_feed_forward_length": "moe_intermediate_size",
        "interleave_moe_layer_step": "moe_layer_interval",
        "leading_dense_block_count": "moe_layer_start_index",
    },
    defaults={"rope.freq_base": 10000.0, "expert_shared_count": 0},
    tensors=TENSORS
    | EXPERT_TENSORS
    | CHOSEN_TENSORS
    | {"blk.{}.exp_probs_b.bias": "model.layers.{}.mlp.moe_statics.e_score_correction_bias"},
    told={"use_bias": "blk.0.attn_q.bias"},
    unread=("expert_shared_feed_forward_length",),
)


class Model(Decoder):
    """The weights of an ERNIE 4.5 by their published names, and its forward pass over the verbs of `models.ops`."""

    INTERLEAVED = True
    UNREAD = (r"model\.mtp_.*",)  # predict more tokens

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)
        self.head_bias = weights.take("lm_head.bias", config.vocab_size) if config.use_bias else None

    def logits(self, ops: Ops[X], x: X) -> X:
        return ops.linear(x, self.head, self.head_bias)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.use_bias else "")
        self.attention = Attention(c, index, turn)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp: Mixture | Shared | SwiGLU
        if c.mixed(index):
            self.mlp = self._mixture(c, weights, at + "mlp")
        else:
            self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size, c.use_bias)

    @staticmethod
    def _mixture(c: Config, weights: Weights, name: str) -> Mixture | Shared:
        router = Router(top_k=c.moe_k, renormalise=True, least=c.moe_norm_min)
        gate = Linear(weights, name + ".gate", c.moe_num_experts, c.hidden_size)
        bias = weights.take(name + ".moe_statics.e_score_correction_bias", 1, c.moe_num_experts).part(0)
        networks = separate(weights, name + ".experts", c.hidden_size, c.moe_intermediate_size, c.moe_num_experts)
        mixture = Mixture(gate, networks, router, bias)
        if not c.moe_num_shared_experts:
            return mixture
        inner = c.moe_intermediate_size * c.moe_num_shared_experts
        return Shared(mixture, SwiGLU(weights, name + ".shared_experts", c.hidden_size, inner, c.use_bias))

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
