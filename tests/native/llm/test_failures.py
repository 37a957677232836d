"""A step that fails ends those texts that it fails for, and no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from quickbrown import Finish, FinishReason, GenerationError
from tiny_llm import SAMPLED, alone, begins, held, poison_of, poisoned, running, said, slowly

OPTIONS = {**SAMPLED, "seed": [1, 2, 3]}
PROMPTS = ("Once", "Twice", "Thrice")


@pytest.fixture
def texts(llm):
    return [said(c) for c in llm.generate(PROMPTS, **OPTIONS)]


def test_a_row_that_fails_takes_no_other_with_it(llm, texts):
    """The model fails on a token that only the second text writes, in a step that runs all three."""
    at, poison = poison_of(texts[1], texts[0], texts[2])
    with (
        running(llm, poisoned(poison)),
        pytest.raises(GenerationError, match=r"^row 1: LookupError: no idea$") as e,
    ):
        llm.generate(PROMPTS, **OPTIONS)
    one, guilty, three = e.value.completions
    assert [said(one), said(three)] == [texts[0], texts[2]]
    assert guilty.finish == Finish(FinishReason.ERROR, "LookupError: no idea")
    assert guilty.tokens == texts[1].tokens[: at + 1]
    assert [said(c) for c in llm.generate(PROMPTS, **OPTIONS)] == texts, "it leaves traces"


def test_all_samples_of_the_request_end(llm):
    """One sample's failure is its request's: both rows say so, with what they had."""
    one, two = llm.generate("Once", n=2, **SAMPLED, seed=1)
    at, poison = poison_of(two, one)
    with running(llm, poisoned(poison)), pytest.raises(GenerationError, match="no idea") as e:
        llm.generate("Once", n=2, **SAMPLED, seed=1)
    assert [c.finish.reason for c in e.value.completions] == [FinishReason.ERROR] * 2
    assert all(map(begins, e.value.completions, (one, two)))
    assert len(e.value.completions[1].tokens) == at + 1


def test_a_stream_says_so_at_its_end_and_other_calls_hear_nothing(llm, texts):
    """Three calls in the same steps, all begun while the engine stands still; one is the guilty."""
    at, poison = poison_of(texts[1], texts[0], texts[2])
    with running(llm, poisoned(poison)), held(llm) as steps:
        streams = [llm.stream(prompt, **SAMPLED, seed=[seed]) for seed, prompt in enumerate(PROMPTS, 1)]
        steps.allow()
        written = []
        with pytest.raises(GenerationError, match=r"^LookupError: no idea$") as e:
            written.extend(streams[1])
        assert [said(streams[0].read()), said(streams[2].read())] == [texts[0], texts[2]]
    [guilty] = e.value.completions
    assert guilty == streams[1].completion
    assert "".join(written) == guilty.text == llm.tokenizer.decode(texts[1].tokens[: at + 1])


def test_another_threads_call_hears_nothing(llm, texts):
    """A long text, at least two others that fail beside it."""
    expected = alone(llm, "Once", **{**SAMPLED, "max_new_tokens": 150}, seed=[1])
    _, poison = poison_of(texts[1], expected)
    with running(llm, poisoned(poison)), running(llm, slowly(0.002)), ThreadPoolExecutor(1) as thread:
        other = thread.submit(alone, llm, "Once", **{**SAMPLED, "max_new_tokens": 150}, seed=[1])
        for _ in range(2):
            with pytest.raises(GenerationError):
                llm.generate("Twice", **SAMPLED, seed=[2])
        assert other.result() == expected
