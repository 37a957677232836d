"""Stopping criteria: which rows end, in the kind of the caller's arrays."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from gguf_writer import as_read, tiny_llama
from quickbrown.hf.stopping_criteria import (
    ConfidenceCriteria,
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    validate_stopping_criteria,
)
from quickbrown.text.gguf_vocab import tokenizer_from_gguf

IDS = np.array([[1, 2, 3], [4, 5, 6]])
TOKENIZER = tokenizer_from_gguf(as_read(tiny_llama()[0]), "tiny")
HELLO = TOKENIZER.encode("hello")  # one token


def letters(text: str) -> list[int]:
    """A token for each byte."""
    return [3 + byte for byte in text.encode()]


def test_lengths() -> None:
    assert MaxLengthCriteria(3)(IDS, None).tolist() == [True, True]
    assert MaxLengthCriteria(4)(IDS, None).tolist() == [False, False]
    assert MaxLengthCriteria(4)(IDS.tolist(), None) == [False, False]


def test_times() -> None:
    assert not MaxTimeCriteria(60)(IDS, None).any()
    assert MaxTimeCriteria(60, initial_timestamp=time.time() - 61)(IDS, None).all()


def test_ends() -> None:
    assert EosTokenCriteria(3)(IDS, None).tolist() == [True, False]
    assert EosTokenCriteria([3, 6])(IDS, None).tolist() == [True, True]
    assert EosTokenCriteria([2])(IDS, None).tolist() == [False, False]
    assert EosTokenCriteria([2])(IDS, None, new_token_length=2).tolist() == [True, False]


def test_confidence() -> None:
    scores = (np.log(np.array([[0.1, 0.1, 0.1, 0.7, 0, 0, 0], [0.7, 0.1, 0, 0, 0, 0, 0.2]], np.float32) + 1e-9),)
    assert ConfidenceCriteria(0.4)(IDS, scores).tolist() == [False, True]
    with pytest.raises(ValueError, match="output_scores=True"):
        ConfidenceCriteria(0.4)(IDS, None)


@pytest.mark.parametrize(
    ("row", "ends"),
    [
        (letters("the END"), True),
        (letters("the EN"), False),
        (letters("ENDs"), False),  # complete before the last token: it would have ended there
        (letters("E") + letters("ND"), True),
        (letters("ENDEND"), True),
        ([2], True),  # <|im_end|>, a special token
        (letters("é"), True),
        (letters("é")[:1], False),
        (letters("x") + HELLO, True),  # in the middle of a token
        (HELLO + letters("w"), False),
        (HELLO, True),
    ],
)
def test_stop_strings(row: list[int], ends: bool) -> None:
    """Whatever the tokens: a string may begin and end inside of one."""
    criterion = StopStringCriteria(TOKENIZER, ["END", "<|im_end|>", "é", "ell"])
    assert criterion(np.array([row]), None).tolist() == [ends]
    assert criterion(np.array([letters("....") + row]), None).tolist() == [ends]


def test_the_face_of_a_tokenizer_will_do_and_another_library_s_will_not() -> None:
    class Face:
        core = TOKENIZER

    assert StopStringCriteria(Face(), "ell")([HELLO], None) == [True]
    with pytest.raises(TypeError, match="AutoTokenizer, not str"):
        StopStringCriteria("x", "END")
    with pytest.raises(ValueError, match="not empty"):
        StopStringCriteria(TOKENIZER, ["END", ""])


def test_a_list_ends_a_row_when_any_does() -> None:
    class Own(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            return [row[0] == kwargs["first"] for row in input_ids]

    criteria = StoppingCriteriaList([EosTokenCriteria(3), Own()])
    assert criteria(IDS, None, first=9).tolist() == [True, False]
    assert criteria(IDS, None, first=4).tolist() == [True, True]
    assert criteria.max_length is None
    assert not StoppingCriteriaList()(IDS, None).any()


def test_validate() -> None:
    criteria = StoppingCriteriaList([EosTokenCriteria(3)])
    assert validate_stopping_criteria(criteria, 7).max_length == 7
    assert criteria.max_length is None, "the caller's list was changed"
    with pytest.raises(ValueError, match=r"at 7 tokens and max_length=8"):
        validate_stopping_criteria(StoppingCriteriaList([MaxLengthCriteria(7)]), 8)
    with pytest.raises(NotImplementedError):
        StoppingCriteriaList([StoppingCriteria()])(IDS, None)
