"""quickbrown's speed in one process, as driver.py says."""

from __future__ import annotations

import argparse
import time

import quickbrown
from driver import Stamps, drive
from quickbrown import LLM
from quickbrown.bench.measure import write
from quickbrown.weights.kept import finish


class Quickbrown:
    version = quickbrown.__version__
    build = ""

    def __init__(self, a: argparse.Namespace, activations: str = "auto") -> None:
        self.llm = LLM(a.model, threads=a.threads, activations=activations)

    def settle(self) -> None:
        finish()  # a first start keeps its packed weights in the background

    def generate(self, texts: list[list[int]], new: int, *, known: bool) -> Stamps:
        """Picking the token and making its text are included."""
        start = time.perf_counter()
        return [[moment - start for moment in times] for times in write(self.llm, texts, new)]


if __name__ == "__main__":
    drive("quickbrown", Quickbrown)
