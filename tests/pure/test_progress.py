"""Bars: for work that lasts, on a terminal only."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from quickbrown.cli import progress


class Display:
    """Remembers what is drawn, by task."""

    def __init__(self) -> None:
        self.tasks: dict[int, tuple[str, float, float | None]] = {}
        self.stopped = False
        self.made = 0

    def add_task(self, name: str, total: float | None = None, completed: float = 0, **fields: Any) -> int:
        self.made += 1
        self.tasks[self.made] = (name, completed, total)
        return self.made

    def remove_task(self, task: int) -> None:
        del self.tasks[task]

    def update(self, task: int, completed: float, total: float | None = None, **fields: Any) -> None:
        self.tasks[task] = (self.tasks[task][0], completed, total)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved on by hand."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[Display]:
    made: list[Display] = []
    monkeypatch.setattr(progress, "display", lambda *columns: made.append(Display()) or made[-1])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    return made


def test_stages_one_after_another(now: list[float], displays: list[Display]) -> None:
    with progress.Bars() as bars:
        bars("downloading", 1, 10)
        now[0] += 0.9
        bars("downloading", 2, 10)
        assert not displays
        now[0] += 0.2
        bars("downloading", 3, 10)
        assert list(displays[0].tasks.values()) == [("downloading", 3, 10)]
        bars("loading", 5, 0)
        assert list(displays[0].tasks.values()) == [("loading", 5, None)]
    assert displays[0].stopped


def test_lines_and_their_rate(now: list[float], displays: list[Display]) -> None:
    with progress.Count("lines", 8, 2) as count:
        now[0] += 2
        count(3, 500)
        assert count.rate == 250
        assert [task[:2] for task in displays[0].tasks.values()] == [("lines", 3)]
    assert displays[0].stopped


def test_nothing_is_drawn_into_a_pipe(
    now: list[float], displays: list[Display], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with progress.Bars() as bars, progress.Count("lines", 8) as count:
        now[0] += 50
        bars("loading", 1, 2)
        count(1, 2)
    assert not displays


def test_the_real_bars_are_gone_when_they_are_done(
    now: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drawn with rich itself, as for a terminal: the last thing is that the line is taken away."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Bars() as bars, progress.Count("lines", 8) as count:
        now[0] += 2
        bars("loading", 5, 10)
        bars.__exit__()
        count(3, 500)
    drawn = capsys.readouterr().err
    assert "loading" in drawn
    assert "3/8" in drawn
    assert "250 tokens/s" in drawn
    assert drawn.endswith("\x1b[2K")
