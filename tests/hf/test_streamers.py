"""Streamers: text as soon as it is known, of any number of rows, printed or handed to another thread or task."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import numpy as np
import pytest

from gguf_writer import as_read, tiny_llama
from quickbrown.hf.streamers import AsyncTextIteratorStreamer, BaseStreamer, TextIteratorStreamer, TextStreamer
from quickbrown.text.gguf_vocab import tokenizer_from_gguf
from quickbrown.types import UnknownOption

CORE = tokenizer_from_gguf(as_read(tiny_llama()[0]), "tiny")
HELLO, END = CORE.encode("hello"), 2


def letters(text: str) -> list[int]:
    """A token for each byte."""
    return [3 + byte for byte in text.encode()]


class Face:
    """What of a tokenizer a streamer reads."""

    core = CORE
    pad_token_id = 0


class Noted(TextStreamer):
    """Keeps what `on_finalized_text` is told."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[Any] = []

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.told.append((text, "end") if stream_end else text)


def feed(streamer: BaseStreamer, prompts: list[list[int]], *steps: list[int]) -> None:
    """As a loop in step does."""
    streamer.put(np.array(prompts))
    for step in steps:
        streamer.put(np.array(step))
    streamer.end()


def test_text_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    streamer = TextStreamer(CORE)
    streamer.put(np.array([letters("ab ")]))
    assert capsys.readouterr().out == "ab "
    streamer.put(np.array(HELLO))
    assert capsys.readouterr().out == "hello", "it waits for a space"
    for token in letters("🙂")[:3]:
        streamer.put(np.array([token]))
        assert capsys.readouterr().out == "", "a part of a character"
    streamer.put(np.array(letters("🙂")[3:]))
    assert capsys.readouterr().out == "🙂"
    streamer.end()
    assert capsys.readouterr().out == "\n"


def test_what_is_left_of_a_character_comes_at_the_end() -> None:
    streamer = Noted(CORE, skip_prompt=True)
    feed(streamer, [letters("ab")], letters("é")[:1])
    assert streamer.told == ["\ufffd", ("", "end")]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "a<|im_end|>b<|im_end|>"),
        ({"skip_prompt": True}, "b<|im_end|>"),
        ({"skip_special_tokens": True}, "ab"),
        ({"skip_prompt": True, "skip_special_tokens": True, "clean_up_tokenization_spaces": False}, "b"),
    ],
)
def test_options(options: dict[str, Any], text: str) -> None:
    streamer = Noted(Face(), **options)
    feed(streamer, [[*letters("a"), END]], letters("b"), [END])
    assert "".join(streamer.told[:-1]) == text
    assert streamer.told[-1] == ("", "end")


def test_options_that_are_not_there_are_refused() -> None:
    with pytest.raises(UnknownOption, match="did you mean 'skip_special_tokens'"):
        TextStreamer(CORE, skip_special_token=True)
    with pytest.raises(ValueError, match="clean_up_tokenization_spaces"):
        TextStreamer(CORE, clean_up_tokenization_spaces=True)
    with pytest.raises(TypeError, match="AutoTokenizer"):
        TextStreamer("tokenizer")


def test_one_streamer_for_one_call_after_another() -> None:
    """A prompt taken for an answer, or a character's half of the call before, would show."""
    streamer = Noted(CORE, skip_prompt=True)
    for _ in range(2):
        feed(streamer, [letters("prompt")], letters("x"), letters("é")[:1])
    assert streamer.told == ["x", "\ufffd", ("", "end")] * 2
    streamer.end()  # a call that failed before its first token
    assert streamer.told[-1] == ("", "end")


def test_the_first_row_is_printed_as_it_comes_and_the_others_behind_it() -> None:
    streamer = Noted(Face(), skip_prompt=True)
    streamer.put(np.zeros((3, 2), np.int64))
    streamer.put_row(1, letters("b"))
    streamer.put_row(0, letters("a"))
    assert streamer.told == ["a"]
    streamer.put_row(2, letters("c"))
    streamer.end_row(2)
    assert streamer.told == ["a"]
    streamer.end_row(0)
    assert streamer.told == ["a", "\nb"]
    streamer.put_row(1, letters("d"))
    assert streamer.told == ["a", "\nb", "d"]
    streamer.end()
    assert streamer.told == ["a", "\nb", "d", "\nc", ("", "end")]


def test_prompts_of_a_batch_are_shown_without_their_pads() -> None:
    streamer = Noted(Face())
    feed(streamer, [[0, 0, *letters("a")], letters("xyz")], [*letters("b"), *letters("w")])
    assert "".join(streamer.told[:-1]) == "ab\nxyzw"
    alone = Noted(Face())
    feed(alone, [[0, *letters("a")]])
    assert "".join(alone.told[:-1]) == "<|endoftext|>a", "a single prompt has no pads: that is its text"


def test_several_tokens_of_a_single_row_at_once() -> None:
    streamer = Noted(CORE, skip_prompt=True)
    feed(streamer, [letters("ab")], letters("xyz"))
    assert streamer.told == ["xyz", ("", "end")]


def test_an_iterator_in_another_thread() -> None:
    streamer = TextIteratorStreamer(CORE, skip_prompt=True, timeout=30)
    thread = threading.Thread(target=feed, args=(streamer, [letters("ab")], HELLO, letters("x")))
    thread.start()
    assert list(streamer) == ["hello", "x"]
    thread.join()


def test_an_iterator_of_several_rows_says_which() -> None:
    streamer = TextIteratorStreamer(Face(), skip_prompt=True, timeout=30)
    streamer.put(np.zeros((2, 1), np.int64))
    streamer.put_row(1, letters("b"))
    streamer.put_row(0, letters("a"))
    streamer.end_row(1)
    streamer.end()
    assert list(streamer) == [(1, "b"), (0, "a")]


def test_an_iterator_waits_no_longer_than_it_is_told() -> None:
    with pytest.raises(queue.Empty):
        next(TextIteratorStreamer(CORE, timeout=0.01))


def test_an_iterator_for_asyncio() -> None:
    async def main() -> list[Any]:
        streamer = AsyncTextIteratorStreamer(CORE, skip_prompt=True, timeout=30)
        work = asyncio.get_running_loop().run_in_executor(None, feed, streamer, [letters("ab")], HELLO, letters("x"))
        found = [piece async for piece in streamer]
        await work
        both = AsyncTextIteratorStreamer(CORE, skip_prompt=True, timeout=30)
        feed(both, [[5], [6]], [*letters("a"), *letters("b")])
        return found + [piece async for piece in both]

    assert asyncio.run(main()) == ["hello", "x", (0, "a"), (1, "b")]

    async def waits() -> None:
        async for _ in AsyncTextIteratorStreamer(CORE, timeout=0.01):
            pass

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(waits())


def test_a_base_streamer_must_be_filled_in() -> None:
    with pytest.raises(NotImplementedError, match="no put"):
        BaseStreamer().put(1)
    with pytest.raises(NotImplementedError, match="no end"):
        BaseStreamer().end()


@pytest.mark.parametrize("row", [[0, 0, *HELLO], [*HELLO, 0, 0]])
def test_pads_of_a_prompt_are_not_shown_on_either_side(row):
    """The pad may be the end of a text too: then it would be printed by its name."""
    streamer = Noted(Face())
    streamer.put([row, HELLO[:1] * len(row)])
    assert streamer.told[0] == "hello"
