"""Reads vocabularies of tiktoken, a line for each token in base64 and its rank, and Mistral's tekken.json of the same.

Those do not list merges: two tokens that make one are merged, those first that make one of the lowest rank. How a text
is cut into words is in code that comes with a model, and so is known here by the file's name. Files are not trusted.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from quickbrown.text.lists import LetterLists, merges_by_score
from quickbrown.text.tokenizer import LETTERS
from quickbrown.text.words import BYTES, WORDS, Words
from quickbrown.weights.strings import Index, Strings

if TYPE_CHECKING:
    import tokenizers

PATTERNS = {"tiktoken.model": "kimi-k2", "qwen.tiktoken": "qwen2", "hy.tiktoken": "hunyuan"}  # file -> way to cut
MOST_TOKENS = 1 << 22
_LETTERS = str.maketrans({chr(byte): letter for byte, letter in LETTERS.items()})
_LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
           "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
           "<|eot_id|>", "<|python_tag|>")  # fmt: skip


def is_tiktoken(data: bytes) -> bool:
    """Whether a file's first line is a token and its rank."""
    first = data[: data.find(b"\n")].split() if b"\n" in data[:1024] else []
    return len(first) == 2 and first[1].isdigit() and _token(first[0]) is not None


def read_tiktoken(data: bytes, way: str, listed: Mapping[int, Any]) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """The library's form of a file's vocabulary, and its special tokens by their names.

    way     how it cuts a text into words: a name of text/words.py
    listed  the added tokens that its settings list, by their ids

    Raises ValueError, with what is wrong, for a file that cannot be read.
    """
    tokens: list[bytes] = []
    for at, line in enumerate(data.splitlines()):
        if not line:
            continue
        parts = line.split()
        token = _token(parts[0]) if len(parts) == 2 else None
        if token is None or parts[1] != str(len(tokens)).encode():
            raise ValueError(f"line {at + 1} is not a token and the rank {len(tokens)}")
        tokens.append(token)
        if len(tokens) > MOST_TOKENS:
            raise ValueError(f"has more than {MOST_TOKENS:,} tokens")
    special: dict[int, str] = {}
    count = len(tokens)
    if way == "llama3":
        # Llama 3 has 256 of them, those of 3.1 where their names differ; the rest are reserved.
        names = [*_LLAMA3, *(f"<|reserved_special_token_{i}|>" for i in range(2, 247))]
        special = dict(enumerate(names, count))
        return _made(tokens, WORDS[way], special), {"bos_token": names[0], "eos_token": names[1]}
    last = max(listed, default=-1)
    if last - count >= 1 << 16:
        raise ValueError(f"has {count} tokens, and its settings list one of id {last}")
    for i in range(count, last + 1):
        token_of = listed.get(i)
        text = token_of.get("content") if isinstance(token_of, dict) else token_of
        special[i] = str(text) if text else f"<|reserved_token_{i}|>"
    return _made(tokens, WORDS[way], special), {}


def read_tekken(data: bytes) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """The library's form of a tekken.json, and its special tokens by their names.

    Its special tokens have the first ids, and its other tokens those behind them. Raises ValueError.
    """
    try:
        said = json.loads(data)
        config, listed = said["config"], said["vocab"]
        pattern, count = config["pattern"], config["default_num_special_tokens"]
        most = config["default_vocab_size"]
        special = {token["rank"]: token["token_str"] for token in said["special_tokens"]}
        encoded = [token["token_bytes"].encode() for token in listed]
        ranks = [token["rank"] for token in listed]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"is no tekken.json that can be read ({type(error).__name__}: {error})".rstrip(".")) from None
    numbers = (count, most, *special)
    if any(type(n) is not int or not 0 <= n <= MOST_TOKENS for n in numbers) or count > most:
        raise ValueError("is damaged: its counts and ids must be whole numbers that fit each other")
    if not isinstance(pattern, str) or not all(isinstance(text, str) and text for text in special.values()):
        raise ValueError("is damaged: its pattern and tokens must be texts")
    if ranks != list(range(len(ranks))):
        raise ValueError("is damaged: its tokens are not in the order of their ranks")
    tokens = [_token(text) for text in encoded[: most - count]]
    if None in tokens:
        raise ValueError(f"token {tokens.index(None)} is no base64")
    names = {i: special.get(i, f"<SPECIAL_{i}>") for i in range(count)}
    raw = _made([token for token in tokens if token], Words((pattern, BYTES)), names, first=count)
    return raw, {f"{name}_token": text for name, text in (("bos", "<s>"), ("eos", "</s>")) if text in names.values()}


def _token(encoded: bytes) -> bytes | None:
    try:
        return binascii.a2b_base64(encoded, strict_mode=True) or None
    except ValueError:
        return None


def _made(tokens: list[bytes], words: Words, special: dict[int, str], first: int = 0) -> tokenizers.Tokenizer:
    """The library's form of tokens by rank, of which the lowest has the id `first`."""
    letters = [token.decode("latin-1").translate(_LETTERS) for token in tokens]
    if not letters:
        raise ValueError("has no tokens")
    texts = [*special.values(), *letters] if first else [*letters, *special.values()]
    try:
        index = Index(Strings.of(texts))
    except (ValueError, UnicodeEncodeError) as error:
        raise ValueError(f"its vocabulary {error}") from None
    normal = np.zeros(len(texts), np.bool_)
    normal[first : first + len(letters)] = True
    merges = merges_by_score(index, normal, normal, -np.arange(len(texts), dtype=np.float64))
    try:
        return LetterLists(index, merges, True, partial(words.dressed, {True: list(special.values())}), {}).whole()
    except Exception as error:  # of the library, for a pattern that it cannot read
        raise ValueError(f"its vocabulary cannot be used: {str(error).rstrip('.')}") from None
