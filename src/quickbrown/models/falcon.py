"""Falcon: q, k and v are one weight, key head by key head, and attention and the MLP read the same input (Almazrouei et
al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.alibi import slopes
from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights, by_key_head
from quickbrown.models.config import RopeConfig, all_heads, derived
from quickbrown.models.gguf import LAYER_NORM, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """alibi: in the place of rotation; bias: whether all linears have biases.

    new_decoder_architecture  whether num_kv_heads counts; if not there is one key head, or with multi_query false as
                              many as heads. None, as GGUF files leave it: whether there are several key heads
    parallel_attn             whether the MLP reads what attention reads, and not what it gives
    num_ln_in_parallel_attn   whether it has a norm of its own then (2) or not (1)
    """

    ALIASES = {"num_key_value_heads": "num_kv_heads"}  # noqa: RUF012
    IDLE = {"activation": ("gelu",)}  # noqa: RUF012

    vocab_size: int = 65024
    hidden_size: int = 4544
    ffn_hidden_size: int = derived(lambda c: 4 * c.hidden_size)
    num_hidden_layers: int = 32
    num_attention_heads: int = 71
    num_key_value_heads: int = derived(all_heads)
    max_position_embeddings: int = 2048
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    alibi: bool = False
    new_decoder_architecture: bool | None = False
    multi_query: bool = True
    parallel_attn: bool = True
    bias: bool = False
    num_ln_in_parallel_attn: int = derived(lambda c: 2 if c.new_decoder_architecture else 1)

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """n_embed is an older name; a new_decoder_architecture of null is false."""
        raw = {**raw, "new_decoder_architecture": False} if raw.get("new_decoder_architecture", 0) is None else raw
        return {**raw, "hidden_size": raw["n_embed"]} if raw.get("n_embed") is not None else raw

    def settle(self) -> None:
        super().settle()
        self.set("head_dim", None)
        if self.new_decoder_architecture is None:
            self.set("new_decoder_architecture", (self.num_key_value_heads or 1) > 1)
        if not self.new_decoder_architecture:
            self.set("num_key_value_heads", 1 if self.multi_query else self.num_attention_heads)

    def check(self) -> None:
        super().check()
        if self.new_decoder_architecture and not self.parallel_attn:
            raise ValueError("new_decoder_architecture needs parallel_attn")
        allowed = (1, 2) if self.new_decoder_architecture else (1,)
        if self.parallel_attn and self.num_ln_in_parallel_attn not in allowed:
            raise ValueError(f"num_ln_in_parallel_attn is {self.num_ln_in_parallel_attn}; {allowed[-1]} is supported")


GGUF = Gguf(
    settings=LAYER_NORM
    | {"attention.layer_norm_epsilon": "layer_norm_epsilon", "feed_forward_length": "ffn_hidden_size"},
    fixed={"new_decoder_architecture": None},
    tensors={
        "token_embd": "transformer.word_embeddings",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
        "blk.{}.attn_norm": "transformer.h.{}.input_layernorm",
        "blk.{}.attn_norm_2": "transformer.h.{}.ln_attn",
        "blk.{}.attn_qkv": "transformer.h.{}.self_attention.query_key_value",
        "blk.{}.attn_output": "transformer.h.{}.self_attention.dense",
        "blk.{}.ffn_up": "transformer.h.{}.mlp.dense_h_to_4h",
        "blk.{}.ffn_down": "transformer.h.{}.mlp.dense_4h_to_h",
    },
    also={"transformer.h.{}.ln_mlp": "blk.{}.attn_norm"},
    fused=("query_key_value",),
    told={"num_ln_in_parallel_attn": ("blk.0.attn_norm_2.weight", 2, 1)},
)


def alibi(c: Config) -> list[float]:
    """Slopes as the model was trained with them, in bfloat16, on scores that are not scaled yet."""
    parts = map(math.frexp, slopes(c.num_attention_heads))
    return [math.ldexp(round(part * 256), power - 8) * c.head_dim**-0.5 for part, power in parts]


class Model(Decoder):
    """The weights of a Falcon by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "transformer.word_embeddings.weight"

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "transformer.ln_f", config.hidden_size, config.layer_norm_epsilon)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + attention(norm(x)) + mlp(the same or another norm(x)), or that of x + attention(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"transformer.h.{index}."
        hidden, inner = c.hidden_size, c.ffn_hidden_size
        names: tuple[str, ...] = ("input_layernorm",)
        if not c.parallel_attn:
            names = "input_layernorm", "post_attention_layernorm"
        elif c.num_ln_in_parallel_attn == 2:
            names = "ln_attn", "ln_mlp"
        norms = [LayerNorm(weights, at + name, hidden, c.layer_norm_epsilon) for name in names]
        self.parallel, self.attention_norm, self.mlp_norm = c.parallel_attn, norms[0], norms[-1]
        self.q, self.k, self.v = by_key_head(weights, at + "self_attention.query_key_value", c, c.bias)
        positions: dict[str, Any] = {"rope": None, "slopes": alibi(c)} if c.alibi else {"rope": turn}
        self.attention = Attention(c, index, **positions)
        self.o = Linear(weights, at + "self_attention.dense", hidden, hidden, c.bias)
        up = Linear(weights, at + "mlp.dense_h_to_4h", inner, hidden, c.bias)
        self.mlp = MLP(up, Linear(weights, at + "mlp.dense_4h_to_h", hidden, inner, c.bias), "gelu")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        attended = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        y = ops.add(x, self.o(ops, attended))
        if self.mlp_norm is not self.attention_norm:
            h = self.mlp_norm(ops, x if self.parallel else y)
        return ops.add(y, self.mlp(ops, h))
