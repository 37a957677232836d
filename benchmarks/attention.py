"""How much of the memory's read rate does attention reach while decoding, and how much of the peak with a prompt?

    python benchmarks/attention.py [--threads 2] [--rounds 7] [--heads 9] [--kv-heads 3] [--head-dim 64]
                                   [--layers 30] [--depth 1024 4096 16384] [--window 0] [--kv-type int8]
                                   [--prompt 512 4096]

A plan of layers of attention alone decodes one token at a given depth; beside it, in the same process and turn by
turn, all threads read plain memory of the same size. Prints GB/s of keys and values, of the plain read, and the median
ratio of the pairs. Blocks lie scattered, as after serving many texts. With --window, a token sees so many keys at most,
and bytes are those of the chunks of 256 that hold them.

--kv-type does the same over keys and values of that type, turn by turn with bf16, and says how many times as fast it
is: the median of the pairs.

--prompt reads prompts of these lengths instead, 512 tokens a step: GFLOPS, two to a multiply-add and none for a key
that a token does not see, and their share of the peak that bf16 reaches in registers, measured turn by turn.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from quickbrown import _native

STEP = 512  # tokens of a prompt
CHUNK = 256  # keys that are skipped together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 2), ("rounds", 7), ("heads", 9), ("kv-heads", 3), ("head-dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--depth", type=int, nargs="+", metavar="N", default=[1024, 4096, 16384])
    parser.add_argument("--kv-type", choices=["bf16", "f32", "int8"], default="bf16")
    parser.add_argument("--prompt", type=int, nargs="+", metavar="N", help="measure the reading of prompts")
    a = parser.parse_args()
    pool = _native.Pool(a.threads)
    for tokens in a.prompt or a.depth:
        kinds = {kind: Attention(a, pool, kind, tokens) for kind in dict.fromkeys(("bf16", a.kv_type))}
        what = f"{a.heads}/{a.kv_heads} heads of {a.head_dim}, {a.threads} threads, {tokens:6} tokens"
        for line in (prompts if a.prompt else decoding)(kinds, pool, tokens, a):
            print(f"{what} {line}", flush=True)


class Attention:
    """A plan of attention alone, with room for one text, over keys and values of one type."""

    def __init__(self, a: argparse.Namespace, pool: _native.Pool, kind: str, tokens: int) -> None:
        blocks = -(-tokens // _native.BLOCK)
        self.kv = _native.KvMemory(kind, blocks, [(a.kv_heads, a.head_dim, a.head_dim)] * a.layers)
        first = max(0, tokens - a.window) // CHUNK * CHUNK if a.window else 0
        self.size = (blocks - first // _native.BLOCK) * self.kv.block_bytes  # of what the last token sees
        width, kv_width = a.heads * a.head_dim, a.kv_heads * a.head_dim
        arena = _native.packed_size("f32", 16, width) + 2 * _native.packed_size("f32", 16, kv_width)
        self.weights = _native.Weights(arena, pool)
        self.plan = _native.Plan(pool, self.weights, self.kv)
        q, k, v, out = (self.plan.buffer(w) for w in (width, kv_width, kv_width, width))
        random = np.random.default_rng(0)
        for buffer, columns in ((q, width), (k, kv_width), (v, kv_width)):
            table = random.normal(size=(16, columns)).astype(np.float32)
            self.plan.embed(self.weights.add("f32", columns, [table.view(np.uint8)]), buffer)
        frequencies = 10000.0 ** (-np.arange(a.head_dim // 2) * 2.0 / a.head_dim)
        turn = self.plan.rotation(frequencies[None], np.ones(1))
        for layer in range(a.layers):
            self.plan.attention(layer, q, k, v, out, a.heads, a.head_dim**-0.5, turn, a.window)
        self.plan.result(out)
        self.table = random.permutation(blocks).tolist()
        slots = list(range(_native.BLOCK))
        for block in self.table:  # a text in each, so that every slot is touched
            self.plan.run([slot % 16 for slot in slots], slots, [0, len(slots)], [block], [0, 1], [], [])

    def step(self, first: int, count: int) -> None:
        positions = list(range(first, first + count))
        tokens = [position % 16 for position in positions]
        self.plan.run(tokens, positions, [0, count], self.table, [0, len(self.table)], [], [])

    def read(self, tokens: int) -> float:
        """Seconds for a text from its beginning."""
        start = time.perf_counter()
        for first in range(0, tokens, STEP):
            self.step(first, min(STEP, tokens - first))
        return time.perf_counter() - start

    def decode(self, depth: int, times: int = 3) -> float:
        """Seconds for a token behind `depth - 1` others."""
        start = time.perf_counter()
        for _ in range(times):
            self.step(depth - 1, 1)
        return (time.perf_counter() - start) / times


def decoding(kinds: dict[str, Attention], pool: _native.Pool, depth: int, a: argparse.Namespace) -> list[str]:
    turns, plain = [], []
    for _ in range(a.rounds):
        turns.append({kind: one.decode(depth) for kind, one in kinds.items()})
        plain.append(pool.read_bandwidth(kinds["bf16"].size, 3))
    lines = []
    for kind, one in kinds.items():
        rates = [one.size / spent[kind] for spent in turns]
        ratio = statistics.median(rate / read for rate, read in zip(rates, plain, strict=True))
        rate, read = statistics.median(rates) / 1e9, statistics.median(plain) / 1e9
        lines.append(
            f"({one.size >> 20} MB of {kind}): {rate:5.1f} GB/s, plain read {read:5.1f} GB/s, ratio {ratio:.2f}"
        )
    return lines + gain(turns, a.kv_type)


def prompts(kinds: dict[str, Attention], pool: _native.Pool, tokens: int, a: argparse.Namespace) -> list[str]:
    near = min(tokens, a.window or tokens)
    seen = near * (near + 1) / 2 + (tokens - near) * near  # keys, by all tokens together
    operations = 4 * a.heads * a.head_dim * seen * a.layers
    turns, peaks = [], []
    for _ in range(a.rounds):
        turns.append({kind: one.read(tokens) for kind, one in kinds.items()})
        peaks.append(pool.peak("bf16"))
    lines = []
    for kind in kinds:
        rates = [operations / spent[kind] for spent in turns]
        share = statistics.median(rate / peak for rate, peak in zip(rates, peaks, strict=True))
        rate, peak = statistics.median(rates) / 1e9, statistics.median(peaks) / 1e9
        lines.append(f"of a prompt, {kind}: {rate:6.1f} GFLOPS, peak of bf16 {peak:6.1f}, share {share:.2f}")
    return lines + gain(turns, a.kv_type)


def gain(turns: list[dict[str, float]], kind: str) -> list[str]:
    if kind == "bf16":
        return []
    return [
        f": {kind} is {statistics.median(spent['bf16'] / spent[kind] for spent in turns):.2f} times as fast as bf16"
    ]


if __name__ == "__main__":
    main()
