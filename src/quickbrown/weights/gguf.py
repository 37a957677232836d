"""GGUF files: one mapped file holding settings, vocabulary and encoded weights.

What the container holds is read and checked by `gguf_file.py`; here is what its settings and tensors mean.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np

from quickbrown.models.config import MOST_LAYERS, Count, LayerType, Number, PerLayer, hints
from quickbrown.models.families import Family, of_architecture
from quickbrown.models.gguf import Gguf
from quickbrown.quant.formats import Bytes
from quickbrown.quant.weight import JoinedWeight, MovedWeight, Weight
from quickbrown.weights.gguf_file import READABLE, GgufFile, Tensor
from quickbrown.weights.gguf_rope import Stretched, stretched
from quickbrown.weights.names import Place, halves, halves_of, key_head_order, places, unfitting
from quickbrown.weights.strings import Strings

_BIGGEST = 1 << 31  # of any size in a config: what int32 indices reach

_AHEAD = "nextn_predict_layers"
_DESCRIPTIVE = {"tensor_data_layout"}
KEY_HEADS = "attention.head_count_kv"


class GgufSource:
    """The weights and settings of a model in a GGUF file (version 2 or 3, little-endian). A `Source`.

    metadata  every setting of the file: str, int, float, bool, `Strings`, or a numpy array of numbers
    config    the fields of config.json that it amounts to, and `model_type`
    formats   format name -> how many weights have it, the most frequent first
    bytes     of all weights as encoded

    Raises BadFile for anything wrong with the contents, OSError where the file cannot be opened. The file is mapped: it
    must not be changed or cut while the source lives.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.file = GgufFile(path)
        self.metadata: Mapping[str, Any] = self.file.metadata
        for name, kind in self.file.unreadable.items():
            self.file.bad(f"tensor {name!r} has type {kind}, which cannot be read; the types that can are {READABLE}")
        tensors = self.file.tensors
        self._architecture = self._setting("general.architecture", str)
        self._family = self._known()
        self._gguf = self._family.gguf or Gguf()
        self._ahead = 0  # layers behind the last
        own = any(key.startswith("rope.scaling.") for key in self._gguf.settings)  # the family says what they mean
        turns = "rope.freq_base" in self._gguf.settings and not own
        self._stretched = stretched(self.file, self._architecture, self._gguf.scaled) if turns else Stretched({})
        self.config: dict[str, Any] = self._configure(tensors)
        self._weights = self._check(tensors)
        self.bytes = sum(t.bytes for t in tensors.values())
        names = [t.format for t in tensors.values()]
        self.formats = {f: names.count(f) for f in sorted(set(names), key=lambda f: (-names.count(f), f))}

    def names(self) -> list[str]:
        return list(self._weights)

    def get(self, name: str) -> Weight:
        """A view of the mapped file; a copy, in Hugging Face's layout, of what the file keeps in another."""
        if name in self._halves:
            return self._joined(name)
        tensor, place = self._weights[name], self._places[name]
        data = self.file.view(tensor)
        weight = Weight(tensor.format, tensor.shape, data)
        if place.part is not None:
            return weight.part(place.part)
        stem = name.rpartition(".")[0]
        if heads := next((field for end, field in self._gguf.permuted.items() if stem.endswith(end)), None):
            count = self.config[heads]
            if len(tensor.shape) == 1:
                data = data.reshape(tensor.shape[0], -1)
            return MovedWeight(tensor.format, tensor.shape, lambda: halves(data, count).reshape(weight.data.shape))
        if stem.endswith(self._gguf.fused):
            c = self.config
            return weight.picked(key_head_order(c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]))
        if stem.endswith(self._gguf.squeezed):
            return Weight(tensor.format, (tensor.shape[0], 1, tensor.shape[1]), data)
        if name.endswith(".weight") and stem.endswith(self._gguf.raised):
            return MovedWeight("f32", tensor.shape, lambda: (weight.decode() - 1).view(np.uint8).reshape(len(data), -1))
        return weight

    def _joined(self, name: str) -> Weight:
        """Of the tensors that hold its halves."""
        one, other = (Weight(t.format, t.shape, self.file.view(t)) for t in self._halves[name])
        alternate = self._gguf.alternate
        if len(one.shape) == 3:
            return JoinedWeight((one, other), alternate)
        experts, rows = one.shape

        def read() -> Bytes:
            both = np.stack([one.decode(), other.decode()], 2 if alternate else 1)
            return both.reshape(experts, 2 * rows).view(np.uint8)

        return MovedWeight("f32", (experts, 2 * rows), read)

    def release(self, name: str) -> None:
        """Tell the system that the file's pages of this weight may leave memory, where it can be told."""
        for tensor in self._halves.get(name) or (self._weights[name],):
            self.file.release(tensor)

    def forget_vocabulary(self) -> None:
        """Drop the large settings of the vocabulary, for when a tokenizer has been made of them."""
        self.file.forget_vocabulary()

    def _setting(self, key: str, kind: type, default: Any = None) -> Any:
        """A setting of exactly this type. Without a default it must be there."""
        value = self.metadata.get(key, default)
        if value is None:
            self.file.bad(f"the setting {key!r} is missing")
        if type(value) is not kind:
            names = {int: "a whole number", bool: "true or false", float: "a number with a fraction", str: "a text"}
            self.file.bad(f"the setting {key!r} must be {names[kind]}")
        return value

    def _size(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self._setting(key, int, default)
        if not least <= value < _BIGGEST:
            self.file.bad(f"the setting {key!r} must be from {least} to {_BIGGEST - 1}, not {value}")
        return int(value)

    def _number(self, key: str) -> float:
        value = self._setting(key, float)
        if not math.isfinite(value):
            self.file.bad(f"the setting {key!r} must be a number, not {value}")
        return float(value)

    def _positive(self, key: str, default: float | None = None) -> float:
        value = self._setting(key, float, default)
        if not (math.isfinite(value) and value > 0):
            self.file.bad(f"the setting {key!r} must be a positive number, not {value}")
        return float(value)

    def _configure(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """The config that the settings amount to. Refuses by name every setting that would not be honoured."""
        if (kind := self._setting("general.type", str, "model")) != "model":
            self.file.bad(f"holds a {kind!r}, not a model")
        if (version := self._setting("general.quantization_version", int, 2)) != 2:
            self.file.bad(f"is quantized by version {version} of the formats; version 2 is supported")
        self._refuse_unread()

        given = copy.deepcopy(dict(self._gguf.fixed))
        for key, name in self._gguf.settings.items():
            *path, last = name.split(".")
            at = given
            for entry in path:
                at = at.setdefault(entry, {})
            at[last] = self._field(key, (*path, last))
            if "rope_parameters" in path:
                at.setdefault("rope_type", "default")
            if key == "rope.freq_base":
                at |= self._stretched.parameters and {**self._gguf.turning, **self._stretched.parameters}
        if self._gguf.keyless is not None:
            given |= self._kinds(self._gguf.keyless)
        given |= self._embedding(tensors)
        for name, how in self._gguf.told.items():
            tensor, there, missing = how if isinstance(how, tuple) else (how, True, False)
            given[name] = there if tensor in tensors else missing
        if given["num_hidden_layers"] > len(tensors):
            self.file.bad(f"claims {given['num_hidden_layers']} layers and holds {len(tensors)} tensors")
        if self._gguf.ahead:
            self._ahead = self._size(f"{self._architecture}.{_AHEAD}", 0, least=0)
            if self._ahead >= given["num_hidden_layers"]:
                self.file.bad(f"claims {given['num_hidden_layers']} layers, {self._ahead} of them behind the last")
            given["num_hidden_layers"] -= self._ahead
        try:
            made = self._family.configure(given)
        except ValueError as error:
            self.file.bad(str(error))
        if self._gguf.partial:
            part = self._part(made.head_dim)
            turned = {**given["rope_parameters"], "partial_rotary_factor": part}
            made = self._family.configure(given | {"rope_parameters": turned})
        for key, name in self._gguf.equal.items():
            full, want = f"{self._architecture}.{key}", getattr(made, name)
            if full in self.metadata and (size := self._size(full)) != want:
                self.file.bad(f"{full} is {size} and {name} is {want}; they must be equal")
        return {
            "model_type": self._family.name,
            **{field.name: getattr(made, field.name) for field in dataclasses.fields(made)},
        }

    def _known(self) -> Family:
        experts = self._size(f"{self._architecture}.expert_count", 0, least=0)
        window = self._size(f"{self._architecture}.attention.sliding_window", 0, least=0)
        try:
            return of_architecture(self._architecture, experts, window)
        except ValueError as error:
            self.file.bad(str(error))

    def _field(self, key: str, path: tuple[str, ...]) -> Any:
        """What a setting says of a field, or of an entry in it."""
        full, name = f"{self._architecture}.{key}", path[0]
        kind = float if len(path) > 1 else hints(self._family.Config)[name]
        least = 0 if kind is Count else 1
        options = get_args(kind)
        field = {field.name: field for field in dataclasses.fields(self._family.Config)}[name]
        if full not in self.metadata:
            if key in self._gguf.defaults:
                return self._gguf.defaults[key]
            if "derived" in field.metadata or NoneType in options:
                return None
        if kind == PerLayer[LayerType]:
            return self._layer_types(full)
        if name == "sliding_window" and NoneType in options and self.metadata[full] == 0:
            return None
        if kind is Number:
            return self._number(full)
        if float in (kind, *options):
            return self._positive(full)
        if bool in (kind, *options):
            return self._setting(full, bool)
        return self._size(full, least=least)

    def _layer_types(self, key: str) -> tuple[str, ...]:
        """Of an array that says of each layer whether it sees a window."""
        value = self.metadata[key]
        if not isinstance(value, np.ndarray) or value.dtype != bool or len(value) > MOST_LAYERS:
            self.file.bad(f"the setting {key!r} must be a list of true and false, at most {MOST_LAYERS}")
        return tuple("sliding_attention" if windowed else "full_attention" for windowed in value)

    def _kinds(self, keyless: str) -> dict[str, Any]:
        """Of a list that says of each layer how many key heads it has."""
        key = f"{self._architecture}.{KEY_HEADS}"
        value = self.metadata.get(key)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or len(value) > MOST_LAYERS:
            self.file.bad(f"the setting {key!r} must be a list of whole numbers, at most {MOST_LAYERS}")
        counts = {int(count) for count in value if count}
        if len(counts) != 1 or not 0 < (count := counts.pop()) < _BIGGEST:
            self.file.bad(f"the setting {key!r} must list 0 and one other number of heads")
        kinds = tuple("full_attention" if of_layer else keyless for of_layer in value)
        return {"num_key_value_heads": count, "layer_types": kinds}

    def _part(self, head_dim: int) -> float:
        """What of a head turns, so that its product with head_dim, cut to a whole number, is how many values do."""
        dims = self._size(f"{self._architecture}.rope.dimension_count", head_dim)
        part = dims / head_dim
        return part if int(head_dim * part) == dims else math.nextafter(part, 2)

    def _embedding(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """What follows from the embedding: how many tokens there are, and whether it is the head too."""
        model = self._family.Model
        named = places(self._gguf, (model.EMBEDDING, model.HEAD))
        embedding, head = named[model.EMBEDDING].tensor, named[model.HEAD].tensor
        if embedding not in tensors:
            self.file.bad(f"the tensor {embedding!r} is missing")
        vocabulary = tensors[embedding].shape[0]
        if vocabulary >= _BIGGEST:
            self.file.bad(f"a vocabulary of {vocabulary} tokens is too large")
        if (claimed := self._size(f"{self._architecture}.vocab_size", vocabulary)) != vocabulary:
            self.file.bad(f"{self._architecture}.vocab_size is {claimed} and the embedding has {vocabulary} rows")
        listed = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(listed, Strings) and len(listed) != vocabulary:
            self.file.bad(f"lists {len(listed)} tokens and the embedding has {vocabulary} rows")
        return {"vocab_size": vocabulary, "tie_word_embeddings": head not in tensors}

    def _refuse_unread(self) -> None:
        more = ["rope.dimension_count"] * self._gguf.partial + [_AHEAD] * self._gguf.ahead
        read = {"vocab_size", *more, *self._gguf.unread, *self._gguf.settings, *self._gguf.equal, *_DESCRIPTIVE}
        read |= self._stretched.settings
        if self._gguf.keyless is not None:
            read.add(KEY_HEADS)
        for key, value in self.metadata.items():
            room, _, name = key.partition(".")
            if room != self._architecture or name in read:
                continue
            idle = self._gguf.idle.get(name)
            if idle is None or type(value) is not type(idle) or value != idle:
                self.file.bad(f"needs {key!r}, which is not supported")

    def _check(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by published names, in the model's order: exactly those of the config, with their shapes."""
        try:
            needed = self._family.shapes(self._family.configure(self.config))
        except ValueError as error:
            self.file.bad(str(error))
        self._places = places(self._gguf, needed)
        parts = Counter(place.tensor for place in self._places.values())
        shapes: dict[str, tuple[int, ...]] = {}
        joined = halves_of(self._gguf, needed)
        for name, shape in needed.items():
            if name in joined:
                shapes |= dict.fromkeys(joined[name], (shape[0], shape[1] // 2, *shape[2:]))
                continue
            place = self._places.setdefault(name, Place(name, None))
            if name.removesuffix(".weight").endswith(self._gguf.squeezed):
                shape = (shape[0], shape[2])
            shapes[place.tensor] = shape if place.part is None else (parts[place.tensor], *shape)
        for name, shape in shapes.items():  # files may hold a matrix of one row as a vector
            if name in tensors and (1, *tensors[name].shape) == shape:
                tensors[name] = tensors[name]._replace(shape=shape)
        first = self.config["num_hidden_layers"]
        behind = tuple(f"blk.{i}." for i in range(first, first + self._ahead))
        unread = {name for name in tensors if name.startswith(behind)} | self._stretched.tensors
        held = {name: tensor.shape for name, tensor in tensors.items() if name not in unread}
        if wrong := unfitting(shapes, held, str, f"this {self._architecture}"):
            self.file.bad(wrong)
        self._halves = {name: (tensors[one], tensors[other]) for name, (one, other) in joined.items()}
        return {name: tensors[(joined.get(name) or self._places[name])[0]] for name in needed}
