"""A core that somebody else uses too: decoding slows down, and does not collapse."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("quickbrown._native", reason="needs the native extension: make")

from quickbrown import LLM
from quickbrown.weights import hub

LEAST = 0.4  # of the speed beside nobody; threads that all wait for the slowest come to a quarter of it and less
TRIES = 3  # the machine's other guests slow down single tries


@contextmanager
def busy(core: int) -> Iterator[None]:
    """A process that computes on one core."""
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


def test_a_busy_core_leaves_two_fifths_of_the_speed() -> None:
    if not hub.catalogue()["smollm2-135m"].present:
        pytest.skip("the default model is not here: qb pull smollm2-135m")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) != 2:
        pytest.skip("needs two cores: with more, one busy core of many says little")
    llm = LLM("smollm2-135m")

    def rate() -> float:
        stream = llm.stream_batch([[1, 2, 3, 4, 5, 6, 7, 8]], max_new_tokens=100, ignore_eos=True)
        stream.read()
        return 99 / (stream.seconds - stream.texts[0].first_token_seconds)

    rate()
    shares = []
    for _ in range(TRIES):
        alone = max(rate() for _ in range(2))
        with busy(cores[1]):
            beside = sorted(rate() for _ in range(3))[1]
        shares.append(beside / alone)
        if shares[-1] >= LEAST:
            return
        time.sleep(2)  # until the thread that was left out is back
    pytest.fail(f"beside a busy process decoding kept only {shares} of its speed")
