"""Writes weights.json: small weights as bitsandbytes, compressed-tensors, HQQ, torchao and transformers publish them,
and the values that those libraries say they have, in float32.

    python tests/golden/quantized/make.py        with all of them

{"versions": {...}, "cases": {name: {"config": quantization_config, "tensors": {suffix: [dtype, shape, base64]},
"shape": of the values, "sha256": of them, as float32 without negative zeros}}}; for "bitsandbytes int8" "values" too.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch

TYPES = {
    torch.uint8: "U8", torch.int8: "I8", torch.int32: "I32", torch.int64: "I64", torch.float32: "F32",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip
SHAPE = (16, 128)
cases: dict[str, Any] = {}


def coded(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()).decode()


def case(name: str, config: dict[str, Any], tensors: dict[str, torch.Tensor], values: torch.Tensor) -> None:
    cases[name] = {
        "config": config,
        "tensors": {key: [TYPES[t.dtype], list(t.shape), coded(t)] for key, t in tensors.items()},
        "shape": list(values.shape),
        "sha256": hashlib.sha256((values.float() + 0.0).contiguous().numpy().tobytes()).hexdigest(),
    }


def weights(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


def bitsandbytes_() -> None:
    import bitsandbytes.functional as bnb

    for kind in ("nf4", "fp4"):
        for twice in (False, True):
            for block in (64, 128) if kind == "nf4" else (64,):
                # double quantization needs more than a block of scales to be worth a test
                w = weights(1, (130, 128) if twice else SHAPE)
                packed, state = bnb.quantize_4bit(w, blocksize=block, quant_type=kind, compress_statistics=twice)
                tensors = {".weight": packed}
                for key, tensor in state.as_dict(packed=True).items():
                    tensors[f".weight.{key}"] = tensor
                values = bnb.dequantize_4bit(packed, state)
                config = {"load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": twice}
                name = f"bitsandbytes {kind}{' twice' if twice else ''}{'' if block == 64 else f' {block}'}"
                case(name, {"quant_method": "bitsandbytes"} | config, tensors, values)
    w = weights(2).half()
    q, scb, _ = bnb.int8_vectorwise_quant(w)
    tensors = {".weight": q, ".SCB": scb, ".weight_format": torch.tensor(0, dtype=torch.uint8)}
    values = bnb.int8_vectorwise_dequant(q, scb)
    name = "bitsandbytes int8"
    case(name, {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors, values)
    cases[name]["values"] = coded(values)


def compressed_tensors_() -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    def one(name: str, format: str, dtype: torch.dtype, g_idx: bool = False, **args: Any) -> None:
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
        w, a = weights(3), scheme.weights
        rows, columns = SHAPE
        if a.strategy == "block":
            n, k = a.block_structure
            tiles = w.reshape(rows // n, n, columns // k, k).transpose(1, 2).reshape(rows // n, columns // k, -1)
        else:
            groups = {"tensor": (1, -1), "channel": (rows, 1, -1), "group": (rows, -1, a.group_size)}[a.strategy]
            tiles = w.reshape(groups)
        low, high = tiles.amin(-1).clamp(max=0), tiles.amax(-1).clamp(min=0)
        zero = None
        if a.type == "float":
            scale = torch.maximum(-low, high) / 448
        elif a.symmetric:
            scale = torch.maximum(-low, high) / (2 ** (a.num_bits - 1) - 0.5)
        else:
            scale = (high - low) / (2**a.num_bits - 1)
        scale = scale.to(dtype)
        state = {"weight": w, "weight_scale": scale}
        if not a.symmetric:
            least = -(2 ** (a.num_bits - 1))
            zero = (least - low / scale.float()).round().clamp(least, -least - 1).to(torch.int8)
            state["weight_zero_point"] = zero
        if g_idx:
            order = torch.randperm(columns, generator=torch.Generator().manual_seed(5))
            group = torch.empty(columns, dtype=torch.int32)
            group[order] = (torch.arange(columns) // a.group_size).int()
            state["weight_g_idx"] = group
        compressor = BaseCompressor.get_value_from_registry(format)
        if g_idx:  # the library keeps the columns in place and asks g_idx for the scale of each
            moved = compressor.compress({**state, "weight": w[:, order]} | {}, scheme)
            moved.pop("weight_g_idx", None)
            values = torch.empty(SHAPE)
            wide = {**moved, "weight_scale": scale.float()}
            values[:, order] = compressor.decompress(wide, scheme)["weight"]
            from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

            q = unpack_from_int32(moved["weight_packed"], a.num_bits, torch.Size(SHAPE))
            back = torch.empty_like(q)
            back[:, order] = q
            tensors = {**moved, "weight_packed": pack_to_int32(back, a.num_bits), "weight_g_idx": group}
        else:
            tensors = compressor.compress(dict(state), scheme)
            values = compressor.decompress({**tensors, "weight_scale": scale.float()}, scheme)["weight"]
        weights_config = {key: value for key, value in a.model_dump(mode="json").items() if value is not None}
        group_0 = {"targets": ["Linear"], "weights": weights_config, "input_activations": None}
        config = {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group_0}}
        config |= {"ignore": ["lm_head"], "kv_cache_scheme": None, "quantization_status": "compressed"}
        case(f"compressed-tensors {name}", config, {f".{key}": t for key, t in tensors.items()}, values)

    half, brain, single = torch.float16, torch.bfloat16, torch.float32
    group = {"strategy": "group", "type": "int"}
    one("int4", "pack-quantized", brain, num_bits=4, group_size=32, symmetric=True, **group)
    one("int4 zeros", "pack-quantized", half, num_bits=4, group_size=64, symmetric=False, **group)
    one("int4 float32 scales", "pack-quantized", single, num_bits=4, group_size=128, symmetric=True, **group)
    one("int4 order", "pack-quantized", brain, g_idx=True, num_bits=4, group_size=32, symmetric=True, **group)
    one("int3", "pack-quantized", brain, num_bits=3, group_size=64, symmetric=False, **group)
    one("int8 packed", "pack-quantized", brain, num_bits=8, strategy="channel", type="int", symmetric=True)
    one("int8", "int-quantized", single, num_bits=8, strategy="channel", type="int", symmetric=True)
    one("int8 zeros", "int-quantized", brain, num_bits=8, group_size=32, symmetric=False, **group)
    one("int8 tensor", "naive-quantized", brain, num_bits=8, strategy="tensor", type="int", symmetric=True)
    one("float8", "float-quantized", brain, num_bits=8, strategy="channel", type="float", symmetric=True)
    one("float8 tensor", "float-quantized", brain, num_bits=8, strategy="tensor", type="float", symmetric=True)
    block = {"strategy": "block", "block_structure": [16, 64], "type": "float"}
    one("float8 blocks", "float-quantized", single, num_bits=8, symmetric=True, **block)
    nvfp4_()


def nvfp4_() -> None:
    """Which compressed-tensors gives in bfloat16 only; its own `dequantize` has the float32 before that."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    fields = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
    args = QuantizationArgs(**fields)
    w = weights(3)
    whole = (448 * 6 / w.abs().max()).reshape(1)
    scale = (w.reshape(SHAPE[0], -1, 16).abs().amax(-1) / 6 * whole).to(torch.float8_e4m3fn).float()
    state = {"weight": w, "weight_scale": scale, "weight_global_scale": whole}
    compressor = BaseCompressor.get_value_from_registry("nvfp4-pack-quantized")
    tensors = compressor.compress(state, QuantizationScheme(targets=["Linear"], weights=args))
    q = unpack_fp4_from_uint8(tensors["weight_packed"], *SHAPE, torch.float32)
    values = dequantize(q, tensors["weight_scale"].float(), args=args, global_scale=whole, dtype=torch.float32)
    group_0 = {"targets": ["Linear"], "weights": fields, "format": "nvfp4-pack-quantized"}
    config = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group_0}, "ignore": ["lm_head"]}
    case("compressed-tensors float4", config, {f".{key}": t for key, t in tensors.items()}, values)


def hqq_() -> None:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    for bits, axis, size in ((8, 1, 128), (4, 1, 64), (4, 1, 32), (3, 1, 64), (2, 1, 64), (1, 1, 32), (4, 0, 64)):
        linear = torch.nn.Linear(SHAPE[1], SHAPE[0], bias=False)
        linear.weight.data = weights(bits)
        config = BaseQuantizeConfig(nbits=bits, group_size=size, axis=axis)
        made = HQQLinear(linear, config, compute_dtype=torch.float16, device="cpu", initialize=True)
        made.encoded_state_dict = True
        tensors = {f".{key}": t for key, t in made.state_dict().items() if isinstance(t, torch.Tensor)}
        wide = {**made.meta, "compute_dtype": torch.float32}
        wide |= {key: made.meta[key].float() for key in ("scale", "zero")}
        from hqq.core.quantize import Quantizer

        values = Quantizer.dequantize(made.W_q, wide)
        own = {"weight_quant_params": {"nbits": bits, "group_size": size, "axis": axis}}
        case(
            f"hqq {bits} bits axis {axis} groups {size}", {"quant_method": "hqq", "quant_config": own}, tensors, values
        )


def torchao_() -> None:
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Float8Tensor, Int8Tensor, IntxUnpackedToInt8Tensor, PerRow

    w = weights(11)
    made = {
        "int8": Int8Tensor.from_hp(w, PerRow()),
        "intx": IntxUnpackedToInt8Tensor.from_hp(w, (1, 32), torch.int4),
        "float8": Float8Tensor.from_hp(w),
    }
    for name, one in made.items():
        tensors, _ = flatten_tensor_state_dict({"m.weight": one})
        own = {key.removeprefix("m"): tensor for key, tensor in tensors.items()}
        case(f"torchao {name}", {"quant_method": "torchao", "quant_type": {}}, own, one.dequantize())


def transformers_() -> None:
    from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    w = weights(7, (40, 192))
    for block in ((16, 64), (128, 128), None):
        n, k = block or w.shape
        scale = torch.empty(-(-w.shape[0] // n), -(-w.shape[1] // k))
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                scale[i, j] = w[i * n : (i + 1) * n, j * k : (j + 1) * k].abs().max() / 448
        each = scale.repeat_interleave(n, 0)[: w.shape[0]].repeat_interleave(k, 1)[:, : w.shape[1]]
        q = (w / each).to(torch.float8_e4m3fn)
        scale = scale if block else scale.reshape(())
        values = _dequantize_fp8_weight(q, scale, block, torch.float32)
        config = {"quant_method": "fp8", "weight_block_size": list(block) if block else None}
        case(
            f"fp8 {block}",
            config | {"activation_scheme": "dynamic"},
            {".weight": q, ".weight_scale_inv": scale},
            values,
        )

    dice = torch.Generator().manual_seed(9)
    blocks = torch.randint(0, 256, (2, 32, 4, 16), dtype=torch.uint8, generator=dice)
    scales = torch.randint(110, 130, (2, 32, 4), dtype=torch.uint8, generator=dice)
    values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
    case("mxfp4", {"quant_method": "mxfp4"}, {"_blocks": blocks, "_scales": scales}, values)


if __name__ == "__main__":
    torch.manual_seed(0)
    bitsandbytes_()
    compressed_tensors_()
    hqq_()
    torchao_()
    transformers_()
    names = ("bitsandbytes", "compressed-tensors", "hqq", "torch", "torchao", "transformers")
    found = {"versions": {name: importlib.metadata.version(name) for name in names}, "cases": cases}
    Path(__file__).with_name("weights.json").write_text(json.dumps(found, separators=(",", ":")) + "\n", "utf-8")
