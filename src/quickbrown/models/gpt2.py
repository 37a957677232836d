"""GPT-2: learned positions, layer norms, biases, and q, k and v in one weight (Radford et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import MLP, Attention, Decoder, LayerNorm, Linear, Weights, split
from quickbrown.models.config import Config as Base
from quickbrown.models.config import derived
from quickbrown.models.gguf import LAYER_NORM, Gguf, without
from quickbrown.models.ops import Ops, X


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    """n_inner: of the MLP; None is four times hidden_size."""

    ALIASES = {  # noqa: RUF012
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    }  # fmt: skip
    IDLE = {  # noqa: RUF012
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }  # fmt: skip

    vocab_size: int = 50257
    hidden_size: int = 768
    n_inner: int = derived(lambda c: 4 * c.hidden_size)
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 1024
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True

    def settle(self) -> None:
        super().settle()
        self.settle_heads()


_AT = "transformer.h.{}."
GGUF = Gguf(
    settings=without(LAYER_NORM, "attention.head_count_kv", "rope.freq_base")
    | {"attention.layer_norm_epsilon": "layer_norm_epsilon", "feed_forward_length": "n_inner"},
    equal={"attention.value_length": "head_dim", "attention.head_count_kv": "num_attention_heads"},
    tensors={
        "token_embd": "transformer.wte",
        "position_embd": "transformer.wpe",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
        "blk.{}.attn_norm": _AT + "ln_1",
        "blk.{}.attn_qkv": _AT + "attn.c_attn",
        "blk.{}.attn_output": _AT + "attn.c_proj",
        "blk.{}.ffn_norm": _AT + "ln_2",
        "blk.{}.ffn_up": _AT + "mlp.c_fc",
        "blk.{}.ffn_down": _AT + "mlp.c_proj",
    },
)


class Model(Decoder):
    """The weights of a GPT-2 by their published names, and its forward pass over the verbs of `models.ops`."""

    EMBEDDING = "transformer.wte.weight"
    RENAMED = {r"^(wte|wpe|h|ln_f)\.": r"transformer.\1."}  # noqa: RUF012
    UNREAD = (r".*\.attn\.(bias|masked_bias)",)
    INPUTS_FIRST = (r".*\.(c_attn|c_proj|c_fc)\.weight",)

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = LayerNorm(weights, "transformer.ln_f", config.hidden_size, config.layer_norm_epsilon)
        super().__init__(config, weights, Layer, norm)
        self.positions = weights.take("transformer.wpe.weight", config.max_position_embeddings, config.hidden_size)

    def forward(self, ops: Ops[X], tokens: X, batch: Any) -> X:
        x = ops.add(ops.embed(self.embedding, tokens), ops.positions(self.positions, batch))
        for layer in self.layers:
            x = layer.forward(ops, x, batch)
        return self.logits(ops, self.norm(ops, ops.rows(x, batch)))


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Weights, index: int, turn: None) -> None:
        c, at = config, f"transformer.h.{index}."
        hidden = c.hidden_size
        self.attention_norm = LayerNorm(weights, at + "ln_1", hidden, c.layer_norm_epsilon)
        self.q, self.k, self.v = split(weights, at + "attn.c_attn", (hidden, hidden, hidden), hidden, True)
        self.attention = Attention(c, index, turn)
        self.o = Linear(weights, at + "attn.c_proj", hidden, hidden, True)
        self.mlp_norm = LayerNorm(weights, at + "ln_2", hidden, c.layer_norm_epsilon)
        up = Linear(weights, at + "mlp.c_fc", c.n_inner, hidden, True)
        self.mlp = MLP(up, Linear(weights, at + "mlp.c_proj", hidden, c.n_inner, True), "gelu_tanh")

    def forward(self, ops: Ops[X], x: X, batch: Any) -> X:
        h = self.attention_norm(ops, x)
        h = self.attention(ops, self.q(ops, h), self.k(ops, h), self.v(ops, h), batch)
        x = ops.add(x, self.o(ops, h))
        return ops.add(x, self.mlp(ops, self.mlp_norm(ops, x)))
