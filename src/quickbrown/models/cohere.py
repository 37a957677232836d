"""Command R and Aya: attention and network side by side behind one layer norm without biases, heads that turn by
adjacent pairs, logits times a number (Cohere 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, LayerNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, RopeConfig
from quickbrown.models.gguf import HEAD_NORMS, SETTINGS, TENSORS, Gguf
from quickbrown.models.ops import Ops, W, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """attention_bias: whether q, k, v and o have biases; use_qk_norm: whether q and k are normalised, each head by a
    weight of its own; logit_scale: what logits are multiplied by."""

    IDLE = SILU
    THETA = 500000.0

    vocab_size: int = 256000
    hidden_size: int = 8192
    intermediate_size: int = 22528
    num_hidden_layers: int = 40
    num_attention_heads: int = 64
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    use_qk_norm: bool = False
    logit_scale: float = 0.0625


COHERE_SETTINGS = {key: field for key, field in SETTINGS.items() if field != "rms_norm_eps"} | {
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "logit_scale": "logit_scale",
}
COHERE_TENSORS = {name: published for name, published in TENSORS.items() if name != "blk.{}.ffn_norm"}
GGUF = Gguf(
    settings=COHERE_SETTINGS, tensors=COHERE_TENSORS | HEAD_NORMS, told={"use_qk_norm": "blk.0.attn_q_norm.weight"}
)


class CohereDecoder(Decoder):
    """A decoder of either Command R: a layer norm before the head, and logits times `logit_scale`."""

    INTERLEAVED = True

    def __init__(self, config: Any, weights: Weights, layer: Any) -> None:
        c = config
        super().__init__(c, weights, layer, LayerNorm(weights, "model.norm", c.hidden_size, c.layer_norm_eps, False))

    def logits(self, ops: Ops[X], x: X) -> X:
        return ops.scale(super().logits(ops, x), self.config.logit_scale)


class Model(CohereDecoder):
    """The weights of a Command R by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights, Layer)


class Layer:
    """x + attention(norm(x)) + mlp(norm(x)).

    turn, window  as `Attention` takes them
    """

    def __init__(self, config: Any, weights: Weights, index: int, turn: Rope | None, window: int = 0) -> None:
        c, at = config, f"model.layers.{index}."
        self.norm = LayerNorm(weights, at + "input_layernorm", c.hidden_size, c.layer_norm_eps, False)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkvo" if c.attention_bias else "")
        self.norms: list[W] = []
        if c.use_qk_norm:
            heads = {"q": c.num_attention_heads, "k": c.num_key_value_heads}
            self.norms = [weights.take(at + f"self_attn.{n}_norm.weight", heads[n], c.head_dim) for n in heads]
        self.eps = c.layer_norm_eps
        self.attention = Attention(c, index, turn, window)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.norm(ops, x)
        q, k = self.q(ops, h), self.k(ops, h)
        if self.norms:
            q_norm, k_norm = self.norms
            q = ops.layer_norm(q, q_norm, None, self.eps, q_norm.shape[0])
            k = ops.layer_norm(k, k_norm, None, self.eps, k_norm.shape[0])
        seen = self.attention(ops, q, k, self.v(ops, h), batch)
        return ops.add(ops.add(x, self.o(ops, seen)), self.mlp(ops, h))
