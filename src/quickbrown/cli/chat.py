"""qb chat: a conversation."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from quickbrown.cli.command import (
    SAMPLING,
    Command,
    Parser,
    declare_model,
    declare_sampling,
    given,
    load,
    note,
    write,
)

if TYPE_CHECKING:
    from quickbrown.llm import LLM

Message = dict[str, str]

HELP = {
    "/help": "show this",
    "/reset": "forget the conversation",
    "/exit": "leave (so does Ctrl-D, and Ctrl-C at an empty prompt)",
}


def declare(parser: Parser) -> None:
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    declare_model(parser)
    declare_sampling(parser)


def run(args: argparse.Namespace) -> int:
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    chat = Chat(load(args), args.system, given(args, SAMPLING))
    if terminal:
        note("/help lists the commands; Ctrl-C stops an answer")
    ask: Callable[[], str] = prompt_line() if terminal else input
    while True:
        try:
            line = ask()
        except (EOFError, KeyboardInterrupt):
            return 0
        if line == "/exit":
            return 0
        try:
            chat.take(line)
        except (ValueError, RuntimeError) as error:
            if not terminal:
                raise
            note(str(error))  # a conversation too long, say: the person can go on


class Chat:
    """The conversation so far, and what a line typed into it does."""

    def __init__(self, llm: LLM, system: str | None, options: dict[str, Any]) -> None:
        self.llm = llm
        self.options = options
        self.opening: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.messages = list(self.opening)

    def take(self, line: str) -> None:
        if re.fullmatch(r"/\w+", line):
            self.command(line)
        elif line.strip():
            self.say(line)

    def command(self, line: str) -> None:
        if line == "/reset":
            self.messages = list(self.opening)
        elif line == "/help":
            note("\n".join(f"{name:8}{meaning}" for name, meaning in HELP.items()))
        else:
            near = difflib.get_close_matches(line, HELP, n=1)
            note(f"there is no {line}; " + (f"did you mean {near[0]}?" if near else "/help lists the commands"))

    def say(self, text: str) -> None:
        """Answer. What was written before a Ctrl-C stays in the conversation; a question without an answer does not."""
        question = {"role": "user", "content": text}
        answer = ""
        try:
            with closing(self.llm.stream_chat([*self.messages, question], **self.options)) as stream:
                for piece in stream:
                    answer += piece
                    write(piece)
                write("\n")
        except KeyboardInterrupt:
            write("\n")
            note("(stopped)")
        if answer:
            self.messages += [question, {"role": "assistant", "content": answer}]


def prompt_line() -> Callable[[], str]:
    """A line editor with history. Ctrl-C clears the line, and leaves at an empty one."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    session: PromptSession[str] = PromptSession(key_bindings=keys)
    return lambda: session.prompt("> ")


CHAT = Command("chat", "Talk with a model.", declare, run)
