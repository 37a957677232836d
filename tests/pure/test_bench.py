"""qb bench: its arithmetic, what it refuses, and its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quickbrown.cli import main

pytest.importorskip("quickbrown._native", reason="needs the native extension: make")

from checkpoints import write_checkpoint
from quickbrown.bench.measure import Task, ids, peak_bytes, rates, spread


def test_a_spread_says_median_least_and_most() -> None:
    assert spread(rates(60, [2.0, 1.0, 4.0])) == {"median": 30.0, "least": 15.0, "most": 60.0}


def test_ids_repeat_with_their_seed_and_differ_with_another() -> None:
    assert ids(50, 3, 100) == ids(50, 3, 100) != ids(50, 4, 100)
    assert all(0 <= token < 100 for token in ids(500, 3, 100))


def test_the_peak_is_read_or_unknown(tmp_path: Path) -> None:
    status = tmp_path / "status"
    assert peak_bytes(status) is None
    status.write_text("Name:\tqb\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n")
    assert peak_bytes(status) == 2048 * 1024
    status.write_text("Name:\tqb\n")
    assert peak_bytes(status) is None


@pytest.mark.parametrize(
    ("name", "value", "least"), [("prompt", 0, 1), ("new", 1, 2), ("depth", 0, 1), ("batch", -1, 1), ("repeat", 0, 1)]
)
def test_counts_without_a_rate_are_refused(
    name: str, value: int, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.call(["bench", f"--{name}", str(value), "-m", "no such model"]) == 1
    said = f"qb: {name} must be a whole number of at least {least}, not {value}\n"
    assert capsys.readouterr() == ("", said)


def test_a_text_must_fit_the_context() -> None:
    Task(prompt=99, depth=36, new=64).fit(100)
    with pytest.raises(ValueError, match=r"prompt \+ 1 is 101 tokens, more than the model's context of 100"):
        Task(prompt=100).fit(100)
    with pytest.raises(ValueError, match=r"depth \+ new is 101 tokens"):
        Task(prompt=1, depth=37, new=64).fit(100)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "tiny"
    write_checkpoint(folder)
    return folder


def bench(tiny: Path, *more: str) -> int:
    counts = ["--prompt", "8", "--new", "4", "--depth", "3", "--batch", "2", "--repeat", "3", "--threads", "1"]
    return main.call(["bench", "-m", str(tiny), *counts, *more])


def test_one_line_of_json(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tiny, "--json") == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    figures = json.loads(shown)
    assert figures.keys() == {
        "model", "task", "threads", "load_seconds", "warm_up_seconds", "first_token_seconds",
        "prompt_tokens_per_second", "decode_tokens_per_second", "peak_bytes", "kernels", "versions",
    }  # fmt: skip
    assert figures["task"] == {"prompt": 8, "new": 4, "depth": 3, "batch": 2, "repeat": 3}
    assert figures["threads"] == 1
    for name in ("first_token_seconds", "prompt_tokens_per_second", "decode_tokens_per_second"):
        rate = figures[name]
        assert 0 < rate["least"] <= rate["median"] <= rate["most"]
    assert figures["prompt_tokens_per_second"]["most"] == pytest.approx(8 / figures["first_token_seconds"]["least"])


def test_a_table_for_people(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tiny) == 0
    shown = capsys.readouterr().out
    assert "2 x 4 tokens after 3\n" in shown
    assert "after a prompt of 8 tokens\n" in shown
    assert "warm-up" in shown


def test_a_model_with_too_short_a_context_says_so(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["bench", "-m", str(tiny), "--prompt", "256", "--repeat", "1"]) == 1
    assert capsys.readouterr().err == "qb: prompt + 1 is 257 tokens, more than the model's context of 256\n"
