"""Rows that a request's processor changes before they are drawn from, and spans that keep texts apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from driving import VOCAB, Ban, Guess, Said, Watch, Watched, ask, fake_answer, judge
from quickbrown.backends.sampling import logprob
from quickbrown.engine.engine import Engine
from quickbrown.types import Edit, EditKind, FinishReason

NOBODY, LOWEST = np.arange(VOCAB, dtype=np.int32), np.float32([-np.inf])


def write(*requests, **options):
    """Their texts, each judged against the plain loop."""
    engine = Engine(Watched(blocks=64), **options)
    watch = Watch(engine)
    for request in requests:
        engine.add(request)
    events = []
    while not engine.idle:
        events += watch.step()
    for request in requests:
        judge(request, watch.told)
    return watch.told, events


@pytest.mark.parametrize("budget", [2, 512])
def test_each_sample_gets_its_own_rows(budget):
    """Samples that share a sequence until their first token is drawn are told apart before that."""
    request = replace(ask(seed=(5, 6, 7), temperature=1.0, max_new_tokens=6), processor=Ban())
    told, _ = write(request, ask(1, seed=9), budget=budget)
    for sample in range(3):
        for at, token in enumerate(told[0, sample].tokens, len(request.prompt)):
            assert token in [(at + sample + i) % VOCAB for i in range(3)]


def test_guesses_are_judged_on_processed_rows():
    """A guess of what the unprocessed row would give must not pass."""
    write(replace(ask(decoder=Guess(3, 0), temperature=1.0, max_new_tokens=12), processor=Ban()))


def test_log_probabilities_are_of_the_row_as_it_was():
    request = replace(ask(logprobs=True, max_new_tokens=4), processor=Ban())
    _, events = write(request)
    text = list(request.prompt)
    for event in events:
        for token, chance in zip(event.tokens, event.logprobs, strict=True):
            assert chance == logprob(fake_answer(text), token)
            text.append(token)


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        (lambda tokens, sample, row: row[:-1], "made (12,) of a row of shape (13,)"),
        (lambda tokens, sample, row: np.full_like(row, -np.inf), "leave no token"),
        (lambda tokens, sample, row: np.full_like(row, np.nan), "made a logit nan"),
        (lambda tokens, sample, row: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_processor_ends_its_request_only(processor, said):
    ends_alone(processor, said)


def ends_alone(processor, said):
    """Of two requests, the one with the processor ends in an error that says so, and the other is what it should be."""
    engine = Engine(Watched(blocks=64))
    guilty, other = replace(ask(0, seed=(1, 2)), processor=processor), ask(1)
    watch = Watch(engine)
    engine.add(guilty)
    engine.add(other)
    told = watch.finish()
    judge(other, told)
    for sample in range(2):
        assert told[0, sample].finish.reason is FinishReason.ERROR
        assert said in told[0, sample].finish.detail


@pytest.mark.parametrize("silent", [(), range(6, 9), range(100)])
@pytest.mark.parametrize("budget", [2, 512])
def test_edits_give_the_text_that_calling_gives(silent, budget):
    """Samples that begin as one sequence, guesses that are wrong, and company with and without a processor. `judge`
    calls the processor itself; the engine must only where it says nothing."""
    samples = replace(ask(0, seed=(5, 6, 7), temperature=1.0, max_new_tokens=6), processor=(first := Said(silent)))
    guessing = replace(ask(1, decoder=Guess(3, 2), temperature=1.0, max_new_tokens=9), processor=Said(silent))
    banned = replace(ask(2, temperature=1.0, max_new_tokens=6), processor=Ban())
    engine = Engine(Watched(blocks=64), budget=budget)
    watch = Watch(engine)
    for request in (samples, guessing, banned, ask(3, seed=9)):
        engine.add(request)
    told = watch.finish()
    assert (first.called > 0) == (len(silent) > 0)
    for request in (samples, guessing, banned, ask(3, seed=9)):
        judge(request, told)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (lambda tokens, sample: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda tokens, sample: [Edit(EditKind.PUT, NOBODY, LOWEST)], "-inf"),
    ],
)
def test_a_broken_editor_ends_its_request_only(edits, said):
    """What `edits` raises counts only if calling raises it too; edits that leave nothing are found in the runner."""

    class Broken:
        def __call__(self, tokens, sample, logits):
            return 1 / 0

    broken = Broken()
    broken.edits = edits
    ends_alone(broken, said)


def test_one_logit_of_plus_infinity_wins():
    def force(tokens, sample, row):
        row = row.copy()
        row[len(tokens) % VOCAB] = math.inf
        return row

    told, _ = write(replace(ask(temperature=1.0), processor=force))
    assert told[0, 0].tokens == [(3 + i) % VOCAB for i in range(8)]


def test_texts_of_different_spans_share_no_block():
    """The same tokens, rotated in another way, are other keys and values."""
    engine = Engine(Watched(blocks=64, block_size=4))
    watch = Watch(engine)
    for id, span in enumerate((0, 7, 7, 0, 9)):
        engine.add(replace(ask(id, prompt=range(12), max_new_tokens=1), span=span))
        watch.finish()
    assert [watch.told[id, 0].reused for id in range(5)] == [0, 0, 8, 8, 0]


def test_a_step_names_the_spans_of_its_sequences():
    """Only where one differs from 0: nearly no model asks."""
    seen = []

    class Runner(Watched):
        def run(self, batch, *rest):
            seen.append(batch.spans)
            return super().run(batch, *rest)

    engine = Engine(Runner(blocks=64))
    engine.add(ask(0, max_new_tokens=2))
    engine.step()
    engine.add(replace(ask(1, max_new_tokens=1), span=300))
    engine.step()
    assert seen == [[], [0, 300]]
