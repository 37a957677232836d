"""What begins with / in a conversation."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from quickbrown.cli.chat.conversation import load
from quickbrown.cli.chat.loader import Loader
from quickbrown.cli.chat.screen import say, shown
from quickbrown.cli.command import SAMPLING, Parser, declare_sampling, flag, given
from quickbrown.types import SamplingParams

if TYPE_CHECKING:
    from quickbrown.cli.chat.session import Session

FILE = "FILE"  # in the place of words that complete a line: names of files do
SHOWN = 60  # characters of a message in a list


class Leave(Exception):
    """The person wants to go."""


@dataclass(frozen=True)
class Action:
    """`/NAME takes`: what it is for, what it does with the rest of its line, and which words complete that."""

    takes: str
    help: str
    run: Callable[[Session, str], None]
    words: Callable[[Session], Iterable[str]] | str = lambda session: ()


def help_(session: Session, rest: str) -> None:
    names = [rest.removeprefix("/")] if rest else list(ACTIONS)
    if names[0] not in ACTIONS:
        raise ValueError(f"there is no /{names[0]}; /help lists what there is")
    heads = {name: f"/{name} {ACTIONS[name].takes}".rstrip() for name in names}
    wide = max(map(len, heads.values()))
    say("\n".join(f"{head:{wide}}  {ACTIONS[name].help}" for name, head in heads.items()))
    if not rest:
        say(
            "\nEnter sends. Alt-Enter, Ctrl-J or a \\ at its end begin a new line. Ctrl-C stops an answer, clears a "
            "line, and leaves at an empty one, as Ctrl-D does."
        )


def system(session: Session, rest: str) -> None:
    session.conversation.system = rest or None
    session.changed()
    say("(the model is told that from now on)" if rest else "(no system message)")


def set_(session: Session, rest: str) -> None:
    name, _, value = rest.partition(" ")
    name, value = name.replace("-", "_"), value.strip()
    options = dict(session.conversation.options)
    if not name:
        say("\n".join(options_of(session)))
        return
    if value == "default":
        SamplingParams.from_options({name: default(name)})  # so that a name that is unknown is said
        options.pop(name, None)
    elif _Options("/set").takes_value(name):
        options |= typed([f"{flag(name)}={value}"], "set")
    elif value:
        raise ValueError(f"{name} takes no value but default, which undoes it; not {value!r}")
    else:
        options |= typed([flag(name)], "set")
    session.loader.source.check(options)
    session.conversation.options = options
    say(f"{name} = {options.get(name, default(name))}")


def show(session: Session, rest: str) -> None:
    conversation = session.conversation
    if rest == "reasoning":
        last = conversation.last
        if last is None or last.reasoning is None:
            raise ValueError("the last answer has no reasoning")
        say(last.reasoning.strip())
    elif rest == "conversation":
        for message in conversation.messages:
            say(f"{message.role}: {message.content.strip()}\n")
    elif rest:
        raise ValueError(f"/show shows the settings, or: reasoning, conversation; not {rest!r}")
    else:
        facts = {
            "model": session.loader.source.name,
            "context": session.status(),
            "messages": f"{len(conversation.messages)} in branch {session.branch}",
            "system": conversation.system or "(none)",
        }
        wide = max(map(len, facts))
        say("\n".join(f"{name:{wide}}  {value}" for name, value in facts.items()))
        say("\n".join(options_of(session)))


def retry(session: Session, rest: str) -> None:
    at = session.conversation.before_last_question()
    if at is None:
        raise ValueError("there is no message to answer again")
    options = typed(shlex.split(rest), "retry") if rest else {}
    session.loader.source.check(session.conversation.options | options)
    before = session.conversation.last
    session.ask(session.conversation.messages[: at + 1], options)
    after = session.conversation.last
    drawn = (session.conversation.options | options).get("temperature", default("temperature"))
    if before is not None and after is not before and after == before and drawn == 0:
        say("(the same again: the temperature is 0; /retry -t 0.8 draws another)")


def edit(session: Session, rest: str) -> None:
    at = session.conversation.before_last_question()
    if at is None:
        raise ValueError("there is no message to edit")
    session.draft = shown(session.conversation.messages[at].content)


def undo(session: Session, rest: str) -> None:
    at = session.conversation.before_last_question()
    if at is None:
        raise ValueError("there is nothing to take back")
    taken = session.conversation.messages[at].content
    session.conversation.messages = session.conversation.messages[:at]
    session.changed()
    say(f"(taken back: {shortened(taken)})")


def branch(session: Session, rest: str) -> None:
    conversation = session.conversation
    if not rest:
        listed = session.branches | {session.branch: conversation.messages}
        for name in sorted(listed):
            say(f"{'*' if name == session.branch else ' '} {name}  {len(listed[name])} messages")
        return
    session.branches[session.branch] = conversation.messages
    known = rest in session.branches
    conversation.messages = list(session.branches.pop(rest, conversation.messages))
    session.branch = rest
    session.changed()
    say(f"(in branch {rest}, {'with' if known else 'which begins with these'} {len(conversation.messages)} messages)")


def save(session: Session, rest: str) -> None:
    path = file_of(rest, "save")
    session.conversation.save(path, replace=path in session.own_files)
    session.own_files.add(path)
    say(f"(saved in {path})")


def load_(session: Session, rest: str) -> None:
    path = file_of(rest, "load")
    loaded = load(path)
    for name in loaded.options:
        if name not in SAMPLING:
            raise ValueError(f"{path} sets {name!r}, which is no option of a conversation")
    session.loader.source.check(loaded.options)
    session.conversation = loaded
    session.own_files.add(path)
    session.changed()
    other = loaded.model is not None and loaded.model != session.loader.source.name
    by = f", answered by {loaded.model}: /model changes to that" if other else ""
    say(f"(loaded, with {len(loaded.messages)} messages{by})")


def clear(session: Session, rest: str) -> None:
    session.conversation.clear()
    session.changed()
    say("(forgotten)")


def model(session: Session, rest: str) -> None:
    source = session.source
    if not rest:
        say(source.name)
        known = [name for name in source.names() if name != source.name]
        if known:
            say("others: " + ", ".join(known))
        return
    other = source.other(rest)
    other.check(session.conversation.options)
    say(f"(loading {rest}; Ctrl-C keeps {source.name})")
    other.load()
    session.loader = Loader.of(other)
    source.close()
    session.changed()
    say(f"({other.name} answers from now on)")


def tokens(session: Session, rest: str) -> None:
    source, messages = session.source, session.conversation.messages
    for message in messages:
        if (count := source.length(message.content)) is not None:
            say(f"{count:>8,}  {message.role}: {shortened(message.content)}")
    if session.used is None:
        raise ValueError("the server has not said how many tokens there are")
    say(f"{session.used:>8,}  in all, with what the chat template writes around them")


def exit_(session: Session, rest: str) -> None:
    raise Leave


def typed(words: list[str], name: str) -> dict[str, Any]:
    """Options as they would be typed on the command line. Raises ValueError."""
    return given(_Options(f"/{name}").parse(words), SAMPLING)


class _Options(Parser):
    """Of how a text is written, and nothing else."""

    def __init__(self, prog: str) -> None:
        argparse.ArgumentParser.__init__(self, prog=prog, allow_abbrev=False, add_help=False)
        self.add_argument("-t", dest="temperature", type=float, default=argparse.SUPPRESS)
        declare_sampling(self)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def takes_value(self, name: str) -> bool:
        action = self._option_string_actions.get(flag(name))
        return action is None or action.nargs != 0


def default(name: str) -> Any:
    return next((field.default for field in fields(SamplingParams) if field.name == name), None)


def options_of(session: Session) -> list[str]:
    """A line for each option: its value, and whether that was chosen."""
    chosen = session.conversation.options
    wide = max(map(len, SAMPLING))
    return [
        f"{name:{wide}}  {chosen[name]}" if name in chosen else f"{name:{wide}}  {default(name)} (default)"
        for name in SAMPLING
    ]


def shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def file_of(rest: str, name: str) -> Path:
    if not rest:
        raise ValueError(f"/{name} takes the name of a file")
    return Path(rest).expanduser().absolute()


ACTIONS: dict[str, Action] = {
    "help": Action("[NAME]", "show this", help_, lambda session: ACTIONS),
    "system": Action("[TEXT]", "what the model is told before the conversation; without a text nothing", system),
    "set": Action(
        "[NAME VALUE]", "how answers are written, as /set temperature 0.7; the value default undoes it", set_,
        lambda session: SAMPLING,
    ),
    "show": Action(
        "[WHAT]", "the settings; or what is said, of: reasoning, conversation", show,
        lambda session: ("reasoning", "conversation"),
    ),
    "continue": Action("", "go on with the last answer; the word continue does so too", lambda s, rest: s.go_on()),
    "retry": Action("[-t T ...]", "answer again, with other options perhaps, as /retry -t 0.8 --seed 1", retry),
    "edit": Action("", "change the last message, and have that answered", edit),
    "undo": Action("", "take the last message and its answer back", undo),
    "branch": Action(
        "[NAME]", "go on in a copy of the conversation, or in one that was left; without a name list them", branch,
        lambda session: sorted(session.branches),
    ),
    "save": Action("FILE", "write the conversation to a file", save, FILE),
    "load": Action("FILE", "go on with a conversation from a file", load_, FILE),
    "clear": Action("", "forget the conversation, but not what the system says", clear),
    "model": Action(
        "[NAME]", "have another model answer; without a name show which one does", model,
        lambda session: session.loader.source.names(),
    ),
    "tokens": Action("", "how many tokens the messages have", tokens),
    "exit": Action("", "leave", exit_),
}  # fmt: skip
