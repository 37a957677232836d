"""quickbrown beside its rivals: the table of docs/benchmarks.md, in markdown.

    python benchmarks/rivals.py --model FILE.gguf [--model ...] [--llama PYTHON] [--rounds 5] [--threads 1 2]
                                [--wrap 'CMD'] [--json RUNS.jsonl]
    python benchmarks/rivals.py --report RUNS.jsonl ... [--write docs/benchmarks.md] [--plot docs/benchmarks.svg]

The first measures and prints, the second prints again what earlier ones have kept. A round is one fresh process of each
side, in turn (one_round.py); --wrap puts a command before it. Of every model, each side is started once before that,
so that all counted starts are second starts: files are in the page cache, and whatever a side keeps between starts is
there. driver.py says what a process measures.

A process counts once, with the median of its repetitions; a cell is the median (least-most) of all processes. A ratio
says how many times better quickbrown is than the rival with the best median, round by round: above 1, it is faster or
takes less. Memory is the most that a process had mapped in at any time, anonymous and of files. The share is decoded
tokens/s x bytes of the file's weights that one token reads / the read rate measured with as many threads just before;
it can pass 1 where a part of the weights stays in the cache. If a side fails, the others are still measured.

Rivals run in Pythons of their own. llama-cpp-python must be built for this machine to be a fair one:
    python -m venv llama && CMAKE_ARGS=-DGGML_NATIVE=ON llama/bin/pip install llama-cpp-python numpy
and then --llama llama/bin/python. OpenVINO GenAI (--openvino PYTHON) reads the same file, unless a folder in its own
form is named beside it; transformers (--transformers PYTHON) reads only such a folder:
    --model FILE.gguf,openvino=FOLDER,transformers=FOLDER
--bf16 measures quickbrown once more, with activations="bf16".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = "quickbrown"
WIDE = "quickbrown, bf16 activations"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
COUNTS = {"prompt": 512, "new": 64, "depth": 16, "reps": 3}
Run = dict[str, Any]  # one process: what was asked, and what one_round.py printed of it
Row = tuple[str, int, int]  # model, threads, depth


@dataclass(frozen=True)
class Side:
    script: str
    reads: tuple[str, ...]  # forms of a model, the one it likes best first
    option: str = ""  # that names its Python


SIDES = {
    OURS: Side("b_quickbrown.py", ("gguf",)),
    WIDE: Side("b_quickbrown_bf16.py", ("gguf",)),
    "llama-cpp-python": Side("b_llama.py", ("gguf",), "llama"),
    "openvino-genai": Side("b_openvino.py", ("openvino", "gguf"), "openvino"),
    "transformers": Side("b_transformers.py", ("transformers",), "transformers"),
}


@dataclass(frozen=True)
class Figure:
    """One thing that is compared: its value in a run, None where that has none."""

    name: str
    value: Callable[[Run], float | None]
    more: bool = True  # is better


def tokens_per_second(field: str) -> Callable[[Run], float | None]:
    return lambda run: statistics.median(run[field]) if run.get(field) else None


def share(run: Run) -> float | None:
    decoded = DECODE.value(run)
    return None if decoded is None or not run["weights"] else decoded * run["weights"] / run["read_rate"]


DECODE = Figure("Decode, tokens/s", tokens_per_second("tg_all"))
FIGURES = (
    DECODE,
    Figure("Start to first token, s", lambda run: run["start_s"], more=False),
    Figure("Peak memory, MB", lambda run: run["peak_bytes"] / 1e6, more=False),
    Figure("Prompt, tokens/s", tokens_per_second("pp_all")),
)
SHARE = Figure("Decode, share of the memory's read rate", share)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], type=model, metavar="FILE.gguf[,FORM=FOLDER]")
    for name, side in SIDES.items():
        if side.option:
            parser.add_argument(f"--{side.option}", metavar="PYTHON", help=f"a Python that has {name}")
    parser.add_argument("--bf16", action="store_true", help=f"also measure {WIDE}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    for name, value in (*COUNTS.items(), ("rounds", 5), ("timeout", 80)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"(default: {value})")
    parser.add_argument("--wrap", type=shlex.split, default=[], metavar="CMD", help="a command to run rounds with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every run: a line each, added at the end")
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="print runs that were kept")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table into a page, between its marks")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios into FILE.svg or FILE.png")
    a = parser.parse_args(argv)
    if bool(a.model) == bool(a.report):
        parser.error("name what to measure with --model, or what to print with --report")
    if min(*a.threads, a.rounds, a.reps, a.timeout, a.depth) < 1 or a.prompt < 0 or a.new < 2:
        parser.error("counts must be at least 1, --new at least 2; only --prompt may be 0")
    if a.plot:
        from quickbrown.bench.plot import require

        require()
    runs = read(a.report) if a.report else list(measure(a))
    if not any("failed" not in run for run in runs):
        raise SystemExit("nothing was measured")
    found = "\n".join(report(runs))
    print(found)
    if a.plot:
        plot(runs, a.plot)
    if a.write:
        picture = f"\n\n![Ratios]({os.path.relpath(a.plot, a.write.parent)})" if a.plot else ""
        a.write.write_text(placed(a.write.read_text("utf-8"), found + picture), "utf-8")


def model(text: str) -> dict[str, str]:
    """FILE.gguf,openvino=FOLDER as {"gguf": FILE.gguf, "openvino": FOLDER}."""
    file, *others = text.split(",")
    forms = {"gguf": file}
    for other in others:
        form, equals, folder = other.partition("=")
        known = sorted({form for side in SIDES.values() for form in side.reads} - {"gguf"})
        if not equals or form not in known:
            raise argparse.ArgumentTypeError(f"{other!r} is not {' or '.join(f'{name}=FOLDER' for name in known)}")
        forms[form] = folder
    for path in forms.values():
        if not Path(path).exists():
            raise argparse.ArgumentTypeError(f"{path}: no such file or folder")
    return forms


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(a: argparse.Namespace) -> Iterator[Run]:
    """Every run, as it comes; kept in a.json."""
    here = machine()
    counts = {name: getattr(a, name) for name in COUNTS}
    options = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    for forms in a.model:
        label, weights = Path(forms["gguf"]).name, bytes_per_token(forms["gguf"])
        commands = started(a, label, forms)
        for threads in a.threads:
            sides = [(name, [*words, "--threads", str(threads), *options]) for name, words in commands.items()]
            for i in range(a.rounds):
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                facts = {"round": f"{now} {os.getpid()}.{i}", "time": now, "machine": here, "load": os.getloadavg()[0]}
                facts |= {"model": label, "threads": threads, **counts}
                found = one_round(a, threads, sides)
                for run in found:
                    run |= {**facts, "weights": weights if SIDES[run["side"]].reads == ("gguf",) else None}
                    if a.json:
                        with a.json.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(run) + "\n")
                    yield run
                said = [f"{run['side']} {run.get('failed') or cell(values([run], DECODE))}" for run in found]
                note(f"{label}, {threads} threads, round {i + 1} of {a.rounds}: decode {', '.join(said)}")


def started(a: argparse.Namespace, label: str, forms: dict[str, str]) -> dict[str, list[str]]:
    """The commands of the sides that read a model in one of its forms, each run once without measuring anything."""
    commands = {}
    for name, side in SIDES.items():
        python = getattr(a, side.option) if side.option else sys.executable
        read = next((form for form in side.reads if form in forms), None)
        if python is None:
            note(f"{label}: {name} is not measured; --help says how it would be")
        elif read and (name != WIDE or a.bf16):
            commands[name] = [python, str(HERE / side.script), "--model", forms[read]]
    once = ["--threads", str(a.threads[0]), "--prompt", "0", "--new", "1"]
    for run in one_round(a, a.threads[0], [(name, [*words, *once]) for name, words in commands.items()]):
        if "failed" in run:
            note(f"{label}: {run['side']} is left out: {run['failed']}")
            del commands[run["side"]]
    return commands


def one_round(a: argparse.Namespace, threads: int, sides: Sequence[tuple[str, list[str]]]) -> list[Run]:
    """A run of each side; those that the wrapping command cut off have failed."""
    task = {"threads": threads, "timeout": a.timeout, "sides": sides}
    command = [*a.wrap, sys.executable, str(HERE / "one_round.py"), json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True)
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    known = {run["side"] for run in runs}
    why = f"the round ended with exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['no words'])[-1]}"
    return runs + [{"side": name, "failed": why} for name, _ in sides if name not in known]


def bytes_per_token(path: str) -> int:
    """Bytes of weights that one decoded token reads: all of the file's, but of an embedding that is not the head."""
    from quickbrown.weights.gguf import GgufSource

    source = GgufSource(Path(path))
    names = list(source.names())
    unread = {"model.embed_tokens.weight"} if "lm_head.weight" in names else set()
    return sum(source.get(name).data.nbytes for name in names if name not in unread)


def machine() -> dict[str, str]:
    """What the figures depend on besides the rivals."""
    from quickbrown import __version__
    from quickbrown.backends.native import variant

    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    cpu = next((value.strip() for name, value in facts.items() if name.strip() == "model name"), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    git = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "processor": f"{cpu}, {os.cpu_count()} logical cores, {memory:.0f} GB of memory",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        OURS: f"{__version__} {git.stdout.strip()}".strip() + f", {variant()['name']} kernels",
    }


def read(files: Sequence[Path]) -> list[Run]:
    """All runs of several files."""
    try:
        return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise SystemExit(f"{', '.join(map(str, files))}: {error}") from None


# -- the table --------------------------------------------------------------------------------------------------------


def rows(runs: Sequence[Run]) -> dict[Row, dict[str, list[Run]]]:
    """The runs that did not fail, by row and side, sides in the order of SIDES."""
    found: dict[Row, dict[str, list[Run]]] = {}
    for run in runs:
        if "failed" not in run:
            sides = found.setdefault((run["model"], run["threads"], run["depth"]), {name: [] for name in SIDES})
            sides[run["side"]].append(run)
    return found


def report(runs: Sequence[Run]) -> list[str]:
    """Lines of markdown: machine and versions, the ratios, and a table for each figure. Raises SystemExit for runs that
    do not belong together."""
    if len({json.dumps({**run["machine"], OURS: ""}) for run in runs}) > 1:
        raise SystemExit("these runs are of several machines: print them one by one")
    table = rows(runs)
    for row, found in table.items():
        if len({asked(run) for side in found.values() for run in side}) > 1:
            raise SystemExit(f"runs of {row[0]} were asked for different things: print them one by one")
    sides = [name for name in SIDES if any(found[name] for found in table.values())]
    heads = "".join(f" {figure.name.split(',')[0].lower()} |" for figure in FIGURES)
    lines = [
        *about(runs, sides),
        "",
        "### How many times better than the best rival",
        "",
        f"| model | threads | depth | processes |{heads} decode, share of read rate |",
        "|---" * (5 + len(FIGURES)) + "|",
    ]
    for row, found in table.items():
        shown = "".join(f" {cell(ratios(found, figure))} |" for figure in FIGURES)
        count = "+".join(str(len(found[name])) for name in sides)
        lines.append(f"| {named(row)} | {count} |{shown} {cell(values(found[OURS], SHARE))} |")
    for figure in (*FIGURES, SHARE):
        ratio = " ratio to the best rival |" if figure is not SHARE else ""
        lines += ["", f"### {figure.name}", "", f"| model | threads | depth | {' | '.join(sides)} |{ratio}"]
        lines.append("|---" * (3 + len(sides) + bool(ratio)) + "|")
        for row, found in table.items():
            cells = " | ".join(cell(values(found[name], figure)) for name in sides)
            lines.append(f"| {named(row)} | {cells} |" + (f" {cell(ratios(found, figure))} |" if ratio else ""))
    return lines


def about(runs: Sequence[Run], sides: Sequence[str]) -> Iterator[str]:
    """Machine, versions, what was asked, how fast memory was, and what failed."""
    good = [run for run in runs if "failed" not in run]
    for name, fact in good[0]["machine"].items():
        if name != OURS:
            yield f"- {name}: {fact}"
    versions = {name: sorted({run["version"] for run in good if run["side"] == name}) for name in sides}
    versions[OURS] = sorted({run["machine"][OURS] for run in runs})
    versions.pop(WIDE, None)
    for name, found in versions.items():
        yield f"- {name} {'; '.join(found)}"
    for build in sorted({f"{run['side']} was built with: {run['build']}" for run in good if run["build"]}):
        yield f"- {build}"
    times, load = sorted(run["time"] for run in good), max(run["load"] for run in runs)
    yield f"- from {times[0]} to {times[-1]}; load average before a round at most {load:.1f}"
    for words in sorted({asked(run) for run in good}):
        models = dict.fromkeys(run["model"].removesuffix(".gguf") for run in good if asked(run) == words)
        yield f"- a process of {', '.join(models)}: {words}"
    yield "- a cell: median (least-most) of the processes"
    for threads in sorted({run["threads"] for run in good}):
        rates = [run["read_rate"] / 1e9 for run in good if run["threads"] == threads]
        yield f"- memory read by {threads} threads before the processes: {cell(rates)} GB/s"
    for run in runs:
        if "failed" in run:
            yield f"- failed: {run['side']}, {run['model']}, {run['threads']} threads: {run['failed']}"


def asked(run: Run) -> str:
    """What a process was asked for, besides what is in its row."""
    return f"a prompt of {run['prompt']} tokens, {run['new']} tokens after the depth, each {run['reps']} times"


def named(row: Row) -> str:
    return f"{row[0].removesuffix('.gguf')} | {row[1]} | {row[2]}"


def values(runs: Sequence[Run], figure: Figure) -> list[float]:
    return [value for run in runs if (value := figure.value(run)) is not None]


def ratios(found: dict[str, list[Run]], figure: Figure) -> list[float]:
    """How many times better ours is than the best rival's, of each round that has both."""
    rivals = {name: values(runs, figure) for name, runs in found.items() if name not in (OURS, WIDE)}
    medians = {name: statistics.median(numbers) for name, numbers in rivals.items() if numbers}
    if not medians:
        return []
    best = (max if figure.more else min)(medians, key=lambda name: medians[name])
    theirs = {run["round"]: figure.value(run) for run in found[best]}
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


def plot(runs: Sequence[Run], path: Path) -> None:
    """The ratios as bars: a group a row, a colour a figure, whiskers from the least to the most. Right is better."""
    from matplotlib.figure import Figure as Picture
    from matplotlib.ticker import ScalarFormatter

    table = rows(runs)
    picture = Picture(figsize=(8, 1.5 + 0.75 * len(table)), layout="constrained")
    axes = picture.subplots()
    high = 0.8 / len(FIGURES)
    for k, figure in enumerate(FIGURES):
        found = [(i, ratios(sides, figure)) for i, sides in enumerate(table.values())]
        found = [(i, numbers) for i, numbers in found if numbers]
        medians = [statistics.median(numbers) for _, numbers in found]
        below = [median - min(numbers) for median, (_, numbers) in zip(medians, found, strict=True)]
        above = [max(numbers) - median for median, (_, numbers) in zip(medians, found, strict=True)]
        places = [i + (k - (len(FIGURES) - 1) / 2) * high for i, _ in found]
        widths, label = [median - 1 for median in medians], figure.name.split(",")[0].lower()
        axes.barh(places, widths, high, left=1, xerr=[below, above], capsize=2, label=label)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(table)), [f"{m.removesuffix('.gguf')}, {t} threads, depth {d}" for m, t, d in table])
    axes.invert_yaxis()
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("how many times better than the best rival: faster, or less")
    picture.legend(loc="outside lower center", ncols=len(FIGURES))
    picture.savefig(path)


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
