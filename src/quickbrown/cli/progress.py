"""A bar for each stage of fetching a model, on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """Called with a stage, bytes done and bytes in all (0: unknown). Nothing is drawn, or imported, before that."""

    def __init__(self) -> None:
        self.display: Progress | None = None
        self.stages: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self.display is not None:
            self.display.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.display is None:
            self.display = display()
            self.display.start()
        if stage not in self.stages:
            self.stages[stage] = self.display.add_task(stage)
        self.display.update(self.stages[stage], completed=done, total=total or None)


def display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:11}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
