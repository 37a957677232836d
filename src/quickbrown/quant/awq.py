"""Linears as AWQ's tools publish them (Lin et al. 2023; AutoAWQ, GPTQModel), 4 bits.

    qweight  int32 (in, out / 8)      nibble k of word c is of output 8c + (0, 2, 4, 6, 1, 3, 5, 7)[k]
    qzeros   int32 (groups, out / 8)  the same; missing where zero_point is false: then 8
    scales   float (groups, out)

    W[o, i] = (q[i, o] - zero[i // group_size, o]) * scales[i // group_size, o]

That is version "gemm". Version "gemv" has outputs first, and nibbles in their order: qweight (out, in / 8), qzeros
(out, words), scales (out, 8 words), where there may be more words than the groups need.

Values are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.quant import settings
from quickbrown.quant.formats import Bytes, Floats
from quickbrown.quant.integers import Grid, constant, unpack
from quickbrown.quant.published import Parts, Published, take
from quickbrown.quant.weight import Weight

_OUTPUTS = np.array([0, 2, 4, 6, 1, 3, 5, 7])  # of each nibble
_PLACES = np.argsort(_OUTPUTS)  # the nibble of each output


class Awq:
    """The encoding of a checkpoint. Raises ValueError for a config that says what is not read."""

    suffixes = (".qweight", ".qzeros", ".scales")
    unread = ()

    def __init__(self, config: Mapping[str, Any]) -> None:
        bits = settings.whole(config, "bits", "w_bit", missing=4)
        if bits != 4:
            raise ValueError(f"bits is {bits}; 4 are read")
        version = "version" if "version" in config else "format" if "format" in config else "checkpoint_format"
        self.version = settings.one_of(config, version, ("gemm", "gemv"), "gemm")
        self.group_size = settings.whole(config, "group_size", "q_group_size", missing=128)
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"group_size is {self.group_size}; -1 and positive sizes are read")
        self.zero_point = config.get("zero_point") is not False
        self.summary = f"awq, 4 bits, {'a group a row' if self.group_size == -1 else f'groups of {self.group_size}'}"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a linear, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        qweight, scales = take(parts, ".qweight", ".scales")
        words = qweight.of("qweight", "I32", -1, -1)
        if not words.size:
            raise ValueError("qweight is empty")
        if self.version == "gemv":
            return self._rows(parts, words, scales)
        inputs, outputs = words.shape[0], words.shape[1] * 8
        group = inputs if self.group_size == -1 else self.group_size
        groups = -(-inputs // group)
        if scales.shape != (groups, outputs):
            raise ValueError(f"scales have shape {scales.shape}, not {(groups, outputs)}")
        stored = None
        if ".qzeros" in parts or self.zero_point:
            stored = take(parts, ".qzeros")[0].of("qzeros", "I32", groups, outputs // 8)

        def q(first: int, last: int) -> Bytes:
            return _columns(words, first, last)

        def own_scales(first: int, last: int) -> Floats:
            return np.ascontiguousarray(scales.floats("scales")[:, first:last].T)

        def own_zeros(first: int, last: int) -> Floats:
            assert stored is not None
            return np.ascontiguousarray(_outputs(stored, first, last).T).astype(np.float32)

        if inputs % 2:
            raise ValueError(f"it has {inputs} inputs, and only even numbers of them are read")
        zeros = constant(8, groups) if stored is None else own_zeros
        return Grid((outputs, inputs), 4, q, own_scales, zeros, group).weight()

    def _rows(self, parts: Parts, words: npt.NDArray[Any], scales: Published) -> Weight:
        """Of version "gemv"."""
        outputs, inputs = words.shape[0], words.shape[1] * 8
        group = inputs if self.group_size == -1 else self.group_size
        groups = -(-inputs // group)
        stored = take(parts, ".qzeros")[0].of("qzeros", "I32", outputs, -1)
        if stored.shape[1] * 8 < groups or scales.shape != (outputs, stored.shape[1] * 8):
            raise ValueError(f"scales of shape {scales.shape} and qzeros of {stored.shape} do not fit {groups} groups")

        def q(first: int, last: int) -> Bytes:
            return np.ascontiguousarray(words[first:last]).view(np.uint8)

        def own_scales(first: int, last: int) -> Floats:
            return scales.floats("scales")[first:last, :groups]

        def own_zeros(first: int, last: int) -> Floats:
            return unpack(np.ascontiguousarray(stored[first:last]).view(np.uint8), 4)[:, :groups].astype(np.float32)

        return Grid((outputs, inputs), 4, q, own_scales, own_zeros, group).weight()


def _columns(words: npt.NDArray[Any], first: int, last: int) -> Bytes:
    """Outputs `first` to `last`, two inputs a byte: (last - first, in / 2)."""
    start, stop = first // 8, -(-last // 8)
    eights = np.ascontiguousarray(words[:, start:stop].T).view(np.uint32)
    low, high = eights[:, 0::2], eights[:, 1::2]
    mask = np.uint32(0x0F0F0F0F)
    out = np.empty((len(eights), 8, low.shape[1]), np.uint8)
    for odd, pairs in enumerate((low & mask | (high & mask) << 4, low >> 4 & mask | high & ~mask)):
        # byte b of these is of nibble 2b + odd
        out[:, _OUTPUTS[odd::2]] = pairs.view(np.uint8).reshape(*low.shape, 4).swapaxes(1, 2)
    return out.reshape(-1, low.shape[1])[first - start * 8 : last - start * 8]


def _outputs(words: npt.NDArray[Any], first: int, last: int) -> Bytes:
    """Outputs `first` to `last` of words of eight: (rows, last - first)."""
    start, stop = first // 8, -(-last // 8)
    fields = unpack(np.ascontiguousarray(words[:, start:stop]).view(np.uint8), 4).reshape(len(words), -1, 8)
    return fields[..., _PLACES].reshape(len(words), -1)[:, first - start * 8 : last - start * 8]
