"""Vocabularies from GGUF settings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import tokenizer_json
from gguf_writer import as_read, byte_vocabulary, tiny_llama
from quickbrown.text.gguf_vocab import (
    named_from_gguf,
    template_from_gguf,
    templates_from_gguf,
    tokenizer_from_gguf,
)
from quickbrown.text.tokenizer import BYTE_OF, Tokenizer
from quickbrown.weights.source import BadFile


def build(**changes) -> Tokenizer:
    metadata = tiny_llama()[0] | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return tokenizer_from_gguf(as_read({k: v for k, v in metadata.items() if v is not None}), "m.gguf")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build()


def words(tokenizer: Tokenizer, text: str, **options) -> list[str]:
    return [tokenizer.raw.id_to_token(i) for i in tokenizer.encode(text, **options)]


def test_the_alphabet_is_the_published_one():
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(BYTE_OF) == set(ByteLevel.alphabet())
    assert sorted(BYTE_OF.values()) == list(range(256))
    assert (BYTE_OF["Ġ"], BYTE_OF["Ċ"], BYTE_OF["a"], BYTE_OF["é"]) == (0x20, 0x0A, 0x61, 0xE9)


def test_merges_and_words(tokenizer):
    assert words(tokenizer, "hello the") == ["hello", "Ġthe"]
    assert words(tokenizer, "hell 123") == ["hell", "Ġ", "1", "2", "3"]
    assert words(tokenizer, "a    the\n") == ["a", "ĠĠ", "Ġ", "Ġthe", "Ċ"]
    assert words(tokenizer, "é") == ["Ã", "©"]
    assert tokenizer.encode("") == []


def test_special_tokens(tokenizer):
    text = "<|im_start|>the<|im_end|>"
    ids = tokenizer.encode(text)
    assert (ids[0], ids[-1], len(ids)) == (1, 2, 4)
    plain = tokenizer.encode(text, special=False)
    assert not tokenizer.special_ids.intersection(plain)
    assert tokenizer.decode(plain) == text == tokenizer.decode(ids, skip_special=False)
    assert tokenizer.decode(ids) == "the"
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.vocab_size == 266


def test_beginnings_and_ends():
    tokenizer = build()
    assert (tokenizer.eos_ids, tokenizer.bos_id, tokenizer.add_bos) == ({0, 2}, 1, False)
    assert tokenizer.encode("a", bos=True) == tokenizer.encode("a")
    tokenizer = build(add_bos_token=True, eos_token_id=0, eot_token_id=5)
    assert tokenizer.eos_ids == {0, 2, 5}
    assert tokenizer.encode("a", bos=True) == [1, *tokenizer.encode("a")]
    assert build(bos_token_id=None).bos_id is None


def test_text_that_looks_like_an_end_is_one_only_as_a_special_token():
    vocabulary = byte_vocabulary(["< /", "</ s", "</s >"])
    settings = {"tokens": vocabulary.tokens, "merges": vocabulary.merges}
    assert build(**settings, token_type=vocabulary.kinds).eos_ids == {0, 2}
    control = [*vocabulary.kinds[:-1], 3]
    assert build(**settings, token_type=control).eos_ids == {0, 2, 261}


def test_user_defined_tokens_are_text():
    vocabulary = byte_vocabulary()
    tokens = [*vocabulary.tokens[:-1], "tool é call"]
    tokenizer = build(tokens=tokens, token_type=[*vocabulary.kinds[:-1], 4], merges=list(vocabulary.merges[:-1]))
    for special in (True, False):
        ids = tokenizer.encode("a tool é call.", special)
        assert 265 in ids
        assert tokenizer.decode(ids) == "a tool é call."
    assert 265 not in tokenizer.special_ids
    assert tokenizer.token_bytes(265) == "tool é call".encode()


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_text_survives(text):
    tokenizer = _shared()
    for special in (True, False):
        ids = tokenizer.encode(text, special)
        assert tokenizer.decode(ids, skip_special=False) == text
        assert tokenizer.raw.decode(ids, skip_special_tokens=False) == text


@given(st.lists(st.integers(0, 265)))
@settings(max_examples=200, deadline=None)
def test_decoding_is_the_librarys(ids):
    tokenizer = _shared()
    assert tokenizer.decode(ids) == tokenizer.raw.decode(ids)
    assert tokenizer.decode(ids, False) == tokenizer.raw.decode(ids, skip_special_tokens=False)


_made: list[Tokenizer] = []


def _shared() -> Tokenizer:
    if not _made:
        _made.append(build())
    return _made[0]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("smollm", "it's 12²x", ["it", "'s", " ", "1", "2", "²", "x"]),
        ("gpt-2", "it's 12²x", ["it", "'s", " 12²", "x"]),
        ("default", "a\n\n b", ["a", "\n\n", " b"]),
        ("llama-bpe", "IT'S 12345.\n\nx", ["IT", "'S", " ", "123", "45", ".\n\n", "x"]),
        ("qwen2", "e\u0301 12\n  y", ["é", " ", "1", "2", "\n", " ", " y"]),
    ],
)
def test_words_of_each_kind(pre, text, expected):
    raw = build(pre=pre).raw
    if raw.normalizer is not None:
        text = raw.normalizer.normalize_str(text)
    pieces = raw.pre_tokenizer.pre_tokenize_str(text)
    assert [bytes(BYTE_OF[letter] for letter in piece).decode() for piece, _ in pieces] == expected


def test_llama3_begins_by_default_and_takes_whole_words():
    vocabulary = byte_vocabulary()
    tokens = [*vocabulary.tokens, "xyz"]
    tokenizer = build(pre="llama-bpe", tokens=tokens, token_type=[*vocabulary.kinds, 1], add_bos_token=None)
    assert tokenizer.encode("xyz", bos=True) == [1, 266]
    assert len(build(tokens=tokens, token_type=[*vocabulary.kinds, 1]).encode("xyz")) == 3


def test_wrong_use(tokenizer):
    for wrong in (-1, 266, 10**9):
        with pytest.raises(ValueError, match="out of range: the vocabulary has 266 tokens"):
            tokenizer.decode([3, wrong])
    with pytest.raises(ValueError, match="lone surrogate"):
        tokenizer.encode("a\ud800")
    with pytest.raises(TypeError, match="must be a str, not int"):
        tokenizer.encode(5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": None}, "has no vocabulary"),
        ({"model": "llama"}, "'tokenizer.ggml.scores' must be a list of numbers"),
        ({"model": "bert"}, r"of kind 'bert', WordPiece, .*; supported are 'gpt2', 'llama', 't5' and 'gemma4'"),
        ({"model": "new"}, r"of kind 'new'; supported are"),
        ({"model": 3}, "must be a text"),
        ({"pre": None}, "does not say how it cuts text into words"),
        ({"pre": "tekken2"}, r"the way 'tekken2' that it cuts text into words .*; 'tekken' is near"),
        ({"tokens": None}, "'tokenizer.ggml.tokens' is missing"),
        ({"tokens": "abc"}, "must be a list of texts"),
        ({"tokens": []}, "must be a list of texts|is empty|entries"),
        ({"tokens": ["a", "b", "a"]}, "the token 'a' twice"),
        ({"tokens": ["a", ""]}, "an empty token"),
        ({"merges": None}, "'tokenizer.ggml.merges' is missing"),
        ({"merges": ["h e", "he"]}, "merge 1 of its vocabulary is not two tokens"),
        ({"merges": ["h e l"]}, "merge 0 of its vocabulary is not two tokens"),
        ({"merges": [" h"]}, "its merges do not fit its tokens"),
        ({"merges": ["h q"]}, "its merges do not fit its tokens"),
        ({"merges": ["zz h"]}, "its merges do not fit its tokens"),
        ({"token_type": [3, 3]}, "has 2 entries, and there are 266 tokens"),
        ({"token_type": "x"}, "must be a list of whole numbers"),
        ({"eos_token_id": 266}, "is 266, and there are 266 tokens"),
        ({"eos_token_id": -1}, "is -1"),
        ({"eos_token_id": "2"}, "must be a whole number"),
        ({"bos_token_id": 2**32 - 1}, "is 4294967295"),
        ({"bos_token_id": None, "add_bos_token": True}, "wants a token that begins a text"),
        ({"add_eos_token": True}, r"wants a token behind every text \('tokenizer.ggml.add_eos_token'\)"),
        ({"add_space_prefix": True}, "needs 'tokenizer.ggml.add_space_prefix'"),
        ({"eos_token_id": None, "token_type": [1] * 266}, "names no token that ends a text"),
    ],
)
def test_damaged_vocabularies(changes, sentence):
    with pytest.raises(BadFile, match=sentence) as caught:
        build(**changes)
    assert str(caught.value).startswith("m.gguf: ")
    assert "\n" not in str(caught.value)


def test_templates(tokenizer):
    metadata = as_read(tiny_llama()[0])
    text = template_from_gguf(metadata, tokenizer, "m.gguf").render([{"role": "user", "content": "hello"}])
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    both = metadata | {"tokenizer.chat_template": "{{ bos_token }}+{{ eos_token }}"}
    text = template_from_gguf(both, tokenizer, "m").render([{"role": "user", "content": ""}])
    assert text == "<|im_start|>+<|im_end|>"
    for wrong in ("{% if %}", 5):
        with pytest.raises(BadFile, match=r"^m: .*\.$"):
            template_from_gguf(metadata | {"tokenizer.chat_template": wrong}, tokenizer, "m")
    for wrong in ({"tokenizer.chat_template.rag": 5}, {"tokenizer.chat_template": ["x"]}):
        with pytest.raises(BadFile, match=r"^m: the setting 'tokenizer.chat_template.*must be a text\.$"):
            templates_from_gguf(metadata | wrong, "m")
    named = {"default": metadata["tokenizer.chat_template"], "rag": "x"}
    assert templates_from_gguf(metadata | {"tokenizer.chat_template.rag": "x"}, "m") == named
    del metadata["tokenizer.chat_template"]
    assert template_from_gguf(metadata, tokenizer, "m") is None


def test_names_of_special_tokens(tokenizer):
    metadata = as_read(tiny_llama()[0]) | {"tokenizer.ggml.padding_token_id": 0}
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    assert named_from_gguf(metadata, tokenizer, "m") == named
    with pytest.raises(BadFile, match=r"'tokenizer.ggml.mask_token_id' is 266, and there are 266 tokens"):
        named_from_gguf(metadata | {"tokenizer.ggml.mask_token_id": 266}, tokenizer, "m")


@pytest.mark.parametrize("kind", ["sentencepiece", "bytelevel"])
def test_spelling_is_exact_in_the_middle_of_a_text(kind):
    """`encode` would put a blank before a fragment, or none where there is one."""
    import tokenizers

    core = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer_json(kind)))
    for text in ("red", " red", "  blue\n", "é日本🙂", "x" * 100, ""):
        ids = core.spell(text)
        assert core.decode(ids) == text
        assert not core.special_ids & set(ids)
