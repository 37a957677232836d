"""Linears as GPTQ's tools publish them (Frantar et al. 2022; AutoGPTQ, GPTQModel): 2, 3, 4 or 8 bits.

    qweight  int32 (in * bits / 32, out)      q of a column of the weight: a stream of bits down the rows
    qzeros   int32 (groups, out * bits / 32)  zeros of a group: such a stream along the row
    scales   float (groups, out)
    g_idx    int32 (in)                       the group of each input; missing: input // group_size

    W[o, i] = scales[g_idx[i], o] * (q[i, o] - zero[g_idx[i], o])

Values are exact. The zeros of `checkpoint_format` "gptq", which is also meant by none, are those stored and 1, those of
"gptq_v2" are the ones stored. GPTQModel goes from zeros to stored zeros by taking 1 off all fields of a word at once,
so that a zero of 0 borrows from the next field; the word gets it back here. (AutoGPTQ's packer lost the fields behind a
zero of 0 for good.) Fields of 3 bits are in several words; each is raised by itself, modulo 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.quant import settings
from quickbrown.quant.formats import Bytes, Floats
from quickbrown.quant.integers import Grid, nibbles, side_by_side, unpack
from quickbrown.quant.published import Parts, Published, take
from quickbrown.quant.weight import Columns, Weight

Words = npt.NDArray[np.int32]


class Gptq:
    """The encoding of a checkpoint. Raises ValueError for a config that says what is not read."""

    suffixes = (".qweight", ".qzeros", ".scales", ".g_idx")
    unread = ()

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.bits = settings.whole(config, "bits", "wbits", "w_bit")
        self.group_size = settings.whole(config, "group_size", "groupsize", "q_group_size")
        self.desc_act = config.get("desc_act") is True and config.get("static_groups") is not True
        version = "checkpoint_format" if config.get("checkpoint_format") is not None else "format"
        self.one_less = settings.one_of(config, version, ("gptq", "gptq_v2"), "gptq") == "gptq"
        settings.refuse(config, {"is_marlin_format": (False, None), "pack_dtype": ("int32", None)})
        if self.bits not in (2, 3, 4, 8):
            raise ValueError(f"bits is {self.bits}; 2, 3, 4 and 8 are read")
        if self.group_size != -1 and self.group_size < 1:
            raise ValueError(f"group_size is {self.group_size}; -1 and positive sizes are read")
        self.varied = bool(config.get("dynamic"))  # modules with bits and group sizes of their own
        groups = "a group a row" if self.group_size == -1 else f"groups of {self.group_size}"
        self.summary = f"gptq, {self.bits} bits, {groups}{', desc_act' if self.desc_act else ''}"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a linear, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        qweight, qzeros, scales = take(parts, ".qweight", ".qzeros", ".scales")
        words = qweight.of("qweight", "I32", -1, -1)
        outputs = words.shape[1]
        stored = qzeros.of("qzeros", "I32", -1, -1)
        bits = stored.shape[1] * 32 // max(outputs, 1)
        if not words.size or bits not in (2, 3, 4, 8) or outputs * bits != stored.shape[1] * 32:
            raise ValueError(f"qzeros of shape {stored.shape} fit no {outputs} outputs of 2, 3, 4 or 8 bits")
        if bits != self.bits and not self.varied:
            raise ValueError(f"its tensors have {bits} bits, and the config says {self.bits}")
        inputs, groups = words.shape[0] * 32 // bits, len(stored)
        if words.shape[0] * 32 != inputs * bits:
            raise ValueError(f"qweight of shape {words.shape} does not hold whole columns of {bits} bits")
        floats = scales.floats("scales") if scales.shape == (groups, outputs) else None
        if floats is None:
            raise ValueError(f"scales have shape {scales.shape}, not {(groups, outputs)}")
        del floats
        group = self._group(inputs, groups)
        order, irregular = self._order(parts.get(".g_idx"), inputs, group, groups)

        def q(first: int, last: int) -> Bytes:
            if order is not None:
                numbers = _down(words[:, first:last], bits)[order]
                packed = numbers if bits == 8 else numbers[0::2] | numbers[1::2] << 4
                return np.ascontiguousarray(packed.T)
            stream = np.ascontiguousarray(words[:, first:last].T).view(np.uint8)
            return stream if bits in (4, 8) else nibbles(unpack(stream, bits))

        def own_scales(first: int, last: int) -> Floats:
            return np.ascontiguousarray(scales.floats("scales")[:, first:last].T)

        def own_zeros(first: int, last: int) -> Floats:
            return np.ascontiguousarray(self._zeros(stored, bits)[:, first:last].T).astype(np.float32)

        grid = Grid((outputs, inputs), 8 if bits == 8 else 4, q, own_scales, own_zeros, group, order, irregular)
        return grid.weight()

    def _group(self, inputs: int, groups: int) -> int:
        """Columns of a group."""
        size = inputs if self.group_size == -1 else self.group_size
        if -(-inputs // size) == groups:
            return size
        if not self.varied or inputs % groups:
            raise ValueError(f"it has {groups} groups, and {inputs} inputs have {-(-inputs // size)} of {size}")
        return inputs // groups

    def _zeros(self, stored: Words, bits: int) -> Bytes:
        """(groups, out)."""
        if not self.one_less:
            return unpack(np.ascontiguousarray(stored).view(np.uint8), bits)
        if bits == 3:
            return (unpack(np.ascontiguousarray(stored).view(np.uint8), bits) + np.uint8(1)) & np.uint8(7)
        one = sum(1 << at for at in range(0, 32, bits))  # in each field of a word
        return unpack((stored.view(np.uint32) + np.uint32(one)).view(np.uint8), bits)

    def _order(
        self, g_idx: Published | None, inputs: int, group: int, groups: int
    ) -> tuple[Columns | None, Columns | None]:
        """The order in which columns of a group stand together, if it is not their own; and where there is none, the
        group of each column."""
        if g_idx is None:
            if self.desc_act:
                raise ValueError("desc_act is true, and its tensor 'g_idx', which says the order, is missing")
            return None, None
        of_column = g_idx.of("g_idx", "I32", inputs).astype(np.int64)
        if of_column.min() < 0 or of_column.max() >= groups:
            raise ValueError(f"g_idx names groups from {of_column.min()} to {of_column.max()}; there are {groups}")
        if np.array_equal(of_column, np.arange(inputs) // group):
            return None, None
        order = side_by_side(of_column, group)
        return (order, None) if order is not None else (None, of_column)


def _down(words: Words, bits: int) -> Bytes:
    """The numbers of streams down the rows, one a byte: (words, out) -> (in, out)."""
    if bits == 3:
        return unpack(np.ascontiguousarray(words.T).view(np.uint8), bits).T
    shifts = np.arange(0, 32, bits, dtype=np.uint32)[:, None]
    fields: Bytes = (words.view(np.uint32)[:, None] >> shifts).astype(np.uint8) & np.uint8((1 << bits) - 1)
    return fields.reshape(-1, words.shape[1])
