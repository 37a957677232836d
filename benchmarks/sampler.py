"""How long one draw takes, by itself, on one thread: microseconds, and the share of a token of `--token` ms.

    python benchmarks/sampler.py [--vocabulary 49152 152064 262144] [--draws 200] [--token 13]

hot_us   the row lies in the cache, as the draw before left it (median)
cold_us  64 MB of other memory were read since (median)

Rows are as models make them where they are sure ("peaked": 50 of normal logits of deviation 2 stand 12 above the rest),
normal noise of deviation 3 ("broad": a tenth of all tokens holds 0.95), or uniform noise of width 0.01 ("flat").
"edits" are a repetition penalty of 1,000 ids and a mask that allows nine tokens of ten.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quickbrown import _native
from quickbrown.backends.native.compile import PackedWeights, emit
from quickbrown.backends.native.record import Recorder
from quickbrown.quant.weight import Weight
from quickbrown.types import Edit, EditKind

ROWS = 4


def drawer(logits: npt.NDArray[np.float32]) -> Any:
    """Draws from any logits: a plan whose result is the rows of a table of float32."""
    recorder = Recorder()
    result = recorder.rows(recorder.embed(Weight("f32", logits.shape, logits.view(np.uint8)), None), None)
    pool = _native.Pool(1)
    weights = PackedWeights(recorder.verbs, pool)
    plan = _native.Plan(pool, weights.arena, _native.KvMemory("bf16", 1, [(1, 16, 16)]))
    emit(recorder.verbs, result, weights, plan)
    every = list(range(len(logits)))
    plan.run(every, every, [0, len(logits)], [0], [0, 1], every, [])
    return _native.Draws(plan)


def edits(vocabulary: int, random: np.random.Generator) -> list[Edit]:
    ids = random.choice(vocabulary, 1000, replace=False).astype(np.int32)
    bits = np.zeros(-(-vocabulary // 32) * 32, np.bool_)
    bits[:vocabulary] = random.random(vocabulary) < 0.9
    return [
        Edit(EditKind.SCALE, ids, np.array([1.3], np.float32)),
        Edit(EditKind.ONLY, np.packbits(bits, bitorder="little").view(np.int32), np.zeros(0, np.float32)),
    ]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": ("peaked", {"temperature": 0.0}),
    "top_k 50, top_p 0.95, edits": ("peaked", {"top_k": 50, "top_p": 0.95, "edits": True}),
    "top_k 50, top_p 0.95": ("peaked", {"top_k": 50, "top_p": 0.95}),
    "top_p 0.95": ("peaked", {"top_p": 0.95}),
    "top_p 0.95, broad": ("broad", {"top_p": 0.95}),
    "top_p 0.95, flat": ("flat", {"top_p": 0.95}),
    "min_p 0.05": ("peaked", {"min_p": 0.05}),
    "temperature 1": ("peaked", {}),
    "greedy, log-probability": ("peaked", {"temperature": 0.0, "logprob": True}),
}


def rows(vocabulary: int, random: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
    noise = random.standard_normal((ROWS, vocabulary), np.float32)
    peaked = 2 * noise
    peaked[:, random.choice(vocabulary, 50, replace=False)] += 12
    return {"peaked": peaked, "broad": 3 * noise, "flat": random.random((ROWS, vocabulary), np.float32) / 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[49_152, 152_064, 262_144])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--token", type=float, default=13.0)
    a = parser.parse_args()
    other = np.ones(64 << 20, np.uint8)
    for vocabulary in a.vocabulary:
        random = np.random.default_rng(vocabulary)
        of = {kind: drawer(logits) for kind, logits in rows(vocabulary, random).items()}
        changed = [(0, edit) for edit in edits(vocabulary, random)]
        for name, (kind, options) in CASES.items():
            draw = one(of[kind], changed, **options)
            hot, cold = median(a.draws, draw, draw), median(a.draws, draw, lambda i: other.max())
            figures = {"hot_us": round(hot), "cold_us": round(cold), "share": round(cold / (1000 * a.token), 4)}
            print(json.dumps({"vocabulary": vocabulary, "draw": name, **figures}), flush=True)


def one(draws: Any, changed: list[tuple[int, Edit]], **options: Any) -> Callable[[int], None]:
    """Draws once, from one row or another, with the noise of a number."""
    single: list[npt.NDArray[Any]] = [
        np.array([options.get("temperature", 1)], np.float32),
        np.array([options.get("top_k", 0)], np.int32),
        np.array([options.get("top_p", 1)], np.float32),
        np.array([options.get("min_p", 0)], np.float32),
    ]
    seed, edits = np.array([7], np.uint64), changed if options.get("edits") else []

    def draw(i: int) -> None:
        row, position = np.array([i % ROWS], np.int32), np.array([i], np.int64)
        draws.sample(row, seed, position, *single, options.get("logprob", False), edits)

    return draw


def median(count: int, draw: Callable[[int], None], before: Callable[[int], Any]) -> float:
    """Microseconds of one draw."""
    times = []
    for i in range(count):
        before(i)
        start = time.perf_counter()
        draw(i)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    main()
