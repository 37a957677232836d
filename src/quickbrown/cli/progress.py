"""Bars on standard error, for work that lasts: after a second of it, on a terminal only, and gone when it is done."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 1.0  # seconds of work before a bar


class Bars:
    """A bar for the stage of having a model: called with the stage, bytes done and bytes in all (0: unknown).

    Nothing is drawn, or imported, before it is due.
    """

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self.start = time.monotonic()
        self.display: Progress | None = None
        self.stage = ""
        self.task: TaskID | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self.display is not None:
            self.display.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self.shown or time.monotonic() - self.start < PATIENCE:
            return
        if self.display is None:
            from rich.progress import DownloadColumn, TimeRemainingColumn

            self.display = display("{task.description:11}", DownloadColumn(), TimeRemainingColumn())
        if self.task is None or stage != self.stage:
            if self.task is not None:
                self.display.remove_task(self.task)
            self.stage, self.task = stage, self.display.add_task(stage, total=total or None)
        self.display.update(self.task, completed=done, total=total or None)


class Count:
    """A bar over things that are done one after another, with the tokens a second and how long the rest will take.

    what   what they are, in the plural
    total  how many there are
    done   how many were done before
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.shown = sys.stderr.isatty()
        self.start = time.monotonic()
        self.display: Progress | None = None
        self.what, self.total, self.done, self.tokens = what, total, done, 0

    def __enter__(self) -> Count:
        return self

    def __exit__(self, *_: object) -> None:
        if self.display is not None:
            self.display.stop()

    @property
    def rate(self) -> float:
        """Tokens a second so far."""
        return self.tokens / max(time.monotonic() - self.start, 1e-9)

    def __call__(self, done: int, tokens: int) -> None:
        """So many are done now, and so many tokens have been read or written for it."""
        self.done, self.tokens = done, tokens
        if not self.shown or time.monotonic() - self.start < PATIENCE:
            return
        if self.display is None:
            from rich.progress import MofNCompleteColumn, TimeRemainingColumn

            rate = "{task.fields[rate]:.0f} tokens/s, ETA"
            self.display = display(self.what, MofNCompleteColumn(), rate, TimeRemainingColumn())
            self.task = self.display.add_task(self.what, total=self.total, completed=done, rate=0.0)
        self.display.update(self.task, completed=done, rate=self.rate)


def display(label: str, *columns: object) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    made = Progress(
        TextColumn(label),
        BarColumn(),
        *(TextColumn(one) if isinstance(one, str) else one for one in columns),  # type: ignore[arg-type]
        console=Console(stderr=True),
        transient=True,
    )
    made.start()
    return made
