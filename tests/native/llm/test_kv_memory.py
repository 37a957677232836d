"""Memory for keys and values: what is found there again, how much is had, and what does not fit."""

from __future__ import annotations

import random

import pytest

from quickbrown import LLM, TooLong
from quickbrown.backends.native.memory import available_memory
from tiny_llm import BLOCK, BLOCK_BYTES, NEW, SAMPLED, counted, ids, said


def test_a_prompt_is_read_once(llm):
    """1,000 tokens: its 15 full blocks are found again, 40 tokens are read. The rows of every step are counted, so
    that nothing can be computed on the quiet; the text is the same."""
    with counted(llm) as sizes:
        first = llm.generate([ids(1000, 1000)], **SAMPLED, seed=[1])[0]
        assert sum(sizes) == 1000 + NEW - 1
        sizes.clear()
        second = llm.generate([ids(1000, 1000)], **SAMPLED, seed=[1])[0]
        assert sizes == [40, *[1] * (NEW - 1)]
    assert (first.reused_tokens, second.reused_tokens) == (0, 960)
    assert said(first) == said(second)


def test_samples_read_their_prompt_once(llm):
    with counted(llm) as sizes:
        llm.generate([ids(500, 1002)], n=4, **SAMPLED, seed=1)
    assert sizes == [500, *[4] * (NEW - 1)]


def test_the_next_turn_reads_what_is_new(llm):
    """A prompt, its answer, a new question, as token ids: all full blocks of what was stored are found."""
    first = ids(300, 1003)
    answer = llm.generate([first], **SAMPLED, seed=1)[0]
    stored = len(first) + len(answer.tokens) - 1  # nobody has asked yet what follows the last token
    turn = [*first, *answer.tokens, *ids(30, 1004)]
    with counted(llm) as sizes:
        second = llm.generate([turn], max_new_tokens=1)[0]
    assert second.reused_tokens == stored // BLOCK * BLOCK > len(first)
    assert sizes == [len(turn) - second.reused_tokens]


def test_the_next_turn_of_a_conversation(llm):
    """The first turn's blocks are found, though the second is written down from messages anew."""
    messages = [{"role": "user", "content": "".join(random.Random(0).choices("abcdefgh ijk", k=500))}]
    first = llm.chat(messages, max_new_tokens=4)
    messages += [{"role": "assistant", "content": "Because."}, {"role": "user", "content": "Why?"}]
    with counted(llm) as sizes:
        second = llm.chat(messages, max_new_tokens=1)
    assert first.reused_tokens == 0
    assert second.reused_tokens == first.prompt_tokens // BLOCK * BLOCK > 300
    assert sizes == [second.prompt_tokens - second.reused_tokens]


@pytest.mark.parametrize(
    ("memory", "blocks"),
    [
        ("2MB", 2_000_000 // BLOCK_BYTES),
        ("1.5 MiB", 3 * 2**19 // BLOCK_BYTES),
        ("100kb", 6),
        (BLOCK_BYTES, 1),
        (5 * BLOCK_BYTES - 1, 4),
        (str(5 * BLOCK_BYTES), 5),
        (None, 4 * 2048 // BLOCK),
    ],
)
def test_what_is_asked_for_is_had(path, memory, blocks):
    llm = LLM(path, threads=1, memory=memory)
    assert llm.runner.room() == blocks
    assert llm.runner.kv.block_bytes == BLOCK_BYTES
    assert len(llm.generate("Once", max_new_tokens=40, ignore_eos=True).tokens) == 40
    llm.close()


def test_float32_takes_twice_as_much(path):
    llm = LLM(path, threads=1, memory=10 * BLOCK_BYTES, dtype="float32")
    assert (llm.runner.room(), llm.runner.kv.block_bytes) == (5, 2 * BLOCK_BYTES)
    llm.close()


def test_keys_and_values_of_8_bits_take_half(path):
    """And a float32 scale for each, which is little beside heads larger than these."""
    llm = LLM(path, threads=1, memory=10 * BLOCK_BYTES, kv_cache_dtype="int8")
    assert (llm.runner.room(), llm.runner.kv.block_bytes) == (16, BLOCK_BYTES * (16 + 4) // 32)
    assert llm.info()["kv_cache_dtype"] == "int8"
    whole = llm.generate("Once", max_new_tokens=40, ignore_eos=True).tokens
    assert len(whole) == 40
    assert llm.generate(["Once", ids(300)], max_new_tokens=40, ignore_eos=True)[0].tokens == whole
    llm.close()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"kv_cache_dtype": None}, ("bfloat16", 1)),
        ({"kv_cache_dtype": "float32"}, ("float32", 2)),
        ({"kv_cache_dtype": "bfloat16", "dtype": "float32"}, ("bfloat16", 1)),
        ({"dtype": "float32"}, ("float32", 2)),
    ],
)
def test_what_keys_and_values_are_stored_in(path, options, kept):
    llm = LLM(path, threads=1, memory="1MB", **options)
    assert (llm.info()["kv_cache_dtype"], llm.runner.kv.block_bytes / BLOCK_BYTES) == kept
    llm.close()
    with pytest.raises(ValueError, match="kv_cache_dtype must be one of auto, bfloat16, float32, int8, not 'fp8'"):
        LLM(path, kv_cache_dtype="fp8")


@pytest.mark.parametrize(
    "memory",
    ["", "much", "2 GBB", "-1GB", "1e9", "1.GB", "GB", "2 GB ", "9" * 400 + "GB", 0, -5, 1e9, True, b"2GB"],
)
def test_what_is_no_size_is_refused(path, memory):
    with pytest.raises(ValueError, match=r"^memory (must be a number of bytes, or a string like|is .* free)"):
        LLM(path, memory=memory)


def test_too_little_and_too_much_are_refused(path):
    with pytest.raises(ValueError, match=r"^memory must be at least 16,384 bytes, .* not 16,383$"):
        LLM(path, memory=BLOCK_BYTES - 1)
    with pytest.raises(ValueError, match=r"^memory is [\d,]+ bytes, but only [\d,]+ are free; ask for less$"):
        LLM(path, memory=2 * available_memory())


@pytest.mark.parametrize(
    ("prompt", "new", "numbers"), [(300, 469, "300 468 768"), (800, 1, "800 768"), (768, 1, "768 768")]
)
def test_a_text_that_memory_cannot_hold_is_refused(narrow, prompt, new, numbers):
    """With the numbers to change it by; one token less is written."""
    with pytest.raises(TooLong) as e:
        narrow.generate([ids(prompt)], max_new_tokens=new)
    assert [word for word in numbers.split() if word not in str(e.value)] == []
    if prompt == 300:
        assert len(narrow.generate([ids(prompt)], max_new_tokens=new - 1, ignore_eos=True)[0].tokens) == new - 1
