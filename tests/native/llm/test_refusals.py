"""What LLM refuses, each in a sentence, before anything is run."""

from __future__ import annotations

import numpy as np
import pytest

from quickbrown import LLM, TooLong, UnknownOption
from tiny_llm import CHAT, counted, ids


@pytest.mark.parametrize(
    ("error", "sentence", "call"),
    [
        (UnknownOption, "unknown option 'temprature'; did you mean", lambda m: m.generate("a", temprature=1)),
        (UnknownOption, "unknown option 'temprature'; did you mean", lambda m: m.stream("a", temprature=1)),
        (TypeError, "takes no n; stream_batch", lambda m: m.stream("a", n=2)),
        (ValueError, "top_p must be", lambda m: m.generate("a", top_p=2)),
        (ValueError, "the prompt is empty", lambda m: m.generate("")),
        (ValueError, "the prompt is empty", lambda m: m.stream("")),
        (ValueError, "the prompt is empty", lambda m: m.generate(["a", ""])),
        (ValueError, "at least one", lambda m: m.generate([[]])),
        (ValueError, "at least one", lambda m: m.chat([])),
        (ValueError, "outside the vocabulary of 266", lambda m: m.generate([[5, 266]])),
        (ValueError, "outside the vocabulary of 266", lambda m: m.generate([[5, -1]])),
        (ValueError, "Unicode", lambda m: m.generate("\ud800")),
        (ValueError, "message 0 has no content", lambda m: m.chat([{"role": "user"}])),
        (ValueError, "the role of message 0 is 'fox'", lambda m: m.chat([{"role": "fox", "content": "a"}])),
        (TypeError, "a prompt must be .* not int", lambda m: m.generate([5, 6])),
        (TypeError, "a prompt must be .* not int", lambda m: m.stream(5)),
        (TypeError, "a prompt must be .* not bytes", lambda m: m.generate([b"a"])),
        (TypeError, "a prompt must be .* not ndarray", lambda m: m.generate([np.array([5])])),
        (TypeError, "a prompt must be .* not dict", lambda m: m.generate(CHAT)),
        ((TypeError, ValueError), "prompt", lambda m: m.generate(5)),
        ((TypeError, ValueError), "prompt", lambda m: m.generate(None)),
        ((TypeError, ValueError), "^stop must be ", lambda m: m.generate("a", stop=5)),
        ((TypeError, ValueError), "messages", lambda m: m.chat("Hello")),
        ((TypeError, ValueError), "messages", lambda m: m.stream_chat("Hello")),
        ((TypeError, ValueError), "message", lambda m: m.chat([5, 6])),
        ((TypeError, ValueError), "message", lambda m: m.chat([[5, 6]])),
        (TooLong, "2100 tokens and the context holds 2048", lambda m: m.generate([ids(2100)])),
        (TooLong, "2000 tokens leaves room for 48", lambda m: m.generate([ids(2000)], max_new_tokens=49)),
        (TooLong, "2000 tokens leaves room for 48", lambda m: m.generate(["a", ids(2000)], max_new_tokens=49)),
        (ValueError, "1 to 2048 tokens, not 0", lambda m: m.logits([])),
    ],
)
def test_of_calls(llm, error, sentence, call):
    with counted(llm) as sizes, pytest.raises(error, match=sentence):
        call(llm)
    assert sizes == []


@pytest.mark.parametrize("n", [0, -1, 1025, True, 2.0, "2"])
def test_of_n(llm, n):
    for call in (llm.generate, llm.stream_batch):
        with pytest.raises(ValueError, match=r"^n must be a whole number from 1 to 1,024, not "):
            call(["a"], n=n)


@pytest.mark.parametrize(
    ("sentence", "arguments"),
    [
        ("dtype must be one of auto, bfloat16, float32, not 'int8'", {"dtype": "int8"}),
        ("threads must be a whole number from 1 to 1024, not 0", {"threads": 0}),
        ("threads must be a whole number from 1 to 1024, not True", {"threads": True}),
    ],
)
def test_of_loading(path, sentence, arguments):
    with pytest.raises(ValueError, match=sentence):
        LLM(path, **arguments)
