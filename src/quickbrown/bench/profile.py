"""Where the time of a written token goes: each kind of instruction, the drawing, and what is around them."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from quickbrown.backends.native.record import Verb
from quickbrown.bench.measure import Task, ids
from quickbrown.llm import LLM


@dataclass
class Stage:
    """Instructions of one kind, all layers together.

    count    instructions
    seconds  a step, from the first thread's beginning to the last one's end
    waiting  seconds a step that a thread waits for the others, on average
    bytes    of weights read a step
    """

    name: str
    count: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    bytes: float = 0.0


class Timed:
    """An object of the extension whose `run` is timed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, *args: Any) -> Any:
        start = time.perf_counter()
        result = self._inner.run(*args)
        self.seconds += time.perf_counter() - start
        return result


def profile(llm: LLM, task: Task) -> list[Stage]:
    """The stages of a step that writes a token of each of `task.batch` texts, after `task.depth` tokens, greedily.

    The last two are no instructions: drawing, with what a step does before its first instruction, and what is between
    two steps: scheduling, text, other threads. Raises ValueError if the texts do not fit the model's context.
    """
    facts = llm.info()
    task.fit(facts["context"])
    plan, draws = llm.runner.plan, llm.runner.draws
    prompts = [ids(task.depth, 1 + i, facts["vocabulary"]) for i in range(task.batch)]
    llm.runner.draws = timed = Timed(draws)

    def begin() -> float:
        plan.profile(True)
        timed.seconds = 0.0
        return time.perf_counter()

    def end() -> tuple[float, float, int, list[Any]]:
        found = time.perf_counter(), timed.seconds, plan.profiled_steps, plan.stages()
        plan.profile(False)
        return found

    try:
        stream = llm.stream_batch(prompts, max_new_tokens=task.new, temperature=0.0, ignore_eos=True)
        with closing(stream):
            pieces = iter(stream)
            for _ in range(task.batch):
                next(pieces)
            # On the engine's thread, between two steps: after the prompts, and well before the texts end.
            start = llm.engine.call(begin)
            while llm.engine.call(lambda: plan.profiled_steps) < task.new // 2:
                time.sleep(0.002)
            stop, native, steps, found = llm.engine.call(end)
    finally:
        llm.runner.draws = draws

    stages: dict[str, Stage] = {}
    for verb, (read, work, wait) in zip(llm.runner.verbs, found, strict=True):
        stage = stages.setdefault(kind(verb), Stage(kind(verb)))
        stage.count += 1
        stage.seconds += max(a + b for a, b in zip(work, wait, strict=True)) / steps
        stage.waiting += sum(wait) / len(wait) / steps
        stage.bytes += read / steps
    known = sum(stage.seconds for stage in stages.values())
    around = [
        Stage("preparing and drawing", 1, native / steps - known),
        Stage("between two steps", 1, (stop - start - native) / steps),
    ]
    return [*stages.values(), *around]


def kind(verb: Verb) -> str:
    """What instructions of the same kind share: what they do, and how wide."""
    words = {"embed": "embedding", "linear": "linear", "gated": "gate, up, silu"}.get(verb.name, verb.name)
    if verb.weights:
        rows, inputs = sum(w.shape[0] for w in verb.weights), verb.weights[0].shape[1]
        words += f" {inputs} → {rows}" if verb.inputs else f" {inputs}"
    first = "norm, " if verb.norm and verb.name != "rms_norm" else ""
    return first + words + (" + residual" if verb.residual else "")


def table(stages: list[Stage]) -> list[str]:
    """Lines that show the stages, in microseconds a step."""
    total = sum(stage.seconds for stage in stages)
    wide = max(len(stage.name) for stage in stages)
    lines = [f"{'':{wide}}   times        us   share    GB/s  waiting us"]
    for stage in [*stages, Stage("a step", 0, total, sum(s.waiting for s in stages), sum(s.bytes for s in stages))]:
        rate = f"{stage.bytes / stage.seconds / 1e9:8.1f}" if stage.bytes else " " * 8
        times = f"{stage.count or '':>8}"
        lines.append(
            f"{stage.name:{wide}}{times}{stage.seconds * 1e6:10.1f}{stage.seconds / total:8.1%}{rate}"
            f"{stage.waiting * 1e6:12.1f}"
        )
    return lines
