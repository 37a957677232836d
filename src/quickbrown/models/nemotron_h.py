"""Nemotron-H: each layer is a state space, attention that rotates nothing, or a network (NVIDIA 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quickbrown.models.blocks import MLP, Attention, Decoder, Linear, RMSNorm, Weights
from quickbrown.models.config import Config as Fields
from quickbrown.models.config import PerLayer
from quickbrown.models.ops import Ops, X
from quickbrown.models.state_space import NO_LIMITS, Sizes, StateSpace

KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}  # of hybrid_override_pattern
OLDER = {"mamba": "linear_attention", "attention": "full_attention"}
RENAMED_FIELDS = {
    "mamba_n_groups": "n_groups", "mamba_d_conv": "conv_kernel", "mamba_conv_bias": "use_conv_bias",
    "mamba_dt_limit": "time_step_limit",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config(Fields):
    """layer_types (layers_block_type): of each layer, "linear_attention" for a state space, "full_attention" or "mlp".

    mamba_..., ssm_state_size, n_groups, conv_kernel, use_conv_bias  of state spaces: heads and values of each, numbers
    of B and of C, groups that share those, how many values a convolution sees, whether it has a bias
    """

    ALIASES = {"layer_types": "layers_block_type"}  # noqa: RUF012
    IDLE = {  # noqa: RUF012
        "mlp_hidden_act": ("relu2",),
        "mamba_hidden_act": ("silu",),
        "use_bias": (False,),
        "mamba_proj_bias": (False,),
        "attention_bias": (False,),
        "time_step_limit": NO_LIMITS,
    }

    vocab_size: int = 131072
    hidden_size: int = 4096
    intermediate_size: int = 21504
    num_hidden_layers: int
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    head_dim: int = 128
    max_position_embeddings: int = 4096
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = False
    mlp_bias: bool = False
    mamba_num_heads: int = 128
    mamba_head_dim: int = 64
    ssm_state_size: int = 128
    n_groups: int = 8
    conv_kernel: int = 4
    use_conv_bias: bool = True
    layer_types: PerLayer[Literal["linear_attention", "full_attention", "mlp"]]

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """How many layers there are follows from their types."""
        fields = {RENAMED_FIELDS.get(name, name): value for name, value in raw.items()}
        kinds, pattern = fields.get("layers_block_type"), fields.get("hybrid_override_pattern")
        if kinds is None and isinstance(pattern, str):
            kinds = [KINDS.get(letter, letter) for letter in pattern]
        if isinstance(kinds, list):
            fields["layers_block_type"] = [OLDER.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds]
            fields["num_hidden_layers"] = len(kinds)
        if isinstance(kinds, list) and "moe" in kinds:
            raise ValueError("has mixtures of experts without gates ('moe'), which are not supported")
        return fields

    @property
    def attention_layers(self) -> tuple[int, ...]:
        return tuple(i for i, kind in enumerate(self.layer_types) if kind == "full_attention")

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            heads=self.mamba_num_heads,
            head=self.mamba_head_dim,
            groups=self.n_groups,
            state=self.ssm_state_size,
            length=self.conv_kernel,
        )

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.sizes.states * self.layer_types.count("linear_attention")

    def check(self) -> None:
        super().check()
        self.sizes  # noqa: B018  # which raises


class Model(Decoder):
    """The weights of a Nemotron-H by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "backbone.embeddings.weight"
    RENAMED = {r"^model\.": "backbone."}  # noqa: RUF012
    UNREAD = (r"mtp\..*",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = RMSNorm(weights, "backbone.norm_f", config.hidden_size, config.layer_norm_epsilon)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + mixer(norm(x)); a mixer is a state space, attention or a network."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: None) -> None:
        c, at = config, f"backbone.layers.{index}."
        self.norm = RMSNorm(weights, at + "norm", c.hidden_size, c.layer_norm_epsilon)
        self.mixer: StateSpace | Attending | Network
        if c.layer_types[index] == "linear_attention":
            name, bias, eps = at + "mixer", c.use_conv_bias, c.layer_norm_epsilon
            self.mixer = StateSpace(weights, name, index, c.hidden_size, c.sizes, conv_bias=bias, eps=eps)
        elif c.layer_types[index] == "full_attention":
            self.mixer = Attending(c, weights, at + "mixer", index)
        else:
            self.mixer = Network(c, weights, at + "mixer")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        return ops.add(x, self.mixer(ops, self.norm(ops, x), batch))


class Attending:
    def __init__(self, config: Config, weights: Weights, name: str, index: int) -> None:
        c, heads, kv_heads = config, config.num_attention_heads, config.num_key_value_heads
        self.q = Linear(weights, name + ".q_proj", heads * c.head_dim, c.hidden_size)
        self.k = Linear(weights, name + ".k_proj", kv_heads * c.head_dim, c.hidden_size)
        self.v = Linear(weights, name + ".v_proj", kv_heads * c.head_dim, c.hidden_size)
        self.o = Linear(weights, name + ".o_proj", c.hidden_size, heads * c.head_dim)
        self.attention = Attention(c, index, None)

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        return self.o(ops, self.attention(ops, self.q(ops, x), self.k(ops, x), self.v(ops, x), batch))


class Network:
    def __init__(self, config: Config, weights: Weights, name: str) -> None:
        c = config
        up = Linear(weights, name + ".up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias)
        down = Linear(weights, name + ".down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias)
        self.network = MLP(up, down, "relu2")

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        return self.network(ops, x)
