"""`generate` of a loaded model: what transformers gives, and what it refuses to give wrongly."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from checkpoints import CHAT, write_checkpoint
from generate_cases import CASES, CHECKPOINT, ONE, THREE
from quickbrown import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PromptHint,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
    TooLong,
    UnknownOption,
    set_seed,
)
from quickbrown.hf.rows import Processors

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/transformers/generate.json").read_text())["cases"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("generate") / "tiny", **CHECKPOINT)


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32", memory="8MB")


@pytest.fixture(scope="module")
def tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    """Another model of the same vocabulary."""
    folder = write_checkpoint(tmp_path_factory.mktemp("assistant") / "small", **{**CHECKPOINT, "seed": 9})
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32", memory="8MB")


@pytest.fixture
def one(tokenizer):
    return tokenizer(ONE, return_tensors="np")


@pytest.fixture
def three(tokenizer):
    return tokenizer(THREE, return_tensors="np", padding=True)


class TestAsTransformers:
    @pytest.mark.parametrize("name", CASES)
    def test_tokens(self, name, model, tokenizer):
        """Goldens were made in float32 too, and no choice among them is near."""
        prompts, side, keywords = CASES[name]
        inputs = tokenizer(prompts, padding=True, padding_side=side, return_tensors="np")
        assert model.generate(**inputs, **keywords).tolist() == GOLDEN[name]["sequences"]

    @pytest.mark.parametrize("do_sample", [False, True])
    def test_tokens_are_the_same_where_processors_are_called(self, do_sample, model, three, monkeypatch):
        """Edits in the step's one call, and numpy on the engine's thread: the same texts."""
        everything = {
            "sequence_bias": {(7,): 2.0, (9, 4): -3.0},
            "encoder_repetition_penalty": 1.1,
            "repetition_penalty": 1.4,
            "no_repeat_ngram_size": 2,
            "encoder_no_repeat_ngram_size": 3,
            "bad_words_ids": [[11], [12, 13]],
            "min_new_tokens": 5,
            "forced_eos_token_id": 2,
            "suppress_tokens": [3, 4],
            "begin_suppress_tokens": [20],
        }
        how = {**everything, "do_sample": do_sample, "num_return_sequences": 3 if do_sample else 1, "seed": 5}
        asked = []
        ask = Processors.edits

        def edits(self, tokens, sample):
            asked.append(found := ask(self, tokens, sample))
            return found

        monkeypatch.setattr(Processors, "edits", edits)
        said = model.generate(**three, **how, max_new_tokens=24)
        assert asked
        assert all(asked), "a step without edits"
        monkeypatch.setattr(Processors, "edits", lambda self, tokens, sample: None)
        assert (model.generate(**three, **how, max_new_tokens=24) == said).all()

    def test_log_probabilities(self, model, one):
        out = model.generate(**one, return_dict_in_generate=True)
        np.testing.assert_allclose(out.logprobs, GOLDEN["default"]["logprobs"], atol=2e-5)

    def test_scores(self, model, three):
        keywords = CASES["repetition_penalty"][2]
        out = model.generate(**three, **keywords, return_dict_in_generate=True, output_scores=True)
        assert len(out.scores) == 24
        for step, golden in zip(out.scores, GOLDEN["repetition_penalty"]["scores"], strict=False):
            np.testing.assert_allclose(step[:, ::37], golden, atol=2e-4)
        rows = np.stack(out.scores, 1)
        assert (rows.argmax(-1) == out.sequences[:, -24:]).all()


class TestArrays:
    def test_the_result_is_of_the_callers_kind(self, model, one):
        ids = one["input_ids"]
        out = model.generate(ids, max_new_tokens=3)
        assert isinstance(out, np.ndarray)
        assert out.dtype == np.int64
        assert model.generate(ids.tolist(), max_new_tokens=3) == out.tolist()
        assert (model.generate(one, max_new_tokens=3) == out).all()
        assert (model.generate(input_ids=ids, attention_mask=one["attention_mask"], max_new_tokens=3) == out).all()

    def test_without_input_a_text_begins_with_bos(self, model):
        assert (model.generate(max_new_tokens=3)[:, :1] == [[1]]).all()

    def test_the_side_of_the_padding_changes_nothing(self, model, tokenizer):
        """The row as given, then what is new, whichever side was padded: out[:, n:] is the same."""
        new = []
        for side in ("left", "right"):
            inputs = tokenizer(THREE, return_tensors="np", padding=True, padding_side=side)
            out = model.generate(**inputs, max_new_tokens=10)
            length = inputs.input_ids.shape[1]
            assert (out[:, :length] == inputs.input_ids).all()
            new.append(out[:, length:])
        assert (new[0] == new[1]).all()
        alone = [model.generate(**tokenizer([text], return_tensors="np"), max_new_tokens=10)[0, -10:] for text in THREE]
        assert (new[0] == alone).all()

    def test_a_mask_is_honoured_wherever_it_hides(self, model, one):
        ids = one["input_ids"]
        holes = np.insert(ids, [2, 5, 5], 99, axis=1)
        mask = np.insert(np.ones_like(ids), [2, 5, 5], 0, axis=1)
        out = model.generate(holes, attention_mask=mask, max_new_tokens=8)
        assert (out[:, -8:] == model.generate(ids, max_new_tokens=8)[:, -8:]).all()

    def test_pads_are_found_without_a_mask_where_they_can_be(self, model, three):
        ids = np.where(three["attention_mask"] == 1, three["input_ids"], 0)
        out = model.generate(ids, pad_token_id=0, max_new_tokens=5)
        assert (out[:, -5:] == model.generate(**three, max_new_tokens=5)[:, -5:]).all()

    def test_pads_that_may_be_ends_need_a_mask(self, model, three):
        with pytest.raises(ValueError, match="attention_mask"):
            model.generate(three["input_ids"], max_new_tokens=2)

    @pytest.mark.parametrize(
        ("ids", "mask", "said"),
        [
            ([5, 6, 7], None, "a single row is"),
            ([[5], [6, 7]], None, "differ in length"),
            ([[0.5]], None, "whole numbers"),
            ([[]], None, "at least one token"),
            ([["a"]], None, "makes them of a text"),
            ("text", None, "makes them of a text"),
            ([[5, 600]], None, "outside the vocabulary"),
            ([[5, 6]], [[1]], "shape of input_ids"),
            ([[5, 6]], [[[1, 1]]], "shape of input_ids"),
            ([[5, 6]], [[1, 2]], "0 and 1 only"),
            ([[5, 6]], [[0, 0]], "nothing but padding"),
        ],
    )
    def test_odd_inputs_are_refused(self, model, ids, mask, said):
        with pytest.raises(ValueError, match=said):
            model.generate(ids, attention_mask=mask)


class TestSampling:
    def test_a_seed_repeats_and_rows_are_their_own(self, model, three):
        set_seed(7)
        first = model.generate(**three, do_sample=True, max_new_tokens=12)
        second = model.generate(**three, do_sample=True, max_new_tokens=12)
        set_seed(7)
        assert (model.generate(**three, do_sample=True, max_new_tokens=12) == first).all()
        assert (first != second).any()
        given = model.generate(**three, do_sample=True, seed=[1, 2, 3], max_new_tokens=12)
        again = model.generate(
            three["input_ids"][1:2],
            attention_mask=three["attention_mask"][1:2],
            do_sample=True,
            seed=[2],
            max_new_tokens=12,
        )
        assert (again[0] == given[1]).all()

    def test_several_of_each(self, model, three):
        out = model.generate(**three, do_sample=True, num_return_sequences=3, max_new_tokens=8, seed=1)
        assert out.shape[0] == 9
        assert (out[:, : three["input_ids"].shape[1]] == np.repeat(three["input_ids"], 3, 0)).all()
        assert len({row.tobytes() for row in out[:3]}) == 3

    def test_keeping_scores_does_not_change_what_is_drawn(self, model, three):
        """Filters run natively, or in numpy if their result is to be seen: the same draws."""
        how = {"do_sample": True, "temperature": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "seed": 5}
        plain = model.generate(**three, **how, max_new_tokens=16)
        kept = model.generate(**three, **how, max_new_tokens=16, return_dict_in_generate=True, output_scores=True)
        assert (kept.sequences == plain).all()
        allowed = np.isfinite(np.stack(kept.scores, 1))
        assert 1 <= allowed.sum(-1).min() <= allowed.sum(-1).max() <= 30

    @pytest.mark.parametrize("fields", [{"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}])
    def test_a_knob_without_sampling_is_an_error_with_the_fix(self, model, one, fields):
        with pytest.raises(ValueError, match="do_sample=True"):
            model.generate(**one, **fields)
        model.generate(**one, **fields, do_sample=True, max_new_tokens=1)

    def test_what_the_file_brings_along_is_no_error(self, folder, one, tmp_path):
        other = write_checkpoint(tmp_path / "warm", **CHECKPOINT, generation_config={"temperature": 0.6, "top_p": 0.9})
        model = AutoModelForCausalLM.from_pretrained(other, dtype="float32", memory="8MB")
        assert model.generation_config.temperature == 0.6
        model.generate(**one, max_new_tokens=1)


class TestEnds:
    def test_reasons(self, model, three):
        ends = list(range(260, 330))
        out = model.generate(**three, max_new_tokens=8, eos_token_id=ends, return_dict_in_generate=True)
        assert out.finish_reasons == ["stop", "length", "stop"]
        assert out.stopped_by == [277, None, 274]
        assert np.isnan(out.logprobs[0, 4:]).all()
        assert not np.isnan(out.logprobs[1]).any()

    def test_time(self, model, one):
        out = model.generate(**one, max_new_tokens=200, max_time=0.005, return_dict_in_generate=True)
        assert out.finish_reasons == ["time"]

    def test_a_stop_string_is_cut_off_and_reported(self, model, tokenizer, one):
        """Inside a token too: what is left of it is encoded anew."""
        how = {"max_new_tokens": 20, "suppress_tokens": list(range(259))}  # whole characters
        length = one.input_ids.shape[1]
        whole = tokenizer.decode(model.generate(**one, **how)[0, length:])
        for stop in (whole[9:11], whole[4], whole[12:20], whole[:3]):
            for strings in (stop, [stop, "never there"]):
                out = model.generate(**one, **how, stop_strings=strings, return_dict_in_generate=True)
                assert tokenizer.decode(out.sequences[0, length:]) == whole[: whole.index(stop)]
                assert (out.finish_reasons, out.stopped_by) == (["stop"], [stop])

    def test_a_length_that_nobody_chose_ends_with_the_context(self, model):
        ids = np.full((1, 250), 7)
        assert model.generate(ids).shape == (1, 256)
        with pytest.raises(TooLong, match="room for 6 new ones"):
            model.generate(ids, max_new_tokens=7)

    @pytest.mark.parametrize("fields", [{"max_new_tokens": 0}, {"max_length": 5}, {"min_new_tokens": 30}])
    def test_lengths_that_cannot_be(self, model, one, fields):
        with pytest.raises(ValueError, match=next(iter(fields))):
            model.generate(**one, **fields)


class OnlyEven(LogitsProcessor):
    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append(input_ids.shape)
        scores[:, 1::2] = -np.inf
        return scores


class After(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return np.full(len(input_ids), input_ids.shape[1] >= self.length)


class TestOwnCode:
    def test_a_processor_sees_the_row_as_given(self, model, three):
        even = OnlyEven()
        out = model.generate(**three, logits_processor=LogitsProcessorList([even]), max_new_tokens=4)
        length = three["input_ids"].shape[1]
        assert (out[:, length:] % 2 == 0).all()
        assert sorted(even.seen) == sorted((1, length + i) for i in range(4) for _ in range(3))

    def test_criteria_end_a_row(self, model, three):
        length = three["input_ids"].shape[1]
        out = model.generate(
            **three,
            stopping_criteria=StoppingCriteriaList([After(length + 3)]),
            max_new_tokens=9,
            return_dict_in_generate=True,
        )
        assert out.sequences.shape[1] == length + 3
        assert out.finish_reasons == ["stop"] * 3
        assert out.stopped_by == ["After"] * 3

    def test_only_allowed_tokens(self, model, three):
        rows = set()

        def allowed(row, ids):
            rows.add((row, len(ids)))
            return [20 + row, 30 + row]

        out = model.generate(
            **three, prefix_allowed_tokens_fn=allowed, do_sample=True, num_return_sequences=2, max_new_tokens=3
        )
        length = three["input_ids"].shape[1]
        for row, new in enumerate(out[:, length:]):
            assert set(new) <= {20 + row, 30 + row}
        assert rows == set(itertools.product(range(6), range(length, length + 3)))

    @pytest.mark.parametrize("where", ["logits_processor", "stopping_criteria"])
    def test_what_it_raises_comes_through(self, model, one, where):
        def broken(input_ids, scores):
            raise LookupError("my own fault")

        with pytest.raises(LookupError, match="my own fault"):
            model.generate(**one, **{where: [broken]})
        model.generate(**one, max_new_tokens=1)

    def test_a_plain_streamer_is_told_in_step(self, model, three):
        class Streamer:
            def __init__(self):
                self.put_, self.ended = [], 0

            def put(self, value):
                self.put_.append(value.copy())

            def end(self):
                self.ended += 1

        streamer = Streamer()
        ends = list(range(260, 330))
        out = model.generate(**three, max_new_tokens=8, eos_token_id=ends, streamer=streamer)
        assert streamer.ended == 1
        assert (streamer.put_[0] == three["input_ids"]).all()
        assert (np.stack(streamer.put_[1:], 1) == out[:, three["input_ids"].shape[1] :]).all()

    def test_a_streamer_that_raises_ends_the_call(self, model, one):
        class Streamer:
            ended = False

            def put(self, value):
                raise OSError("the paper is out")

            def end(self):
                self.ended = True

        streamer = Streamer()
        with pytest.raises(OSError, match="paper"):
            model.generate(**one, max_new_tokens=200, streamer=streamer)

    @pytest.mark.parametrize("wrong", [{"max_new_token": 3}, {"logits_processor": [lambda ids, scores: 1 / 0]}])
    def test_whoever_reads_a_stream_does_not_wait_for_ever(self, model, tokenizer, one, wrong):
        """A call that fails, before or in the middle, ends the iteration in the other thread."""
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=20)
        with pytest.raises((UnknownOption, ZeroDivisionError)):
            model.generate(**one, streamer=streamer, **wrong)
        assert list(streamer) == []


class TestGuesses:
    """Prompt lookup and an assistant change no text, of any number of rows, greedy or drawn."""

    @pytest.mark.parametrize("drawn", [{}, {"do_sample": True, "seed": 3, "num_return_sequences": 2}], ids=str)
    def test_the_text_is_that_of_plain_decoding(self, model, assistant, three, drawn):
        plain = model.generate(**three, max_new_tokens=40, **drawn)
        for guesses in (
            {"prompt_lookup_num_tokens": 4},
            {"prompt_lookup_num_tokens": 4, "max_matching_ngram_size": 1},
            {"assistant_model": assistant},
            {"assistant_model": model, "num_assistant_tokens": 3},
        ):
            np.testing.assert_array_equal(model.generate(**three, max_new_tokens=40, **drawn, **guesses), plain)

    def test_callers_functions_are_asked_about_the_text_only(self, model, one):
        seen: list[int] = []

        def mine(ids, scores):
            seen.append(ids.shape[1])
            return scores

        for guesses in ({}, {"prompt_lookup_num_tokens": 4}, {"assistant_model": model}):
            model.generate(**one, max_new_tokens=12, logits_processor=[mine], **guesses)
        assert seen == seen[:12] * 3

    def test_criteria_and_stop_strings_see_each_token(self, model, one):
        ends = []
        for guesses in ({}, {"prompt_lookup_num_tokens": 4}, {"assistant_model": model}):
            lengths: list[int] = []
            criteria = [lambda ids, scores, lengths=lengths: lengths.append(ids.shape[1]) or ids.shape[1] >= 20]
            ends.append((model.generate(**one, max_new_tokens=40, stopping_criteria=criteria, **guesses), lengths))
        for ids, lengths in ends[1:]:
            np.testing.assert_array_equal(ids, ends[0][0])
            assert lengths == ends[0][1]


class TestRefusals:
    @pytest.mark.parametrize(
        ("keywords", "said"),
        [
            ({"max_new_token": 5}, "did you mean 'max_new_tokens'"),
            ({"atention_mask": None}, "did you mean 'attention_mask'"),
            ({"num_beams": 4}, "num_beams"),
            ({"assistant_model": object()}, "must be a model of quickbrown"),
            ({"assistant_tokenizer": object()}, "assistant_tokenizer"),
            ({"num_assistant_tokens": 3}, "pass an assistant_model"),
            ({"past_key_values": object()}, "past_key_values"),
            ({"position_ids": [[0]]}, "position_ids"),
            ({"inputs_embeds": np.zeros((1, 2, 64))}, "give input_ids"),
            ({"num_return_sequences": 2}, "num_return_sequences"),
            ({"output_scores": True}, "return_dict_in_generate"),
            ({"temperature": 0.0, "do_sample": True}, "temperature"),
            ({"seed": -1, "do_sample": True}, "seed must be"),
            ({"seed": [1, 2], "do_sample": True}, "2 rows"),
            ({"logits_processor": 5}, "list of callables"),
            ({"stopping_criteria": [5]}, "list of callables"),
            ({"logits_processor": [lambda ids, scores: None]}, "returned None"),
            ({"stopping_criteria": [lambda ids, scores: None]}, "returned None"),
            ({"streamer": print}, "put"),
            ({"generation_config": {"max_new_tokens": 3}}, "GenerationConfig"),
        ],
    )
    def test_by_name(self, model, one, keywords, said):
        with pytest.raises((ValueError, TypeError), match=said):
            model.generate(**one, **keywords)

    def test_from_pretrained(self, folder):
        for keywords, said in (
            ({"device_map": "cuda"}, "not on 'cuda'"),
            ({"device_map": {"": "cuda:0"}}, "not on 'cuda:0'"),
            ({"dtype": "float16"}, "float16"),
            ({"load_in_4bits": True}, "did you mean 'load_in_4bit'"),
            ({"load_in_4bit": True, "load_in_8bit": True}, "exclude each other"),
            ({"attn_implementation": "flash_attention_2"}, "flash_attention_2"),
        ):
            with pytest.raises((ValueError, TypeError), match=said):
                AutoModelForCausalLM.from_pretrained(folder, **keywords)


class TestModel:
    def test_what_it_says_of_itself(self, model):
        assert model.eval() is model
        assert model.to("cpu") is model
        assert model.config.model_type == "mistral"
        assert model.generation_config.eos_token_id == 2
        assert model.device.type == "cpu"
        assert str(model.dtype).endswith("float32")
        assert model.get_memory_footprint() > 100_000
        for wrong in (lambda: model.to("cuda"), lambda: model.cuda(), lambda: model.train()):
            with pytest.raises(ValueError, match=r"CPU|train"):
                wrong()

    def test_what_it_does_not_have_is_said_with_the_reason(self, model):
        assert not hasattr(model, "save_pretrained")
        with pytest.raises(AttributeError, match=r"dtype=\.\.\."):
            model.half()
        with pytest.raises(AttributeError, match=r"no 'haff'$"):
            model.haff()

    def test_logits_do_not_depend_on_padding(self, model, tokenizer, three):
        logits = model(**three).logits
        for row, text in enumerate(THREE):
            alone = model(**tokenizer([text], return_tensors="np")).logits[0]
            assert (logits[row, -len(alone) :] == alone).all()
            assert (logits[row, : -len(alone)] == 0).all()
            for keep in (1, 3):
                assert (model(**three, logits_to_keep=keep).logits[row] == logits[row, -keep:]).all()
        chosen = np.array([-1, 2, -4])
        assert (model(**three, logits_to_keep=chosen).logits == logits[:, chosen]).all()

    def test_loss(self, model, one):
        ids = one["input_ids"]
        out = model(ids, labels=ids)
        shifted = out.logits[0, :-1].astype(np.float64)
        chances = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        expected = -np.mean([chances[i, token] for i, token in enumerate(ids[0, 1:])])
        assert out.loss == pytest.approx(expected, rel=1e-6)
        assert list(out.keys()) == ["loss", "logits"]
        assert out["loss"] == out[0] == out.loss

    def test_transition_scores(self, model, one):
        out = model.generate(**one, return_dict_in_generate=True, output_scores=True)
        chances = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
        np.testing.assert_allclose(chances, out.logprobs, atol=1e-5)

    def test_a_config_object(self, model, one):
        config = GenerationConfig(max_new_tokens=4, eos_token_id=2)
        assert model.generate(**one, generation_config=config).shape[1] == one["input_ids"].shape[1] + 4
        assert model.generate(**one, generation_config=config, max_new_tokens=6).shape[1] == one.input_ids.shape[1] + 6


class TestHint:
    @pytest.fixture
    def chatty(self, tmp_path):
        folder = write_checkpoint(
            tmp_path / "chat",
            model_type="llama",
            tokenizer="bytelevel",
            chat_template=CHAT,
            max_position_embeddings=256,
        )
        return AutoModelForCausalLM.from_pretrained(folder, memory="8MB"), AutoTokenizer.from_pretrained(folder)

    def test_a_raw_text_gets_one_hint(self, chatty):
        model, tokenizer = chatty
        inputs = tokenizer(["How are you?"], return_tensors="np")
        with pytest.warns(PromptHint, match="apply_chat_template"):
            model.generate(**inputs, max_new_tokens=1)
        model.generate(**inputs, max_new_tokens=1)  # warnings are errors here: the second is silent

    def test_a_chat_gets_none(self, chatty):
        model, tokenizer = chatty
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            inputs = tokenizer.apply_chat_template(
                [{"role": "user", "content": "How are you?"}], add_generation_prompt=True, return_tensors="np"
            )
            model.generate(inputs, max_new_tokens=1)


def test_a_special_token_is_a_stop_string_too(tmp_path):
    """It has no text that could be found in what is written: the token itself ends the row, and is cut off."""
    folder = write_checkpoint(tmp_path / "tiny", model_type="llama", tokenizer="bytelevel")
    model = AutoModelForCausalLM.from_pretrained(folder, memory="8MB")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    inputs = tokenizer(["red, blue"], return_tensors="np")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    out = model.generate(
        **inputs,
        max_new_tokens=9,
        streamer=streamer,
        stop_strings=["<|im_start|>", "never"],
        prefix_allowed_tokens_fn=lambda row, ids: [70] if len(ids) < inputs.input_ids.shape[1] + 3 else [start],
        return_dict_in_generate=True,
    )
    assert out.sequences[0, inputs.input_ids.shape[1] :].tolist() == [70] * 3
    assert "".join(streamer) == tokenizer.decode([70] * 3)
    assert (out.finish_reasons, out.stopped_by) == (["stop"], ["<|im_start|>"])
