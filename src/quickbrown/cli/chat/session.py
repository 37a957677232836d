"""What a line that is typed into a conversation does."""

from __future__ import annotations

import contextlib
import difflib
import queue
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickbrown.cli.chat.actions import ACTIONS
from quickbrown.cli.chat.conversation import Conversation, Message
from quickbrown.cli.chat.display import Display
from quickbrown.cli.chat.loader import Loader
from quickbrown.cli.chat.screen import say, shown, unechoed
from quickbrown.cli.chat.source import Kind, Outcome, Piece, Source

POLL = 0.05  # seconds between two looks at whether the model is loaded
NOTES = {
    "length": "(ended after {written} tokens, max_new_tokens; /continue goes on)",
    "time": "(ended after max_time; /continue goes on)",
    "cancelled": "(stopped; /continue goes on)",
}
CANCELLED = Outcome("cancelled")


@dataclass
class Written:
    """What came of an answer, and how it ended."""

    said: str = ""
    thought: str = ""
    outcome: Outcome = CANCELLED

    def add(self, piece: Piece) -> None:
        if piece.kind is Kind.SAID:
            self.said += piece.text
        else:
            self.thought += piece.text


class Session:
    """A conversation, who answers in it, and what was set aside.

    branches   other conversations by name; `branch` is the name of this one
    draft      what stands in the next line, to be edited: it takes the place of the user's last message
    used       tokens of the conversation, where that is known
    own_files  files that were written or read here, which may be written again
    """

    def __init__(self, loader: Loader, display: Display, system: str | None, options: dict[str, Any]) -> None:
        self.loader: Loader = loader
        self.display = display
        self.conversation = Conversation(options=options)
        self.conversation.system = system
        self.branches: dict[str, list[Message]] = {}
        self.branch = "main"
        self.draft: str | None = None
        self.used: int | None = None
        self.own_files: set[Path] = set()

    @property
    def source(self) -> Source:
        """Who answers, once loaded. Raises NotLoaded."""
        self.loader.wait()
        return self.loader.source

    def status(self) -> str:
        """How much of the context is used, as far as that is known."""
        source = self.loader.source
        name = shown(source.name)
        if not self.loader.ready:
            return f"loading {name} ..." if name else "connecting ..."
        if self.used is None:
            return name
        of = f" / {source.context:,}" if source.context is not None else ""
        return f"{self.used:,}{of} tokens"

    def changed(self) -> None:
        """The conversation is another one: count it anew."""
        self.used = None
        if self.loader.ready:
            with contextlib.suppress(ValueError):  # a template may refuse a conversation without a question
                self.used = self.source.count(self.conversation.messages)

    # -- lines -------------------------------------------------------------------------------------------------------

    def take(self, line: str) -> None:
        """Do what a line says. Raises ValueError, TypeError, RuntimeError or OSError, with a sentence."""
        draft, self.draft = self.draft, None
        if command := re.fullmatch(r"/(\w+)(?:\s+(.*))?", line.rstrip(), re.DOTALL):
            self.act(command[1], command[2] or "")
        elif line.strip().lower() == "continue" and self.conversation.last is not None:
            self.go_on()
        elif line.strip():
            messages = self.conversation.messages
            at = self.conversation.before_last_question() if draft is not None else None
            self.ask([*messages[:at], Message("user", line)])

    def act(self, name: str, rest: str) -> None:
        if name not in ACTIONS:
            near = difflib.get_close_matches(name, ACTIONS, n=1)
            hint = f"did you mean /{near[0]}?" if near else "/help lists what there is."
            raise ValueError(f"there is no /{name}; {hint} A message that begins so needs a blank before it")
        ACTIONS[name].run(self, rest.strip())

    def ask(self, messages: list[Message], options: dict[str, Any] | None = None) -> None:
        """Answer. What was written before a Ctrl-C stays in the conversation; a question without an answer does not."""
        written = self.write(messages, options or {}, goes_on=False)
        if written.said or written.thought:
            answer = Message("assistant", written.said, written.thought or None)
            self.conversation.messages = [*messages, answer]
        self.end(written, "(no answer)")

    def go_on(self) -> None:
        """Write more of the last answer."""
        last = self.conversation.last
        if last is None:
            raise ValueError("there is no answer to go on with")
        written = self.write(self.conversation.messages, {}, goes_on=True)
        thought = (last.reasoning or "") + written.thought
        answer = Message("assistant", last.content + written.said, thought or None)
        self.conversation.messages = [*self.conversation.messages[:-1], answer]
        self.end(written, "(nothing to add)")

    def end(self, written: Written, nothing: str) -> None:
        """Say how an answer ended, if not by itself. Raises RuntimeError if the model or the server failed."""
        self.conversation.model = self.loader.source.name
        outcome = written.outcome
        came = bool(written.said or written.thought)
        if came:
            self.used = outcome.used
        if outcome.error is not None:
            raise RuntimeError(outcome.error)
        context = self.loader.source.context if self.loader.ready else None
        if outcome.reason == "length" and outcome.used is not None and outcome.used == context:
            say(f"(the context of {context:,} tokens is full; /undo takes exchanges back, /clear begins anew)")
        elif outcome.reason == "cancelled" and not came:
            say("(stopped)")
        elif outcome.reason in NOTES:
            say(NOTES[outcome.reason].format(written="" if outcome.written is None else outcome.written))
        elif not came:
            say(nothing)

    def write(self, messages: list[Message], options: dict[str, Any], goes_on: bool) -> Written:
        """Have an answer written and show it. The first Ctrl-C ends it, a second one ends whatever is stuck."""
        pieces: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        written = Written()
        display = self.display
        with unechoed(), interrupted(pieces):
            display.begin(messages[-1].content if goes_on else "")
            try:
                while not self.loader.wait(POLL):
                    if not pieces.empty():
                        return written
                settings = self.conversation.options | options
                answer = self.source.answer(messages, settings, goes_on, pieces.put)
                try:
                    self.follow(pieces, written)
                finally:
                    answer.close()
                    written.outcome = answer.outcome()
            except KeyboardInterrupt:
                pass
            finally:
                display.end()
        return written

    def follow(self, pieces: queue.SimpleQueue[Piece | None], written: Written) -> None:
        """Show pieces up to the last one, or to a Ctrl-C."""
        display = self.display
        while True:
            try:
                piece = pieces.get(timeout=display.pause)
            except queue.Empty:
                display.draw()
                continue
            if piece is None or piece.kind is Kind.END:
                return
            written.add(piece)
            (display.said if piece.kind is Kind.SAID else display.thought)(piece.text)


@contextlib.contextmanager
def interrupted(pieces: queue.SimpleQueue[Piece | None]) -> Iterator[None]:
    """While it lasts, a first Ctrl-C is None in the queue, wherever it comes; a second one is KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def first(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pieces.put(None)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
