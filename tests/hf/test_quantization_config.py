"""BitsAndBytesConfig: what it asks for, and what it may not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quickbrown.hf.quantization import BitsAndBytesConfig
from quickbrown.types import UnknownOption

# As transformers 5.23 writes a config of all defaults.
DEFAULTS = {
    "_load_in_4bit": False, "_load_in_8bit": False, "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False,
    "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None,
    "llm_int8_threshold": 6.0, "load_in_4bit": False, "load_in_8bit": False, "quant_method": "bitsandbytes",
}  # fmt: skip
FOUR = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def test_files_are_as_transformers_writes_them() -> None:
    assert BitsAndBytesConfig().to_dict() == DEFAULTS
    config = BitsAndBytesConfig(**FOUR, bnb_4bit_compute_dtype="bfloat16")
    assert BitsAndBytesConfig.from_dict(config.to_dict()) == config
    assert config.to_diff_dict() == {**FOUR, "_load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}
    assert json.loads(config.to_json_string()) == config.to_diff_dict()
    changed, left = BitsAndBytesConfig.from_dict(FOUR, return_unused_kwargs=True, bnb_4bit_quant_type="fp4", foo=1)
    assert (changed.meaning(), left) == ("fp4", {"foo": 1})


@pytest.mark.parametrize(
    ("fields", "meaning", "method"),
    [
        ({"load_in_8bit": True}, "q8", "llm_int8"),
        ({"load_in_4bit": True}, "fp4", "fp4"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4", "nf4"),
        (FOUR, "nf4", "nf4"),
        ({**FOUR, "bnb_4bit_compute_dtype": "torch.float16", "bnb_4bit_quant_storage": "bfloat16"}, "nf4", "nf4"),
    ],
)
def test_what_it_asks_for(fields: dict[str, Any], meaning: str, method: str) -> None:
    config = BitsAndBytesConfig(**fields)
    assert (config.meaning(), config.quantization_method(), config.is_quantizable()) == (meaning, method, True)


def test_one_that_asks_for_nothing() -> None:
    config = BitsAndBytesConfig()
    assert (config.quantization_method(), config.is_quantizable()) == (None, False)
    with pytest.raises(ValueError, match="asks for nothing"):
        config.meaning()


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"load_in_8bit": True, "load_in_4bit": True}, ValueError, "both True"),
        ({"load_in_4bit": 1}, TypeError, "load_in_4bit must be True or False"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "int4"}, ValueError, '"fp4" or "nf4"'),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "float8"}, ValueError, "bnb_4bit_compute_dtype must be"),
        ({"load_in_8bit": True, "llm_int8_threshold": 5.0}, ValueError, "llm_int8_threshold=5.0 is not supported"),
        ({"load_in_8bit": True, "llm_int8_skip_modules": ["lm_head"]}, ValueError, "llm_int8_skip_modules"),
        ({"llm_int8_enable_fp32_cpu_offload": True}, ValueError, "llm_int8_enable_fp32_cpu_offload"),
        ({"llm_int8_has_fp16_weight": True}, ValueError, "llm_int8_has_fp16_weight"),
        ({"load_in_4bits": True}, UnknownOption, "did you mean 'load_in_4bit'"),
        ({"quant_method": "gptq"}, ValueError, "gptq"),
    ],
    ids=str,
)
def test_what_it_may_not(fields: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        BitsAndBytesConfig(**fields)
