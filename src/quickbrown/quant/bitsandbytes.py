"""Linears as bitsandbytes publishes them: NF4 and FP4 (Dettmers et al. 2023), and LLM.int8 (Dettmers et al. 2022).

4 bits, of a weight (out, in) in blocks of `blocksize` values of all its rows end to end:

    weight                             bytes of nibbles, the first of two in the high half
    weight.absmax                      float32 (blocks), or uint8 with double quantization
    weight.quant_map                   float32 (16), what a nibble stands for
    weight.nested_absmax, .nested_quant_map   with double quantization: float32 (blocks / nested_blocksize), (256)
    weight.quant_state.bitsandbytes__nf4, or __fp4   bytes of JSON: quant_type, blocksize, shape, nested_offset, ...

    W = quant_map[nibble] * absmax
    absmax = nested_quant_map[q] * nested_absmax + nested_offset, in float32

8 bits: weight, int8 (out, in), and SCB, float32 (out): W = weight * (SCB * (1 / 127)).

Values are those of `dequantize_4bit`, before its cast. Of 8 bits the scale is rounded to float32 before the product,
where `int8_vectorwise_dequant` rounds that product first: they agree to 2^-23.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown.quant.formats import FP4, NF4, Bytes, Floats
from quickbrown.quant.integers import Grid, constant
from quickbrown.quant.published import Parts, take
from quickbrown.quant.weight import MadeWeight, Weight

Indices = npt.NDArray[np.int64]

_STATES = {f".weight.quant_state.bitsandbytes__{kind}": kind for kind in ("nf4", "fp4")}
_BOOKS = {"nf4": NF4, "fp4": FP4}
_NATIVE = 64  # values of a block of nf4 and fp4
_INVERSE = np.float32(1 / 127)


class BitsAndBytes:
    """The encoding of a checkpoint. Raises ValueError for a config that says what is not read."""

    suffixes = (
        ".weight", ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map",
        *_STATES, ".SCB", ".weight_format",
    )  # fmt: skip
    unread = ()

    def __init__(self, config: Mapping[str, Any]) -> None:
        four, eight = (config.get(name, config.get(f"_{name}")) for name in ("load_in_4bit", "load_in_8bit"))
        if (four is True) == (eight is True):
            raise ValueError("one of load_in_4bit and load_in_8bit must be true")
        self.summary = "bitsandbytes, 8 bits"
        if four:
            self.summary = f"bitsandbytes, {config.get('bnb_4bit_quant_type', 'fp4')}"

    def weight(self, parts: Parts) -> Weight:
        """The weight of a linear, from its tensors by their suffixes. Raises ValueError for tensors that do not fit."""
        return _int8(parts) if ".SCB" in parts else _4bit(parts)


def _int8(parts: Parts) -> Weight:
    weight, statistics = take(parts, ".weight", ".SCB")
    numbers = weight.of("weight", "I8", -1, -1)
    outputs, inputs = numbers.shape
    if not numbers.size:
        raise ValueError("weight is empty")
    if ".weight_format" in parts and parts[".weight_format"].number("weight_format") != 0:
        raise ValueError("weight_format is not 0, whole rows; no other order is read")
    scales = statistics.of("SCB", "F32", outputs).astype(np.float32) * _INVERSE

    def q(first: int, last: int) -> Bytes:
        return np.asarray(numbers[first:last].view(np.uint8) ^ np.uint8(128), np.uint8)

    def own_scales(first: int, last: int) -> Floats:
        return scales[first:last, None]

    return Grid((outputs, inputs), 8, q, own_scales, constant(128, 1), inputs).weight()


def _4bit(parts: Parts) -> Weight:
    kinds = [kind for suffix, kind in _STATES.items() if suffix in parts]
    if len(kinds) != 1:
        raise ValueError("needs one tensor 'weight.quant_state.bitsandbytes__nf4' or '__fp4'")
    kind = kinds[0]
    state = _state(parts, kind)
    outputs, inputs = state["shape"]
    block, size = state["blocksize"], outputs * inputs
    weight, _, book = take(parts, ".weight", ".weight.absmax", ".weight.quant_map")
    if len(weight.data) != -(-size // 2):
        raise ValueError(f"weight has {len(weight.data)} bytes, not {-(-size // 2)} for shape {(outputs, inputs)}")
    packed, entries = weight.data, book.of("weight.quant_map", "F32", 16).astype(np.float32)
    absmax = _absmax(parts, -(-size // block), state)
    native = inputs % _NATIVE == 0 and block % _NATIVE == 0 and np.array_equal(entries, _BOOKS[kind])

    def blocks(first: int, last: int) -> Bytes:
        nibbles = packed[first * inputs // 2 : last * inputs // 2].reshape(last - first, -1, _NATIVE // 2)
        starts = np.arange(first * inputs, last * inputs, _NATIVE)
        scales = absmax(starts // block).reshape(last - first, -1, 1).astype("<f4").view(np.uint8)
        return np.concatenate([scales, nibbles], -1).reshape(last - first, -1)

    def values(first: int, last: int) -> Bytes:
        at = np.arange(first * inputs, last * inputs)
        nibbles = packed[at // 2] >> (4 * (1 - at % 2)).astype(np.uint8) & np.uint8(15)
        made: Floats = (entries[nibbles] * absmax(at // block)).astype("<f4").reshape(last - first, inputs)
        return made.view(np.uint8)

    return MadeWeight(kind if native else "f32", (outputs, inputs), blocks if native else values)


def _state(parts: Parts, kind: str) -> dict[str, Any]:
    """The JSON of a weight, its fields checked."""
    what = f"weight.quant_state.bitsandbytes__{kind}"
    data = parts["." + what].of(what, "U8", -1).tobytes()
    try:
        state = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{what} is not JSON") from None
    if not isinstance(state, dict) or state.get("quant_type") != kind:
        raise ValueError(f"{what} does not describe {kind}")
    shape, block = state.get("shape"), state.get("blocksize")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and 0 < n < 1 << 31 for n in shape):
        raise ValueError(f"{what} has the shape {shape!r}, not (out, in)")
    if type(block) is not int or block < 1:
        raise ValueError(f"{what} has the blocksize {block!r}")
    return state


def _absmax(parts: Parts, blocks: int, state: Mapping[str, Any]) -> Callable[[Indices], Floats]:
    """The largest magnitudes of blocks by their numbers, float32."""
    absmax = parts[".weight.absmax"]
    if absmax.dtype == "F32":
        plain = absmax.of("weight.absmax", "F32", blocks)
        return lambda at: plain[at].astype(np.float32)
    q = absmax.of("weight.absmax", "U8", blocks)
    nested, book = take(parts, ".weight.nested_absmax", ".weight.nested_quant_map")
    block, offset = state.get("nested_blocksize"), state.get("nested_offset")
    if type(block) is not int or block < 1 or not isinstance(offset, (int, float)) or not math.isfinite(offset):
        raise ValueError(f"its nested_blocksize is {block!r} and its nested_offset {offset!r}")
    entries = book.of("weight.nested_quant_map", "F32", 256).astype(np.float32)
    scales = nested.of("weight.nested_absmax", "F32", -(-blocks // block)).astype(np.float32)
    return lambda at: entries[q[at]] * scales[at // block] + np.float32(offset)
