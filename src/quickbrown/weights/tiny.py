"""Random weights for tests and measurements: no file, any size, any format."""

from __future__ import annotations

from typing import Any

import numpy as np

from quickbrown.quant.formats import FORMATS
from quickbrown.quant.quantize import quantize
from quickbrown.quant.weight import Weight
from quickbrown.weights.names import shapes

TINY: dict[str, Any] = {
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
}
OWN: dict[str, dict[str, Any]] = {  # fields that a family has besides
    "llama": {"attention_bias": False, "mlp_bias": False},
    "mistral": {"sliding_window": None},
    "qwen2": {"sliding_window": None, "layer_types": None},
    "qwen3": {"sliding_window": None, "layer_types": None, "attention_bias": False},
}


class TinySource:
    """A model of random weights. The same arguments give the same bytes; a weight does not depend on the others.

    format  of the embedding and the linear weights; norms and biases are f32
    seed    of the random numbers
    config  fields of `TINY` to change, and of what its family has in `OWN`; head_dim, unless given, is
            hidden_size / num_attention_heads, and every layer has full attention unless layer_types is given

    Raises ValueError for an unknown family, field or format, and for sizes that the format or the family cannot have.
    """

    def __init__(self, *, format: str = "f32", seed: int = 0, **config: Any) -> None:
        family = config.get("model_type", TINY["model_type"])
        if family not in OWN:
            raise ValueError(f"unknown family {family!r}; known: {', '.join(OWN)}")
        usual = TINY | OWN[family]
        for name in config:
            if name not in usual:
                raise ValueError(f"unknown field {name!r} of {family}; known: {', '.join(usual)}")
        self.config: dict[str, Any] = usual | config
        c = self.config
        if "head_dim" not in config:
            c["head_dim"] = c["hidden_size"] // c["num_attention_heads"]
        if "layer_types" in c:
            c["layer_types"] = tuple(c["layer_types"] or ["full_attention"] * c["num_hidden_layers"])
        if c["num_attention_heads"] % c["num_key_value_heads"] or c["head_dim"] % 2:
            raise ValueError("heads must divide by kv heads, and head_dim by 2")
        if format not in FORMATS:
            raise ValueError(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
        self._format = format
        self._seed = seed
        self._shapes = shapes(c)
        for shape in self._shapes.values():
            if len(shape) == 2:
                FORMATS[format].row_bytes(shape[1])

    def names(self) -> list[str]:
        return list(self._shapes)

    def get(self, name: str) -> Weight:
        shape = self._shapes[name]
        draw = np.random.default_rng([self._seed, *name.encode()])
        values = draw.standard_normal(shape, np.float32)
        if name.endswith(".bias"):
            return quantize(np.float32(0.3) * values, "f32")
        if len(shape) == 1:
            return quantize(1 + np.float32(0.1) * values, "f32")
        # Linears strong enough that every layer moves the logits; the embedding may be the head too.
        spread = 0.3 if name == "model.embed_tokens.weight" else 0.5 * shape[1] ** -0.5
        return quantize(np.float32(spread) * values, self._format)

    def release(self, name: str) -> None:
        """Nothing is kept, so there is nothing to let go."""
