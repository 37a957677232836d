"""qb chat: a conversation with a model that is loaded here, or with a server."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from quickbrown.cli.command import (
    DEFAULT_MODEL,
    LOADING,
    SAMPLING,
    Command,
    Parser,
    declare_model,
    declare_sampling,
    flag,
    given,
    welcome,
)

if TYPE_CHECKING:
    from quickbrown.cli.chat.session import Session
    from quickbrown.cli.chat.source import Source


def declare(parser: Parser) -> None:
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    parser.add_argument("--plain", action="store_true", help="show answers as they are written, not as Markdown")
    parser.add_argument(
        "--url", help="talk with a server of OpenAI's kind, like http://localhost:8080/v1, and not with a model here"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="what the server asks for (default: OPENAI_API_KEY, which is sent encrypted or to this machine only)",
    )
    declare_model(parser)
    declare_sampling(parser)


def run(args: argparse.Namespace) -> int:
    from quickbrown.cli.chat.display import Plain, Rich
    from quickbrown.cli.chat.loader import Loader, NotLoaded
    from quickbrown.cli.chat.session import Session

    options = given(args, SAMPLING)
    source = source_of(args)
    source.check(options)
    person = sys.stdin.isatty() and sys.stdout.isatty()
    able = person and os.environ.get("TERM") not in ("dumb", "unknown")
    session = Session(Loader(source), Rich() if able and not args.plain else Plain(), args.system, options)
    try:
        if not person:
            return read_lines(session)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that is not of UTF-8 gets ? for what it cannot show
        return converse(session, able)
    except NotLoaded as error:
        raise error.__cause__ or session.loader.error or error from None
    finally:
        session.loader.stop()


def source_of(args: argparse.Namespace) -> Source:
    """Who is asked for. A model that is not here is fetched; nothing is loaded."""
    name: str | None = getattr(args, "model", None)
    if args.url is None:
        if args.api_key is not None:
            raise ValueError("--api-key is for a server; name it with --url")
        from quickbrown.cli.chat.local import Local

        name = DEFAULT_MODEL if name is None else name
        if sys.stderr.isatty():
            welcome(name)
        return Local(name, given(args, LOADING))
    for option in given(args, LOADING):
        raise ValueError(f"{flag(option)} is for a model that is loaded here, and --url talks with a server")
    from quickbrown.cli.chat.server import Server, key_from

    return Server(args.url, name or "", key_from(args.api_key, args.url))


def read_lines(session: Session) -> int:
    """Without a person, each line of the input is a message, and an error ends it."""
    from quickbrown.cli.chat.actions import Leave

    session.loader.start()
    for line in lines():
        try:
            session.take(line)
        except (Leave, KeyboardInterrupt):
            break
    return 0


def lines() -> Iterator[str]:
    while True:
        try:
            yield input()
        except (EOFError, KeyboardInterrupt):
            return


def converse(session: Session, able: bool) -> int:
    """With a person, who is told of errors and can go on. A terminal that is not `able` to move its cursor gets no
    editor."""
    from quickbrown.cli.chat.actions import Leave
    from quickbrown.cli.chat.screen import say
    from quickbrown.cli.command import write
    from quickbrown.cli.main import sentence

    if able:
        from quickbrown.cli.chat.editor import Editor

        editor = Editor(session)
        session.loader.start(editor.loaded)
        ask = editor.ask
    else:
        session.loader.start()
        session.loader.wait()

        def ask() -> str:
            return input(f"{session.status()}\n> ")

    say("/help lists the commands; Ctrl-C stops an answer\n")
    while True:
        try:
            line = ask()
        except (EOFError, KeyboardInterrupt):
            return 0
        try:
            session.take(line)
        except Leave:
            return 0
        except KeyboardInterrupt:
            say("(stopped)")
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            say(sentence(error))
        write("\n")


CHAT = Command("chat", "Talk with a model.", declare, run)
