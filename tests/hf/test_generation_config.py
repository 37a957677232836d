"""GenerationConfig against transformers' files, and what a call of generate() makes of keywords, config and model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from gguf_writer import write_tiny_llama
from quickbrown.hf.generation_config import GenerationConfig, GenerationMode, least_new_tokens, merge, new_tokens
from quickbrown.hf.generation_fields import FIELDS, UNSUPPORTED
from quickbrown.types import UnknownOption
from quickbrown.weights.source import BadFile

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/transformers/generation_config.json").read_text())


def fields_of(written: dict[str, Any]) -> dict[str, Any]:
    found = dict(written["fields"])
    if "sequence_bias" in found:
        found["sequence_bias"] = {tuple(ids): bias for ids, bias in found["sequence_bias"]["items"]}
    return found


def without_version(text: str) -> dict[str, Any]:
    entries = json.loads(text)
    entries.pop("transformers_version", None)
    return entries


# Files


def test_the_fields_are_those_of_transformers_with_its_defaults() -> None:
    assert sorted(FIELDS) == GOLDEN["fields"] == sorted(GenerationConfig.fields())
    for name, default in GOLDEN["defaults"].items():
        if name != "max_length":  # of which the default is 20 new tokens
            assert FIELDS[name].default == default, name


@pytest.mark.parametrize("written", GOLDEN["written"], ids=lambda w: ",".join(w["fields"])[:50])
def test_files_are_as_transformers_writes_them(written: dict[str, Any], tmp_path: Path) -> None:
    """And what it writes is read as what was written."""
    config = GenerationConfig(**fields_of(written))
    assert without_version(config.to_json_string()) == without_version(written["file"])
    assert json.loads(config.to_json_string(use_diff=False, ignore_metadata=True)) == written["all"]
    (tmp_path / "generation_config.json").write_text(written["file"])
    back = GenerationConfig.from_pretrained(tmp_path)
    assert back == config
    assert back.sequence_bias == config.sequence_bias
    assert hash(back) == hash(config)
    back.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "generation_config.json").read_text() == written["file"]


@pytest.mark.parametrize("read", GOLDEN["read"], ids=lambda r: ",".join(r["config"])[:50])
def test_older_models_keep_their_fields_in_config_json(read: dict[str, Any], tmp_path: Path) -> None:
    before = copy.deepcopy(read["config"])
    config = GenerationConfig.from_model_config(read["config"])
    assert without_version(config.to_json_string()) == without_version(read["file"])
    assert read["config"] == before, "the caller's dict was changed"
    (tmp_path / "config.json").write_text(json.dumps(read["config"]))
    assert GenerationConfig.from_model(tmp_path) == config
    (tmp_path / "generation_config.json").write_text('{"max_length": 3}')
    assert GenerationConfig.from_model(tmp_path).max_length == 3


def test_overrides_and_unused_keywords(tmp_path: Path) -> None:
    GenerationConfig(top_k=4, do_sample=True, mine=1).save_pretrained(tmp_path, "other.json")
    config = GenerationConfig.from_pretrained(tmp_path, "other.json", top_k=5)
    assert (config.top_k, config.do_sample, config.mine) == (5, True, 1)
    config, left = GenerationConfig.from_pretrained(tmp_path, "other.json", return_unused_kwargs=True, top_k=6)
    assert (config.top_k, left) == (6, {})


def test_a_gguf_file_says_which_tokens_end_a_text(tmp_path: Path) -> None:
    config = GenerationConfig.from_pretrained(write_tiny_llama(tmp_path / "model.gguf"))
    assert (config.bos_token_id, config.eos_token_id) == (1, [0, 2])
    assert GenerationConfig.from_model(tmp_path / "model.gguf") == config


def test_files_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"there is no generation_config\.json in"):
        GenerationConfig.from_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"top_k": 4')
    with pytest.raises(BadFile, match="not valid JSON"):
        GenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("fields", GOLDEN["unsaved"], ids=str)
def test_a_config_of_which_a_field_has_no_effect_is_not_saved(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"not saved: {next(iter(fields))}"):
        GenerationConfig(**fields).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_file_brought_along_is_saved_again(tmp_path: Path) -> None:
    """Published models have temperature without do_sample; they can be loaded and saved, until one changes them."""
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6}')
    config = GenerationConfig.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    config.top_p = 0.5
    with pytest.raises(ValueError, match="not saved"):
        config.save_pretrained(tmp_path)


# The object


@pytest.mark.parametrize("fields", GOLDEN["wrong"], ids=str)
def test_what_transformers_refuses_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(reversed(fields)))):
        GenerationConfig(**fields)
    config = GenerationConfig()
    with pytest.raises(ValueError, match=next(iter(reversed(fields)))):
        config.update(allow_custom_entries=True, **fields)


@pytest.mark.parametrize(("fields", "mode"), GOLDEN["modes"], ids=str)
def test_modes(fields: dict[str, Any], mode: str) -> None:
    found = GenerationConfig(**fields).get_generation_mode()
    assert found == mode
    assert isinstance(found, GenerationMode)


def test_an_assistant_is_a_mode_too() -> None:
    assert GenerationConfig().get_generation_mode(assistant_model=object()) == "assisted_generation"
    assert GenerationConfig(num_beams=2).get_generation_mode(assistant_model=object()) == "beam_search"


def test_update() -> None:
    config = GenerationConfig(top_k=3, mine=1)
    assert config.update(top_k=4, top_p=0.5, foo=2, mine=3) == {"foo": 2}
    assert (config.top_k, config.top_p, config.mine) == (4, 0.5, 3)
    assert config.update(defaults_only=True, top_k=5, min_p=0.1) == {"top_k": 5}
    assert (config.top_k, config.min_p) == (4, 0.1)
    assert config.update(allow_custom_entries=True, foo=2) == {}
    assert config.foo == 2


def test_comparison() -> None:
    config = GenerationConfig(top_k=3, transformers_version="4.0.0")
    assert config == GenerationConfig(top_k=3)
    assert hash(config) == hash(GenerationConfig(top_k=3))
    assert config != GenerationConfig(top_k=4)
    assert config != {"top_k": 3}
    assert copy.deepcopy(config) == config
    assert '"top_k": 3' in repr(config)
    assert "transformers_version" not in repr(config)


# Calls


def made(entries: dict[str, Any] | None) -> GenerationConfig | None:
    return None if entries is None else GenerationConfig.from_dict(entries)


@pytest.mark.parametrize("case", GOLDEN["merged"], ids=lambda c: f"{c['call']} {c['config']} {c['model']}")
def test_who_decides(case: dict[str, Any]) -> None:
    """Keywords, then the config, then the model's own, then defaults; and none of the three is changed."""
    config, model = made(case["config"]), made(case["model"])
    assert model is not None
    before = (copy.deepcopy(config), copy.deepcopy(model))
    found, left = merge(case["call"], config, model)
    assert left == {}
    theirs = dict(case["found"])
    if not any("max_length" in (source or {}) for source in (case["call"], case["config"], case["model"])):
        assert theirs.pop("max_length") == 20
    ours = without_version(found.to_json_string(ignore_metadata=True))
    assert ours == theirs
    assert (config, model) == before


def test_keywords_that_are_no_fields_come_back() -> None:
    _, left = merge({"attention_mask": 1, "top_k": 2, "do_sample": True}, None, GenerationConfig.from_dict({"mine": 1}))
    assert left == {"attention_mask": 1}
    assert merge({"mine": 2}, None, GenerationConfig.from_dict({"mine": 1}))[1] == {"mine": 2}


SAMPLING = {
    "temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.9, "top_h": 0.5, "epsilon_cutoff": 0.1,
    "eta_cutoff": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), SAMPLING.items())
def test_a_sampling_knob_without_sampling_is_refused_only_from_the_caller(name: str, value: float) -> None:
    """Silently greedy text, for somebody who asked for temperature=0.7, is what nobody notices."""
    words = f"{name}={value} has no effect without do_sample=True; pass do_sample=True, or leave {name} out"
    empty = GenerationConfig()
    for call, config in (
        ({name: value}, None),
        ({name: value, "do_sample": False}, None),
        ({}, GenerationConfig(**{name: value})),
        ({"do_sample": False, name: value}, GenerationConfig(do_sample=True)),
    ):
        with pytest.raises(ValueError, match=words):
            merge(call, config, empty)
    config = GenerationConfig.from_dict({name: value})
    assert getattr(merge({}, config, empty)[0], name) == value, "a file that was handed on"
    setattr(config, name, value)
    with pytest.raises(ValueError, match=words):
        merge({}, config, empty)
    model = GenerationConfig.from_dict({name: value, "do_sample": True})
    assert merge({"do_sample": False}, None, model)[0].do_sample is False
    assert merge({"do_sample": False}, GenerationConfig(do_sample=True, **{name: value}), empty)[0].do_sample is False
    assert getattr(merge({name: value}, None, model)[0], name) == value


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 1), ("temperature", 0), ("temperature", 0.0), ("top_k", 0), ("top_k", 50),
                        ("top_k", 1), ("top_p", 1), ("min_p", 0.0), ("typical_p", 1.0), ("epsilon_cutoff", 0)],
)  # fmt: skip
def test_what_asks_for_what_greedy_decoding_does_anyway_is_accepted(name: str, value: float) -> None:
    assert merge({name: value, "do_sample": False}, None, GenerationConfig())[0].do_sample is False


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"length_penalty": 2.0}, "length_penalty=2.0 has no effect without num_beams above 1, which is not supported"),
        ({"early_stopping": True}, "early_stopping=True has no effect"),
        ({"output_scores": True}, "pass return_dict_in_generate=True, or leave output_scores out"),
        ({"output_logits": True}, "return_dict_in_generate=True"),
        ({"num_assistant_tokens": 5}, "no effect without an assistant_model; pass an assistant_model"),
        ({"assistant_confidence_threshold": 0.9}, "guesses are not measured, which is not supported yet"),
        ({"target_lookbehind": 5}, "an assistant of another vocabulary, which is not supported yet"),
        ({"max_matching_ngram_size": 5}, "pass prompt_lookup_num_tokens, or leave"),
        ({"prompt_lookup_num_tokens": 0}, "prompt_lookup_num_tokens=0 must be a whole number of at least 1"),
        ({"max_cache_len": 5}, "static"),
        ({"decoder_start_token_id": 5}, "encoder-decoder"),
        ({"do_sample": True, "temperature": 0}, "temperature=0 must be above 0; .*do_sample=False"),
        ({"do_sample": True, "temperature": "hot"}, "temperature='hot' must be"),
        ({"do_sample": True, "top_p": 1.1}, "top_p=1.1 must be from 0 to 1"),
        ({"do_sample": True, "top_k": -1}, "top_k=-1 must be a whole number from 0 to"),
        ({"do_sample": True, "top_k": 1.5}, "top_k=1.5 must be a whole number"),
        ({"do_sample": True, "min_p": 2}, "min_p=2 must be from 0 to 1"),
        ({"do_sample": True, "typical_p": 0}, "typical_p=0 must be"),
        ({"do_sample": "yes"}, "do_sample='yes' must be True or False"),
        ({"max_new_tokens": "9"}, "max_new_tokens='9' must be a whole number"),
        ({"max_new_tokens": 1.5}, "max_new_tokens=1.5"),
        ({"max_new_tokens": True}, "max_new_tokens=True"),
        ({"min_length": -1}, "min_length=-1"),
        ({"repetition_penalty": 0}, "repetition_penalty=0 must be a number above 0"),
        ({"max_time": 0}, "max_time=0"),
        ({"stop_strings": [""]}, "stop_strings"),
        ({"bad_words_ids": [5]}, "bad_words_ids"),
        ({"sequence_bias": {(1,): "a"}}, "sequence_bias"),
        ({"sequence_bias": [[5, 1.0]]}, "sequence_bias"),
        ({"suppress_tokens": [-1]}, "suppress_tokens"),
        ({"exponential_decay_length_penalty": (1,)}, "exponential_decay_length_penalty"),
        ({"pad_token_id": -1}, "pad_token_id=-1 must be a token id"),
        ({"eos_token_id": "x"}, "eos_token_id='x'"),
        ({"num_return_sequences": 2}, "num_return_sequences=2 needs do_sample=True"),
        ({"num_return_sequences": 0, "do_sample": True}, "num_return_sequences=0"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(call: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        merge(call, None, GenerationConfig())


AWAY = {
    "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "constraints": [1], "force_words_ids": [[1]],
    "penalty_alpha": 0.6, "dola_layers": "low", "low_memory": True,
    "assistant_early_exit": 2, "assistant_ensemble_weight": 0.5, "speculation_type": "dflash", "use_mtp": True,
    "guidance_scale": 1.5, "watermarking_config": {"bias": 2.0}, "token_healing": True, "output_attentions": True,
    "output_hidden_states": True, "cache_implementation": "static", "compile_config": {},
    "continuous_batching_config": {},
}  # fmt: skip


def test_what_is_not_supported_is_refused_whoever_asks() -> None:
    assert AWAY.keys() == UNSUPPORTED.keys()
    for name, value in AWAY.items():
        model = GenerationConfig.from_dict({name: value})
        for call, config, own in (
            ({name: value}, None, GenerationConfig()),
            ({}, None, model),
            ({}, model, GenerationConfig()),
        ):
            with pytest.raises(ValueError, match=rf"^{name}=.* is not supported yet"):
                merge(call, config, own)


def test_a_quantized_cache_is_asked_for_where_the_model_is_loaded() -> None:
    instead = r'supported yet; leave it out, and load the model with kv_cache_dtype="int8"$'
    with pytest.raises(ValueError, match=instead):
        merge({"cache_implementation": "quantized", "cache_config": {"nbits": 8}}, None, GenerationConfig())


@pytest.mark.parametrize(
    "call",
    [{"num_beams": 1}, {"guidance_scale": 1.0}, {"use_cache": False}, {"cache_implementation": "dynamic"},
     {"cache_implementation": "hybrid"}, {"use_mtp": False}, {"output_attentions": False}, {"penalty_alpha": 0},
     {"temperature": 2, "do_sample": True}, {"repetition_penalty": 2}, {"eos_token_id": -1},
     {"top_p": 0.0, "do_sample": True}, {"prompt_lookup_num_tokens": 3},
     {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 4}, {"prefill_chunk_size": 64},
     {"disable_compile": True}, {"suppress_tokens": []}],
    ids=str,
)  # fmt: skip
def test_what_changes_nothing_or_is_honoured_is_accepted(call: dict[str, Any]) -> None:
    merged, left = merge(call, None, GenerationConfig())
    assert left == {}
    for name, value in call.items():
        assert getattr(merged, name) == value


def test_an_entry_that_the_caller_made_up_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownOption, match="did you mean 'max_new_tokens'"):
        merge({}, GenerationConfig(max_new_token=5), GenerationConfig())
    file = GenerationConfig.from_dict({"chat_format": "x"})
    assert merge({}, file, GenerationConfig())[0].chat_format == "x"


def test_none_as_a_keyword_is_off() -> None:
    model = GenerationConfig.from_dict({"top_k": 5, "temperature": 0.5, "do_sample": True, "eos_token_id": 4})
    config, _ = merge({"top_k": None, "temperature": None, "eos_token_id": None}, None, model)
    assert (config.top_k, config.temperature, config.eos_token_id) == (0, 1.0, None)


def test_a_pad_of_minus_one_in_a_models_file_is_none() -> None:
    assert merge({}, None, GenerationConfig.from_dict({"pad_token_id": -1}))[0].pad_token_id is None


# Lengths


@pytest.mark.parametrize(
    ("fields", "prompt", "limit", "most"),
    [
        ({}, 5, None, 20),
        ({}, 5, 100, 20),
        ({}, 90, 100, 10),
        ({"max_new_tokens": 7}, 90, 10, 7),
        ({"max_new_tokens": 7, "max_length": 9}, 90, 100, 7),
        ({"max_length": 9}, 5, 100, 4),
        ({"max_new_tokens": 7, "min_new_tokens": 7}, 5, None, 7),
        ({"max_length": 9, "min_length": 9}, 5, None, 4),
        ({"max_new_tokens": 7, "min_new_tokens": 3, "min_length": 99}, 5, None, 7),
    ],
)
def test_how_long_a_text_may_become(fields: dict[str, int], prompt: int, limit: int | None, most: int) -> None:
    assert new_tokens(merge(fields, None, GenerationConfig())[0], prompt, limit) == most


@pytest.mark.parametrize(
    ("fields", "prompt", "words"),
    [
        ({"max_length": 9}, 9, "the prompt has 9 tokens and max_length=9 counts them too"),
        ({}, 100, "the prompt has 100 tokens and the model has room for 100"),
        ({"max_new_tokens": 7, "min_new_tokens": 8}, 5, "min_new_tokens=8 asks for 8 new tokens, and at most 7"),
        ({"min_length": 30}, 5, "min_length=30 asks for 25 new tokens, and at most 20"),
    ],
)
def test_lengths_that_cannot_be(fields: dict[str, int], prompt: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        new_tokens(merge(fields, None, GenerationConfig())[0], prompt, 100)


def test_least_new_tokens() -> None:
    def least(**fields: int) -> int:
        return least_new_tokens(merge(fields, None, GenerationConfig())[0], 5)

    assert (least(), least(min_length=4), least(min_length=9), least(min_new_tokens=2, min_length=9)) == (0, 0, 4, 2)
