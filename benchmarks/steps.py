"""How much of a step is spent outside native code: scheduling, gathering, committing, text, threads. JSON, a line a batch.

    python benchmarks/steps.py [--model smollm2-135m] [--new 200] [--depth 16] [--threads 2]

step_us     between two tokens of a text, as its reader sees it (median of --reps)
native_us   of that, inside the extension: the plan, and the draws
outside_us  the rest, and its share of the step
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from b_quickbrown import ids

from quickbrown import LLM


class Timed:
    """An object of the extension, with the time spent in its methods added up."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*args)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def measure(llm: LLM, native: list[Timed], batch: int, depth: int, new: int, seed: int) -> tuple[float, float]:
    """Seconds a step, and of these in native code: of the steps in which every text has its first token."""
    prompts = [ids(depth, seed * batch + i) for i in range(batch)]
    stream = llm.stream_batch(prompts, max_new_tokens=new, ignore_eos=True)
    waiting = set(range(batch))
    for row, _ in stream:
        waiting.discard(row)
        if not waiting:
            break
    start, before = time.perf_counter(), sum(n.seconds for n in native)
    written = min(len(text.tokens) for text in stream.texts)
    stream.read()
    return (time.perf_counter() - start) / (new - written), (sum(n.seconds for n in native) - before) / (new - written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    for name, value in (("new", 200), ("depth", 16), ("threads", 2), ("reps", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    llm = LLM(a.model, threads=a.threads)
    llm.runner.plan, llm.runner.draws = native = [Timed(llm.runner.plan), Timed(llm.runner.draws)]
    llm.generate("warm up", max_new_tokens=8)
    for batch in (1, 4, 16):
        runs = [measure(llm, native, batch, a.depth, a.new, seed) for seed in range(a.reps)]
        step, inside = (statistics.median(values) for values in zip(*runs, strict=True))
        result = {"batch": batch, "step_us": step * 1e6, "native_us": inside * 1e6, "outside_us": (step - inside) * 1e6}
        print(json.dumps({k: round(v) for k, v in result.items()} | {"share": round(1 - inside / step, 4)}), flush=True)


if __name__ == "__main__":
    main()
