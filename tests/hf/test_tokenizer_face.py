"""The tokenizer's face: what transformers' tokenizers answer, and what only this one promises."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from gguf_writer import tiny_llama, write_gguf, write_tiny_llama
from golden.transformers.make_tokenizers import answer
from quickbrown.hf.tokenizer import AutoTokenizer, PreTrainedTokenizer
from quickbrown.types import UnknownOption
from quickbrown.weights import hub
from quickbrown.weights.source import BadFile

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "transformers" / "tokenizers.json").read_text("utf-8"))
KINDS = [kind for kind in GOLDEN["kinds"] if kind != "smollm2-135m"]


def write(folder: Path, kind: str, **changes: dict) -> Path:
    """The files of a small tokenizer; `changes` are put into tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in GOLDEN["kinds"][kind]["files"].items():
        content = content | changes if name == "tokenizer_config.json" else content
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, folders: dict[str, Path]) -> PreTrainedTokenizer:
    return AutoTokenizer.from_pretrained(folders[request.param])


@pytest.fixture
def llama(folders: dict[str, Path]) -> PreTrainedTokenizer:
    return AutoTokenizer.from_pretrained(folders["sentencepiece"])


def compare(tokenizer: PreTrainedTokenizer, golden: dict) -> None:
    wrong = []
    for method, arguments, options, expected in golden["calls"]:
        if options == {"padding": "max_length"} and tokenizer.model_max_length > 10**20:
            continue  # refused here, see test_refusals
        found = json.loads(json.dumps(answer(tokenizer, method, arguments, options)))
        if found != expected:
            keys = [k for k in expected if found.get(k) != expected[k]] if isinstance(expected, dict) else []
            one = {k: (found.get(k), expected[k]) for k in keys} if keys else (found, expected)
            wrong.append(f"{method}{arguments} {options}\n    {one}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_transformers(kind, folders):
    tokenizer = AutoTokenizer.from_pretrained(folders[kind])
    compare(tokenizer, GOLDEN["kinds"][kind])
    assert {name: getattr(tokenizer, name) for name in GOLDEN["kinds"][kind]["attributes"]} == GOLDEN["kinds"][kind][
        "attributes"
    ]


@pytest.mark.skipif(
    not hub.catalogue()["smollm2-135m"].present,
    reason="the default model is not here; `qb pull smollm2-135m` fetches it for this test",
)
def test_the_default_models_vocabulary_from_its_file():
    """As its makers publish it, though the file holds only tokens, merges and the name of a way to cut words."""
    golden = GOLDEN["kinds"]["smollm2-135m"]
    for name in ("smollm2-135m", hub.catalogue()["smollm2-135m"].path):
        tokenizer = AutoTokenizer.from_pretrained(name)
        compare(tokenizer, golden)
        attributes = {name: getattr(tokenizer, name) for name in golden["attributes"]}
        assert attributes == golden["attributes"]
        assert "<|im_start|>" in tokenizer.get_chat_template()


def test_a_gguf_file_that_begins_texts(tmp_path):
    path = write_tiny_llama(tmp_path / "m.gguf")
    metadata, tensors = tiny_llama()
    metadata |= {"tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template.tool_use": "tools"}
    write_gguf(path, metadata, tensors)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.bos_token == "<|im_start|>"
    assert tokenizer("hello")["input_ids"] == [1, *tokenizer.encode("hello", add_special_tokens=False)]
    assert sorted(tokenizer.chat_template) == ["default", "tool_use"]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tools=[], tokenize=False) == "tools"


# -- special tokens -------------------------------------------------------------------------------------------------


def test_special_tokens_may_be_assigned(llama):
    llama.pad_token = llama.eos_token
    assert (llama.pad_token, llama.pad_token_id) == ("</s>", 2)
    llama.pad_token_id = 0
    assert (llama.pad_token, llama.pad_token_id) == ("<unk>", 0)
    llama.pad_token = None
    assert (llama.pad_token, llama.pad_token_id) == (None, None)
    assert "pad_token" not in llama.special_tokens_map
    llama.eos_token_id = 300
    assert llama.eos_token == llama.convert_ids_to_tokens(300)
    with pytest.raises(ValueError, match=r"not in the vocabulary; .*add_special_tokens\(\{'pad_token': '<pad>'\}\)"):
        llama.pad_token = "<pad>"
    with pytest.raises(ValueError, match="the vocabulary has no token 9999"):
        llama.pad_token_id = 9999
    for wrong in (5, b"x", ["</s>"]):
        with pytest.raises(TypeError, match="pad_token must be a str or an AddedToken"):
            llama.pad_token = wrong


def test_special_tokens_may_be_added(llama):
    size = len(llama)
    assert llama.add_special_tokens({"pad_token": "<pad>", "extra_special_tokens": ["<x>"]}) == 2
    assert (len(llama), llama.pad_token_id, llama.convert_tokens_to_ids("<x>")) == (size + 2, size, size + 1)
    assert llama.decode([size, 300, size + 1], skip_special_tokens=True) == llama.decode([300])
    assert {size, size + 1} <= llama.core.special_ids
    assert llama.core.token_bytes(size) == b"<pad>"
    assert llama.add_special_tokens({"pad_token": "</s>"}) == 0
    assert llama.pad_token_id == 2
    assert llama.add_tokens(["<plain>", "the"]) >= 1
    assert (
        llama.decode(llama("a<plain>", add_special_tokens=False)["input_ids"], skip_special_tokens=True) == "a<plain>"
    )
    assert llama.get_added_vocab()["<plain>"] == size + 2
    with pytest.raises(UnknownOption, match="unknown option 'pad'; known options: bos_token"):
        llama.add_special_tokens({"pad": "<pad>"})
    with pytest.raises(TypeError, match="must be a list of tokens"):
        llama.add_special_tokens({"extra_special_tokens": "<x>"})


def test_what_is_put_around_texts_may_be_changed(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders["bytelevel"], bos_token="<|im_start|>", add_bos_token=True)
    plain = tokenizer.encode("Hello", add_special_tokens=False)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokenizer.encode("Hello") == [start, *plain] == tokenizer.core.encode("Hello", bos=True)
    tokenizer.add_eos_token = True
    assert tokenizer.encode("Hello") == [start, *plain, end]
    assert tokenizer.encode("Hello", "Hello") == [start, *plain, end] * 2
    assert (tokenizer.add_bos_token, tokenizer.add_eos_token) == (True, True)
    tokenizer.add_bos_token = False
    assert tokenizer.encode("Hello") == [*plain, end]
    tokenizer.bos_token = None
    with pytest.raises(ValueError, match="the tokenizer has no bos_token to add"):
        tokenizer.add_bos_token = True


# -- calls do not see each other ------------------------------------------------------------------------------------


def test_threads_that_cut_and_pad_each_their_own_way(llama):
    """The library keeps how it cuts and pads in the vocabulary, so that threads cut each other's texts; here not."""
    text = "The quick brown fox jumps over the lazy dog"
    ways = [
        {},
        {"truncation": True, "max_length": 4},
        {"padding": "max_length", "max_length": 60, "padding_side": "left"},
        {"truncation": True, "max_length": 9, "stride": 2, "return_overflowing_tokens": True},
    ]
    expected = [dict(llama([text, "a"], **way)) for way in ways]
    wrong: list[int] = []

    def call(which: int) -> None:
        for _ in range(100):
            if dict(llama([text, "a"], **ways[which])) != expected[which]:
                wrong.append(which)

    threads = [threading.Thread(target=call, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert llama.backend_tokenizer.truncation is None
    assert llama.backend_tokenizer.padding is None


# -- what goes in and comes out -------------------------------------------------------------------------------------


def test_the_tutorials_lines(llama):
    llama.pad_token = llama.eos_token
    inputs = llama(["A list of colors: red, blue", "Portugal is"], return_tensors="np", padding=True).to("cpu")
    assert inputs.input_ids.shape == inputs.attention_mask.shape == inputs.shape
    assert llama.batch_decode(inputs.input_ids, skip_special_tokens=True) == [
        "A list of colors: red, blue",
        "Portugal is",
    ]
    left = llama(["a b c d", "a"], padding=True, padding_side="left")
    assert left["attention_mask"][1][0] == 0
    assert left["input_ids"][1][-1] == llama("a")["input_ids"][-1]


def test_ids_come_in_many_shapes(llama):
    ids = llama.encode("Hello world", add_special_tokens=False)
    array = np.array(ids)
    for given in (ids, tuple(ids), array, array.astype(np.int32), list(array)):
        assert llama.decode(given) == "Hello world"
    for given in ([ids, ids[:2]], [array, array[:2]], np.array([ids, ids])):
        assert llama.decode(given)[0] == llama.batch_decode(given)[0] == "Hello world"
    assert llama.decode(np.int64(ids[0])) == llama.decode(ids[0])
    assert llama.convert_ids_to_tokens(array) == llama.convert_ids_to_tokens(ids)
    assert llama.decode([]) == ""
    assert llama.batch_decode([]) == [""]


def test_no_texts_at_all(llama):
    assert dict(llama([])) == {"input_ids": [], "attention_mask": []}
    assert llama([], return_tensors="np")["input_ids"].shape == (0,)


def test_padding_what_is_there(llama):
    rows = llama(["a b c d", "a"])
    padded = llama.pad(rows, return_tensors="np")
    assert padded["input_ids"].shape == padded["attention_mask"].shape
    assert isinstance(llama.pad({"input_ids": np.array([[1, 2]])})["input_ids"], np.ndarray)
    assert [len(row) for row in rows["input_ids"]] != [len(rows["input_ids"][0])] * 2
    with pytest.raises(ValueError, match="takes a dict with input_ids"):
        llama.pad({"ids": [1]})


def test_saved_and_read_again(tokenizer, tmp_path):
    tokenizer.chat_template = {"default": "a", "tool_use": "b\r\n"}
    tokenizer.add_special_tokens({"pad_token": "<new>", "extra_special_tokens": ["<other>"]})
    paths = tokenizer.save_pretrained(tmp_path / "new" / "folder")
    assert {Path(path).name for path in paths} == {
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tool_use.jinja",
    }  # fmt: skip
    again = AutoTokenizer.from_pretrained(tmp_path / "new" / "folder")
    text = "Hello <new>world</s><other> \U0001f642"
    assert again(text) == tokenizer(text)
    kept = ("special_tokens_map", "extra_special_tokens", "chat_template", "padding_side", "truncation_side")
    for name in (
        *kept,
        "model_max_length",
        "model_input_names",
        "clean_up_tokenization_spaces",
        "added_tokens_encoder",
    ):
        assert getattr(again, name) == getattr(tokenizer, name), name
    tokenizer.chat_template = {"../out": "x"}
    with pytest.raises(ValueError, match="cannot be a file"):
        tokenizer.save_pretrained(tmp_path / "bad")
    with pytest.raises(UnknownOption, match="push_to_hub"):
        tokenizer.save_pretrained(tmp_path / "bad", push_to_hub=True)


def test_arguments_go_before_the_files(folders):
    options = {"padding_side": "left", "truncation_side": "left", "model_max_length": 9, "chat_template": "x"}
    tokenizer = AutoTokenizer.from_pretrained(folders["sentencepiece"], pad_token="<p>", unk_token=None, **options)
    assert {name: getattr(tokenizer, name) for name in options} == options
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.unk_token) == ("<p>", 420, None)
    assert "padding_side='left'" in repr(tokenizer)
    assert tokenizer


def test_a_text_that_is_too_long_is_told_once(llama, caplog):
    for _ in range(2):
        llama("x" * 100)
    assert len(caplog.records) == 1
    assert "more than the 24 the model takes" in caplog.text
    llama._told_long = False
    llama("x" * 100, verbose=False)
    llama("x" * 100, truncation=True)
    assert len(caplog.records) == 1


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "kind", "sentence"),
    [
        (None, {}, ValueError, "there is no text"),
        (5, {}, TypeError, "text must be a str or a list of them, not int"),
        (["a", 5], {}, TypeError, "not int"),
        (["a", b"x"], {}, TypeError, "not bytes"),
        ("a\ud800", {}, ValueError, "lone surrogate"),
        (["a", "b"], {"text_pair": "c"}, TypeError, "text_pair must be one of the same length"),
        (["a", "b"], {"text_pair": ["c"]}, ValueError, "text has 2 entries and text_pair has 1"),
        ("a b", {"is_split_into_words": True}, TypeError, "must be a list of words"),
        ("a", {"text_target": "b"}, ValueError, "text_target is for models that read one text"),
        ("a", {"pading": True}, UnknownOption, "did you mean 'padding'"),
        ("a", {"padding": "long"}, ValueError, "padding must be one of"),
        ("a", {"padding": 1.5}, ValueError, "padding must be one of"),
        ("a", {"truncation": "first"}, ValueError, "truncation must be one of"),
        ("a", {"max_length": -1}, ValueError, "max_length must be a whole number of at least 0, not -1"),
        ("a", {"max_length": 2.0}, ValueError, "max_length must be a whole number"),
        ("a", {"stride": -1}, ValueError, "stride must be"),
        ("a", {"padding": True, "pad_to_multiple_of": 0}, ValueError, "pad_to_multiple_of must be"),
        ("a", {"padding": True, "padding_side": "top"}, ValueError, "padding_side must be left or right"),
        (
            "a",
            {"padding": True, "truncation": True, "max_length": 9, "pad_to_multiple_of": 8},
            ValueError,
            "a multiple of",
        ),
        ("a b c", {"truncation": True, "max_length": 0}, ValueError, "no room for the special tokens"),
        ("the dog sleeps on", {"truncation": True, "max_length": 4, "stride": 3}, ValueError, "stride=3 must be below"),
        ("the dog sleeps on", {"truncation": "only_second", "max_length": 4}, ValueError, "needs pairs of texts"),
        (["a", "b c d"], {"return_tensors": "np"}, ValueError, "padding=True"),
        ("a", {"return_tensors": "tf"}, ValueError, 'must be "np", "pt" or None, not \'tf\''),
        ("a", {"padding": True, "max_length": 5}, UserWarning, "max_length changes nothing here"),
    ],
)
def test_refusals(text, options, kind, sentence, llama):
    with pytest.raises(kind, match=sentence):
        llama(text, **options)


def test_refusals_of_pairs(llama):
    with pytest.raises(ValueError, match="its first text is shorter than the excess"):
        llama("a", "the dog sleeps on and on", truncation="only_first", max_length=6)
    with pytest.raises(ValueError, match="stride=4 must be below what is left of a cut text"):
        llama("the dog sleeps on", "the dog sleeps on", truncation=True, max_length=8, stride=4)


def test_padding_needs_a_token(folders, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folders["sentencepiece"], pad_token=None)
    for call in (lambda: tokenizer(["a", "b"], padding=True), lambda: tokenizer.pad({"input_ids": [[1], [2, 3]]})):
        with pytest.raises(
            ValueError, match=r"no token to pad with; set one: tokenizer.pad_token = tokenizer.eos_token"
        ):
            call()
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(ValueError, match="padding='max_length' needs max_length"):
        AutoTokenizer.from_pretrained(folders["llama3"])("a", padding="max_length")


@pytest.mark.parametrize(
    ("ids", "kind", "sentence"),
    [
        ([5, -100], ValueError, "-100 is no token's id"),
        ([1.5], TypeError, "ids must be whole numbers, or rows of them, not float"),
        ("Hello", TypeError, "not str"),
        ([[5], 6], TypeError, "not list"),
        ([1 << 40], ValueError, "is no token's id"),
        (None, TypeError, "not NoneType"),
    ],
)
def test_what_is_no_id(ids, kind, sentence, llama):
    with pytest.raises(kind, match=sentence):
        llama.decode(ids)


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"use_fast": False}, ValueError, "there is only the fast one"),
        ({"pad_tokens": "x"}, UnknownOption, "did you mean 'pad_token'"),
        ({"add_prefix_space": True}, UnknownOption, "unknown option 'add_prefix_space'"),
        ({"padding_side": "middle"}, ValueError, "padding_side must be left or right"),
        ({"model_max_length": "8"}, ValueError, "model_max_length must be a number"),
    ],
)
def test_refusals_of_loading(options, kind, sentence, folders):
    with pytest.raises(kind, match=sentence):
        AutoTokenizer.from_pretrained(folders["sentencepiece"], **options)


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(BadFile, match=r"tokenizer_config.json: padding_side must be left or right"):
        AutoTokenizer.from_pretrained(write(tmp_path, "sentencepiece", padding_side="up"))
    with pytest.raises(TypeError, match=r"AutoTokenizer.from_pretrained\(name_or_path\)"):
        AutoTokenizer()
