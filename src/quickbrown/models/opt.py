"""OPT: learned positions, layer norms, biases and an MLP of ReLU (Zhang et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights
from quickbrown.models.config import Config as Base
from quickbrown.models.config import derived
from quickbrown.models.ops import Ops, X

OFFSET = 2  # of the table of positions: its first rows stand for none
EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    """do_layer_norm_before: whether a layer normalises what attention and the MLP read, or what it adds up.
    word_embed_proj_dim: of the tokens' vectors, where it is not hidden_size. enable_bias: whether linears have biases.
    """

    IDLE = {"activation_function": ("relu",), "layer_norm_elementwise_affine": (True,)}  # noqa: RUF012

    vocab_size: int = 50272
    hidden_size: int = 768
    ffn_dim: int = 3072
    word_embed_proj_dim: int = derived(lambda c: c.hidden_size)
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = True
    do_layer_norm_before: bool = True
    _remove_final_layer_norm: bool = False
    enable_bias: bool = True

    def settle(self) -> None:
        super().settle()
        self.settle_heads()


class Model(Decoder):
    """The weights of an OPT by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "model.decoder.embed_tokens.weight"
    RENAMED = {r"^decoder\.": "model.decoder."}  # noqa: RUF012

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        c, at, narrow = config, "model.decoder.", config.word_embed_proj_dim
        self.config, self.ropes = c, []
        self.embedding = weights.take(self.EMBEDDING, c.vocab_size, narrow)
        self.positions = weights.take(at + "embed_positions.weight", OFFSET + c.max_position_embeddings, c.hidden_size)
        self.project_in = self.project_out = None
        if narrow != c.hidden_size:
            self.project_in = Linear(weights, at + "project_in", c.hidden_size, narrow)
            self.project_out = Linear(weights, at + "project_out", narrow, c.hidden_size)
        self.layers = [Layer(c, weights, i) for i in range(c.num_hidden_layers)]
        self.last_norm = None
        if c.do_layer_norm_before and not c._remove_final_layer_norm:
            self.last_norm = LayerNorm(weights, at + "final_layer_norm", c.hidden_size, EPS)
        self.head = self.embedding if c.tie_word_embeddings else weights.take(self.HEAD, c.vocab_size, narrow)

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        x = ops.embed(self.embedding, tokens)
        if self.project_in is not None:
            x = self.project_in(ops, x)
        x = ops.add(x, ops.positions(self.positions, batch, OFFSET))
        for layer in self.layers:
            x = layer.forward(ops, x, batch)
        x = ops.rows(x, batch)
        if self.last_norm is not None:
            x = self.last_norm(ops, x)
        if self.project_out is not None:
            x = self.project_out(ops, x)
        return ops.linear(x, self.head)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x)); or norm(x + attention(x)), then norm(x + mlp(x))."""

    def __init__(self, config: Config, weights: Weights, index: int) -> None:
        c, at = config, f"model.decoder.layers.{index}."
        hidden, bias = c.hidden_size, c.enable_bias
        self.before = c.do_layer_norm_before
        self.attention_norm = LayerNorm(weights, at + "self_attn_layer_norm", hidden, EPS)
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.q, self.k, self.v, self.o = (
            Linear(weights, f"{at}self_attn.{name}", hidden, hidden, bias) for name in names
        )
        self.attention = Attention(c, index, None)
        self.mlp_norm = LayerNorm(weights, at + "final_layer_norm", hidden, EPS)
        up = Linear(weights, at + "fc1", c.ffn_dim, hidden, bias)
        self.mlp = MLP(up, Linear(weights, at + "fc2", hidden, c.ffn_dim, bias), "relu")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x) if self.before else x
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        if self.before:
            return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
        x = self.attention_norm(ops, x)
        return self.mlp_norm(ops, ops.add(x, self.mlp(ops, x)))
