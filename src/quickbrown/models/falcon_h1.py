"""Falcon-H1: attention and a state space side by side in every layer, multipliers at each step (Zuo et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, Weights, projections
from quickbrown.models.config import SILU, Number, RopeConfig, all_heads, derived
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope
from quickbrown.models.state_space import NO_LIMITS, Sizes, StateSpace


def expanded(c: Config) -> int:
    return c.mamba_expand * c.hidden_size


def equal_parts(c: Config) -> int:
    return c.mamba_d_ssm // c.mamba_n_heads


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias, mlp_bias, projectors_bias: whether q, k, v and o have biases, the network, and the linear behind
    a state space.

    mamba_...         of state spaces: values of all heads, heads and values of each, groups that share B and C, numbers
                      of those, how many values a convolution sees, whether it has a bias, whether the result is
                      normalised, and whether before its gate
    ..._multiplier    of embeddings, logits, keys, and what goes into attention and state spaces and comes out of them
    mlp_multipliers   of the network's gate, and of its result
    ssm_multipliers   of what the linear before a state space gives: the gate, x, B, C, the time step
    """

    IDLE = SILU | {"mamba_proj_bias": (False,), "time_step_limit": NO_LIMITS}

    vocab_size: int = 128000
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads, 8)
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    projectors_bias: bool = False
    mamba_expand: int = 2
    mamba_d_ssm: int = derived(expanded, 1024)
    mamba_n_heads: int = 128
    mamba_d_head: int = derived(equal_parts)
    mamba_n_groups: int = 1
    mamba_d_state: int = 256
    mamba_d_conv: int = 4
    mamba_conv_bias: bool = True
    mamba_rms_norm: bool = False
    mamba_norm_before_gate: bool = True
    lm_head_multiplier: Number = 1.0
    embedding_multiplier: Number = 1.0
    key_multiplier: Number = 1.0
    attention_in_multiplier: Number = 1.0
    attention_out_multiplier: Number = 1.0
    ssm_in_multiplier: Number = 1.0
    ssm_out_multiplier: Number = 1.0
    mlp_multipliers: tuple[Number, ...] = derived(lambda c: (1.0, 1.0))
    ssm_multipliers: tuple[Number, ...] = derived(lambda c: (1.0,) * 5)

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value for name, value in raw.items() if (name, value) != ("mamba_d_head", "auto")}

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            heads=self.mamba_n_heads,
            head=self.mamba_d_head,
            groups=self.mamba_n_groups,
            state=self.mamba_d_state,
            length=self.mamba_d_conv,
        )

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.sizes.states * self.num_hidden_layers

    def check(self) -> None:
        super().check()
        if self.sizes.inner != self.mamba_d_ssm:
            raise ValueError(
                f"its {self.mamba_n_heads} state space heads of {self.mamba_d_head} values are not mamba_d_ssm, "
                f"{self.mamba_d_ssm}"
            )
        for name, count in (("mlp_multipliers", 2), ("ssm_multipliers", 5)):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} must be a list of {count} numbers")


class Model(Decoder):
    """The weights of a Falcon-H1 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = RMSNorm(weights, "model.final_layernorm", config.hidden_size, config.rms_norm_eps)
        super().__init__(config, weights, Layer, norm)

    def embed(self, ops: Ops[X], tokens: X) -> X:
        return ops.scale(super().embed(ops, tokens), self.config.embedding_multiplier)

    def logits(self, ops: Ops[X], x: X) -> X:
        return ops.scale(super().logits(ops, x), self.config.lm_head_multiplier)


class Layer:
    """x + state space(norm(x)) + attention(norm(x)), then x + network(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.config = c
        self.norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.state_space = StateSpace(
            weights,
            at + "mamba",
            index,
            c.hidden_size,
            c.sizes,
            conv_bias=c.mamba_conv_bias,
            eps=c.rms_norm_eps if c.mamba_rms_norm else None,
            norm_first=c.mamba_norm_before_gate,
            out_bias=c.projectors_bias,
            multipliers=c.ssm_multipliers,
        )
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.attention = Attention(c, index, turn)
        self.network_norm = RMSNorm(weights, at + "pre_ff_layernorm", c.hidden_size, c.rms_norm_eps)
        self.gate, self.up = (
            Linear(weights, f"{at}feed_forward.{part}_proj", c.intermediate_size, c.hidden_size, c.mlp_bias)
            for part in ("gate", "up")
        )
        self.down = Linear(weights, at + "feed_forward.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        c, h = self.config, self.norm(ops, x)
        spaced = self.state_space(ops, ops.scale(h, c.ssm_in_multiplier), batch)
        h = ops.scale(h, c.attention_in_multiplier)
        keys = ops.scale(self.k(ops, h), c.key_multiplier)
        attended = self.o(ops, self.attention(ops, self.q(ops, h), keys, self.v(ops, h), batch))
        spaced, attended = ops.scale(spaced, c.ssm_out_multiplier), ops.scale(attended, c.attention_out_multiplier)
        x = ops.add(x, ops.add(spaced, attended))
        return ops.add(x, self._network(ops, self.network_norm(ops, x)))

    def _network(self, ops: Ops[X], x: X) -> X:
        of_gate, of_result = self.config.mlp_multipliers
        gate = ops.scale(self.gate(ops, x), of_gate)
        return ops.scale(self.down(ops, ops.gated(gate, self.up(ops, x), "silu")), of_result)
