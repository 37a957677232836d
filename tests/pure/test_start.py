"""From process start to the first token: what is not loaded, and what is not built, before it."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_writer import as_read, tiny_llama, write_gguf, write_tiny_llama
from quickbrown.models.families import FILES
from quickbrown.text.gguf_vocab import tokenizer_from_gguf
from quickbrown.text.lists import Lists
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.source import BadFile
from quickbrown.weights.strings import Index, Strings

HEAVY = {
    "asyncio", "email", "http", "huggingface_hub", "importlib.metadata", "jinja2", "jinja2.sandbox",
    "multiprocessing", "numpy.f2py", "numpy.fft", "numpy.ma", "numpy.polynomial", "numpy.random", "numpy.testing",
    "platformdirs", "prompt_toolkit", "pydantic", "quickbrown.async_llm", "quickbrown.backends.reference",
    "quickbrown.hf", "quickbrown.quant.quantize", "quickbrown.text.files", "quickbrown.text.sandbox",
    "quickbrown.text.template",
    "quickbrown.weights.safetensors", "quickbrown.weights.tiny", "requests", "rich", "shlex", "socket", "ssl",
    "subprocess", "tempfile", "tokenizers.tools", "torch", "transformers", "typer", "unittest", "urllib.request",
    "yaml",
}  # fmt: skip
COMMANDS = {f"quickbrown.cli.{name}" for name in ("chat", "doctor", "info", "models")}


def test_a_plain_generation_loads_nothing_heavy(tmp_path: Path) -> None:
    model = write_tiny_llama(tmp_path / "m.gguf")
    code = (
        "import atexit, sys; from quickbrown.cli.main import main;"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        f"sys.argv = ['qb', 'generate', '-m', {str(model)!r}, 'hello', '--max-new-tokens', '2', '--seed', '1'];"
        "main()"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV_")} | {"QB_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stderr.split())
    assert {"numpy", "tokenizers", "quickbrown.llm"} <= loaded
    assert loaded & (HEAVY | COMMANDS) == set()
    assert loaded & {f"quickbrown.models.{file}" for file in FILES} == {"quickbrown.models.llama"}


MERGES = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "Ġ Ġ", "hel lo", "a b", "b c", "ab c", "a bc", "1 2", "Ã ©"]
ODD_ORDER = ["Ġ Ġ", "b c", "a bc", "a b", "ab c", "h e", "l l", "he ll", "hell o", "Ã ©", "b c", "ĠĠ Ġ"]
TEXT = st.lists(
    st.one_of(
        st.sampled_from(["hello", "abc", "the", " ", "\n", "12", "é", "e\u0301", "<|im_start|>", "<|im_e", "漢", "'s"]),
        st.sampled_from(["abxc", "heĀllo", "helxlo", "xx", "x", "1212"]),
        st.sampled_from(["<|im_end|>\u0338", "\u0301", "hello" * 9, " " * 9, "ab" * 40, "<usr>", "Ġ", "\0", "🙂"]),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
).map("".join)
PRES = ["gpt-2", "smollm", "qwen2", "llama-bpe"]
ORDERS = pytest.mark.parametrize("merges", [MERGES, ODD_ORDER], ids=["two ways to one token", "out of order"])


def listed(pre: str = "smollm", merges: list[str] = MERGES, without: str = "", added: str = "<usr>") -> dict[str, Any]:
    """Settings of a vocabulary; `without` some of the bytes' letters; `added` is a token that is no structure."""
    metadata, _ = tiny_llama()
    made = list(dict.fromkeys(merge.replace(" ", "") for merge in merges))
    tokens = metadata["tokenizer.ggml.tokens"][:259]
    kinds = dict(zip(tokens, metadata["tokenizer.ggml.token_type"], strict=False))
    tokens = [token for token in tokens if token not in without] + [token for token in made if token not in {"hel"}]
    tokens = list(dict.fromkeys([*tokens, added]))
    changed = {
        "tokens": tokens,
        "token_type": [4 if token == added else kinds.get(token, 1) for token in tokens],
        "merges": [merge for merge in merges if set(merge.split(" ")) <= set(tokens)],
        "pre": pre,
    }
    return as_read(metadata | {f"tokenizer.ggml.{key}": value for key, value in changed.items()})


def fresh(*args: Any, **kwargs: Any) -> Tokenizer:
    """A tokenizer of these settings that has read nothing yet."""
    return tokenizer_from_gguf(listed(*args, **kwargs), "m.gguf", lazy=True)


def library(metadata: dict[str, Any]) -> tokenizers.Tokenizer:
    """What the library makes of all tokens and merges that are listed, with nothing of ours between."""
    tokens, merges = (list(metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "merges"))
    ids = {token: i for i, token in enumerate(tokens)}
    pre = metadata["tokenizer.ggml.pre"]
    model = tokenizers.models.BPE(ids, [tuple(merge.split(" ")) for merge in merges], ignore_merges=pre == "llama-bpe")
    raw = tokenizers.Tokenizer(model)
    example = tokenizer_from_gguf(metadata, "m.gguf").raw
    raw.normalizer, raw.pre_tokenizer = example.normalizer, example.pre_tokenizer
    for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"].tolist(), strict=True):
        if kind != 1:
            added = tokenizers.AddedToken(token, special=kind == 3, normalized=False)
            (raw.add_special_tokens if kind == 3 else raw.add_tokens)([added])
    return raw


@ORDERS
@pytest.mark.parametrize("pre", PRES)
@pytest.mark.parametrize("without", ["", "x2"], ids=["all bytes", "some bytes are no token"])
def test_texts_are_read_as_the_whole_reads_them(pre: str, merges: list[str], without: str) -> None:
    tokenizer, raw = fresh(pre, merges, without), library(listed(pre, merges, without))
    plain = library(listed(pre, merges, without))
    plain.encode_special_tokens = True
    unbuilt = tokenizer._unbuilt
    assert unbuilt is not None

    @settings(max_examples=150, deadline=None)
    @given(TEXT, st.booleans())  # one after another by one tokenizer, which remembers words
    def agree(text: str, special: bool) -> None:
        found = unbuilt.read(text, special)
        assert found is not None
        assert found == (raw if special else plain).encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, special) == found

    agree()
    assert tokenizer._unbuilt is unbuilt


@pytest.mark.parametrize("pre", PRES)
def test_long_texts(pre: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many words, so that some are forgotten in between, and of long words."""
    monkeypatch.setattr("quickbrown.text.lists._KEPT_WORDS", 50)
    monkeypatch.setattr("quickbrown.text.lists._PLACES", 100)
    tokenizer, raw = fresh(pre), library(listed(pre))
    draw = random.Random(0)
    for _ in range(20):
        words = ["".join(draw.choices("abchelo é漢", k=draw.randint(1, 9))) for _ in range(500)]
        text = " ".join(words) + "<|im_end|>" + "ab" * 90 + " " * 90
        assert tokenizer.encode(text) == raw.encode(text, add_special_tokens=False).ids
    assert tokenizer._unbuilt is not None


@ORDERS
@pytest.mark.parametrize("lazy", [True, False])
def test_the_whole_is_the_librarys(merges: list[str], lazy: bool) -> None:
    metadata = listed("llama-bpe", merges)
    found, expected = tokenizer_from_gguf(metadata, "m.gguf", lazy=lazy).raw, library(metadata)
    assert found.get_vocab() == expected.get_vocab()
    assert json.loads(found.model.__getstate__())["merges"] == json.loads(expected.model.__getstate__())["merges"]


def test_reading_builds_nothing() -> None:
    tokenizer = fresh()
    for _ in range(3):
        ids = tokenizer.encode("hello the<|im_end|>\n" * 40)
        assert tokenizer.decode(ids, skip_special=False) == "hello the<|im_end|>\n" * 40
    assert [tokenizer.special_id(text) for text in ("<|im_end|>", "he", "<usr>")] == [2, None, None]
    shown = [tokenizer.token(i) for i in range(-1, tokenizer.vocab_size + 1)]
    assert tokenizer._unbuilt is not None
    assert shown == [None, *(tokenizer.raw.id_to_token(i) for i in range(tokenizer.raw.get_vocab_size())), None]
    assert tokenizer._unbuilt is None
    assert tokenizer.encode("hello the<|im_end|>\n" * 40) == ids


@pytest.mark.parametrize(
    ("text", "changes"),
    [("ab" * 3000, {}), ("a a", {"added": "Ġ"})],
    ids=["a long word", "an added token that is a byte's letter"],
)
@pytest.mark.parametrize("special", [True, False])
def test_texts_that_need_the_whole(text: str, changes: dict[str, str], special: bool) -> None:
    tokenizer, raw = fresh(**changes), library(listed(**changes))
    assert tokenizer.encode(text, special) == raw.encode(text, add_special_tokens=False).ids
    assert tokenizer._unbuilt is None


@pytest.mark.parametrize("text", [1, None, b"hello", ["hello"]])
def test_what_is_no_text(text: object) -> None:
    with pytest.raises(TypeError, match="a text must be a str"):
        fresh().encode(text)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lone surrogate"):
        fresh().encode("\ud800")


def test_it_is_built_once_by_whoever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = fresh()
    built: list[Lists] = []
    whole = Lists.whole

    def counted(lists: Lists) -> tokenizers.Tokenizer:
        built.append(lists)
        return whole(lists)

    monkeypatch.setattr(Lists, "whole", counted)
    threads = [threading.Thread(target=lambda: tokenizer.raw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_many_threads_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickbrown.text.lists._KEPT_WORDS", 5)
    tokenizer, raw = fresh(), library(listed())
    texts = ["".join(random.Random(i).choices("abchelo ", k=60)) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(tokenizer.encode, texts))
    assert found == [raw.encode(text, add_special_tokens=False).ids for text in texts]


def test_an_unbuilt_one_can_be_pickled() -> None:
    tokenizer = pickle.loads(pickle.dumps(fresh()))
    assert tokenizer.encode("hello") == fresh().encode("hello")


def test_words_are_found_among_tokens() -> None:
    """Of every size around the steps in which they are compared, and none that only begins or ends like one."""
    texts = [("ab漢\0" * 20)[:size] for size in range(1, 40)]
    index = Index(Strings.of(texts))
    assert index.find(Strings.of(texts[::-1])).tolist() == [*range(len(texts))][::-1]
    assert index.find(Strings.of(["", *("x" + text for text in texts), *(text + "x" for text in texts)])).max() == -1
    assert index.find(Strings.of([])).tolist() == []


def test_two_tokens_of_one_hash_are_refused() -> None:
    """The second 8 bytes undo what the first did."""

    def first(eight: bytes) -> int:
        mixed = (16 ^ int.from_bytes(eight, "little")) * 0x9E3779B97F4A7C15 % 2**64
        return mixed ^ mixed >> 29

    base = first(b"aaaaaaaa") ^ int.from_bytes(b"AAAAAAAA", "little")
    numbers = (b"%08d" % i for i in range(10**6))
    one = next(n for n in numbers if max(rest := (first(n) ^ base).to_bytes(8, "little")) < 128 and min(rest) > 0)
    other = one + (first(one) ^ base).to_bytes(8, "little")
    with pytest.raises(ValueError, match="two tokens of one hash"):
        Index(Strings.of(["aaaaaaaaAAAAAAAA", "b", other.decode()]))


@pytest.mark.parametrize(
    "texts",
    [
        ["a"],
        ["ab", "é", "漢字", "x" * 255],
        ["a", "x" * 256, "b"],
        ["x" * 1000, "b"],
        ["", "a", "", ""],
        ["\0"],
        ["\0a", "b" * 256 * 7],
        ["a\0", "\0\0b", "a\0b"],
        ["a\0\0\0\0\0\0\0\0b", "c"],
        ["\x01\0\0\0\0\0\0\0z", "c"],
        ["a", "b" * 40] * 50,
        ["a"] * 1000,
    ],
)
def test_lists_of_texts_are_read_as_they_were_written(texts: list[str], tmp_path: Path) -> None:
    metadata, tensors = tiny_llama(num_hidden_layers=1)
    for at, listed in enumerate(({"texts": texts} | metadata, metadata | {"texts": texts})):
        source = GgufSource(write_gguf(tmp_path / f"{at}.gguf", listed, tensors))
        read = source.metadata["texts"]
        assert isinstance(read, Strings)
        assert (list(read), read[1:], read[-1], len(read)) == (texts, texts[1:], texts[-1], len(texts))


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("merge", ["h q", "zz h", " h", "he", "h e l", "h e\0", "\0 h"])
def test_bad_merges_are_found_at_once(lazy: bool, merge: str) -> None:
    metadata = as_read(tiny_llama()[0] | {"tokenizer.ggml.merges": ["h e", merge, "l l"]})
    with pytest.raises(BadFile, match="merge 1"):
        tokenizer_from_gguf(metadata, "m.gguf", lazy=lazy)
