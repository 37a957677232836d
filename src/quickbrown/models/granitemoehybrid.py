"""Granite 4: state spaces in most layers, attention in the others, mixtures of experts beside one network for all
tokens; embeddings, scores, branches and logits are scaled (IBM 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, Weights, projections, split
from quickbrown.models.config import SILU, Count, PerLayer, RopeConfig, all_heads, derived
from quickbrown.models.experts import Mixture, check_experts
from quickbrown.models.granitemoe import networks
from quickbrown.models.ops import Ops, Router, X
from quickbrown.models.rope import Rope
from quickbrown.models.state_space import NO_LIMITS, Sizes, StateSpace

OLDER = {"mamba": "linear_attention", "attention": "full_attention"}  # names of layer_types


def equal_parts(c: Config) -> int:
    return c.mamba_expand * c.hidden_size // c.mamba_n_heads


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """layer_types: of each layer, "linear_attention" for a state space, which all are unless listed.

    intermediate_size        of each expert, of which there may be none; shared_intermediate_size: of the network for
                             all tokens
    position_embedding_type  "rope" where attention turns queries and keys
    embedding_multiplier     times embeddings     attention_multiplier  times scores, in the place of head_dim ** -0.5
    residual_multiplier      times each branch    logits_scaling        what logits are divided by
    mamba_...                of state spaces: heads and values of each, groups that share B and C, numbers of those, how
                             many values a convolution sees, whether it has a bias
    """

    IDLE = SILU | {"mamba_proj_bias": (False,), "time_step_limit": NO_LIMITS}

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
    num_local_experts: Count = 8
    num_experts_per_tok: Count = 2
    shared_intermediate_size: int = 1024
    position_embedding_type: Literal["rope", "nope"] | None = None
    mamba_n_heads: int = 128
    mamba_n_groups: int = 1
    mamba_d_state: int = 256
    mamba_expand: int = 2
    mamba_d_head: int = derived(equal_parts)
    mamba_d_conv: int = 4
    mamba_conv_bias: bool = True
    layer_types: PerLayer[Literal["linear_attention", "full_attention"]] = derived(
        lambda c: ("linear_attention",) * c.num_hidden_layers
    )

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        fields = dict(raw)
        kinds = fields.pop("layers_block_type", None) or fields.get("layer_types")
        if isinstance(kinds, list):
            fields["layer_types"] = [OLDER.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds]
        if fields.get("mamba_d_head") == "auto":
            del fields["mamba_d_head"]
        return fields

    @property
    def attention_layers(self) -> tuple[int, ...]:
        return tuple(i for i, kind in enumerate(self.layer_types) if kind == "full_attention")

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
        return self.sizes.states * self.layer_types.count("linear_attention")

    def check(self) -> None:
        super().check()
        if self.num_local_experts:
            check_experts(self.num_local_experts, self.num_experts_per_tok)
        if self.sizes.inner != self.mamba_expand * self.hidden_size:
            raise ValueError(
                f"its {self.mamba_n_heads} state space heads of {self.mamba_d_head} values are not {self.mamba_expand} "
                f"times hidden_size {self.hidden_size}"
            )


class Model(Decoder):
    """The weights of a Granite 4 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)

    def embed(self, ops: Ops[X], tokens: X) -> X:
        return ops.scale(super().embed(ops, tokens), self.config.embedding_multiplier)

    def logits(self, ops: Ops[X], x: X) -> X:
        return ops.scale(super().logits(ops, x), 1 / self.config.logits_scaling)


class Layer:
    """x + r mixer(norm(x)), then x + r (mixture(norm(x)) + network(norm(x))), r the residual multiplier; a mixer is a
    state space or attention."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.residual_multiplier = c.residual_multiplier
        self.mixer_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mixer: StateSpace | Attending
        if c.layer_types[index] == "linear_attention":
            name, bias, eps = at + "mamba", c.mamba_conv_bias, c.rms_norm_eps
            self.mixer = StateSpace(weights, name, index, c.hidden_size, c.sizes, conv_bias=bias, eps=eps)
        else:
            self.mixer = Attending(c, weights, at + "self_attn", index, turn)
        self.network_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mixture = None
        if c.num_local_experts:
            router = Router(top_k=c.num_experts_per_tok, renormalise=True)
            gate = Linear(weights, at + "block_sparse_moe.router.layer", c.num_local_experts, c.hidden_size)
            self.mixture = Mixture(gate, networks(c, weights, at + "block_sparse_moe"), router)
        inner = c.shared_intermediate_size
        self.gate, self.up = split(weights, at + "shared_mlp.input_linear", (inner, inner), c.hidden_size)
        self.down = Linear(weights, at + "shared_mlp.output_linear", c.hidden_size, inner)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.mixer(ops, self.mixer_norm(ops, x), batch)
        x = ops.add(x, ops.scale(h, self.residual_multiplier))
        h = self.network_norm(ops, x)
        network = self.down(ops, ops.gated(self.gate(ops, h), self.up(ops, h), "silu"))
        if self.mixture is not None:
            network = ops.add(self.mixture(ops, h), network)
        return ops.add(x, ops.scale(network, self.residual_multiplier))


class Attending:
    """Attention with scores of its own scale."""

    def __init__(self, config: Config, weights: Weights, name: str, index: int, turn: Rope) -> None:
        c = config
        self.q, self.k, self.v, self.o = projections(weights, name, c, "qkvo" if c.attention_bias else "")
        rotation = turn if c.position_embedding_type == "rope" else None
        self.attention = Attention(c, index, rotation, scale=c.attention_multiplier)

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        return self.o(ops, self.attention(ops, self.q(ops, x), self.k(ops, x), self.v(ops, x), batch))
