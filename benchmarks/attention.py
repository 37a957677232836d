"""How much of the read rate does attention reach while decoding, and what does another type of keys and values give?

    python benchmarks/attention.py [--threads 2] [--rounds 7] [--heads 9] [--kv-heads 3] [--head-dim 64]
        [--layers 30] [--kv-type int8] [--depths 1024 4096 16384] [--prompts]

A plan of 30 layers of attention alone decodes one token at a given depth; beside it, in the same process and turn by
turn, all threads read plain memory of the same size. Prints GB/s of keys and values, of the plain read, and the median
ratio of the pairs. Blocks lie scattered, as after serving many texts.

With --kv-type, the same over keys and values of that type, turn by turn with bf16: prints how many times as fast it is,
by the median of the pairs. With --prompts, also the last 512 tokens of that depth in one step.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from quickbrown import _native

PROMPT = 512


class Attention:
    """Layers of attention over a text of some depth in scattered blocks."""

    def __init__(self, a: argparse.Namespace, pool: _native.Pool, type: str, depth: int) -> None:
        blocks = depth // _native.BLOCK
        self.kv = _native.KvMemory(type, blocks, [(a.kv_heads, a.head_dim, a.head_dim)] * a.layers)
        self.bytes = blocks * self.kv.block_bytes
        width, kv_width = a.heads * a.head_dim, a.kv_heads * a.head_dim
        weights = _native.Weights(
            _native.packed_size("f32", 16, width) + 2 * _native.packed_size("f32", 16, kv_width), pool
        )
        self.plan = _native.Plan(pool, weights, self.kv)
        q, k, v, out = (self.plan.buffer(w) for w in (width, kv_width, kv_width, width))
        random = np.random.default_rng(0)
        for buffer, columns in ((q, width), (k, kv_width), (v, kv_width)):
            table = random.normal(size=(16, columns)).astype(np.float32)
            self.plan.embed(weights.add("f32", columns, [table.view(np.uint8)]), buffer)
        frequencies = 10000.0 ** (-np.arange(a.head_dim // 2) * 2.0 / a.head_dim)
        turn = self.plan.rotation(frequencies[None], np.ones(1))
        for layer in range(a.layers):
            self.plan.attention(layer, q, k, v, out, a.heads, a.head_dim**-0.5, turn)
        self.plan.result(out)
        self.table = random.permutation(blocks).tolist()
        slots = list(range(_native.BLOCK))
        for block in self.table:  # a text in each, so that every slot is touched
            self.plan.run([slot % 16 for slot in slots], slots, [0, len(slots)], [block], [0, 1], [], [])

    def step(self, first: int, count: int) -> None:
        positions = list(range(first, first + count))
        tokens = [position % 16 for position in positions]
        self.plan.run(tokens, positions, [0, count], self.table, [0, len(self.table)], [], [])

    def seconds(self, first: int, count: int, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            self.step(first, count)
        return (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("threads", 2), ("rounds", 7), ("heads", 9), ("kv-heads", 3), ("head-dim", 64), ("layers", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--kv-type", choices=["bf16", "f32", "int8"], default="bf16")
    parser.add_argument("--depths", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--prompts", action="store_true")
    a = parser.parse_args()
    for depth in a.depths:
        pool = _native.Pool(a.threads)
        made = {type: Attention(a, pool, type, depth) for type in dict.fromkeys(("bf16", a.kv_type))}
        turns = []
        for _ in range(a.rounds):
            spent = {type: one.seconds(depth - 1, 1, 3) for type, one in made.items()}
            turns.append((spent, pool.read_bandwidth(made["bf16"].bytes, 3)))
        what = f"{a.heads}/{a.kv_heads} heads of {a.head_dim}, {a.threads} threads, {depth:6} tokens"
        for type, one in made.items():
            rates = [one.bytes / spent[type] for spent, _ in turns]
            ratio = statistics.median(rate / read for rate, (_, read) in zip(rates, turns, strict=True))
            rate, read = statistics.median(rates) / 1e9, statistics.median(read for _, read in turns) / 1e9
            print(
                f"{what} ({one.bytes >> 20} MB of {type}): {rate:5.1f} GB/s of keys and values, "
                f"plain read {read:5.1f} GB/s, ratio {ratio:.2f}"
            )
        if a.kv_type != "bf16":
            gain = statistics.median(spent["bf16"] / spent[a.kv_type] for spent, _ in turns)
            print(f"{what}: {a.kv_type} decodes {gain:.2f} times as fast as bf16")
        if a.prompts:
            first = max(0, depth - PROMPT)
            read = [{type: one.seconds(first, depth - first, 1) for type, one in made.items()} for _ in range(a.rounds)]
            gain = statistics.median(spent["bf16"] / spent[a.kv_type] for spent in read)
            least = min(spent["bf16"] for spent in read) * 1000
            print(f"{what}: bf16 reads the last {depth - first} in {least:.0f} ms, {a.kv_type} is {gain:.2f} as fast")


if __name__ == "__main__":
    main()
