"""How much of the memory's read rate does attention reach while decoding?

    python benchmarks/attention.py [--threads 2] [--rounds 7] [--heads 9] [--kv-heads 3] [--head-dim 64]

A plan of 30 layers of attention alone decodes one token at a given depth; beside it, in the same process and turn by
turn, all threads read plain memory of the same size. Prints GB/s of keys and values, of the plain read, and the median
ratio of the pairs. Blocks lie scattered, as after serving many texts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from quickbrown import _native

LAYERS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 2), ("rounds", 7), ("heads", 9), ("kv-heads", 3), ("head-dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    for depth in (1024, 4096, 16384):
        blocks = depth // _native.BLOCK
        pool = _native.Pool(a.threads)
        kv = _native.KvMemory("bf16", blocks, [(a.kv_heads, a.head_dim, a.head_dim)] * LAYERS)
        width, kv_width = a.heads * a.head_dim, a.kv_heads * a.head_dim
        weights = _native.Weights(
            _native.packed_size("f32", 16, width) + 2 * _native.packed_size("f32", 16, kv_width), pool
        )
        plan = _native.Plan(pool, weights, kv)
        q, k, v, out = (plan.buffer(w) for w in (width, kv_width, kv_width, width))
        random = np.random.default_rng(0)
        for buffer, columns in ((q, width), (k, kv_width), (v, kv_width)):
            table = random.normal(size=(16, columns)).astype(np.float32)
            plan.embed(weights.add("f32", columns, [table.view(np.uint8)]), buffer)
        frequencies = 10000.0 ** (-np.arange(a.head_dim // 2) * 2.0 / a.head_dim)
        turn = plan.rotation(frequencies[None], np.ones(1))
        for layer in range(LAYERS):
            plan.attention(layer, q, k, v, out, a.heads, a.head_dim**-0.5, turn)
        plan.result(out)
        table = random.permutation(blocks).tolist()

        def step(first: int, count: int, plan=plan, table=table) -> None:  # type: ignore[no-untyped-def]
            positions = list(range(first, first + count))
            tokens = [position % 16 for position in positions]
            plan.run(tokens, positions, [0, count], table, [0, len(table)], [], [])

        for first in range(0, depth, 512):  # touch every slot
            step(first, min(512, depth - first))
        size = blocks * kv.block_bytes
        pairs = []
        for _ in range(a.rounds):
            start = time.perf_counter()
            for _ in range(3):
                step(depth - 1, 1)
            rate = 3 * size / (time.perf_counter() - start)
            pairs.append((rate, pool.read_bandwidth(size, 3)))
        ratio = statistics.median(x / y for x, y in pairs)
        kv_rate, read = (statistics.median(column) / 1e9 for column in zip(*pairs, strict=True))
        print(
            f"{a.heads}/{a.kv_heads} heads of {a.head_dim}, {a.threads} threads, {depth:6} tokens ({size >> 20} MB): "
            f"{kv_rate:5.1f} GB/s of keys and values, plain read {read:5.1f} GB/s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
