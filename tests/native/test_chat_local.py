"""A model that is loaded here, in a conversation: what it is given to read, and what comes back."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest

from gguf_writer import TEMPLATE, Vocabulary, byte_vocabulary, tiny_llama, write_gguf, write_tiny_llama
from quickbrown import LLM
from quickbrown.cli.chat.conversation import Message
from quickbrown.cli.chat.local import Local
from quickbrown.cli.chat.reasoning import KINDS, Marks
from quickbrown.cli.chat.source import Kind, Piece
from quickbrown.types import TooLong

QUESTION = [Message("user", "hello")]
OPEN = TEMPLATE.replace("assistant\\n{% endif", "assistant\\n<think>\\n{% endif")


def local(path: Path) -> Local:
    source = Local(str(path), {"threads": 2})
    source.load()
    return source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = local(write_tiny_llama(tmp_path_factory.mktemp("model") / "m.gguf", max_position_embeddings=256))
    yield source
    source.close()


def answered(source: Local, messages: list[Message], goes_on: bool = False, **options: Any) -> tuple[str, Any]:
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    answer = source.answer(messages, options, goes_on, pieces.put)
    text = ""
    while (piece := pieces.get(timeout=60)).kind is not Kind.END:
        text += piece.text
    answer.close()
    return text, answer.outcome()


def test_an_answer_is_that_of_the_library(source: Local) -> None:
    text, outcome = answered(source, QUESTION, temperature=1.0, seed=3, max_new_tokens=20)
    same = source.llm.chat([{"role": "user", "content": "hello"}], temperature=1.0, seed=3, max_new_tokens=20)
    assert text == same.text
    assert (outcome.reason, outcome.written) == (str(same.finish.reason), len(same.tokens))
    assert outcome.used == same.prompt_tokens + len(same.tokens)
    opening = source.llm.tokenizer.encode("<|im_start|>assistant\n")
    assert source.count(QUESTION) == same.prompt_tokens - len(opening)
    assert source.length("hello") == 1


def test_going_on_is_as_if_it_had_not_stopped(source: Local) -> None:
    """6 tokens at once are 3, and 3 that go on from those: noise hangs on the seed and the position. Of a seed whose
    text is read as the tokens that it was written in, as the random model's seldom is."""
    chat = [{"role": "user", "content": "hello"}]
    for seed in range(2000):
        whole = source.llm.chat(chat, max_new_tokens=6, temperature=1.0, seed=seed, ignore_eos=True)
        if whole.text.isascii() and source.llm.tokenizer.encode(whole.text) == list(whole.tokens):
            break
    else:
        pytest.fail("no seed writes such a text")
    options = {"max_new_tokens": 3, "temperature": 1.0, "seed": seed, "ignore_eos": True}
    begun, first = answered(source, QUESTION, **options)
    messages = [*QUESTION, Message("assistant", begun)]
    assert source.prompt(messages, goes_on=True)[0] == source.prompt(QUESTION, goes_on=False)[0] + begun
    rest, second = answered(source, messages, goes_on=True, **options)
    assert begun + rest == whole.text
    assert second.used == first.used + 3


def test_what_does_not_fit_is_refused_with_both_numbers(source: Local) -> None:
    long = [Message("user", "x" * 300)]
    count = len(source.llm.tokenizer.encode(source.prompt(long, goes_on=False)[0]))
    assert count > 300
    with pytest.raises(TooLong, match=f"would have {count} tokens and the context holds 256; .*/undo.*/clear"):
        answered(source, long)
    with pytest.raises(TooLong, match="leaves room for"):
        answered(source, QUESTION, max_new_tokens=250)
    assert answered(source, QUESTION, ignore_eos=True)[1].used == 256


def test_earlier_thoughts_are_left_out(source: Local) -> None:
    messages = [*QUESTION, Message("assistant", "\n\nyes", "hm"), Message("user", "why")]
    text, marks = source.prompt(messages, goes_on=False)
    assert "<|im_start|>assistant\nyes<|im_end|>" in text
    assert "hm" not in text
    assert marks is None


@pytest.mark.parametrize("template", [TEMPLATE, OPEN], ids=["marks of its own", "marks of the template"])
def test_a_thought_is_gone_on_with(template: str, tmp_path: Path) -> None:
    metadata, tensors = tiny_llama()
    source = local(write_gguf(tmp_path / "m.gguf", metadata | {"tokenizer.chat_template": template}, tensors))
    start = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n<think>"
    end = "" if template == TEMPLATE else "\n"
    begun = [*QUESTION, Message("assistant", "", "h")]
    assert source.prompt(begun, goes_on=True) == (f"{start}{end}h", KINDS[0])
    done = [*QUESTION, Message("assistant", "\n\nyes", "h")]
    assert source.prompt(done, goes_on=True) == (f"{start}{end}h</think>\n\nyes", None)
    assert source.prompt(QUESTION, goes_on=False)[1] == (None if template == TEMPLATE else KINDS[0])
    source.close()


def test_marks_that_are_special_tokens_are_seen(tmp_path: Path) -> None:
    """Those of one kind only if all are there: another kind's <|end|> may end a turn."""
    plain = byte_vocabulary()
    marks = ["[THINK]", "[/THINK]", "<|end|>"]
    vocabulary = Vocabulary([*plain.tokens, *marks], plain.merges, [*plain.kinds, 3, 3, 3])
    source = local(write_gguf(tmp_path / "m.gguf", *tiny_llama(vocabulary=vocabulary)))
    first = len(plain.tokens)
    assert source._shown() == {first, first + 1}
    pieces: list[Any] = []
    [text] = source.llm.write([[5, 6]], None, {"max_new_tokens": 1}, pieces.append, source._shown())
    assert text._pieces.push([first, plain.tokens.index("h"), first + 1, first + 2]) == "[THINK]h[/THINK]"
    text.close()
    source.close()


def test_another_model_is_loaded_as_this_one_was(source: Local, tmp_path: Path) -> None:
    other = source.other(str(write_tiny_llama(tmp_path / "other.gguf")))
    other.load()
    assert other.llm.runner.pool.threads == 2
    assert "smollm2-135m" in source.names()
    other.close()


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    metadata, tensors = tiny_llama()
    del metadata["tokenizer.chat_template"]
    source = local(write_gguf(tmp_path / "m.gguf", metadata, tensors))
    with pytest.raises(ValueError, match="has no chat template"):
        answered(source, QUESTION)
    source.close()


def test_the_rendered_text_can_end_in_the_last_message(source: Local) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "The "}]
    llm: LLM = source.llm
    assert llm.written_down(messages, continue_final_message=True).endswith("<|im_start|>assistant\nThe ")
    assert llm.written_down(messages).endswith("The <|im_end|>\n<|im_start|>assistant\n")
    assert Marks("a", "b").tokens == []
