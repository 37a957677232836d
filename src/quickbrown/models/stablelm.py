"""StableLM: a Llama with layer norms, in which a part of each head turns (Bellagente et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Attention, Decoder, LayerNorm, SwiGLU, Weights, projections
from quickbrown.models.config import SILU, RopeConfig, all_heads, derived
from quickbrown.models.gguf import LAYER_NORM, TENSORS, Gguf
from quickbrown.models.ops import Ops, X
from quickbrown.models.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Config(RopeConfig):
    """use_qkv_bias: whether q, k and v have biases. qk_layernorm: whether each head of q and k is normalised, with
    weights of its own. use_parallel_residual: whether the MLP reads what attention reads, not what it gives.
    """

    IDLE = SILU
    PART = 0.25

    vocab_size: int = 50304
    hidden_size: int = 2560
    intermediate_size: int = 6912
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = derived(all_heads, 32)
    max_position_embeddings: int = 4096
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    use_qkv_bias: bool = False
    qk_layernorm: bool = False
    use_parallel_residual: bool = False


GGUF = Gguf(
    settings=LAYER_NORM,
    equal={"attention.value_length": "head_dim"},
    tensors=TENSORS
    | {
        "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_layernorm.norms.{}",
        "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_layernorm.norms.{}",
    },
    told={
        "use_qkv_bias": "blk.0.attn_q.bias",
        "qk_layernorm": "blk.0.attn_q_norm.weight",
        "use_parallel_residual": ("blk.0.ffn_norm.weight", False, True),
    },
    unread=("use_parallel_residual",),  # files say true where config.json says nothing, which means false
    partial=True,
)


class Model(Decoder):
    """The weights of a StableLM by their published names, and its forward pass over the verbs of `models.ops`."""

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "model.norm", config.hidden_size, config.layer_norm_eps)
        super().__init__(config, weights, Layer, norm)


class HeadNorm(LayerNorm):
    """A layer norm of each head, without biases: every head has weights of its own, published apart."""

    def __init__(self, weights: Weights, name: str, width: int, eps: float, heads: int) -> None:
        first, *others = (weights.take(f"{name}.norms.{i}.weight", width) for i in range(heads))
        self.weight, self.bias, self.eps, self.heads = first.stacked(others), None, eps, heads


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x)); in parallel, x + attention(h) + mlp(h) of h = norm(x)."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: Rope) -> None:
        c, at = config, f"model.layers.{index}."
        self.attention_norm = LayerNorm(weights, at + "input_layernorm", c.hidden_size, c.layer_norm_eps)
        self.q, self.k, self.v, self.o = projections(weights, at + "self_attn", c, "qkv" if c.use_qkv_bias else "")
        self.q_norm = self.k_norm = None
        if c.qk_layernorm:
            sizes = c.head_dim, c.layer_norm_eps
            self.q_norm = HeadNorm(weights, at + "self_attn.q_layernorm", *sizes, c.num_attention_heads)
            self.k_norm = HeadNorm(weights, at + "self_attn.k_layernorm", *sizes, c.num_key_value_heads)
        self.attention = Attention(c, index, turn)
        self.mlp_norm = None
        if not c.use_parallel_residual:
            self.mlp_norm = LayerNorm(weights, at + "post_attention_layernorm", c.hidden_size, c.layer_norm_eps)
        self.mlp = SwiGLU(weights, at + "mlp", c.hidden_size, c.intermediate_size)

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        q, k = self.q(ops, h), self.k(ops, h)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(ops, q), self.k_norm(ops, k)
        x = ops.add(x, self.o(ops, self.attention(ops, q, k, self.v(ops, h), batch)))
        if self.mlp_norm is not None:
            h = self.mlp_norm(ops, x)
        return ops.add(x, self.mlp(ops, h))
