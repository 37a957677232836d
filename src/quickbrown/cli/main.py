"""qb: the command line. A first argument that is no command is a text to continue."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator, Mapping

from quickbrown import __version__
from quickbrown.cli.command import FAILED, INTERRUPTED, PIPE_CLOSED, USAGE_ERROR, Command, note, write

_FILES = {
    "generate": "generate",
    "chat": "chat",
    "explain": "explain",
    "score": "score",
    "tokenize": "tokenize",
    "list": "models",
    "pull": "models",
    "rm": "models",
    "info": "info",
    "bench": "bench",
    "doctor": "doctor",
    "completion": "completion",
}
PATIENCE = 1.0  # seconds that pass before it is said what is waited for


class _Commands(Mapping[str, Command]):
    """The commands by name, in the order in which they are shown. Only the file of the one that runs is loaded."""

    def __getitem__(self, name: str) -> Command:
        command: Command = getattr(importlib.import_module(f"quickbrown.cli.{_FILES[name]}"), name.upper())
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_FILES)

    def __len__(self) -> int:
        return len(_FILES)


COMMANDS = _Commands()


class NotACommand(Exception):
    """A word that looks like a mistyped command."""


def main() -> None:
    # The threads that numpy's linear algebra starts when it is imported wait by spinning, and nothing here asks them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a model writes what terminals of few characters cannot show
            stream.reconfigure(errors="replace")
    code = call(sys.argv[1:])
    if "quickbrown.weights.kept" in sys.modules:
        keep(code)
    sys.exit(code)


def keep(code: int) -> None:
    """Wait until packed weights are written for the next start; say so if it takes long; not after Ctrl-C."""
    from quickbrown.weights import kept

    try:
        if code == INTERRUPTED:
            kept.give_up()
        elif kept.busy(PATIENCE):
            note("keeping the packed weights, so that the next start is faster (Ctrl-C does without)")
            kept.finish()
    except KeyboardInterrupt:
        kept.give_up()


def call(argv: list[str]) -> int:
    """Run one command line; returns its exit code. Errors become one sentence; with --debug, a traceback too."""
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
        if "--debug" in argv:
            import traceback

            traceback.print_exc()
        note(f"qb: {sentence(error)}")
        return FAILED


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
    if first in _FILES:
        return COMMANDS[first], argv[1:]
    near = difflib.get_close_matches(first, COMMANDS, n=1, cutoff=0.7)
    if near and not first.startswith("-") and len(first.split()) == 1:
        import shlex

        prompt = shlex.quote(first)
        prompt = prompt if prompt != first else f"'{first}'"
        raise NotACommand(f"did you mean `qb {near[0]}`? To use it as a prompt: qb generate {prompt}")
    return COMMANDS["generate"], argv


def overview() -> str:
    commands = "".join(f"  {name:12}{command.help}\n" for name, command in COMMANDS.items())
    return (
        'usage: qb COMMAND ...   or   qb "a text to continue"\n\n'
        "Text generation with language models, on the CPU.\n\n"
        f"commands:\n{commands}\n"
        "`qb COMMAND --help` lists the options of a command, `qb --version` says the version.\n"
        "The manual is docs/cli.md.\n"
    )


def sentence(error: Exception) -> str:
    """What went wrong, on one line."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        named = "" if error.filename is None else f"{error.filename}: "
        return f"{named}{error.strerror}{_ADVICE.get(error.errno or 0, '')}"
    if isinstance(error, MemoryError):
        return f"memory ran out{f' ({text})' if text else ''}; close other programs, or take a smaller model"
    if isinstance(error, (ValueError, TypeError, OSError, RuntimeError)) and text:
        return text
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"


_ADVICE = {
    errno.ENOENT: "; check the spelling",
    errno.EACCES: "; ask for the right to it, or name another place",
    errno.ENOSPC: "; free some room, or name another place",
    errno.EISDIR: "; name a file",
}


if __name__ == "__main__":
    main()
