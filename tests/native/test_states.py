"""Models with states, loaded from folders: what their memory is, and that texts are what they are alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

import configs
import tiny
from checkpoints import VOCABULARY, write_checkpoint, write_safetensors
from gguf_writer import tiny_gguf, write_gguf, write_tiny_gguf
from quickbrown import LLM
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.describe import describe
from quickbrown.engine.runner import places
from quickbrown.llm import fitting
from quickbrown.models.families import of_model_type
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.safetensors import SafetensorsSource
from quickbrown.weights.source import BadFile
from quickbrown.weights.tiny import TinySource

NAMES = ("lfm2", "qwen3_5_text", "mamba2", "nemotron_h")
STATE = {  # bytes: of convolutions, of recurrences
    "lfm2": 4 * 2 * 64,
    "qwen3_5_text": 4 * (3 * (2 * 32 + 128) + 16 * 128),
    "mamba2": 2 * 4 * (3 * (128 + 2 * 32) + 16 * 128),
    "nemotron_h": 4 * (3 * (128 + 2 * 32) + 16 * 128),
}
KEYS = {"lfm2": 1, "qwen3_5_text": 1, "mamba2": 0, "nemotron_h": 1}  # layers that keep them


def folder(path, name):
    write_checkpoint(path, model_type="llama", tokenizer="bytelevel")
    source = TinySource(**configs.ROWS[name] | {"vocab_size": VOCABULARY, "tie_word_embeddings": False})
    spelled = of_model_type(source.config["model_type"]).Config.ALIASES
    (path / "config.json").write_text(json.dumps({spelled.get(k, k): v for k, v in source.config.items()}))
    weights = {name: source.get(name) for name in source.names()}
    tensors = {name: ("F32", w.shape, w.decode().tobytes()) for name, w in weights.items()}
    write_safetensors(path / "model.safetensors", tensors)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_model_with_states_from_a_folder(name, tmp_path):
    """Alone, beside others, again from what is known, and as several samples of one prompt."""
    said = describe(folder(tmp_path, name))
    assert said["runs"]
    assert said["memory"]["state_bytes_per_text"] == STATE[name]
    assert said["memory"].get("kv_bytes_per_token", 0) == KEYS[name] * 2 * 2 * 16 * 2
    llm = LLM(tmp_path, memory="20MB", threads=2)
    try:
        info = llm.info()
        assert (info["state_bytes_per_text"], info["states"]) == (STATE[name], places(llm.runner.room()))
        prompt = tiny.text(150).tolist()
        options = {"max_new_tokens": 20, "temperature": 1.0, "seed": 5}
        [alone] = llm.generate([prompt], **options)
        [again] = llm.generate([prompt], **options)
        assert again.tokens == alone.tokens
        assert again.reused_tokens == 128
        others = [prompt[:70], prompt[3:], prompt]
        together = llm.generate([prompt, *others], **options)
        assert together[0].tokens == alone.tokens
        [samples] = llm.generate([prompt], n=3, **options)
        assert samples[0].tokens == alone.tokens
        assert len({tuple(sample.tokens) for sample in samples}) == 3
        assert llm.logits(prompt, last=1).tobytes() == llm.logits(prompt)[-1:].tobytes()
    finally:
        llm.close()


def test_memory_of_states():
    """As many blocks as fit with their places, and one more would not."""
    for block, place in ((1000, 0), (1000, 1), (1000, 5000), (10, 70000), (0, 300)):
        for memory in (0, 5, 600_000, 1_000_000, 7_654_321):
            blocks = fitting(memory, block, place)
            needs = [count * block + (places(count) * place if place else 0) for count in (blocks, blocks + 1)]
            assert blocks == 0 or needs[0] <= memory
            assert needs[1] > memory or (block == 0 and blocks % 16 < 15)


def test_too_little_memory_is_refused(tmp_path):
    folder(tmp_path, "mamba2")
    least = STATE["mamba2"] * places(1)
    with pytest.raises(ValueError, match=f"memory must be at least {least:,} bytes"):
        LLM(tmp_path, memory=least - 1)
    LLM(tmp_path, memory=least).close()


GGUF = configs.ROWS["lfm2, width as said"]


def test_a_gguf_file_is_described_by_the_layers_that_keep_keys(tmp_path):
    """Whose number of key heads it lists, 0 for the others."""
    said = describe(write_tiny_gguf(tmp_path / "tiny.gguf", **GGUF))
    assert said["runs"]
    assert said["memory"]["kv_bytes_per_token"] == 2 * 2 * 16 * 2
    assert said["memory"]["state_bytes_per_text"] == 2 * STATE["lfm2"]


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [
        (2, "must be a list of whole numbers"),
        ([0.0, 2.0, 0.0], "must be a list of whole numbers"),
        ([0, 0, 0], "must list 0 and one other number of heads"),
        ([0, 2, 4], "must list 0 and one other number of heads"),
        ([np.int32(0), np.int32(-2), np.int32(0)], "must list 0 and one other number of heads"),
        ([0, 2], "must be a list of 3 types, one for each layer"),
        ([0, 3, 0], "4 attention heads do not divide into 3 key-value heads"),
    ],
)
def test_lists_of_key_heads_that_cannot_be_are_refused(heads, sentence, tmp_path):
    settings, tensors = tiny_gguf(**GGUF)
    settings["lfm2.attention.head_count_kv"] = heads
    with pytest.raises(BadFile, match=sentence):
        GgufSource(write_gguf(tmp_path / "tiny.gguf", settings, tensors))


def test_the_text_of_a_model_that_sees(tmp_path):
    """Its config lies inside the model's, its weights have longer names, and what it does not need is passed over."""
    source = TinySource(**configs.ROWS["qwen3_5_text"])
    sections = {"mrope_section": [1, 1, 0], "mrope_interleaved": True}
    text = source.config | {"rope_parameters": source.config["rope_parameters"] | sections}
    inner = {key: value for key, value in text.items() if key != "tie_word_embeddings"}
    config = {"model_type": "qwen3_5", "text_config": inner, "vision_config": {}, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = {name: source.get(name) for name in source.names()}
    tensors = {
        name.replace("model.", "model.language_model.", 1): ("F32", w.shape, w.decode().tobytes())
        for name, w in weights.items()
    }
    tensors |= dict.fromkeys(("model.visual.merger.norm.weight", "mtp.fc.weight"), ("F32", (1,), bytes(4)))
    write_safetensors(tmp_path / "model.safetensors", tensors)
    read = SafetensorsSource(tmp_path)
    assert read.config | {"model_type": "qwen3_5_text"} == source.config
    got, want = (tiny.logits(NativeRunner(tiny.model(of), blocks=1, threads=2), tiny.text(20)) for of in (read, source))
    assert got.tobytes() == want.tobytes()
