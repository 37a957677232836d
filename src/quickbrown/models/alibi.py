"""ALiBi: keys count less the farther they lie back, at a speed of its own in each head (Press et al. 2021)."""

from __future__ import annotations


def slopes(heads: int) -> list[float]:
    """What a score loses a position, of each head: of n heads 2 ** (-8 i / n) for i = 1 .. n, where n is a power of
    two; of others those of the largest one below, then every second of the next one."""
    n = 1 << (heads.bit_length() - 1)
    both = [2.0 ** (-8 * i / n) for i in range(1, n + 1)] + [2.0 ** (-8 * i / (2 * n)) for i in range(1, 2 * n, 2)]
    return both[:heads]
