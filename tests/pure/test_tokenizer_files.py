"""Vocabularies and chat templates from the files of a folder, good and bad."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickbrown.text import files
from quickbrown.text.files import template_from_folder, tokenizer_from_folder
from quickbrown.text.pieces import Pieces
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.weights.source import BadFile

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "transformers" / "tokenizers.json").read_text("utf-8"))
FILES = {kind: made["files"] for kind, made in GOLDEN["kinds"].items() if "files" in made}


def write(folder: Path, kind: str = "sentencepiece", **changed: object) -> Path:
    """A folder of these files; `changed` ones by their names without ending: a dict is merged, None takes it away."""
    made = copy.deepcopy(FILES[kind])
    for name, content in changed.items():
        name += ".jinja" if isinstance(content, str) and name == "chat_template" else ".json"
        if isinstance(content, dict):
            made[name] = made.get(name, {}) | content
        elif content is None:
            made.pop(name, None)
        else:
            made[name] = content
    folder.mkdir(exist_ok=True)
    for name, content in made.items():
        data = content if isinstance(content, (str, bytes)) else json.dumps(content)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


@pytest.fixture(scope="module", params=list(FILES))
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_folder(write(tmp_path_factory.mktemp("folder"), request.param))


_SHARED: dict[str, Tokenizer] = {}


def shared(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if kind not in _SHARED:
        _SHARED[kind] = tokenizer_from_folder(write(tmp_path_factory.mktemp("shared"), kind))
    return _SHARED[kind]


# -- texts --------------------------------------------------------------------------------------------------------


def test_tokens_of_the_sentencepiece_kind(tmp_path):
    tokenizer = tokenizer_from_folder(write(tmp_path))
    assert tokenizer.leading_blank
    named = tokenizer.raw.token_to_id
    assert tokenizer.token_bytes(named("\u2581the")) == b" the"
    assert tokenizer.token_bytes(named("<0xE2>")) == b"\xe2"
    assert tokenizer.token_bytes(named("<s>")) == b"<s>"
    ids = tokenizer.encode("the \u00e9")
    assert tokenizer.decode(ids) == " the \u00e9"
    assert tokenizer.raw.decode(ids) == "the \u00e9"
    assert Pieces(tokenizer, opening=True).push(ids) == "the \u00e9"


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\u2581")))
@pytest.mark.parametrize("kind", ["sentencepiece", "bytelevel", "llama3"])
def test_text_survives(text, kind, tmp_path_factory):
    """But for what the vocabulary itself changes: the blank before the first word, and composed characters."""
    tokenizer = shared(kind, tmp_path_factory)
    expected = tokenizer.raw.normalizer.normalize_str(text) if kind == "bytelevel" else text
    found = tokenizer.decode(tokenizer.encode(text, special=False), skip_special=False)
    assert found == (f" {text}" if text and kind == "sentencepiece" else expected)


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(3, 362)), at=st.integers(0, 20))
@pytest.mark.parametrize("kind", list(FILES))
def test_a_continuation_is_what_the_whole_text_adds(ids, at, kind, tmp_path_factory):
    """Tokens that go on from others: their text, as the library writes it at the end of the whole text.

    Where a character's bytes are incomplete the library writes another number of U+FFFD, so only whole ones count.
    """
    tokenizer = shared(kind, tmp_path_factory)
    ids = [i % tokenizer.vocab_size for i in ids]
    first, rest = ids[:at], ids[at:]
    if "\ufffd" in tokenizer.decode(first, False) + tokenizer.decode(rest, False):
        return
    if kind == "unigram" and first and not tokenizer.decode(first, False).strip(" "):
        return  # there the first token loses all of its blanks
    if not first or not tokenizer.decode(first, False):
        return
    start, whole = (tokenizer.raw.decode(part, skip_special_tokens=False) for part in (first, ids))
    assert start + tokenizer.decode(rest, False) == whole


def test_pieces_join_to_the_decoded_text(tokenizer):
    ids = tokenizer.encode("Hello \U0001f642 the quick\n brown fox. \u65e5\u672c")
    pieces = Pieces(tokenizer)
    assert "".join([*(pieces.push([i]) for i in ids), pieces.finish()]) == tokenizer.decode(ids)


def test_plain_text_keeps_the_ids_of_added_tokens(tmp_path):
    """A token added behind special ones keeps its id where those are read as plain text: it once moved up."""
    added = [{"id": 420, "content": "<a>", "special": True}, {"id": 421, "content": "<b>", "special": False}]
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    tokens = FILES["sentencepiece"]["tokenizer.json"]["added_tokens"] + [token | flags for token in added]
    tokenizer = tokenizer_from_folder(write(tmp_path, tokenizer={"added_tokens": tokens}))
    assert 420 in tokenizer.encode("x<a><b>")
    plain = tokenizer.encode("x<a><b>", special=False)
    assert 420 not in plain
    assert 421 in plain
    assert tokenizer.vocab_size == 422


# -- what a model says of its ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "ends"),
    [
        ({}, {2}),
        ({"config": {"eos_token_id": 5}}, {2, 5}),
        ({"config": {"eos_token_id": [5, 6]}, "generation_config": {"eos_token_id": None}}, {2, 5, 6}),
        ({"config": {"eos_token_id": 5}, "generation_config": {"eos_token_id": 7}}, {2, 7}),
        ({"generation_config": {"eos_token_id": [7, 2]}, "tokenizer_config": {"eos_token": "<unk>"}}, {0, 2, 7}),
        ({"tokenizer_config": {"eos_token": {"content": "<s>", "__type": "AddedToken"}}}, {1}),
    ],
)
def test_ends(changed, ends, tmp_path):
    assert tokenizer_from_folder(write(tmp_path, **changed)).eos_ids == ends


@pytest.mark.parametrize(
    ("kind", "changed", "bos", "ids"),
    [
        ("sentencepiece", {}, 1, True),
        ("sentencepiece", {"tokenizer_config": {"bos_token": None}}, 1, True),
        ("sentencepiece", {"tokenizer": {"post_processor": None}}, 1, False),
        ("bytelevel", {}, None, False),
        ("bytelevel", {"config": {"bos_token_id": 3}}, 3, False),
        ("llama3", {}, 360, True),
        ("unigram", {}, None, False),  # </s> behind a text, and nothing before it
    ],
)
def test_beginnings_are_found_by_asking(kind, changed, bos, ids, tmp_path):
    tokenizer = tokenizer_from_folder(write(tmp_path, kind, **changed))
    assert (tokenizer.bos_id, tokenizer.add_bos) == (bos, ids)
    assert tokenizer.encode("a", bos=True) == [*([bos] if ids else []), *tokenizer.encode("a")]


def test_ids_that_only_the_model_has(tmp_path):
    """Embeddings are often larger than the vocabulary: such an id may be drawn, and has no text."""
    tokenizer = tokenizer_from_folder(write(tmp_path, config={"vocab_size": 500}))
    assert tokenizer.vocab_size == 500
    assert tokenizer.token_bytes(499) == b""
    assert tokenizer.decode([5, 499, 6]) == tokenizer.decode([5, 6])
    with pytest.raises(ValueError, match="out of range"):
        tokenizer.token_bytes(500)


def test_special_tokens_of_the_settings_are_whole_in_any_text(tmp_path):
    changed = {"pad_token": "<pad>", "additional_special_tokens": ["<x>"], "image_token": "<image>"}
    tokenizer = tokenizer_from_folder(write(tmp_path, tokenizer_config=changed, special_tokens_map=None))
    new = [tokenizer.raw.token_to_id(token) for token in ("<pad>", "<image>", "<x>")]
    assert new == [420, 421, 422]
    assert tokenizer.special_ids >= set(new)
    listed = {"420": {"content": "<y>", "special": False, "normalized": False}}
    tokenizer = tokenizer_from_folder(write(tmp_path, tokenizer_config={"added_tokens_decoder": listed}))
    assert 420 in tokenizer.encode("a<y>b")
    assert 420 not in tokenizer.special_ids


def test_files_that_cut_and_pad_do_neither_here(tmp_path):
    """tokenizer.json may say that every text is cut and padded, which no text to be continued can want."""
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    pad = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 0,
           "pad_token": "</s>"}  # fmt: skip
    tokenizer = tokenizer_from_folder(write(tmp_path, tokenizer={"truncation": cut, "padding": pad}))
    assert len(tokenizer.encode("Hello world")) > 2
    assert 2 not in tokenizer.encode("a")


# -- templates ------------------------------------------------------------------------------------------------------


def test_templates(tmp_path):
    folder = write(
        tmp_path, tokenizer_config={"chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"}
    )
    tokenizer = tokenizer_from_folder(folder)
    hello = [{"role": "user", "content": "Hi"}]
    assert template_from_folder(folder, tokenizer).render(hello) == "<s>Hi</s>"
    (folder / "chat_template.jinja").write_text("file")
    assert template_from_folder(folder, tokenizer).render(hello) == "file"
    (folder / "chat_templates").mkdir()
    (folder / "chat_templates" / "rag.jinja").write_text("rag")
    sources = files.templates_from_folder(folder, files.tokenizer_settings(folder))
    assert sources == {"default": "file", "rag": "rag"}
    (folder / "chat_template.jinja").unlink()
    assert template_from_folder(folder, tokenizer) is None
    several = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    folder = write(tmp_path / "several", tokenizer_config={"chat_template": several})
    assert template_from_folder(folder, tokenizer).render(hello) == "a"
    assert template_from_folder(write(tmp_path / "none"), tokenizer) is None


# -- damage ---------------------------------------------------------------------------------------------------------

MODEL = FILES["sentencepiece"]["tokenizer.json"]["model"]
TWO = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 1], "tokens": ["<s>", "<s>"]}},
}
NO_UNKNOWN = {"type": "BPE", "vocab": {"b": 0}, "merges": [], "unk_token": "<none>"}
EMPTY = {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": [], "post_processor": None}

UNLISTED = TWO | {"single": [{"SpecialToken": {"id": "<q>", "type_id": 0}}, *TWO["single"]]}
NOTHING = {"type": "Replace", "pattern": {"String": ""}, "content": "x"}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"tokenizer": None}, "it has no vocabulary; the file tokenizer.json is needed"),
        ({"tokenizer": b"{"}, "is no vocabulary that can be read"),
        ({"tokenizer": b"\xff\xfe"}, "is no vocabulary that can be read"),
        ({"tokenizer": b"[" * 100000}, "is no vocabulary that can be read"),
        ({"tokenizer": EMPTY, "tokenizer_config": None, "special_tokens_map": None}, "has no tokens"),
        ({"tokenizer": {"model": MODEL | {"vocab": MODEL["vocab"] | {"huge": 4000000000}}}}, "ids above 16,777,216"),
        ({"tokenizer": {"model": MODEL | {"merges": [["q", "zzz"]]}}}, "is no vocabulary that can be read"),
        ({"tokenizer": {"decoder": None}}, r"decoded in a way that is not supported \(none\)"),
        ({"tokenizer": {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}}, r"\(WordPiece\)"),
        ({"tokenizer": {"model": NO_UNKNOWN, "normalizer": None}}, "cannot encode a text"),
        ({"tokenizer": {"post_processor": TWO}}, "begins every text with 2 tokens"),
        ({"tokenizer": {"post_processor": UNLISTED}}, "has a special token that it does not list: '<q>'"),
        ({"tokenizer": {"post_processor": {"type": "Sequence", "processors": [UNLISTED]}}}, "not list: '<q>'"),
        ({"tokenizer": {"normalizer": NOTHING}}, "puts a text in the place of none"),
        ({"tokenizer": {"normalizer": {"type": "Sequence", "normalizers": [NOTHING]}}}, "in the place of none"),
        ({"tokenizer_config": b"[]"}, "must hold a JSON object"),
        ({"tokenizer_config": b"{"}, "is not valid JSON"),
        ({"tokenizer_config": {"eos_token": 5}}, "'eos_token' must be a token's text"),
        ({"tokenizer_config": {"extra_special_tokens": [{}]}}, "'extra_special_tokens' must be a token's text"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "a"}}}}, "must be tokens by their ids"),
        ({"tokenizer_config": {"added_tokens_decoder": {"3": {}}}}, "must be tokens by their ids"),
        ({"tokenizer_config": {"added_tokens_decoder": [1]}}, "must be tokens by their ids"),
        ({"config": {"eos_token_id": 420}}, "'eos_token_id' is 420, and ids go from 0 to 419"),
        ({"config": {"eos_token_id": "2"}}, "'eos_token_id' is '2'"),
        ({"generation_config": {"eos_token_id": [1, -1]}}, "'eos_token_id' is"),
        ({"config": {"vocab_size": 10**9}}, "'vocab_size' is 1000000000"),
        ({"config": b"\xff"}, "is not valid UTF-8"),
    ],
)  # fmt: skip
def test_damaged_files(changed, sentence, tmp_path, capfd):
    """In a sentence, and without a word of the library's, which writes of its panics by itself."""
    with pytest.raises(BadFile, match=sentence) as caught:
        tokenizer_from_folder(write(tmp_path, **changed))
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["vocab.txt", "encoder.json", "vocab.json"])
def test_other_kinds_of_files(name, tmp_path):
    folder = write(tmp_path, tokenizer=None)
    (folder / name).write_bytes(b"x")
    with pytest.raises(BadFile, match=rf"it has {name}, which is not read; the file tokenizer\.json is needed"):
        tokenizer_from_folder(folder)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"tokenizer_config": {"chat_template": 5}}, "'chat_template' must be a text, or a list"),
        ({"tokenizer_config": {"chat_template": [{"name": "x"}]}}, "'chat_template' must be a text, or a list"),
        ({"tokenizer_config": {"chat_template": [{"name": 1, "template": "x"}]}}, "'chat_template' must be a text"),
        ({"chat_template": "{% if %}"}, "its chat template cannot be used: line 1"),
        ({"chat_template": "x" * (1 << 21)}, "is larger than 1 MiB"),
    ],
)
def test_damaged_templates(changed, sentence, tmp_path):
    folder = write(tmp_path, **changed)
    tokenizer = tokenizer_from_folder(folder)
    with pytest.raises(BadFile, match=sentence):
        template_from_folder(folder, tokenizer)


def test_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "TOKENIZER_BYTES", 1 << 10)
    with pytest.raises(BadFile, match="is larger than 0 MiB"):
        tokenizer_from_folder(write(tmp_path))
    monkeypatch.setattr(files, "SETTINGS_BYTES", 10)
    with pytest.raises(BadFile, match="is larger than"):
        tokenizer_from_folder(tmp_path)
