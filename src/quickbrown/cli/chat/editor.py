"""Where a person types: several lines, history, completion."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from quickbrown.cli.chat.actions import ACTIONS, FILE
from quickbrown.cli.chat.loader import NotLoaded
from quickbrown.cli.chat.screen import shown
from quickbrown.cli.chat.session import Session

MARK = "> "


class Editor:
    """Asks for messages of a session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.prompt: PromptSession[str] = PromptSession(
            message=self._message,
            multiline=True,
            prompt_continuation=lambda width, line, wrapped: "" if wrapped else " " * len(MARK),
            key_bindings=keys(),
            history=history(),
            completer=Words(session),
            complete_while_typing=Condition(lambda: self.prompt.default_buffer.text.startswith("/")),
            reserve_space_for_menu=4,
        )

    def ask(self) -> str:
        """A message, perhaps of several lines. Raises EOFError and KeyboardInterrupt for a person who leaves, and
        NotLoaded if the model could not be loaded meanwhile."""
        return self.prompt.prompt(default=self.session.draft or "", pre_run=self.loaded)

    def loaded(self) -> None:
        """The model is there, or will not be: to be called on any thread."""
        app = self.prompt.app
        if app.loop is None or not app.is_running:
            return
        if self.session.loader.error is not None:
            app.loop.call_soon_threadsafe(self._give_up)
        elif self.session.used is None:
            self.session.changed()
            app.invalidate()

    def _give_up(self) -> None:
        if self.prompt.app.is_running and not self.prompt.app.is_done:
            self.prompt.app.exit(exception=NotLoaded())

    def _message(self) -> StyleAndTextTuples:
        return [("fg:ansibrightblack", f"{self.session.status()}\n"), ("bold", MARK)]


def keys() -> KeyBindings:
    """Enter sends, unless a backslash ends the line; Ctrl-C clears the line, and leaves at an empty one."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.char_before_cursor == "\\" and buffer.document.is_cursor_at_the_end_of_line:
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return keys


def state() -> Path:
    """The folder for what is remembered from one run to the next: QB_HOME, or else the user's state folder."""
    if chosen := os.environ.get("QB_HOME"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_state_dir("quickbrown", appauthor=False))


def history() -> History:
    """What was typed before, in a file for its owner's eyes only; in memory where there can be none."""
    path = state() / "chat_history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


class Words(Completer):
    """Completes what begins with /, and what follows it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, blank, rest = line[1:].partition(" ")
        if not blank:
            for known, action in ACTIONS.items():
                if known.startswith(name):
                    yield Completion(f"/{known}", -len(line), display_meta=action.help)
        elif name in ACTIONS and ACTIONS[name].words == FILE:
            yield from PathCompleter(expanduser=True).get_completions(Document(rest), event)
        elif name in ACTIONS and not isinstance(words := ACTIONS[name].words, str):
            for word in words(self.session):
                if word.startswith(rest) and word == shown(word):
                    yield Completion(word, -len(rest))
