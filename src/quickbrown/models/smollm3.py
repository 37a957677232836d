"""SmolLM3: a Llama in which every fourth layer does not rotate (Bakouch et al. 2025; Yang et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, RMSNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, Count, LayeredConfig, LayerType, PerLayer, all_heads, derived
from quickbrown.models.gguf import PERMUTED, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


def every_fourth(c: Config) -> tuple[int, ...]:
    return tuple(int((i + 1) % c.no_rope_layer_interval != 0) for i in range(c.num_hidden_layers))


def windows_without_rope(c: Config) -> tuple[str, ...]:
    windowed = c.use_sliding_window and c.sliding_window is not None
    return tuple("sliding_attention" if windowed and not turns else "full_attention" for turns in c.no_rope_layers)


@dataclass(frozen=True, kw_only=True)
class Config(LayeredConfig):
    """no_rope_layers: of each layer, 1 if it rotates, 0 if not; every `no_rope_layer_interval`-th does not, unless
    listed. attention_bias, mlp_bias: whether q, k, v and o have biases, and gate, up and down.
    """

    IDLE = SILU
    THETA = 2000000.0

    vocab_size: int = 128256
    hidden_size: int = 2048
    intermediate_size: int = 11008
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_key_value_heads: int = derived(all_heads, 4)
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    no_rope_layer_interval: int = 4
    no_rope_layers: PerLayer[Count] = derived(every_fourth)
    layer_types: PerLayer[LayerType] = derived(windows_without_rope)

    def check(self) -> None:
        super().check()
        if "sliding_attention" in self.layer_types and not self.use_sliding_window:
            raise ValueError("layer_types has 'sliding_attention' without use_sliding_window")


GGUF = Gguf(permuted=PERMUTED)


class Model(Decoder):
    """The weights of a SmolLM3 by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = RMSNorm(weights, at + "input_layernorm", c.hidden_size, c.rms_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.attention = Attention(c, index, turn if c.no_rope_layers[index] else None, c.window(index))
        self.mlp_norm = RMSNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.rms_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size, c.mlp_bias)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
