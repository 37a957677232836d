"""Guesses change nothing that a model writes: prompt lookup and a draft on native kernels, always or where they pay."""

from __future__ import annotations

import dataclasses

import pytest

from gguf_writer import write_tiny_llama
from quickbrown import LLM
from quickbrown.generation.decoders.draft import Drafted
from quickbrown.generation.decoders.lookup import Lookup

PROMPTS = ["one two three one two three one two", "a fox", "if x: if y: if"]


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """Its vocabulary has few tokens, so that texts often come upon what they had."""
    made = LLM(write_tiny_llama(tmp_path_factory.mktemp("target") / "tiny.gguf", max_position_embeddings=2048, seed=1))
    yield made
    made.close()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("draft") / "small.gguf"
    made = LLM(write_tiny_llama(path, max_position_embeddings=512, seed=2, num_hidden_layers=1))
    yield made
    made.close()


def said(completion):
    return dataclasses.replace(completion, reused_tokens=0, guessed_tokens=0, accepted_tokens=0)


def written(llm, **options):
    rows = llm.generate(PROMPTS, n=2, max_new_tokens=60, ignore_eos=True, seed=5, logprobs=True, **options)
    return [one for row in rows for one in row]


WAYS = [{}, {"temperature": 0.3}, {"temperature": 0.3, "repetition_penalty": 1.2}, {"stop": "e"}]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_prompt_lookup(llm, monkeypatch, options):
    """Where it pays, and always."""
    plain = [said(one) for one in written(llm, **options)]
    assert [said(one) for one in written(llm, prompt_lookup_num_tokens=5, **options)] == plain
    monkeypatch.setattr(llm, "_decoder", lambda job: Lookup(5))
    looked_up = written(llm, **options)
    assert [said(one) for one in looked_up] == plain
    assert sum(one.guessed_tokens for one in looked_up) > 0


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("itself", [False, True])
def test_a_draft(llm, other, monkeypatch, options, itself):
    plain = [said(one) for one in written(llm, **options)]
    always = Drafted(llm.follow(llm if itself else other).model, 4)
    monkeypatch.setattr(llm, "_decoder", lambda job: always)
    guessed = written(llm, **options)
    assert [said(one) for one in guessed] == plain
    made, right = (sum(getattr(one, f"{name}_tokens") for one in guessed) for name in ("guessed", "accepted"))
    assert made > 0
    if itself and options in ({}, {"temperature": 0.3}):
        assert right == made, "the model's own draws"


def test_a_draft_is_loaded_by_name_and_said(llm, other):
    two = LLM(llm.path, draft=other.path)
    try:
        assert written(two)[0].tokens == written(llm)[0].tokens
        assert two.info()["draft"] == str(other.path)
        assert "draft" not in llm.info()
    finally:
        two.close()


def test_a_draft_of_another_vocabulary_is_refused(llm, tmp_path):
    path = write_tiny_llama(tmp_path / "alien.gguf")
    alien = LLM(path)
    alien.vocabulary = None
    alien.config = dataclasses.replace(alien.config, vocab_size=alien.config.vocab_size + 1)
    with pytest.raises(ValueError, match=r"alien.gguf cannot be a draft of tiny.gguf: its vocabulary is another one"):
        llm.follow(alien)
    alien.close()


def test_a_draft_lends_its_weights(llm, other):
    """They are held once, and it goes on writing its own texts meanwhile."""
    guesser = llm.follow(other).model
    assert guesser.runner.weights is other.runner.weights
    assert guesser.runner.kv is not other.runner.kv
    assert llm.follow(other) is llm.follow(other)
    assert llm.follow(other, 3) is not llm.follow(other)
    assert llm.follow(other, 3).model is guesser
