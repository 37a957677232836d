"""How fast do linears of one token read their weights, in cache and from memory?

    python benchmarks/linears.py [--threads 1] [--formats q4_0 ...] [--inputs 2048] [--rounds 5] [--activations bf16]

Prints GB/s of packed weights, the median of the rounds: in cache, of 256 KB that are read again and again; from memory,
of 256 MB, turn by turn with a plain read of as much by the same threads; each for plain linears and for gate and up.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from quickbrown import _native
from quickbrown.quant.formats import FORMATS

NEAR, FAR = 256 << 10, 256 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 1), ("inputs", 2048), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    known = [name for name, format in FORMATS.items() if format.held is None]
    some = ["q4_0", "q4_1", "q4_k", "q6_k", "q8_0", "bf16"]
    parser.add_argument("--formats", nargs="+", choices=known, default=some)
    parser.add_argument("--activations", choices=["auto", "bf16"], default="auto")
    a = parser.parse_args()
    pool = _native.Pool(a.threads)
    for format in a.formats:
        figures = []
        for gated in (False, True):
            near = Linears(pool, format, a.inputs, NEAR, FAR // NEAR // 4, gated, a.activations == "bf16")
            figures.append(f"{statistics.median(near.rate() for _ in range(a.rounds)):6.1f}")
            far = Linears(pool, format, a.inputs, FAR // 16, 16, gated, a.activations == "bf16", own=True)
            pairs = [(far.rate(), pool.read_bandwidth(FAR, 3) / 1e9) for _ in range(a.rounds)]
            share = statistics.median(x / y for x, y in pairs)
            figures.append(f"{statistics.median(x for x, _ in pairs):6.1f} = {share:.2f} of a plain read")
        print("{}: plain {} in cache, {} from memory; gate and up {}, {}".format(format, *figures), flush=True)


class Linears:
    """A plan of `count` linears of `size` bytes each: all of the same weight, or each of its own."""

    def __init__(
        self,
        pool: _native.Pool,
        format: str,
        inputs: int,
        size: int,
        count: int,
        gated: bool,
        wide: bool,
        own: bool = False,
    ) -> None:
        parts = 2 if gated else 1
        row = _native.packed_size(format, 16, inputs) // 16
        rows = max(32, size // row // parts // 32 * 32)
        stored = FORMATS[format].row_bytes(inputs)
        random = np.random.default_rng(0)
        data = random.integers(0, 60, (rows, stored), np.uint8)  # scales that are finite in every format
        table = random.normal(size=(16, inputs)).astype(np.float32).view(np.uint8)
        each = _native.packed_size(format, rows, inputs) * parts
        self.bytes = each * count
        self.weights = _native.Weights(each * (count if own else 1) + _native.packed_size("f32", 16, inputs), pool)
        self.kv = _native.KvMemory("bf16", 1, [])
        self.plan = _native.Plan(pool, self.weights, self.kv, wide)
        x, out = self.plan.buffer(inputs), self.plan.buffer(rows)
        self.plan.embed(self.weights.add("f32", inputs, [table]), x)
        weight = -1
        for _ in range(count):
            if own or weight < 0:
                weight = self.weights.add(format, inputs, [data] * parts)
            if gated:
                self.plan.gated_linear(x, weight, weight + 1, out)
            else:
                self.plan.linear(x, [(weight, out, -1)])
        self.plan.result(out)
        self.rate()

    def rate(self) -> float:
        """GB/s of one step."""
        start = time.perf_counter()
        self.plan.run([1], [0], [0, 1], [0], [0, 1], [], [])
        return self.bytes / (time.perf_counter() - start) / 1e9


if __name__ == "__main__":
    main()
