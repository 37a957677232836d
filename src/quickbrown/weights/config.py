"""config.json of a Hugging Face checkpoint: what it says, and what it means for the mathematics.

Fields that are missing have the values that transformers gives them. The file is not trusted: every field that is read
is checked, and every fault is a `BadFile`. A field that would change the mathematics and is not honoured is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from quickbrown.weights.source import bad_file, read_json

CONFIG = "config.json"
_LARGEST = 1 << 24  # bytes of a config.json
_BIGGEST = 1 << 31  # of any size in a config: what int32 indices reach
_MOST_FACTORS = 1 << 16

# What a missing field means, by family.
_SHARED: dict[str, Any] = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "head_dim": None, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}  # fmt: skip
_LAYERED: dict[str, Any] = {
    "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None,
    "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "max_position_embeddings": 32768,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SHARED | {
        "vocab_size": 32000, "intermediate_size": 11008, "num_key_value_heads": None, "max_position_embeddings": 2048,
        "attention_bias": False, "mlp_bias": False,
    },
    "mistral": _SHARED | {
        "vocab_size": 32000, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "qwen2": _SHARED | _LAYERED,
    "qwen3": _SHARED | _LAYERED | {"head_dim": 128, "attention_bias": False},
}  # fmt: skip

# Fields of other models, or of other ways to run these, with the values that change nothing.
_IDLE: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"), "is_encoder_decoder": (False,), "add_cross_attention": (False,),
    "is_causal": (True,), "use_mrope": (False,), "per_layer_config": (None, {}), "quantization_config": (None,),
}  # fmt: skip
_ENCODER_DECODERS = (
    "t5", "mt5", "umt5", "longt5", "t5gemma", "t5gemma2", "switch_transformers", "bart", "mbart", "plbart", "mvp",
    "led", "bigbird_pegasus", "blenderbot", "blenderbot-small", "encoder-decoder", "fsmt", "m2m_100", "marian",
    "nllb-moe", "pegasus", "pegasus_x", "prophetnet", "whisper",
)  # fmt: skip


def raw_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a folder's config.json as they are. Raises BadFile, OSError where it cannot be opened."""
    path = Path(folder) / CONFIG
    if not path.exists():
        raise bad_file(folder, f"holds no {CONFIG}")
    return read_json(path, _LARGEST)


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields that the family of a folder's config.json reads, all of them, and `model_type`.

    Raises BadFile for a family that is not supported and for values that cannot be, OSError where the file cannot be
    opened.
    """
    return resolve(raw_config(folder), Path(folder) / CONFIG)


def resolve(raw: Mapping[str, Any], where: object) -> dict[str, Any]:
    """As `read_config`, of fields that were read; `where` is the file's name, for errors."""
    return _Reader(raw, where).config()


class _Reader:
    def __init__(self, raw: Mapping[str, Any], where: object) -> None:
        self.where = where
        self.raw = raw
        self.family = self._family()
        self.fields = FAMILIES[self.family] | dict(raw)

    def bad(self, what: str) -> NoReturn:
        raise bad_file(self.where, what)

    def _family(self) -> str:
        family, known = self.raw.get("model_type"), ", ".join(FAMILIES)
        if family is None:
            self.bad(f"has no model_type; the supported families are {known}")
        if family in _ENCODER_DECODERS or self.raw.get("is_encoder_decoder") is True:
            self.bad(
                f"is of an encoder-decoder ({family!r}), and only models that are decoders alone are read; "
                f"the supported families are {known}"
            )
        if not isinstance(family, str) or family not in FAMILIES:
            self.bad(f"is of a model of the family {family!r}; the supported families are {known}")
        return family

    def config(self) -> dict[str, Any]:
        self._refuse_unread()
        heads, hidden = self.size("num_attention_heads"), self.size("hidden_size")
        kv_heads = heads if self.fields["num_key_value_heads"] is None else self.size("num_key_value_heads")
        if heads % kv_heads:
            self.bad(f"its {heads} attention heads do not divide into {kv_heads} key-value heads")
        if self.fields["head_dim"] is None and hidden % heads:
            self.bad(f"its hidden size {hidden} does not divide into {heads} attention heads")
        head_dim = hidden // heads if self.fields["head_dim"] is None else self.size("head_dim")
        if head_dim % 2:
            self.bad(f"its heads have {head_dim} values, and rotary positions need an even number")
        found: dict[str, Any] = {
            "model_type": self.family,
            "hidden_size": hidden,
            "intermediate_size": self.size("intermediate_size"),
            "num_hidden_layers": self.size("num_hidden_layers"),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "vocab_size": self.size("vocab_size"),
            "max_position_embeddings": self.size("max_position_embeddings"),
            "rms_norm_eps": self.positive("rms_norm_eps", self.fields["rms_norm_eps"]),
            "rope_parameters": self._rope(),
            "tie_word_embeddings": self.flag("tie_word_embeddings"),
        }
        found |= {name: self.flag(name) for name in ("attention_bias", "mlp_bias") if name in FAMILIES[self.family]}
        if self.family == "mistral":
            found["sliding_window"] = self._window()
        elif "layer_types" in FAMILIES[self.family]:
            found |= self._layers(found["num_hidden_layers"])
        return found

    def size(self, name: str) -> int:
        value = self.fields[name]
        if type(value) is not int or not 1 <= value < _BIGGEST:
            self.bad(f"{name} must be a whole number from 1 to {_BIGGEST - 1}, not {value!r}")
        return value

    def positive(self, name: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 < value < 1e30:
            self.bad(f"{name} must be a positive number, not {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.fields[name]
        if type(value) is not bool:
            self.bad(f"{name} must be true or false, not {value!r}")
        return value

    def _refuse_unread(self) -> None:
        if quantization := self.raw.get("quantization_config"):
            method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
            self.bad(
                f"its weights are quantized (quantization_config names {method!r}), which is not read yet; take the "
                "checkpoint that is not quantized, or a GGUF file"
            )
        for name, idle in _IDLE.items():
            if name in self.raw and self.raw[name] not in idle:
                self.bad(f"{name} is {self.raw[name]!r}, which is not supported; supported is {idle[0]!r}")
        if self.family == "mistral" and self.raw.get("layer_types") is not None:
            self.bad("is of a mistral with layer_types, which is the family 'ministral' and not supported")

    def _window(self) -> int | None:
        return None if self.fields["sliding_window"] is None else self.size("sliding_window")

    def _layers(self, count: int) -> dict[str, Any]:
        """sliding_window and layer_types: layers from max_window_layers on see a window, unless they are listed."""
        window = self._window() if self.flag("use_sliding_window") else None
        listed = self.fields["layer_types"]
        if listed is None:
            first = self.fields["max_window_layers"]
            if type(first) is not int:
                self.bad(f"max_window_layers must be a whole number, not {first!r}")
            if count > _MOST_FACTORS:
                self.bad(f"claims {count} layers")
            full = count if window is None else min(max(first, 0), count)
            listed = ["full_attention"] * full + ["sliding_attention"] * (count - full)
        if not isinstance(listed, list) or len(listed) != count:
            self.bad(f"layer_types must be a list of {count} types, one for each layer")
        for kind in listed:
            if kind not in ("full_attention", "sliding_attention"):
                self.bad(f"layer_types has {kind!r}; 'full_attention' and 'sliding_attention' are supported")
        if window is None and "sliding_attention" in listed:
            self.bad("layer_types has 'sliding_attention' without use_sliding_window and a sliding_window")
        return {"sliding_window": window, "layer_types": tuple(listed)}

    def _rope(self) -> dict[str, Any]:
        """rope_parameters, or what was spelled rope_theta and rope_scaling before."""
        older = self.raw.get("rope_scaling")
        name = "rope_scaling" if older else "rope_parameters"
        given = older or self.raw.get("rope_parameters") or {}
        if not isinstance(given, dict):
            self.bad(f"{name} must be an object, not {given!r}")
        rope = dict(given)
        if any(isinstance(value, dict) for value in rope.values()):
            self.bad(f"{name} differs by type of layer ({', '.join(map(repr, rope))}), which is not supported")
        kind = rope.pop("type", "default")
        kind = rope.pop("rope_type", kind)
        if not isinstance(kind, str):
            self.bad(f"rope_type must be a text, not {kind!r}")
        theta = self.positive("rope_theta", rope.pop("rope_theta", self.raw.get("rope_theta", 10000.0)))
        if (part := self.raw.get("partial_rotary_factor")) is not None:
            rope.setdefault("partial_rotary_factor", part)
        if kind in ("llama3", "yarn", "longrope"):
            rope.setdefault("original_max_position_embeddings", self.size("max_position_embeddings"))
        for key, value in rope.items():
            numbers = value if isinstance(value, list) else [value]
            if len(numbers) > _MOST_FACTORS or not all(map(_is_plain, numbers)):
                self.bad(f"{key} of {name} is neither a number nor a list of numbers")
        return {"rope_type": kind, "rope_theta": theta, **rope}


def _is_plain(value: Any) -> bool:
    return (
        value is None or isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and abs(value) < math.inf)
    )
