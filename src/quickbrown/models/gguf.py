"""What a family says of GGUF files that hold it: plain data, and what most architectures share of it.

Names of settings and tensors are those of the GGUF specification and of the `gguf` package (MODEL_TENSORS, Keys).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SETTINGS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_parameters.rope_theta",
}


def without(table: Mapping[str, str], *names: str) -> dict[str, str]:
    """A table but for these entries."""
    return {name: value for name, value in table.items() if name not in names}


LAYER_NORM = without(SETTINGS, "attention.layer_norm_rms_epsilon") | {"attention.layer_norm_epsilon": "layer_norm_eps"}
EQUAL = {"attention.value_length": "head_dim", "rope.dimension_count": "head_dim"}
IDLE = {
    "attention.causal": True,
    "attention.sliding_window": 0,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scale_linear": 1.0,
}
TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}
HEAD_NORMS = {
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
}
PERMUTED = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """How GGUF files hold a family.

    settings  setting, without the architecture before it -> the field of `Config` that it is; "a.b" is entry b of the
              field a, a number. A setting must be there unless its field may be None, is derived or has a default here.
              The vocabulary's size and whether embeddings are tied follow from the tensors.
    defaults  setting -> what a missing one means
    fixed     field -> its value in every file of this architecture, where that is not the default of `Config`
    equal     setting -> field, where the file may repeat what that field says
    idle      settings of what is not honoured -> the one value that changes nothing
    tensors   tensor -> published name, without .weight or .bias, which both have unless the tensor's is there. {} is
              the layer. A second {} in the published name numbers the parts that the tensor has along its first axis:
              experts.
    also      published name -> tensor, where some models have another name for what the tensor holds
    joined    published name of a stack (experts, 2 R, ...), or of biases (experts, 2 R) -> the tensors, whole names, in
              which the file keeps the two halves of each expert; for the layer {}
    alternate whether the halves' rows alternate where they are published, or lie below each other
    permuted  end of a published name -> field with its number of heads: the file keeps the two rows that are rotated
              together side by side
    raised    ends of published names of norms whose weights, not biases, the file holds with 1 added
    fused     ends of published names of q, k and v in one, which the file holds as all of q, all of k, all of v:
              published are, key head by key head, the queries that read it, the key, the value
    keyless   type of the layers for which `attention.head_count_kv`, a list, says 0; the others are of full_attention,
              and what it says for them is num_key_value_heads
    squeezed  ends of published names of filters, (C, 1, L), which the file holds as (C, L)
    turning   entries of rope_parameters that the file does not say where rotations are stretched
    scaled    whether rope.scaling.attn_factor is all that yarn multiplies cos and sin by, and not what its own factor
              is multiplied by
    told      field -> the tensor by which a file tells it, true where it is there; or the tensor, and what the field is
              where it is there and where it is not
    unread    settings that may say anything
    ahead     whether `block_count` counts layers behind the last, so many as `nextn_predict_layers` says, that predict
              more tokens: they are passed over
    partial   whether `rope.dimension_count` says how many values of a head turn: partial_rotary_factor
    """

    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)
    defaults: Mapping[str, Any] = field(default_factory=lambda: {"rope.freq_base": 10000.0})
    fixed: Mapping[str, Any] = field(default_factory=dict)
    equal: Mapping[str, str] = field(default_factory=lambda: EQUAL)
    idle: Mapping[str, Any] = field(default_factory=lambda: IDLE)
    tensors: Mapping[str, str] = field(default_factory=lambda: TENSORS)
    also: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    alternate: bool = False
    permuted: Mapping[str, str] = field(default_factory=dict)
    raised: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    keyless: str | None = None
    squeezed: tuple[str, ...] = ()
    turning: Mapping[str, Any] = field(default_factory=dict)
    scaled: bool = False
    told: Mapping[str, str | tuple[str, Any, Any]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    ahead: bool = False
    partial: bool = False
