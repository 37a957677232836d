"""quickbrown beside its rivals: the tables of docs/benchmarks.md, in markdown.

    python benchmarks/rivals.py --model FILE.gguf [--model ...] [--llama PYTHON] [--suite texts prompts batches context]
                                [--rounds 5] [--threads 2] [--wrap 'CMD'] [--json RUNS.jsonl]
    python benchmarks/rivals.py --report RUNS.jsonl ... [--write docs/benchmarks.md] [--plot docs/benchmarks.svg]

The first measures and prints, the second prints again what earlier ones have kept. sides.py has the suites: what is
asked of every model, a table each. --at measures some rows of a table only, --reps and the other counts exchange its
own. A round is one fresh process of each side, in turn (one_round.py); --wrap puts a command before it. Of every model,
each side is started once before that, so that all counted starts are second starts: files are in the page cache, and
whatever a side keeps between starts is there. driver.py says what a process measures.

A process counts once, with the median of its repetitions; a cell is the median (least-most) of all processes. A ratio
says how many times better quickbrown is than a rival, round by round: above 1, it is faster or takes less. Memory is
the most that a process had mapped in at any time, anonymous and of files. The share of the read rate is decoded
tokens/s x bytes of the file's weights that one token reads / the read rate measured with as many threads just before;
it can pass 1 where a part of the weights stays in the cache. The share of the peak is prompt tokens/s x the time that
the multiply-adds of a token would take, had they the peak rates that quickbrown's instructions reach in registers,
measured with as many threads just before: those of linears in int8 or bf16, as the weights want it, and those of
attention in bf16. If a side fails, the others are still measured.

Rivals run in Pythons of their own. llama-cpp-python must be built for this machine to be a fair one:
    python -m venv llama && CMAKE_ARGS=-DGGML_NATIVE=ON llama/bin/pip install llama-cpp-python numpy
and then --llama llama/bin/python. OpenVINO GenAI (--openvino PYTHON) reads the same file, unless a folder in its own
form is named beside it; transformers (--transformers PYTHON) reads only such a folder:
    --model FILE.gguf,openvino=FOLDER,transformers=FOLDER
--bf16 measures quickbrown once more, with activations="bf16".

Before a long text is continued, it is read, which only the first of llama.cpp's processes does: it keeps what it knows
of the text in --kept. OpenVINO and transformers are not asked for texts that would take them minutes each time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from report import cell, placed, report, values
from sides import DECODE, OURS, PROMPT, SIDES, SUITES, WIDE, Run, Suite, Task

HERE = Path(__file__).parent
COUNTS = ("prompt", "depth", "batch", "new", "reps")
LONG = 1024  # tokens of a text that is worth keeping


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], type=model, metavar="FILE.gguf[,FORM=FOLDER]")
    for name, side in SIDES.items():
        if side.option:
            parser.add_argument(f"--{side.option}", metavar="PYTHON", help=f"a Python that has {name}")
    parser.add_argument("--bf16", action="store_true", help=f"also measure {WIDE}")
    parser.add_argument("--suite", nargs="+", choices=SUITES, default=["texts"], help="(default: texts)")
    parser.add_argument(
        "--at", type=int, nargs="+", metavar="N", help="only the rows of these prompts, batches, depths"
    )
    for name in COUNTS:
        parser.add_argument(f"--{name}", type=int, metavar="N", help="in the place of the suite's own")
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    for name, value in (("rounds", 5), ("timeout", 80)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"(default: {value})")
    parser.add_argument("--wrap", type=shlex.split, default=[], metavar="CMD", help="a command to run rounds with")
    parser.add_argument(
        "--kept", type=Path, default=Path(tempfile.gettempdir()) / "quickbrown-rivals", metavar="FOLDER"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every run: a line each, added at the end")
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="print runs that were kept")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the tables into a page, between its marks")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them into FILE.svg or FILE.png, FILE-SUITE.svg")
    a = parser.parse_args(argv)
    if bool(a.model) == bool(a.report):
        parser.error("name what to measure with --model, or what to print with --report")
    given = {name: count for name in COUNTS if (count := getattr(a, name)) is not None}
    if min(*a.threads, a.rounds, a.timeout, *(n for name, n in given.items() if name != "prompt"), 1) < 1:
        parser.error("counts must be at least 1; only --prompt may be 0")
    if given.get("prompt", 0) < 0 or given.get("new", 2) < 2:
        parser.error("--prompt must be at least 0, --new at least 2")
    if a.plot:
        from quickbrown.bench.plot import require

        require()
    asked = {name: tasks(SUITES[name], given, a.at) for name in a.suite}
    runs = read(a.report) if a.report else list(measure(a, asked))
    if not any("failed" not in run for run in runs):
        raise SystemExit("nothing was measured")
    pictures = {}
    if a.plot:
        from pictures import draw

        pictures = draw(runs, a.plot)
    print("\n".join(report(runs)))
    if a.write:
        links = {suite: os.path.relpath(path, a.write.parent) for suite, path in pictures.items()}
        a.write.write_text(placed(a.write.read_text("utf-8"), "\n".join(report(runs, links))), "utf-8")


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


def tasks(suite: Suite, given: dict[str, int], at: Sequence[int] | None) -> list[Task]:
    """A suite's tasks, or those of some rows, with the counts that they have exchanged for what was given."""
    found: dict[int, Task] = {}
    for task in suite.tasks:
        if not at or getattr(task, suite.over) in at:
            used = ["reps", *(["prompt"] if task.prompt else []), *(["depth", "batch", "new"] if task.new > 1 else [])]
            task = replace(task, **{name: given[name] for name in used if name in given})
            found.setdefault(getattr(task, suite.over), task)
    return list(found.values())


def measure(a: argparse.Namespace, asked: dict[str, list[Task]]) -> Iterator[Run]:
    """Every run, as it comes; kept in a.json."""
    here = machine()
    for forms in a.model:
        label, facts = Path(forms["gguf"]).name, described(forms["gguf"])
        commands = started(a, label, forms)
        for suite, task in ((suite, task) for suite, tasks in asked.items() for task in tasks):
            if task.longest > facts["longest"]:
                note(f"{label}: its context of {facts['longest']} tokens is too short for {task}")
                continue
            sides = told(a, commands, task)
            for threads, i in product(a.threads, range(a.rounds)):
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                about = {"round": f"{now} {os.getpid()}.{i}", "time": now, "load": os.getloadavg()[0], "machine": here}
                about |= {"suite": suite, "model": label, "threads": threads, **asdict(task)}
                found = one_round(a, threads, sides)
                for run in found:
                    weights = facts["weights"] if SIDES[run["side"]].reads == ("gguf",) else None
                    run |= {**about, "weights": weights, "operations": facts["operations"]}
                    if a.json:
                        with a.json.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(run) + "\n")
                    yield run
                figure = DECODE if task.new > 1 else PROMPT
                said = [f"{run['side']} {run.get('failed') or cell(values([run], figure))}" for run in found]
                note(f"{label}, {threads} threads, {task}, round {i + 1} of {a.rounds}: {', '.join(said)}")


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
    once = {name: [*words, "--prompt", "0", "--new", "1"] for name, words in commands.items()}
    for run in one_round(a, a.threads[0], once):
        if "failed" in run:
            note(f"{label}: {run['side']} is left out: {run['failed']}")
            del commands[run["side"]]
    return commands


def told(a: argparse.Namespace, commands: dict[str, list[str]], task: Task) -> dict[str, list[str]]:
    """The commands of the sides that can do a task in time. Those that keep what they know of a long text read it now,
    which may take minutes."""
    sides = {}
    for name, words in commands.items():
        side = SIDES[name]
        if max(task.prompt, task.depth) <= side.longest:
            counts = [word for count, value in asdict(task).items() for word in (f"--{count}", str(value))]
            sides[name] = [*words, *counts]
            if side.keeps and task.depth > LONG:
                a.kept.mkdir(parents=True, exist_ok=True)
                sides[name] += ["--kept", str(a.kept)]
                once = ["--threads", str(max(a.threads)), "--prompt", "0", "--new", "2", "--reps", "1"]
                subprocess.run([*sides[name], *once], stdout=subprocess.DEVNULL)
    return sides


def one_round(a: argparse.Namespace, threads: int, sides: dict[str, list[str]]) -> list[Run]:
    """A run of each side; those that the wrapping command cut off have failed."""
    commands = [(name, [*words, "--threads", str(threads)]) for name, words in sides.items()]
    task = {"threads": threads, "timeout": a.timeout, "sides": commands}
    done = subprocess.run(
        [*a.wrap, sys.executable, str(HERE / "one_round.py"), json.dumps(task)], capture_output=True, text=True
    )
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    known = {run["side"] for run in runs}
    why = f"the round ended with exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['no words'])[-1]}"
    return runs + [{"side": name, "failed": why} for name in sides if name not in known]


def described(path: str) -> dict[str, Any]:
    """Of a model: `weights`, the bytes of them that one decoded token reads: all of the file's, but of an embedding
    that is not the head; `operations` of one token of a prompt, two to a multiply-add: of its linears, by what they
    multiply, and of attention, for each token that it looks back on; `longest`, the tokens of its context."""
    from quickbrown import _native
    from quickbrown.llm import configured
    from quickbrown.quant.formats import FORMATS
    from quickbrown.weights.gguf import GgufSource

    source = GgufSource(Path(path))
    config, names = configured(source), set(source.names())
    head = "lm_head.weight" if "lm_head.weight" in names else "model.embed_tokens.weight"
    weights = {name: source.get(name) for name in names - ({"model.embed_tokens.weight"} - {head})}
    linears: dict[str, int] = {}
    for name, weight in weights.items():
        if len(weight.shape) == 2 and name != head:
            kind = _native.activation(FORMATS[weight.format].held or weight.format)
            linears[kind] = linears.get(kind, 0) + 2 * weight.shape[0] * weight.shape[1]
    attention = sum(2 * config.num_attention_heads * (key + value) for _, key, value in config.kv_layers)
    return {
        "weights": sum(weight.data.nbytes for weight in weights.values()),
        "operations": {"linears": linears, "attention": attention},
        "longest": config.max_position_embeddings,
    }


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
        runs = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise SystemExit(f"{', '.join(map(str, files))}: {error}") from None
    return [{"suite": "texts", "batch": 1, **run} for run in runs]  # what those before there were suites did not say


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
