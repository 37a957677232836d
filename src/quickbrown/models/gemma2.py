"""Gemma 2: every second layer sees a window, scores and logits are capped, and each part of a layer is normalised
before and after (Gemma Team 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, GeGLU, RMSNorm, Weights, projections
from quickbrown.models.config import LayeredConfig, LayerType, PerLayer, all_heads, derived, equal_heads, every
from quickbrown.models.gemma import GemmaDecoder
from quickbrown.models.gguf import SETTINGS, TENSORS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


def scalar(c: Config) -> int:
    """What GGUF files do not say: it is the size of a head, but of the 27B, the one of 46 layers."""
    return c.hidden_size // c.num_attention_heads if c.num_hidden_layers == 46 else c.head_dim


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """attention_bias: whether q, k, v and o have biases.

    query_pre_attn_scalar    scores are divided by its root
    attn_logit_softcapping   what scores cannot exceed, and final_logit_softcapping logits; None for no limit
    """

    IDLE = {  # noqa: RUF012
        "hidden_activation": ("gelu_pytorch_tanh", "gelu_new"),
        "use_bidirectional_attention": (None, False),
    }

    vocab_size: int = 256000
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = derived(all_heads, 4)
    head_dim: int = derived(equal_heads, 256)
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    query_pre_attn_scalar: int = derived(scalar, 256)
    sliding_window: int | None = 4096
    layer_types: PerLayer[LayerType] = derived(lambda c: every(2, c.num_hidden_layers))
    final_logit_softcapping: float | None = 30.0
    attn_logit_softcapping: float | None = 50.0


SANDWICH = TENSORS | {  # of every Gemma from here on
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
GGUF = Gguf(
    settings=SETTINGS
    | {
        "attention.sliding_window": "sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    fixed={"query_pre_attn_scalar": None},
    tensors=SANDWICH,
    raised=("norm",),
)


class Model(GemmaDecoder):
    """The weights of a Gemma 2 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)

    def logits(self, ops: Ops[X], x: X) -> X:
        cap = self.config.final_logit_softcapping
        return super().logits(ops, x) if cap is None else ops.softcap(super().logits(ops, x), cap)


class Layer:
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x)))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm, self.attention_after, self.mlp_norm, self.mlp_after = (
            RMSNorm(weights, f"{at}{name}_layernorm", c.hidden_size, c.rms_norm_eps, 1, 1.0)
            for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")
        )
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        scale, softcap = c.query_pre_attn_scalar**-0.5, c.attn_logit_softcapping or 0.0
        self.attention = Attention(c, index, turn, c.window(index), scale=scale, softcap=softcap)
        self.mlp = GeGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.attention_after(ops, self.o(ops, h)))
        return ops.add(x, self.mlp_after(ops, self.mlp(ops, self.mlp_norm(ops, x))))
