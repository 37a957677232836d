"""The engine under random requests, budgets and memory, against the plainest loop: everything again for each token."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driving import CANCELLED, LENGTH, POISONED, VOCAB, Ban, Failing, Guess, Watch, Watched, ask, judge, plain
from quickbrown.backends.fake import FakeRunner
from quickbrown.backends.sampling import logprob
from quickbrown.engine.batch import NO_DRAWS, Batch
from quickbrown.engine.blocks import BlockPool
from quickbrown.engine.engine import Engine
from quickbrown.engine.sequence import EngineError, Request, Sequence
from quickbrown.generation.decoders.sample import Sample
from quickbrown.types import Event, Finish, FinishReason, SamplingParams, TooLong


def finish_all(engine):
    """The text and finish of each request."""
    watch = Watch(engine)
    watch.finish()
    return watch.texts


decoders = st.one_of(
    st.builds(Sample),
    st.builds(Guess, st.integers(1, 5), st.integers(0, 4)),
    st.builds(Failing, st.integers(1, 20)),
)
parameters = st.builds(
    SamplingParams,
    max_new_tokens=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.9, 0.5]),
    min_p=st.sampled_from([0.0, 0.1]),
    logprobs=st.booleans(),
)
requests = st.lists(
    st.builds(
        Request,
        id=st.just(0),
        prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=16).map(tuple),
        decoder=decoders,
        params=parameters,
        seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3).map(tuple),
        stop_tokens=st.frozensets(st.integers(0, VOCAB - 1), max_size=2),
        processor=st.sampled_from([None, Ban()]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(
    asked=requests,
    budget=st.integers(1, 24),
    size=st.integers(1, 5),
    spare=st.integers(0, 12),
    arrivals=st.lists(st.integers(0, 8), min_size=6, max_size=6),
    cancels=st.dictionaries(st.integers(0, 5), st.integers(0, 20), max_size=2),
    failing=st.sets(st.integers(1, 40), max_size=1),
)
@example(  # the second is preempted, comes back with blocks of the first, and ends the step as long as it began it
    asked=[
        Request(0, (0,) * prompt, Sample(), SamplingParams(max_new_tokens=new), (0,), frozenset())
        for prompt, new in ((5, 4), (5, 2), (1, 1))
    ],
    budget=3,
    size=2,
    spare=0,
    arrivals=[0] * 6,
    cancels={},
    failing=set(),
)
def test_texts_are_those_of_the_plainest_loop(asked, budget, size, spare, arrivals, cancels, failing):
    asked = [replace(request, id=i) for i, request in enumerate(asked)]
    longest = max(len(request.prompt) + request.params.max_new_tokens for request in asked)
    runner = Watched(failing, blocks=-(-longest // size) + spare, block_size=size)
    engine = Engine(runner, budget)
    watch = Watch(engine)
    for now in range(3000):
        for request in asked:
            if arrivals[request.id] == now:
                engine.add(request)
        for id, when in cancels.items():
            if when == now:
                engine.cancel(id)
                engine.check()
        if engine.idle and now > 8:
            break
        watch.step()
    assert all(size <= budget for size in runner.sizes)
    told = watch.finish()
    assert {id for id, _ in told} == {request.id for request in asked}
    for request in asked:
        for sample in range(len(request.seeds)):
            text = told[request.id, sample]
            assert (text.finish != CANCELLED) or request.id in cancels
            if text.finish == Finish(FinishReason.ERROR, "OSError: out of order"):  # it was alone in that step
                assert failing
                text.finish = CANCELLED
        judge(request, told)


def test_a_long_prompt_is_read_in_chunks_beside_running_texts():
    engine = Engine(Watched(blocks=64), budget=8)
    short, long = ask(0, max_new_tokens=20), ask(1, prompt=range(VOCAB), max_new_tokens=4)
    engine.add(short)
    watch = Watch(engine)
    watch.step()
    engine.add(long)
    assert [event.request for event in watch.step()] == [0]
    assert engine.runner.sizes == [3, 8]  # one decode first, then 7 of the 13 tokens
    assert [event.request for event in watch.step()] == [0, 1]
    assert engine.runner.sizes == [3, 8, 7]
    finish_all(engine)


@pytest.mark.parametrize(("streams", "read"), [(1, 16), (16, 16), (24, 24), (40, 40)])
def test_a_prompt_does_not_slow_down_those_who_write(streams, read):
    """Beside texts being written, a step reads as many tokens as there are texts, or 16; alone, what the budget has."""
    engine = Engine(Watched(blocks=400), deep=math.inf)
    for id in range(streams):
        engine.add(ask(id, prompt=(id % VOCAB,), max_new_tokens=30))
    watch = Watch(engine)
    watch.step()
    for id, length in ((100, 200), (101, 5)):
        engine.add(ask(id, prompt=[1, id % VOCAB] * (length // 2), max_new_tokens=1))
    for _ in range(3):
        assert len(watch.step()) == streams
        assert engine.runner.sizes[-1] == streams + read
    engine.cancel(100)
    for id in range(streams):
        engine.cancel(id)
    engine.add(ask(102, prompt=[3] * 300, max_new_tokens=1))
    watch.step()
    assert engine.runner.sizes[-1] == 4 + 300
    finish_all(engine)


def test_prompts_share_what_a_step_reads():
    """In the order of arrival, each with at least a token once it is there."""
    engine = Engine(Watched(blocks=400), deep=math.inf)
    engine.add(ask(0, prompt=(1,), max_new_tokens=30))
    watch = Watch(engine)
    watch.step()
    for id, length in ((1, 20), (2, 7), (3, 30)):
        engine.add(ask(id, prompt=[id] * length, max_new_tokens=2))
    reads = []
    for _ in range(3):
        watch.step()
        reads.append({s.request.id: s.stored for s in engine.scheduler.running})
    assert reads[0] == {0: 2, 1: 16}
    assert reads[1] == {0: 3, 1: 20, 2: 7, 3: 5}
    assert reads[2] == {0: 4, 3: 21}
    finish_all(engine)


def test_deep_tokens_of_a_prompt_count_more():
    """Attention reads all that stands before them."""
    engine = Engine(Watched(blocks=400), deep=8)
    engine.add(ask(0, prompt=(1,), max_new_tokens=30))
    watch = Watch(engine)
    watch.step()
    engine.add(ask(1, prompt=[2] * 60, max_new_tokens=2))
    for _ in range(9):
        watch.step()
    # 16, then one and 15 / (1 + 16 / 8), then one and 15 / (1 + 22 / 8), ...
    assert [size - 1 for size in engine.runner.sizes[1:7]] == [16, 6, 5, 4, 4, 3]
    finish_all(engine)


def test_guesses_leave_prompts_their_share():
    engine = Engine(Watched(blocks=400), budget=24, deep=math.inf)
    for id in range(4):
        engine.add(ask(id, prompt=(id,), decoder=Guess(5, 0), max_new_tokens=30))
    watch = Watch(engine)
    watch.step()
    watch.step()
    assert engine.runner.sizes[-1] == 24, "nobody reads: guesses have all"
    engine.add(ask(4, prompt=[5] * 20, max_new_tokens=1))
    watch.step()
    assert [s.stored for s in engine.scheduler.running][-1] == 16
    assert engine.runner.sizes[-1] == 24
    finish_all(engine)


def test_a_step_that_only_reads_draws_nothing():
    engine = Engine(Watched(blocks=64), budget=4)
    engine.add(ask(prompt=range(9), max_new_tokens=1))
    assert [engine.step(), engine.step()] == [[], []]
    assert (engine.runner.runs, engine.runner.samples) == (2, 0)
    assert [event.finish for event in engine.step()] == [LENGTH]


def test_the_youngest_is_preempted_and_writes_the_same_text():
    asked = [ask(id, prompt=range(id, id + 8), seed=id, temperature=1.0, max_new_tokens=16) for id in range(3)]
    engine = Engine(Watched(blocks=9, block_size=4), budget=64)
    for request in asked:
        engine.add(request)
    watch = Watch(engine)
    preempted = []
    while not engine.idle:
        watch.step()
        preempted += [s.request.id for s in engine.scheduler.waiting if s.request.id in watch.texts]
    assert set(preempted) == {1, 2}, "the test must preempt the younger ones, and never the eldest"
    assert [watch.texts[i] for i in range(3)] == [plain(request) for request in asked]


def test_first_come_first_served():
    """A small request behind a big one that does not fit yet waits, though it would fit: no starvation."""
    engine = Engine(Watched(blocks=4, block_size=4))
    engine.add(ask(0, prompt=range(8), max_new_tokens=6))
    engine.add(ask(1, prompt=range(12, 0, -1), max_new_tokens=2))
    engine.add(ask(2, prompt=(1,), max_new_tokens=1))
    assert [[event.request for event in engine.step()] for _ in range(8)] == [[0]] * 6 + [[1, 2], [1]]


@pytest.mark.parametrize(("wrong", "steps"), [(0, 3), (1, 12)])
def test_guesses_save_steps_and_change_nothing(wrong, steps):
    """12 tokens in steps of 1 (the prompt's), then guesses of 5: 6 + 5 when right; one by one when all are wrong."""
    alone = ask(temperature=1.0, seed=5, max_new_tokens=12)
    engine = Engine(Watched(blocks=8))
    engine.add(replace(alone, decoder=Guess(5, wrong)))
    told = finish_all(engine)
    assert told[0] == plain(alone)
    assert engine.runner.runs == steps


def test_guesses_leave_each_running_sequence_its_token():
    engine = Engine(Watched(blocks=64), budget=4)
    for id in range(3):
        engine.add(ask(id, prompt=(id,), decoder=Guess(5, 0), max_new_tokens=10))
    watch = Watch(engine)
    watch.step()
    assert [len(event.tokens) for event in watch.step()] == [2, 1, 1]


def test_guesses_are_cut_before_the_last_token():
    """A guess in the place of the last token would need a slot behind the request's room."""
    engine = Engine(Watched(blocks=1, block_size=8))
    engine.add(ask(prompt=(1, 2, 3), decoder=Guess(5, 0), max_new_tokens=5))
    assert finish_all(engine)[0] == plain(ask(max_new_tokens=5))
    assert engine.runner.sizes == [3, 4]


def test_a_decoder_may_overrule_the_draw():
    """Tokens that differ from the guesses that ran must be computed, not taken from the guesses' slots.

    The guess behind the first wrong one comes with the token drawn from its row, which answers to another text.
    """
    first = plain(ask())[0][:1]
    wrong = plain(ask(prompt=(1, 2, 3, *first, 5, 6)))[0][0]
    forced = [5, 9, wrong, 9]

    class Forced(Sample):
        def propose(self, sequences):
            return [[5, 6, 7] if len(sequence.tokens) == 4 else [] for sequence in sequences]

        def accept(self, sequences, rows):
            if len(sequences[0].tokens) == 4:
                assert rows[0][2].token == wrong
                return [(sequences[0], forced, 1.5)]
            return super().accept(sequences, rows)

    engine = Engine(Watched(blocks=8))
    engine.add(ask(decoder=Forced(), max_new_tokens=7, logprobs=True))
    rest = plain(ask(prompt=(1, 2, 3, *first, *forced), max_new_tokens=2))[0]
    events = [event for _ in range(4) for event in engine.step()]
    assert [token for event in events for token in event.tokens] == [*first, *forced, *rest]
    assert all(math.isnan(x) for x in events[1].logprobs[2:]), "nothing drew these tokens"
    assert not any(math.isnan(x) for event in (events[0], *events[2:]) for x in event.logprobs)


def test_a_decoder_that_writes_too_much_is_cut():
    class Verbose(Sample):
        def accept(self, sequences, rows):
            return [(sequences[0], [5, 6, 7], 0.0)]

    for stop_tokens, tokens, finish in (
        ((), [5, 6, 7, 5, 6], LENGTH),
        ((6,), [5, 6], Finish(FinishReason.STOP, 6)),
    ):
        engine = Engine(Watched(blocks=2))
        engine.add(ask(decoder=Verbose(), max_new_tokens=5, stop_tokens=stop_tokens))
        assert finish_all(engine) == {0: (tokens, finish)}


def test_logprobs_come_to_those_who_ask():
    engine = Engine(Watched(blocks=16))
    engine.add(ask(0, decoder=Guess(3, 2), temperature=1.0, top_k=3, logprobs=True))
    engine.add(ask(1))
    events = [event for _ in range(8) for event in engine.step()]
    assert {event.logprobs for event in events if event.request == 1} == {None}
    tokens = [token for event in events if event.request == 0 for token in event.tokens]
    logprobs = [x for event in events if event.request == 0 for x in event.logprobs]
    want = [logprob(engine.runner.answer([1, 2, 3, *tokens[:i]]), token) for i, token in enumerate(tokens)]
    assert len(tokens) == 8
    np.testing.assert_allclose(logprobs, want, rtol=1e-6)


def test_stop_names_its_token():
    written = plain(ask(max_new_tokens=8))[0]
    for decoder in (Sample(), Guess(4, 0)):
        engine = Engine(Watched())
        engine.add(ask(decoder=decoder, stop_tokens={written[3]}))
        at = written.index(written[3])
        assert finish_all(engine)[0] == (written[: at + 1], Finish(FinishReason.STOP, written[3]))


def test_stop_on_the_last_token_is_a_stop():
    written = plain(ask(max_new_tokens=3))[0]
    assert written[2] not in written[:2]
    engine = Engine(Watched())
    engine.add(ask(max_new_tokens=3, stop_tokens={written[2]}))
    assert finish_all(engine)[0][1] == Finish(FinishReason.STOP, written[2])


def test_cancel_frees_at_once_and_is_reported_once():
    engine = Engine(Watched(blocks=4))
    engine.add(ask(0))
    engine.add(ask(1, prompt=range(10), max_new_tokens=6))
    assert [event.request for event in engine.step()] == [0, 1]
    assert [engine.cancel(0), engine.cancel(1), engine.cancel(2), engine.cancel(0)] == [True, True, False, False]
    engine.check()
    assert engine.pool.available == 4
    assert not engine.idle
    assert engine.step() == [Event(id, finish=Finish(FinishReason.CANCELLED)) for id in (0, 1)]
    assert engine.idle
    assert engine.runner.runs == 1
    engine.add(ask(0))
    assert finish_all(engine)[0] == plain(ask(0))


def test_too_long_is_refused_with_the_numbers():
    engine = Engine(Watched(blocks=3, block_size=4))
    engine.add(ask(0, prompt=range(4), max_new_tokens=8))
    with pytest.raises(TooLong, match=r"5 prompt tokens and 8 new ones, 13 together, .* 3 blocks of 4, 12 together"):
        engine.add(ask(1, prompt=range(5), max_new_tokens=8))
    assert list(finish_all(engine)) == [0]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (ask(0), "already being written"),
        (ask(1, prompt=()), "empty prompt"),
        (ask(1, prompt=(1, VOCAB)), f"token {VOCAB}, outside the vocabulary"),
        (ask(1, prompt=(-1,)), "token -1, outside the vocabulary"),
        (ask(1, seed=2**64), "seed"),
        (ask(1, seed=-1), "seed"),
    ],
)
def test_malformed_requests_are_refused(request_, sentence):
    engine = Engine(Watched())
    engine.add(ask(0))
    with pytest.raises(ValueError, match=sentence):
        engine.add(request_)
    engine.check()
    assert list(finish_all(engine)) == [0]


@pytest.mark.parametrize(
    ("accepted", "sentence"),
    [
        (lambda s: [], "once, in the order given"),
        (lambda s: [(s, [1], 0.0), (s, [2], 0.0)], "once, in the order given"),
        (lambda s: [(Sequence(s.request, (0, 0), [1, 2], (0,)), [1], 0.0)], "once, in the order given"),
        (lambda s: [(s, [], 0.0)], "at least one token"),
        (lambda s: [(s, [1, VOCAB], 0.0)], f"token {VOCAB}, outside"),
    ],
)
def test_a_decoder_that_breaks_the_rules_ends_its_request_only(accepted, sentence):
    class Broken(Sample):
        def accept(self, sequences, rows):
            return accepted(sequences[0])

    engine = Engine(Watched())
    engine.add(ask(0, decoder=Broken()))
    engine.add(ask(1))
    told = finish_all(engine)
    assert told[0][0] == []
    assert told[0][1].reason is FinishReason.ERROR
    assert sentence in told[0][1].detail
    assert told[1] == plain(ask(1))


@pytest.mark.parametrize("guesses", [[[VOCAB]], [], [[1], [2]], None])
def test_a_decoder_that_fails_to_propose_ends_its_request_only(guesses):
    class Broken(Sample):
        def propose(self, sequences):
            return guesses

    engine = Engine(Watched())
    engine.add(ask(0, decoder=Broken()))
    engine.add(ask(1))
    told = finish_all(engine)
    assert told[0][0] == plain(ask(0))[0][:1]
    assert told[0][1].reason is FinishReason.ERROR
    assert told[1] == plain(ask(1))


def test_a_step_that_fails_costs_nobody_his_text():
    """A fault that passes: the step's sequences run one by one, and write what they would have written."""
    engine = Engine(Watched(failing={2}, blocks=64))
    asked = [ask(id, prompt=range(id, 9), seed=(id, 7), temperature=1.0) for id in range(3)]
    for request in asked:
        engine.add(request)
    told = Watch(engine).finish()
    for request in asked:
        judge(request, told)
    assert {text.finish for text in told.values()} == {LENGTH}


@pytest.mark.parametrize("poison", [5, 12])
def test_the_guilty_request_ends_and_nobody_else(poison):
    """Each step that request 1 is in fails; it is found out by running each alone. A second one comes later."""
    engine = Engine(Watched(poison=poison, blocks=64))
    asked = [ask(id, prompt=(id, *range(9)), seed=(id, id + 10), temperature=1.0) for id in range(3)]
    asked += [ask(id, prompt=(poison, id, 2), seed=(1, 2)) for id in (3, 4)]
    for request in asked[:4]:
        engine.add(request)
    watch = Watch(engine)
    watch.step(), watch.step()
    engine.add(asked[4])
    told = watch.finish()
    for request in asked:
        judge(request, told, poison=poison)
    assert [key for key, text in told.items() if text.finish == POISONED] == [(3, 0), (3, 1), (4, 0), (4, 1)]


def test_what_has_ended_is_not_run_again():
    """Two samples fail together, then the first alone, which ends the request: the second has no run of its own."""
    engine = Engine(Watched(failing={2, 3}))
    engine.add(ask(seed=(1, 2), temperature=1.0))
    told = Watch(engine).finish()
    assert {text.finish for text in told.values()} == {Finish(FinishReason.ERROR, "OSError: out of order")}
    assert engine.runner.runs == 3


def test_a_runner_that_always_fails_ends_each_request_with_its_error():
    engine = Engine(Watched(failing=range(100)))
    for id in range(3):
        engine.add(ask(id, prompt=(id,)))
    error = Finish(FinishReason.ERROR, "OSError: out of order")
    assert finish_all(engine) == {id: ([], error) for id in range(3)}


def test_a_row_of_nan_is_an_error_with_a_sentence():
    class Nan(Watched):
        def sample(self, draws):
            self.rows[:] = math.nan
            return super().sample(draws)

    engine = Engine(Nan())
    engine.add(ask())
    finish = finish_all(engine)[0][1]
    assert finish.reason is FinishReason.ERROR
    assert "nan" in finish.detail


def test_an_interrupted_step_can_be_taken_again():
    """KeyboardInterrupt is nobody's finish: the same step runs again, clears its blocks, and writes the same text."""

    class Interrupted(Watched):
        def run(self, batch, draws=NO_DRAWS):
            if self.runs in (0, 3, 4):
                self.runs += 1
                raise KeyboardInterrupt
            return super().run(batch, draws)

        def sample(self, draws):
            if self.samples in (1, 3):
                self.samples += 1
                raise KeyboardInterrupt
            return super().sample(draws)

    engine = Engine(Interrupted(block_size=1))
    engine.add(ask(decoder=Guess(2, 3)))
    watch = Watch(engine)
    interrupts = 0
    while not engine.idle:
        try:
            watch.step()
        except KeyboardInterrupt:
            interrupts += 1
            engine.check()
    assert interrupts == 5
    assert watch.texts[0] == plain(ask())


def test_a_decode_step_touches_one_token():
    """The cost of a step must not grow with the text: of the tokens, only the last may be looked at, and those of a
    block when it is full."""

    class Guarded(list):
        def __iter__(self):
            raise AssertionError("the whole text was walked through")

        def __getitem__(self, at):
            touched = range(len(self))[at]
            assert isinstance(touched, int) or len(touched) <= 4, "a long part of the text was copied"
            return super().__getitem__(at)

    engine = Engine(Watched(blocks=16))
    engine.add(ask(prompt=range(12), max_new_tokens=9))
    written = list(engine.step()[0].tokens)
    [sequence] = engine.live[0]
    sequence.tokens = Guarded(sequence.tokens)
    while not engine.idle:
        written += engine.step()[0].tokens
    assert type(sequence.tokens) is Guarded
    assert written == plain(ask(prompt=range(12), max_new_tokens=9))[0]


def test_pool_counts_holders():
    pool = BlockPool(2, 4)
    block = pool.take()
    assert pool.hold(block) == block
    pool.drop(block)
    assert pool.free == [1]
    pool.drop(block)
    assert pool.free == [1, 0], "the one dropped last is taken first"
    assert list(pool.fresh) == [0]
    with pytest.raises(EngineError, match="nobody holds"):
        pool.drop(block)
    with pytest.raises(EngineError, match="nobody holds"):
        pool.hold(block)
    pool.take(), pool.take()
    with pytest.raises(EngineError, match="all 2 are held"):
        pool.take()


@pytest.mark.parametrize(
    ("blocks", "stored", "sentence"),
    [([0], 2, "block 1 is in 0 tables"), ([0, 1, 2], 2, "block 2 is in 1 tables"), ([0, 0, 1], 2, "twice"),
     ([0, 1], 9, "stores 9 tokens in 2 blocks")],
)  # fmt: skip
def test_pool_check_finds_what_is_wrong(blocks, stored, sentence):
    pool = BlockPool(4, 4)
    sequence = Sequence(ask(), (0, 0), [1, 2, 3], (0,), blocks=[pool.take(), pool.take()], stored=2)
    pool.check([sequence])
    sequence.blocks, sequence.stored = blocks, stored
    with pytest.raises(EngineError, match=sentence):
        pool.check([sequence])
    sequence.blocks, sequence.stored = [0, 1], 2
    pool.free.pop()
    with pytest.raises(EngineError, match="free blocks"):
        pool.check([sequence])


def i32(*values):
    return list(values)


@pytest.mark.parametrize("fault", ["tokens", "positions", "blocks", "fresh", "logit_rows"])
def test_the_fake_runner_notices_a_faulty_batch(fault):
    """The fake is the judge of the tests above: it must see the faults that it is there for."""
    good = Batch(
        tokens=i32(1, 2, 3),
        positions=i32(0, 1, 2),
        starts=i32(0, 3),
        blocks=i32(0, 1),
        block_starts=i32(0, 2),
        logit_rows=i32(2),
        fresh=i32(0, 1),
    )
    bad = {
        "tokens": i32(1, VOCAB, 3),
        "positions": i32(0, 1, 3),
        "blocks": i32(0, 9),
        "fresh": i32(1, 1),
        "logit_rows": i32(3),
    }[fault]
    Watched(blocks=2, block_size=2).run(good)
    with pytest.raises(AssertionError):
        Watched(blocks=2, block_size=2).run(replace(good, **{fault: bad}))


def test_the_fake_runner_notices_faulty_paging():
    def one(token, position, blocks, fresh=()):
        return Batch(i32(token), i32(position), i32(0, 1), i32(*blocks), i32(0, len(blocks)), i32(0), i32(*fresh))

    runner = Watched(blocks=4, block_size=1)
    runner.run(one(5, 0, [0], [0]))
    runner.run(one(6, 1, [0, 1], [1]))
    np.testing.assert_array_equal(runner.logits()[0], runner.answer([5, 6]))
    with pytest.raises(AssertionError, match="not cleared"):
        runner.run(one(5, 0, [1]))
    with pytest.raises(AssertionError, match="read before it was written"):
        runner.run(one(7, 3, [0, 1, 2, 3], [2, 3]))
    with pytest.raises(AssertionError, match="behind the table"):
        runner.run(one(7, 2, [0, 1]))
    with pytest.raises(AssertionError, match="two sequences"):
        runner.run(Batch(i32(1, 2), i32(0, 0), i32(0, 1, 2), i32(2, 2), i32(0, 1, 2), i32(1), i32(2)))


def test_a_step_is_light():
    """Many steps of one request with a runner that does nothing: far below what a token costs anywhere."""

    class Nothing(FakeRunner):
        def run(self, batch, draws=NO_DRAWS):
            return [(1, math.nan)] * len(draws.rows)

    engine = Engine(Nothing(blocks=80, block_size=64))
    engine.add(ask(prompt=(1,) * 4000, max_new_tokens=1000))
    while engine.live[0][0].stored < 4000:
        engine.step()
    best = math.inf
    for _ in range(8):
        start = time.perf_counter()
        for _ in range(100):
            engine.step()
        best = min(best, (time.perf_counter() - start) / 100)
    assert best < 300e-6, f"{best * 1e6:.0f} µs a step"  # measured: about 35 µs
