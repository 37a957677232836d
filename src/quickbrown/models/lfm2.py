"""LFM2: short convolutions between gates in most layers, attention in the others (Liquid AI 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quickbrown.models.blocks import Attention, Decoder, Linear, RMSNorm, Weights, split
from quickbrown.models.config import Count, PerLayer, RopeConfig, all_heads, derived
from quickbrown.models.gguf import SETTINGS, Gguf, without
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


def attention_where_said(c: Config) -> tuple[str, ...]:
    return tuple("full_attention" if i in c.full_attn_idxs else "conv" for i in range(c.num_hidden_layers))


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """layer_types: of each layer, "conv" or "full_attention"; those of `full_attn_idxs`, or all, unless listed here.

    conv_L_cache  how many values a convolution sees, the own included
    conv_bias     whether convolutions have biases, and the linears around them
    block_...     how intermediate_size becomes the width of the network: with block_auto_adjust_ff_dim two thirds of
                  it, times the multiplier, up to a multiple
    """

    THETA = 1000000.0

    vocab_size: int = 65536
    hidden_size: int = 2560
    intermediate_size: int = 12288
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads, 8)
    max_position_embeddings: int = 128000
    norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    conv_bias: bool = False
    conv_L_cache: int = 3
    block_multiple_of: int = 256
    block_ffn_dim_multiplier: float | None = 1.0
    block_auto_adjust_ff_dim: bool = True
    full_attn_idxs: tuple[Count, ...] = derived(lambda c: tuple(range(c.num_hidden_layers)))
    layer_types: PerLayer[Literal["conv", "full_attention"]] = derived(attention_where_said)

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        older = {"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size"}
        return {**raw, **{name: raw[old] for old, name in older.items() if old in raw}}

    @property
    def kv_layers(self) -> tuple[int, ...]:
        return tuple(i for i, kind in enumerate(self.layer_types) if kind == "full_attention")

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size * (self.conv_L_cache - 1),) * self.layer_types.count("conv")

    @property
    def inner(self) -> int:
        """The width of the network."""
        width = self.intermediate_size
        if self.block_auto_adjust_ff_dim:
            width = int(2 * width / 3)
            if self.block_ffn_dim_multiplier is not None:
                width = int(self.block_ffn_dim_multiplier * width)
                width = -(-width // self.block_multiple_of) * self.block_multiple_of
        return width

    def check(self) -> None:
        super().check()
        if self.conv_L_cache < 2:
            raise ValueError("its convolutions see one value only; conv_L_cache must be 2 or more")
        if self.inner < 1:
            raise ValueError(f"its intermediate_size {self.intermediate_size} leaves nothing for its networks")


GGUF = Gguf(
    settings=without(SETTINGS, "attention.head_count_kv")
    | {"attention.layer_norm_rms_epsilon": "norm_eps", "shortconv.l_cache": "conv_L_cache"},
    fixed={"block_auto_adjust_ff_dim": False},
    keyless="conv",
    squeezed=("conv.conv",),
    tensors={
        "token_embd": "model.embed_tokens",
        "token_embd_norm": "model.embedding_norm",
        "output": "lm_head",
        "blk.{}.attn_norm": "model.layers.{}.operator_norm",
        "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
        "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
        "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
        "blk.{}.attn_output": "model.layers.{}.self_attn.out_proj",
        "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_layernorm",
        "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_layernorm",
        "blk.{}.shortconv.conv": "model.layers.{}.conv.conv",
        "blk.{}.shortconv.in_proj": "model.layers.{}.conv.in_proj",
        "blk.{}.shortconv.out_proj": "model.layers.{}.conv.out_proj",
        "blk.{}.ffn_norm": "model.layers.{}.ffn_norm",
        "blk.{}.ffn_gate": "model.layers.{}.feed_forward.w1",
        "blk.{}.ffn_up": "model.layers.{}.feed_forward.w3",
        "blk.{}.ffn_down": "model.layers.{}.feed_forward.w2",
    },
)


class Model(Decoder):
    """The weights of an LFM2 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = RMSNorm(weights, "model.embedding_norm", config.hidden_size, config.norm_eps)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + attention(norm(x)) or x + conv(norm(x)), then x + network(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.mixer_norm = RMSNorm(weights, at + "operator_norm", c.hidden_size, c.norm_eps)
        self.mixer: Attending | Convolving
        if c.layer_types[index] == "conv":
            self.mixer = Convolving(c, weights, at + "conv", index)
        else:
            self.mixer = Attending(c, weights, at + "self_attn", index, turn)
        self.network_norm = RMSNorm(weights, at + "ffn_norm", c.hidden_size, c.norm_eps)
        self.gate = Linear(weights, at + "feed_forward.w1", c.inner, c.hidden_size)
        self.up = Linear(weights, at + "feed_forward.w3", c.inner, c.hidden_size)
        self.down = Linear(weights, at + "feed_forward.w2", c.hidden_size, c.inner)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        x = ops.add(x, self.mixer(ops, self.mixer_norm(ops, x), batch))
        h = self.network_norm(ops, x)
        return ops.add(x, self.down(ops, ops.gated(self.gate(ops, h), self.up(ops, h), "silu")))


class Attending:
    """Attention whose queries and keys are normalised head by head."""

    def __init__(self, config: Config, weights: Weights, name: str, index: int, turn: Rope) -> None:
        c, hidden, heads, kv_heads = config, config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.q = Linear(weights, name + ".q_proj", heads * c.head_dim, hidden)
        self.k = Linear(weights, name + ".k_proj", kv_heads * c.head_dim, hidden)
        self.v = Linear(weights, name + ".v_proj", kv_heads * c.head_dim, hidden)
        self.o = Linear(weights, name + ".out_proj", hidden, heads * c.head_dim)
        self.q_norm = RMSNorm(weights, name + ".q_layernorm", c.head_dim, c.norm_eps, heads)
        self.k_norm = RMSNorm(weights, name + ".k_layernorm", c.head_dim, c.norm_eps, kv_heads)
        self.attention = Attention(c, index, turn)

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        q, k = self.q_norm(ops, self.q(ops, x)), self.k_norm(ops, self.k(ops, x))
        return self.o(ops, self.attention(ops, q, k, self.v(ops, x), batch))


class Convolving:
    """after * conv(before * value), of three linears of x, and a linear."""

    def __init__(self, config: Config, weights: Weights, name: str, index: int) -> None:
        c, hidden = config, config.hidden_size
        self.before, self.after, self.value = split(weights, name + ".in_proj", (hidden,) * 3, hidden, c.conv_bias)
        self.filter = weights.take(name + ".conv.weight", hidden, 1, c.conv_L_cache)
        self.bias = weights.take(name + ".conv.bias", hidden) if c.conv_bias else None
        self.out = Linear(weights, name + ".out_proj", hidden, hidden, c.conv_bias)
        self.index = index

    def __call__(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = ops.multiply(self.before(ops, x), self.value(ops, x))
        h = ops.short_conv(self.index, h, self.filter, self.bias, batch)
        return self.out(ops, ops.multiply(self.after(ops, x), h))
