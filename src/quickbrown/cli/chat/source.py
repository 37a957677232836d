"""Who answers in a conversation: what a model that is loaded here and a server have in common."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from quickbrown.cli.chat.conversation import Message


class Kind(enum.Enum):
    """What a piece of an answer is."""

    THOUGHT = "thought"
    SAID = "said"
    END = "end"  # the last one, without a text


class Piece(NamedTuple):
    kind: Kind
    text: str = ""


Out = Callable[[Piece], None]  # called on any thread


@dataclass(frozen=True)
class Outcome:
    """How an answer ended.

    reason      stop, length, time, cancelled or error
    used        tokens of the conversation with the answer, where that is known
    written     tokens of the answer, where that is known
    error       what went wrong, a sentence
    """

    reason: str
    used: int | None = None
    written: int | None = None
    error: str | None = None


class Answer(Protocol):
    """An answer that is being written."""

    def close(self) -> None:
        """Nobody wants more of it."""

    def outcome(self) -> Outcome:
        """How it ended; asked for once the last piece has come, or it was closed."""


class Source(Protocol):
    """Who answers.

    name  of the model
    """

    name: str

    @property
    def context(self) -> int | None:
        """The most tokens that a conversation can have, where that is known."""

    def load(self) -> None:
        """Get ready; takes long, and is called on a thread of its own, once, before anything but `check`."""

    def check(self, options: dict[str, Any]) -> None:
        """Raises ValueError or TypeError, with a sentence, for options that it does not honour."""

    def answer(self, messages: Sequence[Message], options: dict[str, Any], goes_on: bool, out: Out) -> Answer:
        """Begin to write the next message, or to go on with the last one; its pieces go to `out`.

        Raises ValueError or RuntimeError, with a sentence, for what it cannot do.
        """

    def count(self, messages: Sequence[Message]) -> int | None:
        """The tokens of a conversation, if it can tell."""

    def length(self, text: str) -> int | None:
        """The tokens of a text, if it can tell."""

    def names(self) -> Sequence[str]:
        """Names of models that it knows."""

    def other(self, name: str) -> Source:
        """Another model in the place of this one, not loaded yet."""

    def close(self) -> None:
        """Let go of what it holds."""
