"""quickbrown's speed in one process, as driver.py says."""

from __future__ import annotations

import argparse

import quickbrown
from driver import drive
from quickbrown import LLM
from quickbrown.weights.kept import finish


class Quickbrown:
    version = quickbrown.__version__
    build = ""

    def __init__(self, a: argparse.Namespace, activations: str = "auto") -> None:
        self.llm = LLM(a.model, threads=a.threads, activations=activations)

    def settle(self) -> None:
        finish()  # a first start keeps its packed weights in the background

    def generate(self, prompt: list[int], new: int) -> tuple[float, float]:
        """Picking the token and making its text are included."""
        stream = self.llm.stream_batch([prompt], max_new_tokens=new, ignore_eos=True)
        stream.read()
        first = stream.first_token_seconds
        return first, stream.seconds - first


if __name__ == "__main__":
    drive("quickbrown", Quickbrown)
