"""Which seed a call's rows get, and what it repeats."""

from __future__ import annotations

import pytest

from quickbrown import TooLong, set_seed
from tiny_llm import SAMPLED, alone, ids, said


def test_a_completion_names_the_seed_that_writes_it_again_alone(llm):
    """Six samples of two prompts, all different; their company, and which sample they were, leave no trace."""
    prompts = ["Once", ids(100)]
    rows = llm.generate(prompts, n=3, **SAMPLED, seed=11)
    assert len({c.seed for row in rows for c in row}) == len({c.text for row in rows for c in row}) == 6
    for prompt, row in zip(prompts, rows, strict=True):
        assert [alone(llm, prompt, **SAMPLED, seed=[c.seed]) for c in row] == [said(c) for c in row]


def test_what_draws_nothing_has_no_seed(llm):
    assert llm.generate("Once", max_new_tokens=5, seed=3).seed is None


def test_one_seed_is_for_the_call(llm):
    """Twice the same texts; the same prompt twice in a call draws differently; another seed writes others."""

    def texts(seed):
        return [c.text for c in llm.generate(["Once", "Once"], **SAMPLED, seed=seed)]

    assert texts(1) == texts(1)
    assert len({*texts(1), *texts(2)}) == 4


def test_set_seed_repeats_the_calls_that_follow(llm):
    """Calls that draw nothing, or with a seed of their own, take no number; without set_seed no two are alike."""

    def draw():
        return llm.generate("Once", **SAMPLED).text

    assert draw() != draw()
    set_seed(5)
    first = [draw(), llm.stream("Once", **SAMPLED).read().text, draw()]
    assert len(set(first)) == 3
    set_seed(5)
    again = [draw()]
    llm.generate("Once", max_new_tokens=5)
    llm.generate("Once", **SAMPLED, seed=1)
    with pytest.raises(TooLong):
        llm.generate([ids(3000)], **SAMPLED)
    assert [*again, draw(), draw()] == first
    set_seed(6)
    assert draw() not in first


@pytest.mark.parametrize("wrong", [[], [1, 2], [1, 2, 3, 4]])
def test_a_row_seed_for_each_prompt_or_none(llm, wrong):
    with pytest.raises(ValueError, match=rf"^seed names {len(wrong)} rows, but the call has 3; "):
        llm.generate(["a", "b", "c"], **SAMPLED, seed=wrong)
