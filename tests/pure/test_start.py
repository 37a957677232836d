"""From process start to the first token: what is not loaded, and what is not built, before it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_writer import tiny_llama, write_gguf, write_tiny_llama
from quickbrown.text.gguf_vocab import SHORT, Lists, tokenizer_from_gguf
from quickbrown.text.tokenizer import Tokenizer
from quickbrown.weights.gguf import GgufSource
from quickbrown.weights.source import BadFile

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


MERGES = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "Ġ Ġ", "hel lo", "a b", "b c", "ab c", "a bc", "1 2", "Ã ©"]
ODD_ORDER = ["Ġ Ġ", "b c", "a bc", "a b", "ab c", "h e", "l l", "he ll", "hell o"]
TEXT = st.lists(
    st.one_of(
        st.sampled_from(["hello", "abc", "the", " ", "\n", "12", "é", "e\u0301", "<|im_start|>", "<|im_e", "漢", "'s"]),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
).map("".join)


def fresh(pre: str = "smollm", merges: list[str] = MERGES, without: str = "") -> Tokenizer:
    """A tokenizer that has read nothing yet; `without` some of the bytes' letters."""
    metadata, _ = tiny_llama()
    made = list(dict.fromkeys(merge.replace(" ", "") for merge in merges))
    listed = list(zip(metadata["tokenizer.ggml.tokens"][:259], metadata["tokenizer.ggml.token_type"], strict=False))
    kept = [(token, kind) for token, kind in listed if token not in without]
    tokens = [token for token, _ in kept] + [token for token in made if token not in {"hel"}]
    changed = {
        "tokens": tokens,
        "token_type": np.array([kind for _, kind in kept] + [1] * (len(tokens) - len(kept))),
        "merges": [merge for merge in merges if set(merge.split(" ")) <= set(tokens)],
        "pre": pre,
    }
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in changed.items()}
    return tokenizer_from_gguf(metadata, "m.gguf", lazy=True)


@pytest.mark.parametrize("merges", [MERGES, ODD_ORDER], ids=["two ways to one token", "out of order"])
@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_the_first_text_is_read_as_every_other(pre: str, merges: list[str]) -> None:
    tokenizer = fresh(pre, merges)
    unbuilt = tokenizer._unbuilt
    assert isinstance(unbuilt, Lists)
    whole = unbuilt.whole()

    @settings(max_examples=60, deadline=None)
    @given(TEXT)
    def same(text: str) -> None:
        small = unbuilt.around(text)
        if small is not None:
            found, expected = (raw.encode(text, add_special_tokens=False) for raw in (small, whole))
            assert (found.ids, found.offsets) == (expected.ids, expected.offsets)

    same()
    assert unbuilt.around("hello the abc <|im_end|>") is not None


def test_one_short_text_builds_nothing() -> None:
    tokenizer = fresh()
    ids = tokenizer.encode("hello the<|im_end|>\n")
    assert tokenizer.decode(ids, skip_special=False) == "hello the<|im_end|>\n"
    assert [tokenizer.special_id(text) for text in ("<|im_end|>", "he")] == [2, None]
    shown = [tokenizer.token(i) for i in range(-1, tokenizer.vocab_size + 1)]
    assert tokenizer._unbuilt is not None
    assert shown == [None, *(tokenizer.raw.id_to_token(i) for i in range(tokenizer.raw.get_vocab_size())), None]
    tokenizer = fresh()
    tokenizer.encode("hello")
    assert tokenizer._unbuilt is not None
    assert tokenizer.encode("hello the<|im_end|>\n") == ids
    assert tokenizer._unbuilt is None


@pytest.mark.parametrize(
    ("text", "changes"),
    [("a" * (SHORT + 1), {}), ("e\u0301", {"pre": "qwen2"}), ("abxc", {"without": "x"})],
    ids=["long", "normalized", "a letter that is no token"],
)
def test_texts_that_need_the_whole(text: str, changes: dict[str, str]) -> None:
    pre, without = changes.get("pre", "smollm"), changes.get("without", "")
    tokenizer = fresh(pre, without=without)
    expected = fresh(pre, without=without).raw.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text) == expected
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
    threads = [threading.Thread(target=tokenizer.encode, args=("hello",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_an_unbuilt_one_can_be_pickled() -> None:
    tokenizer = pickle.loads(pickle.dumps(fresh()))
    assert tokenizer.encode("hello") == fresh().encode("hello")


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
        assert source.metadata["texts"] == texts


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("merge", ["h q", "zz h", " h", "he", "h e l", "h e\0", "\0 h"])
def test_bad_merges_are_found_at_once(lazy: bool, merge: str) -> None:
    metadata, _ = tiny_llama()
    metadata["tokenizer.ggml.merges"] = ["h e", merge, "l l"]
    metadata["tokenizer.ggml.token_type"] = np.array(metadata["tokenizer.ggml.token_type"])
    with pytest.raises(BadFile, match="merge"):
        tokenizer_from_gguf(metadata, "m.gguf", lazy=lazy)
