"""Strings to token ids and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import tokenizers


def _alphabet() -> dict[str, int]:
    """GPT-2's letter for each byte, turned round: printable ones stand for themselves, the rest follow from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


BLANK = "\u2581"  # what stands for a blank in vocabularies of the SentencePiece kind
BYTE_OF = _alphabet()
LETTERS = {byte: letter for letter, byte in BYTE_OF.items()}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


_BUILDING = Lock()


class Unbuilt(Protocol):
    """A vocabulary that was found good, and of which the library's own form has not been made yet."""

    def token(self, token: int) -> str | None:
        """The letters of one of its tokens; None for an id that it does not know."""

    def whole(self) -> tokenizers.Tokenizer:
        """All of it."""

    def read(self, text: str, special: bool) -> list[int] | None:
        """What the whole makes of a text (see `Tokenizer.encode`); None where that cannot be had without it, or is not
        had sooner. Raises as the library does."""


class Tokenizer:
    """A vocabulary, byte-level (as of GPT-2, Llama 3, Qwen) or of the SentencePiece kind (as of Llama 2, Mistral), and
    what a model says about its ends.

    raw            the `tokenizers.Tokenizer` behind it, which neither truncates nor pads; where it was given `unbuilt`,
                   and of `raw` only the added tokens count, it is made when somebody asks for it, or a text comes that
                   is not read without it
    vocab_size     ids are 0 to vocab_size - 1; those that the vocabulary does not know have no text
    eos_ids        tokens that end a text; chat models end a turn with another one than a document
    bos_id         the token that begins a text, if the model has one
    add_bos        whether the model was trained with it
    special_ids    tokens that mark structure and are no text
    leading_blank  whether texts are written with a blank before their first word, which the model's own decoder drops

    Raises ValueError for ids out of range and for a vocabulary of another kind.
    """

    leading_blank = False

    def __init__(
        self,
        raw: tokenizers.Tokenizer,
        *,
        eos_ids: Iterable[int] = (),
        bos_id: int | None = None,
        add_bos: bool = False,
        vocab_size: int = 0,
        unbuilt: Unbuilt | None = None,
    ) -> None:
        self._raw = raw
        self._unbuilt = unbuilt
        added = raw.get_added_tokens_decoder()
        known = 0 if unbuilt is not None else raw.get_vocab_size(with_added_tokens=True)
        self.vocab_size = max(vocab_size, known, *(i + 1 for i in added), 0)
        self.eos_ids = frozenset(eos_ids)
        self.bos_id = bos_id
        self.add_bos = add_bos
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._special = {token.content: i for i, token in added.items() if token.special}
        self._added = {i: token.content.encode() for i, token in added.items()}
        self._bytes: dict[int, bytes] = {}
        self._plain: tokenizers.Tokenizer | None = None
        self._spelling: dict[bytes, int] = {}
        self._read, self.leading_blank = _reading(raw)
        for i in {*self.eos_ids, *(() if bos_id is None else (bos_id,))}:
            self._check(i)

    @property
    def raw(self) -> tokenizers.Tokenizer:
        if self._unbuilt is not None:
            with _BUILDING:
                if self._unbuilt is not None:
                    self._raw = self._unbuilt.whole()
                    self._unbuilt = None
        return self._raw

    def encode(self, text: str, special: bool = True, *, bos: bool = False) -> list[int]:
        """The token ids of a text.

        special  read the text of special tokens, such as <|im_end|>, as those tokens; False reads it as plain text,
                 which is how the words of a stranger are read
        bos      begin with `bos_id`, where the model was trained with it (`add_bos`)

        Raises ValueError for a text that is no Unicode (lone surrogates), or that the vocabulary cannot write.
        """
        try:
            unbuilt = self._unbuilt
            ids = None if unbuilt is None else unbuilt.read(text, special)
            if ids is None:
                raw = self.raw if special else self._without_special()
                ids = raw.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            if not isinstance(text, str):
                raise TypeError(f"a text must be a str, not {type(text).__name__}") from None
            raise ValueError("the text holds a lone surrogate, which no Unicode text does") from None
        except BaseException as error:  # as where there is no token for what is unknown
            if not of_library(error):
                raise
            raise ValueError(f"the vocabulary cannot write the text: {error}") from None
        if bos and self.add_bos and self.bos_id is not None:
            ids.insert(0, self.bos_id)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of tokens that go on from others; bytes that are no UTF-8 become U+FFFD.

        Where `leading_blank` is true, a first word keeps its blank. Raises ValueError for an id out of range.
        """
        skipped = self.special_ids if skip_special else frozenset()
        return b"".join(self.token_bytes(i) for i in ids if i not in skipped).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token's text, perhaps a part of a character. Raises ValueError for an id out of range."""
        found = self._bytes.get(token)
        if found is None:
            self._check(token)
            found = self._added.get(token)
            if found is None:
                text = self.token(token)
                found = b"" if text is None else self._read(text)
            self._bytes[token] = found
        return found

    def token(self, token: int) -> str | None:
        """A token as the vocabulary writes it; None where it does not know the id."""
        unbuilt = self._unbuilt
        text: str | None = self._raw.id_to_token(token) if unbuilt is None else unbuilt.token(token)
        return text

    def special_id(self, text: str) -> int | None:
        """The id that a special token's text, such as <|im_end|>, stands for; None for any other text."""
        return self._special.get(text)

    def spell(self, text: str) -> list[int]:
        """Tokens whose bytes, joined, are those of a text: the longest first, whatever a model would take for it.

        For the rest of a token that was cut, in the middle of a text. Raises ValueError where the vocabulary has none.
        """
        if not self._spelling:
            for i in sorted(set(range(self.vocab_size)) - self._added.keys(), reverse=True):
                self._spelling[self.token_bytes(i)] = i
        data, ids = text.encode(), []
        while data:
            size = next((n for n in range(min(len(data), 64), 0, -1) if data[:n] in self._spelling), 0)
            if not size:
                raise ValueError(f"the vocabulary cannot spell {text!r}")
            ids.append(self._spelling[data[:size]])
            data = data[size:]
        return ids

    def _check(self, token: int) -> None:
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token id {token} is out of range: the vocabulary has {self.vocab_size} tokens")

    def _without_special(self) -> tokenizers.Tokenizer:
        """The same vocabulary, to which special tokens are plain text."""
        if self._plain is None:
            self._plain = without_special(self.raw)
        return self._plain


def of_library(error: BaseException) -> bool:
    """Whether the tokenizers library raised this: it raises plain Exception, and its panics are no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def without_special(raw: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same vocabulary, to which special tokens are plain text, and which puts none before or after a text."""
    from secrets import token_hex

    from tokenizers import models

    special = {i for i, token in raw.get_added_tokens_decoder().items() if token.special}
    if not isinstance(raw.model, models.Unigram):
        plain = without_post_processor(raw)
    else:  # this kind finds every token of its list in a text, so those go under names that no text has
        kept: dict[str, Any] = json.loads(raw.model.__getstate__())
        listed = [
            (f"{token_hex(16)} {i}" if i in special else text, score) for i, (text, score) in enumerate(kept["vocab"])
        ]
        model = models.Unigram(listed, kept["unk_id"], bool(kept.get("byte_fallback")))
        plain = without_post_processor(raw, model, {i for i in special if i < len(listed)})
    plain.encode_special_tokens = True
    return plain


def without_post_processor(
    raw: tokenizers.Tokenizer, model: tokenizers.models.Model | None = None, but: Container[int] = ()
) -> tokenizers.Tokenizer:
    """The same vocabulary (its memory is shared), but no tokens are put before or after a text.

    model  another of as many tokens, in its place;  `but` these are no added tokens then
    """
    plain = type(raw)(raw.model if model is None else model)
    if raw.normalizer is not None:
        plain.normalizer = raw.normalizer
    if raw.pre_tokenizer is not None:
        plain.pre_tokenizer = raw.pre_tokenizer
    added = sorted(raw.get_added_tokens_decoder().items())
    plain.add_tokens([token for i, token in added if i not in but])  # so ids stay the same
    return plain


def _reading(raw: tokenizers.Tokenizer) -> tuple[Callable[[str], bytes], bool]:
    """What turns a token of the vocabulary into bytes, and whether the decoder drops a blank at the very start."""
    steps = _steps(raw.decoder)
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return _byte_level, False
    if "Metaspace" in kinds:
        space = next(step for step in steps if step["type"] == "Metaspace")
        drops = space.get("prepend_scheme", "always") != "never"
        return _pieces([(space["replacement"], " ")], "ByteFallback" in kinds), drops
    if not kinds - {"Replace", "ByteFallback", "Fuse", "Strip"} and "Replace" in kinds:
        replaced = [(step["pattern"].get("String"), step["content"]) for step in steps if step["type"] == "Replace"]
        drops = any(step["type"] == "Strip" and step["content"] == " " and step["start"] for step in steps)
        if all(old for old, _ in replaced):
            return _pieces(replaced, "ByteFallback" in kinds), drops
    named = ", ".join(step["type"] for step in steps) or "none"
    raise ValueError(f"the vocabulary is decoded in a way that is not supported ({named}); ByteLevel and Metaspace are")


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """The steps of a decoder, as tokenizer.json lists them."""
    if decoder is None:
        return []
    described: dict[str, Any] = json.loads(decoder.__getstate__())
    return described["decoders"] if described["type"] == "Sequence" else [described]


def _byte_level(token: str) -> bytes:
    try:
        return bytes([BYTE_OF[letter] for letter in token])
    except KeyError:
        return token.encode()


def _pieces(replaced: list[tuple[str, str]], byte_tokens: bool) -> Callable[[str], bytes]:
    """Reads tokens of the SentencePiece kind: ▁ is a blank, and <0xE2> is a byte where a character needs several."""

    def read(token: str) -> bytes:
        if byte_tokens and (byte := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for old, new in replaced:
            token = token.replace(old, new)
        return token.encode()

    return read
