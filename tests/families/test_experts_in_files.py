"""Experts as files hold them: gpt-oss publishes 4-bit floats, outputs first, and where they are not quantized inputs
first; GGUF files may hold a gate of one row as a vector; checkpoints of GLM-4.5 have a layer behind the last.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import rounding
import tiny
from checkpoints import write_safetensors
from configs import ROWS
from gguf_writer import tiny_gguf, write_gguf
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.quant.weight import Weight
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.safetensors import SafetensorsSource
from quickbrown.weights.source import BadFile
from quickbrown.weights.tiny import TinySource

STACKS = ("gate_up_proj", "down_proj")


def written(folder, source, tensors, **more):
    """A folder of these tensors, and of all others of a source as they are."""
    fields = {name: list(v) if isinstance(v, tuple) else v for name, v in source.config.items()}
    (folder / "config.json").write_text(json.dumps(fields | more))
    for name in source.names():
        if not name.endswith(STACKS):
            weight = source.get(name)
            tensors[name] = ("F32", weight.shape, weight.decode().tobytes())
    write_safetensors(folder / "model.safetensors", tensors)
    return SafetensorsSource(folder)


def test_stacks_that_are_not_quantized_are_turned(tmp_path):
    """To the byte, whole and expert by expert."""
    source, tensors = TinySource(**ROWS["gpt_oss"]), {}
    for name in source.names():
        if name.endswith(STACKS):
            turned = source.get(name).decode().swapaxes(1, 2)
            tensors[name] = ("F32", turned.shape, turned.tobytes())
    read = written(tmp_path, source, tensors)
    for name in source.names():
        got, want = read.get(name), source.get(name)
        assert got.decode().tobytes() == want.decode().tobytes(), name
        if name.endswith(STACKS):
            assert got.part(3).decode().tobytes() == want.decode()[3].tobytes(), name
            read.release(name)
    tokens = tiny.text(20)
    rows = [tiny.logits(NativeRunner(tiny.model(s), blocks=1, threads=2), tokens).tobytes() for s in (read, source)]
    assert rows[0] == rows[1]


def test_four_bit_floats(tmp_path):
    """They stay as they are, and the model of them is the reference's."""
    source, tensors = TinySource(**ROWS["gpt_oss"]), {}
    random = np.random.default_rng(0)
    for name in source.names():
        if name.endswith(STACKS):
            experts, outputs, inputs = source.get(name).shape
            shape = (experts, outputs, inputs // 32)
            tensors[name + "_blocks"] = ("U8", (*shape, 16), random.integers(0, 256, (*shape, 16), np.uint8).tobytes())
            tensors[name + "_scales"] = ("U8", shape, random.integers(121, 125, shape, np.uint8).tobytes())
    read = written(tmp_path, source, tensors, quantization_config={"quant_method": "mxfp4"})
    assert {read.get(name).format for name in read.names() if name.endswith(STACKS)} == {"mxfp4"}
    model, tokens = tiny.model(read), tiny.text(20)
    batch = tiny.batch([tiny.Part(tokens, 0, 20, np.zeros(1, np.int32))], np.zeros(1, np.int32))
    got = tiny.logits(NativeRunner(model, blocks=1, threads=2), tokens)
    rounding.close("mxfp4", got, model, tokens, batch, "bf16")


def test_a_gate_of_one_row_may_be_a_vector(tmp_path):
    metadata, tensors = tiny_gguf("f32", **ROWS["qwen2_moe"])
    gates = {name: tensors[name].data for name in tensors if name.endswith("ffn_gate_inp_shexp.weight")}
    assert {tensors[name].shape for name in gates} == {(1, 64)}
    vectors = {name: Weight("f32", (64,), data) for name, data in gates.items()}
    rows = []
    for file, held in (("matrices.gguf", tensors), ("vectors.gguf", tensors | vectors)):
        model = tiny.model(GgufSource(write_gguf(tmp_path / file, metadata, held)))
        rows.append(tiny.logits(NativeRunner(model, blocks=1, threads=2), tiny.text(9, vocabulary=200)).tobytes())
    assert rows[0] == rows[1]


def test_a_layer_behind_the_last_is_passed_over(tmp_path):
    """Of the numbers that it has in published checkpoints, and of no other."""
    source, zeros = TinySource(**ROWS["glm4_moe"]), ("F32", (3,), bytes(12))
    extra = {"model.layers.46.eh_proj.weight": zeros, "model.layers.92.mlp.gate.weight": zeros}
    assert written(tmp_path, source, dict(extra)).names() == source.names()
    with pytest.raises(BadFile, match=r"holds the tensor 'model\.layers\.2\.eh_proj\.weight', which this glm4_moe"):
        written(tmp_path, source, extra | {"model.layers.2.eh_proj.weight": zeros})


def test_a_layer_behind_the_last_of_a_gguf_file(tmp_path):
    """block_count counts it, and nextn_predict_layers says how many such there are."""
    metadata, tensors = tiny_gguf("f32", **ROWS["glm4_moe"])
    extra = {"blk.2.nextn.eh_proj.weight": Weight("f32", (2, 2), np.zeros((2, 8), np.uint8))}
    more = {"glm4moe.block_count": 3, "glm4moe.nextn_predict_layers": 1}
    plain = GgufSource(write_gguf(tmp_path / "plain.gguf", metadata, tensors))
    read = GgufSource(write_gguf(tmp_path / "more.gguf", metadata | more, tensors | extra))
    assert read.config == plain.config
    assert read.names() == plain.names()
    with pytest.raises(BadFile, match=r"holds the tensor 'blk\.2\.nextn\.eh_proj\.weight', which this glm4moe"):
        GgufSource(write_gguf(tmp_path / "wrong.gguf", metadata, tensors | extra))
    wrong = {"glm4moe.block_count": 3, "glm4moe.nextn_predict_layers": 3}
    with pytest.raises(BadFile, match="claims 3 layers, 3 of them behind the last"):
        GgufSource(write_gguf(tmp_path / "none.gguf", metadata | wrong, tensors))
    huge = {"glm4moe.block_count": 1 << 30, "glm4moe.nextn_predict_layers": (1 << 30) - 2}
    with pytest.raises(BadFile, match=r"claims \d+ layers and holds \d+ tensors"):
        GgufSource(write_gguf(tmp_path / "huge.gguf", metadata | huge, tensors))
