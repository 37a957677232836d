"""Writes weights as quantized checkpoints publish them, number by number: slow, and independent of what reads them.

Each writer takes numbers and gives tensors by suffix, (dtype, shape, bytes) as `checkpoints.write_safetensors` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoints import write_checkpoint, write_tensors
from quickbrown.quant.formats import E4M3, NF4
from quickbrown.weights.safetensors import SafetensorsSource

Numbers = npt.NDArray[Any]
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def words(numbers: Numbers, bits: int) -> Numbers:
    """Rows of numbers as streams of bits from the lowest up: (n, m) -> int32 (n, ceil(m * bits / 32))."""
    count = -(-numbers.shape[1] * bits // 32)
    out = []
    for row in numbers:
        stream = sum(int(q) << i * bits for i, q in enumerate(row))
        out.append(np.frombuffer(stream.to_bytes(4 * count, "little"), "<i4"))
    return np.array(out, "<i4").reshape(len(numbers), count)


def tensor(dtype: str, array: Numbers) -> tuple[str, tuple[int, ...], bytes]:
    return dtype, array.shape, np.ascontiguousarray(array).tobytes()


def gptq(
    q: Numbers, zeros: Numbers, scales: Numbers, bits: int, v1: bool = True, g_idx: Numbers | None = None
) -> Tensors:
    """q (out, in), zeros and scales (out, groups)."""
    stored = words(zeros.T, bits)
    if v1 and bits == 3:
        stored = words((zeros.T - 1) % 8, 3)
    elif v1:  # all fields of a word at once, as GPTQModel does
        stored = (stored.view("<u4") - np.uint32(sum(1 << at for at in range(0, 32, bits)))).view("<i4")
    made = {".qweight": tensor("I32", words(q, bits).T), ".qzeros": tensor("I32", stored)}
    made[".scales"] = tensor("F16", scales.T.astype("<f2"))
    if g_idx is not None:
        made[".g_idx"] = tensor("I32", g_idx.astype("<i4"))
    return made


def awq(q: Numbers, zeros: Numbers, scales: Numbers) -> Tensors:
    """q (out, in), zeros and scales (out, groups)."""

    def packed(numbers: Numbers) -> Numbers:  # (n, out) -> (n, out / 8)
        out = np.zeros((len(numbers), numbers.shape[1] // 8), np.uint32)
        for k, place in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
            out |= numbers[:, place::8].astype(np.uint32) << np.uint32(4 * k)
        return out.view("<i4")

    made = {".qweight": tensor("I32", packed(q.T)), ".qzeros": tensor("I32", packed(zeros.T))}
    return made | {".scales": tensor("F16", scales.T.astype("<f2"))}


def awq_rows(q: Numbers, zeros: Numbers, scales: Numbers, spare: int = 0) -> Tensors:
    """Version "gemv", with room for so many words of zeros more than are needed."""
    count = -(-zeros.shape[1] // 8) + spare
    room = ((0, 0), (0, 8 * count - zeros.shape[1]))
    made = {".qweight": tensor("I32", words(q, 4)), ".qzeros": tensor("I32", words(np.pad(zeros, room), 4))}
    return made | {".scales": tensor("F16", np.pad(scales, room).astype("<f2"))}


def nvfp4(codes: Numbers, scales: Numbers, whole: float) -> Tensors:
    """Codes of 4-bit floats (out, in), scales as codes of E4M3 (out, in / 16)."""
    made = {".weight_packed": tensor("U8", (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8))}
    made[".weight_scale"] = tensor("F8_E4M3", scales.astype(np.uint8))
    return made | {".weight_global_scale": tensor("F32", np.array([whole], "<f4"))}


FLOATS4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def nf4(values: Numbers) -> tuple[Tensors, Numbers]:
    """The nearest of what nf4 can be, with double quantization left out, and what that is: blocks of 64."""
    blocks = values.reshape(-1, 64)
    largest = np.abs(blocks).max(-1).astype("<f4")
    q = np.abs(blocks[..., None] / largest[:, None, None] - NF4).argmin(-1)
    flat = q.reshape(-1)
    made = {
        ".weight": tensor("U8", (flat[0::2] << 4 | flat[1::2]).astype(np.uint8)[:, None]),
        ".weight.absmax": tensor("F32", largest),
        ".weight.quant_map": tensor("F32", NF4.astype("<f4")),
    }
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(values.shape)}
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    made[".weight.quant_state.bitsandbytes__nf4"] = tensor("U8", text)
    return made, (NF4[q] * largest[:, None]).reshape(values.shape).astype(np.float32)


def rounded(values: Numbers, bits: int, group: int, zero: int | None = None) -> tuple[Numbers, Numbers, Numbers]:
    """q, zeros and float16 scales for groups of columns; one zero for all if it is given."""
    parts = values.reshape(len(values), -1, group)
    top = 2**bits - 1
    low, high = np.minimum(parts.min(-1), 0), np.maximum(parts.max(-1), 0)
    if zero is None:
        scales = ((high - low) / top).astype("<f2").astype(np.float32)
        zeros = np.clip(np.rint(-low / scales), 0, top).astype(np.int64)
    else:
        scales = (np.maximum(-low, high) / (zero - 0.5)).astype("<f2").astype(np.float32)
        zeros = np.full(low.shape, zero)
    q = np.clip(np.rint(parts / scales[..., None]) + zeros[..., None], 0, top).astype(np.int64)
    return q.reshape(values.shape), zeros, scales


def meant(q: Numbers, zeros: Numbers, scales: Numbers, groups: Numbers) -> Numbers:
    """(q - zero) * scale, float32; `groups` is that of each column."""
    return ((q - zeros[:, groups]) * scales[:, groups].astype(np.float64)).astype(np.float32)


def to_e4m3(values: Numbers) -> Numbers:
    """The nearest floats of 8 bits, as bytes."""
    finite = np.where(np.isnan(E4M3), np.inf, E4M3)
    return np.abs(values[..., None] - finite).argmin(-1).astype(np.uint8)


def _gptq(values: Numbers, bits: int, group: int, ordered: bool = False, zero: int | None = None) -> Any:
    dice = np.random.default_rng(3)
    groups = np.arange(values.shape[1]) // group
    if ordered:
        groups = dice.permutation(groups)
    order = np.argsort(groups, kind="stable")
    q, zeros, scales = rounded(values[:, order], bits, group, zero)
    back = np.empty_like(q)
    back[:, order] = q
    return gptq(back, zeros, scales, bits, g_idx=groups), meant(back, zeros, scales, groups)


def _awq(values: Numbers) -> Any:
    q, zeros, scales = rounded(values, 4, 32)
    return awq(q, zeros, scales), meant(q, zeros, scales, np.arange(values.shape[1]) // 32)


def _awq_rows(values: Numbers) -> Any:
    q, zeros, scales = rounded(values, 4, 32)
    return awq_rows(q, zeros, scales, 2), meant(q, zeros, scales, np.arange(values.shape[1]) // 32)


def _nvfp4(values: Numbers) -> Any:
    groups = values.reshape(len(values), -1, 16)
    whole = np.float32(448 * 6 / np.abs(values).max())
    scales = to_e4m3(np.abs(groups).max(-1) / 6 * whole)
    each = E4M3[scales] / whole
    codes = np.abs(groups[..., None] / np.maximum(each, 1e-30)[..., None, None] - FLOATS4).argmin(-1)
    return nvfp4(codes.reshape(values.shape), scales, whole), (FLOATS4[codes] * each[..., None]).reshape(values.shape)


def _int8(values: Numbers) -> Any:
    largest = np.abs(values).max(-1).astype("<f4")
    q = np.rint(values / largest[:, None] * 127).astype(np.int8)
    made = {".weight": tensor("I8", q), ".SCB": tensor("F32", largest)}
    scale = largest * np.float32(1 / 127)
    return made | {".weight_format": tensor("U8", np.array(0, np.uint8))}, q * scale[:, None]


def _packed(values: Numbers) -> Any:
    q, zeros, scales = rounded(values, 4, 32, 8)
    made = {".weight_packed": tensor("I32", words(q, 4)), ".weight_shape": tensor("I64", np.array(q.shape, "<i8"))}
    made[".weight_scale"] = tensor("F16", scales.astype("<f2"))
    return made, meant(q, zeros, scales, np.arange(values.shape[1]) // 32)


def _channel(values: Numbers) -> Any:
    q, zeros, scales = rounded(values, 8, values.shape[1], 128)
    made = {".weight": tensor("I8", (q - 128).astype(np.int8)), ".weight_scale": tensor("F16", scales.astype("<f2"))}
    return made, meant(q, zeros, scales, np.zeros(values.shape[1], int))


def _fp8(values: Numbers) -> Any:
    rows, columns = (-(-n // 64) for n in values.shape)
    scales = np.empty((rows, columns), "<f4")
    for i in range(rows):
        for j in range(columns):
            scales[i, j] = np.abs(values[64 * i : 64 * i + 64, 64 * j : 64 * j + 64]).max() / 448
    each = np.repeat(np.repeat(scales, 64, 0), 64, 1)[: values.shape[0], : values.shape[1]]
    q = to_e4m3(values / each)
    return {".weight": tensor("F8_E4M3", q), ".weight_scale_inv": tensor("F32", scales)}, E4M3[q] * each


def _hqq(values: Numbers) -> Any:
    q, zeros, scales = rounded(values, 4, 32)
    shift = zeros + np.float32(0.25)  # zero points need not be whole
    rows = q.reshape(-1, 32)
    half = len(rows) // 2
    made = {".W_q": tensor("U8", (rows[:half] << 4 | rows[half:]).astype(np.uint8))}
    made[".scale"] = tensor("F16", scales.reshape(-1, 1).astype("<f2"))
    made[".zero"] = tensor("F16", shift.reshape(-1, 1).astype("<f2"))
    made[".shape"] = tensor("I64", np.array(values.shape, "<i8"))
    for name, number in (("nbits", 4), ("axis", 1), ("group_size", 32)):
        made["." + name] = tensor("I32", np.array(number, "<i4"))
    made[".compute_dtype"] = tensor("U8", np.frombuffer(b"torch.float16", np.uint8))
    return made, meant(q, shift, scales, np.arange(values.shape[1]) // 32)


def _scheme(format: str, **weights: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": groups, "ignore": ["lm_head"]}


_PACKED = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
_CHANNEL = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}

# name -> quantization_config, what makes tensors and values of a weight, and the format that holds it
CHECKPOINTS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 32}, lambda w: _gptq(w, 4, 32), "u4z"),
    "gptq sym": (
        {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True},
        lambda w: _gptq(w, 4, 64, zero=8),
        "q4_0",
    ),
    "gptq order": (
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True},
        lambda w: _gptq(w, 4, 32, True),
        "u4z",
    ),
    "gptq 3": ({"quant_method": "gptq", "bits": 3, "group_size": 32}, lambda w: _gptq(w, 3, 32), "u4z"),
    "gptq 8": ({"quant_method": "gptq", "bits": 8, "group_size": 32}, lambda w: _gptq(w, 8, 32), "u8z"),
    "gptq 16 in a group": ({"quant_method": "gptq", "bits": 4, "group_size": 16}, lambda w: _gptq(w, 4, 16), "f32"),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, _awq, "u4z"),
    "awq rows": ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv"}, _awq_rows, "u4z"),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, nf4, "nf4"),
    "int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, _int8, "u8z"),
    "packed": (_scheme("pack-quantized", **_PACKED), _packed, "q4_0"),
    "channel": (_scheme("int-quantized", **_CHANNEL), _channel, "q8_0"),
    "nvfp4": (_scheme("nvfp4-pack-quantized", num_bits=4, type="float", group_size=16), _nvfp4, "f32"),
    "fp8": (
        {"quant_method": "fp8", "weight_block_size": [64, 64], "modules_to_not_convert": ["lm_head"]},
        _fp8,
        "e4m3",
    ),
    "hqq": ({"quant_method": "hqq", "quant_config": {}, "skip_modules": ["lm_head"]}, _hqq, "u4z"),
}


def write(folder: Path, name: str, **fields: Any) -> tuple[Path, Path]:
    """A tiny Llama whose linears are published in one of `CHECKPOINTS`, and its twin: the same values in float32."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16} | fields
    twin = write_checkpoint(folder / "twin", model_type="llama", dtype="f32", **sizes)
    config, encode, _ = CHECKPOINTS[name]
    source = SafetensorsSource(twin)
    quantized: Tensors = {}
    plain: Tensors = {}
    for weight_name in source.names():
        weight = source.get(weight_name)
        values = weight.decode()
        if "_proj." in weight_name:
            tensors, values = encode(values)
            quantized |= {weight_name.removesuffix(".weight") + suffix: t for suffix, t in tensors.items()}
        else:
            quantized[weight_name] = tensor("F32", values)
        plain[weight_name] = tensor("F32", values.astype("<f4"))
    write_tensors(twin, plain)
    made = write_checkpoint(folder / "quantized", model_type="llama", dtype="f32", **sizes)
    write_tensors(made, quantized)
    described(made, config)
    return made, twin


def described(folder: Path, config: Mapping[str, Any] | None) -> None:
    """Put a quantization_config into config.json."""
    path = folder / "config.json"
    fields = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(fields | {"quantization_config": config}, indent=2) + "\n", "utf-8")
