"""The public API on a tiny model file: what is asked for is what is written, whoever else writes, and whatever breaks.

The model's logits spread by half a nat: at SPREAD a text hangs on all that was written before it, so that a wrong key,
value, seed or position anywhere shows in the tokens.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from gguf_writer import write_tiny_llama
from quickbrown import LLM, Finish, FinishReason, GenerationError, TooLong, UnknownOption, set_seed
from quickbrown.backends.native.memory import available_memory
from quickbrown.engine.batch import NO_DRAWS
from quickbrown.generation import seeds

BLOCK = 64
BLOCK_BYTES = 2 * 2 * 2 * 16 * 2 * BLOCK  # keys and values, layers, heads, their size, bf16
LENGTH = Finish(FinishReason.LENGTH)
CANCELLED = Finish(FinishReason.CANCELLED)
SPREAD = 0.3
NEW = 40
SAMPLED = {"temperature": SPREAD, "ignore_eos": True, "max_new_tokens": NEW}
ENDS = {0, 2}  # <|endoftext|>, <|im_end|>
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


@pytest.fixture(autouse=True)
def _own_seeds(monkeypatch):
    monkeypatch.setattr(seeds, "_seeds", seeds.Seeds())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(path):
    llm = LLM(path, threads=2)
    yield llm
    llm.close()


@pytest.fixture
def llm(loaded):
    """Shared by the tests; each must leave it idle."""
    yield loaded
    assert rests(loaded)


@pytest.fixture(scope="module")
def narrow(path):
    """Memory for 12 blocks: few texts fit in it together."""
    llm = LLM(path, threads=1, memory=12 * BLOCK_BYTES)
    yield llm
    assert rests(llm)
    llm.close()


class TestShapes:
    def test_of_generate(self, llm):
        """A text for a text, a list for a list, n in the place of each: told apart by their seeds, which are all
        different, so that a row in the wrong place is another text."""
        prompts = ["Once upon a time", "Twice", ids(70)]
        options = {**SAMPLED, "seed": [3, 4, 5]}
        rows = llm.generate(prompts, **options)
        assert [row.seed for row in rows] == [3, 4, 5]
        assert [row.prompt_tokens for row in rows] == [len(llm.tokenizer.encode(p)) for p in prompts[:2]] + [70]
        assert said(llm.generate(prompts[0], **{**options, "seed": [3]})) == said(rows[0])
        assert [[said(c) for c in row] for row in llm.generate(prompts, n=1, **options)] == [[said(c)] for c in rows]
        three = llm.generate(prompts, n=3, **options)
        assert [len(row) for row in three] == [3, 3, 3]
        assert [said(row[0]) for row in three] == [said(row) for row in rows]
        assert len({c.text for row in three for c in row}) == 9
        first = llm.generate(prompts[0], n=3, **{**options, "seed": [3]})
        assert [said(c) for c in first] == [said(c) for c in three[0]]
        assert llm.generate([], **SAMPLED) == []

    def test_a_prompt_may_be_text_tokens_or_a_conversation(self, llm):
        """Each is written down in its own way, in one list; the same tokens give the same text."""
        conversation = llm.template.render(CHAT)
        mixed = llm.generate(["Once", llm.tokenizer.encode("Once"), CHAT, conversation], **SAMPLED, seed=[1, 1, 2, 2])
        mixed = [said(row) for row in mixed]
        assert mixed[0] == mixed[1] != mixed[2] == mixed[3]
        assert mixed[2].prompt_tokens == len(llm.tokenizer.encode(conversation))
        assert said(llm.chat(CHAT, **SAMPLED, seed=[2])) == mixed[2]

    def test_of_chat(self, llm):
        other = [*CHAT, {"role": "assistant", "content": "A fox."}, {"role": "user", "content": "Why?"}]
        one, two = (said(c) for c in llm.chat([CHAT, other], **SAMPLED, seed=[1, 2]))
        assert said(llm.chat(CHAT, **SAMPLED, seed=[1])) == one
        assert said(llm.chat(other, **SAMPLED, seed=[2])) == two
        several = llm.chat([CHAT, other], n=2, **SAMPLED, seed=[1, 2])
        assert [said(row[0]) for row in several] == [one, two]
        assert [said(c) for c in llm.chat(CHAT, n=2, **SAMPLED, seed=[1])] == [said(c) for c in several[0]]
        assert said(llm.stream_chat(CHAT, **SAMPLED, seed=[1]).read()) == one

    def test_rows_of_a_stream_are_prompt_times_n_plus_sample(self, llm):
        """Six texts, all different: pieces added up by row are those of `generate`, in its order."""
        prompts = ["Once", ids(70), "Twice"]
        rows = [c for row in llm.generate(prompts, n=2, **SAMPLED, seed=8) for c in row]
        assert len({c.text for c in rows}) == 6
        stream = llm.stream_batch(prompts, n=2, **SAMPLED, seed=8)
        texts = [""] * 6
        order = []
        for row, piece in stream:
            assert piece
            texts[row] += piece
            order.append(row)
        assert texts == [c.text for c in rows]
        assert [said(c) for c in stream.completions] == [said(c) for c in rows]
        assert sorted(order) != order, "they are not written together"

    @pytest.mark.parametrize("stops", [0, 1, 3])
    def test_a_stream_is_generate_in_pieces(self, llm, stops):
        """Also where a piece ends within a character of several bytes, or a stop string is held back: the text has
        such characters, and stop strings that end it at one of them."""
        options = {**SAMPLED, "max_new_tokens": 250, "seed": [1]}
        whole = llm.generate("Once upon a time", **options)
        assert whole.text == llm.tokenizer.decode(whole.tokens)
        wide = [i for i, letter in enumerate(whole.text) if letter > "\x7f" and letter != "\ufffd"]
        assert len(wide) > 3
        at = wide[3]
        options["stop"] = [whole.text[at - stops : at + 1], "never" + whole.text[at]][: 2 * stops]
        written = llm.generate("Once upon a time", **options)
        stream = llm.stream("Once upon a time", **options)
        pieces = list(stream)
        assert len(pieces) > 20
        assert all(pieces)
        assert "".join(pieces) == stream.completion.text == written.text
        assert said(stream.completion) == said(written)
        if stops:
            cut = whole.text.index(options["stop"][0])
            assert (written.text, written.finish) == (whole.text[:cut], Finish(FinishReason.STOP, options["stop"][0]))

    def test_what_was_held_back_comes_at_the_end(self, llm):
        """The text ends as a stop string begins: it is whole all the same."""
        whole = alone(llm, "Once", **SAMPLED, seed=[1])
        options = {**SAMPLED, "seed": [1], "stop": whole.text[-2:] + "never"}
        assert alone(llm, "Once", **options) == whole
        assert "".join(llm.stream("Once", **options)) == whole.text

    def test_pieces_come_while_the_text_is_written(self, llm):
        """The engine stands still after ten of 40 tokens, and what they say can be read; no text has ended by then."""
        with held(llm) as steps:
            stream = llm.stream("Once", **SAMPLED, seed=1)
            steps.let(10)
            first = next(stream)
            with pytest.raises(ValueError, match="still being written"):
                _ = stream.completion
            assert stream.first_token_seconds > 0
            assert stream.seconds != stream.seconds
            steps.allow()
            assert stream.read().text.startswith(first)
        assert stream.seconds >= stream.first_token_seconds

    def test_a_text_is_what_the_logits_say(self, llm):
        """The likeliest token after each, from a pass over the whole text, while another text is being written."""
        other = llm.stream("Twice", **SAMPLED)
        written = llm.generate([ids(90)], max_new_tokens=100, ignore_eos=True)[0]
        logits = llm.logits([*ids(90), *written.tokens[:-1]])
        assert logits[89:].argmax(axis=1).tolist() == list(written.tokens)
        assert len(set(written.tokens)) > 10
        assert other.read().finish == LENGTH


class TestSeeds:
    def test_a_completion_names_the_seed_that_writes_it_again_alone(self, llm):
        """Six samples of two prompts, all different; their company, and which sample they were, leave no trace."""
        prompts = ["Once", ids(100)]
        rows = llm.generate(prompts, n=3, **SAMPLED, seed=11)
        assert len({c.seed for row in rows for c in row}) == len({c.text for row in rows for c in row}) == 6
        for prompt, row in zip(prompts, rows, strict=True):
            assert [alone(llm, prompt, **SAMPLED, seed=[c.seed]) for c in row] == [said(c) for c in row]

    def test_what_draws_nothing_has_no_seed(self, llm):
        assert llm.generate("Once", max_new_tokens=5, seed=3).seed is None

    def test_one_seed_is_for_the_call(self, llm):
        """Twice the same texts; the same prompt twice in a call draws differently; another seed writes others."""

        def texts(seed):
            return [c.text for c in llm.generate(["Once", "Once"], **SAMPLED, seed=seed)]

        assert texts(1) == texts(1)
        assert len({*texts(1), *texts(2)}) == 4

    def test_set_seed_repeats_the_calls_that_follow(self, llm):
        """Calls that draw nothing, or with a seed of their own, take no number; without set_seed no two are alike."""

        def draw():
            return llm.generate("Once", **SAMPLED).text

        assert draw() != draw()
        set_seed(5)
        first = [draw(), llm.stream("Once", **SAMPLED).read().text, draw()]
        assert len(set(first)) == 3
        set_seed(5)
        again = [draw()]
        llm.generate("Once", max_new_tokens=5)
        llm.generate("Once", **SAMPLED, seed=1)
        with pytest.raises(TooLong):
            llm.generate([ids(3000)], **SAMPLED)
        assert [*again, draw(), draw()] == first
        set_seed(6)
        assert draw() not in first

    @pytest.mark.parametrize("wrong", [[], [1, 2], [1, 2, 3, 4]])
    def test_a_row_seed_for_each_prompt_or_none(self, llm, wrong):
        with pytest.raises(ValueError, match=rf"^seed names {len(wrong)} rows, but the call has 3; "):
            llm.generate(["a", "b", "c"], **SAMPLED, seed=wrong)


class TestCompany:
    @pytest.mark.parametrize("temperature", [0, SPREAD])
    def test_a_batch_is_what_each_is_alone_though_memory_is_short(self, llm, narrow, temperature):
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

    def test_many_threads_with_different_options(self, llm, narrow):
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

    def test_who_does_not_fit_beside_another_waits(self, llm, path):
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


class TestFinish:
    def test_stop_at_the_models_own_tokens(self, llm):
        """Some of 32 samples draw one of its two: each ends there, and would have gone on otherwise."""
        options = {"temperature": SPREAD, "max_new_tokens": 150}
        samples = llm.generate("Once", n=32, **options, seed=1)
        stopped = [c for c in samples if c.finish.reason is FinishReason.STOP]
        assert 0 < len(stopped) < 32
        for c in stopped:
            assert c.finish == Finish(FinishReason.STOP, c.tokens[-1])
            assert [token in ENDS for token in c.tokens] == [*[False] * (len(c.tokens) - 1), True]
            assert c.text == llm.tokenizer.decode(c.tokens[:-1])
        assert {c.tokens[-1] for c in stopped} == ENDS
        for c in {*samples}.difference(stopped):
            assert (c.finish, len(c.tokens)) == (LENGTH, 150)
            assert ENDS.isdisjoint(c.tokens)
        further = alone(llm, "Once", **options, seed=[stopped[0].seed], ignore_eos=True)
        assert further.finish == LENGTH
        assert begins(stopped[0], further)

    def test_a_stop_string_ends_the_sample_that_wrote_it_and_no_other(self, llm):
        """It stands in the middle of one of three texts, and in no other. Nothing is run after it."""
        one, two, three = llm.generate("Once", n=3, **SAMPLED, seed=1)
        others = one.text + three.text
        stop = next(two.text[i : i + 3] for i in range(15, 30) if two.text[i : i + 3] not in others)
        stopped = llm.generate("Once", n=3, **SAMPLED, seed=1, stop=stop)
        assert [said(stopped[0]), said(stopped[2])] == [said(one), said(three)]
        assert stopped[1].finish == Finish(FinishReason.STOP, stop)
        assert stopped[1].text == two.text[: two.text.index(stop)] != ""
        assert begins(stopped[1], two)
        with counted(llm) as sizes:
            again = alone(llm, "Once", **SAMPLED, seed=[two.seed], stop=stop)
        assert again == said(stopped[1])
        assert len(sizes) == len(again.tokens)

    def test_length(self, llm):
        """What was asked for, or the whole context where nothing was."""
        assert llm.generate("Once", **SAMPLED).finish == LENGTH
        rest = llm.generate([ids(2000), ids(1990)], ignore_eos=True)
        assert [(len(c.tokens), c.finish) for c in rest] == [(48, LENGTH), (58, LENGTH)]

    def test_time_ends_a_text_and_no_other(self, llm):
        """In the middle, at a point that the clock chooses; at once, if there is none; another text goes on."""
        timed = {**SAMPLED, "max_new_tokens": 400, "seed": [1]}
        whole = alone(llm, "Once", **timed)
        expected = alone(llm, ids(50), **SAMPLED, seed=[2])
        with running(llm, slowly(0.01)):
            other = llm.stream_batch([ids(50)], **SAMPLED, seed=[2])
            timed["max_time"] = 0.2
            stopped = llm.generate("Once", **timed)
            assert stopped.finish == Finish(FinishReason.TIME)
            assert begins(stopped, whole)
            assert stopped.tokens
            never = llm.generate([ids(1000, 1001)], **{**timed, "max_time": 1e-9})[0]
            assert (never.finish.reason, never.tokens, never.text) == (FinishReason.TIME, (), "")
            assert said(other.read()[0]) == expected

    def test_closing_a_stream_keeps_what_was_written(self, llm):
        """The engine stands before its eleventh step: ten tokens are there. Nothing else is ever read or run, and
        closing again changes nothing."""
        whole = alone(llm, "Once", **SAMPLED, seed=[1])
        with held(llm) as steps:
            stream = llm.stream("Once", **SAMPLED, seed=[1])
            steps.let(10)
            stream.close()
            closed = stream.completion
            steps.allow()
            assert rests(llm)
            assert steps.begun == 11
        stream.close()
        assert stream.completion == closed
        assert (closed.finish, len(closed.tokens)) == (CANCELLED, 10)
        assert begins(closed, whole)
        assert "".join(stream) == closed.text

    def test_closing_a_batch_ends_all_its_rows(self, llm):
        whole = [said(c) for c in llm.generate(["Once", "Twice"], **SAMPLED, seed=[1, 2])]
        with held(llm) as steps:
            stream = llm.stream_batch(["Once", "Twice"], **SAMPLED, seed=[1, 2])
            steps.let(10)
            stream.close()
        assert [c.finish for c in stream.completions] == [CANCELLED, CANCELLED]
        assert all(map(begins, stream.completions, whole))


class TestErrors:
    OPTIONS = {**SAMPLED, "seed": [1, 2, 3]}  # noqa: RUF012
    PROMPTS = ("Once", "Twice", "Thrice")

    @pytest.fixture
    def texts(self, llm):
        return [said(c) for c in llm.generate(self.PROMPTS, **self.OPTIONS)]

    def test_a_row_that_fails_takes_no_other_with_it(self, llm, texts):
        """The model fails on a token that only the second text writes, in a step that runs all three."""
        at, poison = poison_of(texts[1], texts[0], texts[2])
        with (
            running(llm, poisoned(poison)),
            pytest.raises(GenerationError, match=r"^row 1: LookupError: no idea$") as e,
        ):
            llm.generate(self.PROMPTS, **self.OPTIONS)
        one, guilty, three = e.value.completions
        assert [said(one), said(three)] == [texts[0], texts[2]]
        assert guilty.finish == Finish(FinishReason.ERROR, "LookupError: no idea")
        assert guilty.tokens == texts[1].tokens[: at + 1]
        assert [said(c) for c in llm.generate(self.PROMPTS, **self.OPTIONS)] == texts, "it leaves traces"

    def test_all_samples_of_the_request_end(self, llm):
        """One sample's failure is its request's: both rows say so, with what they had."""
        one, two = llm.generate("Once", n=2, **SAMPLED, seed=1)
        at, poison = poison_of(two, one)
        with running(llm, poisoned(poison)), pytest.raises(GenerationError, match="no idea") as e:
            llm.generate("Once", n=2, **SAMPLED, seed=1)
        assert [c.finish.reason for c in e.value.completions] == [FinishReason.ERROR] * 2
        assert all(map(begins, e.value.completions, (one, two)))
        assert len(e.value.completions[1].tokens) == at + 1

    def test_a_stream_says_so_at_its_end_and_other_calls_hear_nothing(self, llm, texts):
        """Three calls in the same steps, all begun while the engine stands still; one is the guilty."""
        at, poison = poison_of(texts[1], texts[0], texts[2])
        with running(llm, poisoned(poison)), held(llm) as steps:
            streams = [llm.stream(prompt, **SAMPLED, seed=[seed]) for seed, prompt in enumerate(self.PROMPTS, 1)]
            steps.allow()
            written = []
            with pytest.raises(GenerationError, match=r"^LookupError: no idea$") as e:
                written.extend(streams[1])
            assert [said(streams[0].read()), said(streams[2].read())] == [texts[0], texts[2]]
        [guilty] = e.value.completions
        assert guilty == streams[1].completion
        assert "".join(written) == guilty.text == llm.tokenizer.decode(texts[1].tokens[: at + 1])

    def test_another_threads_call_hears_nothing(self, llm, texts):
        """A long text, at least two others that fail beside it."""
        expected = alone(llm, "Once", **{**SAMPLED, "max_new_tokens": 150}, seed=[1])
        _, poison = poison_of(texts[1], expected)
        with running(llm, poisoned(poison)), running(llm, slowly(0.002)), ThreadPoolExecutor(1) as thread:
            other = thread.submit(alone, llm, "Once", **{**SAMPLED, "max_new_tokens": 150}, seed=[1])
            for _ in range(2):
                with pytest.raises(GenerationError):
                    llm.generate("Twice", **SAMPLED, seed=[2])
            assert other.result() == expected


class TestMemory:
    def test_a_prompt_is_read_once(self, llm):
        """1,000 tokens: its 15 full blocks are found again, 40 tokens are read. The rows of every step are counted, so
        that nothing can be computed on the quiet; the text is the same."""
        with counted(llm) as sizes:
            first = llm.generate([ids(1000, 1000)], **SAMPLED, seed=[1])[0]
            assert sum(sizes) == 1000 + NEW - 1
            sizes.clear()
            second = llm.generate([ids(1000, 1000)], **SAMPLED, seed=[1])[0]
            assert sizes == [40, *[1] * (NEW - 1)]
        assert (first.reused_tokens, second.reused_tokens) == (0, 960)
        assert said(first) == said(second)

    def test_samples_read_their_prompt_once(self, llm):
        with counted(llm) as sizes:
            llm.generate([ids(500, 1002)], n=4, **SAMPLED, seed=1)
        assert sizes == [500, *[4] * (NEW - 1)]

    def test_the_next_turn_reads_what_is_new(self, llm):
        """A prompt, its answer, a new question, as token ids: all full blocks of what was stored are found."""
        first = ids(300, 1003)
        answer = llm.generate([first], **SAMPLED, seed=1)[0]
        stored = len(first) + len(answer.tokens) - 1  # nobody has asked yet what follows the last token
        turn = [*first, *answer.tokens, *ids(30, 1004)]
        with counted(llm) as sizes:
            second = llm.generate([turn], max_new_tokens=1)[0]
        assert second.reused_tokens == stored // BLOCK * BLOCK > len(first)
        assert sizes == [len(turn) - second.reused_tokens]

    def test_the_next_turn_of_a_conversation(self, llm):
        """The first turn's blocks are found, though the second is written down from messages anew."""
        messages = [{"role": "user", "content": "".join(random.Random(0).choices("abcdefgh ijk", k=500))}]
        first = llm.chat(messages, max_new_tokens=4)
        messages += [{"role": "assistant", "content": "Because."}, {"role": "user", "content": "Why?"}]
        with counted(llm) as sizes:
            second = llm.chat(messages, max_new_tokens=1)
        assert first.reused_tokens == 0
        assert second.reused_tokens == first.prompt_tokens // BLOCK * BLOCK > 300
        assert sizes == [second.prompt_tokens - second.reused_tokens]

    @pytest.mark.parametrize(
        ("memory", "blocks"),
        [
            ("2MB", 2_000_000 // BLOCK_BYTES),
            ("1.5 MiB", 3 * 2**19 // BLOCK_BYTES),
            ("100kb", 6),
            (BLOCK_BYTES, 1),
            (5 * BLOCK_BYTES - 1, 4),
            (str(5 * BLOCK_BYTES), 5),
            (None, 4 * 2048 // BLOCK),
        ],
    )
    def test_what_is_asked_for_is_had(self, path, memory, blocks):
        llm = LLM(path, threads=1, memory=memory)
        assert llm.runner.room() == blocks
        assert llm.runner.kv.block_bytes == BLOCK_BYTES
        assert len(llm.generate("Once", max_new_tokens=40, ignore_eos=True).tokens) == 40
        llm.close()

    def test_float32_takes_twice_as_much(self, path):
        llm = LLM(path, threads=1, memory=10 * BLOCK_BYTES, dtype="float32")
        assert (llm.runner.room(), llm.runner.kv.block_bytes) == (5, 2 * BLOCK_BYTES)
        llm.close()

    def test_keys_and_values_of_8_bits_take_half(self, path):
        """And a float32 scale for each, which is little beside heads larger than these."""
        llm = LLM(path, threads=1, memory=10 * BLOCK_BYTES, kv_cache_dtype="int8")
        assert (llm.runner.room(), llm.runner.kv.block_bytes) == (16, BLOCK_BYTES * (16 + 4) // 32)
        assert llm.info()["kv_cache_dtype"] == "int8"
        whole = llm.generate("Once", max_new_tokens=40, ignore_eos=True).tokens
        assert len(whole) == 40
        assert llm.generate(["Once", ids(300)], max_new_tokens=40, ignore_eos=True)[0].tokens == whole
        llm.close()

    @pytest.mark.parametrize(
        ("options", "kept"),
        [
            ({"kv_cache_dtype": None}, ("bfloat16", 1)),
            ({"kv_cache_dtype": "float32"}, ("float32", 2)),
            ({"kv_cache_dtype": "bfloat16", "dtype": "float32"}, ("bfloat16", 1)),
            ({"dtype": "float32"}, ("float32", 2)),
        ],
    )
    def test_what_keys_and_values_are_stored_in(self, path, options, kept):
        llm = LLM(path, threads=1, memory="1MB", **options)
        assert (llm.info()["kv_cache_dtype"], llm.runner.kv.block_bytes / BLOCK_BYTES) == kept
        llm.close()
        with pytest.raises(ValueError, match="kv_cache_dtype must be one of auto, bfloat16, float32, int8, not 'fp8'"):
            LLM(path, kv_cache_dtype="fp8")

    @pytest.mark.parametrize(
        "memory",
        ["", "much", "2 GBB", "-1GB", "1e9", "1.GB", "GB", "2 GB ", "9" * 400 + "GB", 0, -5, 1e9, True, b"2GB"],
    )
    def test_what_is_no_size_is_refused(self, path, memory):
        with pytest.raises(ValueError, match=r"^memory (must be a number of bytes, or a string like|is .* free)"):
            LLM(path, memory=memory)

    def test_too_little_and_too_much_are_refused(self, path):
        with pytest.raises(ValueError, match=r"^memory must be at least 16,384 bytes, .* not 16,383$"):
            LLM(path, memory=BLOCK_BYTES - 1)
        with pytest.raises(ValueError, match=r"^memory is [\d,]+ bytes, but only [\d,]+ are free; ask for less$"):
            LLM(path, memory=2 * available_memory())

    @pytest.mark.parametrize(
        ("prompt", "new", "numbers"), [(300, 469, "300 468 768"), (800, 1, "800 768"), (768, 1, "768 768")]
    )
    def test_a_text_that_memory_cannot_hold_is_refused(self, narrow, prompt, new, numbers):
        """With the numbers to change it by; one token less is written."""
        with pytest.raises(TooLong) as e:
            narrow.generate([ids(prompt)], max_new_tokens=new)
        assert [word for word in numbers.split() if word not in str(e.value)] == []
        if prompt == 300:
            assert len(narrow.generate([ids(prompt)], max_new_tokens=new - 1, ignore_eos=True)[0].tokens) == new - 1


def engine_threads():
    return {thread for thread in threading.enumerate() if thread.name == "quickbrown engine"}


def test_a_slow_reader_holds_up_nobody(llm):
    """A stream is opened and not read; others come and go; it is read at the end, and whole."""
    expected = alone(llm, "Once", **SAMPLED, seed=[1])
    stream = llm.stream("Once", **SAMPLED, seed=[1])
    for seed in range(3):
        assert llm.generate(["Twice", "Thrice"], **SAMPLED, seed=seed)[1].finish == LENGTH
    assert rests(llm)
    assert "".join(stream) == expected.text
    assert said(stream.completion) == expected


@pytest.mark.parametrize("open_", [LLM.stream, lambda llm, *a, **o: llm.stream_batch(a, **o)], ids=["stream", "batch"])
def test_a_stream_that_is_dropped_is_not_written_on(llm, open_):
    """Dropped during its eleventh step: that one is its last, of 2,000."""
    with held(llm) as steps:
        stream = open_(llm, "Once", **{**SAMPLED, "max_new_tokens": 2000})
        steps.let(10)
        next(stream)
        del stream
        gc.collect()
        steps.allow()
        assert rests(llm)
        assert steps.begun == 11


def test_closing_ends_what_is_written_and_what_comes(path):
    """A stream of 2,000 tokens ends with an error after what it had; the engine's thread is gone; calls are refused."""
    before = engine_threads()
    llm = LLM(path, threads=2)
    with held(llm) as steps:
        stream = llm.stream("Once", **{**SAMPLED, "max_new_tokens": 2000})
        steps.let(10)
        closing = threading.Thread(target=llm.close)
        closing.start()
        time.sleep(0.05)
        steps.allow()
        closing.join(20)
    assert engine_threads() == before
    with pytest.raises(GenerationError, match="the model was closed while this text was being written") as e:
        list(stream)
    [completion] = e.value.completions
    assert completion.finish.reason is FinishReason.ERROR
    assert 10 <= len(completion.tokens) < 2000
    for call in (llm.generate, llm.stream):
        with pytest.raises(RuntimeError, match="closed; load it again"):
            call("Once", max_new_tokens=1)
    llm.close()


def test_letting_go_of_a_model_frees_it_and_its_thread(path):
    before = engine_threads()
    llm = LLM(path, threads=2)
    llm.generate("Once", **SAMPLED)
    llm.chat(CHAT, max_new_tokens=2)
    gone = [weakref.ref(x) for x in (llm, llm.runner, llm.engine)]
    assert len(engine_threads()) == len(before) + 1
    del llm
    gc.collect()
    assert [one() for one in gone] == [None] * 3
    assert engine_threads() == before


def test_a_stream_keeps_its_model(llm, path):
    """Nobody else does: the text is whole all the same, and the model goes with its last reader."""
    own = LLM(path, threads=2)
    gone = weakref.ref(own)
    stream = own.stream("Once", **SAMPLED, seed=[1])
    del own
    gc.collect()
    assert said(stream.read()) == alone(llm, "Once", **SAMPLED, seed=[1])
    assert gone() is not None
    del stream
    gc.collect()
    assert gone() is None


HEAD = """
import contextlib, os, signal, sys, threading, time
from quickbrown import LLM
llm = LLM(sys.argv[1], threads=2)
"""


def process(path, code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + code, str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"},
    )


def outcome(child):
    """(exit code, what it printed, what it complained of)"""
    try:
        out, error = child.communicate(timeout=60)
    finally:
        child.kill()
    return child.returncode, out, error


def test_a_process_may_leave_in_the_middle_of_a_text(path):
    """Five times, at five moments: the streams are still open when the interpreter takes itself apart."""
    leave = """
stream = llm.stream("Once", max_new_tokens=2000, ignore_eos=True)
batch = llm.stream_batch(["Once", "Twice"], n=3, max_new_tokens=2000, ignore_eos=True, temperature=0.3)
next(stream)
time.sleep(float(sys.argv[2]))
print(stream.texts[0].finish)
"""
    for i in range(5):
        assert outcome(process(path, leave, str(0.003 * i))) == (0, "None\n", "")


def test_a_process_may_leave_while_a_daemon_thread_has_the_model(path):
    """It waits for a text as the process leaves, and is told; its frame, which holds the model, is never unwound. That
    is no mistake of its own, and nobody complains of it."""
    leave = """
def work(model):
    with contextlib.suppress(Exception):
        model.generate("Once", max_new_tokens=2000, ignore_eos=True)
    time.sleep(60)
threading.Thread(target=work, args=[llm], daemon=True).start()
while not llm.engine.engine.live:
    time.sleep(0.001)
"""
    assert outcome(process(path, leave)) == (0, "", "")


def test_a_forked_child_is_told(path):
    """It has no engine's thread, and would wait for ever. It leaves as any process does; the parent's text is whole."""
    fork = """
stream = llm.stream("Once", max_new_tokens=500, ignore_eos=True)
next(stream)
child = os.fork()
if not child:
    signal.alarm(20)  # should it hang
    try:
        llm.generate("Once", max_new_tokens=2)
    except RuntimeError as error:
        print(error, flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(len(stream.read().tokens), llm.generate("Once", max_new_tokens=2).finish.reason)
"""
    code, out, error = outcome(process(path, fork))
    told, *parent = out.splitlines()
    assert told.startswith("this model was loaded before the process forked; load it again in the child")
    assert (code, parent, error) == (0, ["7", "500 length"], "")


def test_an_interrupt_ends_the_text_that_was_waited_for(path):
    """At the third of 2,000 slow steps: the caller hears of it at once, and the engine stops within two more."""
    interrupted = """
signal.signal(signal.SIGINT, signal.default_int_handler)
run, steps = llm.runner.run, []
def slow(batch, draws):
    steps.append(time.sleep(0.02))
    if len(steps) == 3:
        print("writing", flush=True)
    return run(batch, draws)
llm.runner.run = slow
try:
    llm.generate("Once", max_new_tokens=2000, ignore_eos=True)
except KeyboardInterrupt:
    then = len(steps)
    print("interrupted")
while llm.engine.engine.live:
    time.sleep(0.001)
print(len(steps) - then <= 2, then < 1000, llm.generate("Once", max_new_tokens=2).finish.reason)
"""
    child = process(path, interrupted)
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGINT)
    assert outcome(child) == (0, "interrupted\nTrue True length\n", "")


class TestRefusals:
    """Each in a sentence, before anything is run."""

    @pytest.mark.parametrize(
        ("error", "sentence", "call"),
        [
            (UnknownOption, "unknown option 'temprature'; did you mean", lambda m: m.generate("a", temprature=1)),
            (UnknownOption, "unknown option 'temprature'; did you mean", lambda m: m.stream("a", temprature=1)),
            (TypeError, "takes no n; stream_batch", lambda m: m.stream("a", n=2)),
            (ValueError, "top_p must be", lambda m: m.generate("a", top_p=2)),
            (ValueError, "the prompt is empty", lambda m: m.generate("")),
            (ValueError, "the prompt is empty", lambda m: m.stream("")),
            (ValueError, "the prompt is empty", lambda m: m.generate(["a", ""])),
            (ValueError, "at least one", lambda m: m.generate([[]])),
            (ValueError, "at least one", lambda m: m.chat([])),
            (ValueError, "outside the vocabulary of 266", lambda m: m.generate([[5, 266]])),
            (ValueError, "outside the vocabulary of 266", lambda m: m.generate([[5, -1]])),
            (ValueError, "Unicode", lambda m: m.generate("\ud800")),
            (ValueError, "message 0 has no content", lambda m: m.chat([{"role": "user"}])),
            (ValueError, "the role of message 0 is 'fox'", lambda m: m.chat([{"role": "fox", "content": "a"}])),
            (TypeError, "a prompt must be .* not int", lambda m: m.generate([5, 6])),
            (TypeError, "a prompt must be .* not int", lambda m: m.stream(5)),
            (TypeError, "a prompt must be .* not bytes", lambda m: m.generate([b"a"])),
            (TypeError, "a prompt must be .* not ndarray", lambda m: m.generate([np.array([5])])),
            (TypeError, "a prompt must be .* not dict", lambda m: m.generate(CHAT)),
            ((TypeError, ValueError), "prompt", lambda m: m.generate(5)),
            ((TypeError, ValueError), "prompt", lambda m: m.generate(None)),
            ((TypeError, ValueError), "^stop must be ", lambda m: m.generate("a", stop=5)),
            ((TypeError, ValueError), "messages", lambda m: m.chat("Hello")),
            ((TypeError, ValueError), "messages", lambda m: m.stream_chat("Hello")),
            ((TypeError, ValueError), "message", lambda m: m.chat([5, 6])),
            ((TypeError, ValueError), "message", lambda m: m.chat([[5, 6]])),
            (TooLong, "2100 tokens and the context holds 2048", lambda m: m.generate([ids(2100)])),
            (TooLong, "2000 tokens leaves room for 48", lambda m: m.generate([ids(2000)], max_new_tokens=49)),
            (TooLong, "2000 tokens leaves room for 48", lambda m: m.generate(["a", ids(2000)], max_new_tokens=49)),
            (ValueError, "1 to 2048 tokens, not 0", lambda m: m.logits([])),
        ],
    )
    def test_of_calls(self, llm, error, sentence, call):
        with counted(llm) as sizes, pytest.raises(error, match=sentence):
            call(llm)
        assert sizes == []

    @pytest.mark.parametrize("n", [0, -1, 1025, True, 2.0, "2"])
    def test_of_n(self, llm, n):
        for call in (llm.generate, llm.stream_batch):
            with pytest.raises(ValueError, match=r"^n must be a whole number from 1 to 1,024, not "):
                call(["a"], n=n)

    @pytest.mark.parametrize(
        ("sentence", "arguments"),
        [
            ("dtype must be one of auto, bfloat16, float32, not 'int8'", {"dtype": "int8"}),
            ("threads must be a whole number from 1 to 1024, not 0", {"threads": 0}),
            ("threads must be a whole number from 1 to 1024, not True", {"threads": True}),
        ],
    )
    def test_of_loading(self, path, sentence, arguments):
        with pytest.raises(ValueError, match=sentence):
            LLM(path, **arguments)
