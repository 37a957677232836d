"""OLMo 3: an OLMo 2 in which three layers of four see a window, and full attention turns in a way of its own (OLMo
Team 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models import olmo2
from quickbrown.models.blocks import Decoder, Weights
from quickbrown.models.config import SILU, LayeredConfig, LayerType, PerLayer, by_type, derived, every
from quickbrown.models.gguf import SETTINGS, Gguf
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """attention_bias: whether q, k, v and o have biases."""

    IDLE = SILU
    ROPES = ("full_attention", "sliding_attention")

    vocab_size: int = 50304
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    sliding_window: int | None = 4096
    layer_types: PerLayer[LayerType] = derived(lambda c: every(4, c.num_hidden_layers))

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return by_type(raw, full=500000.0, sliding=500000.0)

    def settle(self) -> None:
        """GGUF files have one theta, and what they say of stretching is of full attention."""
        super().settle()
        if "sliding_attention" not in self.rope_parameters:
            theta = self.rope_parameters["full_attention"]["rope_theta"]
            own = {"sliding_attention": {"rope_type": "default", "rope_theta": theta}}
            self.set("rope_parameters", {**self.rope_parameters, **own})


GGUF = Gguf(
    settings=SETTINGS
    | {
        "attention.sliding_window": "sliding_window",
        "attention.sliding_window_pattern": "layer_types",
        "rope.freq_base": "rope_parameters.full_attention.rope_theta",
    },
    tensors=olmo2.GGUF.tensors,
    scaled=True,
)


class Model(Decoder):
    """The weights of an OLMo 3 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, layer)


def layer(config: Config, weights: Weights, index: int, turn: Rope) -> olmo2.Layer:
    return olmo2.Layer(config, weights, index, turn, config.window(index))
