"""The tables of rivals.py, in markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence

from sides import OURS, RIVALS, SIDES, SUITES, WIDE, Figure, Run, Suite, Task

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Row = tuple[str, int, int]  # model, threads, and what its suite's tasks differ in
Table = dict[Row, dict[str, list[Run]]]  # runs of each side


def report(runs: Sequence[Run], pictures: Mapping[str, str] | None = None) -> list[str]:
    """Lines of markdown: machine and versions, then of each suite a table a figure, and its picture. Raises SystemExit
    for runs that do not belong together."""
    if len({json.dumps({**run["machine"], OURS: ""}) for run in runs}) > 1:
        raise SystemExit("these runs are of several machines: print them one by one")
    lines = list(about(runs))
    for name, suite in SUITES.items():
        if table := rows(runs, name):
            lines += section(suite, table)
            if pictures and name in pictures:
                lines += ["", f"![{suite.title}]({pictures[name]})"]
    return lines


def rows(runs: Sequence[Run], suite: str) -> Table:
    """The runs of a suite that did not fail, by row and side, sides in the order of SIDES."""
    found: Table = {}
    for run in runs:
        if "failed" not in run and run["suite"] == suite:
            row = (run["model"], run["threads"], run[SUITES[suite].over])
            found.setdefault(row, {name: [] for name in SIDES})[run["side"]].append(run)
    return found


def about(runs: Sequence[Run]) -> Iterator[str]:
    """Machine, versions, what was asked, how fast the machine was, and what failed."""
    good = [run for run in runs if "failed" not in run]
    for name, fact in good[0]["machine"].items():
        if name != OURS:
            yield f"- {name}: {fact}"
    versions = {name: sorted({run["version"] for run in good if run["side"] == name}) for name in SIDES}
    versions[OURS] = sorted({run["machine"][OURS] for run in runs})
    for name, found in versions.items():
        if found and name != WIDE:
            yield f"- {name} {'; '.join(found)}"
    for build in sorted({f"{run['side']} was built with: {run['build']}" for run in good if run["build"]}):
        yield f"- {build}"
    times, load = sorted(run["time"] for run in good), max(run["load"] for run in runs)
    yield f"- from {times[0]} to {times[-1]}; load average before a round at most {load:.1f}"
    for words in dict.fromkeys(str(asked(run)) for run in good):
        models = dict.fromkeys(stem(run["model"]) for run in good if str(asked(run)) == words)
        yield f"- a process of {', '.join(models)}: {words}"
    yield "- a cell: median (least-most) of the processes"
    for threads in sorted({run["threads"] for run in good}):
        mine = [run for run in good if run["threads"] == threads]
        rates = [run["read_rate"] / 1e9 for run in mine]
        yield f"- memory read by {threads} threads before the processes: {cell(rates)} GB/s"
        for kind in ("int8", "bf16", "f32"):
            if rates := [run["peaks"][kind] / 1e9 for run in mine if "peaks" in run]:
                yield f"- peak of {kind} multiply-adds, of {threads} threads before the processes: {cell(rates)} GOPS"
    for run in runs:
        if "failed" in run:
            yield f"- failed: {run['side']}, {run['model']}, {run['threads']} threads, {asked(run)}: {run['failed']}"


def asked(run: Run) -> Task:
    return Task(*(run[name] for name in ("prompt", "depth", "batch", "new", "reps")))


def section(suite: Suite, table: Table) -> Iterator[str]:
    """The tables of a suite: of its figures, and if there are several that are compared, of the best ratios first.
    Raises SystemExit if a row's runs were asked for different things."""
    for row, found in table.items():
        if len({asked(run) for runs in found.values() for run in runs}) > 1:
            raise SystemExit(f"runs of {row[0]} were asked for different things: print them one by one")
    sides = [name for name in SIDES if any(found[name] for found in table.values())]
    if sum(figure.compared for figure in suite.figures) > 1:
        heads = [figure.short for figure in suite.figures if figure.compared]
        shares = [figure.name.lower() for figure in suite.figures if not figure.compared]
        yield from header(suite, "how many times better than the best rival", ["processes", *heads, *shares])
        for row, found in table.items():
            best = [
                cell(ratios(found, figure, best_rival(found, figure))) for figure in suite.figures if figure.compared
            ]
            own = [cell(values(found[OURS], figure)) for figure in suite.figures if not figure.compared]
            yield line(row, [processes(found, sides), *best, *own])
    for figure in suite.figures:
        rivals = [name for name in sides if name in RIVALS] if figure.compared else []
        yield from header(suite, figure.name, ["processes", *sides, *(f"ratio to {name}" for name in rivals)])
        for row, found in table.items():
            cells = [cell(values(found[name], figure)) for name in sides]
            yield line(row, [processes(found, sides), *cells, *(cell(ratios(found, figure, name)) for name in rivals)])


def header(suite: Suite, title: str, columns: Sequence[str]) -> Iterator[str]:
    names = ["model", "threads", suite.over, *columns]
    yield from ("", f"### {suite.title}: {title[0].lower()}{title[1:]}", "")
    yield f"| {' | '.join(names)} |"
    yield "|---" * len(names) + "|"


def line(row: Row, cells: Sequence[str]) -> str:
    model, threads, value = row
    return f"| {' | '.join([stem(model), str(threads), str(value), *cells])} |"


def stem(model: str) -> str:
    return model.removesuffix(".gguf")


def processes(found: Mapping[str, Sequence[Run]], sides: Sequence[str]) -> str:
    return "+".join(str(len(found[name])) for name in sides)


def values(runs: Sequence[Run], figure: Figure) -> list[float]:
    return [value for run in runs if (value := figure.value(run)) is not None]


def best_rival(found: Mapping[str, Sequence[Run]], figure: Figure) -> str | None:
    """The one with the best median."""
    medians = {name: statistics.median(of) for name in RIVALS if (of := values(found[name], figure))}
    return (max if figure.more else min)(medians, key=lambda name: medians[name]) if medians else None


def ratios(found: Mapping[str, Sequence[Run]], figure: Figure, rival: str | None) -> list[float]:
    """How many times better ours is than a rival's, of each round that has both."""
    theirs = {run["round"]: figure.value(run) for run in found[rival]} if rival else {}
    pairs = [(figure.value(run), theirs.get(run["round"])) for run in found[OURS]]
    return [ours / other if figure.more else other / ours for ours, other in pairs if ours and other]


def cell(numbers: Sequence[float]) -> str:
    """Median (least-most)."""
    if not numbers:
        return "-"
    median = statistics.median(numbers)
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    if len(numbers) == 1:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"


def placed(page: str, found: str) -> str:
    """The page with what stands between its marks exchanged."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no {BEGIN} and {END} to write between")
    return f"{before}{begin}\n{found}\n{end}{after}"
