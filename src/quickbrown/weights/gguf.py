"""GGUF files: one mapped file holding settings, vocabulary and encoded weights.

The file is not trusted. Every count, length, offset and size is checked against the file before it is used, and every
fault is a `BadFile`. What is read into memory is bounded by `HEADER`; weights stay in the mapped file.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from struct import Struct
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import FORMATS
from quickbrown.quant.weight import MovedWeight, Weight
from quickbrown.weights.names import from_gguf, halves, shapes, to_gguf
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

# Settings of llama that are read, and those that are accepted with the one value that changes nothing.
_READ = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size", "rope.freq_base",
    "rope.dimension_count", "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon",
}  # fmt: skip
_IDLE = {
    "attention.causal": True, "attention.sliding_window": 0, "expert_count": 0, "expert_used_count": 0,
    "rope.scale_linear": 1.0,
}  # fmt: skip
_DESCRIPTIVE = {"tensor_data_layout"}


class _Tensor(NamedTuple):
    """Where a tensor lies: `at` is its first byte in the file; `shape` is in (out, in) order."""

    format: str
    shape: tuple[int, ...]
    at: int
    bytes: int


class GgufSource:
    """The weights and settings of a Llama in a GGUF file (version 2 or 3, little-endian). A `Source`.

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
        self.config = self._configure(tensors)
        self._weights = self._check(tensors)
        self.bytes = sum(t.bytes for t in tensors.values())
        names = [t.format for t in tensors.values()]
        self.formats = {f: names.count(f) for f in sorted(set(names), key=lambda f: (-names.count(f), f))}

    def names(self) -> list[str]:
        return list(self._weights)

    def get(self, name: str) -> Weight:
        """A view of the mapped file; of q_proj and k_proj copies, whose rows are in Hugging Face's order."""
        tensor = self._weights[name]
        rows = math.prod(tensor.shape[:-1])
        data = np.frombuffer(self._map, np.uint8, tensor.bytes, tensor.at).reshape(rows, tensor.bytes // rows)
        if not name.endswith(("q_proj.weight", "k_proj.weight")):
            return Weight(tensor.format, tensor.shape, data)
        heads = self.config["num_attention_heads" if name.endswith("q_proj.weight") else "num_key_value_heads"]
        return MovedWeight(tensor.format, tensor.shape, lambda: halves(data, heads))

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
            names = {int: "a whole number", float: "a number with a fraction", str: "a text"}
            self._bad(f"the setting {key!r} must be {names[kind]}")
        return value

    def _size(self, key: str, default: int | None = None) -> int:
        value = self._setting(key, int, default)
        if not 1 <= value < _BIGGEST:
            self._bad(f"the setting {key!r} must be from 1 to {_BIGGEST - 1}, not {value}")
        return int(value)

    def _positive(self, key: str, default: float | None = None) -> float:
        value = self._setting(key, float, default)
        if not (math.isfinite(value) and value > 0):
            self._bad(f"the setting {key!r} must be a positive number, not {value}")
        return float(value)

    def _configure(self, tensors: dict[str, _Tensor]) -> dict[str, Any]:
        """The config that the settings amount to. Refuses by name every setting that would not be honoured."""
        architecture = self._setting("general.architecture", str)
        if architecture != "llama":
            self._bad(f"holds a model of architecture {architecture!r}; the supported one is 'llama'")
        if (kind := self._setting("general.type", str, "model")) != "model":
            self._bad(f"holds a {kind!r}, not a model")
        if (parts := self._setting("split.count", int, 1)) > 1:
            self._bad(f"is one of {parts} parts; only models in one file are supported")
        if (version := self._setting("general.quantization_version", int, 2)) != 2:
            self._bad(f"is quantized by version {version} of the formats; version 2 is supported")
        self._refuse_unread()

        heads = self._size("llama.attention.head_count")
        kv_heads = self._size("llama.attention.head_count_kv", heads)
        hidden = self._size("llama.embedding_length")
        if heads % kv_heads:
            self._bad(f"its {heads} attention heads do not divide into {kv_heads} key-value heads")
        if "llama.attention.key_length" not in self.metadata and hidden % heads:
            self._bad(f"its hidden size {hidden} does not divide into {heads} attention heads")
        head_dim = self._size("llama.attention.key_length", hidden // heads or None)
        if head_dim % 2:
            self._bad(f"its heads have {head_dim} values, and rotary positions need an even number")
        for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
            if (size := self._size(key, head_dim)) != head_dim:
                self._bad(f"{key} is {size} and the heads have {head_dim} values; they must be equal")
        if "token_embd.weight" not in tensors:
            self._bad("the tensor 'token_embd.weight' is missing")
        vocabulary = tensors["token_embd.weight"].shape[0]
        if vocabulary >= _BIGGEST:
            self._bad(f"a vocabulary of {vocabulary} tokens is too large")
        if (claimed := self._size("llama.vocab_size", vocabulary)) != vocabulary:
            self._bad(f"llama.vocab_size is {claimed} and the embedding has {vocabulary} rows")
        listed = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(listed, Strings) and len(listed) != vocabulary:
            self._bad(f"lists {len(listed)} tokens and the embedding has {vocabulary} rows")
        layers = self._size("llama.block_count")
        if layers > len(tensors):
            self._bad(f"claims {layers} layers and holds {len(tensors)} tensors")
        return {
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": self._size("llama.feed_forward_length"),
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "vocab_size": vocabulary,
            "max_position_embeddings": self._size("llama.context_length"),
            "rms_norm_eps": self._positive("llama.attention.layer_norm_rms_epsilon"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": self._positive("llama.rope.freq_base", 10000.0),
            },
            "tie_word_embeddings": "output.weight" not in tensors,
            "attention_bias": False,
            "mlp_bias": False,
        }

    def _refuse_unread(self) -> None:
        scaling = self.metadata.get("llama.rope.scaling.type")
        for key, value in self.metadata.items():
            room, _, name = key.partition(".")
            if room != "llama" or name in _READ or name in _DESCRIPTIVE:
                continue
            if name.startswith("rope.scaling.") and isinstance(scaling, str) and scaling == "none":
                continue
            idle = _IDLE.get(name)
            if idle is None or type(value) is not type(idle) or value != idle:
                self._bad(f"needs {key!r}, which is not supported")

    def _check(self, tensors: dict[str, _Tensor]) -> dict[str, _Tensor]:
        """Tensors by Hugging Face's names, in the file's order: exactly those of the config, with their shapes."""
        expected = shapes(self.config)
        found: dict[str, _Tensor] = {}
        for name, tensor in tensors.items():
            canonical = from_gguf(name)
            if canonical not in expected:
                self._bad(f"holds the tensor {name!r}, which is not supported")
            if tensor.shape != expected[canonical]:
                self._bad(f"tensor {name!r} has shape {tensor.shape}, but its config needs {expected[canonical]}")
            found[canonical] = tensor
        for canonical in expected:
            if canonical not in found:
                self._bad(f"the tensor {to_gguf(canonical)!r} is missing")
        return found
