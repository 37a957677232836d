"""Memory that texts share: prefixes found again, samples of one prompt, copies when they part, what goes first.

And time. Rows are counted, not timed: the fake runner reads every text back through its blocks.
"""

from __future__ import annotations

import pytest

from driving import CANCELLED, LENGTH, TIME, VOCAB, Clock, Guess, Watch, Watched, ask, judge, plain
from quickbrown.engine.blocks import BlockPool, digest
from quickbrown.engine.engine import Engine
from quickbrown.engine.sequence import EngineError


def prompt(length, seed=0):
    """Tokens that repeat nowhere in step with blocks."""
    return tuple((i * i + seed * 7 + i // 5) % VOCAB for i in range(length))


def run(engine, *requests):
    """Write requests to their end together; what was told, and how many tokens the runner was given."""
    before = sum(engine.runner.sizes)
    watch = Watch(engine)
    for request in requests:
        engine.add(request)
    told = watch.finish()
    for request in requests:
        judge(request, told)
    return told, sum(engine.runner.sizes) - before


@pytest.mark.parametrize(("length", "rows"), [(1000, 1000 - 15 * 64), (1024, 64), (1025, 1), (64, 64), (63, 63)])
def test_a_repeated_prompt_runs_at_most_one_block(length, rows):
    """The last token always runs, since its row is wanted: of a prompt of whole blocks, all of its last block."""
    engine = Engine(Watched(blocks=20, block_size=64))
    first, _ = run(engine, ask(0, prompt(length), max_new_tokens=1))
    again, given = run(engine, ask(1, prompt(length), max_new_tokens=1))
    assert (first[0, 0].reused, again[1, 0].reused) == (0, length - rows)
    assert given == rows


def test_a_next_turn_runs_what_is_new():
    """What was written counts as much as what was read; the last token of a text was never stored."""
    engine = Engine(Watched(blocks=64, block_size=4))
    first = ask(0, prompt(30), max_new_tokens=11)
    told, _ = run(engine, first)
    turn = (*first.prompt, *told[0, 0].tokens, *prompt(9, 1))
    again, given = run(engine, ask(1, turn, max_new_tokens=1))
    assert again[1, 0].reused == 40  # 30 + 11 - 1 stored
    assert given == len(turn) - 40


def test_another_beginning_shares_nothing():
    """The same tokens behind one other token: a block is known by the whole text up to its end."""
    engine = Engine(Watched(blocks=64, block_size=4))
    run(engine, ask(0, prompt(30)))
    told, given = run(engine, ask(1, (prompt(1)[0] + 1, *prompt(30)[1:]), max_new_tokens=1))
    assert told[1, 0].reused == 0
    assert given == 30


def test_a_running_text_shares_what_it_has_read():
    engine = Engine(Watched(blocks=64, block_size=4), budget=8)
    watch = Watch(engine)
    asked = [ask(0, prompt(32), max_new_tokens=12), ask(1, prompt(32), seed=3, temperature=1.0)]
    engine.add(asked[0])
    for _ in range(4):
        watch.step()
    engine.add(asked[1])
    watch.step()
    [a], [b] = engine.live[0], engine.live[1]
    assert a.blocks[:7] == b.blocks[:7]
    assert [engine.pool.holders[block] for block in a.blocks[:9]] == [2] * 7 + [1] * 2
    told = watch.finish()
    for request in asked:
        judge(request, told)


def test_the_least_recently_used_goes_first_and_ends_before_beginnings():
    """Three texts of 3 blocks in 9; the first is asked for again; then new ones take blocks one after another."""
    engine = Engine(Watched(blocks=9, block_size=4))
    texts = [prompt(12, seed) for seed in range(3)]
    for id, text in enumerate([*texts, texts[0]]):
        run(engine, ask(id, text, max_new_tokens=1))
    for id, (size, lost) in enumerate([(4, (1, 2)), (4, (1, 1)), (8, (2, 2)), (4, (2, 1))], 10):
        run(engine, ask(id, prompt(size, id), max_new_tokens=1))
        known = [len(engine.pool.find(digests(text, 4))) for text in texts]
        text, left = lost
        assert known[text] == left, f"after request {id}: {known}"
    assert known == [3, 0, 1]


def digests(text, size):
    """Of the full blocks of a text."""
    out = []
    for i in range(0, len(text) - size + 1, size):
        out.append(digest(out[-1] if out else b"", text[i : i + size]))
    return out


@pytest.mark.parametrize(("length", "copies"), [(10, 3), (8, 0), (11, 3)])
def test_samples_share_one_reading_of_the_prompt(length, copies):
    """Four samples: the prompt runs once, and each but the last to go on copies the block in which they part."""
    engine = Engine(Watched(blocks=64, block_size=4))
    request = ask(0, prompt(length), seed=(1, 2, 3, 4), temperature=2.0, max_new_tokens=6)
    assert len({tuple(plain(request, sample)[0]) for sample in range(4)}) == 4
    told, given = run(engine, request)
    assert given == length + 4 * 5
    assert engine.runner.copied == copies
    assert {text.finish for text in told.values()} == {LENGTH}


def test_samples_that_end_with_their_first_token_copy_nothing():
    engine = Engine(Watched(blocks=3, block_size=4))
    _, given = run(engine, ask(0, prompt(10), seed=range(9), temperature=2.0, max_new_tokens=1))
    assert given == 10
    assert engine.runner.copied == 0


@pytest.mark.parametrize(("budget", "blocks"), [(2, 64), (64, 5), (3, 6)])
def test_samples_that_do_not_fit_together_wait(budget, blocks):
    """More samples than tokens in a step, or than memory holds: they come one after another, and find the prompt."""
    engine = Engine(Watched(blocks=blocks, block_size=4), budget)
    told, given = run(engine, ask(0, prompt(11), seed=range(7), temperature=2.0, max_new_tokens=6, logprobs=True))
    assert len(told) == 7
    assert given < 7 * 16, "the prompt was read for each sample"


def test_guesses_of_samples():
    engine = Engine(Watched(blocks=64, block_size=4))
    for id, wrong in enumerate((0, 3)):
        run(engine, ask(id, prompt(9), Guess(4, wrong), seed=(5, 6), temperature=1.0, max_new_tokens=12))


def test_a_stop_ends_one_sample():
    request = ask(0, seed=range(8), temperature=2.0, stop_tokens={4}, max_new_tokens=12)
    told, _ = run(Engine(Watched(blocks=64)), request)
    assert {len(text.tokens) for text in told.values()} > {12}


def test_one_sample_can_be_cancelled_before_and_after_they_part():
    engine = Engine(Watched(blocks=64, block_size=4), budget=8)
    request = ask(0, prompt(12), seed=(1, 2, 3), temperature=1.0)
    engine.add(request)
    watch = Watch(engine)
    watch.step()
    assert [engine.cancel(0, 1), engine.cancel(0, 1), engine.cancel(0, 5)] == [True, False, False]
    watch.step(), watch.step()
    assert engine.cancel(0, 0)
    engine.check()
    told = watch.finish()
    judge(request, told)
    assert {sample: text.finish for (_, sample), text in told.items()} == {0: CANCELLED, 1: CANCELLED, 2: LENGTH}
    assert [len(told[0, sample].tokens) for sample in range(3)] == [2, 0, 8]


def test_what_was_preempted_finds_its_memory_again():
    """Two texts that do not fit together to their ends: the younger one waits, and its blocks stay until needed."""
    engine = Engine(Watched(blocks=8, block_size=4))
    asked = [ask(0, prompt(12), max_new_tokens=8), ask(1, prompt(12, 1), max_new_tokens=8)]
    _, given = run(engine, *asked)
    whole = sum(len(request.prompt) + 7 for request in asked)
    assert whole < given < whole + 14


# -- time ------------------------------------------------------------------------------------------------------------


def test_time_counts_the_prompt_and_waiting():
    """A second a step. Request 0 reads for 4 of its 6; request 1 waits for memory all of its time; 2 has no limit."""
    clock = Clock()
    engine = Engine(Watched(blocks=8, block_size=4), 4, clock)
    engine.add(ask(0, prompt(16), max_new_tokens=9, max_time=6.0))
    engine.add(ask(1, prompt(16, 1), seed=(1, 2), max_new_tokens=9, max_time=3.0))
    engine.add(ask(2, prompt(4, 2), max_new_tokens=20))
    watch = Watch(engine)
    while not engine.idle:
        watch.step()
        clock.now += 1
    told = {key: (len(text.tokens), text.finish) for key, text in watch.told.items()}
    assert told == {(0, 0): (3, TIME), (1, 0): (0, TIME), (1, 1): (0, TIME), (2, 0): (20, LENGTH)}
    assert watch.texts[0][0] == plain(ask(0, prompt(16)))[0][:3]
    assert not engine.deadlines


# -- the rules are looked after --------------------------------------------------------------------------------------


def broken_books():
    """Faults in the books of an engine that writes three sequences, each with the sentence that names it."""
    return {
        "a digest of another text": (lambda e: e.live[0][0].digests.__setitem__(0, b"x"), "that of another text"),
        "a block known as what it is not": (
            lambda e: e.pool.name(e.live[0][0].blocks[-1], b"y"),
            "known as another text",
        ),
        "a name without a block": (lambda e: e.pool.known.update({b"z": 0}), "not those that have one"),
        "a lost block": (lambda e: e.pool.free.pop(), "the free blocks are"),
        "a block held and idle": (lambda e: e.pool.idle.update({e.live[0][0].blocks[0]: None}), "the idle blocks are"),
        "a hold too many": (lambda e: e.pool.hold(e.live[0][0].blocks[0]), "holders are booked"),
        "unnamed full blocks": (lambda e: setattr(e.live[0][0], "named", 0), "named 0 blocks"),
        "nothing left to run": (lambda e: e.live[0][0].tokens.pop(), "at least one must be left"),
        "a sequence out of order": (lambda e: e.scheduler.running.reverse(), "order of arrival"),
        "a forgotten sequence": (lambda e: e.live[0].pop(), "are not those of the requests"),
        "a sample twice": (lambda e: setattr(e.live[1][1], "samples", (0,)), "for the samples"),
        "a deadline of nobody": (lambda e: e.deadlines.update({9: 1.0}), "deadlines of"),
        "a draft of one who waits": (lambda e: e.scheduler.preempt().draft.append(1), "waits, but holds"),
    }


@pytest.mark.parametrize("fault", broken_books())
def test_check_finds(fault):
    """`check` is the judge after each step of every test: it must see each of its rules broken."""
    engine = Engine(Watched(blocks=32, block_size=4))
    engine.add(ask(0, prompt(11), max_new_tokens=9))
    engine.add(ask(1, prompt(9), seed=(1, 2), temperature=1.0, max_new_tokens=9))
    engine.step(), engine.step()
    engine.check()
    break_it, sentence = broken_books()[fault]
    break_it(engine)
    with pytest.raises(EngineError, match=sentence):
        engine.check()


def test_pool_remembers_what_is_known():
    pool = BlockPool(3, 4)
    a, b = pool.take(), pool.take()
    pool.name(a, b"A"), pool.name(b, b"B")
    other = pool.take()
    pool.name(other, b"A")
    assert pool.find([b"A", b"B", b"C", b"A"]) == [a, b]
    pool.drop(other)
    assert (pool.free, pool.available) == ([other], 1)
    pool.drop(b), pool.drop(a)
    assert (list(pool.idle), pool.available) == ([b, a], 3)
    assert pool.hold(b) == b
    assert list(pool.idle) == [a]
    assert [pool.take(), pool.take()] == [other, a]
    assert pool.find([b"A"]) == []
    with pytest.raises(EngineError, match="all 3 are held"):
        pool.copy(b)


def test_a_copy_is_not_cleared():
    """A block that was taken for a step that never ran, dropped, and taken again to be copied to."""
    pool = BlockPool(2, 4)
    source, target = pool.take(), pool.take()
    pool.hold(source)
    pool.drop(target)
    assert pool.copy(source) == target
    assert (pool.copies, list(pool.fresh), pool.holders) == ([(source, target)], [source], [1, 1])
