"""A text is the same whoever else is being written, and however short memory is."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from quickbrown import LLM
from tiny_llm import BLOCK_BYTES, CHAT, SAMPLED, SPREAD, alone, ids, said


@pytest.mark.parametrize("temperature", [0, SPREAD])
def test_a_batch_is_what_each_is_alone_though_memory_is_short(llm, narrow, temperature):
    """33 prompts of 1 to 330 tokens where a few fit: it is counted that some must give their memory away. The
    texts alone come from a model that has room, and are all different."""
    prompts = [ids(1 + 7 * i * i % 331, seed=i) for i in range(33)]
    options = {"temperature": temperature, "max_new_tokens": 50, "ignore_eos": True, "logprobs": True}
    expected = [alone(llm, prompt, **options, seed=[i]) for i, prompt in enumerate(prompts)]
    assert len({c.tokens for c in expected}) == 33
    preempted = []
    scheduler = narrow.engine.engine.scheduler
    with pytest.MonkeyPatch.context() as patch:
        preempt = scheduler.preempt
        patch.setattr(scheduler, "preempt", lambda: preempted.append(1) or preempt())
        rows = narrow.generate(prompts, **options, seed=list(range(33)))
    assert [said(row) for row in rows] == expected
    assert len(preempted) > 3


def test_many_threads_with_different_options(llm, narrow):
    """Eight threads, four calls each, every option, prompts that begin alike, memory for a few: each call gives
    what it gave to one that was alone with a model that has room."""

    def calls(seed):
        dice = random.Random(seed)
        for _ in range(4):
            prompts = [ids(dice.choice([1, 30, 130, 200]) + dice.randrange(9)) for _ in range(dice.choice([1, 2]))]
            options = {
                "max_new_tokens": dice.randrange(10, 40),
                "n": dice.choice([None, 1, 3]),
                "temperature": dice.choice([0, 0.2, SPREAD]),
                "top_k": dice.choice([0, 40]),
                "top_p": dice.choice([1, 0.9]),
                "min_p": dice.choice([0, 0.01]),
                "seed": dice.getrandbits(64),
                "stop": dice.choice([(), ("e", "\x10")]),
                "ignore_eos": dice.choice([True, False]),
                "logprobs": dice.choice([True, False]),
            }
            yield dice.choice(["generate", "stream_batch", "chat"]), prompts, options

    def written(llm, method, prompts, options):
        if method == "stream_batch":
            return [said(c) for c in llm.stream_batch(prompts, **options).read()]
        rows = llm.chat([CHAT] * len(prompts), **options) if method == "chat" else llm.generate(prompts, **options)
        return [said(c) for row in rows for c in (row if isinstance(row, list) else [row])]

    together = threading.Barrier(8)

    def work(seed):
        together.wait(20)
        return [written(narrow, *call) for call in calls(seed)]

    expected = [[written(llm, *call) for call in calls(seed)] for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == expected


def test_who_does_not_fit_beside_another_waits(llm, path):
    """Four texts that need all of memory each: they end one after the other, as they came."""
    tight = LLM(path, threads=1, memory=5 * BLOCK_BYTES)
    prompts = [ids(280, seed) for seed in range(4)]
    options = {**SAMPLED, "max_new_tokens": 40}
    stream = tight.stream_batch(prompts, **options, seed=[0, 1, 2, 3])
    order = [row for row, _ in stream]
    assert order == sorted(order)
    expected = [alone(llm, prompt, **options, seed=[seed]) for seed, prompt in enumerate(prompts)]
    assert [said(c) for c in stream.completions] == expected
    tight.close()
