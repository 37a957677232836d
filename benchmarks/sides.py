"""Who is measured, and what: the rivals of rivals.py, and the suites of tasks that make its tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OURS = "quickbrown"
WIDE = "quickbrown, bf16 activations"
Run = dict[str, Any]  # one process: what was asked, and what one_round.py printed of it


@dataclass(frozen=True)
class Side:
    script: str
    reads: tuple[str, ...]  # forms of a model, the one it likes best first
    option: str = ""  # that names its Python
    longest: int = 1 << 20  # tokens of a text that it reads in the time of a round
    keeps: bool = False  # what it knows of a text, in a file for other processes


SIDES = {
    OURS: Side("b_quickbrown.py", ("gguf",)),
    WIDE: Side("b_quickbrown_bf16.py", ("gguf",)),
    "llama-cpp-python": Side("b_llama.py", ("gguf",), "llama", keeps=True),
    "openvino-genai": Side("b_openvino.py", ("openvino", "gguf"), "openvino", longest=4096),
    "transformers": Side("b_transformers.py", ("transformers",), "transformers", longest=4096),
}
RIVALS = [name for name in SIDES if name not in (OURS, WIDE)]


@dataclass(frozen=True)
class Task:
    """What a process is asked for, in tokens: a prompt, none if 0; `batch` texts of `new` together after `depth`, none
    if `new` is 1; each `reps` times."""

    prompt: int = 0
    depth: int = 16
    batch: int = 1
    new: int = 1
    reps: int = 1

    def __str__(self) -> str:
        texts = f"{self.new} tokens after {self.depth}"
        if self.batch > 1:
            texts = f"{self.batch} texts of {texts}"
        parts = [f"a prompt of {self.prompt} tokens"] * (self.prompt > 0) + [texts] * (self.new > 1)
        return f"{', '.join(parts)}, each {self.reps} times" if self.reps > 1 else ", ".join(parts)

    @property
    def longest(self) -> int:
        return max(self.prompt, self.depth + self.new)


@dataclass(frozen=True)
class Figure:
    """One thing that is compared: its value in a run, None where that has none."""

    name: str
    value: Callable[[Run], float | None]
    more: bool = True  # is better
    compared: bool = True  # with the rivals', in ratios

    @property
    def short(self) -> str:
        return self.name.split(",")[0].lower()


def tokens_per_second(field: str) -> Callable[[Run], float | None]:
    return lambda run: statistics.median(run[field]) if run.get(field) else None


def share_of_reading(run: Run) -> float | None:
    decoded = DECODE.value(run)
    return None if decoded is None or not run["weights"] else decoded * run["weights"] / run["read_rate"]


def share_of_peak(run: Run) -> float | None:
    """Tokens a second times the seconds that a token's multiply-adds take at the machine's peaks."""
    read, task = PROMPT.value(run), run.get("operations")
    if read is None or not task:
        return None
    peaks, before = run["peaks"], (run["prompt"] + 1) / 2  # tokens that one looks back on, itself too: the mean
    seconds = sum(operations / peaks[kind] for kind, operations in task["linears"].items())
    return read * (seconds + before * task["attention"] / peaks["bf16"])


DECODE = Figure("Decode, tokens/s", tokens_per_second("tg_all"))
PROMPT = Figure("Prompt, tokens/s", tokens_per_second("pp_all"))
START = Figure("Start to first token, s", lambda run: run["start_s"], more=False)
MEMORY = Figure("Peak memory, MB", lambda run: run["peak_bytes"] / 1e6, more=False)
READING = Figure("Decode, share of the memory's read rate", share_of_reading, compared=False)
PEAK = Figure("Prompt, share of the peak of multiply-adds", share_of_peak, compared=False)


@dataclass(frozen=True)
class Suite:
    """Tasks that make the rows of some tables, one for each figure; `over` is what the tasks differ in."""

    title: str
    over: str
    figures: tuple[Figure, ...]
    tasks: tuple[Task, ...]


SUITES = {
    "texts": Suite("One text", "depth", (DECODE, START, MEMORY, PROMPT, READING), (Task(512, 16, 1, 64, 3),)),
    "prompts": Suite("Prompts", "prompt", (PROMPT, PEAK), (Task(512, reps=3), Task(4096))),
    "batches": Suite(
        "Texts written together", "batch", (DECODE,), tuple(Task(batch=n, new=32, reps=2) for n in (1, 8, 32))
    ),
    "context": Suite("Long texts", "depth", (DECODE,), tuple(Task(depth=n, new=32, reps=2) for n in (16, 4096, 16384))),
}
