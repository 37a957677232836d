"""config.json: that it means here what it means to transformers, and that nothing in it is passed over."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quickbrown.models.families import MODEL_TYPES, listed, of_model_type
from quickbrown.weights.config import raw_config, read_config, resolve
from quickbrown.weights.source import BadFile

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "transformers" / "configs.json").read_text("utf-8"))
SMALL = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 128}
WINDOWED = SMALL | {"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 8}


def plain(value: Any) -> Any:
    """As JSON has it."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_means_what_it_means_to_transformers(case, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(case["given"]))
    found = read_config(tmp_path)
    assert plain(found) == case["means"]
    assert raw_config(tmp_path) == case["given"]
    ropes = found["rope_parameters"]
    of = of_model_type(found["model_type"]).Config.ROPES
    assert all(isinstance(rope["rope_theta"], float) for rope in ([ropes[kind] for kind in of] or [ropes]))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_families_take_what_it_means(case):
    """Every field that a family's Config has is there, under the same name, and no other."""
    found = resolve(case["given"], "config.json")
    family = of_model_type(found["model_type"])
    fields = {field.name for field in dataclasses.fields(family.Config)}
    assert fields | {"model_type"} == found.keys()
    made = family.configure(found)
    assert {name: getattr(made, name) for name in fields} == {name: found[name] for name in fields}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": None}, "has no model_type"),
        ({"model_type": 3}, f"family 3; the supported families are {listed(MODEL_TYPES)}"),
        ({"model_type": "no_such"}, f"family 'no_such'; the supported families are {listed(MODEL_TYPES)}"),
        ({"model_type": "t5"}, "encoder-decoder ('t5'), and only models that are decoders alone are read"),
        ({"model_type": "bart"}, "encoder-decoder ('bart')"),
        ({"is_encoder_decoder": True}, "encoder-decoder ('llama')"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', which is not supported; supported is 'silu'"),
        ({"hidden_act": ["silu"]}, "hidden_act is ['silu']"),
        ({"is_causal": False}, "is_causal is False"),
        ({"model_type": "qwen2", "num_key_value_heads": 2, "use_mrope": True}, "use_mrope is True"),
        ({"per_layer_config": {"0": {}}}, "per_layer_config"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number from 1 to 2147483647, not '64'"),
        ({"hidden_size": 64.0}, "hidden_size must be a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        ({"vocab_size": -1}, "vocab_size must be a whole number"),
        ({"vocab_size": 2**31}, "vocab_size must be a whole number"),
        ({"vocab_size": None}, "vocab_size must be a whole number"),
        ({"intermediate_size": [1]}, "intermediate_size must be a whole number"),
        ({"num_attention_heads": 5}, "64 does not divide into 5"),
        ({"num_key_value_heads": 3}, "4 attention heads do not divide into 3"),
        ({"head_dim": 7}, "even number"),
        ({"head_dim": 0}, "head_dim must be a whole number"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps must be a positive number"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a positive number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings must be true or false"),
        ({"attention_bias": None}, "attention_bias must be true or false"),
        ({"rope_theta": None}, "rope_theta must be a positive number"),
        ({"rope_theta": -1.0}, "rope_theta must be a positive number"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object"),
        ({"rope_scaling": {"type": 3}}, "rope_type must be a text"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differs by type of layer"),
        ({"rope_scaling": {"type": "linear", "factor": float("inf")}}, "factor of rope_scaling is neither"),
        ({"rope_scaling": {"type": "linear", "factor": [[1]]}}, "factor of rope_scaling is neither"),
        ({"model_type": "mistral", "num_key_value_heads": 2, "layer_types": ["full_attention"] * 2}, "'ministral'"),
        ({"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 0}, "sliding_window must be a whole"),
    ],
)  # fmt: skip
def test_refusals(change, sentence):
    refused(SMALL | change, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"use_sliding_window": None}, "use_sliding_window must be true or false"),
        ({"sliding_window": None, "layer_types": ["sliding_attention"] * 2}, "without use_sliding_window"),
        ({"use_sliding_window": False, "layer_types": ["sliding_attention"] * 2}, "without use_sliding_window"),
        ({"layer_types": ["full_attention"]}, "list of 2 types"),
        ({"layer_types": "full_attention"}, "list of 2 types"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types has 'chunked_attention'"),
        ({"layer_types": ["full_attention", {}]}, "layer_types has {}"),
        ({"max_window_layers": "1"}, "max_window_layers must be a whole number"),
        ({"num_hidden_layers": 2**31 - 1}, "claims 2147483647 layers"),
        ({"sliding_window": -4}, "sliding_window must be a whole number"),
    ],
)
def test_refusals_of_windows(change, sentence):
    refused(WINDOWED | change, sentence)


def test_key_heads_of_falcons_decoders():
    """They count in the new decoder alone, and null is the old one."""
    counted = {"model_type": "falcon", "num_kv_heads": 2}
    for new, heads in ((True, 2), (False, 1), (None, 1)):
        found = resolve(SMALL | counted | {"new_decoder_architecture": new}, "config.json")
        assert (found["new_decoder_architecture"], found["num_key_value_heads"]) == (bool(new), heads)


GEMMA4 = SMALL | {
    "model_type": "gemma4_text", "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "num_hidden_layers": 3, "attention_k_eq_v": True,
}  # fmt: skip


def test_gemma_4_layer_by_layer():
    """What transformers writes of a config with a global_head_dim and num_global_key_value_heads."""
    own = {"head_dim": 32, "num_key_value_heads": 1}
    said = resolve(GEMMA4 | {"per_layer_config": {"0": own, "2": own}}, "config.json")
    assert said == resolve(GEMMA4 | {"global_head_dim": 32, "num_global_key_value_heads": 1}, "config.json")
    assert [layer.head_dim for layer in of_model_type("gemma4_text").configure(said).kv_layers] == [32, 256, 32]


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"0": {"head_dim": 32}}, "the same of each layer of full_attention, and of no other"),
        ({"0": {"head_dim": 32}, "2": {"head_dim": 64}}, "the same of each layer of full_attention"),
        ({"0": {}, "1": {}, "2": {}}, "and of no other"),
        ([{"head_dim": 32}], "and of no other"),
        ({"0": {"sliding_window": 3}, "2": {"sliding_window": 3}}, "may say head_dim and num_key_value_heads, not"),
        ({"0": 1, "2": 1}, "may say head_dim and num_key_value_heads, not 1"),
    ],
)
def test_refusals_of_layer_by_layer(own, sentence):
    with pytest.raises(BadFile, match=sentence):
        resolve(GEMMA4 | {"per_layer_config": own}, "config.json")


def test_a_field_that_changes_nothing_is_no_matter():
    odd = {"pretraining_tp": 2, "attention_dropout": 0.1, "use_cache": False, "auto_map": {"AutoConfig": "x.Y"}}
    assert resolve(SMALL | odd, "config.json") == resolve(SMALL, "config.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"[]", "must hold a JSON object"),
        (b'{"a": 1, "a": 2}', "the name 'a' is there twice"),
        (b'{"a": {"b": 1, "b": 2}}', "the name 'b' is there twice"),
        (b"\xff\xfe", "is not valid UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is nested too deeply"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "is not valid JSON"),
        (b" " * (1 << 24) + b"{}", "is larger than 16 MiB"),
    ],
)
def test_files_that_are_none(tmp_path, text, sentence):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(BadFile) as caught:
        read_config(tmp_path)
    assert sentence in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(BadFile, match=r"holds no config\.json"):
        read_config(tmp_path)


ROPE = st.sampled_from(["rope_type", "type", "rope_theta", "factor", "x"])
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers(), max_size=3),
    st.dictionaries(ROPE, st.floats() | st.text(max_size=4)),
    st.sampled_from([2**31, 2**63, -1, 1e400, ["full_attention"], {"quant_method": {}}]),
)  # fmt: skip
FIELDS = sorted(
    {field.name for name in MODEL_TYPES for field in dataclasses.fields(of_model_type(name).Config)}
    | {"model_type", "rope_scaling", "rope_parameters", "rope_theta", "partial_rotary_factor", "hidden_act"}
    | {"is_encoder_decoder"}
)


@given(st.sampled_from(sorted(MODEL_TYPES)), st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_values(family, change):
    """Whatever stands in a field: fields of the right types come out, or a BadFile."""
    try:
        found = resolve(SMALL | {"model_type": family, "num_key_value_heads": 2} | change, "config.json")
    except BadFile:
        return
    assert all(type(found[name]) is int for name in ("hidden_size", "head_dim", "num_key_value_heads", "vocab_size"))
    assert found.get("rms_norm_eps", 1) > 0


def refused(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadFile) as caught:
        resolve(config, "config.json")
    said = str(caught.value)
    assert sentence in said
    assert said.startswith("config.json: ")
    assert said.endswith(".")
    assert "\n" not in said
