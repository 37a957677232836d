"""Checkpoints in safetensors files, as Hugging Face publishes them: one file, or several and an index.

A file is the length of its header (u64), the header (a JSON object: name -> dtype, shape, first and last byte), and the
tensors end to end. It is not trusted. Every length, offset and size is checked against the file before it is used, and
every fault is a `BadFile`. Weights stay in the mapped files.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from quickbrown.models.families import of_model_type
from quickbrown.quant.formats import FORMATS
from quickbrown.quant.published import Published
from quickbrown.quant.weight import MovedWeight, Weight, inputs_last
from quickbrown.weights.config import CONFIG, QUANTIZED_BY, quantization, raw_config, resolve
from quickbrown.weights.names import unfitting
from quickbrown.weights.quantized import quantized
from quickbrown.weights.source import bad_file, parse_json, read_json

STEM, WEIGHTS, INDEX = "model", ".safetensors", ".safetensors.index.json"
FILES = (CONFIG, *QUANTIZED_BY, "*" + WEIGHTS, "*" + INDEX)  # of a folder, all that a source may read
HEADER = 1 << 24  # bytes, the most that the header of one file may take
_MOST_AXES = 8
_MOST_FILES = 4096
_U64 = Struct("<Q")
_FORMATS = {
    dtype: dtype.lower()
    for dtype in ("F32", "F16", "BF16", "F64", "F8_E4M3", "F8_E5M2", "I8", "U8", "I16", "I32", "I64")
}
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,250}\.safetensors", re.ASCII)
_HARMLESS = r".*\.rotary_emb\.inv_freq"  # of old conversions; computed
_SLICE = 1 << 24


class _Tensor(NamedTuple):
    """Where a tensor lies: bytes `at` to `at + bytes` of a file. `dtype` is what the file says."""

    map: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    at: int
    bytes: int

    @property
    def format(self) -> str | None:
        """None where it is no weight by itself."""
        return _FORMATS.get(self.dtype)


@dataclass(frozen=True, slots=True)
class _Made:
    """In the place of a tensor: a weight that several are published for."""

    weight: Weight
    tensors: tuple[_Tensor, ...]
    dtype: str = "quantized"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @property
    def format(self) -> str:
        return self.weight.format

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)


_Entry = _Tensor | _Made


class SafetensorsSource:
    """The weights of a folder with config.json and safetensors files. A `Source`.

    config    the fields of config.json that the family reads, and `model_type`
    metadata  empty: what GGUF files say about themselves, safetensors files do not
    formats   format name -> how many weights have it, the most frequent first
    bytes     of all weights as encoded
    quantization  how they are quantized, in a line; None where they are not

    Raises BadFile for anything wrong with the contents, OSError where a file cannot be opened. The files are mapped:
    they must not be changed or cut while the source lives.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        self.metadata: dict[str, Any] = {}
        self.quantization: str | None = None
        self._idle: set[str] = set()  # biases of zeros, which some tools publish for linears that have none
        raw = raw_config(self.path)
        self.config = resolve(raw, self.path / CONFIG)
        found = _found(self.path)
        method = quantization(self.path, raw)
        self._weights = self._check(self._gather(found, method) if method else dict(found))
        self.bytes = sum(t.bytes for t in self._weights.values())
        names = [str(t.format) for t in self._weights.values()]
        self.formats = {f: names.count(f) for f in sorted(set(names), key=lambda f: (-names.count(f), f))}

    def names(self) -> list[str]:
        return list(self._weights)

    def get(self, name: str) -> Weight:
        """A view of the mapped file, or copies of a tensor whose numbers do not lie at multiples of their size."""
        tensor = self._weights[name]
        return tensor.weight if isinstance(tensor, _Made) else _weight(tensor)

    def release(self, name: str) -> None:
        """Tell the system that the file's pages of this weight may leave memory, where it can be told."""
        entry = self._weights[name]
        for tensor in entry.tensors if isinstance(entry, _Made) else [entry]:
            _release(tensor)

    def _gather(self, found: dict[str, _Tensor], method: Any) -> dict[str, _Entry]:
        """Quantized weights in the place of their tensors, where they stood."""
        views = {name: Published(t.dtype, t.shape, _view(t, 0, t.bytes)) for name, t in found.items()}
        encoding, weights, unread = quantized(method, views, self.path)
        self.quantization = encoding.summary
        gone = {part for weight in weights.values() for part in weight.tensors} | set(unread)
        left: dict[str, _Entry] = {name: tensor for name, tensor in found.items() if name not in gone}
        for name, weight in weights.items():
            left[name] = _Made(weight.weight, tuple(found[part] for part in weight.tensors))
            bias = found.get(f"{name.removesuffix('.weight')}.bias")
            if bias is not None and not _view(bias, 0, bias.bytes).any():
                self._idle.add(f"{name.removesuffix('.weight')}.bias")
        return left

    def _check(self, found: dict[str, _Entry]) -> dict[str, _Entry]:
        """The tensors of the config, in the order of the forward pass: all of them, with their shapes and no others."""
        family = of_model_type(self.config["model_type"])
        model = family.Model
        found = self._turned(self._renamed(found, model.RENAMED), model.INPUTS_FIRST)
        if self.config["tie_word_embeddings"] and model.HEAD in found:
            # Both may be published. One is as good as the other if they are equal; if not, the config is wrong.
            if model.EMBEDDING not in found:
                found[model.EMBEDDING] = found[model.HEAD]
            if _equal(found[model.EMBEDDING], found[model.HEAD]):
                del found[model.HEAD]
            else:
                self.config["tie_word_embeddings"] = False
        if (layers := self.config["num_hidden_layers"]) > len(found):
            raise bad_file(self.path, f"claims {layers} layers and holds {len(found)} tensors")
        try:
            needed = family.shapes(family.configure(self.config))
        except ValueError as error:
            raise bad_file(self.path, str(error)) from None
        unread = re.compile("|".join([_HARMLESS, *model.UNREAD]))
        found = {name: tensor for name, tensor in found.items() if name in needed or not unread.fullmatch(name)}
        for name in self._idle - needed.keys():
            found.pop(name, None)
        for name in needed.keys() & found.keys():
            if found[name].format is None:
                supported = ", ".join(_FORMATS)
                raise bad_file(self.path, f"tensor {name!r} is of type {found[name].dtype}; supported are {supported}")
        held = {name: tensor.shape for name, tensor in found.items()}
        if wrong := unfitting(needed, held, str, f"this {family.name}"):
            raise bad_file(self.path, wrong)
        return {name: found[name] for name in needed}

    def _turned(self, found: dict[str, _Entry], inputs_first: tuple[str, ...]) -> dict[str, _Entry]:
        """With those that are published as (..., in, out) as (..., out, in)."""
        for name, tensor in found.items():
            if isinstance(tensor, _Made) or tensor.dtype not in _FORMATS or len(tensor.shape) < 2:
                continue
            if any(re.fullmatch(pattern, name) for pattern in inputs_first):
                found[name] = _Made(inputs_last(_weight(tensor)), (tensor,))
        return found

    def _renamed(self, found: dict[str, _Entry], other: Mapping[str, str]) -> dict[str, _Entry]:
        """Tensors by the names that the family asks for."""
        made: dict[str, _Entry] = {}
        for name, tensor in found.items():
            ours = name
            for pattern, stands in other.items():
                ours = re.sub(pattern, stands, ours)
            if ours in made:
                raise bad_file(self.path, f"holds the tensor {ours!r} under two names")
            made[ours] = tensor
        return made


def stored(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> format and shape of all tensors of a folder; of one that cannot be read its type. Raises BadFile."""
    return {name: (_FORMATS.get(tensor.dtype, tensor.dtype), tensor.shape) for name, tensor in _found(folder).items()}


def _found(folder: Path) -> dict[str, _Tensor]:
    """Every tensor in a folder's files, each where the index has it."""
    found: dict[str, _Tensor] = {}
    files, places = _files(folder)
    for file in files:
        for name, tensor in _tensors(folder / file).items():
            if places.get(name, file) != file:
                raise bad_file(folder / file, f"holds the tensor {name!r}, which the index places elsewhere")
            if name in found:
                raise bad_file(folder / file, f"holds the tensor {name!r}, which another file holds too")
            found[name] = tensor
    return found


def _weight(tensor: _Tensor) -> Weight:
    rows = math.prod(tensor.shape[:-1])
    data = _view(tensor, 0, tensor.bytes).reshape(rows, tensor.bytes // rows if rows else 0)
    format = _FORMATS[tensor.dtype]
    if tensor.at % FORMATS[format].block_bytes:
        return MovedWeight(format, tensor.shape, data.copy)
    return Weight(format, tensor.shape, data)


def _view(tensor: _Tensor, start: int, stop: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(tensor.map, np.uint8, min(stop, tensor.bytes) - start, tensor.at + start)


def _release(tensor: _Tensor) -> None:
    start = -(-tensor.at // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (tensor.at + tensor.bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if start < stop and hasattr(mmap, "MADV_DONTNEED"):
        tensor.map.madvise(mmap.MADV_DONTNEED, start, stop - start)


def _equal(a: _Entry, b: _Entry) -> bool:
    if isinstance(a, _Made) or isinstance(b, _Made) or (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    same = all(np.array_equal(_view(a, i, i + _SLICE), _view(b, i, i + _SLICE)) for i in range(0, a.bytes, _SLICE))
    _release(a)
    _release(b)
    return same


def stems(folder: Path) -> list[str]:
    """What the names of a folder's weights may begin with; the first that is there counts. Raises BadFile."""
    config = folder / CONFIG
    said = quantization(folder, raw_config(folder)) if config.is_file() else None
    if not isinstance(said, dict):
        return [STEM]
    # as AutoGPTQ calls them, unless told otherwise
    name = said.get("model_file_base_name") or f"gptq_model-{said.get('bits')}bit-{said.get('group_size')}g"
    return [STEM, name] if isinstance(name, str) and _PLAIN.fullmatch(name + WEIGHTS) else [STEM]


def _files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The names of a folder's files of weights; and which of them has which tensor, where an index says so."""
    for stem in stems(folder):
        if (folder / (stem + WEIGHTS)).is_file():
            return [stem + WEIGHTS], {}
        if (folder / (stem + INDEX)).is_file():
            places = index(folder / (stem + INDEX))
            files = sorted(set(places.values()))
            for file in files:
                if not (folder / file).is_file():
                    raise bad_file(folder, f"the file {file} is missing, which {stem}{INDEX} names")
            return files, places
    _none(folder)


def index(path: Path) -> dict[str, str]:
    """Tensor name -> file name, of an index: the names of files beside it. Raises BadFile."""
    places = read_json(path, HEADER).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise bad_file(path, "has no 'weight_map' that says which file holds which tensor")
    for file in places.values():
        if not isinstance(file, str) or not _PLAIN.fullmatch(file):
            raise bad_file(path, f"names the file {file!r}; only plain names of .safetensors files are read")
    if (count := len(set(places.values()))) > _MOST_FILES:
        raise bad_file(path, f"names {count} files, more than {_MOST_FILES}")
    return places


def _none(folder: Path) -> NoReturn:
    """Raises the BadFile that says why a folder has no weights that can be read."""
    pickled = [*folder.glob("pytorch_model*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth"), *folder.glob("*.ckpt")]
    if pickled:
        name = min(path.name for path in pickled)
        raise bad_file(
            folder,
            f"its weights are pickled ({name}), and pickles are not read because they can run code; convert them to "
            "safetensors, or take a revision that has those",
        )
    raise bad_file(folder, f"holds no {STEM}{WEIGHTS} and no {STEM}{INDEX}")


def _tensors(path: Path) -> dict[str, _Tensor]:
    """Every tensor of a file."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise bad_file(path, "is empty" if not size else "is too short for a safetensors file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = _U64.unpack_from(data, 0)[0]
    if length > min(HEADER, len(data) - 8):
        what = f"its header is to be {length} bytes long"
        limit = f"more than {HEADER >> 20} MiB" if length > HEADER else f"and the file has {len(data)}: it is truncated"
        raise bad_file(path, f"{what}, {limit} or not a safetensors file")
    if data[8:9] != b"{":
        raise bad_file(path, "is not a safetensors file (its header does not begin with '{')")
    start = 8 + length
    header = parse_json(data[8:start], path)
    header.pop("__metadata__", None)
    found = {name: _tensor(path, name, entry, data, start) for name, entry in header.items()}
    _tile(path, found, start, len(data))
    return found


def _tensor(path: Path, name: str, entry: Any, data: mmap.mmap, start: int) -> _Tensor:
    """The place that one entry of a header describes."""
    if not name or len(name) > 1024:
        raise bad_file(path, f"has a tensor whose name is {len(name)} characters long")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise bad_file(path, f"tensor {name!r} must have 'dtype', 'shape' and 'data_offsets', and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise bad_file(path, f"tensor {name!r} has a dtype that is no text")
    if not _naturals(shape) or len(shape) > _MOST_AXES:
        raise bad_file(path, f"tensor {name!r} has no shape of up to {_MOST_AXES} sizes")
    if not _naturals(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= len(data) - start:
        raise bad_file(path, f"tensor {name!r} lies beyond the end of the file: it is truncated or damaged")
    size = offsets[1] - offsets[0]
    if dtype in _FORMATS and size != math.prod(shape) * FORMATS[_FORMATS[dtype]].block_bytes:
        raise bad_file(path, f"tensor {name!r} has {size} bytes, which are not {dtype} values of shape {tuple(shape)}")
    return _Tensor(data, dtype, tuple(shape), start + offsets[0], size)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _tile(path: Path, found: dict[str, _Tensor], start: int, end: int) -> None:
    """The tensors lie end to end and fill the file, as the format demands; a file that does not is damaged."""
    at, before = start, ""
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].at, item[1].bytes)):
        if tensor.at < at:
            raise bad_file(path, f"the tensors {before!r} and {name!r} overlap")
        if tensor.at > at:
            raise bad_file(path, f"there is a gap of {tensor.at - at} bytes before the tensor {name!r}")
        at, before = tensor.at + tensor.bytes, name
    if at != end:
        raise bad_file(path, f"{end - at} bytes behind the last tensor belong to none")
