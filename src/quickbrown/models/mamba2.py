"""Mamba-2: state spaces and nothing else (Dao & Gu 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Decoder, RMSNorm, Weights
from quickbrown.models.config import SILU
from quickbrown.models.config import Config as Fields
from quickbrown.models.ops import Ops, X
from quickbrown.models.state_space import NO_LIMITS, Sizes, StateSpace


@dataclass(frozen=True, kw_only=True)
class Config(Fields):
    """num_attention_heads (num_heads), head_dim: heads of the state spaces and values of each, together `expand` times
    hidden_size; n_groups of them share B and C, of state_size numbers each.

    conv_kernel              how many values a convolution sees, the own included; use_conv_bias: whether it has a bias
    max_position_embeddings  the most tokens of a text that there is memory for: nothing depends on positions
    """

    ALIASES = {"num_attention_heads": "num_heads"}  # noqa: RUF012
    IDLE = SILU | {"use_bias": (False,), "time_step_limit": NO_LIMITS}

    vocab_size: int = 32768
    hidden_size: int = 4096
    num_hidden_layers: int = 64
    num_attention_heads: int = 128
    head_dim: int = 64
    max_position_embeddings: int = 1 << 20
    tie_word_embeddings: bool = False
    state_size: int = 128
    layer_norm_epsilon: float = 1e-5
    expand: int = 2
    conv_kernel: int = 4
    n_groups: int = 8
    use_conv_bias: bool = True

    @property
    def attention_layers(self) -> tuple[int, ...]:
        return ()

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            heads=self.num_attention_heads,
            head=self.head_dim,
            groups=self.n_groups,
            state=self.state_size,
            length=self.conv_kernel,
        )

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.sizes.states * self.num_hidden_layers

    def check(self) -> None:
        super().check()
        if self.sizes.inner != self.expand * self.hidden_size:
            raise ValueError(
                f"its {self.num_attention_heads} heads of {self.head_dim} values are not {self.expand} times "
                f"hidden_size {self.hidden_size}"
            )


class Model(Decoder):
    """The weights of a Mamba-2 by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "backbone.embeddings.weight"
    RENAMED = {r"^backbone\.embedding\.": "backbone.embeddings."}  # noqa: RUF012

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = RMSNorm(weights, "backbone.norm_f", config.hidden_size, config.layer_norm_epsilon)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + state space(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: None) -> None:
        c, at = config, f"backbone.layers.{index}."
        self.norm = RMSNorm(weights, at + "norm", c.hidden_size, c.layer_norm_epsilon)
        name, bias, eps = at + "mixer", c.use_conv_bias, c.layer_norm_epsilon
        self.mixer = StateSpace(weights, name, index, c.hidden_size, c.sizes, conv_bias=bias, eps=eps)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        return ops.add(x, self.mixer(ops, self.norm(ops, x), batch))
