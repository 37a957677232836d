"""DeepSeek-V2 and V3: keys and values of all heads are made of one narrow vector a token (DeepSeek-AI 2024), beside a
key that turns and that all heads share; mixtures of experts beside networks that every token takes (2024b)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, SwiGLU, Weights, split
from quickbrown.models.config import SILU, Count, RopeConfig, all_heads, derived
from quickbrown.models.experts import Mixture, Shared, check_experts, check_groups, separate
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope, rope

LATENT_EPS = 1e-6  # of the norms of what is narrow, whatever rms_norm_eps says
V3 = {  # where config.json of a deepseek_v3 says nothing
    "topk_method": "noaux_tc", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "norm_topk_prob": True, "max_position_embeddings": 4096,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether what makes narrow vectors of wide ones, and o, have biases; mlp_bias: networks, not
    experts.

    q_lora_rank, kv_lora_rank  sizes of the narrow vectors of queries, None for none, and of keys and values
    qk_nope_head_dim           of what of a head's query and key does not turn
    qk_rope_head_dim           of what does, behind it
    topk_method                "noaux_tc": experts are chosen by sigmoids and a bias, else by softmax; in groups unless
                               "greedy"
    norm_topk_prob             whether weights of sigmoids are divided by their sum
    """

    IDLE = SILU | {"moe_layer_freq": (1,)}

    vocab_size: int = 102400
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads)
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    q_lora_rank: int | None = 1536
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    head_dim: int = derived(lambda c: c.qk_nope_head_dim + c.qk_rope_head_dim)
    rope_interleave: bool = True
    first_k_dense_replace: Count = 0
    moe_intermediate_size: int = 1407
    n_routed_experts: int = 64
    n_shared_experts: int = 2
    num_experts_per_tok: int
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"] = "greedy"
    n_group: int | None = None
    topk_group: int | None = None
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0

    @property
    def value_dim(self) -> int:
        return self.v_head_dim

    @property
    def sigmoid(self) -> bool:
        return self.topk_method == "noaux_tc"

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        raw = {**V3, **raw} if raw.get("model_type") == "deepseek_v3" else raw
        scores = "sigmoid" if raw.get("topk_method") == "noaux_tc" else "softmax"
        if raw.get("scoring_func", scores) != scores:
            raise ValueError(
                f"scoring_func is {raw['scoring_func']!r} and topk_method {raw.get('topk_method')!r}, which takes "
                f"{scores!r}"
            )
        return raw

    def settle(self) -> None:
        super().settle()
        self.set("head_dim", None)  # which config.json may have as the size of what turns
        if self.topk_method == "greedy":
            self.set("n_group", None)
            self.set("topk_group", None)

    def check(self) -> None:
        super().check()
        if self.num_key_value_heads != self.num_attention_heads:
            raise ValueError(
                f"its {self.num_attention_heads} heads have {self.num_key_value_heads} keys; each has one of its own"
            )
        if self.norm_topk_prob and not self.sigmoid:
            raise ValueError(f"norm_topk_prob is true and topk_method {self.topk_method!r}, which is not supported")
        check_experts(self.n_routed_experts, self.num_experts_per_tok)
        best = 2 if self.sigmoid else 1
        check_groups(self.n_routed_experts, self.n_group or 1, self.topk_group or 1, self.num_experts_per_tok, best)

    @property
    def scale(self) -> float:
        """Of scores: more in texts that are stretched (YaRN's mscale)."""
        p, usual = self.rope_parameters, self.head_dim**-0.5
        everywhere, factor = p.get("mscale_all_dim"), p.get("factor")
        if p.get("rope_type", "default") == "default" or not everywhere or not factor or factor <= 1:
            return float(usual)
        return float(usual * (0.1 * everywhere * math.log(factor) + 1) ** 2)


class Model(Decoder):
    """The weights of a DeepSeek by their published names, and its forward pass over the verbs of `models.ops`."""

    UNREAD = (r"model\.layers\.61\..*",)  # behind the last layer: predicts a token more

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)

    def turns(self) -> list[Any]:
        c = self.config
        turn = rope(
            c.rope_parameters,
            c.qk_rope_head_dim,
            c.max_position_embeddings,
            start=c.qk_nope_head_dim,
            interleaved=c.rope_interleave,
        )
        return [turn] * c.num_hidden_layers


class LatentAttention:
    """Multi-head attention whose keys and values, but for what of a key turns, are linear in one narrow vector."""

    def __init__(self, config: Config, weights: Weights, name: str, index: int, turn: Rope) -> None:
        c, hidden, heads = config, config.hidden_size, config.num_attention_heads
        self.heads = heads
        self.narrow: tuple[Linear, RMSNorm] | None = None
        if c.q_lora_rank is None:
            self.q = Linear(weights, name + "q_proj", heads * c.head_dim, hidden)
        else:
            made = Linear(weights, name + "q_a_proj", c.q_lora_rank, hidden, c.attention_bias)
            self.narrow = made, RMSNorm(weights, name + "q_a_layernorm", c.q_lora_rank, LATENT_EPS)
            self.q = Linear(weights, name + "q_b_proj", heads * c.head_dim, c.q_lora_rank)
        sizes = c.kv_lora_rank, c.qk_rope_head_dim
        self.latent, self.shared = split(weights, name + "kv_a_proj_with_mqa", sizes, hidden, c.attention_bias)
        self.norm = RMSNorm(weights, name + "kv_a_layernorm", c.kv_lora_rank, LATENT_EPS)
        self.k, self.v = self._keys_and_values(c, weights, name + "kv_b_proj")
        self.attention = Attention(c, index, turn, scale=c.scale)
        self.o = Linear(weights, name + "o_proj", hidden, heads * c.v_head_dim, c.attention_bias)

    @staticmethod
    def _keys_and_values(c: Config, weights: Weights, name: str) -> tuple[Linear, Linear]:
        """Published as one weight, head by head: first the key, then the value."""
        rows = np.arange(c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim)).reshape(c.num_attention_heads, -1)
        both = weights.take(name + ".weight", rows.size, c.kv_lora_rank)
        k, v = rows[:, : c.qk_nope_head_dim], rows[:, c.qk_nope_head_dim :]
        return Linear.of(both.picked(k.reshape(-1))), Linear.of(both.picked(v.reshape(-1)))

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = x
        if self.narrow is not None:
            made, norm = self.narrow
            h = norm(ops, made(ops, x))
        latent = self.norm(ops, self.latent(ops, x))
        k = ops.join(self.k(ops, latent), self.shared(ops, x), self.heads, True)
        return self.o(ops, self.attention(ops, self.q(ops, h), k, self.v(ops, latent), batch))


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.attention = LatentAttention(c, weights, at + "self_attn.", index, turn)
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp: Shared | SwiGLU
        if index >= c.first_k_dense_replace:
            self.mlp = self._mixture(c, weights, at + "mlp")
        else:
            self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size, c.mlp_bias)

    @staticmethod
    def _mixture(c: Config, weights: Weights, name: str) -> Shared:
        router = Router(
            top_k=c.num_experts_per_tok,
            sigmoid=c.sigmoid,
            renormalise=c.norm_topk_prob,
            scale=c.routed_scaling_factor,
            groups=c.n_group or 1,
            top_groups=c.topk_group or 1,
            group_best=2 if c.sigmoid and (c.n_group or 1) > 1 else 1,
        )
        gate = Linear(weights, name + ".gate", c.n_routed_experts, c.hidden_size)
        bias = weights.take(name + ".gate.e_score_correction_bias", c.n_routed_experts) if c.sigmoid else None
        networks = separate(weights, name + ".experts", c.hidden_size, c.moe_intermediate_size, c.n_routed_experts)
        inner = c.moe_intermediate_size * c.n_shared_experts
        network = SwiGLU(weights, name + ".shared_experts", c.hidden_size, inner, c.mlp_bias)
        return Shared(Mixture(gate, networks, router, bias), network)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        x = ops.add(x, self.attention(ops, self.attention_norm(ops, x), batch))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
