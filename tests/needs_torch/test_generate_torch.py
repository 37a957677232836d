"""The face with torch tensors: the same kind out, a caller's torch code inside, next to transformers itself."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch; `make test-torch` installs it")
transformers = pytest.importorskip("transformers", reason="needs transformers; `make test-torch` installs it")

from checkpoints import write_checkpoint  # noqa: E402
from quickbrown import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

TEXTS = ["A list of colors: red, blue", "Portugal is", "1, 2, 3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("torch") / "tiny", seed=3, sliding_window=12)


@pytest.fixture(scope="module")
def ours(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map=torch.device("cpu"))


@pytest.fixture(scope="module")
def theirs(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def inputs(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer(TEXTS, return_tensors="pt", padding=True).to("cpu")


class Shifted(transformers.LogitsProcessor):
    """Written for transformers, in torch, and changing its scores in place, as they often do."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        scores[:, input_ids[0, -1] % 7 :: 7] -= 5.0
        return scores


class UntilLong(transformers.StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), input_ids.shape[1] >= 22, dtype=torch.bool)


def test_tensors_in_tensors_out(ours, theirs, inputs):
    mine = ours.generate(**inputs, max_new_tokens=10)
    assert isinstance(mine, torch.Tensor)
    assert mine.dtype == torch.int64
    assert torch.equal(mine, theirs.generate(**inputs, max_new_tokens=10, pad_token_id=2))


def test_code_written_for_transformers(ours, theirs, inputs):
    """Its processors and criteria, handed over as they are."""
    how = {
        "logits_processor": transformers.LogitsProcessorList([Shifted()]),
        "stopping_criteria": transformers.StoppingCriteriaList([UntilLong()]),
        "max_new_tokens": 20,
        "repetition_penalty": 1.3,
        "prefix_allowed_tokens_fn": lambda row, ids: list(range(3, 400 + row)),
    }
    for row, mask in zip(inputs.input_ids, inputs.attention_mask, strict=True):  # a row of a batch sees its own last id
        one = {"input_ids": row[None], "attention_mask": mask[None]}
        assert torch.equal(ours.generate(**one, **how), theirs.generate(**one, **how, pad_token_id=2))


def test_outputs(ours, theirs, inputs):
    how = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    mine, other = ours.generate(**inputs, **how), theirs.generate(**inputs, **how, pad_token_id=2)
    for name in ("scores", "logits"):
        assert all(isinstance(step, torch.Tensor) for step in mine[name])
        torch.testing.assert_close(torch.stack(mine[name]), torch.stack(other[name]), atol=2e-4, rtol=0)
    chances = theirs.compute_transition_scores(other.sequences, other.scores, normalize_logits=True)
    torch.testing.assert_close(mine.logprobs, chances, atol=2e-5, rtol=0)
    again = ours.compute_transition_scores(mine.sequences, mine.scores, normalize_logits=True)
    torch.testing.assert_close(again, chances, atol=2e-5, rtol=0)


def test_one_pass(ours, theirs, inputs):
    inputs = {name: tensor.flip(1) for name, tensor in inputs.items()}  # pads behind: transformers' loss before is odd
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    mine = ours(**inputs, labels=labels)
    with torch.no_grad():
        other = theirs(**inputs, labels=labels)
    seen = inputs["attention_mask"].bool()
    torch.testing.assert_close(mine.logits[seen], other.logits[seen], atol=2e-4, rtol=0)
    torch.testing.assert_close(mine.loss, other.loss, atol=1e-4, rtol=0)
    assert torch.equal(ours(**inputs, logits_to_keep=1).logits, mine.logits[:, -1:])


def test_device_and_dtype_are_torchs(ours):
    assert ours.device == torch.device("cpu")
    assert ours.dtype == torch.float32
    assert ours.to(torch.device("cpu")) is ours
    with pytest.raises(ValueError, match="packed when they are loaded"):
        ours.to(torch.bfloat16)


def test_a_bfloat16_tensor_is_no_stranger(ours):
    """numpy has no bfloat16."""
    ids = torch.tensor([[1, 5, 6]])
    mask = torch.ones(1, 3, dtype=torch.bfloat16)
    assert torch.equal(ours.generate(ids, attention_mask=mask), ours.generate(ids))


def test_without_torch_the_seam_is_numpy(ours, inputs):
    out = ours.generate(inputs.input_ids.numpy(), attention_mask=inputs.attention_mask.numpy(), max_new_tokens=3)
    assert isinstance(out, np.ndarray)
