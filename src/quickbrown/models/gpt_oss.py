"""gpt-oss: attention with sinks, in every second layer over a window; mixtures of clamped experts (OpenAI 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, Weights, projections
from quickbrown.models.config import SILU, LayeredConfig, LayerType, PerLayer, all_heads, derived, equal_heads
from quickbrown.models.experts import Mixture, Networks, check_experts
from quickbrown.models.gguf import EQUAL, SETTINGS, TENSORS, Gguf, without
from quickbrown.models.ops import Ops, Router, W, X
from quickbrown.models.rope import Rope

YARN = {  # where config.json has no rope_parameters
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def every_second(c: Config) -> tuple[str, ...]:
    return tuple("full_attention" if i % 2 else "sliding_attention" for i in range(c.num_hidden_layers))


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """intermediate_size: of each expert; attention_bias: whether q, k, v and o have biases.

    swiglu_limit  to which experts' gates and ups are clamped
    """

    IDLE = SILU | {"swiglu_alpha": (1.702,)}
    THETA = 150000.0

    vocab_size: int = 201088
    hidden_size: int = 2880
    intermediate_size: int = 2880
    num_hidden_layers: int = 36
    num_attention_heads: int = 64
    num_key_value_heads: int = derived(all_heads, 8)
    head_dim: int = derived(equal_heads, 64)
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = True
    sliding_window: int | None = 128
    layer_types: PerLayer[LayerType] = derived(every_second)
    num_local_experts: int = 128
    num_experts_per_tok: int = 4
    swiglu_limit: float = 7.0

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        said = any(raw.get(name) is not None for name in ("rope_parameters", "rope_scaling"))
        return raw if said else {**raw, "rope_parameters": YARN | {"rope_theta": raw.get("rope_theta", cls.THETA)}}

    def check(self) -> None:
        super().check()
        check_experts(self.num_local_experts, self.num_experts_per_tok)


GGUF = Gguf(
    settings=SETTINGS
    | {
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
        "attention.sliding_window": "sliding_window",
    },
    equal=EQUAL | {"expert_feed_forward_length": "intermediate_size"},
    tensors=without(TENSORS, *(f"blk.{{}}.ffn_{part}" for part in ("norm", "gate", "up", "down")))
    | {
        "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
        "blk.{}.attn_sinks": "model.layers.{}.self_attn.sinks",
        "blk.{}.ffn_gate_inp": "model.layers.{}.mlp.router",
        "blk.{}.ffn_down_exps": "model.layers.{}.mlp.experts.down_proj",
        "blk.{}.ffn_down_exps.bias": "model.layers.{}.mlp.experts.down_proj_bias",
    },
    joined={
        "model.layers.{}.mlp.experts.gate_up_proj": ("blk.{}.ffn_gate_exps.weight", "blk.{}.ffn_up_exps.weight"),
        "model.layers.{}.mlp.experts.gate_up_proj_bias": ("blk.{}.ffn_gate_exps.bias", "blk.{}.ffn_up_exps.bias"),
    },
    alternate=True,
    turning={"truncate": False},
    told={"attention_bias": "blk.0.attn_q.bias"},
)


class Model(Decoder):
    """The weights of a gpt-oss by their published names, and its forward pass over the verbs of `models.ops`."""

    INPUTS_FIRST = (r".*\.mlp\.experts\.(gate_up|down)_proj",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class SunkAttention(Attention):
    """With a score more for each head, which takes weight and gives no value (Xiao et al. 2023)."""

    def __init__(self, config: Config, index: int, rope: Rope, window: int, sinks: W) -> None:
        super().__init__(config, index, rope, window)
        self.sinks = sinks

    def __call__(self, ops: Ops[X], q: X, k: X, v: X, batch: Any) -> X:
        assert self.rope is not None
        q = ops.rope(q, batch, self.heads, self.rope)
        k = ops.rope(k, batch, self.kv_heads, self.rope)
        sizes = self.heads, self.kv_heads, self.scale, self.window
        return ops.attention(self.index, q, k, v, batch, *sizes, sinks=self.sinks)


class Layer:
    """x + attention(norm(x)), then x + mixture(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        sinks = weights.take(at + "self_attn.sinks", c.num_attention_heads)
        self.attention = SunkAttention(c, index, turn, c.window(index), sinks)
        self.mixture_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        gate = Linear(weights, at + "mlp.router", c.num_local_experts, c.hidden_size, bias=True)
        router = Router(top_k=c.num_experts_per_tok, renormalise=True)
        self.mixture = Mixture(gate, self._networks(c, weights, at + "mlp.experts"), router)

    @staticmethod
    def _networks(c: Config, weights: Weights, name: str) -> Networks:
        """Rows of gates and of ups alternate."""
        experts, inner, hidden = c.num_local_experts, c.intermediate_size, c.hidden_size
        both = weights.take(name + ".gate_up_proj", experts, 2 * inner, hidden)
        both_bias = weights.take(name + ".gate_up_proj_bias", experts, 2 * inner)
        down = weights.take(name + ".down_proj", experts, hidden, inner)
        down_bias = weights.take(name + ".down_proj_bias", experts, hidden)
        every = range(experts)
        gates, ups = np.arange(0, 2 * inner, 2), np.arange(1, 2 * inner, 2)
        gate, up = ([both.part(e).picked(rows) for e in every] for rows in (gates, ups))
        gate_bias, up_bias = ([both_bias.part(e).picked(rows) for e in every] for rows in (gates, ups))
        biases = gate_bias, up_bias, [down_bias.part(e) for e in every]
        return Networks(gate, up, [down.part(e) for e in every], biases, "clamped", c.swiglu_limit)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mixture(ops, self.mixture_norm(ops, x)))
