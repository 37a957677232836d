"""States of texts on the fake runner, which reads back what was written to a place: what they are shared by, when they
are known, and what becomes of them where guesses are wrong or a step fails."""

from __future__ import annotations

from itertools import accumulate

import pytest
from test_sharing import prompt, run

from driving import LENGTH, Guess, Watch, Watched, ask, judge
from quickbrown.engine.engine import Engine
from quickbrown.engine.sequence import EngineError, Sequence


def engine(states=24, budget=512, **options):
    return Engine(Watched(blocks=64, block_size=4, states=states, **options), budget)


@pytest.mark.parametrize(("length", "sizes"), [(3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (30, [28, 2])])
def test_the_last_full_block_of_a_prompt_ends_a_step(length, sizes):
    """There the states are known, of a prompt of whole blocks behind the last but one too."""
    one = engine()
    run(one, ask(0, prompt(length), max_new_tokens=1))
    assert one.runner.sizes == sizes
    assert len(one.states.known) == sum(end % 4 == 0 for end in accumulate(sizes))


def test_models_without_states_run_whole_prompts():
    one = engine(states=0)
    run(one, ask(0, prompt(30), max_new_tokens=1))
    assert one.runner.sizes == [30]
    assert one.states is None


@pytest.mark.parametrize(("length", "reused"), [(3, 0), (5, 4), (30, 28), (32, 28), (33, 32)])
def test_a_repeated_prompt_goes_on_from_what_is_known(length, reused):
    one = engine()
    run(one, ask(0, prompt(length), max_new_tokens=1))
    told, given = run(one, ask(1, prompt(length), max_new_tokens=1))
    assert told[1, 0].reused == reused
    assert given == length - reused


def test_known_blocks_without_states_are_not_enough():
    """A prompt that parts from the first between two ends of steps begins anew, though it finds its first blocks; with
    a budget of a block a step there are states behind each."""
    for budget, reused in ((512, 0), (4, 16)):
        one = engine(budget=budget)
        run(one, ask(0, prompt(30), max_new_tokens=1))
        told, _ = run(one, ask(1, (*prompt(17), *prompt(9, 1)), max_new_tokens=1))
        assert told[1, 0].reused == reused


def test_states_that_were_needed_elsewhere_are_forgotten():
    """Two places are one text's: another text takes what the first has left, whose blocks are still known."""
    one = engine(states=2)
    first, other = ask(0, prompt(30)), ask(1, prompt(30, 1))
    run(one, first)
    run(one, other)
    assert len(one.pool.find(digests(one, first))) == 7
    told, given = run(one, ask(2, prompt(30), max_new_tokens=1))
    assert (told[2, 0].reused, given) == (0, 30)


def digests(one, request):
    sequence = Sequence(request, (0, 0), list(request.prompt), (0,))
    one.scheduler.identify(sequence, len(request.prompt) // 4)
    return sequence.digests


def test_a_next_turn_goes_on_from_what_was_written():
    """The end of each block that is written leaves states behind it."""
    one = engine()
    first = ask(0, prompt(30), max_new_tokens=11)
    told, _ = run(one, first)
    turn = (*first.prompt, *told[0, 0].tokens, *prompt(9, 1))
    again, given = run(one, ask(1, turn, max_new_tokens=1))
    assert again[1, 0].reused == 40  # 30 + 11 - 1 stored
    assert given == len(turn) - 40


def test_forks_read_one_place():
    one = engine()
    one.add(request := ask(0, prompt(9), seed=(1, 2, 3), temperature=1.0))
    watch = Watch(one)
    watch.step(), watch.step()
    places = {sequence.state for sequence in one.live[0]}
    assert len(one.live[0]) == 3
    assert [one.states.holders[place] for place in places] == [3]
    watch.step()
    assert len({sequence.state for sequence in one.live[0]}) == 3
    judge(request, watch.finish())


@pytest.mark.parametrize(("states", "together"), [(2, 1), (3, 1), (4, 2), (7, 3), (24, 6)])
def test_as_many_texts_run_as_there_are_two_places_for(states, together):
    """The others wait, and go on from what is still known of them."""
    one = engine(states=states)
    asked = [ask(i, prompt(9, i), max_new_tokens=9) for i in range(6)]
    for request in asked:
        one.add(request)
    watch = Watch(one)
    watch.step(), watch.step(), watch.step()
    assert len(one.scheduler.running) == together
    told = watch.finish()
    for request in asked:
        judge(request, told)
        assert told[request.id, 0].finish == LENGTH


def test_the_youngest_gives_its_places_up():
    """Forks need more places than their text did."""
    one = engine(states=5)
    asked = [ask(0, prompt(9), seed=(1, 2, 3), temperature=1.0), ask(1, prompt(9, 1))]
    for request in asked:
        one.add(request)
    told = Watch(one).finish()
    for request in asked:
        judge(request, told)


def test_where_a_guess_was_wrong_the_states_before_it_stand():
    """Of 4 guesses the one at each fifth position is wrong. What came true of a step with a wrong one runs again in the
    next, which guesses nothing; a step whose guesses were all right goes on behind them."""
    one = engine()
    request = ask(0, prompt(3), Guess(4, 5), max_new_tokens=16)
    told, given = run(one, request)
    # positions 3 to 7: 5 is wrong, so 3 and 4 are the text's and the 3 known tokens run again with the 3 written; and
    # so on. Without a wrong guess 3 + 15 tokens would run.
    assert told[0, 0].finish == LENGTH
    assert given > 18
    right, fewer = run(engine(), ask(0, prompt(3), Guess(4, 0), max_new_tokens=16))
    assert right[0, 0].tokens == told[0, 0].tokens
    assert fewer == 18


def test_a_step_that_failed_has_changed_nothing():
    """The second step fails once it has written all its states; each text runs again alone, from those before it."""
    one = engine(poison=3)
    asked = [ask(0, prompt(9)), ask(1, (3, *prompt(8))), ask(2, prompt(9, 2))]
    for request in asked:
        one.add(request)
    watch = Watch(one)
    told = watch.finish()
    assert one.runner.poisoned > 0
    for request in asked:
        judge(request, told, poison=3)


FAULTS = {
    "a holder too many": (lambda e, s: e.states.hold(s.state), "is in 1 tables, but 2 holders are booked"),
    "states of nothing": (lambda e, s: setattr(s, "state", None), "and has its states in None"),
    "left to write": (lambda e, s: setattr(s, "written", e.states.take()), "but no step runs"),
    "another's": (lambda e, s: e.states.name(s.state, b"other"), "known as another text than that of request 0"),
    "lost": (lambda e, s: e.states.free.pop(), "the free places are"),
    "forgotten": (lambda e, s: e.states.known.clear(), "the places known by their digests are not those"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_sees(fault):
    one = engine()
    one.add(ask(0, prompt(11)))
    for _ in range(3):
        one.step()
    one.check()
    break_it, sentence = FAULTS[fault]
    break_it(one, one.live[0][0])
    with pytest.raises(EngineError, match=sentence):
        one.check()


def test_logits_take_two_places_and_give_them_back():
    one = engine()
    rows = one.logits(list(prompt(11)))
    assert [row.tolist() for row in rows] == [one.runner.answer(list(prompt(i + 1))).tolist() for i in range(11)]
    assert one.states.available == 24
    one = engine(states=2)
    one.add(ask(0, prompt(11)))
    one.step()
    with pytest.raises(ValueError, match="leave no memory for another's states"):
        one.logits(list(prompt(11)))
