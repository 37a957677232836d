"""Qwen3.5, its text: gated delta networks in three layers of four, attention through a gate in the fourth
(Qwen Team 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quickbrown.models.blocks import Decoder, Linear, RMSNorm, Weights
from quickbrown.models.qwen3_next import DeltaConfig, DeltaLayer

SECTIONS = ("mrope_section", "mrope_interleaved")  # of rope_parameters


@dataclass(frozen=True, kw_only=True)
class Config(DeltaConfig):
    """As `DeltaConfig` says."""

    TEXT = "text_config"

    vocab_size: int = 248320
    hidden_size: int = 4096
    intermediate_size: int = 12288
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    num_key_value_heads: int = 4

    @classmethod
    def published(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Pairs of a head turn by positions in time, height and width, which are the same for texts."""
        fields = dict(super().published(raw))
        for name in ("rope_parameters", "rope_scaling"):
            if isinstance(turn := fields.get(name), dict):
                fields[name] = {key: value for key, value in turn.items() if key not in SECTIONS}
        return fields


class Model(Decoder):
    """The weights of a Qwen3.5 by their published names, and its forward pass over the verbs of `models.ops`."""

    RENAMED = {r"^model\.language_model\.": "model."}  # noqa: RUF012
    UNREAD = (r"mtp\..*", r"model\.visual\..*")

    config: Config

    def __init__(self, config: Config, weights: Weights) -> None:
        norm = RMSNorm(weights, "model.norm", config.hidden_size, config.rms_norm_eps, 1, 1.0)
        super().__init__(config, weights, Layer, norm)


def separate(config: DeltaConfig, weights: Weights, name: str) -> tuple[Linear, Linear, Linear, Linear]:
    """[q | k | v], z, b and a of a delta network."""
    c, heads = config, config.linear_num_value_heads
    sizes = {"qkv": 2 * c.keys + c.values, "z": c.values, "b": heads, "a": heads}
    qkv, z, b, a = (Linear(weights, f"{name}.in_proj_{part}", size, c.hidden_size) for part, size in sizes.items())
    return qkv, z, b, a


class Layer(DeltaLayer):
    """x + mixer(norm(x)), then x + network(norm(x))."""

    linears = staticmethod(separate)
