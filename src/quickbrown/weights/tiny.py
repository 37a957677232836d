"""Random weights for tests and measurements: no file, any size, any format."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from quickbrown.models.families import of_model_type
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import quantize
from quickbrown.quant.weight import Weight

TINY: dict[str, Any] = {  # those that a family has
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    "sliding_window": None,
}
_VECTORS = ("norm.weight", "bias")  # whatever axes they have


class TinySource:
    """A model of random weights. The same arguments give the same bytes; a weight does not depend on the others.

    format  of the embedding and the linear weights; norms, biases and filters are f32
    seed    of the random numbers
    config  fields of the family's Config, in the place of those of `TINY`, and `model_type`; head_dim, unless given,
            is hidden_size / num_attention_heads

    Raises ValueError for an unknown family, field or format, and for sizes that the format or the family cannot have.
    """

    def __init__(self, *, format: str = "f32", seed: int = 0, **config: Any) -> None:
        family = of_model_type(config.get("model_type", TINY["model_type"]))
        known = [field.name for field in dataclasses.fields(family.Config)]
        for name in config:
            if name not in known and name != "model_type":
                raise ValueError(f"unknown field {name!r} of {family.name}; known: {', '.join(known)}")
        given = TINY | config
        if family.Config.ROPES and "rope_parameters" not in config:
            given["rope_parameters"] = dict.fromkeys(family.Config.ROPES, TINY["rope_parameters"])
        if "head_dim" not in config:
            given["head_dim"] = given["hidden_size"] // given["num_attention_heads"]
        made = family.configure(given)
        self.config: dict[str, Any] = {"model_type": family.name}
        self.config |= {name: getattr(made, name) for name in known}
        if format not in FORMATS:
            raise ValueError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
        self._format = format
        self._seed = seed
        self._embedding = family.Model.EMBEDDING
        self._shapes = family.shapes(made)
        for name, shape in self._shapes.items():
            if self._is_encoded(name, shape):
                FORMATS[format].row_bytes(shape[-1])

    def names(self) -> list[str]:
        return list(self._shapes)

    def get(self, name: str) -> Weight:
        shape = self._shapes[name]
        draw = np.random.default_rng([self._seed, *name.encode()])
        values = draw.standard_normal(shape, np.float32)
        if name.endswith("bias"):
            return quantize(np.float32(0.3) * values, "f32")
        if name.endswith("A_log"):  # so slow that a text of some tokens is remembered
            return quantize(np.float32(0.5) * values - 2, "f32")
        if len(shape) == 1 or name.endswith(_VECTORS):
            return quantize(1 + np.float32(0.1) * values, "f32")
        # Linears strong enough that every layer moves the logits; the embedding may be the head too.
        spread = 0.3 if name == self._embedding else 0.5 * shape[-1] ** -0.5
        return quantize(np.float32(spread) * values, self._format if self._is_encoded(name, shape) else "f32")

    @staticmethod
    def _is_encoded(name: str, shape: tuple[int, ...]) -> bool:
        """Whether it is a matrix, or a stack of some; a filter of a convolution is (channels, 1, length)."""
        return len(shape) >= 2 and not name.endswith(_VECTORS) and not (len(shape) == 3 and shape[1] == 1)

    def release(self, name: str) -> None:
        """Nothing is kept, so there is nothing to let go."""
