"""Reads `tokenizer.model` files of SentencePiece: one protocol buffer of its `sentencepiece_model.proto`.

The file is not trusted: every length is checked against what holds it, and a message is read two levels deep and no
deeper.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from quickbrown.text.sentences import NORMAL, UNKNOWN, USER_DEFINED, Sentences
from quickbrown.text.tokenizer import BLANK
from quickbrown.weights.strings import Index, Strings

if TYPE_CHECKING:
    import tokenizers

MOST_PIECES = 1 << 22

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # how a field's value is written
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of the file
_TEXT, _SCORE, _KIND = 1, 2, 3  # of a piece
_MODEL_TYPE, _SUFFIX, _BYTE_FALLBACK, _UNKNOWN_ID, _BOS_ID, _EOS_ID = 3, 24, 35, 40, 41, 42  # of the trainer's settings
_CHARSMAP, _PREFIX, _SQUEEZE, _ESCAPE = 2, 3, 4, 5  # of the normalizer's
_UNIGRAM, _MERGES = 1, 2
_TYPES = {3: "of whole words", 4: "of characters"}


class Model(NamedTuple):
    """What a file says: a vocabulary, and the ids of the tokens that begin and end a text; None for none."""

    sentences: Sentences
    bos: int | None
    eos: int | None


def read_model(data: bytes, *, once: bool = False) -> Model:
    """The vocabulary in a file's bytes; `once` is that of `Sentences`.

    Raises ValueError, with what is wrong, for one that cannot be read.
    """
    texts: list[bytes] = []
    scores: list[float] = []
    kinds: list[int] = []
    trainer, normalizer = b"", b""
    for number, value in _fields(data):
        if number == _PIECE and isinstance(value, bytes):
            text, score, kind = _piece(value, len(texts))
            if kind == USER_DEFINED:  # it is found in texts before blanks are replaced
                text = text.replace(BLANK.encode(), b" ")
            texts.append(text)
            scores.append(score)
            kinds.append(kind)
            if len(texts) > MOST_PIECES:
                raise ValueError(f"has more than {MOST_PIECES:,} pieces")
        elif number == _TRAINER and isinstance(value, bytes):
            trainer += value
        elif number == _NORMALIZER and isinstance(value, bytes):
            normalizer += value
    trained, normal = dict(_fields(trainer)), dict(_fields(normalizer))
    kind = _number(trained, _MODEL_TYPE, _UNIGRAM)
    if kind not in (_UNIGRAM, _MERGES):
        raise ValueError(f"is a vocabulary {_TYPES.get(kind, f'of unknown type {kind}')}, which is not supported")
    if _number(trained, _SUFFIX, 0) or not _number(normal, _ESCAPE, 1):
        raise ValueError("writes a blank behind words, or as itself, which is not supported")
    sizes = np.array([len(text) for text in texts], np.int64)
    index = Index(Strings(b"".join([*texts, bytes(8)]), np.cumsum(sizes) - sizes, sizes))
    charsmap = normal.get(_CHARSMAP, b"")
    sentences = Sentences(
        index,
        kinds=np.array(kinds),
        unknown=_unknown(kinds),
        scores=np.array(scores, np.float32),
        unigram=kind == _UNIGRAM,
        prefix=bool(_number(normal, _PREFIX, 1)),
        once=once,
        squeeze=bool(_number(normal, _SQUEEZE, 1)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
    )
    named = (_number(trained, _BOS_ID, 1), _number(trained, _EOS_ID, 2))
    bos, eos = (i if 0 <= i < len(texts) else None for i in named)
    return Model(sentences, bos, eos)


def sentence_tokenizer(data: bytes, *, once: bool = False) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """The library's form of a file's vocabulary, and its special tokens by their names. Raises ValueError."""
    model = read_model(data, once=once)
    raw, _ = model.sentences.built(False)
    tokens = model.sentences.index.tokens
    ids = {"bos_token": model.bos, "eos_token": model.eos, "unk_token": model.sentences.unknown}
    return raw, {name: tokens[i] for name, i in ids.items() if i is not None}


def _unknown(kinds: list[int]) -> int | None:
    return kinds.index(UNKNOWN) if UNKNOWN in kinds else None


def _piece(data: bytes, at: int) -> tuple[bytes, float, int]:
    fields = dict(_fields(data))
    text, score, kind = fields.get(_TEXT, b""), fields.get(_SCORE, b"\0\0\0\0"), _number(fields, _KIND, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
        raise ValueError(f"piece {at} is damaged")
    try:
        text.decode()
    except UnicodeDecodeError:
        raise ValueError(f"piece {at} is not valid UTF-8") from None
    value: float = struct.unpack("<f", score)[0]
    if not np.isfinite(value):
        raise ValueError(f"the score of piece {at} is no number")
    return text, value, kind


def _number(fields: dict[int, int | bytes], number: int, default: int) -> int:
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} of its settings is damaged")
    return value if value < 1 << 63 else value - (1 << 64)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, one after the other: their numbers, and what they hold."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FOUR, _EIGHT):
            size = 4 if kind == _FOUR else 8
        else:
            raise ValueError(f"is damaged: it has a field written in way {kind}")
        if size > end - at:
            raise ValueError("is damaged: a field reaches beyond what holds it")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, seven bits a byte, and the position behind it."""
    value = shift = 0
    for byte in data[at : at + 10]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise ValueError("is damaged: a number does not end")
