"""How much of a step is spent outside native code: scheduling, gathering, committing, text, threads. A line a batch.

    python benchmarks/steps.py [--model smollm2-135m] [--batch 1 4 16] [--new 200] [--depth 16] [--reps 5] [--threads 2]

native_us   a step inside the extension: the plan, and the draws (median of all steps of --reps runs)
outside_us  from the end of one to the beginning of the next (median): all that Python does, while a reader reads
share       of outside in both
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import pairwise
from typing import Any

from driver import ids
from quickbrown import LLM
from quickbrown.weights.kept import finish


class Timed:
    """An object of the extension that notes when its `run` begins and ends."""

    def __init__(self, inner: Any) -> None:
        self._run = inner.run
        self.times: list[tuple[float, float]] = []

    def run(self, *args: Any) -> Any:
        start = time.perf_counter()
        result = self._run(*args)
        self.times.append((start, time.perf_counter()))
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    for name, value in (("new", 200), ("depth", 16), ("threads", 2), ("reps", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    a = parser.parse_args()
    llm = LLM(a.model, threads=a.threads)
    finish()  # keeping packed weights would be measured too
    llm.runner.draws = native = Timed(llm.runner.draws)
    for batch in a.batch:
        inside, outside = [], []
        for rep in range(a.reps):
            native.times.clear()
            prompts = [ids(a.depth, rep * batch + i) for i in range(batch)]
            llm.stream_batch(prompts, max_new_tokens=a.new, ignore_eos=True).read()
            steps = native.times[-a.new + 8 :]  # all texts are being written
            inside += [end - start for start, end in steps]
            outside += [start - end for (_, end), (start, _) in pairwise(steps)]
        native_us, outside_us = (statistics.median(seconds) * 1e6 for seconds in (inside, outside))
        share = outside_us / (native_us + outside_us)
        figures = {"batch": batch, "native_us": round(native_us), "outside_us": round(outside_us)}
        print(json.dumps({**figures, "share": round(share, 4)}), flush=True)


if __name__ == "__main__":
    main()
