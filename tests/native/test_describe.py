"""What is said of a model's file without loading it, and of files that cannot run."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

import quantized
from checkpoints import write_checkpoint, write_tensors
from encoded import random_weight
from gguf_writer import Typed, tiny_llama, write_gguf
from quickbrown import LLM
from quickbrown.cli import main
from quickbrown.describe import describe
from quickbrown.weights.source import BadFile
from quickbrown.weights.tiny import TinySource

SIZES = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Some matrices of types without kernels."""
    metadata, tensors = tiny_llama("q4_1", **SIZES)
    dice = np.random.default_rng(1)
    for name in tensors:
        if "ffn" in name and "norm" not in name:
            tensors[name] = random_weight("q2_k" if "down" in name else "iq3_s", tensors[name].shape, dice, 0.03)
    more = {"general.license": "apache-2.0", "general.size_label": "1M"}
    return write_gguf(tmp_path_factory.mktemp("describe") / "m.gguf", metadata | more, tensors)


def test_a_model_that_runs(model):
    facts = describe(model, context=100)
    loaded = LLM(model, memory="2MB").info()
    for name in ("file_bytes", "family", "parameters", "layers", "hidden_size", "context"):
        assert facts[name] == loaded[name]
    assert facts["runs"] is True
    assert "why" not in facts
    assert (facts["name"], facts["license"], facts["container"]) == ("tiny", "apache-2.0", "GGUF")
    assert facts["vocabulary"] == {
        "kind": "byte-level BPE", "words": "cut as by 'smollm'", "size": 266,
        "bos": "1 '<|im_start|>'", "eos": "2 '<|im_end|>'",
    }  # fmt: skip
    assert facts["chat_template"] is True
    assert facts["formats"] == {
        "q4_1": "9 tensors, 5 bits a weight",
        "f32": "5 tensors, 32 bits a weight",
        "iq3_s": "4 tensors, 3.4375 bits a weight, held in q6_k: 6.5625 bits",
        "q2_k": "2 tensors, 2.625 bits a weight",
    }
    memory = facts["memory"]
    assert memory["weights_bytes"] == loaded["packed_bytes"]
    assert memory["kv_bytes_per_token"] == loaded["kv_bytes_per_token"]
    assert memory["kv_bytes"] == 100 * memory["kv_bytes_per_token"]
    assert memory["bytes_together"] == memory["kv_bytes"] + memory["weights_bytes"]
    assert describe(model)["memory"]["context"] == facts["context"]


def test_what_is_rounded_is_said(tmp_path, capsys):
    metadata, tensors = tiny_llama("f32")
    wide = {"blk.0.ffn_up.weight": "f64", "blk.0.ffn_down.weight": "i32", "blk.0.ffn_gate.weight": "i16"}
    for name, format in wide.items():
        tensors[name] = random_weight(format, tensors[name].shape, np.random.default_rng(1))
    path = write_gguf(tmp_path / "m.gguf", metadata, tensors)
    formats = describe(path)["formats"]
    assert formats["f64"] == "1 tensors, 64 bits a weight, rounded to f32: 32 bits"
    assert formats["i32"] == "1 tensors, 32 bits a weight, rounded to f32: 32 bits"
    assert formats["i16"] == "1 tensors, 16 bits a weight, held in f32: 32 bits"
    assert main.call(["info", str(path)]) == 0
    assert "64 bits a weight, rounded to f32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"general.architecture": "clip"}, "'clip'"),
        ({"tokenizer.ggml.model": "rwkv"}, "vocabulary is of kind 'rwkv'"),
        ({"llama.attention.scale": 0.5}, "needs 'llama.attention.scale'"),
    ],
)
def test_models_that_do_not(tmp_path, change, why):
    metadata, tensors = tiny_llama("q4_1")
    facts = describe(write_gguf(tmp_path / "m.gguf", metadata | change, tensors))
    assert facts["runs"] is False
    assert why in facts["why"]
    assert not facts["why"].startswith(str(tmp_path))
    assert facts["parameters"] > 1000
    assert facts["chat_template"] is True


def test_types_that_nobody_reads(tmp_path):
    metadata, tensors = tiny_llama("q4_1")
    path = write_gguf(tmp_path / "m.gguf", metadata, tensors)
    data = bytearray(path.read_bytes())
    at = data.index(b"blk.0.ffn_up.weight") + len("blk.0.ffn_up.weight") + 20
    data[at : at + 4] = struct.pack("<I", 9)
    path.write_bytes(data)
    facts = describe(path)
    assert facts["unreadable"] == {"Q8_1": "1 tensors"}
    assert "tensor 'blk.0.ffn_up.weight' has type Q8_1, which cannot be read" in facts["why"]


def test_heads_that_differ_by_layer(tmp_path):
    """Keys and values of all layers together, though such a model is not run."""
    metadata, tensors = tiny_llama("q4_1", num_hidden_layers=2)
    kv = {"llama.attention.head_count_kv": Typed(9, [1, 3])}
    facts = describe(write_gguf(tmp_path / "m.gguf", metadata | kv, tensors), 10)
    assert facts["memory"]["kv_bytes_per_token"] == (1 + 3) * 2 * 16 * 2


def test_a_folder(tmp_path):
    folder = write_checkpoint(tmp_path, model_type="qwen3", shards=3)
    (folder / "README.md").write_text("---\nbase_model: x\nlicense: mit\n---\nlicense: no\n")
    facts, loaded = describe(folder), LLM(folder, memory="2MB").info()
    for name in ("file_bytes", "family", "parameters", "layers", "hidden_size", "context"):
        assert facts[name] == loaded[name]
    assert (facts["runs"], facts["license"], facts["container"]) == (True, "mit", "safetensors in 3 files")
    assert facts["memory"]["weights_bytes"] == loaded["packed_bytes"]
    assert facts["vocabulary"]["kind"] == "tokenizer.json"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    facts = describe(folder)
    assert facts["runs"] is False
    assert "'clip'" in facts["why"]
    assert facts["parameters"] == loaded["parameters"]


def test_a_folder_whose_family_has_other_names(tmp_path):
    """BLOOM's config.json says n_layer and n_head: nothing was said of its layers and its memory."""
    source = TinySource(model_type="bloom")
    c = source.config
    names = {"n_head": c["num_attention_heads"], "n_layer": c["num_hidden_layers"]}
    fields = names | {"model_type": "bloom", "vocab_size": c["vocab_size"], "hidden_size": c["hidden_size"]}
    (tmp_path / "config.json").write_text(json.dumps(fields), "utf-8")
    weights = {name: source.get(name).decode() for name in source.names()}
    write_tensors(tmp_path, {name: ("F32", values.shape, values.tobytes()) for name, values in weights.items()})
    facts = describe(tmp_path)
    assert facts["runs"] is True
    assert (facts["layers"], facts["hidden_size"]) == (c["num_hidden_layers"], c["hidden_size"])
    each = c["num_hidden_layers"] * 2 * c["hidden_size"] * 2  # keys and values of bfloat16
    assert facts["memory"]["kv_bytes_per_token"] == each


def test_a_folder_of_types_that_nobody_reads(tmp_path):
    folder = write_checkpoint(tmp_path, model_type="llama", tokenizer=None)
    write_tensors(folder, {"x": ("F8_E8M0", (4, 8), bytes(32)), "y": ("F8_E5M2", (8,), bytes(8))})
    facts = describe(folder)
    assert facts["formats"] == {"f8_e5m2": "1 tensors, 8 bits a weight, held in bf16: 16 bits"}
    assert facts["unreadable"] == {"F8_E8M0": "1 tensors"}
    assert facts["runs"] is False


def test_damage_is_one_sentence(tmp_path, capsys):
    path = write_gguf(tmp_path / "m.gguf", *tiny_llama("q4_1"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadFile, match="beyond the end of the file"):
        describe(path)
    assert main.call(["info", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main.call(["info", str(tmp_path / "absent.gguf")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(ValueError, match="positive number of tokens, not 0"):
        describe(path, 0)


def test_the_command(model, capsys):
    assert main.call(["info", str(model), "--context", "64", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == describe(model, 64)
    assert main.call(["info", str(model)]) == 0
    shown = capsys.readouterr().out
    assert "  iq3_s  4 tensors, 3.4375 bits a weight, held in q6_k: 6.5625 bits\n" in shown
    assert "runs           yes\n" in shown
    assert main.call(["info", str(model), "--context", "-1"]) == 1
    assert "positive number" in capsys.readouterr().err


def test_a_quantized_folder(tmp_path):
    """Several tensors to a weight: what counts is what they make."""
    name = next(iter(quantized.CHECKPOINTS))
    folder, _ = quantized.write(tmp_path, name)
    facts, loaded = describe(folder), LLM(folder, memory="2MB").info()
    assert facts["runs"] is True
    for fact in ("quantization", "parameters"):
        assert facts[fact] == loaded[fact]
    assert facts["formats"].keys() == loaded["formats"].keys()
    assert facts["memory"]["weights_bytes"] == loaded["packed_bytes"]
