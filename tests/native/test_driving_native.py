"""Random requests on a tiny native model: each text is that of the plainest loop, every rule holds after every step,
and memory stays flat. `--soak` drives ten thousand."""

from __future__ import annotations

import gc
import os
import random
from collections import Counter

import numpy as np
import pytest

import configs
import tiny
from driving import drive
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.engine.batch import NO_DRAWS, Draws

VOCAB = 20
ROUND = 50  # requests an engine
BUDGETS = (8, 40, 100, 512)


class Plain:
    """The plainest loop's logits: the whole text is read anew for each token, on one thread, into cleared memory.

    The draws are the native sampler's too. It is compared with its specification in test_sampler.py; here a draw that
    lies within rounding of two tokens, which the two may decide differently, must not part the texts.
    """

    def __init__(self, model, blocks):
        self.runner = NativeRunner(model, blocks=blocks, threads=1)
        self.blocks = np.arange(blocks, dtype=np.int32)

    def __call__(self, tokens):
        states = {"write": 0} if self.runner.states() else {}
        whole = tiny.Part(np.array(tokens, np.int32), 0, len(tokens), self.blocks, rows=[-1], **states)
        self.runner.run(tiny.batch([whole], self.blocks))
        self.row = self.runner.logits()[0]
        return self.row

    def draw(self, row, temperature, top_k, top_p, min_p, seed, position):
        assert row is self.row, "the runner draws from the row of the last call only"
        draws = Draws(
            rows=np.zeros(1, np.int32),
            seeds=np.array([seed], np.uint64),
            positions=np.array([position], np.int64),
            temperatures=np.array([temperature], np.float32),
            top_k=np.array([top_k], np.int32),
            top_p=np.array([top_p], np.float32),
            min_p=np.array([min_p], np.float32),
            logprobs=False,
        )
        [(token, _)] = self.runner.draws.sample(*(getattr(draws, name) for name in Draws.__slots__))
        return token


class Watched(NativeRunner):
    """Counts the tokens of each step, and copied blocks."""

    copied = 0

    def __init__(self, model, **options):
        super().__init__(model, **options)
        self.sizes = []

    def run(self, batch, draws=NO_DRAWS):
        self.sizes.append(len(batch.tokens))
        return super().run(batch, draws)

    def copy(self, source, target):
        self.copied += 1
        super().copy(source, target)


def resident():
    """Bytes of memory that this process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


STATES = {
    "qwen3_5_text": configs.DELTA, "lfm2": {"layer_types": ("conv", "full_attention"), "block_multiple_of": 64},
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "format", "blocks"),
    [("llama", "q4_1", 6), ("llama", "bf16", 9), ("qwen3_5_text", "q4_1", 7), ("lfm2", "bf16", 16)],
)
def test_random_requests_on_a_native_model(family, format, blocks, soak):
    """One engine after the other on one runner, whose memory holds what the one before left in it: texts of one to five
    blocks, in memory for a few of the longest. After a step of all of memory and the first engine, scratch memory may
    grow eight times more, each time by half, and the process by 2 MB, however many rounds follow."""
    dice = random.Random(blocks)
    untied = {"vocab_size": VOCAB, "tie_word_embeddings": False}  # else texts repeat their last token
    model = tiny.family(family, format, **untied, **STATES.get(family, {}))
    runner, answer = Watched(model, blocks=blocks, threads=2), Plain(model, blocks)
    texts = [tiny.text(tiny.BLOCK, 0, VOCAB)] * min(blocks, runner.states() or blocks)
    parts = [
        tiny.Part(text, 0, tiny.BLOCK, np.array([b]), write=b if runner.states() else None)
        for b, text in enumerate(texts)
    ]
    runner.run(tiny.batch(parts))
    seen: Counter[str] = Counter()
    grown, held = [], []
    for _ in range(100 if soak else 3):
        runner.sizes.clear()
        seen += Counter(drive(dice, ROUND, runner, answer=answer, vocab=VOCAB, longest_prompt=220, budgets=BUDGETS))
        grown.append(runner.plan.growths)
        held.append(resident())
    seen["copies"] += runner.copied
    assert all(seen.values()), f"nothing of a kind happened: {seen}"
    assert grown[0] > 0
    assert grown[-1] - grown[0] <= 8, f"growths of scratch memory after each round: {grown}"
    assert held[-1] - held[0] < 2 << 20, f"bytes of memory held after each round: {held}"
