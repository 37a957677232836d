"""Logits processors by their names in transformers; what they do is tested in tests/pure/test_processors.py."""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickbrown.hf import logits_process
from quickbrown.hf.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/transformers/processors.json").read_text())
IDS = np.array([[1, 2, 3]])
SCORES = np.array([[1.0, 3.0, 2.0, 0.0]], np.float32)


def test_every_name_takes_the_arguments_of_transformers() -> None:
    for case in GOLDEN["cases"]:
        processor = getattr(logits_process, case["class"])(**case["arguments"])
        ids, scores = np.array(GOLDEN["ids"][case["ids"]]), np.array(GOLDEN["scores"][case["scores"]], np.float32)
        assert isinstance(processor, LogitsProcessor)
        assert processor(ids, scores).shape == scores.shape


def test_lists_of_numbers_come_back_as_lists() -> None:
    assert TopKLogitsWarper(2)(IDS.tolist(), SCORES.tolist()) == [[-math.inf, 3.0, 2.0, -math.inf]]


def test_scores_keep_their_type() -> None:
    assert TemperatureLogitsWarper(2)(IDS, SCORES.astype(np.float64)).dtype == np.float64
    assert TemperatureLogitsWarper(2)(IDS, SCORES.astype(np.float16)).dtype == np.float16


def test_what_help_shows_and_what_is_an_attribute() -> None:
    assert list(inspect.signature(TopKLogitsWarper).parameters) == ["top_k", "filter_value", "min_tokens_to_keep"]
    assert TopKLogitsWarper(2).top_k == 2


def test_a_device_other_than_the_cpu_is_refused() -> None:
    MinLengthLogitsProcessor(5, 2, device="cpu")
    with pytest.raises(ValueError, match="device='cuda'"):
        MinLengthLogitsProcessor(5, 2, device="cuda")


def test_a_list_calls_them_in_order_and_passes_what_they_take() -> None:
    class Add(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any, much: float) -> Any:
            return scores + much

    chain = LogitsProcessorList([TemperatureLogitsWarper(2), Add(), lambda ids, scores: scores * 10])
    np.testing.assert_allclose(chain(IDS, SCORES, much=1.0, other=2), (SCORES / 2 + 1) * 10)
    with pytest.raises(ValueError, match="Add also needs much"):
        chain(IDS, SCORES)
    with pytest.raises(NotImplementedError, match="needs one"):
        LogitsProcessorList([LogitsProcessor()])(IDS, SCORES)


def test_one_can_be_built_upon_another() -> None:
    class Twice(SuppressTokensLogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return super().__call__(input_ids, scores) * 2

    np.testing.assert_array_equal(Twice([1])(IDS, SCORES), [[2, -math.inf, 4, 0]])


def test_nothing_of_this_needs_torch() -> None:
    """An import of torch takes seconds where it is installed, and fails where it is not."""
    modules = ("logits_process", "stopping_criteria", "streamers", "quantization", "auto_config", "generation_config")
    code = "import sys;" + ";".join(f"import quickbrown.hf.{m}" for m in modules)
    heavy = "{'torch', 'transformers', 'tokenizers', 'jinja2', 'huggingface_hub'}"
    code += f";found = {heavy} & sys.modules.keys(); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
