"""qb: the command line. A first argument that is no command is a text to continue."""

from __future__ import annotations

import difflib
import os
import shlex
import sys

from quickbrown import __version__
from quickbrown.cli.chat import CHAT
from quickbrown.cli.command import INTERRUPTED, USAGE_ERROR, Command, note, write
from quickbrown.cli.doctor import DOCTOR
from quickbrown.cli.generate import GENERATE
from quickbrown.cli.info import INFO
from quickbrown.cli.models import LIST, PULL, RM

COMMANDS = {command.name: command for command in (GENERATE, CHAT, PULL, LIST, RM, INFO, DOCTOR)}
PIPE_CLOSED = 141


class NotACommand(Exception):
    """A word that looks like a mistyped command."""


def main() -> None:
    sys.exit(call(sys.argv[1:]))


def call(argv: list[str]) -> int:
    """Run one command line; returns its exit code. Errors become one sentence, unless QB_TRACEBACK=1."""
    try:
        code = dispatch(argv)
        sys.stdout.flush()
        return code
    except NotACommand as error:
        note(f"qb: {error}")
        return USAGE_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # What still waits in the buffer has nowhere to go; without this the interpreter says so on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        if os.environ.get("QB_TRACEBACK") == "1":
            raise
        note(f"qb: {sentence(error)}")
        return 1


def dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        write(overview())
        return 0
    if argv[0] == "--version":
        write(f"quickbrown {__version__}\n")
        return 0
    command, rest = choose(argv)
    return command.run(command.parser().parse(rest))


def choose(argv: list[str]) -> tuple[Command, list[str]]:
    """The command and its arguments. A single word near a command's name is taken for a slip, not for a prompt."""
    first = argv[0]
    if first in COMMANDS:
        return COMMANDS[first], argv[1:]
    near = difflib.get_close_matches(first, COMMANDS, n=1, cutoff=0.7)
    if near and not first.startswith("-") and len(first.split()) == 1:
        prompt = shlex.quote(first)
        prompt = prompt if prompt != first else f"'{first}'"
        raise NotACommand(f"did you mean `qb {near[0]}`? To use it as a prompt: qb generate {prompt}")
    return GENERATE, argv


def overview() -> str:
    commands = "".join(f"  {name:10}{command.help}\n" for name, command in COMMANDS.items())
    return (
        'usage: qb COMMAND ...   or   qb "a text to continue"\n\n'
        "Text generation with language models, on the CPU.\n\n"
        f"commands:\n{commands}\n"
        "`qb COMMAND --help` lists the options of a command, `qb --version` says the version.\n"
    )


def sentence(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split())
    if isinstance(error, (ValueError, TypeError, OSError, RuntimeError)) and text:
        return text
    return f"unexpected {type(error).__name__}: {text} (QB_TRACEBACK=1 shows where)"


if __name__ == "__main__":
    main()
