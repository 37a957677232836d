"""How much of the memory's read rate does attention reach while decoding, and how much of the peak with a prompt?

    python benchmarks/attention.py [--threads 2] [--rounds 7] [--heads 9] [--kv-heads 3] [--head-dim 64]
                                   [--prompt 512 4096]

A plan of 30 layers of attention alone decodes one token at a given depth; beside it, in the same process and turn by
turn, all threads read plain memory of the same size. Prints GB/s of keys and values, of the plain read, and the median
ratio of the pairs. Blocks lie scattered, as after serving many texts.

--prompt reads prompts of these lengths instead, 512 tokens a step: GFLOPS, two to a multiply-add and none for a key
that a token does not see, and their share of the peak that bf16 reaches in registers, measured turn by turn.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from quickbrown import _native

LAYERS = 30
STEP = 512  # tokens of a prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 2), ("rounds", 7), ("heads", 9), ("kv-heads", 3), ("head-dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--prompt", type=int, nargs="+", metavar="N", help="measure the reading of prompts")
    a = parser.parse_args()
    for tokens in a.prompt or (1024, 4096, 16384):
        attention = Attention(a, tokens)
        said = prompts(attention, tokens, a) if a.prompt else decoding(attention, tokens, a.rounds)
        print(
            f"{a.heads}/{a.kv_heads} heads of {a.head_dim}, {a.threads} threads, {tokens:6} tokens {said}", flush=True
        )


class Attention:
    """A plan of attention alone, with room for one text."""

    def __init__(self, a: argparse.Namespace, tokens: int) -> None:
        blocks = -(-tokens // _native.BLOCK)
        self.pool = _native.Pool(a.threads)
        self.kv = _native.KvMemory("bf16", blocks, [(a.kv_heads, a.head_dim, a.head_dim)] * LAYERS)
        self.size = blocks * self.kv.block_bytes
        width, kv_width = a.heads * a.head_dim, a.kv_heads * a.head_dim
        arena = _native.packed_size("f32", 16, width) + 2 * _native.packed_size("f32", 16, kv_width)
        self.weights = _native.Weights(arena, self.pool)
        self.plan = _native.Plan(self.pool, self.weights, self.kv)
        q, k, v, out = (self.plan.buffer(w) for w in (width, kv_width, kv_width, width))
        random = np.random.default_rng(0)
        for buffer, columns in ((q, width), (k, kv_width), (v, kv_width)):
            table = random.normal(size=(16, columns)).astype(np.float32)
            self.plan.embed(self.weights.add("f32", columns, [table.view(np.uint8)]), buffer)
        frequencies = 10000.0 ** (-np.arange(a.head_dim // 2) * 2.0 / a.head_dim)
        turn = self.plan.rotation(frequencies[None], np.ones(1))
        for layer in range(LAYERS):
            self.plan.attention(layer, q, k, v, out, a.heads, a.head_dim**-0.5, turn)
        self.plan.result(out)
        self.table = random.permutation(blocks).tolist()

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


def decoding(attention: Attention, depth: int, rounds: int) -> str:
    attention.read(depth)  # touches every slot
    pairs = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(3):
            attention.step(depth - 1, 1)
        rate = 3 * attention.size / (time.perf_counter() - start)
        pairs.append((rate, attention.pool.read_bandwidth(attention.size, 3)))
    ratio = statistics.median(x / y for x, y in pairs)
    kv_rate, read = (statistics.median(column) / 1e9 for column in zip(*pairs, strict=True))
    return (
        f"({attention.size >> 20} MB): {kv_rate:5.1f} GB/s of keys and values, plain read {read:5.1f} GB/s, "
        f"ratio {ratio:.2f}"
    )


def prompts(attention: Attention, tokens: int, a: argparse.Namespace) -> str:
    seen = tokens * (tokens + 1) / 2  # keys, by all tokens together
    operations = 4 * a.heads * a.head_dim * seen * LAYERS
    attention.read(tokens)
    pairs = [(operations / attention.read(tokens), attention.pool.peak("bf16")) for _ in range(a.rounds)]
    share = statistics.median(x / y for x, y in pairs)
    rate, peak = (statistics.median(column) / 1e9 for column in zip(*pairs, strict=True))
    return f"of a prompt: {rate:6.1f} GFLOPS, peak of bf16 {peak:6.1f}, share {share:.2f}"


if __name__ == "__main__":
    main()
