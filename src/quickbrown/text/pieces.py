"""Text as it is written, token by token."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence, Set

from quickbrown.text.tokenizer import Tokenizer


class Pieces:
    """Tokens to the text that they complete.

    A character is given out once all of its bytes are there, at once and not at the next space. Text that may be the
    beginning of a stop string is held back until it is known. The pieces joined are `tokenizer.decode` of all tokens,
    cut before the stop string that was complete first (the longest, where several end together), however the text was
    divided into tokens.

    stop          the stop strings
    skip_special  leave special tokens out; False gives their text, as <|im_end|>
    shown         special tokens whose text is given all the same
    opening       the tokens begin a text, and do not go on from one: a blank that the vocabulary puts before the first
                  word (`Tokenizer.leading_blank`) is left out
    stopped       the stop string that ended the text, or None
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        skip_special: bool = True,
        shown: Set[int] = frozenset(),
        opening: bool = False,
    ) -> None:
        self.stopped: str | None = None
        self._bytes_of = tokenizer.token_bytes
        self._skipped = tokenizer.special_ids - shown if skip_special else frozenset()
        self._blank = opening and tokenizer.leading_blank  # whether one is still to be left out
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = [_Stop(text) for text in sorted(stop, key=len, reverse=True)]
        self._held = ""

    def push(self, tokens: Iterable[int]) -> str:
        """The text that these tokens complete; nothing after a stop. Raises ValueError for an id out of range."""
        text = self._decoder.decode(b"".join(self._bytes_of(i) for i in tokens if i not in self._skipped))
        if self._blank and text:
            self._blank = False
            text = text.removeprefix(" ")
        return self._cut(text)

    @property
    def pending(self) -> bool:
        """Whether a stop string may still take back something of the tokens so far."""
        return bool(self._stops) and bool(self._held or self._decoder.getstate()[0])

    def finish(self) -> str:
        """The text that was held back; bytes of a character that was never completed become U+FFFD."""
        text = self._cut(self._decoder.decode(b"", True)) + self._held
        self._held = ""
        return text

    def _cut(self, text: str) -> str:
        if self.stopped is not None:
            return ""
        if not self._stops:
            return text
        begin = len(self._held)
        text = self._held + text
        for at in range(begin, len(text)):
            for stop in self._stops:
                if stop.advance(text[at]) and self.stopped is None:
                    self.stopped = stop.text
            if self.stopped is not None:
                self._held = ""
                return text[: at + 1 - len(self.stopped)]
        keep = len(text) - max(stop.matched for stop in self._stops)
        self._held = text[keep:]
        return text[:keep]


class _Stop:
    """A stop string, and how many of its characters the text ends with (Knuth, Morris & Pratt 1977)."""

    def __init__(self, text: str) -> None:
        if not text:
            raise ValueError("a stop string must not be empty")
        self.text = text
        self.matched = 0
        self._shorter = [0]  # [n]: the longest proper beginning of text[:n + 1] that also ends it
        for at in range(1, len(text)):
            n = self._shorter[-1]
            while n and text[n] != text[at]:
                n = self._shorter[n - 1]
            self._shorter.append(n + (text[n] == text[at]))

    def advance(self, letter: str) -> bool:
        """Take the next character; whether the stop string is now complete."""
        n = self.matched
        while n and self.text[n] != letter:
            n = self._shorter[n - 1]
        self.matched = n + (self.text[n] == letter)
        return self.matched == len(self.text)
