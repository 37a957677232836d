"""What a tokenizer returns: a dict, attributes, arrays, and where tokens came from."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import checkpoints
from quickbrown.hf.batch_encoding import BatchEncoding, CharSpan, TokenSpan
from quickbrown.hf.tokenizer import AutoTokenizer, PreTrainedTokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizer:
    folder: Path = tmp_path_factory.mktemp("bytelevel")
    (folder / "tokenizer.json").write_text(checkpoints.tokenizer_json("bytelevel"), "utf-8")
    return AutoTokenizer.from_pretrained(folder, pad_token="<|endoftext|>")


def test_it_is_a_dict_with_attributes(tokenizer):
    out = tokenizer(["Hello", "Hello world"], padding=True)
    assert list(out) == list(out.keys()) == ["input_ids", "attention_mask"]
    assert len(out) == 2
    assert dict(**out) == dict(out) == out.data
    assert out.input_ids is out["input_ids"]
    assert "attention_mask" in out
    assert out.get("labels") is None
    with pytest.raises(AttributeError, match="there is no 'labels'; there are input_ids, attention_mask"):
        out.labels  # noqa: B018
    with pytest.raises(KeyError):
        out["labels"]
    out["labels"] = [1, 2]
    assert out.labels == [1, 2]
    assert not hasattr(BatchEncoding(), "input_ids")


def test_a_number_is_a_row(tokenizer):
    out = tokenizer(["Hello", "Hello world"])
    assert out[1].ids == out["input_ids"][1]
    assert [row.ids for row in out[:2]] == out["input_ids"]
    assert out.encodings is not None
    assert out.is_fast
    bare = BatchEncoding({"input_ids": [[1], [2]]})
    assert bare[1:] == {"input_ids": [[2]]}
    assert not bare.is_fast
    assert bare.n_sequences is None
    with pytest.raises(KeyError, match="there is no row 0"):
        bare[0]
    with pytest.raises(ValueError, match="where tokens came from is not known"):
        bare.tokens()


def test_shape(tokenizer):
    assert tokenizer(["Hello"], return_tensors="np").shape == tokenizer(["Hello"]).shape
    assert tokenizer("Hello").shape == tokenizer("Hello", return_tensors="np").shape[1:]
    with pytest.raises(ValueError, match="differ in length"):
        tokenizer(["Hello", "Hello world"]).shape  # noqa: B018
    assert not hasattr(BatchEncoding({"labels": [1]}), "shape")


class Device:
    """As a torch.device prints."""

    def __init__(self, name: str):
        self.name = name

    def __str__(self) -> str:
        return self.name


def test_devices(tokenizer):
    out = tokenizer("Hello", return_tensors="np")
    for device in ("cpu", "cpu:0", Device("cpu")):
        assert out.to(device) is out
    for device in ("cuda", "cuda:0", 0, "np", "cpux", "", None, np.float32, Device("mps"), True):
        with pytest.raises(ValueError, match=r"computes on the CPU; .to\(\) takes 'cpu'"):
            out.to(device)


def test_arrays(tokenizer):
    out = tokenizer(["Hello", "Hello world"], padding=True, return_offsets_mapping=True)
    assert out.convert_to_tensors(None) is out
    assert isinstance(out["input_ids"], list)
    assert out.convert_to_tensors("np") is out
    assert out["input_ids"].dtype == out["attention_mask"].dtype == np.int64
    assert out["offset_mapping"].shape == (*out.shape, 2)
    assert BatchEncoding({"input_ids": [1, 2]}).convert_to_tensors("np", prepend_batch_axis=True).shape == (1, 2)
    assert BatchEncoding({"input_ids": [[]]}, tensor_type="np")["input_ids"].dtype == np.int64
    with pytest.raises(ValueError, match=r"the rows of input_ids differ in length.*padding=True"):
        tokenizer(["Hello", "Hello world"]).convert_to_tensors("np")
    with pytest.raises(ValueError, match='must be "np", "pt" or None, not \'jax\''):
        out.convert_to_tensors("jax")


def test_where_tokens_came_from(tokenizer):
    out = tokenizer(["the cat", "caf\u00e9 the end"], ["x", "y z"])
    assert out.n_sequences == 2
    assert out.sequence_ids(0)[0] == 0
    assert out.sequence_ids(0)[-1] == 1
    first, last = out.word_to_tokens(1, 1)
    assert "".join(out.tokens(1)[first:last]) == "\u0120the"
    assert out.word_to_tokens(1, 1) == TokenSpan(first, last)
    span = out.token_to_chars(1, first)
    assert isinstance(span, CharSpan)
    assert out.word_to_chars(1, 1) == CharSpan(4, 8)
    assert out.char_to_token(1, 4) == first == out.char_to_token(1, span.start)
    assert out.char_to_word(1, 5) == 1
    assert out.token_to_word(1, first) == 1
    assert out.token_to_sequence(1, first) == 0
    assert out.char_to_token(1, 0, sequence_index=1) == out.sequence_ids(1).index(1)
    assert out.token_to_word(-1) == out.token_to_word(0, len(out.tokens(0)) - 1)
    assert out.token_to_word(0) == out.token_to_word(0, 0)
    assert out.char_to_token(999) is None
    assert out.word_to_tokens(999) is None


def test_copies(tokenizer):
    out = tokenizer(["Hello"], return_tensors="np")
    for made in (copy.copy(out), copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
        assert made["input_ids"].tolist() == out["input_ids"].tolist()
        assert made.tokens() == out.tokens()
