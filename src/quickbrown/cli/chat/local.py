"""A model that is loaded here, as a source of answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quickbrown.cli.chat.conversation import Message
from quickbrown.cli.chat.reasoning import KINDS, Marks, Splitter, opened
from quickbrown.cli.chat.source import Kind, Out, Outcome, Piece
from quickbrown.cli.progress import Bars
from quickbrown.types import FinishReason, SamplingParams, TooLong
from quickbrown.weights import hub

if TYPE_CHECKING:
    from quickbrown.llm import LLM
    from quickbrown.streams import Text


class Local:
    """A model by name or path, which is fetched at once if it is not here, and loaded by `load`.

    settings  how to load it: arguments of LLM
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.settings = dict(settings)
        revision = self.settings.pop("revision", None)
        with Bars() as bars:
            self._path: Path = hub.locate(name, revision=revision, progress=bars)
        self._llm: LLM | None = None

    def load(self) -> None:
        from quickbrown import LLM

        self._llm = LLM(self._path, **self.settings)

    @property
    def llm(self) -> LLM:
        assert self._llm is not None, "it has not been loaded"
        return self._llm

    @property
    def context(self) -> int | None:
        return self.llm.context

    def check(self, options: dict[str, Any]) -> None:
        SamplingParams.from_options(dict(options))

    def prompt(self, messages: Sequence[Message], goes_on: bool) -> tuple[str, Marks | None]:
        """The text that the model continues, and the marks of the thought that this begins in.

        What was thought before earlier answers is left out, as chat templates do it; a message that is gone on with is
        written down as the model wrote it.
        """
        plain = [message.plain for message in messages]
        last = messages[-1]
        if not goes_on:
            text = self.llm.written_down(plain)
            return text, opened(text)
        if last.reasoning is None:
            return self.llm.written_down(plain, continue_final_message=True), None
        text = self.llm.written_down(plain[:-1])
        marks = opened(text)
        if marks is None:
            marks = self._marks()
            text += marks.open
        text += last.reasoning
        return (text + marks.close + last.content, None) if last.content else (text, marks)

    def _marks(self) -> Marks:
        """The marks that the model's template speaks of."""
        template = self.llm.template
        assert template is not None
        return next((marks for marks in KINDS if marks.open in template.source), KINDS[0])

    def answer(self, messages: Sequence[Message], options: dict[str, Any], goes_on: bool, out: Out) -> Writing:
        text, marks = self.prompt(messages, goes_on)
        tokens = self.llm.tokenizer.encode(text)
        if len(tokens) >= self.llm.context:
            raise TooLong(
                f"the conversation would have {len(tokens):,} tokens and the context holds {self.llm.context:,}; "
                "shorten the message, take exchanges back with /undo, or begin anew with /clear"
            )
        splitter = Splitter(marks, thinks=not goes_on)

        def pieces(piece: tuple[int, str, bool]) -> None:
            _, text, last = piece
            for one in splitter.feed(text):
                out(one)
            if last:
                for one in splitter.finish():
                    out(one)
                out(Piece(Kind.END))

        [written] = self.llm.write([tokens], None, options, pieces, self._shown())
        return Writing(written)

    def _shown(self) -> frozenset[int]:
        """The special tokens that are parts of marks."""
        tokenizer = self.llm.tokenizer
        shown: set[int] = set()
        for marks in KINDS:
            found = [tokenizer.special_id(token) for token in marks.tokens]
            if None not in found:
                shown.update(token for token in found if token is not None)
        return frozenset(shown - tokenizer.eos_ids)

    def count(self, messages: Sequence[Message]) -> int | None:
        if not messages or self.llm.template is None:
            return 0 if not messages else None
        text = self.llm.template.render([message.plain for message in messages], add_generation_prompt=False)
        return len(self.llm.tokenizer.encode(text))

    def length(self, text: str) -> int | None:
        return len(self.llm.tokenizer.encode(text))

    def names(self) -> Sequence[str]:
        return [model.name for model in hub.listing()]

    def other(self, name: str) -> Local:
        return Local(name, self.settings)

    def close(self) -> None:
        if self._llm is not None:
            self._llm.close()


class Writing:
    """An answer of a model here."""

    def __init__(self, text: Text) -> None:
        self.text = text

    def close(self) -> None:
        self.text.close()

    def outcome(self) -> Outcome:
        done = self.text.completion
        failed = done.finish.reason is FinishReason.ERROR
        return Outcome(
            str(done.finish.reason),
            used=done.prompt_tokens + len(done.tokens),
            written=len(done.tokens),
            error=str(done.finish.detail) if failed else None,
        )
