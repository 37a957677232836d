"""What a model thinks and what it says, told apart by the marks that it writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from quickbrown.cli.chat.source import Kind, Piece


@dataclass(frozen=True)
class Marks:
    """The texts between which a model thinks; with no `close` there is no thought."""

    open: str
    close: str

    @property
    def tokens(self) -> list[str]:
        """Those parts of the marks that vocabularies may have as special tokens."""
        return re.findall(r"<\|?[\w:/]+\|?>|\[/?[A-Z]+\]", self.open + self.close)


_HARMONY = "<|channel|>final<|message|>"
KINDS = (
    Marks("<think>", "</think>"),  # Qwen3, DeepSeek-R1, GLM, SmolLM3, Granite and most others
    Marks("<thought>", "</thought>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("[THINK]", "[/THINK]"),  # Mistral's
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere's
    Marks("<|channel|>analysis<|message|>", f"<|end|><|start|>assistant{_HARMONY}"),  # gpt-oss
    Marks(_HARMONY, ""),
)


class Splitter:
    """Tells thoughts from words as they come. A thought comes first: marks later in an answer are what it is about.

    marks   of the thought that it began with; given, the thought has begun already, as templates may begin it
    thinks  whether a thought may begin; not where words are gone on with
    """

    def __init__(self, marks: Marks | None = None, thinks: bool = True) -> None:
        self.marks = marks
        self._held = ""
        self._kind = Kind.SAID if marks is None else Kind.THOUGHT
        self._begun = marks is not None or not thinks  # whether it is known if there is a thought

    def feed(self, text: str) -> Iterator[Piece]:
        self._held += text
        if not self._begun and not self._begin():
            return
        if self._kind is Kind.THOUGHT:
            assert self.marks is not None
            thought, close, rest = self._held.partition(self.marks.close)
            if not close:
                sure = len(self._held) - begun(self._held, self.marks.close)
                thought, rest = self._held[:sure], self._held[sure:]
            if thought:
                yield Piece(Kind.THOUGHT, thought)
            self._held = rest
            if not close:
                return
            self._kind = Kind.SAID
        if self._held:
            yield Piece(Kind.SAID, self._held)
            self._held = ""

    def finish(self) -> Iterator[Piece]:
        """What was held back because a mark might have begun there."""
        if self._held:
            yield Piece(self._kind, self._held)
            self._held = ""

    def _begin(self) -> bool:
        """Whether it is known if the answer begins with a thought."""
        start = self._held.lstrip()
        if any(marks.open.startswith(start) for marks in KINDS) and start not in {marks.open for marks in KINDS}:
            return False
        self._begun = True
        self.marks = next((marks for marks in KINDS if start.startswith(marks.open)), None)
        if self.marks is not None:
            self._held = start[len(self.marks.open) :]
            self._kind = Kind.THOUGHT if self.marks.close else Kind.SAID
        return True


def begun(text: str, mark: str) -> int:
    """How many characters at the end of a text are the beginning of a mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


def opened(prompt: str) -> Marks | None:
    """The marks of the thought that a prompt ends in the beginning of."""
    end = prompt.rstrip()
    return next((marks for marks in KINDS if marks.close and end.endswith(marks.open)), None)
