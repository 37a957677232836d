"""A program in a terminal: a pseudo-terminal whose screen pyte draws. Whoever waits waits for the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyte

PATIENCE = 60.0  # seconds of silence; a machine may be busy
LOOK = 0.2
CTRL_C, CTRL_D, ENTER, ESCAPE, UP, TAB, CTRL_J = "\x03", "\x04", "\r", "\x1b", "\x1b[A", "\t", "\n"
# The session leader takes its standard input as the terminal that Ctrl-C comes from.
PRELUDE = "import fcntl, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
QB = "from quickbrown.cli.main import main\nmain()\n"


class Screen(pyte.HistoryScreen):
    """Answers when it is asked where its cursor is."""

    master = -1

    def write_process_input(self, data: str) -> None:
        os.write(self.master, data.encode())


class Terminal:
    """`qb ARGV` in a terminal.

    sent  all that the program wrote
    code  its exit code, once it has ended
    """

    def __init__(self, argv: Sequence[str], home: Path, columns: int, lines: int, before: str, **env: str) -> None:
        self.screen = Screen(columns, lines, history=100_000)
        self.stream = pyte.ByteStream(self.screen)
        self.sent = b""
        self.master, slave = pty.openpty()
        self.screen.master = self.master
        self._size(columns, lines)
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        settings = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "QB_HOME": str(home), "QB_PACKED_LIMIT": "0", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{PRELUDE}sys.argv = {['qb', *argv]!r}\n{before}{QB}"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=kept | settings,
            cwd=home,
        )
        os.close(slave)
        os.set_blocking(self.master, False)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    def type(self, *texts: str) -> None:
        """A program that does not read is waited for."""
        data = "".join(texts).encode()
        while data:
            self.read(wait=False)
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(self.master, data[:1024]) :]

    def paste(self, text: str) -> None:
        """As a terminal does it that was asked to say what is pasted: line ends are those of the Enter key."""
        self.type("\x1b[200~", text.replace("\n", "\r"), "\x1b[201~")

    def read(self, wait: bool = True) -> bool:
        """Take what is written, or was if nobody is to `wait` for it; False at the end.

        Patience is counted in looks and not by the clock, which goes on where a whole machine is halted.
        """
        for _ in range(int(PATIENCE / LOOK) if wait else 1):
            if select.select([self.master], [], [], LOOK if wait else 0)[0]:
                break
        else:
            assert not wait, f"nothing more came:\n{self.text}"
            return True
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self.sent += data
        self.stream.feed(data)
        return bool(data)

    @property
    def text(self) -> str:
        """The screen, and what has left it at the top, without blanks at line ends."""
        width = self.screen.columns
        rows = ["".join(row[x].data for x in range(width)) for row in self.screen.history.top]
        return "\n".join(row.rstrip() for row in [*rows, *self.screen.display]).rstrip()

    def wait(self, pattern: str) -> str:
        """Until the text matches somewhere; what matched. `$` is the end of what is written."""
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            assert self.read(), f"{pattern!r} did not come before the end:\n{self.text}"
        return found[0]

    @property
    def code(self) -> int:
        while self.read():
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@contextlib.contextmanager
def terminal(
    *argv: str, home: Path, columns: int = 80, lines: int = 24, before: str = "", **env: Any
) -> Iterator[Terminal]:
    """`before`: Python that runs before the command line does."""
    made = Terminal(argv, home, columns, lines, before, **env)
    try:
        yield made
    finally:
        made.close()
