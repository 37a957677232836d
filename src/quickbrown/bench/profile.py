"""Where the time of a prompt goes, or of a step that writes a token of each text: native stages, and what is done
around them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from quickbrown.backends.native.record import Verb
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.bench.measure import write
from quickbrown.llm import LLM

SETTLED = 2  # steps of all texts that pass before the first that counts


@dataclass(frozen=True)
class Stage:
    """Instructions of one kind, all layers together; or what is done before, after and between them. Of a step that
    writes a token of each text, or of a prompt:

    count      instructions
    seconds    on the thread that asks for them, which takes part in all of them; waiting included
    waiting    seconds at the barriers after them, until the last thread is through: the mean of the threads
    imbalance  how much more the busiest thread of each works, over all steps, than the mean: 0.1 is a tenth. What
               else is waited for differs from step to step, or is the barrier itself.
    bytes      of weights, or of keys and values, read
    peak       seconds that the multiply-adds of linears and attention would take at the peak that the same kind of
               instructions reaches in registers (`Pool.peak`)
    """

    name: str
    count: int
    seconds: float
    waiting: float = 0.0
    imbalance: float = 0.0
    bytes: float = 0.0
    peak: float = 0.0


@dataclass(frozen=True)
class Profile:
    """`steps` steps, or prompts, one after another; each took `seconds` to the beginning of the next, a prompt to its
    first token: those of all stages.

    threads  that took part, mean of the steps; the pool leaves some out for a while when others compute on their cores
    """

    steps: int
    seconds: float
    threads: float
    stages: list[Stage]


class Watched:
    """Stands for the extension's `draws` and times every step, on the engine's own thread and without a word to it."""

    def __init__(self, runner: NativeRunner) -> None:
        self._draws, self._plan, self._pool = runner.draws, runner.plan, runner.pool
        self.native = 0.0  # seconds inside the extension
        self.planned = 0.0  # and of these, in the plan
        self.steps = 0
        self.threads = 0  # that took part in the steps, added up
        self.lengths: list[int] = []  # keys that each token looks back on, if there is no window
        self.rows = 0  # of logits
        self.stages: list[tuple[int, list[float], list[float]]] = []  # of the plan; empty until all is over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._draws, name)

    def run(
        self, tokens: Sequence[int], positions: Sequence[int], starts: Any, blocks: Any, block_starts: Any,
        logit_rows: Sequence[int], *rest: Any,
    ) -> Any:  # fmt: skip
        if not self.steps:
            self._plan.profile(True)
        start = time.perf_counter()
        result = self._draws.run(tokens, positions, starts, blocks, block_starts, logit_rows, *rest)
        self.native += time.perf_counter() - start
        self.steps += 1
        self.threads += self._pool.active
        self.lengths += [position + 1 for position in positions]
        self.rows += len(logit_rows)
        return result

    def end(self) -> None:
        self.planned, self.stages = self._plan.profiled_seconds, self._plan.stages()
        self._plan.profile(False)


class WatchedSteps(Watched):
    """Steps in which all of `texts` texts take part: so many, one after another."""

    def __init__(self, runner: NativeRunner, texts: int, wanted: int) -> None:
        super().__init__(runner)
        self._texts, self._wanted = texts, wanted
        self._seen = 0
        self.start = self.stop = 0.0  # of the first step, and of the one after the last

    def run(self, tokens: Sequence[int], *rest: Any) -> Any:
        if len(tokens) != self._texts or self.stages:
            return self._draws.run(tokens, *rest)
        self._seen += 1
        if self._seen <= SETTLED:
            return self._draws.run(tokens, *rest)
        if self.steps == self._wanted:
            self.stop = time.perf_counter()
            self.end()
            return self._draws.run(tokens, *rest)
        if not self.steps:
            self.start = time.perf_counter()
        return super().run(tokens, *rest)


def profile(llm: LLM, prompts: Sequence[list[int]], new: int) -> Profile:
    """Half of the steps that continue all prompts together by `new` tokens each, greedily.

    Raises ValueError if that is too few, RuntimeError if the model failed.
    """
    steps = max(1, new // 2)
    watched = WatchedSteps(llm.runner, len(prompts), steps)
    watch(llm, watched, [prompts], new)
    if not watched.stop:
        raise ValueError(f"{new} tokens are too few to profile {len(prompts)} texts; give a larger new")
    return profiled(llm, watched, steps, watched.stop - watched.start, "Python between steps")


def profile_prompts(llm: LLM, prompts: Sequence[list[int]]) -> Profile:
    """Prompts that are read one after another, each up to its first token.

    Raises RuntimeError if the model failed.
    """
    watched = Watched(llm.runner)
    seconds = watch(llm, watched, [[prompt] for prompt in prompts], 1)
    return profiled(llm, watched, len(prompts), seconds, "Python around them")


def watch(llm: LLM, watched: Watched, batches: Sequence[Sequence[list[int]]], new: int) -> float:
    """Seconds to the first token of each batch of texts, added up, each continued by `new` tokens."""
    runner, draws, seconds = llm.runner, llm.runner.draws, 0.0
    runner.draws = cast("Any", watched)
    try:
        for prompts in batches:
            start = time.perf_counter()
            seconds += max(times[0] for times in write(llm, prompts, new)) - start
    finally:
        runner.draws = draws
        # between two steps, should any still be running
        llm.engine.call(lambda: runner.plan.profile(False) if watched.stages else watched.end())
    return seconds


def profiled(llm: LLM, watched: Watched, count: int, total: float, python: str) -> Profile:
    """What was watched, by `count`."""
    runner = llm.runner
    seconds, native, planned = total / count, watched.native / count, watched.planned / count
    kept = [heads * (-(-key // 16) + -(-value // 16)) for heads, key, value in llm.config.kv_layers]
    unit = runner.kv.block_bytes / (runner.block_size * max(1, sum(kept)))  # bytes of a token, of 16 values
    planes = 2 if runner.kv_type == "int8" else 1  # what multiplies 8 bits has 16, in two planes
    peak = peaks(llm)

    def seen(verb: Verb) -> int:
        return sum(min(length, verb.window or length) for length in watched.lengths)

    def read(verb: Verb, weights: float) -> float:
        if verb.state:
            return 4.0 * verb.state * len(watched.lengths) / count
        if verb.name != "attention":
            return weights * watched.steps / count
        return unit * kept[verb.layer] * seen(verb) / count

    def at_peak(verb: Verb) -> float:
        if verb.name == "attention":
            _, key, value = llm.config.kv_layers[verb.layer]
            return 2.0 * planes * verb.heads * (key + value) * seen(verb) / peak[runner.kv_type] / count
        if verb.name not in ("linear", "gated_linear"):
            return 0.0
        tokens = watched.rows if verb.inputs[0].rows else len(watched.lengths)
        each: float = sum(2 * math.prod(weight.shape) / peak[runner.multiplies(weight)] for weight in verb.weights)
        return each * tokens / count

    reads = [read(verb, weights) for verb, (weights, _, _) in zip(runner.verbs, watched.stages, strict=True)]
    spent = np.array([(work, wait) for _, work, wait in watched.stages]) / count  # (instructions, 2, threads)
    names, least = list(map(kind, runner.verbs)), list(map(at_peak, runner.verbs))
    instructions = grouped(names, spent[:, 0], spent[:, 1], reads, least)
    return Profile(
        count,
        seconds,
        watched.threads / watched.steps,
        [
            *instructions,
            Stage("preparing, waking threads", 1, planned - sum(stage.seconds for stage in instructions)),
            Stage("drawing, lists to and from", 1, native - planned),
            Stage(python, 1, seconds - native),
        ],
    )


def peaks(llm: LLM) -> dict[str, float]:
    """Operations a second of each kind."""
    return llm.engine.call(lambda: {kind: llm.runner.pool.peak(kind) for kind in ("int8", "bf16", "f32")})


def grouped(names: Sequence[str], work: Any, wait: Any, reads: Sequence[float], least: Sequence[float]) -> list[Stage]:
    """A stage of the instructions of each name, in the order of the first.

    work, wait  (instructions, threads) seconds; a thread that did nothing at all is not counted
    """
    active = (work + wait).any(axis=0)
    work, wait = work[:, active], wait[:, active]
    found = []
    for name in dict.fromkeys(names):
        mine = [i for i, other in enumerate(names) if other == name]
        mean = work[mine].mean(axis=1).sum()
        found.append(
            Stage(
                name,
                len(mine),
                float((work + wait)[mine, 0].sum()),
                float(wait[mine].mean(axis=1).sum()),
                float(work[mine].max(axis=1).sum() / mean - 1) if mean else 0.0,
                sum(reads[i] for i in mine),
                sum(least[i] for i in mine),
            )
        )
    return found


def kind(verb: Verb) -> str:
    """What instructions of the same kind share: what they do, and how wide."""
    names = {
        "embed": "embedding",
        "gated_linear": f"gate, up, {verb.kind}",
        "rms_norm": "norm",
        "layer_norm": "norm",
        "activate": verb.kind,
    }
    words = names.get(verb.name, verb.name)
    if verb.name == "experts":
        (hidden, inputs), (outputs, _) = verb.weights[0].shape, verb.weights[2].shape
        words = f"{verb.inputs[1].width // 2} of {len(verb.weights) // 3} experts {inputs} → {hidden} → {outputs}"
    elif verb.weights:
        rows, inputs = sum(w.shape[0] for w in verb.weights), verb.weights[0].shape[1]
        words += f" {inputs} → {rows}" if verb.inputs else f" {inputs}"
    first = "norm, " if verb.norm and words != "norm" else ""
    return first + words + (" + residual" if verb.residual else "")
