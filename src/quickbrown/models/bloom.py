"""BLOOM: layer norms, biases, and ALiBi in the place of positions (BigScience Workshop 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.alibi import slopes
from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights, by_key_head
from quickbrown.models.config import Config as Base
from quickbrown.models.gguf import LAYER_NORM, Gguf, without
from quickbrown.models.ops import Ops, X


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    ALIASES = {  # noqa: RUF012
        "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "max_position_embeddings": "seq_length",
    }  # fmt: skip
    IDLE = {"apply_residual_connection_post_layernorm": (False,)}  # noqa: RUF012

    vocab_size: int = 250880
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    max_position_embeddings: int = 2048
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """n_embed is an older name."""
        return {**raw, "hidden_size": raw["n_embed"]} if raw.get("n_embed") is not None else raw

    def settle(self) -> None:
        super().settle()
        self.settle_heads()

    @property
    def inner(self) -> int:
        """Of the MLP."""
        return 4 * self.hidden_size


_AT = "transformer.h.{}."
GGUF = Gguf(
    settings=without(LAYER_NORM, "attention.head_count_kv", "feed_forward_length", "rope.freq_base")
    | {"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    equal={
        "attention.value_length": "head_dim",
        "attention.head_count_kv": "num_attention_heads",
        "feed_forward_length": "inner",
    },
    tensors={
        "token_embd": "transformer.word_embeddings",
        "token_embd_norm": "transformer.word_embeddings_layernorm",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
        "blk.{}.attn_norm": _AT + "input_layernorm",
        "blk.{}.attn_qkv": _AT + "self_attention.query_key_value",
        "blk.{}.attn_output": _AT + "self_attention.dense",
        "blk.{}.ffn_norm": _AT + "post_attention_layernorm",
        "blk.{}.ffn_up": _AT + "mlp.dense_h_to_4h",
        "blk.{}.ffn_down": _AT + "mlp.dense_4h_to_h",
    },
    fused=("query_key_value",),
)


class Model(Decoder):
    """The weights of a BLOOM by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "transformer.word_embeddings.weight"
    RENAMED = {r"^(word_embeddings|word_embeddings_layernorm|h|ln_f)\.": r"transformer.\1."}  # noqa: RUF012

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "transformer.ln_f", config.hidden_size, config.layer_norm_epsilon)
        super().__init__(config, weights, Layer, norm)
        sizes = config.hidden_size, config.layer_norm_epsilon
        self.embedding_norm = LayerNorm(weights, "transformer.word_embeddings_layernorm", *sizes)

    def embed(self, ops: Ops[X], tokens: X) -> X:
        return self.embedding_norm(ops, ops.embed(self.embedding, tokens))


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: None) -> None:
        c, at = config, f"transformer.h.{index}."
        hidden, inner = c.hidden_size, c.inner
        self.attention_norm = LayerNorm(weights, at + "input_layernorm", hidden, c.layer_norm_epsilon)
        self.q, self.k, self.v = by_key_head(weights, at + "self_attention.query_key_value", c, True)
        self.attention = Attention(c, index, turn, slopes=slopes(c.num_attention_heads))
        self.o = Linear(weights, at + "self_attention.dense", hidden, hidden, True)
        self.mlp_norm = LayerNorm(weights, at + "post_attention_layernorm", hidden, c.layer_norm_epsilon)
        up = Linear(weights, at + "mlp.dense_h_to_4h", inner, hidden, True)
        self.mlp = MLP(up, Linear(weights, at + "mlp.dense_4h_to_h", hidden, inner, True), "gelu_tanh")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
