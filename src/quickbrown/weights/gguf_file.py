"""The GGUF container: settings and named tensors, whatever they mean, in one mapped file or in several parts.

A file is not trusted. Every count, length, offset and size is checked against the file before it is used, and every
fault is a `BadFile`. What is read into memory is bounded by `HEADER`; tensors stay in the mapped file.
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
from quickbrown.weights.hub import part_names
from quickbrown.weights.source import bad_file
from quickbrown.weights.strings import Strings

HEADER = 1 << 28  # bytes, the most that settings and vocabulary may take
_MOST_ENTRIES = 1 << 16  # settings, or tensors
_NAME_BYTES = 64
_KEY_BYTES = 65535
_MOST_LISTS = 1 << 16  # lists of lists, and how deep they may lie in each other:
_DEEPEST = 8
_PIECE = 1 << 16  # bytes that are looked at together: they stay in the processor's cache

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: ("u1", "B"), 1: ("i1", "b"), 2: ("<u2", "<H"), 3: ("<i2", "<h"), 4: ("<u4", "<I"), 5: ("<i4", "<i"),
    6: ("<f4", "<f"), 7: ("u1", "B"), 10: ("<u8", "<Q"), 11: ("<i8", "<q"), 12: ("<f8", "<d"),
}  # fmt: skip
_BOOL = 7
_U32, _U64 = Struct("<I"), Struct("<Q")

_BY_TYPE = {f.ggml_type: f for f in FORMATS.values() if f.ggml_type is not None}
READABLE = ", ".join(f.name.upper() for f in _BY_TYPE.values())
_OTHER_TYPES = {  # of activations, of the past, or without a published layout
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 15: "Q8_K", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8", 41: "Q1_0",
}  # fmt: skip


class Tensor(NamedTuple):
    """Where a tensor lies: `at` is its first byte in a part of the file; `shape` is in (out, in) order."""

    format: str
    shape: tuple[int, ...]
    at: int
    bytes: int
    part: int = 0


class GgufFile:
    """Settings and tensors of a GGUF file (version 2 or 3, little-endian), or of all parts of one, given any of them.

    metadata    every setting: str, int, float, bool, `Strings`, a numpy array of numbers, or a list of lists of those
    tensors     the file's name of each -> where it lies, in the file's order
    unreadable  name -> type of the tensors of types that nobody can read; they are not in `tensors`
    paths       of the file, or of all its parts

    Lists of texts are looked through when the file is opened, not when they are asked for: of the 29 ms that 262,144
    tokens and 514,906 merges take, 17 go into finding where they end, which is needed anyway, and whoever opens a model
    asks for them.

    Raises BadFile for anything wrong with the contents, and for missing parts, OSError where the file cannot be opened.
    The files are mapped: they must not be changed or cut while the object lives.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._parts = _parts(self.path)
        self.paths = [part.path for part in self._parts]
        self._metadata = self._parts[0].metadata
        self.metadata: Mapping[str, Any] = MappingProxyType(self._metadata)
        self.tensors: dict[str, Tensor] = {}
        self.unreadable: dict[str, str] = {}
        for i, part in enumerate(self._parts):
            for name in [*part.tensors, *part.unreadable]:
                if name in self.tensors or name in self.unreadable:
                    part.bad(f"holds the tensor {name!r}, which another part holds too")
            self.tensors |= {name: tensor._replace(part=i) for name, tensor in part.tensors.items()}
            self.unreadable |= part.unreadable

    def bad(self, what: str) -> NoReturn:
        """Raise the BadFile of this file that says what is wrong with it."""
        raise bad_file(self.path, what)

    def view(self, tensor: Tensor) -> npt.NDArray[np.uint8]:
        """Its bytes in the mapped file: uint8 (rows, bytes a row)."""
        rows = math.prod(tensor.shape[:-1])
        data = np.frombuffer(self._parts[tensor.part].map, np.uint8, tensor.bytes, tensor.at)
        return data.reshape(rows, tensor.bytes // rows)

    def release(self, tensor: Tensor) -> None:
        """Tell the system that the file's pages of this tensor may leave memory, where it can be told."""
        start = -(-tensor.at // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (tensor.at + tensor.bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < stop and hasattr(mmap, "MADV_DONTNEED"):
            self._parts[tensor.part].map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def forget_vocabulary(self) -> None:
        """Drop the settings `tokenizer.ggml.tokens`, `.merges`, `.scores` and `.token_type`, the large ones.

        For when a tokenizer has been made of them: they take megabytes.
        """
        for name in ("tokens", "merges", "scores", "token_type"):
            self._metadata.pop(f"tokenizer.ggml.{name}", None)


def _parts(path: Path) -> list[_Part]:
    """The file, or every part of the one that it is a part of: all there, each saying of itself what its name says."""
    given = _Part(path)
    count = given.number("split.count", 1)
    if count == 1:
        return [given]
    names = part_names(path.name)
    if len(names) != count:
        given.bad(
            f"is one of {count} parts, and its name does not say which: it must end like -00001-of-{count:05}.gguf"
        )
    if missing := [name for name in names if not (path.parent / name).exists()]:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        given.bad(f"is one of {count} parts, and beside it are missing: {', '.join(missing[:4])}{more}")
    parts = [given if name == path.name else _Part(path.parent / name) for name in names]
    total = sum(part.count for part in parts)
    for i, part in enumerate(parts):
        if (said := part.number("split.count", 1)) != count:
            part.bad(f"says that it is one of {said} parts, and its name says of {count}")
        if (said := part.number("split.no", 0)) != i:
            part.bad(f"says that it is part {said + 1}, and its name says {i + 1}")
        if (said := part.number("split.tensors.count", total)) != total:
            part.bad(f"says that the parts hold {said} tensors together, and they hold {total}")
    return parts


class _Part:
    """One mapped file, read: `metadata`, `tensors` and `unreadable` as in `GgufFile`; `count` of all tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(self.path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                self.bad("is empty")
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._end = min(len(self.map), HEADER)
        self._lists = 0
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        self.unreadable: dict[str, str] = {}
        self._read(self.metadata, self.tensors)
        self.count = len(self.tensors) + len(self.unreadable)

    def number(self, key: str, default: int) -> int:
        """A setting that says something of this part, a whole number."""
        value = self.metadata.get(key, default)
        if type(value) is not int or not 0 <= value < 1 << 31 or (key == "split.count" and not value):
            self.bad(f"the setting {key!r} must be a whole number, not {value!r}")
        return value

    def bad(self, what: str) -> NoReturn:
        """Raise the BadFile of this file that says what is wrong with it."""
        raise bad_file(self.path, what)

    def _short(self, what: str) -> NoReturn:
        if self._end < len(self.map):
            self.bad(f"its settings are larger than {HEADER >> 20} MiB, in {what}")
        self.bad(f"the file ends in the middle of {what}: it is truncated or damaged")

    def _u32(self, at: int, what: str) -> int:
        if at + 4 > self._end:
            self._short(what)
        return int(_U32.unpack_from(self.map, at)[0])

    def _u64(self, at: int, what: str) -> int:
        if at + 8 > self._end:
            self._short(what)
        return int(_U64.unpack_from(self.map, at)[0])

    def _string(self, at: int, what: str, most: int = HEADER) -> tuple[str, int]:
        """The string at a position, and the position behind it."""
        size = self._u64(at, what)
        at += 8
        if size > most:
            self.bad(f"{what} is {size} bytes long, more than the {most} that are allowed")
        if size > self._end - at:
            self._short(what)
        try:
            return str(self.map[at : at + size], "utf-8"), at + size
        except UnicodeDecodeError:
            self.bad(f"{what} is not valid UTF-8")

    def _strings(self, at: int, count: int, what: str) -> tuple[Strings, int]:
        """`count` strings from a position on, and the position behind them."""
        if count > (self._end - at) // 8:
            self._short(what)
        begin = at
        heads, sizes, at = self._heads(at, count, what)
        raw = np.zeros(at - begin + 8, np.uint8)
        raw[:-8] = np.frombuffer(self.map, np.uint8, at - begin, begin)
        heads -= begin
        # One decoding for many: with NULs for the lengths, a character cut by a string's end stays invalid.
        for i in range(8 if sizes.max(initial=0) > 255 else 1):
            raw[heads + i] = 0
        try:
            for piece in pairwise([*heads[:: 1 << 13].tolist(), raw.size]):
                str(raw[slice(*piece)].data, "utf-8")
        except UnicodeDecodeError:
            self.bad(f"{what} holds a string that is not valid UTF-8")
        return Strings(raw.tobytes(), heads + 8, sizes), at

    def _heads(self, at: int, count: int, what: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
        """Where each of `count` strings from a position on has its length, those, and the position behind them."""
        data, last, unpack = self.map, self._end - 8, _U64.unpack_from
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
            return self._array(at, what, 1)
        if kind not in _SCALARS:
            self.bad(f"{what} has unknown type {kind}")
        scalar = Struct(_SCALARS[kind][1])
        if at + scalar.size > self._end:
            self._short(what)
        value = scalar.unpack_from(self.map, at)[0]
        if kind == _BOOL:
            if value > 1:
                self.bad(f"{what} should be true or false and is {value}")
            value = bool(value)
        return value, at + scalar.size

    def _array(self, at: int, what: str, depth: int) -> tuple[Any, int]:
        """The array at a position, and the position behind it."""
        kind, count = self._u32(at, what), self._u64(at + 4, what)
        at += 12
        if kind == _STRING:
            return self._strings(at, count, what)
        if kind == _ARRAY:
            self._lists += count
            if self._lists > _MOST_LISTS or depth == _DEEPEST:
                self.bad(f"{what} has more than {_MOST_LISTS} lists in lists, or they are more than {_DEEPEST} deep")
            lists = []
            for _ in range(count):
                inner, at = self._array(at, what, depth + 1)
                lists.append(inner)
            return lists, at
        if kind not in _SCALARS:
            self.bad(f"{what} is an array of unknown type {kind}")
        dtype = np.dtype(_SCALARS[kind][0])
        if count > (self._end - at) // dtype.itemsize:
            self._short(what)
        array = np.frombuffer(self.map, dtype, count, at)
        if kind == _BOOL:
            array = array != 0
        return array, at + count * dtype.itemsize

    def _read(self, metadata: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        if (magic := self.map[:4]) != b"GGUF":
            kind = "the older GGML kind" if magic in (b"lmgg", b"fmgg", b"tjgg", b"algg") else "not a GGUF file"
            self.bad(f"is {kind} (it begins with {magic!r})")
        version = self._u32(4, "the version")
        if version not in (2, 3):
            if version and version & 0xFFFF == 0:
                self.bad("is a big-endian GGUF file, which is not supported")
            self.bad(f"has GGUF version {version}; versions 2 and 3 are supported")
        tensor_count, setting_count = self._u64(8, "the counts"), self._u64(16, "the counts")
        for count, what in ((tensor_count, "tensors"), (setting_count, "settings")):
            if count > _MOST_ENTRIES:
                self.bad(f"claims to hold {count} {what}, more than {_MOST_ENTRIES}")
        at = 24
        for i in range(setting_count):
            key, at = self._string(at, f"the name of setting {i}", _KEY_BYTES)
            if not key:
                self.bad(f"setting {i} has an empty name")
            if key in metadata:
                self.bad(f"the setting {key!r} is there twice")
            metadata[key], at = self._value(at, f"the setting {key!r}")
        infos = []
        for i in range(tensor_count):
            name, at = self._string(at, f"the name of tensor {i}", _NAME_BYTES)
            if not name:
                self.bad(f"tensor {i} has an empty name")
            what = f"the description of tensor {name!r}"
            axes = self._u32(at, what)
            if not 1 <= axes <= 4:
                self.bad(f"tensor {name!r} has {axes} dimensions; 1 to 4 are possible")
            sizes = [self._u64(at + 4 + 8 * axis, what) for axis in range(axes)]
            at += 4 + 8 * axes
            infos.append((name, sizes, self._u32(at, what), self._u64(at + 4, what)))
            at += 12
        self._locate(infos, at, tensors)

    def _locate(self, infos: list[tuple[str, list[int], int, int]], at: int, tensors: dict[str, Tensor]) -> None:
        """From descriptions (name, sizes innermost first, type, offset) ending at byte `at` to checked places."""
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            self.bad(f"general.alignment must be a power of two from 8 to {1 << 20}, not {alignment!r}")
        base = -(-at // alignment) * alignment
        for name, sizes, kind, offset in infos:
            if name in tensors or name in self.unreadable:
                self.bad(f"the tensor {name!r} is there twice")
            if not all(sizes):
                self.bad(f"tensor {name!r} has a dimension of size 0")
            if kind not in _BY_TYPE:
                self.unreadable[name] = _OTHER_TYPES.get(kind, str(kind))
                continue
            form = _BY_TYPE[kind]
            try:
                size = form.row_bytes(sizes[0]) * math.prod(sizes[1:])
            except ValueError as error:
                self.bad(f"tensor {name!r} cannot be read: {error}")
            if offset % alignment:
                self.bad(f"tensor {name!r} lies at offset {offset}, which is not a multiple of {alignment}")
            if base + offset + size > len(self.map):
                self.bad(f"tensor {name!r} reaches beyond the end of the file: it is truncated or damaged")
            tensors[name] = Tensor(form.name, tuple(reversed(sizes)), base + offset, size)
        end, before = base, ""
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].at):
            if tensor.at < end:
                self.bad(f"the tensors {before!r} and {name!r} overlap")
            end, before = tensor.at + tensor.bytes, name
