"""What the scripts b_*.py share: one command line, one way of measuring, one JSON line.

    PYTHON benchmarks/b_NAME.py --model MODEL [--prompt 512] [--new 64] [--depth 16] [--batch 1] [--threads 2]
                                [--reps 3] [--kept FOLDER]

start_s         process start to the first token of a 16-token prompt: imports, loading and warming up included
first_token_at  when that was, `time.monotonic` seconds
pp_all, pp_tps  prompt tokens a second of a --prompt token prompt, up to its first token: --reps of them, their median
tg_all, tg_tps  tokens a second while --batch texts are written together, all of them, after the first of --new each,
                with --depth tokens read before
Greedy; an end of text is not heeded. With --prompt 0 or --new 1, that part is left out. Prompts are new to the engine;
the texts that are written are the same each time, and it may know them, from an earlier process too if --kept names a
folder for what it keeps of them. Needs no package, so that it runs in any rival's Python.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

START = 16  # tokens of the first prompt
Stamps = list[list[float]]  # of each text, when each of its tokens was there: seconds from the call


class Engine(Protocol):
    version: str
    build: str  # how it was made, where the library says; else empty

    def settle(self) -> None:
        """Wait for what a start has left to do after its first token."""
        ...

    def generate(self, texts: list[list[int]], new: int, *, known: bool) -> Stamps:
        """Write `new` tokens after each text, all together; what is known of known texts need not be read again."""
        ...


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `longest` is the most tokens of a text, `threads` is also what OpenMP and its kin are told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    for name, value in (("prompt", 512), ("new", 64), ("depth", 16), ("batch", 1), ("threads", 2), ("reps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--kept", type=Path)
    a = parser.parse_args(argv)
    a.longest = max(a.prompt + 1, a.depth + a.new, START + 1)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = str(a.threads)
    return a


def drive(name: str, start: Callable[[argparse.Namespace], Engine]) -> None:
    """Start an engine, measure it, print the line and leave, without tearing down what was made in C."""
    a = parse()
    engine = start(a)
    engine.generate([ids(START)], 1, known=False)
    first_token_at, start_s = time.monotonic(), process_age()
    engine.settle()
    found: dict[str, Any] = {"side": name, "version": engine.version, "build": engine.build, "threads": a.threads}
    found |= {"start_s": round(start_s, 3), "first_token_at": first_token_at}
    if a.prompt:
        prompts = [a.prompt / engine.generate([ids(a.prompt, 2 + i)], 1, known=False)[0][0] for i in range(a.reps)]
        found |= {"pp_tps": round(statistics.median(prompts), 2), "pp_all": prompts}
    if a.new > 1:
        texts = [ids(a.depth, 100 + i) for i in range(a.batch)]
        engine.generate(texts, 2, known=True)  # warm-up
        decodes = [rate(engine.generate(texts, a.new, known=True)) for _ in range(a.reps)]
        found |= {"tg_tps": round(statistics.median(decodes), 2), "tg_all": decodes}
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


def rate(stamps: Stamps) -> float:
    """Tokens a second while all texts are being written, each a token a step. Before, some are still being read, and
    after, some have ended."""
    last = max(stamps, key=lambda times: times[0])
    ahead = max(sum(moment <= last[0] for moment in times) for times in stamps) - 1  # tokens, of the first to begin
    steps = len(last) - 1 - ahead
    if steps < 1:
        raise SystemExit(f"{len(stamps)} texts are not all being written before the first ends; give a larger --new")
    return len(stamps) * steps / (last[steps] - last[0])


def process_age() -> float:
    """Seconds since this process was started, to about a hundredth."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def ids(count: int, seed: int = 1, vocabulary: int = 30000) -> list[int]:
    """`count` reproducible token ids."""
    state, found = seed * 7919 + 17, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        found.append(100 + state % (vocabulary - 100))
    return found
