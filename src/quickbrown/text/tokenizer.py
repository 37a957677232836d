"""Strings to token ids and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers


def _alphabet() -> dict[str, int]:
    """GPT-2's letter for each byte, turned round: printable ones stand for themselves, the rest follow from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


BYTE_OF = _alphabet()


class Tokenizer:
    """A byte-level vocabulary, and what a model says about its ends.

    raw          the `tokenizers.Tokenizer` behind it
    vocab_size   ids are 0 to vocab_size - 1
    eos_ids      tokens that end a text; chat models end a turn with another one than a document
    bos_id       the token that begins a text, if the model has one
    add_bos      whether the model was trained with it
    special_ids  tokens that mark structure and are no text
    """

    def __init__(
        self,
        raw: tokenizers.Tokenizer,
        *,
        eos_ids: Iterable[int] = (),
        bos_id: int | None = None,
        add_bos: bool = False,
    ) -> None:
        self.raw = raw
        self.vocab_size = int(raw.get_vocab_size(with_added_tokens=True))
        self.eos_ids = frozenset(eos_ids)
        self.bos_id = bos_id
        self.add_bos = add_bos
        added = raw.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._added = {i: token.content.encode() for i, token in added.items()}
        self._bytes: dict[int, bytes] = {}
        self._plain: tokenizers.Tokenizer | None = None
        for i in {*self.eos_ids, *(() if bos_id is None else (bos_id,))}:
            self._check(i)

    def encode(self, text: str, special: bool = True, *, bos: bool = False) -> list[int]:
        """The token ids of a text.

        special  read the text of special tokens, such as <|im_end|>, as those tokens; False reads it as plain text,
                 which is how the words of a stranger are read
        bos      begin with `bos_id`, where the model was trained with it (`add_bos`)

        Raises ValueError for a text that is no Unicode (lone surrogates).
        """
        raw = self.raw if special else self._without_special()
        try:
            ids: list[int] = raw.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            if not isinstance(text, str):
                raise TypeError(f"a text must be a str, not {type(text).__name__}") from None
            raise ValueError("the text holds a lone surrogate, which no Unicode text does") from None
        if bos and self.add_bos and self.bos_id is not None:
            ids.insert(0, self.bos_id)
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD. Raises ValueError for an id out of range."""
        skipped = self.special_ids if skip_special else frozenset()
        return b"".join(self.token_bytes(i) for i in ids if i not in skipped).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token's text, perhaps a part of a character. Raises ValueError for an id out of range."""
        found = self._bytes.get(token)
        if found is None:
            self._check(token)
            found = self._added.get(token)
            if found is None:
                text = self.raw.id_to_token(token) or ""
                try:
                    found = bytes([BYTE_OF[letter] for letter in text])
                except KeyError:
                    found = text.encode()
            self._bytes[token] = found
        return found

    def _check(self, token: int) -> None:
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token id {token} is out of range: the vocabulary has {self.vocab_size} tokens")

    def _without_special(self) -> tokenizers.Tokenizer:
        """The same vocabulary, to which special tokens are plain text."""
        if self._plain is None:
            plain = type(self.raw)(self.raw.model)
            if self.raw.normalizer is not None:
                plain.normalizer = self.raw.normalizer
            plain.pre_tokenizer = self.raw.pre_tokenizer
            plain.add_tokens([t for t in self.raw.get_added_tokens_decoder().values() if not t.special])
            self._plain = plain
        return self._plain
