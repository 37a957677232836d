"""pipeline("text-generation"): what goes in, what comes out, what is refused."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpoints import CHAT as CHAT_TEMPLATE
from checkpoints import write_checkpoint
from pipeline_cases import CASES, CHECKPOINT, GREEDY
from quickbrown.generation.seeds import set_seed
from quickbrown.hf.backend import get_backend
from quickbrown.hf.generation_config import GenerationConfig
from quickbrown.hf.model import PreTrainedModel, PromptHint
from quickbrown.hf.outputs import GenerateDecoderOnlyOutput
from quickbrown.hf.pipeline_options import ReturnType
from quickbrown.hf.pipelines import pipeline
from quickbrown.hf.streamers import TextIteratorStreamer
from quickbrown.hf.text_generation import TextGenerationPipeline
from quickbrown.types import UnknownOption

CHAT = [{"role": "user", "content": "hi"}]
PREFILLED = [*CHAT, {"role": "assistant", "content": "yo"}]


class Letters:
    """Ids are code points, and a conversation is its messages behind their roles' first letters."""

    bos_token_id: int | None = 2
    eos_token_id = 3
    pad_token_id: int | None = None

    def __call__(self, text: str, truncation: bool = False, max_length: int | None = None, **_: Any) -> dict[str, Any]:
        ids = [ord(letter) for letter in text]
        return {"input_ids": ids[:max_length] if truncation else ids}

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> dict[str, Any]:
        text = "".join(f"{m['role'][0]}:{m['content']};" for m in messages)
        text = text[:-1] if options["continue_final_message"] else text
        return self(text + ("a:" if options["add_generation_prompt"] else ""))

    def decode(self, ids: list[int], skip_special_tokens: bool = False, **_: Any) -> str:
        return "".join("<>"[i - 2] if i in (2, 3) else chr(i) for i in ids if not (skip_special_tokens and i < 4))


class Echo:
    """A model that writes a prompt's last letter again, in capitals for further samples, and then ends.

    Texts differ in length by their first letter: b is written for one token fewer.
    """

    def __init__(self, **said: Any) -> None:
        self.generation_config = SimpleNamespace(bos_token_id=None, **said)
        self.llm = SimpleNamespace(longest=300)
        self.calls: list[dict[str, Any]] = []

    def generate(self, ids: np.ndarray, *, attention_mask: np.ndarray, **options: Any) -> Any:
        self.calls.append(options | {"rows": len(ids)})
        samples = options.get("num_return_sequences") or 1
        rows, logprobs = [], []
        for row, mask in zip(ids, attention_mask, strict=True):
            text = row[mask.astype(bool)]
            length = 2 if text[0] == ord("b") else 3
            for sample in range(samples):
                new = np.full(3, 3)
                new[: length - 1] = ord(chr(text[-1]).upper()) if sample else text[-1]
                rows.append(np.concatenate([row, new]))
                logprobs.append(np.where(np.arange(3) < length, -1.0, np.nan))
        assert options["return_dict_in_generate"]
        steps = tuple(np.full((len(rows), 4), step, np.float32) for step in range(3))
        return GenerateDecoderOnlyOutput(
            sequences=np.stack(rows),
            logprobs=np.stack(logprobs).astype(np.float32),
            finish_reasons=["stop"] * len(rows),
            stopped_by=[3] * len(rows),
            scores=steps if options.get("output_scores") else None,
        )


@pytest.fixture
def echo() -> TextGenerationPipeline:
    return TextGenerationPipeline(Echo(), Letters())  # type: ignore[arg-type]


def test_shapes(echo: TextGenerationPipeline) -> None:
    """Each kind of input has its own nesting, which callers index blindly: [0]["generated_text"], [0][0][...]."""
    one, other = [{"generated_text": "abbb"}], [{"generated_text": "zzz"}]
    assert echo("ab") == one
    assert echo(["ab"]) == [one]
    assert echo(["ab", "z"]) == echo(("ab", "z")) == [one, other]
    assert echo([]) == []
    answer = [{"generated_text": [*CHAT, {"role": "assistant", "content": "::"}]}]
    assert echo(CHAT) == answer
    assert echo([CHAT, CHAT]) == [answer, answer]
    assert echo([CHAT, "ab"]) == [answer, one]
    assert echo("ab", num_return_sequences=2) == [{"generated_text": "abbb"}, {"generated_text": "abBB"}]
    assert echo(["ab", "z"], num_return_sequences=2)[1] == [{"generated_text": "zzz"}, {"generated_text": "zZZ"}]


def test_an_iterator_is_read_only_as_its_results_are(echo: TextGenerationPipeline) -> None:
    """Read ahead, an endless iterator would never give anything."""
    read = itertools.count()
    results = echo(f"{'ab'[next(read) and 0]}" for _ in itertools.count())
    assert next(results) == [{"generated_text": "aaa"}]
    assert next(results) == [{"generated_text": "aaa"}]
    assert next(read) == 2
    assert [r[0]["generated_text"] for r in echo(iter(["ab", "z", "y"]), batch_size=2)] == ["abbb", "zzz", "yyy"]


def test_a_data_set_is_read_as_an_iterator_is(echo: TextGenerationPipeline) -> None:
    """Those of torch have rows by number, and no __iter__."""

    class Rows:
        def __getitem__(self, i: int) -> str:
            return ["ab", "z"][i]

    results = echo(Rows())
    assert next(results) == [{"generated_text": "abbb"}]
    assert list(results) == [[{"generated_text": "zzz"}]]


def test_batches(echo: TextGenerationPipeline) -> None:
    model: Any = echo.model
    texts = ["ab", "c", "defg"]
    together = echo(texts)
    assert [call["rows"] for call in model.calls] == [3]
    assert echo(texts, batch_size=2) == together == [echo(text) for text in texts]
    assert [call["rows"] for call in model.calls[1:3]] == [2, 1]
    list(echo(iter(texts)))
    assert [call["rows"] for call in model.calls[-3:]] == [1, 1, 1]


def test_a_row_ends_where_it_ended(echo: TextGenerationPipeline) -> None:
    """What stands behind a row's end in a batch is padding, and no token of it."""
    longer, shorter = echo(["aa", "bb"], return_tensors=True)
    assert longer == [{"generated_token_ids": [*map(ord, "aaaa"), 3]}]
    assert shorter == [{"generated_token_ids": [*map(ord, "bbb"), 3]}]


@pytest.mark.parametrize(
    ("options", "record"),
    [
        ({}, {"generated_text": "abbb"}),
        ({"return_full_text": True}, {"generated_text": "abbb"}),
        ({"return_full_text": False}, {"generated_text": "bb"}),
        ({"return_text": True}, {"generated_text": "abbb"}),
        ({"return_text": False}, {"generated_token_ids": [97, 98, 98, 98, 3]}),
        ({"return_tensors": True}, {"generated_token_ids": [97, 98, 98, 98, 3]}),
        ({"return_tensors": False}, {"generated_text": "abbb"}),
        ({"return_type": ReturnType.NEW_TEXT}, {"generated_text": "bb"}),
        ({"return_type": 0, "return_full_text": True}, {"generated_token_ids": [97, 98, 98, 98, 3]}),
        ({"skip_special_tokens": False}, {"generated_text": "abbb>"}),
        ({"prefix": "xy"}, {"generated_text": "abbb"}),
        ({"prefix": "xy", "return_tensors": True}, {"generated_token_ids": [120, 121, 97, 98, 98, 98, 3]}),
    ],
)
def test_records(echo: TextGenerationPipeline, options: dict[str, Any], record: dict[str, Any]) -> None:
    assert echo("ab", **options) == [record]


def test_conversations(echo: TextGenerationPipeline) -> None:
    assert echo(CHAT, return_full_text=False) == [{"generated_text": "::"}]
    assert echo(PREFILLED) == [{"generated_text": [*CHAT, {"role": "assistant", "content": "yooo"}]}]
    anew = echo(PREFILLED, continue_final_message=False)
    assert anew == [{"generated_text": [*PREFILLED, {"role": "assistant", "content": "::"}]}]
    assert echo(CHAT, continue_final_message=True) == [{"generated_text": [{"role": "user", "content": "hiii"}]}]
    assert CHAT == [{"role": "user", "content": "hi"}], "what was given is not changed"


def test_an_empty_text_begins_at_the_beginning(echo: TextGenerationPipeline) -> None:
    assert echo("", return_tensors=True) == [{"generated_token_ids": [2, 2, 2, 3]}]
    echo.tokenizer.bos_token_id = None
    with pytest.raises(ValueError, match="no token that begins one"):
        echo("")


DEFAULTS = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}


@pytest.mark.parametrize(
    ("model", "options", "passed"),
    [
        ({}, {}, DEFAULTS),
        ({}, {"do_sample": False}, {"max_new_tokens": 256, "do_sample": False}),
        ({}, {"max_new_tokens": 5, "temperature": 2.0}, {"max_new_tokens": 5, "do_sample": True, "temperature": 2.0}),
        ({}, {"max_length": 9}, DEFAULTS | {"max_new_tokens": 7}),
        ({"max_length": 9}, {}, DEFAULTS | {"max_new_tokens": 7}),
        ({"max_length": 9}, {"max_new_tokens": 5}, DEFAULTS | {"max_new_tokens": 5}),
        ({"max_new_tokens": 5}, {"max_length": 9}, DEFAULTS | {"max_new_tokens": 7}),
        ({"max_new_tokens": 1000}, {}, DEFAULTS | {"max_new_tokens": 298}),
        ({}, {"max_new_tokens": 1000}, DEFAULTS | {"max_new_tokens": 1000}),
        ({"do_sample": True}, {}, {"max_new_tokens": 256, "temperature": 0.7}),
        ({"do_sample": False}, {}, {"max_new_tokens": 256}),
        ({"temperature": 0.3}, {}, {"max_new_tokens": 256, "do_sample": True}),
        ({}, {"temperature": None}, {"max_new_tokens": 256, "do_sample": True, "temperature": None}),
        ({}, {"do_sample": None}, {"max_new_tokens": 256, "do_sample": None}),
        ({}, {"stop_sequence": "x"}, DEFAULTS | {"stop_strings": ["x"]}),
        ({}, {"stop_sequence": ["x", "y"]}, DEFAULTS | {"stop_strings": ["x", "y"]}),
        ({}, {"top_k": 3, "streamer": "s"}, DEFAULTS | {"top_k": 3, "streamer": "s"}),
    ],
)
def test_defaults(model: dict[str, Any], options: dict[str, Any], passed: dict[str, Any]) -> None:
    """256 tokens, drawn at temperature 0.7, unless the call, its config or the model's says otherwise."""
    assert arguments_of(Echo(**model), options) == passed


def test_a_generation_config_comes_before_the_models() -> None:
    given = SimpleNamespace(do_sample=True, temperature=0.2, max_length=9, max_new_tokens=None)
    model = Echo(max_new_tokens=100, temperature=0.3)
    assert arguments_of(model, {"generation_config": given}) == {"generation_config": given, "max_new_tokens": 7}


def arguments_of(model: Echo, options: dict[str, Any]) -> dict[str, Any]:
    """What generate() gets for a prompt of two tokens, but for what a pipeline always adds."""
    TextGenerationPipeline(model, Letters())("ab", **options)  # type: ignore[arg-type]
    (call,) = model.calls
    for name in ("rows", "return_dict_in_generate", "pad_token_id", "max_length"):
        del call[name]
    call.pop("seed", None)
    return call


def test_a_length_is_each_prompts_own(echo: TextGenerationPipeline) -> None:
    """Counted with the padding of a batch, a prompt's text would depend on its neighbours."""
    model: Any = echo.model
    echo(["ab", "c", "de"], max_length=9)
    assert [(call["rows"], call["max_new_tokens"]) for call in model.calls] == [(2, 7), (1, 8)]
    with pytest.raises(ValueError, match="max_length=9 counts the prompt too, and it has 10 tokens"):
        echo(["ab", "c" * 10], max_length=9)
    with pytest.raises(ValueError, match="different numbers of tokens"):
        echo(["ab", "c"], max_length=9, streamer="s")


def test_seeds_do_not_depend_on_batches(echo: TextGenerationPipeline) -> None:
    """A seed is the row's own: so a text is what it is, in whatever batch it is written."""
    model: Any = echo.model

    def seeds(inputs: Any, **options: Any) -> list[int]:
        model.calls.clear()
        list(echo(inputs, **options))
        return [seed for call in model.calls for seed in call["seed"]]

    texts = ["a", "b", "c"]
    assert len(set(seeds(texts, seed=7))) == 3
    assert seeds(texts, seed=7) == seeds(texts, seed=7, batch_size=2) == seeds(iter(texts), seed=7)
    assert seeds(texts, seed=[3, 1, 2]) == seeds(iter(texts), seed=[3, 1, 2], batch_size=2) == [3, 1, 2]
    set_seed(5)
    together = seeds(texts)
    set_seed(5)
    assert seeds(texts, batch_size=1) == together
    set_seed(5)
    alone = [seeds(text)[0] for text in texts]
    set_seed(5)
    assert seeds(iter(texts), batch_size=2) == alone
    assert seeds("a", do_sample=False, seed=3) == seeds("a", seed=3)
    echo("a", do_sample=False)
    assert "seed" not in model.calls[-1]
    with pytest.raises(ValueError, match="seed must be"):
        echo("a", seed=-1)


def test_options_of_the_pipeline_are_defaults_of_its_calls() -> None:
    echo = TextGenerationPipeline(Echo(), Letters(), return_full_text=False, top_k=3)  # type: ignore[arg-type]
    assert echo("ab") == [{"generated_text": "bb"}]
    assert echo("ab", return_full_text=True, top_k=4) == [{"generated_text": "abbb"}]
    assert [call["top_k"] for call in echo.model.calls] == [3, 4]  # type: ignore[attr-defined]


def test_what_generate_returns_besides(echo: TextGenerationPipeline) -> None:
    """Each record has its own row of it, no longer than the row."""
    _, (record,) = echo(["aa", "bb"], return_dict_in_generate=True, output_scores=True)
    assert record == {
        "generated_text": "bbb",
        "logprobs": [-1.0, -1.0],
        "finish_reason": "stop",
        "stopped_by": 3,
        "scores": [[0.0] * 4, [1.0] * 4],
    }


def test_a_prompt_is_cut_only_if_asked(echo: TextGenerationPipeline) -> None:
    long = "abcdefghijklmnopqrstuvwxyz"
    echo.model.llm.longest = 20
    cut = echo(long, max_new_tokens=5, handle_long_generation="hole", return_tensors=True)[0]["generated_token_ids"]
    assert cut[:15] == [*map(ord, long[-15:])]
    assert len(echo(long, max_new_tokens=5, return_tensors=True)[0]["generated_token_ids"]) == 26 + 3
    short = echo("abc", max_new_tokens=5, handle_long_generation="hole", return_tensors=True)[0]["generated_token_ids"]
    assert short[:3] == [97, 98, 99]
    ids = echo(long, truncation=True, max_length=4, max_new_tokens=5, return_tensors=True)[0]["generated_token_ids"]
    assert ids == [*map(ord, "abcd"), 100, 100, 3]
    extra = {"truncation": True, "max_length": 4}
    assert (
        echo(long, tokenizer_encode_kwargs=extra, max_new_tokens=5, return_tensors=True)[0]["generated_token_ids"]
        == ids
    )
    with pytest.raises(ValueError, match="cannot make room for 20 new tokens in 20"):
        echo(long, max_new_tokens=20, handle_long_generation="hole")


@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        ("a", {"return_text": True, "return_full_text": True}, "exclude each other"),
        ("a", {"return_tensors": True, "return_full_text": False}, "exclude each other"),
        ("a", {"return_tensors": True, "return_text": True}, "exclude each other"),
        ("a", {"handle_long_generation": "cut"}, "None or 'hole', not 'cut'"),
        ("a", {"batch_size": 0}, "at least 1, not 0"),
        ("a", {"num_workers": 2}, "must be 0, not 2"),
        ("a", {"padding": "max_length"}, "of no use"),
        ("a", {"stop_sequence": "x", "stop_strings": "y"}, "two names"),
        ("a", {"output_scores": True}, "pass that too"),
        ("a", {"tools": []}, "tools is for conversations"),
        ("a", {"continue_final_message": True}, "is for conversations"),
        (CHAT, {"prefix": "x"}, "prefix is for texts"),
        (["a", "b"], {"batch_size": 1, "streamer": 1}, "follows one batch"),
        (iter(["a"]), {"streamer": 1}, "follows one batch"),
        ("a", {"return_type": 7}, "7 is not a valid ReturnType"),
    ],
)
def test_refused(echo: TextGenerationPipeline, inputs: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        echo(inputs, **options)


@pytest.mark.parametrize("inputs", [None, 3, {"role": "user", "content": "hi"}, [3], b"a"])
def test_what_is_no_text_is_refused(echo: TextGenerationPipeline, inputs: Any) -> None:
    with pytest.raises(TypeError, match="a text"):
        echo(inputs)


@pytest.mark.parametrize(
    ("name", "near"), [("max_new_token", "max_new_tokens"), ("return_fulltext", "return_full_text"), ("tpo_p", "top_p")]
)
def test_an_unknown_option_is_refused_with_the_nearest_name(echo: TextGenerationPipeline, name: str, near: str) -> None:
    """In a call, and before anything is loaded."""
    with pytest.raises(UnknownOption, match=f"did you mean '{near}'"):
        echo("a", **{name: 1})
    with pytest.raises(UnknownOption, match=f"did you mean '{near}'"):
        pipeline("text-generation", "no-such-model", **{name: 1})


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("summarization", "Summarize this"),
        ("translation", "Translate this"),
        ("translation_en_to_fr", "Translate this"),
        ("text2text-generation", "ask a chat model"),
        ("question-answering", "Answer from this text"),
        ("conversational", "takes conversations too"),
        ("text_generation", "did you mean 'text-generation'"),
        ("fill-mask", "its one task is 'text-generation'"),
        ("smollm2-135m", "a model is named by model='smollm2-135m'"),
        (3, "the task must be"),
    ],
)
def test_other_tasks_are_refused_with_what_to_do_instead(task: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pipeline(task)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda:0"}, "device must be 'cpu', not 'cuda:0'"),
        ({"device": 0}, "device must be 'cpu', not '0'"),
        ({"use_fast": False}, "only the fast one"),
        ({"dtype": "auto", "torch_dtype": "auto"}, "two names"),
        ({"model": Echo(), "tokenizer": Letters(), "dtype": "float32"}, "loaded already, so dtype"),
        ({"model": Echo(), "tokenizer": Letters(), "revision": "main"}, "loaded already, so revision"),
        ({"model": Echo(), "tokenizer": Letters(), "model_kwargs": {"x": 1}}, "loaded already, so x"),
    ],
)
def test_loading_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pipeline("text-generation", **options)


def test_a_model_and_a_tokenizer_are_taken_as_they_are() -> None:
    model: Any = Echo()
    tokenizer: Any = Letters()
    pipe = pipeline(model=model, tokenizer=tokenizer, device=-1)
    assert (pipe.model, pipe.tokenizer, pipe.task, pipe.device) == (model, tokenizer, "text-generation", "cpu")
    assert pipe("ab") == [{"generated_text": "abbb"}]


# -- with models --------------------------------------------------------------------------------------------------

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/transformers/pipeline.json").read_text("utf-8"))["cases"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> TextGenerationPipeline:
    folder = write_checkpoint(tmp_path_factory.mktemp("pipeline") / "tiny", **CHECKPOINT)
    return pipeline("text-generation", folder, dtype="float32", model_kwargs={"memory": "8MB"})


@pytest.mark.filterwarnings("ignore::quickbrown.PromptHint")
class TestWithAModel:
    @pytest.mark.parametrize("name", CASES)
    def test_records_are_those_of_transformers(self, pipe: TextGenerationPipeline, name: str) -> None:
        """Nesting, keys, texts and ids."""
        inputs, options = CASES[name]
        assert pipe(inputs, **GREEDY | options) == GOLDEN[name]

    def test_drawn_records_do_not_depend_on_batches(self, pipe: TextGenerationPipeline) -> None:
        texts = ["Portugal is", "A list of colors:", "1", [{"role": "user", "content": "Hello"}]]
        together = pipe(texts, seed=3, num_return_sequences=2, max_new_tokens=6)
        assert together == pipe(texts, seed=3, num_return_sequences=2, max_new_tokens=6, batch_size=3)
        assert together == list(pipe(iter(texts), seed=3, num_return_sequences=2, max_new_tokens=6))
        assert together[0] == pipe(texts[0], seed=3, num_return_sequences=2, max_new_tokens=6)
        assert together[0][0] != together[0][1]

    def test_the_length_that_nobody_chose(self, pipe: TextGenerationPipeline) -> None:
        """256 tokens would not fit behind a prompt in a context of 256; no row is cut because of another."""
        (short,), (long,) = pipe(["1", "A list of colors: red, blue"], do_sample=False, return_tensors=True)
        assert len(short["generated_token_ids"]) == len(long["generated_token_ids"]) == 256
        assert pipe("1", do_sample=False, return_tensors=True) == [short]

    def test_a_generation_config(self, pipe: TextGenerationPipeline) -> None:
        config = GenerationConfig(max_new_tokens=8, do_sample=False)
        assert pipe("Portugal is", generation_config=config) == GOLDEN["text"]
        config = GenerationConfig(max_length=12, top_k=1)
        assert pipe("Portugal is", generation_config=config) == GOLDEN["max_length"], "drawn among one token"

    def test_besides(self, pipe: TextGenerationPipeline) -> None:
        (record,) = pipe("Portugal is", return_dict_in_generate=True, output_scores=True, return_tensors=True, **GREEDY)
        assert len(record["logprobs"]) == len(record["scores"]) == 8
        assert (record["finish_reason"], record["stopped_by"]) == ("length", None)
        chosen = record["generated_token_ids"][-8:]
        assert [int(np.argmax(step)) for step in record["scores"]] == chosen

    def test_a_stop_string_ends_a_text_and_is_cut_off(self, pipe: TextGenerationPipeline) -> None:
        whole = pipe("Portugal is", **GREEDY)[0]["generated_text"]
        assert " alla" in whole
        kept = pipe(["Portugal is", "1"], stop_sequence=" alla", **GREEDY)
        assert kept[0] == [{"generated_text": whole[: whole.index(" alla")]}]
        assert kept[1] == pipe("1", **GREEDY)

    def test_a_streamer_follows_a_batch(self, pipe: TextGenerationPipeline) -> None:
        streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True)
        records = pipe(["Portugal is", "1"], streamer=streamer, return_full_text=False, **GREEDY)
        pieces = ["", ""]
        for row, text in streamer:
            pieces[row] += text
        assert pieces == [record["generated_text"] for (record,) in records]

    def test_a_hint_for_a_text_and_none_for_a_conversation(self, pipe: TextGenerationPipeline) -> None:
        fresh = TextGenerationPipeline(PreTrainedModel(pipe.model.llm, "tiny"), pipe.tokenizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fresh([{"role": "user", "content": "Hello"}], **GREEDY)
        fresh = TextGenerationPipeline(PreTrainedModel(pipe.model.llm, "tiny"), pipe.tokenizer)
        with pytest.warns(PromptHint, match="chat model"):
            fresh("Hello", **GREEDY)


@pytest.mark.filterwarnings("ignore::quickbrown.PromptHint")
def test_a_blank_between_prompt_and_text_is_kept(tmp_path: Path) -> None:
    """A vocabulary that writes a blank into words drops the one in front: 'the king' + 'was' would be 'the kingwas'."""
    folder = write_checkpoint(tmp_path / "tiny", model_type="mistral", seed=1, chat_template=CHAT_TEMPLATE)
    pipe = pipeline(model=str(folder))
    word = pipe.tokenizer.convert_tokens_to_ids("▁was")
    assert isinstance(word, int)
    options: Any = {"suppress_tokens": [i for i in range(512) if i != word], "max_new_tokens": 2, "do_sample": False}
    assert pipe("the king", **options) == [{"generated_text": "the king was was"}]
    assert pipe("the king", return_full_text=False, **options) == [{"generated_text": " was was"}]
    user = {"role": "user", "content": "the king"}
    assert pipe([user], **options)[0]["generated_text"][-1] == {"role": "assistant", "content": "was was"}
    last = {"role": "assistant", "content": "he"}
    assert pipe([user, last], **options)[0]["generated_text"][-1]["content"] == "he was was"
    assert pipe("", **options) == [{"generated_text": "was was"}]


def test_the_device() -> None:
    device, count, memory = get_backend()
    assert (device, count) == ("cpu", 1)
    held = memory()
    assert held == memory("cpu") or abs(held - memory("cpu")) < held
    assert held > 10 << 20 or held == 0, "bytes of this process, where the system tells"
    with pytest.raises(ValueError, match="must be 'cpu', not 'cuda'"):
        memory("cuda")
