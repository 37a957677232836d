"""Command R7B and Command A: a Command R in which three layers of four see a window, and the others do not turn (Cohere
2025)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from quickbrown.models import cohere
from quickbrown.models.blocks import Weights
from quickbrown.models.config import SILU, LayeredConfig, LayerType, PerLayer, derived, every, patterned
from quickbrown.models.gguf import Gguf
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """attention_bias: whether q, k, v and o have biases; logit_scale: what logits are multiplied by."""

    IDLE = SILU | {"use_qk_norm": (False, None), "rotary_pct": (1.0,)}
    use_qk_norm: ClassVar[bool] = False

    vocab_size: int = 256000
    hidden_size: int = 8192
    intermediate_size: int = 22528
    num_hidden_layers: int = 40
    num_attention_heads: int = 64
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    logit_scale: float = 0.0625
    sliding_window: int | None = 4096
    layer_types: PerLayer[LayerType] = derived(lambda c: every(4, c.num_hidden_layers))

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return patterned(raw, 40)

    def settle(self) -> None:
        """Heads are always equal parts of the hidden size."""
        self.set("head_dim", None)


GGUF = Gguf(
    settings=cohere.COHERE_SETTINGS | {"attention.sliding_window": "sliding_window"}, tensors=cohere.COHERE_TENSORS
)


class Model(cohere.CohereDecoder):
    """The weights of a Command R7B by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, layer)


def layer(config: Config, weights: Weights, index: int, turn: Rope) -> cohere.Layer:
    window = config.window(index)
    return cohere.Layer(config, weights, index, turn if window else None, window)
