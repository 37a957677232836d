"""Gaps between the tokens of texts being written while a long prompt arrives: what reading it costs the others.

    python benchmarks/mixed.py [--model smollm2-135m] [--streams 31] [--prompt 4096] [--depth 16] [--threads 2]

alone_ms    from one token of a text to its next, while --streams texts behind --depth tokens each are written alone:
            before the prompt and after it, since texts grow; the median and the 95th percentile of all of them
during_ms   the same from the arrival of a --prompt token prompt to its first token
ratio       of the medians, and of the 95th percentiles
read_s      from the arrival of the prompt to its first token
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from queue import SimpleQueue

from driver import ids
from quickbrown import LLM
from quickbrown.llm import Job
from quickbrown.streams import Text
from quickbrown.types import SamplingParams
from quickbrown.weights.kept import finish

STEPS = 48  # written before the prompt arrives, and after it was read


def gaps(times: Sequence[Sequence[float]], begin: float, end: float) -> list[float]:
    """Between the tokens of each text, those that lie in a span."""
    return [b - a for one in times for a, b in pairwise(one) if begin <= a and b <= end]


def figures(seconds: list[float]) -> tuple[float, float]:
    """The median and the 95th percentile, in milliseconds."""
    return 1e3 * statistics.median(seconds), 1e3 * statistics.quantiles(seconds, n=20)[-1]


def measure(llm: LLM, streams: int, prompt: int, depth: int, seed: int) -> tuple[list[float], list[float], float]:
    """Gaps without the prompt and while it is read, and how long that took."""
    params = SamplingParams(max_new_tokens=2 * STEPS + prompt)  # they are closed when the prompt has been read
    times: list[list[float]] = [[] for _ in range(streams)]
    told: SimpleQueue[int] = SimpleQueue()

    def note(text: Text, tokens: tuple[int, ...]) -> None:
        times[text.row].append(time.perf_counter())
        told.put(len(times[text.row]))

    jobs = [Job(prompt=ids(depth, seed + i), params=params, seeds=(0,), watch=note) for i in range(streams)]
    texts = llm.begin(jobs, lambda piece: None)
    wait(told, STEPS)
    arrival = time.perf_counter()
    llm.generate([ids(prompt, seed + streams)], max_new_tokens=1, ignore_eos=True)
    end = time.perf_counter()
    wait(told, len(times[0]) + STEPS)
    for text in texts:
        text.close()
    return gaps(times, 0, arrival) + gaps(times, end, math.inf), gaps(times, arrival, end), end - arrival


def wait(told: SimpleQueue[int], count: int) -> None:
    """Until a text has so many tokens."""
    while told.get() < count:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    for name, value in (("streams", 31), ("prompt", 4096), ("depth", 16), ("threads", 2), ("reps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    llm = LLM(a.model, threads=a.threads)
    finish()  # keeping packed weights would be measured too
    for rep in range(a.reps):
        alone, during, read = measure(llm, a.streams, a.prompt, a.depth, rep * (a.streams + 1))
        (median, late), (its_median, its_late) = figures(alone), figures(during)
        line = {
            "streams": a.streams,
            "alone_ms": [round(median, 2), round(late, 2)],
            "during_ms": [round(its_median, 2), round(its_late, 2)],
            "ratio": [round(its_median / median, 2), round(its_late / late, 2)],
            "read_s": round(read, 2),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
