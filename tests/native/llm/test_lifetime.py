"""Streams, models and processes that go away in the middle of a text."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from quickbrown import LLM, FinishReason, GenerationError
from tiny_llm import CHAT, LENGTH, SAMPLED, alone, held, rests, said


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
