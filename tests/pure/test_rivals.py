"""benchmarks/rivals.py: its arithmetic, its table and what it refuses. No rival is needed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("quickbrown._native", reason="needs the native extension: make")

import driver
import one_round
import report
import rivals
import sides

MACHINE = {"processor": "a machine", "system": "a system", "quickbrown": "0.1.0 abc, avx2 kernels"}
STATUS = "Name:\tx\nVmHWM:\t    {} kB\nRssAnon:\t {} kB\nRssFile:\t {} kB\nRssShmem:\t {} kB\n"


PEAKS = {"int8": 4e12, "bf16": 2e12, "f32": 1e12}


def run(side: str, number: int, decode: list[float], start: float, peak: int = 10**9, **more: Any) -> sides.Run:
    asked: sides.Run = {"prompt": 512, "depth": 16, "batch": 1, "new": 64, "reps": 3, "threads": 2}
    asked |= {"suite": "texts", "model": "m.Q4_0.gguf", "machine": MACHINE}
    asked |= {"round": f"round {number}", "time": f"2026-01-0{number}", "load": 0.5, "weights": 10**9}
    found = {"side": side, "version": "1.0", "build": "", "read_rate": 2e10, "pp_all": [100.0], "tg_all": decode}
    return {**asked, **found, "start_s": start, "peak_bytes": peak, **more}


def some_runs() -> list[sides.Run]:
    llama = "llama-cpp-python"
    return [
        run("quickbrown", 1, [10.0, 99.0, 11.0], 1.0, 500_000_000),
        run(llama, 1, [10.0], 2.0, build="with care"),
        run("transformers", 1, [1.0], 9.0, weights=None),
        run(llama, 2, [8.0], 1.0, build="with care"),
        run("quickbrown", 2, [16.0], 1.0, 500_000_000),
        run("quickbrown", 3, [9.0], 1.0, 500_000_000),
        {**run(llama, 3, [], 1.0), "failed": "took longer than 80 s"},
    ]


def cells(lines: list[str], title: str) -> list[str]:
    """The first row of the table below a title."""
    return [word.strip() for word in lines[lines.index(title) + 4].strip("|").split("|")]


def test_a_process_counts_once_and_a_ratio_is_of_one_round() -> None:
    lines = report.report(some_runs())
    assert cells(lines, "### One text: decode, tokens/s") == [
        "m.Q4_0", "2", "16", "3+2+1", "11.0 (9.0-16.0)", "9.00 (8.00-10.00)", "1.00", "1.55 (1.10-2.00)", "11.0",
    ]  # fmt: skip
    assert cells(lines, "### One text: start to first token, s")[4:] == [
        "1.00 (1.00-1.00)", "1.50 (1.00-2.00)", "9.00", "1.50 (1.00-2.00)", "9.00",
    ]  # fmt: skip
    assert cells(lines, "### One text: peak memory, MB")[-2:] == ["2.00 (2.00-2.00)", "2.00"]
    assert cells(lines, "### One text: decode, share of the memory's read rate")[4:] == [
        "0.55 (0.45-0.80)", "0.45 (0.40-0.50)", "-",
    ]  # fmt: skip
    summary = cells(lines, "### One text: how many times better than the best rival")
    assert summary == [
        "m.Q4_0", "2", "16", "3+2+1", "1.55 (1.10-2.00)", "1.50 (1.00-2.00)", "2.00 (2.00-2.00)",
        "1.00 (1.00-1.00)", "0.55 (0.45-0.80)",
    ]  # fmt: skip


def test_the_table_says_of_what_it_is() -> None:
    said = "\n".join(report.report([*some_runs(), run("quickbrown", 3, [9.0], 1.0, peaks=PEAKS)]))
    for line in (
        "- processor: a machine",
        "- quickbrown 0.1.0 abc, avx2 kernels",
        "- llama-cpp-python was built with: with care",
        "- from 2026-01-01 to 2026-01-03; load average before a round at most 0.5",
        "- a process of m.Q4_0: a prompt of 512 tokens, 64 tokens after 16, each 3 times",
        "- memory read by 2 threads before the processes: 20.0 (20.0-20.0) GB/s",
        "- peak of int8 multiply-adds, of 2 threads before the processes: 4000 GOPS",
        "- failed: llama-cpp-python, m.Q4_0.gguf, 2 threads, a prompt of 512 tokens, 64 tokens after 16, each 3 times: "
        "took longer than 80 s",
    ):
        assert f"{line}\n" in said


def test_every_table_is_whole() -> None:
    """Header, line and rows of a markdown table have as many cells, or it is not shown as one."""
    for runs in (some_runs(), some_runs()[:1]):
        for line, below in zip(lines := report.report(runs), lines[1:], strict=False):
            if line.startswith("|") and below.startswith("|"):
                assert line.count("|") == below.count("|")


def test_rows_are_of_a_model_a_number_of_threads_and_a_depth() -> None:
    asked = [(1, 16), (2, 16), (2, 99)]
    runs = [run("quickbrown", 1, [1.0], 1.0, threads=threads, depth=depth) for threads, depth in asked]
    assert list(report.rows(runs, "texts")) == [("m.Q4_0.gguf", 1, 16), ("m.Q4_0.gguf", 2, 16), ("m.Q4_0.gguf", 2, 99)]


def test_quickbrown_with_other_activations_has_a_column_and_is_no_rival() -> None:
    """It would be the best of them, and every ratio would fall to one against ourselves."""
    runs = some_runs()
    wide = [run(sides.WIDE, i, [12.0], 0.5, 400_000_000) for i in (1, 2, 3)]
    lines = report.report([*runs, *wide])
    assert cells(lines, "### One text: decode, tokens/s")[4:] == [
        "11.0 (9.0-16.0)", "12.0 (12.0-12.0)", "9.00 (8.00-10.00)", "1.00", "1.55 (1.10-2.00)", "11.0",
    ]  # fmt: skip
    before, now = ([line for line in of if line.startswith("- ")] for of in (report.report(runs), lines))
    assert before == now


def test_runs_that_do_not_belong_together_are_refused() -> None:
    ours = run("quickbrown", 1, [1.0], 1.0)
    with pytest.raises(SystemExit, match="these runs are of several machines: print them one by one"):
        report.report([ours, run("quickbrown", 2, [1.0], 1.0, machine={**MACHINE, "processor": "another"})])
    with pytest.raises(SystemExit, match=r"runs of m.Q4_0.gguf were asked for different things"):
        report.report([ours, run("quickbrown", 2, [1.0], 1.0, new=32)])
    small = run("quickbrown", 2, [1.0], 1.0, new=32, model="other.gguf")
    said = "- a process of other: a prompt of 512 tokens, 32 tokens after 16, each 3 times"
    assert said in report.report([ours, small])
    newer = {**MACHINE, "quickbrown": "0.1.0 def, avx2 kernels"}
    both = report.report([ours, run("quickbrown", 2, [1.0], 1.0, machine=newer)])
    assert "- quickbrown 0.1.0 abc, avx2 kernels; 0.1.0 def, avx2 kernels" in both


def test_kept_runs_are_printed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = some_runs()
    for name, some in (("a", runs[:3]), ("b", runs[3:])):
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in some))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    rivals.main(["--report", str(tmp_path / "a"), str(tmp_path / "b"), "--write", str(page)])
    shown = capsys.readouterr().out
    assert shown == "\n".join(report.report(runs)) + "\n"
    assert page.read_text() == f"before\n{report.BEGIN}\n{shown}{report.END}\nafter\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name what to measure with --model, or what to print with --report"),
        (["--model", "no.gguf"], "no.gguf: no such file or folder"),
        (["--model", f"{__file__},onnx=x"], "'onnx=x' is not openvino=FOLDER or transformers=FOLDER"),
        (["--model", __file__, "--rounds", "0"], "counts must be at least 1"),
        (["--model", __file__, "--new", "1"], "--new at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        rivals.main(words)
    assert said in capsys.readouterr().err


def test_a_page_without_marks_and_files_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="the page has no"):
        report.placed("a page", "a table")
    (tmp_path / "bad").write_text("no json\n")
    with pytest.raises(SystemExit, match="bad: "):
        rivals.main(["--report", str(tmp_path / "bad")])
    (tmp_path / "none").write_text("")
    with pytest.raises(SystemExit, match="nothing was measured"):
        rivals.main(["--report", str(tmp_path / "none")])


def test_memory_is_the_most_of_anonymous_and_mapped_together() -> None:
    memory = one_round.Memory()
    memory.take(STATUS.format(0, 100, 20, 3))
    memory.take(STATUS.format(900, 50, 700, 7))
    memory.take(STATUS.format(901, 500, 20, 3))
    memory.take("Name:\tx\nState:\tZ (zombie)\n")
    parts = {"anonymous_bytes": 50 * 1024, "mapped_bytes": 707 * 1024}
    assert memory.found == {"peak_bytes": 901 * 1024, **parts}


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_is_run_and_its_memory_watched() -> None:
    code = "import json, time; x = bytearray(1 << 26); time.sleep(0.3); " + (
        "print('words'); print(json.dumps({'tg_all': [2], 'first_token_at': time.monotonic()}))"
    )
    found = one_round.run(python(code), 30)
    assert found["tg_all"] == [2]
    assert 0.3 <= found["start_s"] < 30
    assert 1 << 26 <= found["anonymous_bytes"] <= found["peak_bytes"]
    assert "first_token_at" not in found


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (python("import sys; sys.exit('no such model')"), "no such model"),
        (python("raise SystemExit(3)"), "exit code 3"),
        (python("print('hello')"), "printed no line of JSON"),
        (python("import time; time.sleep(60)"), "took longer than 0.2 s"),
        (["/no/such/python"], "/no/such/python: No such file or directory"),
    ],
)
def test_a_process_that_fails_says_why(command: list[str], said: str) -> None:
    assert said in one_round.run(command, 0.2 if "60" in command[-1] else 30)["failed"]


def test_a_round_that_is_cut_off_has_failed_and_the_rest_of_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapping command may end a round; what was measured before stays, and nothing is taken for measured."""
    line = json.dumps({"side": "a", "tg_all": [1.0]})
    monkeypatch.setattr(rivals, "HERE", Path(os.devnull))  # the command that stands before it never comes to it
    cut = ["sh", "-c", f"echo '{line}'; echo cut off >&2; exit 124"]
    asked = rivals.argparse.Namespace(wrap=cut, timeout=1)
    runs = rivals.one_round(asked, 1, {"a": [], "b": []})
    assert runs == [
        {"side": "a", "tg_all": [1.0]},
        {"side": "b", "failed": "the round ended with exit code 124: cut off"},
    ]


def test_every_side_is_asked_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    words = ["--prompt", "5", "--depth", "30", "--batch", "8", "--new", "8", "--threads", "1"]
    a = driver.parse(["--model", "x", *words])
    assert (a.longest, a.batch) == (38, 8)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert driver.ids(50, 3) == driver.ids(50, 3) != driver.ids(50, 4)
    assert all(100 <= token < 30000 for token in driver.ids(500, 3))


def test_tokens_count_while_all_texts_are_being_written() -> None:
    """The second begins two steps later, and ends two later: three steps have both."""
    first, second = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3.0, 4.0, 5.0, 6.0, 16.0, 26.0]
    assert driver.rate([first, second]) == 2 * 3 / 3.0
    assert driver.rate([first]) == 1.0
    with pytest.raises(SystemExit, match="give a larger --new"):
        driver.rate([[1.0, 2.0], [3.0, 4.0]])


def test_suites_make_tables_of_their_own() -> None:
    llama, vino = "llama-cpp-python", "openvino-genai"
    operations = {"linears": {"int8": 10**10}, "attention": 10**7}
    read = {"suite": "prompts", "prompt": 399, "new": 1, "peaks": PEAKS, "operations": operations}
    written = {"suite": "batches", "prompt": 0, "batch": 8}
    runs = [
        run("quickbrown", 1, [], 1.0, pp_all=[140.0], **read),
        run(llama, 1, [], 1.0, pp_all=[28.0], **read),
        run(vino, 1, [], 1.0, pp_all=[70.0], **{**read, "operations": None}),
        run("quickbrown", 1, [30.0], 1.0, **written),
        run(llama, 1, [20.0], 1.0, **written),
        run("quickbrown", 1, [30.0], 1.0, **{**written, "batch": 32}),
    ]
    lines = report.report(runs, {"batches": "some.svg"})
    assert cells(lines, "### Prompts: prompt, tokens/s") == [
        "m.Q4_0", "2", "399", "1+1+1", "140", "28.0", "70.0", "5.00", "2.00",
    ]  # fmt: skip
    # a token takes 1e10 / 4e12 s of linears and 200 * 1e7 / 2e12 s of attention: 3.5 ms
    assert cells(lines, "### Prompts: prompt, share of the peak of multiply-adds")[4:] == ["0.49", "0.10", "-"]
    assert cells(lines, "### Texts written together: decode, tokens/s")[2:] == ["8", "1+1", "30.0", "20.0", "1.50"]
    assert lines[-1] == "![Texts written together](some.svg)"
    assert lines[-3].startswith("| m.Q4_0 | 2 | 32 | 1+0 |")
    assert not any("One text" in line for line in lines)


def test_counts_exchange_those_that_a_task_has() -> None:
    prompts, batches = sides.SUITES["prompts"], sides.SUITES["batches"]
    given = {"depth": 99, "new": 5, "reps": 2}
    assert rivals.tasks(prompts, given, None) == [sides.Task(512, reps=2), sides.Task(4096, reps=2)]
    assert rivals.tasks(batches, given, [8]) == [sides.Task(depth=99, batch=8, new=5, reps=2)]
    assert rivals.tasks(prompts, {"prompt": 64}, None) == [sides.Task(64, reps=3)]  # one row, not the same one twice


def test_pictures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'quickbrown[plot]'")
    import pictures

    operations = {"linears": {"int8": 10**10}, "attention": 10**7}
    runs = [*some_runs(), run("quickbrown", 1, [9.0], 1.0, threads=1)]
    runs.append(run("quickbrown", 1, [], 1.0, suite="prompts", peaks=PEAKS, operations=operations))
    for side in ("quickbrown", "llama-cpp-python"):
        runs += [run(side, 1, [9.0, 8.0], 1.0, suite="batches", batch=batch) for batch in (32, 1)]
        runs += [run(side, 1, [9.0], 1.0, suite="context", depth=16, model=name) for name in ("a", "b", "c")]
    found = pictures.draw(runs, tmp_path / "all.svg")
    assert {suite: path.name for suite, path in found.items()} == {
        "texts": "all.svg", "prompts": "all-prompts.svg", "batches": "all-batches.svg", "context": "all-context.svg",
    }  # fmt: skip
    assert all("</svg>" in path.read_text("utf-8") for path in found.values())
