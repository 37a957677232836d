"""GGUF files: one mapped file holding settings, vocabulary and encoded weights.

The file is not trusted. Every count, length, offset and size is checked against the file before it is used, and every
fault is a `BadFile`. What is read into memory is bounded by `HEADER`; weights stay in the mapped file.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import mmap
import os
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from struct import Struct
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple, NoReturn, get_args

import numpy as np
import numpy.typing as npt

from quickbrown.models.config import Count, Number, hints
from quickbrown.models.families import Family, of_architecture
from quickbrown.models.gguf import Gguf
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.weight import MovedWeight, Weight
from quickbrown.weights.names import Place, halves, places, unfitting
from quickbrown.weights.source import bad_file
from quickbrown.weights.strings import Strings

HEADER = 1 << 28  # bytes, the most that settings and vocabulary may take
_MOST_ENTRIES = 1 << 16  # settings, or tensors
_NAME_BYTES = 64
_KEY_BYTES = 65535
_PIECE = 1 << 16  # bytes that are looked at together: they stay in the processor's cache
_BIGGEST = 1 << 31  # of any size in a config: what int32 indices reach

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: ("u1", "B"), 1: ("i1", "b"), 2: ("<u2", "<H"), 3: ("<i2", "<h"), 4: ("<u4", "<I"), 5: ("<i4", "<i"),
    6: ("<f4", "<f"), 7: ("u1", "B"), 10: ("<u8", "<Q"), 11: ("<i8", "<q"), 12: ("<f8", "<d"),
}  # fmt: skip
_BOOL = 7
_U32, _U64 = Struct("<I"), Struct("<Q")

_BY_TYPE = {f.ggml_type: f for f in FORMATS.values() if f.ggml_type is not None}
_OTHER_TYPES = {
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
}  # fmt: skip

_DESCRIPTIVE = {"tensor_data_layout"}


class _Tensor(NamedTuple):
    """Where a tensor lies: `at` is its first byte in the file; `shape` is in (out, in) order."""

    format: str
    shape: tuple[int, ...]
    at: int
    bytes: int


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
        self.config: dict[str, Any] = {}
        with open(self.path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                self._bad("is empty")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._end = min(len(self._map), HEADER)
        self._metadata: dict[str, Any] = {}
        tensors: dict[str, _Tensor] = {}
        self.metadata: Mapping[str, Any] = MappingProxyType(self._metadata)
        self._read(self._metadata, tensors)
        self._architecture = self._setting("general.architecture", str)
        self._family = self._known()
        self._gguf = self._family.gguf or Gguf()
        self.config = self._configure(tensors)
        self._weights = self._check(tensors)
        self.bytes = sum(t.bytes for t in tensors.values())
        names = [t.format for t in tensors.values()]
        self.formats = {f: names.count(f) for f in sorted(set(names), key=lambda f: (-names.count(f), f))}

    def names(self) -> list[str]:
        return list(self._weights)

    def get(self, name: str) -> Weight:
        """A view of the mapped file; a copy, in Hugging Face's layout, of what the file keeps in another."""
        tensor, place = self._weights[name], self._places[name]
        rows = math.prod(tensor.shape[:-1])
        data = np.frombuffer(self._map, np.uint8, tensor.bytes, tensor.at).reshape(rows, tensor.bytes // rows)
        weight = Weight(tensor.format, tensor.shape, data)
        if place.part is not None:
            return weight.part(place.part)
        stem = name.rpartition(".")[0]
        if heads := next((field for end, field in self._gguf.permuted.items() if stem.endswith(end)), None):
            count = self.config[heads]
            if len(tensor.shape) == 1:
                data = data.reshape(tensor.shape[0], -1)
            return MovedWeight(tensor.format, tensor.shape, lambda: halves(data, count).reshape(weight.data.shape))
        if stem.endswith(self._gguf.raised):
            return MovedWeight("f32", tensor.shape, lambda: (weight.decode() - 1).view(np.uint8).reshape(rows, -1))
        return weight

    def release(self, name: str) -> None:
        """Tell the system that the file's pages of this weight may leave memory, where it can be told."""
        tensor = self._weights[name]
        start = -(-tensor.at // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (tensor.at + tensor.bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def forget_vocabulary(self) -> None:
        """Drop the settings `tokenizer.ggml.tokens`, `.merges`, `.scores` and `.token_type`, the large ones.

        For when a tokenizer has been made of them: they take megabytes.
        """
        for name in ("tokens", "merges", "scores", "token_type"):
            self._metadata.pop(f"tokenizer.ggml.{name}", None)

    # Reading

    def _bad(self, what: str) -> NoReturn:
        raise bad_file(self.path, what)

    def _short(self, what: str) -> NoReturn:
        if self._end < len(self._map):
            self._bad(f"its settings are larger than {HEADER >> 20} MiB, in {what}")
        self._bad(f"the file ends in the middle of {what}: it is truncated or damaged")

    def _u32(self, at: int, what: str) -> int:
        if at + 4 > self._end:
            self._short(what)
        return int(_U32.unpack_from(self._map, at)[0])

    def _u64(self, at: int, what: str) -> int:
        if at + 8 > self._end:
            self._short(what)
        return int(_U64.unpack_from(self._map, at)[0])

    def _string(self, at: int, what: str, most: int = HEADER) -> tuple[str, int]:
        """The string at a position, and the position behind it."""
        size = self._u64(at, what)
        at += 8
        if size > most:
            self._bad(f"{what} is {size} bytes long, more than the {most} that are allowed")
        if size > self._end - at:
            self._short(what)
        try:
            return str(self._map[at : at + size], "utf-8"), at + size
        except UnicodeDecodeError:
            self._bad(f"{what} is not valid UTF-8")

    def _strings(self, at: int, count: int, what: str) -> tuple[Strings, int]:
        """`count` strings from a position on, and the position behind them."""
        if count > (self._end - at) // 8:
            self._short(what)
        begin = at
        heads, sizes, at = self._heads(at, count, what)
        raw = np.zeros(at - begin + 8, np.uint8)
        raw[:-8] = np.frombuffer(self._map, np.uint8, at - begin, begin)
        heads -= begin
        # One decoding for many: with NULs for the lengths, a character cut by a string's end stays invalid.
        for i in range(8 if sizes.max(initial=0) > 255 else 1):
            raw[heads + i] = 0
        try:
            for piece in pairwise([*heads[:: 1 << 13].tolist(), raw.size]):
                str(raw[slice(*piece)].data, "utf-8")
        except UnicodeDecodeError:
            self._bad(f"{what} holds a string that is not valid UTF-8")
        return Strings(raw.tobytes(), heads + 8, sizes), at

    def _heads(self, at: int, count: int, what: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
        """Where each of `count` strings from a position on has its length, those, and the position behind them."""
        data, last, unpack = self._map, self._end - 8, _U64.unpack_from
        # Where all are of 1 to 255 bytes without NUL, they begin one byte before each run of NULs.
        raw = np.frombuffer(data, np.uint8, min(self._end - at, 32 * count), at)
        found, missing = [], count
        for begin in range(0, len(raw) - 1, _PIECE):
            nul = raw[begin : begin + _PIECE + 1] == 0
            found.append(np.flatnonzero(nul[1:] > nul[:-1])[:missing] + begin)
            missing -= len(found[-1])
            if not missing:
                break
        places = np.concatenate(found) if found else np.empty(0, np.int64)
        if count and len(places) == count and not places[0] and places[-1] + 8 <= len(raw):
            sizes = np.ndarray((len(raw) - 7,), "<u8", raw, 0, (1,))[places].astype(np.int64)
            ends = places + 8 + sizes
            if ((sizes > 0) & (sizes < 256)).all() and (ends[:-1] == places[1:]).all() and ends[-1] <= len(raw):
                return places + at, sizes, at + int(ends[-1])
        heads: list[int] = []
        append = heads.append
        for _ in range(count):
            if at > last:
                self._short(what)
            append(at)
            at += 8 + unpack(data, at)[0]
        if at > self._end:
            self._short(what)
        places = np.array(heads, np.int64)
        return places, np.diff(places, append=at) - 8, at

    def _value(self, at: int, what: str) -> tuple[Any, int]:
        """The typed value at a position, and the position behind it."""
        kind = self._u32(at, what)
        at += 4
        if kind == _STRING:
            return self._string(at, what)
        if kind == _ARRAY:
            kind, count = self._u32(at, what), self._u64(at + 4, what)
            at += 12
            if kind == _STRING:
                return self._strings(at, count, what)
            if kind not in _SCALARS:
                self._bad(f"{what} is an array of unknown type {kind}")
            dtype = np.dtype(_SCALARS[kind][0])
            if count > (self._end - at) // dtype.itemsize:
                self._short(what)
            array = np.frombuffer(self._map, dtype, count, at)
            if kind == _BOOL:
                array = array != 0
            return array, at + count * dtype.itemsize
        if kind not in _SCALARS:
            self._bad(f"{what} has unknown type {kind}")
        scalar = Struct(_SCALARS[kind][1])
        if at + scalar.size > self._end:
            self._short(what)
        value = scalar.unpack_from(self._map, at)[0]
        if kind == _BOOL:
            if value > 1:
                self._bad(f"{what} should be true or false and is {value}")
            value = bool(value)
        return value, at + scalar.size

    def _read(self, metadata: dict[str, Any], tensors: dict[str, _Tensor]) -> None:
        if (magic := self._map[:4]) != b"GGUF":
            kind = "the older GGML kind" if magic in (b"lmgg", b"fmgg", b"tjgg", b"algg") else "not a GGUF file"
            self._bad(f"is {kind} (it begins with {magic!r})")
        version = self._u32(4, "the version")
        if version not in (2, 3):
            if version and version & 0xFFFF == 0:
                self._bad("is a big-endian GGUF file, which is not supported")
            self._bad(f"has GGUF version {version}; versions 2 and 3 are supported")
        tensor_count, setting_count = self._u64(8, "the counts"), self._u64(16, "the counts")
        for count, what in ((tensor_count, "tensors"), (setting_count, "settings")):
            if count > _MOST_ENTRIES:
                self._bad(f"claims to hold {count} {what}, more than {_MOST_ENTRIES}")
        at = 24
        for i in range(setting_count):
            key, at = self._string(at, f"the name of setting {i}", _KEY_BYTES)
            if not key:
                self._bad(f"setting {i} has an empty name")
            if key in metadata:
                self._bad(f"the setting {key!r} is there twice")
            metadata[key], at = self._value(at, f"the setting {key!r}")
        infos = []
        for i in range(tensor_count):
            name, at = self._string(at, f"the name of tensor {i}", _NAME_BYTES)
            if not name:
                self._bad(f"tensor {i} has an empty name")
            what = f"the description of tensor {name!r}"
            axes = self._u32(at, what)
            if not 1 <= axes <= 4:
                self._bad(f"tensor {name!r} has {axes} dimensions; 1 to 4 are possible")
            sizes = [self._u64(at + 4 + 8 * axis, what) for axis in range(axes)]
            at += 4 + 8 * axes
            infos.append((name, sizes, self._u32(at, what), self._u64(at + 4, what)))
            at += 12
        self._locate(infos, at, tensors)

    def _locate(self, infos: list[tuple[str, list[int], int, int]], at: int, tensors: dict[str, _Tensor]) -> None:
        """From descriptions (name, sizes innermost first, type, offset) ending at byte `at` to checked places."""
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            self._bad(f"general.alignment must be a power of two from 8 to {1 << 20}, not {alignment!r}")
        base = -(-at // alignment) * alignment
        for name, sizes, kind, offset in infos:
            if name in tensors:
                self._bad(f"the tensor {name!r} is there twice")
            if kind not in _BY_TYPE:
                known = ", ".join(f.name.upper() for f in _BY_TYPE.values())
                self._bad(f"tensor {name!r} has type {_OTHER_TYPES.get(kind, kind)}; the supported types are {known}")
            if not all(sizes):
                self._bad(f"tensor {name!r} has a dimension of size 0")
            form = _BY_TYPE[kind]
            try:
                size = form.row_bytes(sizes[0]) * math.prod(sizes[1:])
            except ValueError as error:
                self._bad(f"tensor {name!r} cannot be read: {error}")
            if offset % alignment:
                self._bad(f"tensor {name!r} lies at offset {offset}, which is not a multiple of {alignment}")
            if base + offset + size > len(self._map):
                self._bad(f"tensor {name!r} reaches beyond the end of the file: it is truncated or damaged")
            tensors[name] = _Tensor(form.name, tuple(reversed(sizes)), base + offset, size)
        end, before = base, ""
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].at):
            if tensor.at < end:
                self._bad(f"the tensors {before!r} and {name!r} overlap")
            end, before = tensor.at + tensor.bytes, name

    # Meaning

    def _setting(self, key: str, kind: type, default: Any = None) -> Any:
        """A setting of exactly this type. Without a default it must be there."""
        value = self.metadata.get(key, default)
        if value is None:
            self._bad(f"the setting {key!r} is missing")
        if type(value) is not kind:
            names = {int: "a whole number", bool: "true or false", float: "a number with a fraction", str: "a text"}
            self._bad(f"the setting {key!r} must be {names[kind]}")
        return value

    def _size(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self._setting(key, int, default)
        if not least <= value < _BIGGEST:
            self._bad(f"the setting {key!r} must be from {least} to {_BIGGEST - 1}, not {value}")
        return int(value)

    def _number(self, key: str) -> float:
        value = self._setting(key, float)
        if not math.isfinite(value):
            self._bad(f"the setting {key!r} must be a number, not {value}")
        return float(value)

    def _positive(self, key: str, default: float | None = None) -> float:
        value = self._setting(key, float, default)
        if not (math.isfinite(value) and value > 0):
            self._bad(f"the setting {key!r} must be a positive number, not {value}")
        return float(value)

    def _configure(self, tensors: dict[str, _Tensor]) -> dict[str, Any]:
        """The config that the settings amount to. Refuses by name every setting that would not be honoured."""
        if (kind := self._setting("general.type", str, "model")) != "model":
            self._bad(f"holds a {kind!r}, not a model")
        if (parts := self._setting("split.count", int, 1)) > 1:
            self._bad(f"is one of {parts} parts; only models in one file are supported")
        if (version := self._setting("general.quantization_version", int, 2)) != 2:
            self._bad(f"is quantized by version {version} of the formats; version 2 is supported")
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
        given |= self._embedding(tensors)
        if given["num_hidden_layers"] > len(tensors):
            self._bad(f"claims {given['num_hidden_layers']} layers and holds {len(tensors)} tensors")
        try:
            made = self._family.configure(given)
        except ValueError as error:
            self._bad(str(error))
        for key, name in self._gguf.equal.items():
            full, want = f"{self._architecture}.{key}", getattr(made, name)
            if full in self.metadata and (size := self._size(full)) != want:
                self._bad(f"{full} is {size} and {name} is {want}; they must be equal")
        return {
            "model_type": self._family.name,
            **{field.name: getattr(made, field.name) for field in dataclasses.fields(made)},
        }

    def _known(self) -> Family:
        try:
            return of_architecture(self._architecture)
        except ValueError as error:
            self._bad(str(error))

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
        if kind is Number:
            return self._number(full)
        if float in (kind, *options):
            return self._positive(full)
        if bool in (kind, *options):
            return self._setting(full, bool)
        return self._size(full, least=least)

    def _embedding(self, tensors: dict[str, _Tensor]) -> dict[str, Any]:
        """What follows from the embedding: how many tokens there are, and whether it is the head too."""
        model = self._family.Model
        named = places(self._gguf, (model.EMBEDDING, model.HEAD))
        embedding, head = named[model.EMBEDDING].tensor, named[model.HEAD].tensor
        if embedding not in tensors:
            self._bad(f"the tensor {embedding!r} is missing")
        vocabulary = tensors[embedding].shape[0]
        if vocabulary >= _BIGGEST:
            self._bad(f"a vocabulary of {vocabulary} tokens is too large")
        if (claimed := self._size(f"{self._architecture}.vocab_size", vocabulary)) != vocabulary:
            self._bad(f"{self._architecture}.vocab_size is {claimed} and the embedding has {vocabulary} rows")
        listed = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(listed, Strings) and len(listed) != vocabulary:
            self._bad(f"lists {len(listed)} tokens and the embedding has {vocabulary} rows")
        return {"vocab_size": vocabulary, "tie_word_embeddings": head not in tensors}

    def _refuse_unread(self) -> None:
        read = {"vocab_size", *self._gguf.settings, *self._gguf.equal, *_DESCRIPTIVE}
        scaling = self.metadata.get(f"{self._architecture}.rope.scaling.type")
        for key, value in self.metadata.items():
            room, _, name = key.partition(".")
            if room != self._architecture or name in read:
                continue
            if name.startswith("rope.scaling.") and isinstance(scaling, str) and scaling == "none":
                continue
            idle = self._gguf.idle.get(name)
            if idle is None or type(value) is not type(idle) or value != idle:
                self._bad(f"needs {key!r}, which is not supported")

    def _check(self, tensors: dict[str, _Tensor]) -> dict[str, _Tensor]:
        """Tensors by published names, in the model's order: exactly those of the config, with their shapes."""
        try:
            needed = self._family.shapes(self._family.configure(self.config))
        except ValueError as error:
            self._bad(str(error))
        self._places = places(self._gguf, needed)
        parts = Counter(place.tensor for place in self._places.values())
        shapes: dict[str, tuple[int, ...]] = {}
        for name, shape in needed.items():
            place = self._places.setdefault(name, Place(name, None))
            shapes[place.tensor] = shape if place.part is None else (parts[place.tensor], *shape)
        held = {name: tensor.shape for name, tensor in tensors.items()}
        if wrong := unfitting(shapes, held, str, f"this {self._architecture}"):
            self._bad(wrong)
        return {name: tensors[self._places[name].tensor] for name in needed}
