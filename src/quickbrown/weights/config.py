"""config.json of a Hugging Face checkpoint: what it says, and what it means for the mathematics.

Fields that are missing have the values that transformers gives them. The file is not trusted: every field that is read
is checked, and every fault is a `BadFile`. A field that would change the mathematics and is not honoured is refused.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from quickbrown.models.config import MOST_LAYERS, PER_LAYER, hints, per_layer
from quickbrown.models.families import MODEL_TYPES, Family, listed, of_model_type
from quickbrown.weights.source import bad_file, read_json

CONFIG = "config.json"
QUANTIZED_BY = {"quantize_config.json": "gptq", "quant_config.json": "awq"}  # what wrote such a file
_LARGEST = 1 << 24  # bytes of a config.json
_BIGGEST = 1 << 31  # of any size in a config: what int32 indices reach
_MOST_FACTORS = 1 << 16

# Fields of other models, or of other ways to run these, with the values that change nothing.
_IDLE: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,), "add_cross_attention": (False,), "is_causal": (True,),
    "per_layer_config": (None, {}),
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


def quantization(folder: str | os.PathLike[str], raw: Mapping[str, Any]) -> Any:
    """The quantization_config of a folder whose config.json says `raw`, or what tools of the first years wrote beside
    it in its place; None where there is none. Raises BadFile, OSError where a file cannot be opened."""
    if said := raw.get("quantization_config"):
        return said
    for name, method in QUANTIZED_BY.items():
        if (path := Path(folder) / name).is_file():
            return {"quant_method": method} | read_json(path, _LARGEST)
    return None


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
    """Reads what a family's Config declares (models/config.py)."""

    def __init__(self, raw: Mapping[str, Any], where: object) -> None:
        self.where = where
        self.family = self._family(raw)
        self.kind = self.family.Config
        self.raw = self._published(raw)

    def bad(self, what: str) -> NoReturn:
        raise bad_file(self.where, what)

    def _family(self, raw: Mapping[str, Any]) -> Family:
        family, known = raw.get("model_type"), listed(MODEL_TYPES)
        if family is None:
            self.bad(f"has no model_type; the supported families are {known}")
        if family in _ENCODER_DECODERS or raw.get("is_encoder_decoder") is True:
            self.bad(
                f"is of an encoder-decoder ({family!r}), and only models that are decoders alone are read; "
                f"the supported families are {known}"
            )
        try:
            return of_model_type(family)
        except ValueError as error:
            self.bad(str(error))

    def _published(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of the text model, in today's spelling; refused are those that are not honoured."""
        if self.kind.TEXT is not None and self.kind.TEXT in raw:
            text = raw[self.kind.TEXT]
            if not isinstance(text, dict):
                self.bad(f"{self.kind.TEXT} must be an object, not {text!r}")
            raw = {name: value for name, value in raw.items() if name == "tie_word_embeddings"} | text
        try:
            raw = self.kind.published(raw)
        except ValueError as error:
            self.bad(str(error))
        for name, idle in (_IDLE | dict(self.kind.IDLE)).items():
            if name in raw and raw[name] not in idle:
                self.bad(f"{name} is {raw[name]!r}, which is not supported; supported is {idle[0]!r}")
        return raw

    def config(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for field in dataclasses.fields(self.kind):
            name, hint = field.name, hints(self.kind)[field.name]
            if name == "rope_parameters":
                given[name] = self._ropes()
                continue
            spelled = self.kind.ALIASES.get(name, name)
            if spelled not in self.raw and name not in self.raw:
                if field.default is dataclasses.MISSING:
                    self.bad(f"has no {spelled}")
                given[name] = field.default
                continue
            value = self.raw[spelled] if spelled in self.raw else self.raw[name]
            given[name] = None if value is None and "derived" in field.metadata else self.value(spelled, value, hint)
        try:
            made = self.kind(**given)
        except ValueError as error:
            self.bad(str(error))
        fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
        return {"model_type": self.family.name, **fields}

    def value(self, name: str, value: Any, hint: Any) -> Any:
        """A value of the type that a Config declares."""
        of, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if get_origin(of) in (Union, UnionType):
            if value is None:
                return None
            [of] = (one for one in get_args(of) if one is not NoneType)
            return self.value(name, value, of)
        if get_origin(of) is tuple:
            if not isinstance(value, list):
                layers = self.raw.get("num_hidden_layers", "num_hidden_layers")
                self.bad(per_layer(name, layers) if PER_LAYER in marks else f"{name} must be a list, not {value!r}")
            if len(value) > MOST_LAYERS:
                self.bad(f"{name} has {len(value)} entries")
            return tuple(self.entry(name, one, get_args(of)[0]) for one in value)
        if get_origin(of) is Literal:
            if value not in get_args(of):
                known = " or ".join(map(repr, get_args(of)))
                self.bad(f"{name} is {value!r}, which is not supported; supported is {known}")
            return value
        if of is bool:
            return self.flag(name, value)
        if of is int:
            return self.size(name, value, 0 if marks else 1)
        if of is float:
            return self.number(name, value) if marks else self.positive(name, value)
        raise TypeError(f"no values of type {hint} are read")

    def entry(self, name: str, value: Any, hint: Any) -> Any:
        """One of a list."""
        if get_origin(hint) is Literal and value not in get_args(hint):
            known = " and ".join(map(repr, get_args(hint)))
            self.bad(f"{name} has {value!r}; {known} are supported")
        return self.value(f"an entry of {name}", value, hint)

    def size(self, name: str, value: Any, least: int = 1) -> int:
        if type(value) is not int or not least <= value < _BIGGEST:
            self.bad(f"{name} must be a whole number from {least} to {_BIGGEST - 1}, not {value!r}")
        return value

    def positive(self, name: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 < value < 1e30:
            self.bad(f"{name} must be a positive number, not {value!r}")
        return float(value)

    def number(self, name: str, value: Any) -> float:
        if type(value) not in (int, float) or not -1e30 < value < 1e30:
            self.bad(f"{name} must be a number, not {value!r}")
        return float(value)

    def flag(self, name: str, value: Any) -> bool:
        if type(value) is not bool:
            self.bad(f"{name} must be true or false, not {value!r}")
        return value

    def _ropes(self) -> dict[str, Any]:
        """rope_parameters, or what was spelled rope_theta and rope_scaling before."""
        older = self.raw.get("rope_scaling")
        name = "rope_scaling" if older else "rope_parameters"
        given = older or self.raw.get("rope_parameters") or {}
        if not isinstance(given, dict):
            self.bad(f"{name} must be an object, not {given!r}")
        several = [key for key, value in given.items() if isinstance(value, dict)]
        if several and set(given) != set(self.kind.ROPES):
            supported = f"; those of {', '.join(self.kind.ROPES)} are" if self.kind.ROPES else ""
            self.bad(
                f"{name} differs by type of layer ({', '.join(map(repr, given))}), which is not supported{supported}"
            )
        if not self.kind.ROPES:
            return self._rope(name, given)
        return {kind: self._rope(name, given[kind] if several else given) for kind in self.kind.ROPES}

    def _rope(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """One rotation."""
        rope = dict(given)
        kind = rope.pop("type", "default")
        kind = rope.pop("rope_type", kind)
        if not isinstance(kind, str):
            self.bad(f"rope_type must be a text, not {kind!r}")
        theta = self.positive("rope_theta", rope.pop("rope_theta", self.raw.get("rope_theta", self.kind.THETA)))
        if (part := self.raw.get("partial_rotary_factor")) is not None:
            rope.setdefault("partial_rotary_factor", part)
        if kind in ("llama3", "yarn", "longrope"):
            spelled = self.kind.ALIASES.get("max_position_embeddings", "max_position_embeddings")
            usual = {field.name: field.default for field in dataclasses.fields(self.kind)}["max_position_embeddings"]
            trained = self.size(spelled, self.raw.get(spelled, usual))
            rope.setdefault("original_max_position_embeddings", trained)
        for key, value in rope.items():
            numbers = value if isinstance(value, list) else [value]
            if len(numbers) > _MOST_FACTORS or not all(map(_is_plain, numbers)):
                self.bad(f"{key} of {name} is neither a number nor a list of numbers")
        return {"rope_type": kind, "rope_theta": theta, **rope}


def _is_plain(value: Any) -> bool:
    return (
        value is None or isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and abs(value) < math.inf)
    )
