"""Promise 1 of the design: a row's bytes depend on nothing but its own text.

Every row is recorded under the whole text that it answers, which is read back through the block tables from a shadow of
the memory. Each text must have given the same bytes whenever it was answered, and those that it gives alone: read
whole, on one thread, into cleared memory. There is no tolerance anywhere. It cannot pass by luck: different texts must
give different bytes, what is to be covered is counted while it happens, and runners that are wrong in one bit, or in
one copied block, fail the same check.

The short form takes, for each format, every value of every axis at least once, but not every combination: the formats
start at different places of each axis. `--soak` takes every pair of values for each format, and every combination for
two formats. Either runs under every instruction set.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest

import mixture
import tiny
import variants
from driving import LENGTH, Watch, ask
from quickbrown.backends.native.runner import NativeRunner
from quickbrown.engine.batch import NO_DRAWS, Batch
from quickbrown.engine.engine import Engine
from quickbrown.quant.quantize import ENCODABLE
from quickbrown.weights.tiny import TinySource

VOCAB = 80
KV_HEADS = (4, 2)  # of 4 query heads: each its own, and grouped
WINDOWED = "windowed"  # a kind of model besides those of each format: biases, norms of heads, and windows in one layer
MIXED = "mixed"  # a model that speaks every verb
EXPERTS = "experts"  # mixtures of experts, and beside them networks with gates
INTEGERS = "int8 keys and values"  # of that windowed one
KINDS = (*ENCODABLE, WINDOWED, MIXED, EXPERTS, INTEGERS)
THREADS = (1, 2, 3)
CHUNKS = (1, 3, 17, 64, 1 << 30)
SIZES = (1, 2, 3, 4, 5, 8, 17, 33)
BUDGETS = (17, 64, 512)  # tokens a step
BORDERS = (63, 64, 65, 127, 128, 129, 255, 256, 257, 270)  # of blocks (64) and of chunks of attention (256)
LENGTHS = (*BORDERS, *range(1, 24))
ROOM = sum(-(-length // tiny.BLOCK) for length in LENGTHS)
STEPS = 16  # of a batch
EMPTY = -1  # a slot that nothing was written to


def cases(format, soak, *axes):
    """The product of the axes, or as many cases as the longest has values."""
    if soak:
        return list(itertools.product(*axes))
    turn = KINDS.index(format)
    return [
        tuple(axis[(i + turn * shift) % len(axis)] for shift, axis in enumerate(axes))
        for i in range(max(map(len, axes)))
    ]


def model(format, kv_heads=2):
    shape = {"num_key_value_heads": kv_heads, "vocab_size": VOCAB, "intermediate_size": 128}
    if format == MIXED:
        return mixture.Model("bf16", kv_heads, VOCAB)
    if format == EXPERTS:
        many = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
        return tiny.family("qwen2_moe", "q4_1", shared_expert_intermediate_size=64, **many, **shape)
    if format not in (WINDOWED, INTEGERS):
        return tiny.llama(format, **shape)
    window = {"use_sliding_window": True, "sliding_window": 100, "layer_types": ("sliding_attention", "full_attention")}
    return tiny.family("qwen3", "bf16", attention_bias=True, **window, **shape)


def options(format):
    return {"dtype": "float32" if format == "f32" else "auto", "kv": "int8" if format == INTEGERS else None}


def text(length, seed=0):
    """Random token ids, of which none follows itself: a text of one token, and it twice, would give the same row, since
    attention finds the same value at both places."""
    return np.cumsum(1 + tiny.text(length, seed, VOCAB - 1), dtype=np.int32) % VOCAB


class Recorded(NativeRunner):
    """Keeps the bytes of each row, by the text that it answers and how the text was run.

    rows    text -> bytes -> {(how many sequences ran, how many tokens of this one)}; raising would not do, as an engine
            ends a request whose step fails
    copied  how many blocks
    """

    def __init__(self, model, **options):
        super().__init__(model, **options)
        self.slots = np.full((self.room(), self.block_size), EMPTY, np.int32)
        self.rows: dict[bytes, dict[bytes, set[tuple[int, int]]]] = {}
        self.copied = 0

    def run(self, batch, draws=NO_DRAWS):
        drawn = super().run(batch, draws)
        batch = Batch(*(np.asarray(getattr(batch, name), np.int32) for name in Batch.__slots__))
        counts = np.diff(batch.starts)
        owners = np.repeat(np.arange(len(counts)), counts)
        blocks = batch.blocks[batch.block_starts[owners] + batch.positions // self.block_size]
        self.slots[batch.fresh] = EMPTY
        self.slots[blocks, batch.positions % self.block_size] = batch.tokens
        texts = [self.slots[table].ravel() for table in np.split(batch.blocks, batch.block_starts[1:-1])]
        for row, logits in zip(batch.logit_rows, self.logits(), strict=True):
            text = texts[owners[row]][: batch.positions[row] + 1]
            ways = self.rows.setdefault(text.tobytes(), {}).setdefault(logits.tobytes(), set())
            ways.add((len(counts), int(counts[owners[row]])))
        return drawn

    def copy(self, source, target):
        super().copy(source, target)
        self.slots[target] = self.slots[source]
        self.copied += 1

    def ways(self, tokens):
        """How a text was run, each time that it was answered."""
        return set().union(*self.rows.get(np.asarray(tokens, np.int32).tobytes(), {}).values())


class Alone:
    """What texts give alone, by their bytes."""

    def __init__(self, model, **options):
        self.runner = NativeRunner(model, blocks=-(-max(LENGTHS) // tiny.BLOCK), threads=1, **options)
        self.rows: dict[bytes, bytes] = {}

    def __getitem__(self, text):
        if text not in self.rows:
            tokens = np.frombuffer(text, np.int32)
            assert EMPTY not in tokens, "a slot was read before it was written"
            for length, logits in enumerate(tiny.logits(self.runner, tokens), 1):
                self.rows[tokens[:length].tobytes()] = logits.tobytes()
        return self.rows[text]


@functools.cache
def alone_of(format, kv_heads):
    return Alone(model(format, kv_heads), **options(format))


def agree(runner, alone):
    """Assert that every row recorded is that of its text alone, and that no two texts have the same."""
    assert runner.rows
    for text in sorted(runner.rows, key=len, reverse=True):  # a text alone gives the rows of its beginnings too
        for got, ways in runner.rows[text].items():
            same = got == alone[text]
            assert same, f"{len(text) // 4} tokens gave other bytes than alone, as (sequences, tokens of it): {ways}"
    different = len(set(alone.rows.values()))
    assert different == len(alone.rows), "different texts give the same bytes"


# -- in batches made by hand -----------------------------------------------------------------------------------------


@functools.cache
def texts():
    return [text(length, seed) for seed, length in enumerate(LENGTHS)]


def read_together(runner, size, chunk, dice):
    """Read `size` texts of mixed lengths together, the first in chunks of `chunk` and each other of the value of CHUNKS
    after its neighbour's, in blocks from anywhere. Of a long text, all but the last STEPS chunks are read at once; one
    that has been read to its end runs its last token again and again, so that the company stays."""
    order = dict.fromkeys([dice.integers(len(BORDERS)), *dice.permutation(len(LENGTHS))])
    chosen = [texts()[i] for i in order][:size]
    tables = np.split(dice.permutation(runner.room()), np.cumsum([-(-len(t) // tiny.BLOCK) for t in chosen]))[:size]
    chunks = [CHUNKS[(CHUNKS.index(chunk) + i) % len(CHUNKS)] for i in range(size)]
    past, fresh = [0] * size, np.concatenate(tables)
    for step in itertools.count():
        parts = []
        for tokens, done, chunk, table in zip(chosen, past, chunks, tables, strict=True):
            end = done + chunk if step else max(chunk, len(tokens) - STEPS * chunk)
            parts.append(tiny.Part(tokens, min(done, len(tokens) - 1), min(end, len(tokens)), table))
        runner.run(tiny.batch(parts, fresh))
        fresh, past = tiny.NONE, [part.end for part in parts]
        if past == [len(tokens) for tokens in chosen]:
            break
    for tokens in chosen:
        for length in range(1, len(tokens) + 1):
            assert {sequences for sequences, _ in runner.ways(tokens[:length])} == {size}


@pytest.mark.parametrize("format", KINDS)
def test_a_row_does_not_depend_on_its_company(format, soak):
    """Texts whose ends lie around the borders of blocks and chunks, and short ones, 1 to 33 at a time: prompts read
    whole and in chunks of 1 to 64 beside each other and beside single tokens, on one to three threads. All 33 lengths
    occur in the largest batch."""
    chosen = cases(format, soak, KV_HEADS, THREADS, CHUNKS, SIZES)
    if soak:  # the third format from here on takes the same
        chosen = chosen[KINDS.index(format) % 3 :: 3]
    for number, (kv_heads, threads, chunk, size) in enumerate(chosen):
        runner = Recorded(model(format, kv_heads), blocks=ROOM, threads=threads, **options(format))
        read_together(runner, size, chunk, np.random.default_rng(number))
        agree(runner, alone_of(format, kv_heads))


# -- through the engine ----------------------------------------------------------------------------------------------


def write(engine, requests):
    """Every sample's text, how often one was preempted, and how many tokens of each prompt were found in memory.

    Every rule of the engine is checked after every step."""
    watch, preempted = Watch(engine), 0
    for request in requests:
        engine.add(request)
    while not engine.idle:
        running = set(engine.scheduler.running)
        watch.step()
        preempted += sum(sequence in running for sequence in engine.scheduler.waiting)
    told = watch.finish()
    assert {text.finish for text in told.values()} == {LENGTH}
    texts = [(*r.prompt, *told[r.id, sample].tokens) for r in requests for sample in range(len(r.seeds))]
    return texts, preempted, [told[r.id, 0].reused for r in requests]


def write_in_all_ways(runner, budget):
    """Texts that cross borders of blocks and chunks while they are decoded, several of a prompt: all together, in
    memory that does not hold them; two prompts alone, with their beginnings in memory; and read whole, with nothing
    known. Every row that decided something is recorded."""
    common = text(254).tolist()
    asked = [(common, 2), (common[:126], 4), (common[:62], 3), ([*text(64, 1).tolist(), *common[64:190]], 2)]
    requests = [
        ask(i, prompt, seed=range(samples), max_new_tokens=5, temperature=5.0)
        for i, (prompt, samples) in enumerate(asked)
    ]
    engine = Engine(runner, budget)
    texts, preempted, reused = write(engine, requests)
    assert len(set(texts)) == 11, "the samples of a prompt are the same"
    assert reused[0] == 0
    assert preempted, "memory holds them all"
    assert runner.copied, "nothing was forked inside a block"

    ends = np.cumsum([0, *(samples for _, samples in asked)])
    for i in (0, 3):
        for _ in range(2):
            again, _, reused = write(engine, [requests[i]])
            assert again == texts[ends[i] : ends[i + 1]]
        assert reused == [(len(requests[i].prompt) - 1) // tiny.BLOCK * tiny.BLOCK], "not found in memory"

    some = texts[::2]
    write(Engine(runner, budget), [ask(i, text[:-1], max_new_tokens=1) for i, text in enumerate(some)])
    assert sum({n == 1 for _, n in runner.ways(text[:-1])} == {True, False} for text in some) > 3, "decoded, and read"
    starts = [len(prompt) for prompt, samples in asked for _ in range(samples)]
    assert all(runner.ways(t[:n]) for t, start in zip(texts, starts, strict=True) for n in range(start, len(t)))


@pytest.mark.parametrize("format", KINDS)
def test_a_row_does_not_depend_on_what_the_engine_did(format, soak):
    """Prefixes found in memory and computed, tokens decoded and read, samples forked with blocks copied on write, texts
    preempted and resumed, under budgets that cut prompts into chunks, on one to three threads: each is asserted to have
    happened every time."""
    for kv_heads, threads, budget in cases(format, soak, KV_HEADS, THREADS, BUDGETS):
        runner = Recorded(model(format, kv_heads), blocks=8, threads=threads, **options(format))
        write_in_all_ways(runner, budget)
        agree(runner, alone_of(format, kv_heads))


# -- the check itself ------------------------------------------------------------------------------------------------


class Wrong(Recorded):
    """Wrong in one bit of each row for which `when` says so, of (sequences, tokens of its own, position)."""

    def __init__(self, when, *args, **options):
        super().__init__(*args, **options)
        self.when = when

    def run(self, batch, draws=NO_DRAWS):
        counts = np.diff(batch.starts)
        owners = np.repeat(np.arange(len(counts)), counts)
        self.wrong = [self.when(len(counts), counts[owners[r]], batch.positions[r]) for r in batch.logit_rows]
        return super().run(batch, draws)

    def logits(self):
        rows = super().logits().copy()
        rows.view(np.uint32)[self.wrong, -1] ^= 1
        return rows


class Forgetful(Recorded):
    """Copies no block, but believes it did."""

    def copy(self, source, target):
        self.slots[target] = self.slots[source]
        self.copied += 1


WRONG = {
    "in company": lambda sequences, tokens, position: sequences > 1,
    "in large company": lambda sequences, tokens, position: sequences == 33,
    "decoded in the second chunk": lambda sequences, tokens, position: tokens == 1 and position == 256,
    "prefilled at the end of a block": lambda sequences, tokens, position: tokens > 1 and position == 63,
}


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_bit_in_a_batch_is_found(name):
    alone = alone_of("q4_1", 2)
    runner = Wrong(WRONG[name], model("q4_1"), blocks=ROOM, threads=1)
    read_together(runner, 33, 1, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="tokens gave other bytes than alone"):
        agree(runner, alone)


@pytest.mark.parametrize("name", [name for name in WRONG if "large" not in name])
def test_one_wrong_bit_under_the_engine_is_found(name):
    runner = Wrong(WRONG[name], model("q4_1"), blocks=8, threads=1)
    write_in_all_ways(runner, 64)
    with pytest.raises(AssertionError, match="tokens gave other bytes than alone"):
        agree(runner, alone_of("q4_1", 2))


def test_a_block_that_was_not_copied_is_found():
    runner = Forgetful(model("q4_1"), blocks=8, threads=1)
    with contextlib.suppress(AssertionError):  # the texts may become others
        write_in_all_ways(runner, 64)
    assert runner.copied
    with pytest.raises(AssertionError, match="tokens gave other bytes than alone"):
        agree(runner, alone_of("q4_1", 2))


def test_rows_that_are_always_the_same_are_found():
    source = TinySource()
    weights = {name: source.get(name) for name in source.names()}
    mute = tiny.model_of(source.config, {n: replace(w, data=np.zeros_like(w.data)) for n, w in weights.items()})
    runner = Recorded(mute, blocks=ROOM, threads=1)
    read_together(runner, 2, 64, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="different texts give the same bytes"):
        agree(runner, Alone(mute))


@pytest.mark.parametrize("axes", [(KV_HEADS, THREADS, CHUNKS, SIZES), (KV_HEADS, THREADS, BUDGETS)])
def test_the_short_form_has_every_value_for_each_format(axes):
    for format in KINDS:
        assert [set(values) for values in zip(*cases(format, False, *axes), strict=True)] == [set(a) for a in axes]


class TestOthers:
    pytestmark = variants.outer_only

    def test_under(self, name, soak, monkeypatch):
        """All of the above under each other instruction set of this machine."""
        if soak:
            monkeypatch.setenv("PYTEST_ADDOPTS", "--soak", prepend=" ")
        variants.again(__file__, name)
