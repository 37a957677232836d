"""How fast do linears read their weights, and how near do they come to the peak of multiply-adds?

    python benchmarks/linears.py [--threads 2] [--formats q4_0 ...] [--tokens 1 4 512] [--inputs 2048] [--rounds 5]
                                 [--gated] [--activations bf16]

A table a format, a row for each number of tokens that are multiplied together: GB/s of packed weights, and their share
of a plain read of as much memory; GOPS, two operations to a multiply-add, and their share of the peak that the same
instructions reach in registers, of weights in cache (1 MB that is read again and again) and from memory (256 MB);
and how many times as long as one token they take, from memory. All turn by turn in this process; medians of the rounds.
Rounding the inputs is included, and counts for more in cache, where a linear has fewer rows. --gated takes gates and
ups, which are two weights a linear.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np

from quickbrown import _native
from quickbrown.quant.formats import FORMATS

NEAR, FAR = 1 << 20, 256 << 20
MOST = 512  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 2), ("inputs", 2048), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    known = [name for name, format in FORMATS.items() if format.held is None]
    some = ["q4_0", "q4_1", "q4_k", "q6_k", "q8_0", "bf16"]
    parser.add_argument("--formats", nargs="+", choices=known, default=some)
    parser.add_argument("--tokens", nargs="+", type=int, choices=range(1, MOST + 1), default=[1, 2, 4, 8, 16, 32, MOST])
    parser.add_argument("--gated", action="store_true")
    parser.add_argument("--activations", choices=["auto", "bf16"], default="auto")
    a = parser.parse_args()
    pool = _native.Pool(a.threads)
    wide = a.activations == "bf16"
    for format in a.formats:
        near = Linears(pool, format, a.inputs, NEAR, FAR // NEAR // 4, a.gated, wide)
        far = Linears(pool, format, a.inputs, FAR // 16, 16, a.gated, wide, own=True)
        measure(pool, format, near, far, a.tokens, a.rounds, _native.activation(format, wide).removesuffix("_groups"))


def measure(
    pool: _native.Pool, format: str, near: Linears, far: Linears, tokens: Sequence[int], rounds: int, kind: str
) -> None:
    """Prints the table of a format whose products are of a kind of `Pool.peak`."""
    rates = ("rate", "of_read", "near", "near_share", "far", "far_share", "times_one")
    found: dict[tuple[int, str], list[float]] = {(n, name): [] for n in tokens for name in rates}
    peaks = []
    for _ in range(rounds):
        peak, read, one = pool.peak(kind), pool.read_bandwidth(FAR, 3), far.seconds(1)
        peaks.append(peak)
        for n in tokens:
            seconds = one if n == 1 else far.seconds(n)
            rate, close, away = far.bytes / seconds, near.operations * n / near.seconds(n), far.operations * n / seconds
            figures = (rate / 1e9, rate / read, close / 1e9, close / peak, away / 1e9, away / peak, seconds / one)
            for name, figure in zip(rates, figures, strict=True):
                found[n, name].append(figure)
    print(f"{format}, peak of {kind} {statistics.median(peaks) / 1e9:.0f} GOPS")
    print("tokens   GB/s  of a read   in cache: GOPS  of peak   from memory: GOPS  of peak   times one token")
    for n in tokens:
        rate, of_read, close, close_share, away, away_share, times = (statistics.median(found[n, x]) for x in rates)
        print(
            f"{n:6}{rate:7.1f}{of_read:11.2f}{close:17.0f}{close_share:9.2f}{away:20.0f}{away_share:9.2f}{times:18.2f}",
            flush=True,
        )


class Linears:
    """A plan of `count` linears of `size` bytes each: all of the same weight, or each of its own.

    bytes, operations  of weights read, and of multiply-adds with one token, in a step
    """

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
        self.bytes, self.operations = each * count, 2 * rows * inputs * parts * count
        self.weights = _native.Weights(each * (count if own else 1) + _native.packed_size("f32", 16, inputs), pool)
        self.blocks = list(range(-(-MOST // _native.BLOCK)))
        self.kv = _native.KvMemory("bf16", len(self.blocks), [])
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
        self.seconds(MOST)

    def seconds(self, tokens: int) -> float:
        """Of one step with so many tokens."""
        blocks = self.blocks[: -(-tokens // _native.BLOCK)]
        step = [i % 16 for i in range(tokens)], list(range(tokens)), [0, tokens], blocks, [0, len(blocks)], [], []
        start = time.perf_counter()
        self.plan.run(*step)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
