"""Processors and criteria on torch tensors, and config files that transformers reads and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch; `make test-torch` installs it")
transformers = pytest.importorskip("transformers", reason="needs transformers; `make test-torch` installs it")

from quickbrown.hf import generation_config, logits_process, stopping_criteria  # noqa: E402
from quickbrown.hf.quantization import BitsAndBytesConfig  # noqa: E402

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/transformers/processors.json").read_text())
IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_processors_give_back_what_they_were_given(dtype: Any) -> None:
    """In the same type, with the values that float32 gives, and without touching the caller's tensor."""
    for case in GOLDEN["cases"]:
        arguments = {
            name: torch.tensor(value) if name in ("encoder_input_ids", "eos_token_id") else value
            for name, value in case["arguments"].items()
        }
        scores = torch.tensor(GOLDEN["scores"][case["scores"]], dtype=dtype)
        before = scores.clone()
        out = getattr(logits_process, case["class"])(**arguments)(torch.tensor(GOLDEN["ids"][case["ids"]]), scores)
        assert out.dtype == dtype
        torch.testing.assert_close(scores, before, equal_nan=True)
        if dtype == torch.float32 and case["scores"] not in ("ties", "even"):
            torch.testing.assert_close(out, torch.tensor(case["out"]), rtol=2e-5, atol=1e-6)


def test_leading_ids_that_do_not_count_row_by_row() -> None:
    scores = torch.tensor(GOLDEN["scores"]["wide"])
    ours = logits_process.RepetitionPenaltyLogitsProcessor(1.3, torch.tensor([0, 2]))(IDS, scores)
    theirs = transformers.RepetitionPenaltyLogitsProcessor(1.3, torch.tensor([0, 2]))(IDS, scores)
    torch.testing.assert_close(ours, theirs)


def test_a_device_as_torch_names_it() -> None:
    logits_process.MinLengthLogitsProcessor(5, torch.tensor([2]), device=torch.device("cpu"))
    with pytest.raises(ValueError, match="on the CPU"):
        logits_process.MinLengthLogitsProcessor(5, torch.tensor([2]), device=torch.device("meta"))


def test_criteria() -> None:
    done = stopping_criteria.EosTokenCriteria(torch.tensor([3]))(IDS, None)
    torch.testing.assert_close(done, torch.tensor([True, False]))
    own: Any = lambda ids, scores, **kwargs: ids[:, 0] == 4  # noqa: E731
    both = stopping_criteria.StoppingCriteriaList([stopping_criteria.EosTokenCriteria(3), own])
    torch.testing.assert_close(both(IDS, None), torch.tensor([True, True]))


def test_config_files_are_read_by_either(tmp_path: Path) -> None:
    fields = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [1, 2], "stop_strings": ["é"], "x": 1}
    ours, theirs = generation_config.GenerationConfig(**fields), transformers.GenerationConfig(**fields)
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "ours") == theirs
    assert generation_config.GenerationConfig.from_pretrained(tmp_path / "theirs") == ours


def test_types_of_torch_in_a_quantization_config() -> None:
    fields = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    theirs = transformers.BitsAndBytesConfig(**fields).to_dict()
    assert BitsAndBytesConfig(**fields).to_dict() == {**theirs, "quant_method": "bitsandbytes"}
    assert BitsAndBytesConfig.from_dict(theirs).meaning() == "nf4"
