"""AutoConfig: what config.json says, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checkpoints import write_checkpoint
from gguf_writer import write_tiny_llama
from quickbrown.hf.auto_config import AutoConfig, PretrainedConfig
from quickbrown.types import UnknownOption
from quickbrown.weights.hub import HubError
from quickbrown.weights.source import BadFile

ROPE = {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_folder(legacy: bool, tmp_path: Path) -> None:
    """Older spellings mean the same: rope_theta and torch_dtype are read as rope_parameters and dtype."""
    config = AutoConfig.from_pretrained(write_checkpoint(tmp_path, model_type="qwen2", legacy=legacy))
    assert isinstance(config, PretrainedConfig)
    assert config.name_or_path == str(tmp_path)
    assert (config.model_type, config.architectures) == ("qwen2", ["Qwen2ForCausalLM"])
    assert (config.hidden_size, config.num_hidden_layers, config.dtype) == (64, 2, "float32")
    assert config.rope_parameters == ROPE
    assert not hasattr(config, "rope_theta")
    assert config.layer_types == ["full_attention"] * 2
    assert config.is_encoder_decoder is False
    assert config.get_text_config() is config
    assert config.get_text_config(decoder=True) is config


def test_a_gguf_file(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(write_tiny_llama(tmp_path / "model.gguf"))
    assert (config.model_type, config.bos_token_id, config.eos_token_id) == ("llama", 1, 2)
    assert config.hidden_size > 0


def test_it_is_written_and_read_again(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(write_checkpoint(tmp_path / "a", model_type="llama"))
    config.save_pretrained(tmp_path / "b")
    assert AutoConfig.from_pretrained(tmp_path / "b") == config
    assert json.loads(config.to_json_string()) == config.to_dict()
    assert "name_or_path" not in config.to_dict()
    assert config.model_type in repr(config)


def test_fields_can_be_set_and_those_of_writing_cannot(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(write_checkpoint(tmp_path, model_type="llama"))
    config.pad_token_id = 5
    config.mine = 1
    assert config.to_dict()["pad_token_id"] == 5
    for name in ("temperature", "max_new_tokens", "do_sample", "num_beams"):
        with pytest.raises(ValueError, match=rf"^{name} is no field .* model\.generation_config"):
            setattr(config, name, 1)
    with pytest.raises(AttributeError, match="hidden_sizes"):
        _ = config.hidden_sizes


def test_older_files_that_hold_fields_of_writing(tmp_path: Path) -> None:
    """They are of the generation config, which reads them from there; here they must not stop a model from loading."""
    config = AutoConfig.from_pretrained(write_checkpoint(tmp_path, model_type="llama", temperature=0.7, max_length=9))
    assert not hasattr(config, "temperature")
    assert not hasattr(config, "max_length")


def test_keywords(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, model_type="llama")
    assert AutoConfig.from_pretrained(folder, pad_token_id=3, bos_token_id=9, trust_remote_code=True).bos_token_id == 9
    config, left = AutoConfig.from_pretrained(folder, return_unused_kwargs=True, eos_token_id=4, foo=1)
    assert (config.eos_token_id, left) == (4, {"foo": 1})
    with pytest.raises(UnknownOption, match="did you mean 'hidden_size'"):
        AutoConfig.from_pretrained(folder, hidden_sizes=3)


@pytest.mark.parametrize(
    ("fields", "words"), [({"model_type": "t5"}, "encoder-decoder"), ({"model_type": "mamba"}, "'mamba'")]
)
def test_models_that_are_not_read(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(BadFile, match=words):
        AutoConfig.from_pretrained(tmp_path)


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(HubError):
        AutoConfig.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(BadFile, match=r"no config\.json"):
        AutoConfig.from_pretrained(tmp_path)
