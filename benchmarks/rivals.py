"""quickbrown beside llama-cpp-python on one GGUF file, as a table in markdown.

    python benchmarks/rivals.py --model FILE.gguf --llama PYTHON [--rounds 3] [--threads 1 2]

PYTHON is one that has llama-cpp-python, best in a venv of its own. Each figure comes from fresh processes, the two
libraries in turn, with the same counts of tokens; a cell is the median (least-most) of all repetitions of all rounds,
a ratio that of the medians, above 1 where quickbrown is better. Before each pair all threads read 512 MB of plain
memory; the share is decoded tokens x bytes of weights read for each / the median of these reads, and can pass 1 where a
part of the weights stays in the cache. If one library fails, the other is still measured. How the rival was built is
printed: CMAKE_ARGS=-DGGML_NATIVE=ON gives it this machine's instructions, without which it is no fair rival. So is the
load average: above about the processes measured here, others computed too, and the ratios are theirs as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quickbrown.backends.native import measure_read_bandwidth
from quickbrown.weights.gguf import GgufSource

HERE = Path(__file__).parent
INSTALL = (
    "python -m venv llama && CMAKE_ARGS=-DGGML_NATIVE=ON llama/bin/pip install llama-cpp-python numpy, "
    "then --llama llama/bin/python"
)
ROWS = {  # words, field, whether more is better
    "prompt, tokens/s": ("pp_all", True),
    "decode, tokens/s": ("tg_all", True),
    "start to first token, s": ("load_s", False),
    "peak memory, MB": ("end_peak_rss_mb", False),
}
Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--llama", metavar="PYTHON", help="a Python that has llama-cpp-python")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    counts = ("prompt", 512), ("new", 64), ("depth", 16), ("reps", 3)
    for name, value in (*counts, ("rounds", 3), ("timeout", 600)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    if a.llama is None:
        note(f"llama-cpp-python is not measured. To install it: {INSTALL}")
    pythons = {"quickbrown": (sys.executable, "b_quickbrown.py"), "llama-cpp-python": (a.llama, "b_llama.py")}
    options = [word for name, _ in counts for word in (f"--{name}", str(getattr(a, name)))]
    size = bytes_per_token(a.model)
    for threads in a.threads:
        runs: dict[str, list[Run]] = {name: [] for name in pythons}
        reads = []
        for _ in range(a.rounds):
            reads.append(measure_read_bandwidth(threads))
            for name, (python, script) in pythons.items():
                if python is not None:
                    command = [python, str(HERE / script), "--model", a.model, "--threads", str(threads), *options]
                    runs[name] += run(name, command, a.timeout)
        print("\n".join(table(runs, threads, reads, size)), flush=True)


def run(name: str, command: list[str], timeout: float) -> list[Run]:
    """The figures of one process; none, and a note of why, if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
        found: Run = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        note(f"{name} failed: {said[-1]}")
        if "llama_cpp" in said[-1]:
            note(f"to install it: {INSTALL}")
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        note(f"{name} failed: {error}")
    else:
        return [found]
    return []


def bytes_per_token(path: str) -> int:
    """Bytes of weights that one decoded token reads: all of the file's, but of an embedding that is not the head."""
    source = GgufSource(path)
    names = list(source.names())
    unread = {"model.embed_tokens.weight"} if "lm_head.weight" in names else set()
    return sum(source.get(name).data.nbytes for name in names if name not in unread)


def table(runs: dict[str, list[Run]], threads: int, reads: Sequence[float], size: int) -> list[str]:
    names = list(runs)
    versions = [f"{name} {runs[name][0]['version']}" if runs[name] else f"{name} (not measured)" for name in names]
    found = [f"\n| {threads} threads | {' | '.join(versions)} | ratio |", "|---|---|---|---|"]
    for words, (field, more) in ROWS.items():
        columns = [values(runs[name], field) for name in names]
        found.append(f"| {words} | {' | '.join(map(cell, columns))} | {ratio(columns[0], columns[1], more)} |")
    rate = statistics.median(reads)
    shares = [cell([x * size / rate for x in values(runs[name], "tg_all")]) for name in names]
    found.append(f"| decode, share of the read rate | {' | '.join(shares)} | |")
    read = cell([x / 1e9 for x in reads])
    for name in names:
        found += [f"\n{name} was built with: {one['build']}" for one in runs[name][:1] if "build" in one]
    plain = f"\nPlain reads, {threads} threads: {read} GB/s; weights read for a token: {size / 1e6:.1f} MB."
    return [*found, f"{plain} Load average at the end: {os.getloadavg()[0]:.1f}."]


def values(runs: Sequence[Run], field: str) -> list[float]:
    """One field of all runs; the repetitions of a run one by one."""
    return [x for run in runs for x in (run[field] if isinstance(run[field], list) else [run[field]])]


def cell(numbers: Sequence[float]) -> str:
    if not numbers:
        return "-"
    median = statistics.median(numbers)
    digits = 0 if median >= 100 else 1 if median >= 10 else 2
    return f"{median:.{digits}f} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float], more: bool) -> str:
    """How many times better ours is."""
    if not ours or not theirs:
        return "-"
    x, y = statistics.median(ours), statistics.median(theirs)
    return f"{x / y if more else y / x:.2f}"


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
