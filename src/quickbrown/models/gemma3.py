"""Gemma 3, its text: five layers of six see a window and turn faster; queries and keys of every head are normalised,
and scores not capped any more (Gemma Team 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, GeGLU, RMSNorm, Weights, projections
from quickbrown.models.config import (
    LayeredConfig,
    LayerType,
    PerLayer,
    all_heads,
    by_type,
    derived,
    equal_heads,
    every,
    patterned,
)
from quickbrown.models.gemma import GemmaDecoder
from quickbrown.models.gemma2 import SANDWICH
from quickbrown.models.gguf import HEAD_NORMS, IDLE, SETTINGS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


def scalar(c: Config) -> int:
    """What GGUF files do not say: it is the size of a head, but of the 27B, the one of 62 layers."""
    return c.hidden_size // c.num_attention_heads if c.num_hidden_layers == 62 else c.head_dim


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """attention_bias: whether q, k, v and o have biases.

    query_pre_attn_scalar    scores are divided by its root
    final_logit_softcapping  what logits cannot exceed; None for no limit
    """

    IDLE = {  # noqa: RUF012
        "hidden_activation": ("gelu_pytorch_tanh", "gelu_new"),
        "use_bidirectional_attention": (None, False),
    }
    TEXT = "text_config"
    ROPES = ("full_attention", "sliding_attention")

    vocab_size: int = 262208
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = derived(all_heads, 4)
    head_dim: int = derived(equal_heads, 256)
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    query_pre_attn_scalar: int = derived(scalar, 256)
    sliding_window: int | None = 4096
    layer_types: PerLayer[LayerType] = derived(lambda c: every(6, c.num_hidden_layers))
    final_logit_softcapping: float | None = None

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return by_type(patterned(raw, 26), full=1000000.0, sliding=10000.0)


# Positions of full attention may be closer together; those that are not are so 1 time.
GGUF = Gguf(
    settings={key: field for key, field in SETTINGS.items() if key != "rope.freq_base"}
    | {
        "attention.sliding_window": "sliding_window",
        "final_logit_softcapping": "final_logit_softcapping",
        "rope.freq_base": "rope_parameters.full_attention.rope_theta",
        "rope.freq_base_swa": "rope_parameters.sliding_attention.rope_theta",
        "rope.scaling.factor": "rope_parameters.full_attention.factor",
    },
    defaults={"rope.freq_base": 1000000.0, "rope.freq_base_swa": 10000.0, "rope.scaling.factor": 1.0},
    fixed={"query_pre_attn_scalar": None, "rope_parameters": {"full_attention": {"rope_type": "linear"}}},
    idle=IDLE | {"rope.scaling.type": "linear"},
    tensors=SANDWICH | HEAD_NORMS,
    raised=("norm",),
)


class Model(GemmaDecoder):
    """The weights of a Gemma 3 by their published names, and its forward pass over the verbs of `models.ops`."""

    RENAMED = {r"^model\.language_model\.": "model.", r"^language_model\.": ""}  # noqa: RUF012
    UNREAD = (r"(model\.)?(vision_tower|multi_modal_projector)\..*",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)

    def logits(self, ops: Ops[X], x: X) -> X:
        cap = self.config.final_logit_softcapping
        return super().logits(ops, x) if cap is None else ops.softcap(super().logits(ops, x), cap)


class Layer:
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))); q and k are normalised too, head by head."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm, self.attention_after, self.mlp_norm, self.mlp_after = (
            RMSNorm(weights, f"{at}{name}_layernorm", c.hidden_size, c.rms_norm_eps, 1, 1.0)
            for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")
        )
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        heads, kv_heads = c.num_attention_heads, c.num_key_value_heads
        self.q_norm = RMSNorm(weights, at + "self_attn.q_norm", c.head_dim, c.rms_norm_eps, heads, 1.0)
        self.k_norm = RMSNorm(weights, at + "self_attn.k_norm", c.head_dim, c.rms_norm_eps, kv_heads, 1.0)
        self.attention = Attention(c, index, turn, c.window(index), scale=c.query_pre_attn_scalar**-0.5)
        self.mlp = GeGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        q = self.q_norm(ops, self.q(ops, h))
        k = self.k_norm(ops, self.k(ops, h))
        h = self.attention(ops, q, k, self.v(ops, h), batch)
        x = ops.add(x, self.attention_after(ops, self.o(ops, h)))
        return ops.add(x, self.mlp_after(ops, self.mlp(ops, self.mlp_norm(ops, x))))
