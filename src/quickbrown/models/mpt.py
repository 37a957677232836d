"""MPT: layer norms without biases, and ALiBi in the place of positions (MosaicML 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.alibi import slopes
from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights, split
from quickbrown.models.config import Config as Base
from quickbrown.models.gguf import IDLE, LAYER_NORM, Gguf, without
from quickbrown.models.ops import Ops, X


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    ALIASES = {  # noqa: RUF012
        "hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "max_position_embeddings": "max_seq_len",
    }  # fmt: skip
    IDLE = {  # noqa: RUF012
        "expansion_ratio": (4,), "no_bias": (True,), "logit_scale": (None,), "norm_type": ("low_precision_layernorm",),
        "attn_type": ("multihead_attention",), "clip_qkv": (None,), "softmax_scale": (None,), "prefix_lm": (False,),
        "qk_ln": (False,), "alibi": (True,), "alibi_bias_max": (8,),
    }  # fmt: skip

    vocab_size: int = 50368
    hidden_size: int = 2048
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 2048
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """What attention does has an object of its own."""
        attention = raw.get("attn_config")
        if attention is not None and not isinstance(attention, dict):
            raise ValueError(f"attn_config must be an object, not {attention!r}")
        return {**raw, **(attention or {})}

    def settle(self) -> None:
        super().settle()
        self.settle_heads()

    @property
    def inner(self) -> int:
        """Of the MLP."""
        return 4 * self.hidden_size


_AT = "transformer.blocks.{}."
GGUF = Gguf(
    settings=without(LAYER_NORM, "attention.head_count_kv", "feed_forward_length", "rope.freq_base")
    | {"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    equal={
        "attention.value_length": "head_dim",
        "attention.head_count_kv": "num_attention_heads",
        "feed_forward_length": "inner",
    },
    idle=IDLE | {"attention.max_alibi_bias": 8.0},
    tensors={
        "token_embd": "transformer.wte",
        "output_norm": "transformer.norm_f",
        "output": "lm_head",
        "blk.{}.attn_norm": _AT + "norm_1",
        "blk.{}.attn_qkv": _AT + "attn.Wqkv",
        "blk.{}.attn_output": _AT + "attn.out_proj",
        "blk.{}.ffn_norm": _AT + "norm_2",
        "blk.{}.ffn_up": _AT + "ffn.up_proj",
        "blk.{}.ffn_down": _AT + "ffn.down_proj",
    },
)


class Model(Decoder):
    """The weights of an MPT by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "transformer.wte.weight"

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "transformer.norm_f", config.hidden_size, config.layer_norm_epsilon, False)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: None) -> None:
        c, at = config, f"transformer.blocks.{index}."
        hidden, inner = c.hidden_size, c.inner
        self.attention_norm = LayerNorm(weights, at + "norm_1", hidden, c.layer_norm_epsilon, False)
        self.q, self.k, self.v = split(weights, at + "attn.Wqkv", (hidden, hidden, hidden), hidden)
        self.attention = Attention(c, index, turn, slopes=slopes(c.num_attention_heads))
        self.o = Linear(weights, at + "attn.out_proj", hidden, hidden)
        self.mlp_norm = LayerNorm(weights, at + "norm_2", hidden, c.layer_norm_epsilon, False)
        up = Linear(weights, at + "ffn.up_proj", inner, hidden)
        self.mlp = MLP(up, Linear(weights, at + "ffn.down_proj", hidden, inner), "gelu")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
