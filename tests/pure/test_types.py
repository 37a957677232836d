"""What SamplingParams takes, and the sentences for what it does not."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from quickbrown.types import Finish, FinishReason, SamplingParams, UnknownOption

REFUSED = {
    "max_new_tokens": [0, -1, 1.5, "5", None, True, 2**31, math.inf],
    "temperature": [-0.1, math.nan, math.inf, "1", None, True],
    "top_k": [-1, 1.0, None, False, 2**31],
    "top_p": [0, 0.0, 1.1, -0.5, math.nan, None, True],
    "min_p": [-0.1, 1.5, math.nan, None, False],
    "seed": [-1, 2**64, 0.5, True, "7", (3, -1), (2**64,), (1, None), (0, True), ("7",), {1, 2}],
    "max_time": [0, 0.0, -1, math.nan, math.inf, "5", True],
    "stop": [[""], [1], ["a", None]],
    "ignore_eos": [1, None, "yes"],
    "logprobs": [1, 5, None],
    "max_length": [0, -1, 1.5, True],
    "min_new_tokens": [-1, 0.5, True],
    "min_length": [-1, 0.5, None, True],
    "eos_token_id": ["2", 1.5, (), (1, "2"), True],
    "do_sample": [0, 1, "yes"],
    "top_h": [0, 1.1, math.nan, True],
    "typical_p": [0, 1.1, math.nan, None, True],
    "epsilon_cutoff": [-0.1, 1, math.nan, None],
    "eta_cutoff": [-0.1, 1, math.nan, None],
    "repetition_penalty": [0, -1, math.nan, math.inf, None, True],
    "encoder_repetition_penalty": [0, -1, math.nan, math.inf, None, True],
    "no_repeat_ngram_size": [-1, 0.5, None, True],
    "encoder_no_repeat_ngram_size": [-1, 0.5, None, True],
    "bad_words": [[""], [1], 5],
    "bad_words_ids": [(), (1, 2), ((),), ((-1,),), "ab"],
    "sequence_bias": [{}, {(1,): math.nan}, {1: 2.0}, (((1,), "a"),), 5],
    "suppress_tokens": [(-1,), ("a",), 5],
    "begin_suppress_tokens": [(-1,), ("a",), 5],
    "forced_bos_token_id": [-1, 1.5, (1,)],
    "forced_eos_token_id": [-1, 1.5, (), (-1,)],
    "exponential_decay_length_penalty": [(1,), (-1, 2.0), (1, 0), 5],
    "remove_invalid_values": [1, None],
    "renormalize_logits": [1, None],
    "prompt_lookup_num_tokens": [-1, 1.5, None],
    "max_matching_ngram_size": [0, 2.5, "long"],
}
TAKEN = {
    "max_new_tokens": [1, 2**31 - 1],
    "temperature": [0, 0.0, 1, 100.0],
    "top_k": [0, 1, 2**31 - 1],
    "top_p": [1e-9, 0.5, 1, 1.0],
    "min_p": [0, 0.05, 1],
    "seed": [None, 0, 2**64 - 1, (5,), (0, 2**64 - 1, 0)],
    "max_time": [None, 1e-3, 1, 2.5, 10**9],
    "stop": [(), ("a",), ("a", "\n\n")],
    "ignore_eos": [True, False],
    "logprobs": [True, False],
    "max_length": [None, 1, 10**6],
    "min_new_tokens": [None, 0, 256],
    "min_length": [0, 1000],
    "eos_token_id": [None, 2, -1, (2, 5)],
    "do_sample": [None, False],
    "top_h": [None, 0.4, 1],
    "typical_p": [0.1, 1],
    "epsilon_cutoff": [0, 0.9],
    "eta_cutoff": [0, 0.9],
    "repetition_penalty": [0.5, 1, 2.5],
    "encoder_repetition_penalty": [0.5, 1, 2.5],
    "no_repeat_ngram_size": [0, 3],
    "encoder_no_repeat_ngram_size": [0, 3],
    "bad_words": [(), ("fox",)],
    "bad_words_ids": [None, ((1,), (2, 3))],
    "sequence_bias": [None, {(1, 2): -1.0}, (((1, 2), -math.inf),)],
    "suppress_tokens": [None, (), (1, 2)],
    "begin_suppress_tokens": [None, (), (1, 2)],
    "forced_bos_token_id": [None, 0],
    "forced_eos_token_id": [None, 0, (1, 2)],
    "exponential_decay_length_penalty": [None, (3, 1.5)],
    "remove_invalid_values": [True, False],
    "renormalize_logits": [True, False],
    "prompt_lookup_num_tokens": [0, 10],
    "max_matching_ngram_size": [1, 5],
}


def test_every_option_is_tested_here():
    names = {field.name for field in dataclasses.fields(SamplingParams)}
    assert names == set(REFUSED) == set(TAKEN)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in REFUSED for value in REFUSED[name]])
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be ") as error:
        SamplingParams(**{name: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in TAKEN for value in TAKEN[name]])
def test_values_in_range_are_kept(name, value):
    assert getattr(SamplingParams(**{name: value}), name) == value


def test_stop_may_be_one_string_or_a_list():
    assert SamplingParams(stop="end").stop == ("end",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


def test_seeds_may_be_a_list():
    """It is kept as a tuple, so that params can be compared and cannot be changed from outside."""
    seeds = [3, 0, 3]
    params = SamplingParams(seed=seeds)
    seeds[0] = 4
    assert params == SamplingParams(seed=(3, 0, 3))
    with pytest.raises(ValueError, match=r"^seed must be None, a whole number .* or several, not "):
        SamplingParams(seed=[3, -1])


def test_options_by_name():
    params = SamplingParams.from_options({"temperature": 0.5, "stop": "x"})
    assert params == SamplingParams(temperature=0.5, stop=("x",))


def test_do_sample_draws_at_temperature_1_unless_one_is_given():
    assert SamplingParams.from_options({"do_sample": True}).temperature == 1.0
    assert SamplingParams.from_options({"do_sample": True, "temperature": 0.5}).temperature == 0.5
    assert SamplingParams.from_options({"do_sample": False}).temperature == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"do_sample": True, "temperature": 0}, "do_sample=True and temperature=0 contradict each other"),
        ({"do_sample": False, "temperature": 0.5}, "do_sample=False and temperature=0.5 contradict each other"),
        ({"max_length": 5, "max_new_tokens": 5}, "max_new_tokens and max_length both say how long"),
        ({"min_new_tokens": 300}, "min_new_tokens is 300, but max_new_tokens is 256"),
        ({"stop": "a", "stop_strings": "b"}, "stop_strings and stop are one option"),
    ],
)
def test_options_that_contradict_each_other(options, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        SamplingParams.from_options(options)


def test_an_option_may_be_given_by_its_name_in_transformers():
    assert SamplingParams.from_options({"stop_strings": ["a"]}) == SamplingParams(stop=("a",))


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UnknownOption, match=r"unknown option 'temprature'; did you mean 'temperature'\?"):
        SamplingParams.from_options({"temprature": 0.5})


def test_an_option_like_no_other_lists_them_all():
    with pytest.raises(UnknownOption) as error:
        SamplingParams.from_options({"zzz": 1})
    assert all(field.name in str(error.value) for field in dataclasses.fields(SamplingParams))
    assert isinstance(error.value, TypeError)


def test_params_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().seed = 1


def test_reasons_are_their_words():
    assert [str(reason) for reason in FinishReason] == ["stop", "length", "time", "cancelled", "error"]
    assert f"{Finish(FinishReason.STOP, 2).reason}" == "stop" == FinishReason.STOP


def test_numpys_numbers_are_numbers():
    params = SamplingParams(
        temperature=np.float32(0.5), top_k=np.int64(3), seed=[np.uint64(2**63), 1], max_time=np.float64(2)
    )
    assert params == SamplingParams(temperature=0.5, top_k=3, seed=(2**63, 1), max_time=2.0)
    assert {type(value) for value in (params.temperature, params.max_time)} == {float}
    assert {type(value) for value in (params.top_k, *params.seed)} == {int}
    with pytest.raises(ValueError, match="max_new_tokens"):
        SamplingParams(max_new_tokens=np.float32(3))
