"""GPT-J: attention and the MLP read one norm; adjacent values of a part of each head turn (Wang & Komatsuzaki 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights
from quickbrown.models.config import Config as Base
from quickbrown.models.config import derived
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    """rotary_dim: how many values of a head turn; None is all. n_inner: of the MLP; None is four times hidden_size."""

    ALIASES = {  # noqa: RUF012
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    }  # fmt: skip
    IDLE = {"activation_function": ("gelu_new", "gelu_pytorch_tanh")}  # noqa: RUF012

    vocab_size: int = 50400
    hidden_size: int = 4096
    n_inner: int = derived(lambda c: 4 * c.hidden_size)
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    rotary_dim: int = derived(lambda c: c.head_dim, 64)
    max_position_embeddings: int = 2048
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = False

    @property
    def rope_parameters(self) -> Mapping[str, Any]:
        return {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": self.rotary_dim / self.head_dim}

    def settle(self) -> None:
        super().settle()
        self.settle_heads()

    def check(self) -> None:
        super().check()
        if self.rotary_dim > self.head_dim or self.rotary_dim % 2:
            raise ValueError(f"rotary_dim is {self.rotary_dim}, of heads of {self.head_dim} values; an even part turns")


class Model(Decoder):
    """The weights of a GPT-J by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "transformer.wte.weight"
    INTERLEAVED = True
    UNREAD = (r".*\.attn\.(bias|masked_bias)",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "transformer.ln_f", config.hidden_size, config.layer_norm_epsilon)
        super().__init__(config, weights, Layer, norm)
        self.bias = weights.take("lm_head.bias", config.vocab_size)

    def logits(self, ops: Ops[X], x: X) -> X:
        return ops.linear(x, self.head, self.bias)


class Layer:
    """x + attention(h) + mlp(h) of h = norm(x)."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"transformer.h.{index}."
        hidden = c.hidden_size
        self.norm = LayerNorm(weights, at + "ln_1", hidden, c.layer_norm_epsilon)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.q, self.k, self.v, self.o = (Linear(weights, f"{at}attn.{name}", hidden, hidden) for name in names)
        self.attention = Attention(c, index, turn)
        up = Linear(weights, at + "mlp.fc_in", c.n_inner, hidden, True)
        self.mlp = MLP(up, Linear(weights, at + "mlp.fc_out", hidden, c.n_inner, True), "gelu_tanh")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.norm(ops, x)
        attended = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        return ops.add(ops.add(x, self.o(ops, attended)), self.mlp(ops, h))
