"""Tokenizers with torch: tensors out and in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import checkpoints
from quickbrown.hf.tokenizer import AutoTokenizer, PreTrainedTokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizer:
    folder: Path = tmp_path_factory.mktemp("sentencepiece")
    (folder / "tokenizer.json").write_text(checkpoints.tokenizer_json("sentencepiece"), "utf-8")
    return AutoTokenizer.from_pretrained(
        folder, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template="{{ messages[0].content }}"
    )


def test_tensors_out(tokenizer):
    out = tokenizer(["Hello", "Hello world"], padding=True, return_tensors="pt").to(torch.device("cpu"))
    assert out.input_ids.dtype == out.attention_mask.dtype == torch.int64
    assert out.input_ids.shape == out.shape == (2, len(tokenizer("Hello world")["input_ids"]))
    assert tokenizer([], return_tensors="pt")["input_ids"].dtype == torch.int64
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], return_tensors="pt")
    assert chat["input_ids"].shape[1] == chat.shape[1]
    for wrong in (torch.float16, torch.device("meta")):
        with pytest.raises(ValueError, match="computes on the CPU"):
            out.to(wrong)


def test_tensors_in(tokenizer):
    out = tokenizer(["Hello", "world"], padding=True, return_tensors="pt")
    texts = ["Hello", "world"]
    assert tokenizer.batch_decode(out.input_ids, skip_special_tokens=True) == texts
    assert tokenizer.batch_decode(list(out.input_ids), skip_special_tokens=True) == texts
    assert tokenizer.decode(out.input_ids[0].int(), skip_special_tokens=True) == "Hello"
    assert tokenizer.decode(list(out.input_ids[0]), skip_special_tokens=True) == "Hello"
    padded = tokenizer.pad({"input_ids": [torch.tensor([5, 6, 7]), torch.tensor([8])]})
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 2, 2]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
