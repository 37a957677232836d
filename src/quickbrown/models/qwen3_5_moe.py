"""Qwen3.5 with mixtures of experts, its text; beside them all tokens take one network, through a gate
(Qwen Team 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models import qwen3_5
from quickbrown.models.blocks import Decoder, RMSNorm, Weights
from quickbrown.models.experts import Networks, check_experts
from quickbrown.models.qwen2_moe import Shared


@dataclass(frozen=True, kw_only=True)
class Config(qwen3_5.Config):
    """As `DeltaConfig` says, and how many experts there are, how many a token takes, and how wide they are."""

    hidden_size: int = 2048
    num_hidden_layers: int = 40
    num_key_value_heads: int = 2
    num_experts: int = 256
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 512
    shared_expert_intermediate_size: int = 512

    @property
    def norm_topk_prob(self) -> bool:
        return True

    def check(self) -> None:
        super().check()
        check_experts(self.num_experts, self.num_experts_per_tok)


class Model(Decoder):
    """The weights of a Qwen3.5-MoE by their published names, and its forward pass over the verbs of `models.ops`."""

    RENAMED = qwen3_5.Model.RENAMED
    UNREAD = qwen3_5.Model.UNREAD

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = RMSNorm(weights, "model.norm", config.hidden_size, config.rms_norm_eps, 1, 1.0)
        super().__init__(config, weights, Layer, norm)


class Stacked(Shared):
    """Gates lie above ups in one stack of all experts, downs in another."""

    @staticmethod
    def networks(config: Any, weights: Weights, name: str) -> Networks:
        experts, inner, hidden = config.num_experts, config.moe_intermediate_size, config.hidden_size
        both = weights.take(name + ".gate_up_proj", experts, 2 * inner, hidden)
        down = weights.take(name + ".down_proj", experts, hidden, inner)
        return Networks(
            [both.part(e).rows(0, inner) for e in range(experts)],
            [both.part(e).rows(inner, 2 * inner) for e in range(experts)],
            [down.part(e) for e in range(experts)],
        )


class Layer(qwen3_5.Layer):
    """x + mixer(norm(x)), then x + mixture(norm(x))."""

    def _network(self, config: Any, weights: Weights, name: str, index: int) -> Shared:
        return Stacked(config, weights, name)
