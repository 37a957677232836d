"""Where the time of a step goes that writes a token of each text: native stages, and what is done around them."""

from __future__ import annotations

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
    """Instructions of one kind, all layers together; or what a step does before, after and between them.

    count      instructions a step
    seconds    a step, on the thread that asks for it, which takes part in all of them; waiting included
    waiting    seconds a step at the barriers after them, until the last thread is through: the mean of the threads
    imbalance  how much more the busiest thread of each works, over all steps, than the mean: 0.1 is a tenth. What
               else is waited for differs from step to step, or is the barrier itself.
    bytes      of weights, or of keys and values, read a step
    """

    name: str
    count: int
    seconds: float
    waiting: float = 0.0
    imbalance: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class Profile:
    """`steps` steps, one after another; each took `seconds` to the beginning of the next: those of all stages.

    threads  that took part, mean of the steps; the pool leaves some out for a while when others compute on their cores
    """

    steps: int
    seconds: float
    threads: float
    stages: list[Stage]


class Watched:
    """Stands for the extension's `draws` and times steps in which all of `texts` texts take part: `steps` of them, one
    after another, on the engine's own thread and without a word to it in between."""

    def __init__(self, runner: NativeRunner, texts: int, steps: int) -> None:
        self._draws, self._plan, self._pool = runner.draws, runner.plan, runner.pool
        self._texts, self._steps = texts, steps
        self._seen = 0
        self.start = self.stop = 0.0  # of the first step, and of the one after the last
        self.native = 0.0  # seconds inside the extension
        self.planned = 0.0  # and of these, in the plan
        self.threads = 0  # that took part in the steps, added up
        self.lengths: list[int] = []  # keys that each token looks back on, if there is no window
        self.stages: list[tuple[int, list[float], list[float]]] = []  # of the plan; empty until all is over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._draws, name)

    def run(self, tokens: Sequence[int], positions: Sequence[int], *rest: Any) -> Any:
        if len(tokens) != self._texts or self.stages:
            return self._draws.run(tokens, positions, *rest)
        self._seen += 1
        if self._seen <= SETTLED:
            return self._draws.run(tokens, positions, *rest)
        start = time.perf_counter()
        if self._seen == SETTLED + 1:
            self._plan.profile(True)
            self.start = start = time.perf_counter()
        elif self._seen > SETTLED + self._steps:
            self.stop = start
            self.planned, self.stages = self._plan.profiled_seconds, self._plan.stages()
            self._plan.profile(False)
            return self._draws.run(tokens, positions, *rest)
        result = self._draws.run(tokens, positions, *rest)
        self.native += time.perf_counter() - start
        self.threads += self._pool.active
        self.lengths += [position + 1 for position in positions]
        return result


def profile(llm: LLM, prompts: Sequence[list[int]], new: int) -> Profile:
    """Half of the steps that continue all prompts together by `new` tokens each, greedily.

    Raises ValueError if that is too few, RuntimeError if the model failed.
    """
    runner, steps = llm.runner, max(1, new // 2)
    plan, draws = runner.plan, runner.draws
    watched = Watched(runner, len(prompts), steps)
    runner.draws = cast("Any", watched)
    try:
        write(llm, prompts, new)
    finally:
        runner.draws = draws
        llm.engine.call(lambda: plan.profile(False))  # between two steps, should any still be running
    if not watched.stages:
        raise ValueError(f"{new} tokens are too few to profile {len(prompts)} texts; give a larger new")
    seconds = (watched.stop - watched.start) / steps
    native, planned = watched.native / steps, watched.planned / steps
    kept = [heads * (-(-key // 16) + -(-value // 16)) for heads, key, value in llm.config.kv_layers]
    unit = runner.kv.block_bytes / (runner.block_size * max(1, sum(kept)))  # bytes of a token, of 16 values

    def read(verb: Verb, weights: float) -> float:
        if verb.state:
            return 4.0 * verb.state * len(watched.lengths) / steps
        if verb.name != "attention":
            return weights
        return unit * kept[verb.layer] * sum(min(length, verb.window or length) for length in watched.lengths) / steps

    reads = [read(verb, weights) for verb, (weights, _, _) in zip(runner.verbs, watched.stages, strict=True)]
    spent = np.array([(work, wait) for _, work, wait in watched.stages]) / steps  # (instructions, 2, threads)
    instructions = grouped(list(map(kind, runner.verbs)), spent[:, 0], spent[:, 1], reads)
    return Profile(
        steps,
        seconds,
        watched.threads / steps,
        [
            *instructions,
            Stage("preparing, waking threads", 1, planned - sum(stage.seconds for stage in instructions)),
            Stage("drawing, lists to and from", 1, native - planned),
            Stage("Python between steps", 1, seconds - native),
        ],
    )


def grouped(names: Sequence[str], work: Any, wait: Any, reads: Sequence[float]) -> list[Stage]:
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
