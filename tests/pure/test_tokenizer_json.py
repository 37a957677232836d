"""tokenizer.json read as lists: what is read so, that it equals what the library makes of the file, and what is not."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_vocabularies import WAYS, as_gguf, letters

from hard_texts import TEXTS
from quickbrown import _native
from quickbrown.text.files import template_from_folder, tokenizer_from_folder
from quickbrown.text.gguf_vocab import tokenizer_from_gguf
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.text.words import WORDS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "transformers" / "tokenizers.json").read_text("utf-8"))
FILES = {kind: made["files"] for kind, made in GOLDEN["kinds"].items() if "files" in made}
ANY_TEXT = st.lists(
    st.one_of(
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from(
            ["\u2581", " ", "  ", "\n", "the", "hello", "12", "'s", "e\u0301", "<s>", "</s>", "<|im_end|>"]
        ),
        st.sampled_from(["<tool>", "<x>", "<X>", "<0x41>", "\u0120", "\u2581\u2581", "<|eot_id|>"]),
    ),
    max_size=12,
).map("".join)
Edit = Callable[[dict[str, Any]], object]


def edited(kind: str, *edits: Edit) -> dict[str, Any]:
    made = copy.deepcopy(FILES[kind]["tokenizer.json"])
    for edit in edits:
        edit(made)
    return made


def of_gguf(tokenizer: Tokenizer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer.raw.to_str())
    return found


def sets(**fields: Any) -> Edit:
    return lambda made: made.update(fields)


def model(**fields: Any) -> Edit:
    return lambda made: made["model"].update(fields)


def adds(*texts: str, **flags: bool) -> Edit:
    """More tokens that are whole in any text, with ids that the library may not take."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return lambda made: made["added_tokens"].extend({"id": 7000, "content": text, **usual, **flags} for text in texts)


def without(*texts: str) -> Edit:
    """Without some of the model's tokens; the ids of the others close up."""

    def edit(made: dict[str, Any]) -> None:
        kept = sorted((i, text) for text, i in made["model"]["vocab"].items() if text not in texts)
        made["model"]["vocab"] = {text: i for i, (_, text) in enumerate(kept)}
        made["model"]["merges"] = [
            pair for pair in made["model"]["merges"] if {*pair, "".join(pair)} <= {t for _, t in kept}
        ]

    return edit


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def merges(left: str, right: str) -> Edit:
    """One merge more, and what it makes."""

    def edit(made: dict[str, Any]) -> None:
        made["model"]["vocab"][left + right] = len(made["model"]["vocab"])
        made["model"]["merges"].append([left, right])

    return edit


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
NO_BYTES = (without(*BYTES), model(byte_fallback=False))
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
GEMMA = sets(
    normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
)
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<t>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<t>": {"id": "<t>", "ids": [2], "tokens": ["<t>"]}},
}
PAD = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 0,
       "pad_token": "<pad>"}  # fmt: skip
WITHOUT_EFFECT = {
    "continuing_subword_prefix": "", "end_of_word_suffix": "", "unk_token": "<|endoftext|>", "fuse_unk": True,
    "byte_fallback": True, "dropout": 0.0,
}  # fmt: skip

LAZY: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"words of {kind}": lambda kind=kind: of_gguf(letters(kind)) for kind in WAYS.values()},  # type: ignore[misc]
    **{
        f"sentences of {name}": lambda name=name: of_gguf(tokenizer_from_gguf(as_gguf(name), name))  # type: ignore[misc]
        for name in ("llama", "gemma", "no_bytes", "crossing")
    },
    **{kind: lambda kind=kind: edited(kind) for kind in FILES if kind != "unigram"},  # type: ignore[misc]
    "merges of one text": lambda: edited(
        "bytelevel", lambda made: made["model"].update(merges=[" ".join(pair) for pair in made["model"]["merges"]])
    ),
    "no merges": lambda: edited("sentencepiece", model(merges=[])),
    "ids out of order": lambda: edited(
        "bytelevel", lambda made: made["model"].update(vocab=dict(reversed(made["model"]["vocab"].items())))
    ),
    "added behind the model's": lambda: edited("llama3", adds("<x>", "<|im_end|>"), adds("<y>", special=False)),
    "added with a blank": lambda: edited("sentencepiece", adds("<x>", lstrip=True), adds("<X>", rstrip=True)),
    "added as words": lambda: edited("sentencepiece", adds("the", single_word=True, special=False)),
    "added and normalized": lambda: edited(
        "bytelevel", sets(normalizer={"type": "Lowercase"}), adds("<x>", normalized=True), adds("<X>")
    ),
    "added twice": lambda: edited("llama3", adds("<x>", "<y>", "<x>", "", "<z>")),
    "some of the model's added": lambda: edited("bytelevel", adds("the", special=False), adds("in")),
    "bytes without a letter": lambda: edited("bytelevel", without("x", "2", "\u0122")),
    "bytes without a letter, and words that are tokens": lambda: edited("llama3", without("x", "2", "\u0122")),
    "a blank first": lambda: edited("llama3", sets(pre_tokenizer=BYTE_LEVEL)),
    "digits alone": lambda: edited(
        "llama3", sets(pre_tokenizer=sequence({"type": "Digits", "individual_digits": True}, BYTE_LEVEL))
    ),
    "a template": lambda: edited("bytelevel", sets(post_processor=TEMPLATE)),
    "two processors": lambda: edited(
        "bytelevel", sets(post_processor={"type": "Sequence", "processors": [BYTE_LEVEL, TEMPLATE]})
    ),
    "as RoBERTa": lambda: edited(
        "bytelevel",
        sets(post_processor={"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True,
                             "add_prefix_space": False}),
    ),
    "cut and padded": lambda: edited(
        "sentencepiece",
        sets(padding=PAD, truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}),
    ),
    "as Gemma": lambda: edited("sentencepiece", GEMMA, adds("\n", "\n\n", "\u2581\u2581", special=False)),
    "as Mistral": lambda: edited(
        "sentencepiece", sets(normalizer=None, pre_tokenizer=METASPACE | {"prepend_scheme": "first", "split": False})
    ),
    "words by ▁": lambda: edited("sentencepiece", sets(normalizer=None, pre_tokenizer=METASPACE)),
    "no cuts": lambda: edited("sentencepiece", sets(normalizer=None)),
    "composed": lambda: edited("sentencepiece", sets(normalizer={"type": "NFKC"}, pre_tokenizer=METASPACE)),
    "unknown": lambda: edited("sentencepiece", *NO_BYTES),
    "unknown, each": lambda: edited("sentencepiece", *NO_BYTES, model(fuse_unk=False)),
    "no ▁": lambda: edited("sentencepiece", *NO_BYTES, without("\u2581")),
    "nothing unknown": lambda: edited("sentencepiece", model(unk_token=None)),
    "settings without effect": lambda: edited("bytelevel", model(**WITHOUT_EFFECT)),
}  # fmt: skip
BUILT: dict[str, Callable[[], dict[str, Any]]] = {
    "unigram": lambda: edited("unigram"),
    "dropout": lambda: edited("bytelevel", model(dropout=0.5, merges=[])),
    "a suffix": lambda: edited("bytelevel", model(end_of_word_suffix="</w>", merges=[])),
    "a prefix": lambda: edited("bytelevel", model(continuing_subword_prefix="##", merges=[])),
    "whole sentences that are tokens": lambda: edited("sentencepiece", model(ignore_merges=True)),
    "no letter for the byte that is asked for": lambda: edited("bytelevel", without("a")),
    "a token for bytes without a letter": lambda: edited("bytelevel", without("x"), model(unk_token="e")),
    "an id of no token": lambda: edited("bytelevel", lambda made: made["model"]["vocab"].update(huge=5000)),
    "a letter added": lambda: edited("bytelevel", adds("\u0120", special=False)),
    "a byte added": lambda: edited("sentencepiece", adds("<0x41>", special=False)),
    "a character added": lambda: edited("sentencepiece", adds("\n")),
    "a normalized character added": lambda: edited("sentencepiece", adds("\n", special=False, normalized=True)),
    "▁ added": lambda: edited("sentencepiece", adds("\u2581", special=False)),
    "a character added and others composed": lambda: edited(
        "sentencepiece", sets(normalizer={"type": "NFKC"}), adds("1", special=False)
    ),
    "nothing for what is unknown": lambda: edited("sentencepiece", *NO_BYTES, model(unk_token=None)),
    "an unknown token that is merged": lambda: edited("sentencepiece", *NO_BYTES, model(unk_token="e")),
    "bytes that are merged": lambda: edited("sentencepiece", merges("<0xC3>", "<0xA9>")),
    "bytes for nothing": lambda: edited("sentencepiece", model(unk_token=None, byte_fallback=False)),
    "some bytes": lambda: edited("sentencepiece", without("<0x41>")),
    "a blank behind the letters": lambda: edited("bytelevel", sets(pre_tokenizer=sequence(BYTE_LEVEL, METASPACE))),
    "a first merge that is none": lambda: edited(
        "bytelevel",
        lambda made: made["model"].update(merges=["#version: 0.2", *map(" ".join, made["model"]["merges"])]),
    ),
}


def folder_of(folder: Path, made: dict[str, Any], **how: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(made, **how), "utf-8")
    return folder


@cache
def both(name: str, where: Path) -> tuple[Tokenizer, Tokenizer]:
    """As lists, and built at once."""
    folder = folder_of(where, {**LAZY, **BUILT}[name]())
    return tokenizer_from_folder(folder, lazy=True), tokenizer_from_folder(folder)


@pytest.fixture
def where(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return _PLACES.setdefault(request.node.callspec.params["name"], tmp_path_factory.mktemp("folder"))


_PLACES: dict[str, Path] = {}


@pytest.mark.parametrize("name", LAZY)
def test_texts_are_read_as_the_library_reads_them(name: str, where: Path) -> None:
    lists, whole = both(name, where)
    unbuilt = lists._unbuilt
    assert unbuilt is not None
    plain = whole._without_special()
    for special, library in ((True, whole.raw), (False, plain)):
        for text in TEXTS:
            expected = library.encode(text, add_special_tokens=False).ids
            assert unbuilt.read(text, special) == expected
            assert lists.encode(text, special, bos=True) == whole.encode(text, special, bos=True)
    assert lists._unbuilt is unbuilt


@settings(max_examples=60, deadline=None)
@given(text=ANY_TEXT, special=st.booleans())
@pytest.mark.parametrize("name", [name for name in LAZY if name.partition(" of ")[0] not in ("words", "sentences")])
def test_any_text(name: str, text: str, special: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    lists, whole = both(name, _PLACES.setdefault(name, tmp_path_factory.mktemp("folder")))
    assert lists.encode(text, special) == whole.encode(text, special)


@pytest.mark.parametrize("name", LAZY)
def test_everything_else_is_the_same_too(name: str, tmp_path: Path) -> None:
    """What a model says of its ends, each token, and at last the library's own form, byte for byte."""
    made = LAZY[name]()
    config = {"pad_token": "<pad>", "eos_token": "</s>", "extra_special_tokens": ["<x>", "the"], "bos_token": "<new>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    lists, whole = (tokenizer_from_folder(folder_of(tmp_path, made), lazy=lazy) for lazy in (True, False))
    assert lists._unbuilt is not None
    for field in ("vocab_size", "eos_ids", "bos_id", "add_bos", "special_ids", "leading_blank"):
        assert getattr(lists, field) == getattr(whole, field)
    ids = range(whole.vocab_size)
    assert [lists.token(i) for i in ids] == [whole.token(i) for i in ids]
    assert [lists.token_bytes(i) for i in ids] == [whole.token_bytes(i) for i in ids]
    assert [lists.special_id(text) for text in ("<x>", "<s>", "the", "<new>")] == [
        whole.special_id(text) for text in ("<x>", "<s>", "the", "<new>")
    ]
    assert lists._unbuilt is not None
    found, expected = (json.loads(tokenizer.raw.to_str()) for tokenizer in (lists, whole))
    if name == "settings without effect":
        expected["model"] |= {key: found["model"][key] for key in WITHOUT_EFFECT}
    assert found == expected
    assert lists.encode(TEXTS[3]) == whole.encode(TEXTS[3])


@pytest.mark.parametrize("name", BUILT)
def test_what_lists_do_not_read_is_built(name: str, where: Path) -> None:
    lists, whole = both(name, where)
    assert lists._unbuilt is None
    if name != "dropout":
        assert [lists.encode(text) for text in TEXTS] == [whole.encode(text) for text in TEXTS]


@pytest.mark.parametrize("how", [{"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}], ids=str)
def test_any_way_to_write_json(how: dict[str, Any], tmp_path: Path) -> None:
    made = edited(
        "bytelevel", model(vocab=FILES["bytelevel"]["tokenizer.json"]["model"]["vocab"] | {'"\\/\n\U0001f642': 417})
    )
    lists, whole = (tokenizer_from_folder(folder_of(tmp_path, made, **how), lazy=lazy) for lazy in (True, False))
    assert lists._unbuilt is not None
    assert json.loads(lists.raw.to_str()) == json.loads(whole.raw.to_str())


OTHER = {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}


@pytest.mark.parametrize(
    "change", [{"x": OTHER}, {"content": '"vocab": {"a": 0}, "merges": []'}, {"content": '"vocab'}], ids=str
)
def test_other_lists_of_that_name_are_not_taken(change: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, edited("bytelevel", lambda made: made["added_tokens"][0].update(change)))
    lists, whole = (tokenizer_from_folder(folder, lazy=lazy) for lazy in (True, False))
    assert json.loads(lists.raw.to_str()) == json.loads(whole.raw.to_str())


def test_lists_of_a_folder_can_be_pickled(tmp_path: Path) -> None:
    lists = tokenizer_from_folder(folder_of(tmp_path, edited("llama3", adds("<x>"))), lazy=True)
    again = pickle.loads(pickle.dumps(lists))
    assert again._unbuilt is not None
    assert again.encode("the<x> 12") == lists.encode("the<x> 12")


def test_a_template_needs_no_whole(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    folder = folder_of(tmp_path, edited("sentencepiece"))
    lists = tokenizer_from_folder(folder, lazy=True)
    template = template_from_folder(folder, lists)
    assert template is not None
    assert template.render([{"role": "user", "content": "Hi"}]) == "<s>Hi"
    assert lists._unbuilt is not None


# -- the lists ------------------------------------------------------------------------------------------------------


def tokens_in(text: bytes) -> dict[bytes, int]:
    texts, sizes, ids, end = _native.read_tokens(b"x" + text + b", ", 1)
    assert end == 1 + len(text)
    return dict(zip(apart(texts, sizes), ids.tolist(), strict=True))


def merges_in(text: bytes) -> list[bytes]:
    texts, sizes, ids, end = _native.read_merges(text + b"]", 0)
    assert (len(ids), end) == (0, len(text))
    return apart(texts, sizes)


def apart(texts: bytes, sizes: np.ndarray[Any, np.dtype[np.int64]]) -> list[bytes]:
    assert texts.endswith(bytes(8))
    assert int(sizes.sum()) == len(texts) - 8
    ends = np.cumsum(sizes).tolist()
    return [texts[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def test_lists_are_read() -> None:
    assert tokens_in(b"{}") == {}
    assert tokens_in(b'{ "a" :0,\r\n\t"" : 2147483647 }') == {b"a": 0, b"": 2147483647}
    assert merges_in(b"[]") == []
    assert merges_in(b'[ ["a" , "b"],["c d", ""], "e f" ]') == [b"a", b"b", b"c d", b"", b"e", b"f"]
    odd = ['"\\/\b\f\n\r\t\0\x7f\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff', "a" * 1000, "é"]
    for ascii_only in (True, False):
        text = json.dumps({text: i for i, text in enumerate(odd)}, ensure_ascii=ascii_only).encode()
        assert tokens_in(text) == {text.encode(): i for i, text in enumerate(odd)}
    assert tokens_in(b'{"\\/\\uD83d\\uDe42": 1}') == {"/\U0001f642".encode(): 1}


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "{", '{"', '{"a', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{,}', '{"a" 1}', '{a:1}',
        '{"a":-1}', '{"a":1.0}', '{"a":1e3}', '{"a":01}', '{"a":2147483648}', '{"a":99999999999999999999}', '{"a":"1"}',
        '{"a":null}', '{"a":{}}', '{"a\n":1}', '{"a\\x":1}', '{"\\u12":1}', '{"\\u12g4":1}', '{"\\ud800":1}',
        '{"\\ud800x":1}', '{"\\ud800\\n":1}', '{"\\ud800\\u0041":1}', '{"\\udc00":1}', '{"\\', '{"\\u', '{"\\ud800\\',
    ],
)  # fmt: skip
def test_what_is_no_list_of_tokens(text: str) -> None:
    with pytest.raises(ValueError, match="no list of texts"):
        _native.read_tokens(text.encode(), 0)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[", "[,]", "[[", '[["a"', '[["a",', '[["a","b"', '[["a","b"]', '[["a","b"],', '[["a","b"],]', '[["a"]]',
     '[["a","b","c"]]', "[[]]", '["ab"]', '["a b c"]', '["a  b"]', '["a b"', "[1]", "[null]", '[["a",1]]'],
)  # fmt: skip
def test_what_is_no_list_of_merges(text: str) -> None:
    with pytest.raises(ValueError, match="no list of texts"):
        _native.read_merges(text.encode(), 0)


def test_a_place_behind_the_end() -> None:
    with pytest.raises(ValueError, match="behind the end"):
        _native.read_tokens(b"{}", 3)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), st.integers(0, 2**31 - 1)), st.booleans())
def test_any_tokens(tokens: dict[str, int], ascii_only: bool) -> None:
    text = json.dumps(tokens, ensure_ascii=ascii_only).encode()
    assert tokens_in(text) == {text.encode(): i for text, i in tokens.items()}


@pytest.mark.parametrize(("a", "b"), [(b"\xff", b"b"), (b"\xed\xa0\x80", b"b"), (b"\xc3", b"\xa9")])
def test_texts_that_are_no_unicode(a: bytes, b: bytes, tmp_path: Path) -> None:
    """The last are two halves of a character: end to end, as the tokens lie in memory, they are one."""
    data = json.dumps(edited("bytelevel", model(merges=[]))).encode()
    assert b'"a": 64, "b": 65,' in data
    (tmp_path / "tokenizer.json").write_bytes(data.replace(b'"a"', b'"' + a + b'"').replace(b'"b"', b'"' + b + b'"'))
    with pytest.raises(ValueError, match="is no vocabulary that can be read"):
        tokenizer_from_folder(tmp_path, lazy=True)


def test_every_way_to_cut_is_read() -> None:
    assert set(WAYS.values()) <= set(WORDS)
