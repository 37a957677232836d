"""Transformers' side of a comparison: its model of the weights of a source, and how its float32 angles are rounded."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints import write_safetensors
from quickbrown.models.families import of_model_type

VISUAL = {
    "hidden_size": 32, "intermediate_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 64,
    "num_position_embeddings": 4,
}  # fmt: skip
# Of models that see, what they see with, as small as can be: texts do not need it. Their text's config lies inside
# theirs, and their weights have longer names.
SIGHT: dict[str, dict[str, Any]] = {
    "gemma3": {
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
    },
    "gemma4": {},
    "qwen3_5": {"vision_config": VISUAL},
    "qwen3_5_moe": {"vision_config": VISUAL},
}  # fmt: skip


def published(source: Any, fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """config.json of these fields of the text, and the published name of each weight of a source."""
    kind = source.config["model_type"]
    if kind not in SIGHT:
        return dict(fields), {name: name for name in source.names()}
    outside = {"model_type": kind, "tie_word_embeddings": fields["tie_word_embeddings"]} | SIGHT[kind]
    longer = {name: re.sub(r"^model\.", "model.language_model.", name) for name in source.names()}
    return outside | {"text_config": {**fields, "model_type": f"{kind}_text"}}, longer


def write_published(folder: Path, source: Any, fields: Mapping[str, Any] | None = None) -> None:
    """A checkpoint as transformers would read it.

    fields  of the text's config.json, where they are spelled otherwise than those of `source`
    """
    config, names = published(source, source.config if fields is None else fields)
    (folder / "config.json").write_text(json.dumps(config))
    values = {name: source.get(name).decode() for name in source.names()}
    for pattern in of_model_type(source.config["model_type"]).Model.INPUTS_FIRST:
        values |= {name: v.swapaxes(-1, -2) for name, v in values.items() if re.fullmatch(pattern, name)}
    tensors = {names[name]: ("F32", v.shape, v.tobytes()) for name, v in values.items()}
    write_safetensors(folder / "model.safetensors", tensors)


def model(source: Any) -> Any:
    """The causal language model of a `weights.source.Source`, in float32, with eager attention; but Falcon's, which
    counts ALiBi twice then. Needs torch.

    It reads a checkpoint, as it would a published one.
    """
    import torch
    import transformers

    family = of_model_type(source.config["model_type"])
    spelled = family.Config.ALIASES
    fields = {spelled.get(name, name): list(v) if isinstance(v, tuple) else v for name, v in source.config.items()}
    if isinstance(getattr(transformers.CONFIG_MAPPING[source.config["model_type"]], "head_dim", None), property):
        del fields["head_dim"]
    if "qk_rope_head_dim" in fields:  # theirs is the size of what turns
        fields["head_dim"] = fields["qk_rope_head_dim"]
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    with tempfile.TemporaryDirectory() as folder:
        write_published(Path(folder), source, fields | ends)
        attention = "sdpa" if source.config["model_type"] == "falcon" else "eager"
        made, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
        )
    unread = re.compile("|".join(family.Model.UNREAD) or r"(?!)")
    wrong = {kind: some for kind, of in found.items() if (some := [name for name in of if not unread.fullmatch(name)])}
    assert not wrong, wrong
    return made.eval()


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
    extra = {"default": 0, "linear": 1, "proportional": 1, "longrope": 2, "dynamic": 9, "yarn": ramp, "llama3": ramp}
    turning = int(head_dim * rope_parameters.get("partial_rotary_factor", 1))
    exponent = math.log(rope_parameters["rope_theta"]) if turning & (turning - 1) else 0
    return 4 + exponent + extra[rope_parameters["rope_type"]]


def steps(config: Any) -> float:
    """The same, of a family's config; 0 where nothing is rotated."""
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        return 0
    several = [parameters[kind] for kind in config.ROPES] or [parameters]
    return max(angle_steps(one, getattr(config, "qk_rope_head_dim", config.head_dim)) for one in several)


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
