"""Transformers' side of a comparison: its model of the weights of a source, and how its float32 angles are rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}


def model(source: Any) -> Any:
    """The causal language model of a `weights.source.Source`, in float32, with eager attention. Needs torch."""
    import torch
    import transformers

    fields = dict(source.config)
    name = NAMES[fields.pop("model_type")]
    if "layer_types" in fields:
        fields["layer_types"] = list(fields["layer_types"])
        fields["use_sliding_window"] = fields["sliding_window"] is not None
    fields["rope_parameters"] = dict(fields["rope_parameters"])
    config = getattr(transformers, f"{name}Config")(
        **fields, bos_token_id=None, eos_token_id=None, attn_implementation="eager"
    )
    made = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    weights = {n: torch.from_numpy(source.get(n).decode().copy()) for n in source.names()}
    found = made.load_state_dict(weights, strict=False)
    tied = {"lm_head.weight"} if source.config["tie_word_embeddings"] else set()
    assert not found.unexpected_keys, found
    assert set(found.missing_keys) <= tied, found
    return made


def logits(made: Any, tokens: Any) -> Any:
    """Of one text, (T, vocab_size) float32."""
    import torch

    with torch.no_grad():
        return made(torch.tensor(np.asarray(tokens)[None], dtype=torch.long)).logits[0].numpy()


def angle_steps(rope_parameters: Mapping[str, Any], head_dim: int) -> float:
    """How many roundings an angle of this type has gone through: what `rounding.rope` takes.

    A power (3) and the product with the position (1); where head_dim is no power of two, the rounded exponent counts
    log(theta) times. A quotient or two. NTK scaling computes theta in float32 first:
    two quotients, a difference, a power, a product, and a power of it feels each of them at most once. A ramp between a
    speed and one `factor` times slower is off by 6 roundings of 1, which move the slower one `factor` times as much.
    """
    factor = rope_parameters.get("factor") or 1
    ramp = 6 + 6 * factor
    extra = {"default": 0, "linear": 1, "longrope": 2, "dynamic": 9, "yarn": ramp, "llama3": ramp}
    exponent = math.log(rope_parameters["rope_theta"]) if head_dim & (head_dim - 1) else 0
    return 4 + exponent + extra[rope_parameters["rope_type"]]


def rotation(rope_parameters: Mapping[str, Any], head_dim: int, longest: int, length: int) -> tuple[Any, float]:
    """What transformers turns a text of this length by: (head_dim / 2,) float32, and the factor on cos and sin.

    longest  max_position_embeddings
    """
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=longest,
        rope_parameters=dict(rope_parameters),
    )
    module = LlamaRotaryEmbedding(config)
    module(torch.zeros(1), torch.tensor([[length - 1]]))
    return module.inv_freq.numpy().copy(), float(module.attention_scaling)
