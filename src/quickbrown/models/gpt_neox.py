"""GPT-NeoX, and Pythia: attention and the MLP read the same input, a part of each head turns (Black et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights, by_key_head
from quickbrown.models.config import RopeConfig
from quickbrown.models.gguf import LAYER_NORM, Gguf, without
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether the linears of attention have biases; those of the MLP do. use_parallel_residual: whether
    the MLP reads what attention reads, not what it gives.
    """

    IDLE = {"hidden_act": ("gelu",)}  # noqa: RUF012
    PART = 0.25

    vocab_size: int = 50432
    hidden_size: int = 6144
    intermediate_size: int = 24576
    num_hidden_layers: int = 44
    num_attention_heads: int = 64
    max_position_embeddings: int = 2048
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = True
    use_parallel_residual: bool = True

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """rotary_emb_base and rotary_pct are older names."""
        names = {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}
        return {names[name]: value for name, value in raw.items() if name in names} | {**raw}

    def settle(self) -> None:
        super().settle()
        self.settle_heads()


_AT = "gpt_neox.layers.{}."
GGUF = Gguf(
    settings=without(LAYER_NORM, "attention.head_count_kv") | {"use_parallel_residual": "use_parallel_residual"},
    equal={"attention.value_length": "head_dim", "attention.head_count_kv": "num_attention_heads"},
    tensors={
        "token_embd": "gpt_neox.embed_in",
        "output_norm": "gpt_neox.final_layer_norm",
        "output": "lm_head",
        "blk.{}.attn_norm": _AT + "input_layernorm",
        "blk.{}.attn_qkv": _AT + "attention.query_key_value",
        "blk.{}.attn_output": _AT + "attention.dense",
        "blk.{}.ffn_norm": _AT + "post_attention_layernorm",
        "blk.{}.ffn_up": _AT + "mlp.dense_h_to_4h",
        "blk.{}.ffn_down": _AT + "mlp.dense_4h_to_h",
    },
    fused=("query_key_value",),
    told={"attention_bias": "blk.0.attn_qkv.bias"},
    partial=True,
)


class Model(Decoder):
    """The weights of a GPT-NeoX by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "gpt_neox.embed_in.weight"
    RENAMED = {r"^embed_out\.": "lm_head."}  # noqa: RUF012
    UNREAD = (r".*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "gpt_neox.final_layer_norm", config.hidden_size, config.layer_norm_eps)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + attention(norm(x)) + mlp(other norm(x)), or that of x + attention(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"gpt_neox.layers.{index}."
        hidden, inner = c.hidden_size, c.intermediate_size
        self.parallel = c.use_parallel_residual
        self.attention_norm = LayerNorm(weights, at + "input_layernorm", hidden, c.layer_norm_eps)
        self.q, self.k, self.v = by_key_head(weights, at + "attention.query_key_value", c, c.attention_bias)
        self.attention = Attention(c, index, turn)
        self.o = Linear(weights, at + "attention.dense", hidden, hidden, c.attention_bias)
        self.mlp_norm = LayerNorm(weights, at + "post_attention_layernorm", hidden, c.layer_norm_eps)
        up = Linear(weights, at + "mlp.dense_h_to_4h", inner, hidden, True)
        self.mlp = MLP(up, Linear(weights, at + "mlp.dense_4h_to_h", hidden, inner, True), "gelu")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        y = ops.add(x, self.o(ops, h))
        return ops.add(y, self.mlp(ops, self.mlp_norm(ops, x if self.parallel else y)))
