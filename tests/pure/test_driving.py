"""Thousands of random requests: each text is that of the plainest loop, every rule holds after every step, and memory
stays flat. `make soak` drives a hundred times as many."""

from __future__ import annotations

import gc
import random
import sys
from collections import Counter

import pytest

from driving import Watched, drive

ROUND = 250  # requests an engine


@pytest.mark.parametrize("states", [False, True])
def test_random_requests_on_the_fake_runner(soak, states):
    """In a third of the rounds the runner fails at certain texts. With states there are places for one running text, a
    few, or all."""
    rounds = 400 if soak else 4
    seen: Counter[str] = Counter()
    held = []
    for seed in range(rounds):
        dice = random.Random(seed)
        poison = 3 if seed % 3 == 2 else None
        size = dice.choice([1, 2, 4, 5, 16])
        blocks, places = -(-52 // size) + dice.randrange(60), dice.choice([2, 3, 5, 9, 50]) if states else 0
        runner = Watched(poison=poison, blocks=blocks, block_size=size, states=places)
        seen += Counter(drive(dice, ROUND, runner, poison=poison))
        seen["copies"] += runner.copied
        seen["steps that failed"] += runner.poisoned
        del runner
        gc.collect()
        held.append(sys.getallocatedblocks())
    assert all(seen.values()), f"nothing of a kind happened: {seen}"
    assert held[-1] - held[0] < 2000, f"objects of Python held after each round: {held[:: max(1, rounds // 10)]}"
