"""What tests of LLM share: a tiny model file, prompts, and an engine whose steps are counted, held or made to fail.

The model's logits spread by half a nat: at SPREAD a text hangs on all that was written before it, so that a wrong key,
value, seed or position anywhere shows in the tokens.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from contextlib import contextmanager

import pytest

from gguf_writer import write_tiny_llama
from quickbrown import Finish, FinishReason
from quickbrown.engine.batch import NO_DRAWS

BLOCK = 64
BLOCK_BYTES = 2 * 2 * 2 * 16 * 2 * BLOCK  # keys and values, layers, heads, their size, bf16
LENGTH = Finish(FinishReason.LENGTH)
CANCELLED = Finish(FinishReason.CANCELLED)
SPREAD = 0.3
NEW = 40
SAMPLED = {"temperature": SPREAD, "ignore_eos": True, "max_new_tokens": NEW}
CHAT = [{"role": "user", "content": "What is a fox?"}]


def model(folder):
    return write_tiny_llama(folder / "tiny.gguf", max_position_embeddings=2048, tie_word_embeddings=False)


def ids(length, seed=0):
    """A prompt of that many tokens."""
    return random.Random(seed).choices(range(3, 266), k=length)


def said(completion):
    """A completion without what depends on what others have left in memory."""
    return dataclasses.replace(completion, reused_tokens=0)


def alone(llm, prompt, **options):
    return said(llm.generate([prompt], **options)[0])


def begins(completion, whole):
    """Whether a text is the beginning of another, and not all of it."""
    tokens, all_tokens = completion.tokens, whole.tokens
    return tokens == all_tokens[: len(tokens)] and len(tokens) < len(all_tokens) and whole.text[:-1] != completion.text


def rests(llm):
    """Whether all that was asked for ends soon, and leaves the books in order and no memory taken."""
    end = time.monotonic() + 20
    while llm.engine.call(lambda: len(llm.engine.engine.live)):
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    llm.engine.call(llm.engine.engine.check)
    pool = llm.engine.engine.pool
    return pool.available == len(pool.holders)


@contextmanager
def running(llm, instead):
    """Each step calls `instead(run, batch)`, which runs the batch with `run()`."""
    with pytest.MonkeyPatch.context() as patch:
        run = llm.runner.run
        patch.setattr(llm.runner, "run", lambda batch, draws=NO_DRAWS: instead(lambda: run(batch, draws), batch))
        yield


@contextmanager
def counted(llm):
    """A list of how many tokens each step runs."""
    sizes = []

    def count(run, batch):
        sizes.append(len(batch.tokens))
        return run()

    with running(llm, count):
        yield sizes


class Steps:
    """Holds the engine before each step that is not allowed yet."""

    def __init__(self):
        self._change = threading.Condition()
        self._allowed = self.begun = 0

    def __call__(self, run, batch):
        with self._change:
            self.begun += 1
            self._change.notify_all()
            assert self._change.wait_for(lambda: self.begun <= self._allowed, 20)
        return run()

    def let(self, steps):
        """Allow so many steps in all, and wait until the engine stands before the next one."""
        self.allow(steps)
        with self._change:
            assert self._change.wait_for(lambda: self.begun > steps, 20)

    def allow(self, steps=1 << 30):
        with self._change:
            self._allowed = steps
            self._change.notify_all()


@contextmanager
def held(llm):
    steps = Steps()
    with running(llm, steps):
        try:
            yield steps
        finally:
            steps.allow()


def slowly(seconds):
    def slow(run, batch):
        time.sleep(seconds)
        return run()

    return slow


def poisoned(token):
    """Fails whenever this token is run."""

    def poison(run, batch):
        if token in batch.tokens:
            raise LookupError("no idea")
        return run()

    return poison


def poison_of(guilty, *innocent):
    """A token in the middle of a text that is nowhere else: not before, nor in other texts."""
    elsewhere = {token for text in innocent for token in text.tokens}
    at = next(
        at
        for at in range(10, len(guilty.tokens) - 10)
        if guilty.tokens[at] not in elsewhere and guilty.tokens[at] not in guilty.tokens[:at]
    )
    return at, guilty.tokens[at]
