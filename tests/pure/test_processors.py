"""Processors and filters against what transformers makes of the same rows, and what it does not say."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quickbrown.backends.sampling import edited
from quickbrown.generation import filters, processors
from quickbrown.generation.history import History
from quickbrown.generation.processors import build
from quickbrown.hf.generation_config import GenerationConfig, merge

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/transformers/processors.json").read_text())
OURS = {
    "TemperatureLogitsWarper": filters.Temperature,
    "TopKLogitsWarper": filters.TopK,
    "TopPLogitsWarper": filters.TopP,
    "TopHLogitsWarper": filters.TopH,
    "MinPLogitsWarper": filters.MinP,
    "TypicalLogitsWarper": filters.Typical,
    "EpsilonLogitsWarper": filters.Epsilon,
    "EtaLogitsWarper": filters.Eta,
    "RepetitionPenaltyLogitsProcessor": processors.RepetitionPenalty,
    "EncoderRepetitionPenaltyLogitsProcessor": processors.EncoderRepetitionPenalty,
    "NoRepeatNGramLogitsProcessor": processors.NoRepeatNGram,
    "EncoderNoRepeatNGramLogitsProcessor": processors.EncoderNoRepeatNGram,
    "SequenceBiasLogitsProcessor": processors.SequenceBias,
    "NoBadWordsLogitsProcessor": processors.NoBadWords,
    "MinLengthLogitsProcessor": processors.MinLength,
    "MinNewTokensLengthLogitsProcessor": processors.MinNewTokensLength,
    "ForcedBOSTokenLogitsProcessor": processors.ForcedBosToken,
    "ForcedEOSTokenLogitsProcessor": processors.ForcedEosToken,
    "InfNanRemoveLogitsProcessor": processors.InfNanRemove,
    "ExponentialDecayLengthPenalty": processors.ExponentialDecayLength,
    "SuppressTokensLogitsProcessor": processors.SuppressTokens,
    "SuppressTokensAtBeginLogitsProcessor": processors.SuppressTokensAtBegin,
    "LogitNormalization": processors.LogitNormalization,
}
V = 24


def scores(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(GOLDEN["scores"][name], np.float32)


def ids(name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(GOLDEN["ids"][name], np.int64)


def label(case: dict[str, Any]) -> str:
    return f"{case['class']}-{case['scores']}-{json.dumps(case['arguments'])}"[:80]


def resolved(**fields: Any) -> GenerationConfig:
    return merge({}, GenerationConfig(eos_token_id=[2, 3], pad_token_id=0, **fields), GenerationConfig())[0]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=label)
def test_each_gives_what_transformers_gives(case: dict[str, Any]) -> None:
    before, text = scores(case["scores"]), ids(case["ids"])
    given = before.copy()
    out = OURS[case["class"]](**case["arguments"])(text, given)
    theirs = np.array(case["out"], np.float32)
    if case["class"] == "TopPLogitsWarper" and case["scores"] in ("ties", "even"):
        # Which of equal tokens stay is left to a sort that is not stable there; how many is not.
        assert ((out == before) | (out == -math.inf)).all()
        out, theirs = np.sort(out), np.sort(theirs)
    np.testing.assert_allclose(out, theirs, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(given, before, "the caller's scores were changed")
    assert out.dtype == np.float32


def test_every_class_has_a_golden_that_changes_something() -> None:
    """A processor that returned its input would pass where none of its cases does anything."""
    for name in OURS:
        cases = [c for c in GOLDEN["cases"] if c["class"] == name]
        assert any(not np.array_equal(np.array(c["out"]), np.array(GOLDEN["scores"][c["scores"]])) for c in cases), name


@pytest.mark.parametrize("chain", GOLDEN["chains"], ids=lambda c: json.dumps(c["fields"])[:60])
def test_chains_are_built_in_the_order_of_transformers(chain: dict[str, Any]) -> None:
    """A wrong order shows in the names, a wrong prompt length or vocabulary in the values."""
    config = resolved(**chain["fields"])
    text = ids("text")[:1]
    prompt = text[0, : chain["prompt"]].tolist()
    new = config.max_new_tokens or config.max_length - len(prompt)
    built = build(config, prompt=prompt, new_tokens=new, eos_ids=(2, 3), vocab_size=V, warpers=config.do_sample is True)
    named = {ours: name for name, ours in OURS.items()}
    assert [named[type(p)] for p in built] == chain["names"]
    out = scores("wide")[:1]
    for processor in built:
        out = processor(text, out)
    np.testing.assert_allclose(out, np.array(chain["out"], np.float32), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if hasattr(OURS[case["class"]], "edits")], ids=label)
def test_edits_are_what_the_processor_does_bit_for_bit(case: dict[str, Any]) -> None:
    """Of each row of a golden, and of texts of every length up to its own: those that change something, and not."""
    arguments = dict(case["arguments"])
    for row, (before, text) in enumerate(zip(scores(case["scores"]), ids(case["ids"]), strict=True)):
        if "encoder_input_ids" in arguments:
            arguments["encoder_input_ids"] = np.array(case["arguments"]["encoder_input_ids"])[row : row + 1]
        processor, history = OURS[case["class"]](**arguments), History()
        for length in range(1, len(text) + 1):
            history.become(text[:length].tolist())
            edits = processor.edits(history, V)
            if arguments.get("prompt_ignore_length"):
                assert edits is None
                continue
            out = processor(text[None, :length], before[None])[0]
            assert edited(before, edits).tobytes() == out.tobytes()


def test_edits_are_of_one_text() -> None:
    """Processors made for several prompts have none, nor those that name a token which is not there."""
    several = np.array([[5, 7], [7, 5]])
    for processor in (
        processors.EncoderRepetitionPenalty(1.3, several),
        processors.EncoderNoRepeatNGram(2, several),
        processors.SequenceBias({(V,): 1.0}),
        processors.ForcedEosToken(3, V),
    ):
        assert processor.edits(History([5, 7]), V) is None


@pytest.mark.parametrize("chain", GOLDEN["chains"], ids=lambda c: json.dumps(c["fields"])[:60])
def test_edits_of_chains(chain: dict[str, Any]) -> None:
    """One after another they are what the chain does, as far as it can be said in edits."""
    text, out = ids("text")[:1], scores("wide")[:1]
    prompt = text[0, : chain["prompt"]].tolist()
    config = resolved(**chain["fields"])
    new = config.max_new_tokens or config.max_length - len(prompt)
    row, history = out[0], History(text[0].tolist())
    for processor in build(config, prompt=prompt, new_tokens=new, eos_ids=(2, 3), vocab_size=V, warpers=False):
        if not hasattr(processor, "edits"):
            break
        out, row = processor(text, out), edited(row, processor.edits(history, V))
        assert row.tobytes() == out[0].tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_a_history_is_that_of_its_text_whatever_it_was_before(seed: int) -> None:
    """Grown, cut and changed by chance, and asked after some of it: as one that is made of the text at once."""
    random = np.random.default_rng(seed)
    history, text = History(), list[int]()
    for _ in range(300):
        text = text[: len(text) - random.choice([0, 0, 1, 3, len(text)], p=[0.4, 0.3, 0.15, 0.1, 0.05])]
        text = [*text, *random.integers(0, random.choice([4, 300]), random.integers(0, 8)).tolist()]
        history.become(text)
        assert history.tokens == text
        if random.random() < 0.7:
            assert history.distinct().tolist() == list(dict.fromkeys(text))
            for size in (1, 2, 3):
                tail = text if random.random() < 0.5 else random.integers(0, 4, 3).tolist()
                ends = [i for i in range(size - 1, len(text)) if text[i + 1 - size : i] == tail[len(tail) + 1 - size :]]
                wanted = [text[i] for i in ends] if len(tail) >= size - 1 else []
                assert sorted(set(history.completing(size, tail).tolist())) == sorted(set(wanted))


def test_padding_counts_where_the_config_counts_the_whole_row() -> None:
    """min_length is of the padded row: without `padding` a short prompt of a batch would get more new tokens."""
    config = resolved(min_length=8, max_new_tokens=9)
    for padding, length, banned in ((0, 7, True), (0, 8, False), (4, 3, True), (4, 4, False)):
        chain = build(config, prompt=[5, 6], padding=padding, new_tokens=9, eos_ids=(2, 3), vocab_size=V, warpers=False)
        out = np.zeros((1, V), np.float32)
        for processor in chain:
            out = processor(np.ones((1, length), np.int64), out)
        assert (out[0, 2] == -math.inf) == banned


def test_a_prompt_of_one_token_in_a_padded_batch_gets_no_forced_beginning() -> None:
    config = resolved(forced_bos_token_id=5)
    for padding, kinds in ((0, [processors.ForcedBosToken]), (1, [])):
        chain = build(config, prompt=[4], padding=padding, new_tokens=9, eos_ids=(), vocab_size=V, warpers=False)
        assert [type(p) for p in chain] == kinds


def test_the_callers_own_stands_in_place_of_a_built_in_of_its_kind() -> None:
    """Both in the chain would penalize twice; at the end instead of in place would change the order."""

    def other(input_ids: Any, out: Any) -> Any:
        return out

    config = resolved(repetition_penalty=1.2, suppress_tokens=[1])
    own = processors.RepetitionPenalty(1.5)
    chain = build(config, prompt=[4], new_tokens=9, eos_ids=(), vocab_size=V, user=[other, own], warpers=False)
    assert chain[0] is own
    assert isinstance(chain[1], processors.SuppressTokens)
    assert chain[2:] == [other]


def test_of_equal_tokens_top_p_keeps_those_with_lower_ids() -> None:
    """As the sampler does, so that a text does not depend on which of the two filters it."""
    out = filters.TopP(0.5)(ids("short")[:1], np.array([[0, 1, 1, 0, 1, 1]], np.float32))
    assert np.flatnonzero(out[0] > -math.inf).tolist() == [1, 2, 4]


def test_allowed_tokens() -> None:
    seen = []

    def fn(prompt: int, text: Any) -> list[int]:
        seen.append((prompt, text.tolist()))
        return [[1, 4], [0]][prompt]

    before = scores("holes")  # where every third is -inf: token 0 of each row
    out = processors.PrefixAllowedTokens(fn)(ids("short"), before)
    assert seen == [(0, [4]), (1, [6])]
    assert np.flatnonzero(out[0] > -math.inf).tolist() == [1, 4]
    np.testing.assert_array_equal(out[0, [1, 4]], before[0, [1, 4]])
    assert out[1, 0] == 0, "all allowed tokens were ruled out: they are equally likely instead"
    for wrong, words in (([], "allows no token"), ([V], "beyond the vocabulary"), ([-1], "beyond the vocabulary")):
        with pytest.raises(ValueError, match=words):
            processors.PrefixAllowedTokens(lambda prompt, text, wrong=wrong: wrong)(ids("short"), before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: filters.Temperature(0), "do_sample=False"),
        (lambda: filters.Temperature("hot"), "temperature"),
        (lambda: filters.TopK(0), "top_k"),
        (lambda: filters.TopK(1.5), "top_k"),
        (lambda: filters.TopP(1.1), "top_p"),
        (lambda: filters.TopP(0.5, min_tokens_to_keep=0), "min_tokens_to_keep"),
        (lambda: filters.MinP(-0.1), "min_p"),
        (lambda: filters.TopH(0), "top_h"),
        (lambda: filters.Typical(1), "typical_p"),
        (lambda: filters.Epsilon(0), "epsilon_cutoff"),
        (lambda: filters.Eta(1), "eta_cutoff"),
        (lambda: processors.RepetitionPenalty(0), "penalty"),
        (lambda: processors.RepetitionPenalty(1.1, -1), "prompt_ignore_length"),
        (lambda: processors.NoRepeatNGram(0), "ngram_size"),
        (lambda: processors.SequenceBias({}), "sequence_bias"),
        (lambda: processors.SequenceBias({(-1,): 1.0}), "sequence_bias"),
        (lambda: processors.SequenceBias([[5, 1.0]]), "sequence_bias"),
        (lambda: processors.NoBadWords([5]), "bad_words_ids"),
        (lambda: processors.MinLength(-1, 2), "min_length"),
        (lambda: processors.ForcedEosToken(5, -1), "eos_token_id"),
        (lambda: processors.SuppressTokens([0.5]), "suppress_tokens"),
        (lambda: processors.SequenceBias({(V,): 1})(ids("text"), scores("wide")), "beyond the vocabulary"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_whole_numbers_stand_for_fractions() -> None:
    assert filters.TopP(1).top_p == 1
    assert processors.RepetitionPenalty(2).penalty == 2
    np.testing.assert_array_equal(
        processors.SequenceBias({(5,): 3})(ids("text"), scores("wide"))[:, 5], scores("wide")[:, 5] + 3
    )


def test_tokens_beyond_the_vocabulary_are_passed_over() -> None:
    """A tokenizer can know more tokens than the model has rows; negative ids would count from the end."""
    text = np.array([[V, V + 7, -1, 5]])
    before = scores("wide")[:1]
    for processor in (processors.RepetitionPenalty(2.0), processors.NoRepeatNGram(1)):
        assert np.flatnonzero(processor(text, before) != before).tolist() == [5]


def test_an_end_never_rises_to_nan() -> None:
    """factor ** steps overflows after a while; inf times a score of 0 would be nan."""
    penalty = processors.ExponentialDecayLength((0, 2.0), [2, 3], 0)
    before = np.zeros((1, V), np.float32)
    before[0, 3] = -1
    out = penalty(np.zeros((1, 5000), np.int64), before)
    assert out[0, 2] == 0
    assert out[0, 3] > 1e38


def test_rows_do_not_depend_on_their_company() -> None:
    for case in GOLDEN["cases"]:
        if "encoder_input_ids" not in case["arguments"]:
            processor = OURS[case["class"]](**case["arguments"])
            text, rows = ids(case["ids"]), scores(case["scores"])
            alone = [processor(text[i : i + 1], rows[i : i + 1])[0] for i in range(2)]
            np.testing.assert_array_equal(processor(text, rows), alone, label(case))


def test_the_common_ones_take_no_time() -> None:
    """On a row of 150,000 tokens, after a top_k of 50 at most; each is called once a token. The bound is ten times what
    they take, so that only a change of kind fails it."""
    row = np.random.default_rng(0).normal(size=(1, 150_000)).astype(np.float32) * 3
    text = np.random.default_rng(1).integers(0, 150_000, (1, 2000))
    few = filters.TopK(50)(text, row)
    for processor, given in (
        (filters.Temperature(0.7), row),
        (filters.TopK(50), row),
        (filters.TopP(0.9), few),
        (filters.MinP(0.05), few),
        (processors.RepetitionPenalty(1.1), row),
        (processors.NoRepeatNGram(3), row),
        (processors.MinNewTokensLength(0, 3000, [5]), row),
        (processors.SequenceBias({(5,): 1.0, (5, 6): 2.0}), row),
    ):
        best = math.inf
        for _ in range(5):
            start = time.perf_counter()
            processor(text, given)
            best = min(best, time.perf_counter() - start)
        assert best < 3e-3, type(processor).__name__
