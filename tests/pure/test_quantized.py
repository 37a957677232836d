"""Quantized checkpoints: what their tensors mean, against those who publish them; what is refused, and how.

tests/golden/quantized/make.py has the libraries' own values; for GPTQ and AWQ, whose libraries want a GPU,
tests/quantized.py writes tensors number by number.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import quantized
from checkpoints import write_checkpoint, write_tensors
from quickbrown.describe import describe
from quickbrown.quant.encodings import ENCODINGS, encoding, skipped
from quickbrown.quant.published import Published
from quickbrown.weights.safetensors import SafetensorsSource
from quickbrown.weights.source import BadFile

CASES = json.loads((Path(__file__).parents[1] / "golden/quantized/weights.json").read_text("utf-8"))["cases"]
Q = "model.layers.0.self_attn.q_proj"


def published(tensors):
    return {
        suffix: Published(dtype, tuple(shape), np.frombuffer(data, np.uint8))
        for suffix, (dtype, shape, data) in tensors.items()
    }


def golden(case):
    tensors = {key: (dtype, shape, base64.b64decode(data)) for key, (dtype, shape, data) in case["tensors"].items()}
    return published(tensors)


# Held in float32: no format has a scale for each column, or other groups than of 32.
WIDE = ("hqq 4 bits axis 0 groups 64",)
HELD = {
    "bitsandbytes nf4": "nf4", "bitsandbytes fp4": "fp4", "bitsandbytes int8": "u8z", "mxfp4": "mxfp4", "fp8": "e4m3",
    "hqq 8": "u8z", "hqq": "u4z", "compressed-tensors int4 float32": "u8z", "compressed-tensors int4 zeros": "u4z",
    "compressed-tensors int4": "q4_0", "compressed-tensors int3": "u4z", "compressed-tensors int8 packed": "q8_0",
    "compressed-tensors int8 zeros": "u8z", "compressed-tensors int8 tensor": "q8_0", "compressed-tensors int8": "u8z",
    "compressed-tensors float8": "e4m3", "compressed-tensors float4": "f32",
    "torchao int8": "u8z", "torchao intx": "u8z", "torchao float8": "e4m3",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_are_the_librarys(name):
    """To the last bit, in the format that is as small as it was published; LLM.int8 multiplies in another order."""
    case = CASES[name]
    weight = encoding(case["config"]).weight(golden(case))
    got = weight.decode()
    assert got.shape == weight.shape == tuple(case["shape"])
    assert np.abs(got).max() > 0.01
    if name == "bitsandbytes int8":
        want = np.frombuffer(base64.b64decode(case["values"]), "<f4").reshape(got.shape)
        np.testing.assert_allclose(got, want, rtol=2.0**-22, atol=0)
    else:
        assert hashlib.sha256((got + np.float32(0)).tobytes()).hexdigest() == case["sha256"]
    format = next(held for prefix, held in sorted(HELD.items(), reverse=True) if name.startswith(prefix))
    assert weight.format == ("f32" if name in WIDE else format)
    assert (weight.columns is not None) == name.endswith("order")


@pytest.mark.parametrize("name", CASES)
def test_slices_are_the_whole(name):
    case = CASES[name]
    weight = encoding(case["config"]).weight(golden(case))
    rows = np.concatenate(list(weight.slices(16)))
    assert rows.dtype == np.uint8
    assert rows.tobytes() == np.ascontiguousarray(weight.data).tobytes()


def numbers(bits, seed=0, shape=(64, 96), group=32):
    dice = np.random.default_rng(seed)
    groups = -(-shape[1] // group)
    zeros = dice.integers(0, 2**bits, (shape[0], groups))
    scales = dice.uniform(0.001, 0.01, (shape[0], groups)).astype(np.float16).astype(np.float32)
    return dice.integers(0, 2**bits, shape), zeros, scales


@pytest.mark.parametrize("v1", [True, False], ids=["gptq", "gptq_v2"])
@pytest.mark.parametrize("group", [32, 64, 128, -1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq(bits, group, v1):
    """Every width, group size and both kinds of zeros, those of 0 among them: a field that borrowed from the next."""
    size = 96 if group == -1 else group
    q, zeros, scales = numbers(bits, group=size)
    zeros[::3] = 0
    config = {"quant_method": "gptq", "bits": bits, "group_size": group}
    config |= {} if v1 else {"checkpoint_format" if bits == 4 else "format": "gptq_v2"}
    weight = encoding(config).weight(published(quantized.gptq(q, zeros, scales, bits, v1)))
    want = quantized.meant(q, zeros, scales, np.arange(96) // size)
    assert weight.decode().tobytes() == want.tobytes()
    assert weight.format == ("u8z" if bits == 8 else "u4z")
    other = encoding(config | {"checkpoint_format": "gptq_v2" if v1 else "gptq"})
    assert (other.weight(published(quantized.gptq(q, zeros, scales, bits, v1))).decode() != want).any()


def test_a_stored_zero_of_15_is_0():
    """Not 16, as by readers that do not mask: a word of eight zeros of 0, less 1 in each field, is 0xEEEEEEEF."""
    q, zeros, scales = numbers(4)
    zeros[:] = 0
    tensors = quantized.gptq(q, zeros, scales, 4)
    assert set(np.frombuffer(tensors[".qzeros"][2], "<u4")) == {0xEEEEEEEF}
    weight = encoding({"quant_method": "gptq", "bits": 4, "group_size": 32}).weight(published(tensors))
    assert (weight.decode() >= 0).all()
    assert weight.decode().tobytes() == (q * np.repeat(scales, 32, 1)).astype(np.float32).tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_in_the_order_of_activations(bits):
    """Columns of a group need not stand together: those that do in another order are held in that order, in the small
    format; groups of unequal sizes are held in float32."""
    q, zeros, scales = numbers(bits, shape=(32, 128))
    dice = np.random.default_rng(1)
    config = {"quant_method": "gptq", "bits": bits, "group_size": 32, "desc_act": True}
    groups = dice.permutation(np.arange(128) // 32)
    weight = encoding(config).weight(published(quantized.gptq(q, zeros, scales, bits, g_idx=groups)))
    assert weight.decode().tobytes() == quantized.meant(q, zeros, scales, groups).tobytes()
    assert weight.format == ("u8z" if bits == 8 else "u4z")
    assert (groups[weight.columns] == np.arange(128) // 32).all()
    uneven = np.minimum(groups, 2)
    weight = encoding(config).weight(published(quantized.gptq(q, zeros, scales, bits, g_idx=uneven)))
    assert weight.decode().tobytes() == quantized.meant(q, zeros, scales, uneven).tobytes()
    assert (weight.format, weight.columns) == ("f32", None)
    plain = encoding(config).weight(published(quantized.gptq(q, zeros, scales, bits, g_idx=np.arange(128) // 32)))
    assert plain.columns is None


def test_gptq_that_varies_by_module():
    q, zeros, scales = numbers(8, group=96)
    tensors = published(quantized.gptq(q, zeros, scales, 8))
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    with pytest.raises(ValueError, match="8 bits, and the config says 4"):
        encoding(config).weight(tensors)
    weight = encoding(config | {"dynamic": {"+:.*down.*": {"bits": 8}}}).weight(tensors)
    assert weight.decode().tobytes() == quantized.meant(q, zeros, scales, np.zeros(96, int)).tobytes()


@pytest.mark.parametrize("zero_point", [True, False])
def test_awq(zero_point):
    """Eight outputs of a word stand in an order of their own, in qweight and in qzeros."""
    q, zeros, scales = numbers(4)
    tensors = quantized.awq(q, zeros, scales)
    if not zero_point:
        del tensors[".qzeros"]
        zeros[:] = 8
    config = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "GEMM", "zero_point": zero_point}
    weight = encoding(config).weight(published(tensors))
    want = quantized.meant(q, zeros, scales, np.arange(96) // 32)
    assert weight.decode().tobytes() == want.tobytes()
    assert weight.format == ("u4z" if zero_point else "q4_0")
    for rows in (8, 24):  # slices that begin inside of a panel
        assert np.concatenate(list(weight.slices(rows))).tobytes() == np.ascontiguousarray(weight.data).tobytes()


@pytest.mark.parametrize("spare", [0, 3])
def test_awq_by_rows(spare):
    """Outputs first, nibbles in their order, and more zeros and scales than groups."""
    q, zeros, scales = numbers(4)
    tensors = published(quantized.awq_rows(q, zeros, scales, spare))
    weight = encoding({"quant_method": "awq", "w_bit": 4, "q_group_size": 32, "version": "GEMV"}).weight(tensors)
    assert weight.decode().tobytes() == quantized.meant(q, zeros, scales, np.arange(96) // 32).tobytes()
    assert weight.format == "u4z"
    assert np.concatenate(list(weight.slices(24))).tobytes() == np.ascontiguousarray(weight.data).tobytes()


NVFP4 = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": {}}


def floats_of_4_bits(exponents, whole, shape=(24, 512)):
    """Every code, in groups whose scales have exponents of E4M3 out of a range: tensors and values."""
    dice = np.random.default_rng(7)
    codes = dice.integers(0, 16, shape)
    groups = (shape[0], shape[1] // 16)
    scales = dice.integers(*exponents, groups) << 3 | dice.integers(0, 8, groups)
    scales[::3, 5] = 0
    values = quantized.FLOATS4[codes] * np.repeat(quantized.E4M3[scales] / np.float32(whole), 16, 1)
    return quantized.nvfp4(codes, scales, whole), values


@pytest.mark.parametrize("exponents", [(0, 6), (7, 12), (11, 15)])
@pytest.mark.parametrize("whole", [1024.0, 3.0, 1537.5, 1e-3])
def test_nvfp4(exponents, whole):
    """In s8_k where a block's scales are near each other: to the last bit by a power of two, else but for three
    roundings of 2^-24. What q and s are together is never too large to be added up exactly."""
    tensors, values = floats_of_4_bits(exponents, whole)
    weight = encoding(NVFP4).weight(published(tensors))
    assert weight.format == "s8_k"
    if np.log2(whole) % 1 == 0:
        np.testing.assert_array_equal(weight.decode(), values)
    else:
        np.testing.assert_allclose(weight.decode(), values, rtol=2.0**-22, atol=0)
    blocks = weight.data.reshape(24, 2, 276).view(np.int8)
    s, q = blocks[..., 4:20].astype(int), blocks[..., 20:].astype(int)
    most = (np.abs(s[..., None]) * np.abs(q.reshape(*s.shape, 16))).max()
    assert most <= 1 << 12
    assert np.concatenate(list(weight.slices(8))).tobytes() == np.ascontiguousarray(weight.data).tobytes()


@pytest.mark.parametrize("exponents", [(7, 10), (1, 15)])
def test_an_nvfp4_scale_that_float32_cannot_bear(exponents):
    """No warning of numpy's, and no number, as the library has it."""
    tensors, _ = floats_of_4_bits(exponents, 1.0)
    tensors[".weight_global_scale"] = quantized.tensor("F32", np.array([1e-44], "<f4"))
    weight = encoding(NVFP4).weight(published(tensors))
    assert not np.isfinite(weight.decode()).all()
    assert weight.data.dtype == np.uint8


@pytest.mark.parametrize(("exponents", "shape"), [((1, 15), (24, 512)), ((7, 10), (24, 384))])
def test_nvfp4_that_is_held_in_float32(exponents, shape):
    """Scales far from each other, or rows that are no whole blocks: exact."""
    tensors, values = floats_of_4_bits(exponents, 1537.5, shape)
    weight = encoding(NVFP4).weight(published(tensors))
    assert weight.format == "f32"
    np.testing.assert_array_equal(weight.decode(), values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({".weight_global_scale": quantized.tensor("F32", np.array([0], "<f4"))}, "is 0.0, not a positive number"),
        ({".weight_global_scale": quantized.tensor("F32", np.array([np.inf], "<f4"))}, "is inf, not a positive"),
        ({".weight_global_scale": quantized.tensor("F32", np.ones(2, "<f4"))}, "holds 2 numbers, not one"),
        ({".weight_scale": quantized.tensor("F8_E4M3", np.full((24, 32), 127, np.uint8))}, "are no number or below 0"),
        ({".weight_scale": quantized.tensor("F8_E4M3", np.full((24, 32), 200, np.uint8))}, "are no number or below 0"),
        ({".weight_scale": quantized.tensor("U8", np.full((24, 32), 20, np.uint8))}, "not F8_E4M3 of shape"),
        (
            {".weight_zero_point": quantized.tensor("I8", np.zeros((24, 32), np.int8))},
            "zero points, which are not read",
        ),
    ],
)
def test_nvfp4_that_is_refused(change, said):
    tensors, _ = floats_of_4_bits((7, 9), 2.0)
    with pytest.raises(ValueError, match=said):
        encoding(NVFP4).weight(published(tensors | change))
    with pytest.raises(ValueError, match="the format is not nvfp4"):
        encoding(NVFP4 | {"format": "mxfp4-pack-quantized"}).weight(published(tensors))


def test_torchaos_int4_is_refused():
    """Groups stand before outputs in its scales: read as another class of torchao it would be noise."""
    tensors = {
        "._weight_qdata": quantized.tensor("I8", np.ones((32, 64), np.int8)),
        "._weight_scale": quantized.tensor("BF16", np.ones((4, 32), "<u2")),
        "._weight_zero_point": quantized.tensor("BF16", np.ones((4, 32), "<u2")),
    }
    with pytest.raises(ValueError, match=r"scale has shape \(4, 32\), and qdata \(32, 64\)"):
        encoding({"quant_method": "torchao"}).weight(published(tensors))


def test_scales_that_are_no_float16():
    """One of bfloat16 is, unless it is very small or large: then 4 bits are held in 8, with a scale of float32."""
    q, zeros, _ = numbers(4)
    for smallest, format in ((2.0**-10, "u4z"), (2.0**-30, "u8z")):
        tensors = quantized.gptq(q, zeros, np.ones(zeros.shape), 4)
        scales = np.full(zeros.shape, smallest * 1.0078125, np.float32)
        bits = (scales.T.view(np.uint32) >> 16).astype("<u2")
        tensors[".scales"] = ("BF16", bits.shape, bits.tobytes())
        weight = encoding({"quant_method": "gptq", "bits": 4, "group_size": 32}).weight(published(tensors))
        assert weight.format == format
        assert weight.decode().tobytes() == quantized.meant(q, zeros, scales, np.arange(96) // 32).tobytes()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "quip"}, "quant_method is 'quip'; read are gptq, awq"),
        ({"quant_method": ["gptq"]}, r"quant_method is \['gptq'\]"),
        ({}, "quant_method is None"),
        ({"quant_method": "gptq", "bits": 5, "group_size": 32}, "'gptq': bits is 5; 2, 3, 4 and 8 are read"),
        ({"quant_method": "gptq", "bits": "4", "group_size": 32}, "bits must be a whole number, not '4'"),
        ({"quant_method": "gptq", "bits": 4}, "'gptq': group_size is missing"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size is 0"),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "marlin"},
            "'gptq': checkpoint_format is 'marlin'; read is 'gptq' or 'gptq_v2'",
        ),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "is_marlin_format": True}, "is_marlin_format is True"),
        ({"quant_method": "awq", "bits": 8}, "'awq': bits is 8; 4 are read"),
        (
            {"quant_method": "awq", "bits": 4, "version": "marlin"},
            "'awq': version is 'marlin'; read is 'gemm' or 'gemv'",
        ),
        ({"quant_method": "bitsandbytes"}, "one of load_in_4bit and load_in_8bit must be true"),
        (
            {"quant_method": "compressed-tensors", "format": "marlin-24"},
            "'compressed-tensors': format is 'marlin-24'; read are pack-quantized",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "dense", "sparsity_config": {"format": "sparse-24"}},
            "sparsity_config is",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": [1]}, "config_groups must be an object of objects"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, r"weight_block_size must be two sizes, not \[128\]"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "'fp8': fmt is 'e5m2'"),
    ],
)
def test_what_is_not_read_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        encoding(config)


@pytest.mark.parametrize("name", [*quantized.CHECKPOINTS, *CASES])
def test_odd_fields(name):
    """In each field of a config, and of what is in it: an encoding comes out, or a ValueError."""
    config = quantized.CHECKPOINTS[name][0] if name in quantized.CHECKPOINTS else CASES[name]["config"]

    def changed(value, odd):
        for key in value:
            yield value | {key: odd}
            if isinstance(value[key], dict):
                yield from (value | {key: inner} for inner in changed(value[key], odd))

    for odd in (None, [], {}, [[1]], {"a": []}, "x", -1, 0, 10**30, 1.5, float("nan"), True):
        for worse in changed(config, odd):
            try:
                assert isinstance(encoding(worse).summary, str)
                skipped(worse)
            except ValueError:
                pass


EXAMPLES = {
    "gptq": lambda: quantized.gptq(*numbers(4), 4, g_idx=np.arange(96) // 32),
    "awq": lambda: quantized.awq(*numbers(4)),
    "awq gemv": lambda: quantized.awq_rows(*numbers(4)),
    "nvfp4": lambda: floats_of_4_bits((7, 12), 3.0)[0],
}


@pytest.mark.parametrize("name", [*EXAMPLES, *CASES])
def test_damaged_tensors_are_refused(name):
    """Each tensor missing, of another type, of another shape, cut: a ValueError when it is opened or read, or values of
    the right shape, never anything else."""
    if name in EXAMPLES:
        method, _, version = name.partition(" ")
        config = {"quant_method": method, "bits": 4, "group_size": 32} | ({"version": version} if version else {})
        config = NVFP4 if name == "nvfp4" else config
        parts = published(EXAMPLES[name]())
    else:
        config, parts = CASES[name]["config"], golden(CASES[name])
    read = encoding(config)
    refused = 0
    for suffix, part in parts.items():
        longer = Published(part.dtype, (*part.shape, 1), part.data)
        wider = Published(part.dtype, tuple(2 * n for n in part.shape) or (2,), np.repeat(part.data, 4))
        worse = [None, longer, wider, Published(part.dtype, part.shape, part.data[:-1])]
        worse += [
            Published(dtype, part.shape, part.data)
            for dtype in ("F64", "I32", "I8", "F32", "F4")
            if dtype != part.dtype
        ]
        worse += [Published(part.dtype, part.shape, np.full_like(part.data, byte)) for byte in (0, 127, 255)]
        worse += [Published(part.dtype, (0, *part.shape[1:]), part.data[:0])]
        for damaged in worse:
            tensors = {**parts, suffix: damaged}
            if damaged is None:
                del tensors[suffix]
            try:
                weight = read.weight(tensors)
                assert np.prod(weight.shape) < 1 << 24
                assert weight.decode().shape == weight.shape
            except ValueError:
                refused += 1
    assert refused > 2 * len(parts) / 3


def folder_of(tmp_path, name="gptq", **fields):
    return quantized.write(tmp_path, name, num_hidden_layers=1, **fields)[0]


def rewrite(folder, change, config=None, shards=1):
    """The tensors of a folder after `change` has had them."""
    source = folder / "model.safetensors"
    data = source.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors[name] = (entry["dtype"], tuple(entry["shape"]), data[8 + length + start : 8 + length + stop])
    change(tensors)
    source.unlink()
    write_tensors(folder, tensors, shards)
    if config is not None:
        quantized.described(folder, config)
    return folder


def test_a_folder(tmp_path):
    """Names are those of the weights; what it takes in the file is counted; heads and norms stay as they are."""
    folder = folder_of(tmp_path)
    source = SafetensorsSource(folder)
    assert source.get(Q + ".weight").format == "u4z"
    assert source.get("lm_head.weight").format == source.get("model.norm.weight").format == "f32"
    assert source.quantization == "gptq, 4 bits, groups of 32"
    assert source.bytes < (folder / "model.safetensors").stat().st_size
    source.release(Q + ".weight")
    again = SafetensorsSource(folder).get(Q + ".weight").decode()
    assert source.get(Q + ".weight").decode().tobytes() == again.tobytes()


@pytest.mark.parametrize("base", [None, "weights"])
@pytest.mark.parametrize("shards", [1, 2])
def test_files_as_autogptq_called_them(tmp_path, base, shards):
    """quantize_config.json beside a config.json that says nothing, and names of weights that follow from it."""
    folder, _ = quantized.write(tmp_path, "gptq")
    want = SafetensorsSource(folder)
    quantized.described(folder, None)
    said = {"bits": 4, "group_size": 32, "desc_act": False, "sym": False, "model_file_base_name": base}
    (folder / "quantize_config.json").write_text(json.dumps(said), "utf-8")
    stem = base or "gptq_model-4bit-32g"
    rewrite(folder, lambda tensors: None, shards=shards)
    for path in folder.glob("model*.safetensors*"):
        text = path.read_bytes()
        (folder / path.name.replace("model", stem, 1)).write_bytes(text.replace(b'"model-0', f'"{stem}-0'.encode()))
        path.unlink()
    source = SafetensorsSource(folder)
    assert source.quantization == "gptq, 4 bits, groups of 32"
    assert source.formats == want.formats
    for name in want.names():
        assert (source.get(name).decode() == want.get(name).decode()).all()
    assert describe(folder)["runs"]
    (folder / "quantize_config.json").write_text('{"bits": 4', "utf-8")
    with pytest.raises(BadFile, match=r"quantize_config\.json.*is not valid JSON"):
        SafetensorsSource(folder)


@pytest.mark.parametrize("name", ["../model", "a/b", "", 3, None, "x" * 300])
def test_a_name_of_weights_that_leads_elsewhere_is_not_followed(tmp_path, name):
    folder, _ = quantized.write(tmp_path / "in", "gptq")
    quantized.described(folder, None)
    (folder / "model.safetensors").rename(tmp_path / "in" / "model.safetensors")
    said = {"bits": 4, "group_size": "/../..", "model_file_base_name": name}
    (folder / "quantize_config.json").write_text(json.dumps(said), "utf-8")
    with pytest.raises(BadFile, match=r"holds no model\.safetensors"):
        SafetensorsSource(folder)


def test_a_file_as_autoawq_wrote_it(tmp_path):
    folder, _ = quantized.write(tmp_path, "awq")
    want = SafetensorsSource(folder)
    quantized.described(folder, None)
    said = {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}
    (folder / "quant_config.json").write_text(json.dumps(said), "utf-8")
    source = SafetensorsSource(folder)
    assert source.quantization == want.quantization
    assert all((source.get(name).decode() == want.get(name).decode()).all() for name in want.names())


def test_a_plain_module_is_read_as_it_is(tmp_path):
    """One of a list of those that are not quantized, or of none."""
    folder, twin = quantized.write(tmp_path, "fp8", num_hidden_layers=1)
    values = SafetensorsSource(twin).get(Q + ".weight").decode()

    def plain(tensors):
        del tensors[Q + ".weight_scale_inv"]
        tensors[Q + ".weight"] = quantized.tensor("F32", values)

    rewrite(folder, plain)
    source = SafetensorsSource(folder)
    assert source.get(Q + ".weight").format == "f32"
    assert source.get(Q + ".weight").decode().tobytes() == values.tobytes()


@pytest.mark.parametrize("name", ["fp8", "int8", "channel", "nf4"])
def test_numbers_without_a_scale_are_refused(tmp_path, name):
    """They would be read as weights of enormous size."""
    folder = folder_of(tmp_path, name)

    def drop(tensors):
        for other in [key for key in tensors if key.startswith(Q) and not key.endswith(".weight")]:
            del tensors[other]

    rewrite(folder, drop)
    with pytest.raises(BadFile, match=f"the quantized weight '{Q}.weight' cannot be read"):
        SafetensorsSource(folder)


def test_both_forms_of_a_weight_are_refused(tmp_path):
    folder = folder_of(tmp_path)
    rewrite(folder, lambda tensors: tensors.update({Q + ".weight": ("F32", (64, 64), bytes(64 * 64 * 4))}))
    with pytest.raises(BadFile, match=f"holds the weight '{Q}.weight' quantized and as it was"):
        SafetensorsSource(folder)
    folder = folder_of(tmp_path / "fp8", "fp8")
    rewrite(folder, lambda tensors: tensors.update({Q + ".weight": ("BF16", (64, 64), bytes(64 * 64 * 2))}))
    with pytest.raises(BadFile, match=r"cannot be read: weight is BF16 of shape \(64, 64\), not F8_E4M3"):
        SafetensorsSource(folder)


@pytest.mark.parametrize("listed", [[Q], ["self_attn"], ["q_proj"], ["model.layers.0"]])
def test_a_quantized_module_that_is_said_to_be_plain_is_refused(tmp_path, listed):
    folder = folder_of(tmp_path)
    quantized.described(folder, {"quant_method": "gptq", "bits": 4, "group_size": 32, "modules_to_not_convert": listed})
    with pytest.raises(BadFile, match="quantized, and its config says that it is not"):
        SafetensorsSource(folder)


def test_desc_act_without_g_idx_is_refused(tmp_path):
    """Its columns would be read with the scales of others."""
    folder = folder_of(tmp_path, "gptq order")
    rewrite(folder, lambda tensors: tensors.pop(Q + ".g_idx"))
    said = f"the quantized weight '{Q}.weight' cannot be read: desc_act is true, and its tensor 'g_idx'"
    with pytest.raises(BadFile, match=said):
        SafetensorsSource(folder)


def test_a_bias_that_no_linear_has(tmp_path):
    """Tools publish one of zeros with every linear: it changes nothing. Any other does."""
    folder = folder_of(tmp_path)
    rewrite(folder, lambda tensors: tensors.update({Q + ".bias": ("F16", (64,), bytes(128))}))
    assert Q + ".bias" not in SafetensorsSource(folder).names()
    rewrite(folder, lambda tensors: tensors.update({Q + ".bias": ("F16", (64,), b"\1" * 128)}))
    with pytest.raises(BadFile, match=re.escape(f"holds the tensor '{Q}.bias', which this llama does not have")):
        SafetensorsSource(folder)


def test_a_quantized_head(tmp_path):
    """lm_head is a linear like others; then it is not the embedding, whatever the config says."""
    folder = folder_of(tmp_path)
    q, zeros, scales = numbers(4, shape=(512, 64))
    head = {"lm_head" + suffix: t for suffix, t in quantized.gptq(q, zeros, scales, 4).items()}

    def quantize_head(tensors):
        del tensors["lm_head.weight"]
        tensors.update(head)

    rewrite(folder, quantize_head)
    want = quantized.meant(q, zeros, scales, np.arange(64) // 32)
    for tied in (False, True):
        fields = json.loads((folder / "config.json").read_text("utf-8")) | {"tie_word_embeddings": tied}
        (folder / "config.json").write_text(json.dumps(fields), "utf-8")
        source = SafetensorsSource(folder)
        assert source.get("lm_head.weight").decode().tobytes() == want.tobytes()
        assert source.config["tie_word_embeddings"] is False


def test_other_faults_of_a_folder(tmp_path):
    folder = folder_of(tmp_path)
    quantized.described(folder, {"quant_method": "vptq"})
    with pytest.raises(BadFile, match="its weights are quantized in a way that is not read: quant_method is 'vptq'"):
        SafetensorsSource(folder)
    quantized.described(folder, "awq")
    with pytest.raises(BadFile, match="its quantization_config is 'awq', not an object"):
        SafetensorsSource(folder)
    quantized.described(folder, None)
    with pytest.raises(BadFile, match=r"holds the tensors? .*, which this llama does not have"):
        SafetensorsSource(folder)
    plain = write_checkpoint(tmp_path / "plain", model_type="llama", tokenizer=None)
    quantized.described(plain, {"quant_method": "gptq", "bits": 4, "group_size": 32})
    assert SafetensorsSource(plain).get(Q + ".weight").format == "f32"  # nothing in it is quantized
    rewrite(folder, lambda t: t.update({Q + ".scales": ("F16", (2, 64), b"\0\x7c" * 128)}))
    quantized.described(folder, {"quant_method": "gptq", "bits": 4, "group_size": 32})
    with pytest.raises(BadFile, match="a scale or a zero point is not finite"):
        SafetensorsSource(folder)


def test_every_method_has_a_test():
    tested = {case["config"]["quant_method"] for case in CASES.values()}
    tested |= {config["quant_method"] for config, _, _ in quantized.CHECKPOINTS.values()}
    assert tested | {"fbgemm_fp8"} == set(ENCODINGS)
