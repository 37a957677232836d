"""The engine's thread: many threads hand in requests, and whatever breaks ends what it must and nothing else."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
import weakref

import pytest

from driving import LENGTH, VOCAB, Told, Watched, ask, judge, plain
from quickbrown.engine.batch import NO_DRAWS
from quickbrown.engine.engine import Engine
from quickbrown.engine.thread import EngineThread
from quickbrown.types import Event, Finish, FinishReason


class Sink:
    """Adds events up; `done` is set when all samples have ended, or nothing more will come."""

    def __init__(self, request):
        self.request = request
        self.told = {(request.id, sample): Told() for sample in range(len(request.seeds))}
        self.error: BaseException | None = None
        self.done = threading.Event()

    def take(self, event: Event) -> None:
        text = self.told[event.request, event.sample]
        assert text.finish is None
        text.tokens += event.tokens
        text.finish = event.finish
        if all(text.finish for text in self.told.values()):
            self.done.set()

    def fail(self, error):
        self.error = error
        self.done.set()

    def wait(self):
        assert self.done.wait(20), "nothing more is heard of it"
        return self

    @property
    def text(self):
        [text] = self.told.values()
        return text.tokens, text.finish


class Gate(Watched):
    """Each run waits for `open`, and says in `inside` that it does."""

    def __init__(self, **options):
        super().__init__(**options)
        self.open, self.inside = threading.Event(), threading.Event()

    def run(self, batch, draws=NO_DRAWS):
        self.inside.set()
        assert self.open.wait(20)
        return super().run(batch, draws)


@pytest.fixture
def thread():
    made = EngineThread(Engine(Watched(blocks=24, block_size=4), budget=16))
    yield made
    made.close()


def submit(thread, **options):
    sink = Sink(ask(thread.new_id(), **options))
    thread.submit([(sink.request, sink)])
    return sink


def test_many_threads_hand_in_requests(thread):
    """Twelve threads, twenty requests each, of which some are cancelled by another thread; memory makes them wait."""
    sinks, lock = [], threading.Lock()

    def work(seed):
        dice = random.Random(seed)
        for _ in range(20):
            prompt = [dice.randrange(VOCAB) for _ in range(dice.randrange(1, 20))]
            seeds = [dice.getrandbits(60) for _ in range(dice.choice([1, 1, 3]))]
            sink = submit(thread, prompt=prompt, seed=seeds, temperature=1.0, max_new_tokens=dice.randrange(1, 12))
            with lock:
                sinks.append(sink)
                victim = dice.choice(sinks)
            if dice.random() < 0.2:
                thread.cancel(victim.request.id)
            if dice.random() < 0.5:
                sink.wait()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(sinks) == 240
    for sink in sinks:
        judge(sink.wait().request, sink.told)
    finishes = [text.finish for sink in sinks for text in sink.told.values()]
    assert {FinishReason.LENGTH, FinishReason.CANCELLED} == {finish.reason for finish in finishes}
    thread.call(thread.engine.check)


def test_a_request_is_cancelled_within_a_step():
    """Cancelled while a step runs: that step is the last that it is in."""
    runner = Gate(blocks=24)
    thread = EngineThread(Engine(runner))
    sink = submit(thread, max_new_tokens=20)
    assert runner.inside.wait(20)
    thread.cancel(sink.request.id)
    runner.open.set()
    tokens, finish = sink.wait().text
    assert (len(tokens), finish.reason, runner.runs) == (1, FinishReason.CANCELLED, 1)
    thread.close()


def test_requests_handed_in_together_run_together():
    runner = Watched(blocks=24)
    thread = EngineThread(Engine(runner))
    sinks = [Sink(ask(thread.new_id(), prompt=(i, 2, 3))) for i in range(4)]
    thread.submit([(sink.request, sink) for sink in sinks])
    for sink in sinks:
        sink.wait()
    assert runner.sizes == [12] + [4] * 7
    thread.close()


def test_bad_requests_are_refused_where_they_are_handed_in(thread):
    """And nothing of what came with them is written."""
    good, bad = Sink(ask(thread.new_id())), Sink(ask(thread.new_id(), prompt=(VOCAB,)))
    with pytest.raises(ValueError, match="outside the vocabulary"):
        thread.submit([(good.request, good), (bad.request, bad)])
    assert submit(thread).wait().text == plain(ask())
    assert not good.told[good.request.id, 0].tokens


def test_a_sink_that_raises_ends_its_request_only(thread):
    class Broken(Sink):
        def take(self, event):
            super().take(event)
            raise LookupError("no room for it")

    broken = Broken(ask(thread.new_id(), seed=(1, 2), temperature=1.0))
    other = Sink(ask(thread.new_id()))
    thread.submit([(broken.request, broken), (other.request, other)])
    assert other.wait().text == plain(other.request)
    assert isinstance(broken.wait().error, LookupError)
    assert sum(len(text.tokens) for text in broken.told.values()) == 1
    thread.call(thread.engine.check)


def test_a_sink_that_cannot_even_be_told_is_let_go(thread, caplog):
    class Hopeless(Sink):
        def take(self, event):
            raise LookupError("no")

        def fail(self, error):
            self.done.set()
            raise LookupError("no!")

    submit_to = Hopeless(ask(thread.new_id()))
    thread.submit([(submit_to.request, submit_to)])
    submit_to.wait()
    assert submit(thread).wait().text == plain(ask())
    assert "could not be told" in caplog.text


def test_an_engine_that_fails_ends_what_it_was_writing_and_goes_on(thread, monkeypatch, caplog):
    """A fault of the engine itself, for which no request can be blamed. The books start anew."""
    step = thread.engine.step
    calls = []

    def failing():
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError("a bug")
        return step()

    monkeypatch.setattr(thread.engine, "step", failing)
    sinks = [Sink(ask(thread.new_id(), seed=(1, 2), temperature=1.0)) for _ in range(2)]
    thread.submit([(sink.request, sink) for sink in sinks])
    for sink in sinks:
        for text in sink.wait().told.values():
            assert text.finish == Finish(FinishReason.ERROR, "ZeroDivisionError: a bug")
            assert len(text.tokens) == 2
    assert submit(thread).wait().text == plain(ask())
    assert "the engine failed" in caplog.text
    assert thread.engine.pool.available == 24


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_replaced(thread, monkeypatch, caplog):
    """SystemExit is nobody's Exception: it ends the thread. Who waits is told, and the next request is written."""
    step = thread.engine.step
    monkeypatch.setattr(thread.engine, "step", lambda: (_ for _ in ()).throw(SystemExit("killed")))
    sink = submit(thread).wait()
    assert isinstance(sink.error, SystemExit)
    monkeypatch.setattr(thread.engine, "step", step)
    assert submit(thread).wait().text == plain(ask())
    assert "the engine's thread died" in caplog.text


def test_work_between_two_steps(thread):
    assert thread.call(threading.current_thread).name == "quickbrown engine"
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    assert submit(thread).wait().text == plain(ask())


def test_the_thread_sleeps_when_there_is_nothing_to_do(thread):
    """Counted in steps: it must not spin."""
    submit(thread).wait()
    time.sleep(0.05)
    steps = []
    thread.engine.expire = lambda: steps.append(1)
    time.sleep(0.2)
    assert not steps


def test_close_tells_everybody():
    runner = Gate(blocks=24)
    thread = EngineThread(Engine(runner))
    running = submit(thread)
    assert runner.inside.wait(20)
    late = submit(thread)
    closing = threading.Thread(target=thread.close)
    closing.start()
    runner.open.set()
    closing.join(20)
    for sink in (running, late):
        assert "closed" in str(sink.wait().error)
    for use in (lambda: submit(thread), lambda: thread.call(int)):
        with pytest.raises(RuntimeError, match="was closed"):
            use()
    thread.close()
    thread.cancel(running.request.id)


def test_a_thread_that_is_not_needed_is_not_there(caplog):
    """It starts with the first request and ends with `close`, and does not keep the engine alive after that."""
    caplog.set_level(logging.DEBUG)
    before = threading.active_count()
    thread = EngineThread(Engine(Watched(blocks=24)))
    assert threading.active_count() == before
    assert submit(thread).wait().text == (plain(ask())[0], LENGTH)
    assert threading.active_count() == before + 1
    thread.close()
    assert threading.active_count() == before
    gone = weakref.ref(thread.engine)
    del thread
    gc.collect()
    assert gone() is None
