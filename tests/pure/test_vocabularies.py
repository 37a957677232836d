"""Vocabularies of every kind: what the originals make of the hard texts, and what is done to damaged files."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gguf_writer import as_read
from hard_texts import TEXTS
from quickbrown.text.files import tokenizer_from_folder
from quickbrown.text.gguf_vocab import tokenizer_from_gguf
from quickbrown.text.lists import PieceLists, begins_words, merges_by_score
from quickbrown.text.pieces import Pieces
from quickbrown.text.sentencepiece import Model, read_model
from quickbrown.text.tokenizer import BYTE_OF, Tokenizer
from quickbrown.text.words import REFUSED, WORDS
from quickbrown.weights.source import BadFile
from quickbrown.weights.strings import Index, Strings

GOLDEN = Path(__file__).parents[1] / "golden" / "vocabularies"
LLAMA_CPP = json.loads((GOLDEN / "words.json").read_text())
SENTENCEPIECE = json.loads((GOLDEN / "sentencepiece.json").read_text())
TIKTOKEN = json.loads((GOLDEN / "tiktoken.json").read_text())
WAYS = {words: kind for kind, words in reversed(WORDS.items())}  # each way to cut once, by its first name
ANY_TEXT = st.text(st.one_of(st.characters(exclude_categories=("Cs",)), st.sampled_from("a1 \n\t.'sAé日\u0301\u2581<")))


# -- ways to cut a text into words ----------------------------------------------------------------------------------


@cache
def letters(kind: str, lazy: bool = False) -> Tokenizer:
    """The vocabulary of the golden, cut in this way."""
    metadata = {
        "model": "gpt2", "pre": kind, "tokens": LLAMA_CPP["tokens"], "merges": LLAMA_CPP["merges"],
        "token_type": [3] * 3 + [1] * (len(LLAMA_CPP["tokens"]) - 3), "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    read = as_read({f"tokenizer.ggml.{key}": value for key, value in metadata.items()})
    return tokenizer_from_gguf(read, f"{kind}.gguf", lazy=lazy)


THEIRS = {
    kind: [np.frombuffer(base64.b64decode(ids), "<u2").tolist() for ids in group["ids"]]
    for group in LLAMA_CPP["groups"]
    for kind in group["kinds"]
}
# Where llama.cpp's way is not the family's own, which test_words_of_published_files knows, and the texts that show it.
COMPOSED = {15, 16}  # it composes no characters
MARKS = {15, 16, 20, 21}  # it takes marks for no letters
CASED = {29}  # it knows capital letters of ASCII only
UNCASED = {13, 29}  # or none
APART: dict[str, set[int]] = {
    **dict.fromkeys(("mpt", "olmo", "command-r", "qwen2", "qwen35"), COMPOSED),
    **dict.fromkeys(("tekken", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), MARKS | CASED),
    **dict.fromkeys(("youtu", "tiny_aya", "cohere2moe"), UNCASED),
    "kimi-k2": MARKS | UNCASED,
    "deepseek-coder": {9},  # U+2028 and U+0085 end no line for it
    "deepseek-llm": {9, 10, 12, 18, 24, 37},  # and digits stay together
    "falcon": {10, 17, 18, 19, 20, 21, 22, 24, 30, 34, 37},  # it cuts characters, the model's own way cuts their bytes
    "laguna": {5, 34, 35},  # it cuts before \n, where the model's own way keeps \r\n
}


def test_every_way_is_compared():
    assert set(THEIRS) == set(WORDS)
    assert not set(REFUSED) & set(WORDS)


@pytest.mark.parametrize("kind", WORDS)
def test_words_are_those_of_llama_cpp(kind):
    """But for the ways in which it is not the family's own, on the texts that show it."""
    tokenizer = letters(kind)
    differ = {at for at, text in enumerate(TEXTS) if tokenizer.encode(text) != THEIRS[kind][at]}
    assert differ == APART.get(kind, set())


@pytest.mark.parametrize("kind", WAYS.values())
def test_lists_read_as_the_whole_does(kind):
    whole, lists = letters(kind), letters(kind, lazy=True)
    for special in (True, False):
        for text in TEXTS:
            ids = lists.encode(text, special)
            assert ids == whole.encode(text, special)
            assert lists._unbuilt is not None
            if not WORDS[kind].composed:
                assert lists.decode(ids, skip_special=False) == text


PUBLISHED = json.loads((GOLDEN / "chains.json").read_text())


@cache
def published(name: str) -> Any:
    import tokenizers

    said = PUBLISHED[name]
    made = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "post_processor": None,
        "normalizer": said["normalizer"], "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": said["pre_tokenizer"]},
    }  # fmt: skip
    return tokenizers.Tokenizer.from_str(json.dumps(made))


@pytest.mark.parametrize("name", PUBLISHED)
@given(text=ANY_TEXT)
@example(text="\n".join(TEXTS))
@settings(max_examples=60, deadline=None)
def test_words_are_those_of_published_files(name, text):
    """Each family's own tokenizer.json, as it was published, cuts every text as its name in GGUF files does."""
    theirs = published(name)
    for kind in PUBLISHED[name]["kinds"]:
        mine = letters(kind).raw
        normal = [raw.normalizer.normalize_str(text) if raw.normalizer else text for raw in (theirs, mine)]
        assert normal[0] == normal[1]
        assert mine.pre_tokenizer.pre_tokenize_str(normal[1]) == theirs.pre_tokenizer.pre_tokenize_str(normal[0])


def test_a_way_that_is_not_known():
    with pytest.raises(BadFile, match=r"names the way 'qwen3' that it cuts .* are supported; 'qwen35' is near"):
        letters("qwen3")
    with pytest.raises(BadFile, match=r"in the way 'afmoe' .* not supported: its digits"):
        letters("afmoe")


# -- SentencePiece ----------------------------------------------------------------------------------------------------


@cache
def model(name: str) -> Model:
    return read_model((GOLDEN / f"{name}.model").read_bytes())


def built(name: str, lazy: bool) -> Tokenizer:
    sentences = model(name).sentences
    raw, unbuilt = sentences.built(lazy)
    assert (unbuilt is not None) == (lazy and not sentences.unigram)
    return Tokenizer(raw, vocab_size=len(sentences.index.tokens), unbuilt=unbuilt)


# Texts that sentencepiece reads otherwise than the library that reads them here (as transformers does).
LIBRARY: dict[str, set[int]] = {
    "gemma": {29},  # ▁ itself is in the text, and a token of the user's is of two blanks
    "no_bytes": {15},  # two marks on a letter, of which one is composed with it
    "unigram": {15},
    "unigram_bytes": {29},  # "<0x41>" is in the text, and the library finds every token of the list
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("name", SENTENCEPIECE["kinds"])
def test_sentences_are_those_of_sentencepiece(name, lazy):
    tokenizer, made = built(name, lazy), SENTENCEPIECE["kinds"][name]
    differ = {at for at, text in enumerate(TEXTS) if tokenizer.encode(text, special=False) != made["ids"][at]}
    assert differ == LIBRARY.get(name, set())
    for ids, text in zip(made["ids"], made["texts"], strict=True):
        pieces = Pieces(tokenizer, skip_special=False, opening=True)
        streamed = "".join([*(pieces.push([i]) for i in ids), pieces.finish()])
        unknown = tokenizer.special_id("<unk>")
        if unknown not in ids:  # which sentencepiece writes as two question marks
            assert streamed == text


@given(text=ANY_TEXT, special=st.booleans())
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("name", ["llama", "gemma", "crossing", "no_bytes"])
def test_sentence_lists_read_as_the_whole_does(name, text, special):
    whole, lists = _both(name)
    assert lists.encode(text, special) == whole.encode(text, special)


@cache
def _both(name: str) -> tuple[Tokenizer, Tokenizer]:
    return built(name, False), built(name, True)


def test_where_words_may_begin():
    assert begins_words(Strings.of(["\u2581a", "\u2581\u2581", "\u2581\u2581b", "c", "\u2581"]))
    assert not begins_words(Strings.of(["\u2581a", "a\u2581"]))
    assert not begins_words(Strings.of(["x", "\u2581a\u2581b"]))
    assert begins_words(Strings.of(["a", "\u2581"]).part(np.array([1, 0])))
    assert begins_words(Strings.of([]))


@given(tokens=st.lists(st.text("\u2581ab", min_size=1, max_size=5), min_size=1, unique=True))
def test_where_words_may_begin_by_looking_at_each_token(tokens):
    assert begins_words(Strings.of(tokens)) == all("\u2581" not in token.lstrip("\u2581") for token in tokens)


@given(
    tokens=st.lists(st.text("ab\u00e9", min_size=1, max_size=5), min_size=1, max_size=60, unique=True),
    scores=st.lists(st.sampled_from([0.0, -1.0, -2.5, 3.0]), min_size=60, max_size=60),
    seed=st.integers(0, 99),
)
def test_merges_by_score_are_all_that_there_are(tokens, scores, seed):
    """Every way to make a token of two others, found by trying each; unusable ones neither make nor are made."""
    normal = np.random.default_rng(seed).random(len(tokens)) < 0.8
    usable = [token for token, can in zip(tokens, normal, strict=True) if can]
    expected = [
        (-scores[at], -len(token[:cut].encode()), at, token[:cut], token[cut:])
        for at, token in enumerate(tokens)
        for cut in range(1, len(token))
        if token in usable and token[:cut] in usable and token[cut:] in usable
    ]
    index = Index(Strings.of(tokens))
    merges = merges_by_score(index, normal, normal, np.array(scores)[: len(tokens)])
    found = [(tokens[a], tokens[b]) for a, b in zip(merges.left, merges.right, strict=True)]
    assert found == [(left, right) for *_, left, right in sorted(expected)]
    assert all(tokens[made] == left + right for made, (left, right) in zip(merges.made, found, strict=True))


def as_gguf(name: str, **changes: Any) -> dict[str, Any]:
    """The settings that a GGUF file has of a vocabulary."""
    said = model(name)
    sentences = said.sentences
    kinds = np.where(sentences.normal, 1, 6).astype(np.int32)
    marks = sentences.index.find(Strings.of(sentences.added[True]))
    kinds[marks] = 3
    kinds[sentences.index.find(Strings.of(sentences.added[False]))] = 4
    kinds[sentences.unknown] = 2
    metadata = {
        "model": "t5" if sentences.unigram else "llama", "pre": "default", "tokens": sentences.index.tokens,
        "scores": sentences.scores, "token_type": kinds, "bos_token_id": said.bos, "eos_token_id": said.eos,
        "unknown_token_id": sentences.unknown, "add_space_prefix": sentences.prefix, "add_eos_token": False,
        "remove_extra_whitespaces": sentences.squeeze and sentences.unigram,
        "precompiled_charsmap": np.frombuffer(sentences.charsmap, np.uint8) if sentences.unigram else None,
    }  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in (metadata | changes).items() if value is not None}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma", "crossing", "unigram", "unigram_bytes"])
def test_a_gguf_file_reads_as_its_model_does(name, lazy):
    tokenizer, original = tokenizer_from_gguf(as_gguf(name), name, lazy=lazy), built(name, False)
    for special in (True, False):
        for text in TEXTS:
            assert tokenizer.encode(text, special) == original.encode(text, special)
    assert tokenizer.special_ids == original.special_ids
    turn = tokenizer.raw.token_to_id("<end_of_turn>")
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (model(name).bos, {model(name).eos, turn} - {None})
    assert tokenizer.add_bos == (not model(name).sentences.unigram)


def test_beginnings_and_ends_that_a_file_does_not_name():
    """A vocabulary of the kind of Llama 2 has them where that has."""
    tokenizer = tokenizer_from_gguf(as_gguf("llama", bos_token_id=None, eos_token_id=None), "m")
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (1, {2})
    with pytest.raises(BadFile, match="names no token that ends a text"):
        tokenizer_from_gguf(as_gguf("unigram_bytes", eos_token_id=None, token_type=None), "m")


def test_control_tokens_of_phi_3_take_line_ends_along():
    """As its tokenizer.json says, and a GGUF file does not, in which only the model's name tells."""
    for lazy in (False, True):
        plain = tokenizer_from_gguf(as_gguf("llama"), "m", lazy=lazy)
        phi = tokenizer_from_gguf(as_gguf("llama") | {"general.name": "Phi-3 Mini"}, "m", lazy=lazy)
        assert phi.encode("</s>\n x") == plain.encode("</s>x") != plain.encode("</s>\n x")
        assert phi.encode("<s>\n x") == plain.encode("<s>\n x")


def test_special_tokens_in_the_words_of_a_stranger():
    """A unigram vocabulary finds every token of its list in a text: control tokens were once read as what they are."""
    for name in ("unigram", "unigram_bytes", "llama"):
        tokenizer = built(name, False)
        ids = tokenizer.encode("x<s> y</s>z", special=False)
        assert not tokenizer.special_ids.intersection(ids) - {tokenizer.special_id("<unk>")}
        assert {model(name).bos, model(name).eos} < set(tokenizer.encode("x<s> y</s>z"))
        assert tokenizer.encode("plain", special=False) == tokenizer.encode("plain")


def test_merges_that_are_listed():
    """As Gemma 4 lists them: the same tokens, merged in the order that their scores had."""
    sentences = model("gemma").sentences
    lists = sentences.built(True)[1]
    assert isinstance(lists, PieceLists)
    tokens = list(sentences.index.tokens)
    merges = lists._merges(None)
    listed = [f"{tokens[a]} {tokens[b]}" for a, b in zip(merges.left, merges.right, strict=True)]
    changed = {"model": "gemma4", "merges": Strings.of(listed), "scores": None, "pre": "gemma4"}
    for lazy in (False, True):
        tokenizer = tokenizer_from_gguf(as_gguf("gemma", **changed), "m.gguf", lazy=lazy)
        for text, ids in zip(TEXTS, SENTENCEPIECE["kinds"]["gemma"]["ids"], strict=True):
            if "\u2581\u2581" not in text:
                assert tokenizer.encode(text, special=False) == ids
        assert tokenizer.add_bos


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("llama", {"scores": None}, "'tokenizer.ggml.scores' must be a list of numbers"),
        ("llama", {"scores": np.zeros(3, np.float32)}, "has 3 entries, and there are"),
        ("llama", {"scores": np.full(900, np.nan, np.float32)}, "holds what is no number"),
        ("llama", {"remove_extra_whitespaces": True}, "needs 'tokenizer.ggml.remove_extra_whitespaces'"),
        ("llama", {"add_sep_token": True}, "wants a token behind every text"),
        ("llama", {"unknown_token_id": 900}, "is 900, and there are 900 tokens"),
        ("unigram", {"add_eos_token": None}, "wants a token behind every text"),
        ("unigram", {"precompiled_charsmap": 5}, "must be a list of bytes"),
        ("unigram", {"precompiled_charsmap": np.full(9, 255, np.uint8)}, "its vocabulary cannot be used"),
    ],
)
def test_damaged_sentences(name, changes, sentence):
    with pytest.raises(BadFile, match=sentence):
        tokenizer_from_gguf(as_gguf(name, **changes), "m.gguf")


# -- files of folders -------------------------------------------------------------------------------------------------


def write(folder: Path, files: dict[str, bytes | dict[str, Any]]) -> Path:
    for name, held in files.items():
        (folder / name).write_bytes(held if isinstance(held, bytes) else json.dumps(held).encode())
    return folder


def test_a_folder_with_a_file_of_sentencepiece(tmp_path):
    data = (GOLDEN / "llama.model").read_bytes()
    hello = SENTENCEPIECE["kinds"]["llama"]["ids"][TEXTS.index("Hello world")]
    tokenizer = tokenizer_from_folder(write(tmp_path, {"tokenizer.model": data, "config.json": {}}))
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.add_bos) == (1, {2}, True)
    assert tokenizer.encode("Hello world", bos=True) == [1, *hello]
    assert tokenizer.leading_blank
    first = tokenizer.encode("<s>x")
    write(tmp_path, {"tokenizer_config.json": {"legacy": False, "add_bos_token": False}})
    tokenizer = tokenizer_from_folder(tmp_path)
    assert not tokenizer.add_bos
    assert tokenizer.encode("Hello world", special=False) == hello
    assert tokenizer.decode(first, False) == "<s> x"
    assert tokenizer.decode(tokenizer.encode("<s>x"), False) == "<s>x"


@cache
def ranks() -> list[bytes]:
    return [bytes(BYTE_OF[letter] for letter in token) for token in LLAMA_CPP["tokens"][3:]]


def rank_file(tokens: list[bytes] | None = None) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % at for at, token in enumerate(tokens or ranks()))


@pytest.mark.parametrize(("name", "way"), [("tokenizer.model", "llama3"), ("tiktoken.model", "kimi-k2")])
def test_a_folder_with_ranks(name, way, tmp_path):
    count = len(ranks())
    end = {"content": "[EOS]", "special": True}
    settings = {"added_tokens_decoder": {str(count + 5): end}, "eos_token": "[EOS]"} if way == "kimi-k2" else {}
    tokenizer = tokenizer_from_folder(write(tmp_path, {name: rank_file(), "tokenizer_config.json": settings}))
    for text, ids in zip(TEXTS, TIKTOKEN["ids"][way], strict=True):
        assert tokenizer.encode(text, special=False) == ids
        assert tokenizer.decode(ids) == text
    if way == "llama3":
        assert (tokenizer.bos_id, tokenizer.add_bos, tokenizer.vocab_size) == (count, True, count + 256)
        assert tokenizer.encode("<|eot_id|>") == [count + 9]
        assert tokenizer.encode("<|reserved_special_token_246|>") == [count + 255]
    else:
        assert tokenizer.eos_ids == {count + 5}
        assert tokenizer.encode(f"<|reserved_token_{count}|>[EOS]") == [count, count + 5]


def tekken(**changes: Any) -> dict[str, Any]:
    """A tekken.json with ten special tokens, cut as the GPT-4o vocabulary is."""
    listed = [
        {"rank": at, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for at, token in enumerate(ranks()[:400])
    ]
    special = [{"rank": at, "token_str": text, "is_control": True} for at, text in enumerate(["<unk>", "<s>", "</s>"])]
    pattern = PUBLISHED["gpt-4o"]["pre_tokenizer"][0]["pattern"]["Regex"]
    config = {"pattern": pattern, "default_num_special_tokens": 10, "default_vocab_size": len(listed) + 10}
    return {"config": config | changes, "vocab": listed, "special_tokens": special}


def test_a_folder_with_tekken(tmp_path):
    tokenizer = tokenizer_from_folder(write(tmp_path, {"tekken.json": tekken()}))
    for text, ids in zip(TEXTS, TIKTOKEN["ids"]["gpt-4o"], strict=True):
        assert tokenizer.encode(text, special=False) == [i + 10 for i in ids]
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.add_bos) == (1, {2}, True)
    assert tokenizer.encode("<s><SPECIAL_9>") == [1, 9]


FAR = {"added_tokens_decoder": {"999999": "x"}}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"tokenizer.model": b""}, "is empty"),
        ({"tokenizer.model": b"\x0a\x05abc"}, "a field reaches beyond what holds it"),
        ({"tokenizer.model": b"\xff" * 20}, "a number does not end"),
        ({"tokenizer.model": b"\x0b\x0b"}, "a field written in way 3"),
        ({"tokenizer.model": b"\x0a\x03\x0a\x01\xff"}, "piece 0 is not valid UTF-8"),
        ({"tokenizer.model": b"\x0a\x02\x08\x01"}, "piece 0 is damaged"),
        ({"tokenizer.model": b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x7f"}, "score of piece 0 is no number"),
        ({"tokenizer.model": b"\x0a\x03\x0a\x01a\x12\x02\x18\x03"}, "is a vocabulary of whole words"),
        ({"tokenizer.model": b"\x0a\x03\x0a\x01a" * 2}, "has the token 'a' twice"),
        ({"tokenizer.model": b"\x0a\x03\x0a\x01a\x12\x02\x18\x02"}, "no token for what is unknown"),
        ({"tokenizer.model": b"YQ== 0\nYg== 2\n"}, "line 2 is not a token and the rank 1"),
        ({"tokenizer.model": b"YQ== 0\nYQ== 1\n"}, "has the token 'a' twice"),
        ({"tiktoken.model": b"YQ== 0\n", "tokenizer_config.json": FAR}, "its settings list one of id 999999"),
        ({"tekken.json": b"[]"}, "is no tekken.json that can be read"),
        ({"tekken.json": b"[" * 100000}, "is no tekken.json that can be read"),
        ({"tekken.json": tekken(pattern="(")}, "its vocabulary cannot be used"),
        ({"tekken.json": tekken(default_vocab_size=-1)}, "its counts and ids must be whole numbers"),
    ],
)  # fmt: skip
def test_damaged_files(files, sentence, tmp_path):
    with pytest.raises(BadFile, match=sentence) as caught:
        tokenizer_from_folder(write(tmp_path, files))
    assert "\n" not in str(caught.value)


@given(at=st.integers(0, 13000), byte=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_damage_does_worse_than_a_refusal(at, byte, cut):
    data = bytearray((GOLDEN / "llama.model").read_bytes())
    at %= len(data)
    data = data[:at] if cut else data[:at] + bytes([byte]) + data[at + 1 :]
    try:
        raw, _ = read_model(bytes(data)).sentences.built(False)
    except ValueError:
        return
    raw.encode("Hello \u65e5\u672c")
