"""Weights: their names and shapes in Hugging Face checkpoints, and those of Llama in GGUF files, names and layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quickbrown.quant.formats import Bytes

_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_BACK = {hf: gguf for gguf, hf in _OUTER.items()}
_LAYER_BACK = {hf: gguf for gguf, hf in _LAYER.items()}
_GGUF_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.(\w+)\.weight", re.ASCII)
_HF_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,5})\.([\w.]+)\.weight", re.ASCII)


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight that a model of this config has, in the order of its forward pass."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    dim, family = config["head_dim"], config["model_type"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}

    def linear(name: str, outputs: int, inputs: int, bias: bool) -> None:
        found[name + ".weight"] = (outputs, inputs)
        if bias:
            found[name + ".bias"] = (outputs,)

    attention_bias, mlp_bias = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        found[at + "input_layernorm.weight"] = (hidden,)
        for name, outputs in (("q", q), ("k", kv), ("v", kv)):
            linear(at + f"self_attn.{name}_proj", outputs, hidden, attention_bias or family == "qwen2")
            if family == "qwen3" and name != "v":
                found[at + f"self_attn.{name}_norm.weight"] = (dim,)
        linear(at + "self_attn.o_proj", hidden, q, attention_bias)
        found[at + "post_attention_layernorm.weight"] = (hidden,)
        linear(at + "mlp.gate_proj", inner, hidden, mlp_bias)
        linear(at + "mlp.up_proj", inner, hidden, mlp_bias)
        linear(at + "mlp.down_proj", hidden, inner, mlp_bias)
    found["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (vocabulary, hidden)
    return found


def from_gguf(name: str) -> str | None:
    """Hugging Face's name of a GGUF tensor of Llama, or None for one that Llama does not have."""
    match = _GGUF_LAYER.fullmatch(name)
    if match is None:
        return _OUTER.get(name)
    part = _LAYER.get(match[2])
    return part and f"model.layers.{match[1]}.{part}.weight"


def to_gguf(name: str) -> str | None:
    """GGUF's name of a Hugging Face weight of Llama, or None for one that Llama does not have."""
    match = _HF_LAYER.fullmatch(name)
    if match is None:
        return _OUTER_BACK.get(name)
    part = _LAYER_BACK.get(match[2])
    return part and f"blk.{match[1]}.{part}.weight"


def halves(rows: Bytes, heads: int) -> Bytes:
    """Rows of attn_q or attn_k, (heads * D, bytes), from GGUF's order to Hugging Face's: a copy.

    GGUF keeps the two rows that rope rotates together side by side; Hugging Face keeps all first ones of a head, then
    all second ones. Rows move whole, so this works on encoded bytes of any format.
    """
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def pairs(rows: Bytes, heads: int) -> Bytes:
    """The inverse of `halves`: from Hugging Face's order to GGUF's."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
