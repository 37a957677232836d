"""StarCoder2: a Llama with layer norms, biases everywhere and an MLP without a gate (Lozhkov et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights, projections
from quickbrown.models.config import RopeConfig, all_heads, derived
from quickbrown.models.gguf import LAYER_NORM, TENSORS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """use_bias: whether all linears have biases. sliding_window: of every layer; None is none."""

    IDLE = {"hidden_act": ("gelu_pytorch_tanh", "gelu_new")}  # noqa: RUF012

    vocab_size: int = 49152
    hidden_size: int = 3072
    intermediate_size: int = 12288
    num_hidden_layers: int = 30
    num_attention_heads: int = 24
    num_key_value_heads: int = derived(all_heads, 2)
    max_position_embeddings: int = 4096
    norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    use_bias: bool = True
    sliding_window: int | None = None


_MLP = {"blk.{}.ffn_up": "model.layers.{}.mlp.c_fc", "blk.{}.ffn_down": "model.layers.{}.mlp.c_proj"}
# The window of a model is not in its file, and other readers of these files have none either.
GGUF = Gguf(
    settings=LAYER_NORM | {"attention.layer_norm_epsilon": "norm_epsilon"},
    tensors=TENSORS | _MLP,
    told={"use_bias": "blk.0.attn_q.bias"},
)


class Model(Decoder):
    """The weights of a StarCoder2 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "model.norm", config.hidden_size, config.norm_epsilon)
        super().__init__(config, weights, Layer, norm)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        hidden, inner = c.hidden_size, c.intermediate_size
        self.attention_norm = LayerNorm(weights, at + "input_layernorm", hidden, c.norm_epsilon)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.use_bias else "")
        self.attention = Attention(c, index, turn, c.sliding_window or 0)
        self.mlp_norm = LayerNorm(weights, at + "post_attention_layernorm", hidden, c.norm_epsilon)
        up = Linear(weights, at + "mlp.c_fc", inner, hidden, c.use_bias)
        self.mlp = MLP(up, Linear(weights, at + "mlp.c_proj", hidden, inner, c.use_bias), "gelu_tanh")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
