"""Guesses change no text: prompt lookup under the engine, and what is worth guessing, by a clock that is told."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driving import VOCAB, Said, Watch, Watched, ask, fake_answer, judge, plain
from quickbrown.backends.fake import FakeRunner
from quickbrown.engine.batch import NO_DRAWS
from quickbrown.engine.draft import Draft
from quickbrown.engine.engine import Engine
from quickbrown.generation.decoders.draft import Drafted
from quickbrown.generation.decoders.lookup import SURE, Foresight, Lookup, read
from quickbrown.generation.decoders.sample import Sample
from quickbrown.generation.gain import FORGOTTEN, MEASURES, MOST, DraftGain, Gain, usual

ENGINES = {  # what an engine may have, and the dice of what it is asked for
    "dice": st.randoms(use_true_random=False),
    "blocks": st.integers(0, 30),
    "size": st.integers(1, 5),
    "places": st.sampled_from([0, 0, 2, 5]),
    "budget": st.integers(1, 24),
}


class Chance:
    """Says by chance how many guesses are worth it: on, off, and anything between."""

    def __init__(self, dice):
        self.dice = dice

    def guesses(self, chances, states=False):
        assert all(0 <= chance <= 1 for chance in chances)
        return self.dice.randrange(len(chances) + 1)


class Light(Watched):
    """Answers by the last token and where it stands, which is soon said of long texts."""

    def answer(self, tokens):
        return super().answer([len(tokens), tokens[-1]])


class Copying(Light):
    """Answers so that texts go on as they did `period` tokens ago, nearly always."""

    def __init__(self, period, **options):
        super().__init__(**options)
        self.period = period

    def answer(self, tokens):
        row = super().answer(tokens)
        if len(tokens) >= self.period and len(tokens) % 11:
            row[tokens[-self.period]] += 12
        return row


def texts(runner, requests, budget=64):
    engine = Engine(runner, budget)
    watch = Watch(engine)
    for request in requests:
        engine.add(request)
    return watch.finish(), engine


# -- prompt lookup -----------------------------------------------------------------------------------------------------


def test_read_knows_where_each_n_gram_ended_last():
    assert read([1, 2, 1, 2, 3], 2) == {(1,): 3, (2,): 4, (3,): 5, (1, 2): 4, (2, 1): 3, (2, 3): 5}
    assert read([], 3) == {}
    assert read([7], 3) == {(7,): 1}


def foresight(prompt, text=(), longest=3):
    found = Foresight(read(prompt[:-1], longest), prompt, longest)
    found.follow([*prompt, *text])
    return found


def guessed(prompt, text=(), most=4, longest=3):
    return foresight(prompt, text, longest).guesses([*prompt, *text], most)


def test_the_longest_n_gram_is_looked_up_first_and_its_last_place():
    assert guessed([1, 2, 3, 9, 2, 3, 8, 1, 2, 3]) == [9, 2, 3, 8]  # three tokens, though two came later
    assert guessed([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], longest=2) == [8, 1, 2, 3]
    assert guessed([5, 6, 5, 7, 5]) == [7, 5, 7, 5]
    assert guessed([1, 2, 3, 4]) == []
    assert guessed([4]) == []
    assert guessed([1, 2, 3, 4, 1], most=0) == []


def test_what_reaches_the_end_goes_on_in_a_circle():
    assert guessed([1, 2, 1, 2], most=5) == [1, 2, 1, 2, 1]
    assert guessed([3, 3], most=3) == [3, 3, 3]


def test_the_texts_own_tokens_are_looked_up_too():
    assert guessed([1, 2, 3], [5, 6, 7, 5], most=2) == [6, 7]


def test_a_place_is_followed_as_long_as_it_is_right():
    """2 3 came behind 9 later; but the text that is being copied is the one behind 1."""
    prompt = [1, 2, 3, 4, 5, 6, 2, 3, 9, 0, 1]
    assert guessed(prompt, [2, 3], longest=1, most=3) == [4, 5, 6]
    assert guessed(prompt, [2, 3, 7], longest=1) == []
    assert guessed(prompt, [2, 3, 7, 3], longest=1, most=1) == [7]


def test_chances_follow_what_came():
    """Where guesses came true they are trusted, longer runs more; where they did not, less and less."""
    copied = foresight([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1], [2, 3, 4, 5, 6, 7, 8])
    assert copied.same == 8
    assert copied.chances(3) == sorted(copied.chances(3)) == [copied.came[SURE] / copied.expected[SURE]] * 3
    assert foresight([1, 2, 3, 1, 2]).chances(SURE + 1) == [
        pytest.approx(min(SURE, 2 + i) / (min(SURE, 2 + i) + 4)) for i in range(SURE + 1)
    ]
    assert copied.chances(1)[0] > 0.6
    dice = random.Random(0)
    wild = foresight([0, 1, 2, 3, 4] * 3, [dice.randrange(5) for _ in range(400)])
    assert all(wild.came[same] / wild.expected[same] < 0.5 for same in (1, 2, 3))
    assert foresight([1, 2]).chances(4) == [pytest.approx(same / (same + 4)) for same in range(4)]


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(prompt=tokens, text=tokens, longest=st.integers(1, 4), cuts=st.lists(st.integers(1, 5), max_size=40))
def test_following_step_by_step_is_following_at_once(prompt, text, longest, cuts):
    """However many tokens a step brought."""
    at_once, whole = foresight(prompt, text, longest), [*prompt, *text]
    steps, at = Foresight(read(prompt[:-1], longest), prompt, longest), len(prompt)
    for cut in cuts:
        at = min(at + cut, len(whole))
        steps.follow(whole[:at])
    assert steps.begins(whole)
    steps.follow(whole)
    assert steps.guesses(whole, 5) == at_once.guesses(whole, 5)
    assert steps.chances(5) == at_once.chances(5)


@given(prompt=tokens, text=tokens, longest=st.integers(1, 4))
def test_guesses_stand_behind_an_n_gram_that_the_text_ends_with(prompt, text, longest):
    """The plainest search: a first guess is what follows an earlier place with the same tokens before it, and there is
    one wherever the last token came before."""
    whole = [*prompt, *text]
    guess = guessed(prompt, text, 1, longest)
    after = {whole[i + 1] for i in range(len(whole) - 1) if whole[i] == whole[-1]}
    assert set(guess) <= after
    assert bool(guess) == bool(after)
    fresh = guessed(whole, (), 1, longest)  # without a place that is being followed
    for size in range(longest, 0, -1):
        ends = [i for i in range(size, len(whole)) if whole[i - size : i] == whole[-size:]]
        if len(whole) > size and ends:
            assert fresh == [whole[ends[-1]]]
            break


def test_a_text_that_is_not_the_one_it_followed_is_looked_up_anew():
    lookup = Lookup(3)
    engine = Engine(Watched(blocks=8))
    engine.add(ask(prompt=(1, 2, 3, 1, 2), decoder=Sample()))
    engine.step()
    [sequence] = engine.live[0]
    for text in ([1, 2, 3, 1, 2, 3], [1, 2, 3, 1, 2, 3, 1, 2], [1, 2, 3, 1, 2, 1], [1, 2, 3, 1, 2]):
        sequence.tokens = text
        assert lookup.guess(sequence) == guessed([1, 2, 3, 1, 2], text[5:], 3)


def test_functions_of_callers_are_asked_about_the_text_only():
    seen = []

    def mine(tokens, sample, logits):
        seen.append(list(tokens))
        return logits

    request = replace(ask(prompt=[1, 2] * 6, decoder=Lookup(4), max_new_tokens=9), processor=mine)
    told, engine = texts(Copying(2, blocks=32), [request])
    assert told[0, 0].tokens
    assert seen == [[*request.prompt, *told[0, 0].tokens[:n]] for n in range(9)]
    assert engine.runner.runs == 9


@pytest.mark.parametrize("states", [0, 9])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_copying_takes_few_steps_and_changes_nothing(temperature, states):
    """Sampled as greedily: the same tokens and log-probabilities, with a fraction of the steps."""
    request = ask(prompt=range(12), seed=(3, 4), temperature=temperature, max_new_tokens=60, logprobs=True)
    events, runs = [], []
    for decoder in (Sample(), Lookup(6)):
        engine = Engine(Copying(12, blocks=60, states=states))
        engine.add(replace(request, decoder=decoder))
        its = {0: [], 1: []}
        while not engine.idle:
            for event in engine.step():
                its[event.sample] += zip(event.tokens, event.logprobs, strict=True)
        events.append(its)
        runs.append(engine.runner.runs)
    assert events[0] == events[1]
    assert runs[0] == 60 + bool(states)  # a prompt is cut where a block ends
    assert runs[1] < 35
    assert len(events[0][0]) == 60


def test_a_request_tells_how_many_guesses_ran_and_came_true():
    told, engine = texts(Copying(6, blocks=40), [request := ask(prompt=range(6), decoder=Lookup(4), max_new_tokens=40)])
    judge(request, told, lambda tokens: Copying(6, blocks=1).answer(tokens))
    engine = Engine(Copying(6, blocks=40))
    engine.add(replace(request, decoder=Lookup(4)))
    events = []
    while not engine.idle:
        events += engine.step()
    last = events[-1]
    assert last.accepted == 40 - len(events)
    assert last.accepted < last.guessed <= 4 * len(events)
    assert [event.accepted for event in events] == sorted(event.accepted for event in events)


def test_one_that_fails_to_guess_ends_alone_among_those_asked_together():
    class Together(Sample):
        """Guesses for all that have it; not for texts that begin with 5."""

        def __init__(self):
            self.asked = []

        def propose(self, sequences):
            self.asked.append(len(sequences))
            if any(sequence.tokens[0] == 5 for sequence in sequences):
                raise LookupError("no idea")
            return [[1] for _ in sequences]

    decoder = Together()
    requests = [ask(id, prompt=(first,), decoder=decoder) for id, first in enumerate((4, 5, 6))]
    told, _ = texts(Watched(blocks=32), requests)
    assert told[1, 0].finish.detail == "LookupError: no idea"
    for request in (requests[0], requests[2]):
        judge(request, told)
    assert decoder.asked[:5] == [3, 1, 1, 1, 2]


@settings(max_examples=80, deadline=None)
@given(**ENGINES, period=st.integers(1, 8))
def test_texts_are_the_plain_ones_whatever_is_guessed(dice, period, blocks, size, places, budget):
    """Random requests with samples, edits and stops in little memory, guessed for always, by chance, or never."""
    runner = Copying(period, blocks=-(-46 // size) + blocks, block_size=size, states=places)
    requests = []
    for id in range(5):
        worth = dice.choice([None, Chance(dice)])
        decoder = dice.choice([Sample(), Lookup(dice.randrange(1, 6), dice.randrange(1, 4), worth)])
        request = ask(
            id,
            [dice.randrange(4) for _ in range(dice.randrange(1, 20))],
            decoder,
            seed=[dice.getrandbits(64) for _ in range(dice.choice([1, 1, 3]))],
            stop_tokens=dice.sample(range(VOCAB), dice.choice([0, 1])),
            max_new_tokens=dice.randrange(1, 26),
            temperature=dice.choice([0.0, 0.8]),
            top_k=dice.choice([0, 3]),
        )
        requests.append(replace(request, processor=Said() if dice.random() < 0.2 else None))
    told, _ = texts(runner, requests, budget)
    answer = Copying(period, blocks=1).answer
    for request in requests:
        judge(request, told, answer)


# -- a draft model -----------------------------------------------------------------------------------------------------


def drafted(runner, most=4, pays=None, longest=1 << 20, **options):
    return Drafted(Draft(runner, VOCAB, longest, **options), most, pays)


def checked(draft):
    """Its books are right, and its memory holds what is followed only."""
    pool, held = draft.scheduler.pool, Counter()
    for text, known in draft.followed.items():
        held.update(known.its.blocks)
        assert known.its.named * pool.size <= known.sure
        assert known.its.tokens[: known.sure] == text.tokens[: known.sure]
        assert known.its.stored < len(known.its.tokens)
    pool.balance([held[block] for block in range(len(pool.holders))])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_that_is_the_model_itself_is_always_right(temperature):
    """Drawn with the same noise, of three samples together: one run a guess for all of them."""
    draft = Watched(blocks=200)
    request = ask(prompt=range(9), decoder=drafted(draft), seed=(1, 2, 3), temperature=temperature, max_new_tokens=26)
    told, engine = texts(Watched(blocks=200), [request])
    judge(request, told)
    assert engine.runner.runs == 6  # the prompt, and five times five
    # Each time the three texts catch up together, and are guessed at together three times more.
    assert draft.sizes == [30, *[3] * 3, *[6, 3, 3, 3] * 4]


def test_edits_are_made_on_the_drafts_rows_too():
    draft = Watched(blocks=100)
    request = replace(
        ask(prompt=range(9), decoder=drafted(draft), temperature=1.0, max_new_tokens=26), processor=Said()
    )
    told, engine = texts(Watched(blocks=100), [request])
    judge(request, told)
    assert engine.runner.runs == 6


def test_a_long_prompt_is_caught_up_with_in_parts():
    draft = Watched(blocks=300)
    request = ask(prompt=[1, 2] * 100, decoder=drafted(draft, budget=64), max_new_tokens=9)
    told, _ = texts(Watched(blocks=300), [request], 512)
    judge(request, told)
    assert draft.sizes[:4] == [64, 64, 64, 12]


def test_no_guesses_beyond_what_the_draft_can_hold():
    draft = Watched(blocks=100)
    request = ask(prompt=range(9), decoder=drafted(draft, longest=16), max_new_tokens=30)
    told, engine = texts(Watched(blocks=100), [request])
    judge(request, told)
    assert engine.runner.runs > 15
    assert draft.slots.max() >= 0
    assert sum(draft.sizes) <= 16


def test_a_draft_that_fails_costs_its_guesses_only(caplog):
    draft = Watched(failing=(2, 5), blocks=100)
    request = ask(prompt=range(9), decoder=drafted(draft), temperature=1.0, max_new_tokens=26)
    told, _ = texts(Watched(blocks=100), [request])
    judge(request, told)
    assert caplog.text.count("the draft model failed") == 2


def test_a_draft_of_a_larger_vocabulary_guesses_nothing_beyond():
    class Wide(Watched):
        def __init__(self, **options):
            super().__init__(**options)
            self.vocab_size = VOCAB + 5

    request = ask(prompt=range(9), decoder=drafted(Wide(blocks=100)), temperature=2.0, max_new_tokens=40)
    told, _ = texts(Watched(blocks=100), [request])
    judge(request, told)


def test_tokens_that_a_draft_does_not_know_are_not_shown_to_it():
    class Narrow(Watched):
        def __init__(self, **options):
            super().__init__(**options)
            self.vocab_size = VOCAB - 5

    request = ask(prompt=range(9), decoder=drafted(Narrow(blocks=100)), temperature=2.0, max_new_tokens=40)
    told, _ = texts(Watched(blocks=100), [request])
    judge(request, told)


def test_a_draft_with_states_is_refused():
    with pytest.raises(ValueError, match="states cannot be a draft"):
        drafted(Watched(states=9))


@settings(max_examples=80, deadline=None)
@given(**ENGINES, draft_blocks=st.integers(1, 30), seed=st.sampled_from([0, 1]))
def test_texts_are_the_plain_ones_whatever_a_draft_guesses(dice, blocks, draft_blocks, size, places, budget, seed):
    """Random requests share a draft of little memory, which is the model itself or another; some have none."""
    runner = Watched(blocks=-(-46 // size) + blocks, block_size=size, states=places)
    shared = drafted(Watched(blocks=draft_blocks, block_size=size, seed=seed), 4, dice.choice([None, Worths(dice)]))
    requests = []
    for id in range(5):
        request = ask(
            id,
            [dice.randrange(4) for _ in range(dice.randrange(1, 20))],
            dice.choice([shared, shared, Sample(), Lookup(3)]),
            seed=[dice.getrandbits(64) for _ in range(dice.choice([1, 1, 3]))],
            stop_tokens=dice.sample(range(VOCAB), dice.choice([0, 1])),
            max_new_tokens=dice.randrange(1, 26),
            temperature=dice.choice([0.0, 0.8]),
        )
        requests.append(replace(request, processor=Said() if dice.random() < 0.2 else None))
    engine = Engine(runner, budget)
    watch = Watch(engine)
    for request in requests:
        engine.add(request)
    while not engine.idle:
        watch.step()
        checked(shared.model)
    for request in requests:
        judge(request, watch.finish())


# -- what is worth guessing --------------------------------------------------------------------------------------------


class Machine:
    """A clock, and a runner on which a step takes as long as `times` says of its number of tokens."""

    def __init__(self, times):
        self.now, self.times = 0.0, times

    def __call__(self):
        return self.now

    def timed(self, runner):
        run = runner.run

        def timed(batch, draws=NO_DRAWS):
            self.now += self.times(len(batch.tokens))
            return run(batch, draws)

        runner.run = timed
        return runner


def seconds(make, times, request, texts=1):
    """How long `texts` such requests take, with a decoder each that `make` makes."""
    machine, gain = Machine(times), Gain()
    engine = Engine(machine.timed(make()), clock=machine, meter=gain)
    for id in range(texts):
        lookup = Lookup(request.params.prompt_lookup_num_tokens, 3, gain)
        engine.add(replace(request, id=id, decoder=lookup if request.params.prompt_lookup_num_tokens else Sample()))
    while not engine.idle:
        engine.step()
    return machine.now


def measured(make, times, texts=1, prompt=None, **params):
    request = ask(prompt=prompt or range(12), max_new_tokens=300, **params)
    lookup = replace(request, params=replace(request.params, prompt_lookup_num_tokens=8))
    plain_seconds, with_lookup = (seconds(make, times, one, texts) for one in (request, lookup))
    return plain_seconds / with_lookup


class Worths:
    """Says by chance how many guesses a draft is asked for."""

    def __init__(self, dice):
        self.dice = dice

    def counts(self, lefts, behind):
        assert all(late > 0 for late in behind)
        return [self.dice.randrange(6) for _ in lefts]

    def took(self, guesses, seconds):
        assert 0 <= guesses <= 5
        assert seconds >= 0

    def judged(self, guesses, right):
        assert 0 <= right <= guesses


def usual_times(tokens):
    return 0.01 * usual(tokens)


def test_copying_is_faster():
    assert measured(lambda: Copying(12, blocks=400), usual_times) > 1.5
    assert measured(lambda: Copying(12, blocks=400), lambda tokens: 0.01 + 0.001 * tokens) > 2


@pytest.mark.parametrize(("texts", "vocab"), [(1, 2), (1, 4), (1, VOCAB), (3, 2), (12, 3)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_does_not_help_costs_nearly_nothing(texts, temperature, vocab):
    """Texts of few letters, so that n-grams are found at every token, and what followed them says little."""

    def make():
        runner = Light(blocks=2000)
        answer = runner.answer

        def few(tokens):
            row = answer(tokens)
            row[vocab:] = -100
            return row

        runner.answer = few
        return runner

    prompt = [1, 0] * 6
    assert measured(make, usual_times, texts, prompt, temperature=temperature, seed=7) > 0.97


@pytest.mark.parametrize("texts", [1, 4, 12])
def test_rows_that_cost_as_much_as_steps_are_not_guessed(texts):
    """A machine on which nothing is saved, however right the guesses are."""
    assert measured(lambda: Copying(12, blocks=4000), lambda tokens: 0.01 * tokens, texts) > 0.97


def test_the_number_of_guesses_follows_their_chances():
    gain = Gain()
    assert gain.guesses([]) == 0
    assert gain.guesses([0.1] * 8) == 0
    counts = [gain.guesses([chance] * 16) for chance in (0.3, 0.5, 0.8, 0.9, 0.99)]
    assert counts == sorted(counts)
    assert counts[0] <= 1 < counts[2] < counts[-1] == 16
    assert gain.guesses([0.9] * 16, states=True) < gain.guesses([0.9] * 16)
    assert gain.guesses([0.99] * MOST) == 0, "beyond what is measured"


def test_costs_are_learned_and_the_pace_of_the_machine_does_not_confuse_them():
    """Another program comes while one size runs, and steps take twice as long: the others' costs stay."""
    gain, dice = Gain(), np.random.default_rng(0)

    def run(tokens, pace):
        gain.step(1, tokens, pace * (0.9 + 0.1 * tokens) * dice.uniform(0.95, 1.05))

    for tokens in (1, 2, 4, 8):
        for _ in range(20):
            run(tokens, 0.01), run(1, 0.01)
    for _ in range(100):
        run(1, 0.02)
    for tokens in (1, 2, 4, 8):
        assert gain.cost(tokens) / gain.cost(1) == pytest.approx(0.9 + 0.1 * tokens, rel=0.1)
    assert gain.cost(2) < gain.cost(3) < gain.cost(4)
    assert gain.cost(16) / gain.cost(8) == pytest.approx(usual(16) / usual(8))
    assert gain.pace * gain.cost(1) == pytest.approx(0.02, rel=0.1)


def test_costs_stay_where_a_step_behind_a_longer_one_takes_longer():
    """It comes back to few rows with other rows' data in the caches. What runs seldom keeps its cost meanwhile."""
    gain = Gain()
    for _ in range(MEASURES):
        gain.step(1, 1, 0.01), gain.step(1, 1, 0.01), gain.step(1, 8, 0.026)
    for _ in range((FORGOTTEN - MOST) // 10):
        for _ in range(8):
            gain.step(1, 1, 0.01)
        gain.step(1, 2, 0.0125), gain.step(1, 1, 0.0105)
    assert gain.cost(2) / gain.cost(1) == pytest.approx(1.25, rel=0.02)
    assert gain.cost(8) / gain.cost(1) == pytest.approx(2.6, rel=0.02)


def test_another_number_of_texts_tells_the_pace_after_two_steps():
    """Texts end, and the machine becomes faster: what guesses cost beside the rest is measured against the rest."""
    gain = Gain()
    for texts, pace in ((8, 0.02), (3, 0.01)):
        for _ in range(20):
            for _ in range(4):
                gain.step(texts, texts, pace * usual(texts))
            gain.step(texts, texts + 2, pace * usual(texts + 2))
        assert gain.base == texts
        assert gain.pace * gain.cost(texts) == pytest.approx(pace * usual(texts), rel=0.02)
        assert gain.cost(texts + 2) / gain.cost(texts) == pytest.approx(usual(texts + 2) / usual(texts), rel=0.02)


def test_a_step_that_was_disturbed_is_not_remembered_for_ever():
    gain = Gain()
    for _ in range(20):
        gain.step(1, 1, 0.01)
    gain.step(1, 4, 1.0)
    assert gain.cost(4) > 2 * usual(4)
    for _ in range(FORGOTTEN + MOST):
        gain.step(1, 1, 0.01)
    assert gain.cost(4) == pytest.approx(usual(4), rel=0.05)


def test_nothing_is_known_of_steps_too_large_to_matter():
    gain = Gain()
    gain.step(MOST, MOST + 1, 1.0)
    assert not gain.costs
    assert gain.texts == MOST


def test_steps_that_read_prompts_are_not_measured():
    told = []

    class Listening:
        def step(self, texts, tokens, seconds):
            told.append((texts, tokens, seconds))

    machine = Machine(lambda tokens: float(tokens))
    engine = Engine(machine.timed(Watched(blocks=40)), clock=machine, meter=Listening())
    engine.add(ask(0, prompt=range(6), max_new_tokens=4))
    engine.step(), engine.step()
    engine.add(ask(1, prompt=range(9), max_new_tokens=2))
    while not engine.idle:
        engine.step()
    assert told == [(1, 1, 1.0), (2, 2, 2.0)]


def test_copying_runners_answer_as_their_specification():
    """What the tests above compare with."""
    assert plain(ask(prompt=range(12), max_new_tokens=5), answer=Copying(12, blocks=1).answer)[0] == [0, 1, 2, 3, 4]
    assert SURE > 1
    np.testing.assert_array_equal(fake_answer([1, 2]), FakeRunner(vocab_size=VOCAB).answer([1, 2]))


def with_draft(times, draft_times, draft, prompt=8, new=400, texts=1, run=0.2):
    """How much faster such texts are with a draft than without.

    run  as DraftGain has it
    """
    took = []
    for assisted in (False, True):
        machine, gain = Machine(times), Gain()
        engine = Engine(machine.timed(Light(blocks=4000)), clock=machine, meter=gain)
        own = Machine(draft_times)

        def clock(machine=machine, own=own):
            return machine.now + own.now

        runner = own.timed(draft(blocks=4000))
        decoder = Drafted(Draft(runner, VOCAB, 1 << 20), 5, DraftGain(gain, 5, run), clock) if assisted else Sample()
        for id in range(texts):
            engine.add(ask(id, [1, 2] * (prompt // 2), decoder, seed=id, temperature=1.0, max_new_tokens=new))
        while not engine.idle:
            engine.step()
        took.append(clock())
    return took[0] / took[1]


class Other(Light):
    """A model that knows nothing of the other."""

    def answer(self, tokens):
        return super().answer([5, *tokens])[::-1]


def test_a_good_small_draft_is_faster():
    assert with_draft(usual_times, lambda tokens: 0.001 + 0.0001 * tokens, Light) > 1.5
    assert with_draft(lambda tokens: 0.01 + 0.001 * tokens, lambda tokens: 0.001, Light) > 2.5


@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize(
    ("draft", "seconds", "run"),
    [
        (Other, lambda tokens: 0.001 * tokens, 0.1),
        (Other, lambda tokens: 0.005, 0.2),
        (Light, lambda tokens: 0.02 * tokens, 1.0),
    ],
    ids=["wrong", "wrong and slow", "right and too slow"],
)
def test_a_draft_that_does_not_help_costs_nearly_nothing(draft, seconds, run, texts):
    assert with_draft(usual_times, seconds, draft, texts=texts, run=run) > 0.97


def test_a_draft_that_only_seems_good_costs_little_even_once():
    """A short text, the first there is: nothing is known of the draft but its size."""
    assert with_draft(usual_times, lambda tokens: 0.0005 * tokens, Other, new=120, run=0.05) > 0.97


def test_a_short_answer_to_a_long_prompt_is_not_worth_reading_it_twice():
    """What a draft takes for the prompt is more than it could save of ten tokens."""
    assert with_draft(lambda tokens: 0.01, lambda tokens: 0.0005 * tokens, Light, prompt=400, new=10) > 0.97
