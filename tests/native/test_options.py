"""Options of `LLM` that change logits or draw with rarer filters, and `LLM.score`, on a tiny model file."""

from __future__ import annotations

import math
import random
from contextlib import closing

import numpy as np
import pytest

from gguf_writer import write_tiny_llama
from quickbrown import LLM, TooLong
from quickbrown.hf.generation_config import GenerationConfig
from quickbrown.hf.model import PreTrainedModel

PROMPT = random.Random(1).choices(range(3, 266), k=20)
NEW = 24
ENDS = {0, 2}
OFF = {"top_k": 0, "top_p": 1.0}  # where transformers' defaults are others


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = write_tiny_llama(
        tmp_path_factory.mktemp("model") / "tiny.gguf", max_position_embeddings=2048, tie_word_embeddings=False
    )
    llm = LLM(path, threads=2)
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def face(llm):
    face = PreTrainedModel(llm, "tiny", GenerationConfig(eos_token_id=[0, 2], pad_token_id=0))
    face._hinted = True  # it is a chat model, and these prompts are no chats
    return face


def plain(llm, **options):
    return llm.generate([PROMPT], max_new_tokens=NEW, **options)[0].tokens


GREEDY = {
    "repetition_penalty": 1.5,
    "encoder_repetition_penalty": 1.5,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "bad_words_ids": [[30], [31, 32]],
    "sequence_bias": [[[40], 3.0], [[40, 41], 9.0]],
    "suppress_tokens": [265],
    "forced_eos_token_id": 2,
    "min_new_tokens": NEW,
    "exponential_decay_length_penalty": [3, 1.5],
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "eos_token_id": [5],
}
DRAWN = {"top_h": 0.3, "typical_p": 0.2, "epsilon_cutoff": 0.004, "eta_cutoff": 0.5, "top_k": 5, "min_p": 0.9}


@pytest.mark.parametrize("name", GREEDY)
def test_an_option_is_what_it_is_in_generate(llm, face, name):
    """Which is compared with transformers itself, option by option (tests/hf)."""
    option = {name: GREEDY[name]}
    got = plain(llm, **option)
    want = face.generate([PROMPT], max_new_tokens=NEW, pad_token_id=0, **option)[0][len(PROMPT) :]
    assert list(got) == list(want)[: len(got)]
    assert set(list(want)[len(got) :]) <= {0}


@pytest.mark.parametrize("name", ["repetition_penalty", "no_repeat_ngram_size", "sequence_bias", "forced_eos_token_id"])
def test_an_option_does_something(llm, name):
    """The cases above would agree of an option that nobody reads too."""
    assert plain(llm, ignore_eos=True) != plain(llm, **{name: GREEDY[name]}, ignore_eos=name != "forced_eos_token_id")


@pytest.mark.parametrize("name", DRAWN)
def test_a_filter_draws_as_in_generate(llm, face, name):
    option = {name: DRAWN[name], "temperature": 0.7}
    got = plain(llm, **option, seed=[7], ignore_eos=True)
    never = {"eos_token_id": -1, "pad_token_id": 0}
    want = face.generate([PROMPT], max_new_tokens=NEW, do_sample=True, seed=[7], **never, **{**OFF, **option})
    assert list(got) == list(want[0])[len(PROMPT) :]
    assert got != plain(llm, temperature=0.7, seed=[7], ignore_eos=True)


def test_bad_words_are_not_written(llm):
    free = llm.generate("abc", max_new_tokens=NEW, ignore_eos=True)
    word = next(
        piece for piece in (llm.tokenizer.decode([i]) for i in free.tokens) if piece.strip().isascii() and piece
    )
    assert word in free.text
    assert word not in llm.generate("abc", max_new_tokens=NEW, ignore_eos=True, bad_words=[word]).text


def test_max_length_counts_the_prompt(llm):
    assert len(llm.generate([PROMPT], max_length=25, ignore_eos=True)[0].tokens) == 5
    with pytest.raises(TooLong, match="the prompt has 20 tokens and max_length=20 counts them too"):
        llm.generate([PROMPT], max_length=20)


def test_least_lengths_that_cannot_be(llm):
    with pytest.raises(ValueError, match="min_length is 40, but 20 tokens of prompt and max_new_tokens, 5, make 25"):
        llm.generate([PROMPT], min_length=40, max_new_tokens=5)


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


TEXT = random.Random(2).choices(range(3, 266), k=200)


class TestScore:
    def test_is_what_the_logits_say(self, llm):
        score = llm.score(TEXT, top=3)
        logprobs = log_softmax(llm.logits(TEXT))[:-1]
        assert [one.token for one in score.tokens] == TEXT
        assert math.isnan(score.tokens[0].logprob)
        assert score.judged == len(TEXT) - 1
        want = logprobs[np.arange(len(TEXT) - 1), TEXT[1:]]
        got = [one.logprob for one in score.tokens[1:]]
        # two ways to sum 300 float64 numbers: n * eps relative, of logarithms below 30
        assert np.abs(np.array(got) - want).max() < 300 * 2**-52 * 30
        assert score.perplexity == pytest.approx(math.exp(-want.mean()), rel=1e-10)
        for one, row in zip(score.tokens[1:], logprobs, strict=True):
            assert [token for token, _ in one.alternatives] == np.argsort(-row, kind="stable")[:3].tolist()
            assert one.rank == (row > row[one.token]).sum()
            assert one.entropy == pytest.approx(-(np.exp(row) * row).sum(), abs=1e-10)

    def test_beside_texts_that_are_written_it_is_the_same(self, llm):
        """Promise 1: byte for byte."""
        alone = llm.score(TEXT, top=2)
        with closing(llm.stream_batch([PROMPT] * 3, max_new_tokens=300, ignore_eos=True, temperature=1.0)) as stream:
            next(stream)
            beside = llm.score(TEXT, top=2)
            assert all(text.finish is None for text in stream.texts)
        assert beside.tokens[1:] == alone.tokens[1:]

    def test_passes_of_a_text_beyond_the_context(self, tmp_path):
        """Each token is judged with exactly the tokens before it that its pass reads."""
        path = write_tiny_llama(tmp_path / "tiny.gguf", max_position_embeddings=64, tie_word_embeddings=False)
        llm = LLM(path, threads=2)
        score = llm.score(TEXT, stride=16)
        for at in (1, 63, 64, 70, 79, 80, 199):
            begin = 0 if at < 64 else (at - 64) // 16 * 16 + 16
            begin = min(begin, 144)
            want = log_softmax(llm.logits(TEXT[begin:at], 1))[0, TEXT[at]]
            assert score.tokens[at].logprob == pytest.approx(want, abs=1e-12), at
        llm.close()

    def test_one_token_is_judged_by_nobody(self, llm):
        score = llm.score([5])
        assert (score.judged, math.isnan(score.perplexity), math.isnan(score.logprob)) == (0, True, True)

    @pytest.mark.parametrize(
        ("sentence", "arguments"),
        [
            ("nothing to score", {"prompt": []}),
            ("token 300, outside the vocabulary", {"prompt": [1, 300]}),
            ("top must be a whole number from 0 to", {"prompt": [1], "top": -1}),
            ("stride must be a whole number from 1 to", {"prompt": [1], "stride": 0}),
            ("stride must be a whole number from 1 to", {"prompt": [1], "stride": 10**6}),
        ],
    )
    def test_refusals(self, llm, sentence, arguments):
        with pytest.raises(ValueError, match=sentence):
            llm.score(**arguments)

    def test_a_nan_is_an_error(self, llm, monkeypatch):
        monkeypatch.setattr(llm.runner, "logits", lambda: np.full((64, llm.config.vocab_size), np.nan, np.float32))
        with pytest.raises(ValueError, match="the logits hold a NaN"):
            llm.score(TEXT)
