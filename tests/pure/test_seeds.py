"""Which seed each row draws with: the same when asked for again, otherwise never the same."""

from __future__ import annotations

import hashlib
import math
import threading
import time

import numpy as np
import pytest

from quickbrown.generation import seeds
from quickbrown.generation.seeds import hashed, row_seeds, set_seed


@pytest.fixture(autouse=True)
def own_state(monkeypatch):
    """The state that calls share is each test's own, with no default seed; the process's is put back behind it."""
    monkeypatch.setattr(seeds, "_seeds", seeds.Seeds())


def test_hashes_are_as_documented():
    """The definition once more, from the standard library's BLAKE2b; numbers of any count are told apart."""
    for numbers in ((0,), (0, 0), (1, 2), (2, 1), (2**64 - 1, 0, 2**63), (258,)):
        packed = b"".join(n.to_bytes(8, "little") for n in numbers)
        assert hashed(*numbers) == int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
    assert len({hashed(0), hashed(0, 0), hashed(0, 0, 0), hashed(1, 2), hashed(2, 1)}) == 5


def test_hashes_keep_their_values():
    """Computed with `b2sum -l 64`. Texts of published seeds hang on them: a change of the definition must be meant."""
    assert hashed(42, 0, 0) == 0x20B78D7032721BEA
    assert hashed(2**64 - 1, 1) == 0x685CD143BE7893CD


def test_seeds_keep_their_values():
    """What is hashed: the seed, the number of the call (0 for a seed of its own) and the row; then the row's seed and
    the number of the sample."""
    assert row_seeds(7, 2, 3) == [(own, hashed(own, 1), hashed(own, 2)) for own in (hashed(7, 0, 0), hashed(7, 0, 1))]
    set_seed(7)
    assert row_seeds(None, 1, 1) == [(hashed(7, 1, 0),)]
    assert row_seeds(None, 2, 1) == [(hashed(7, 2, 0),), (hashed(7, 2, 1),)]


def some_calls():
    return [row for shape in ((3, 2), (1, 1), (3, 2)) for row in row_seeds(None, *shape)]


def test_a_default_seed_repeats_the_same_calls():
    set_seed(1)
    first = some_calls()
    assert some_calls() != first
    set_seed(1)
    assert some_calls() == first
    set_seed(2)
    assert not {*some_calls()} & {*first}, "nothing in common with another seed"


def test_every_call_draws_with_seeds_of_its_own():
    """Also where the calls have a default seed in common, and one of them gives that seed itself."""
    set_seed(1)
    calls = [*(row_seeds(None, 2, 2) for _ in range(1000)), row_seeds(1, 2, 2)]
    assert len({seed for call in calls for row in call for seed in row}) == 1001 * 4


def test_a_seed_of_its_own_neither_asks_nor_moves_the_default():
    set_seed(1)
    undisturbed = [row_seeds(None, 2, 1) for _ in range(2)]
    alone = row_seeds(5, 2, 2)
    set_seed(1)
    disturbed = [row_seeds(None, 2, 1)]
    for _ in range(3):
        assert row_seeds(5, 2, 2) == alone
        assert row_seeds((8, 9), 2, 1) == [(8,), (9,)]
    disturbed.append(row_seeds(None, 2, 1))
    assert disturbed == undisturbed


def test_without_a_default_every_call_is_fresh():
    """64 random bits: two calls agree once in 2**64."""
    calls = [row_seeds(None, 1, 1)[0] for _ in range(100)]
    assert len(set(calls)) == 100


def test_the_first_seeds_do_not_hang_on_how_many_there_are():
    """More prompts, or more samples of each, leave the texts that there were as they are."""
    many = row_seeds(3, 9, 8)
    assert row_seeds(3, 4, 2) == [row[:2] for row in many[:4]]


def test_rows_of_their_own_seeds():
    """Row seeds are drawn with as they are, by the first sample; a row is what it was in the call that reports it."""
    assert row_seeds((4, 2**64 - 1, 4), 3, 1) == [(4,), (2**64 - 1,), (4,)]
    rows = row_seeds(11, 5, 4)
    assert row_seeds(tuple(row[0] for row in rows), 5, 4) == rows
    for row in rows:
        assert row_seeds((row[0],), 1, 4) == [row]
    assert row_seeds((), 0, 4) == row_seeds(3, 0, 4) == []


@pytest.mark.parametrize(("own", "rows"), [((1, 2, 3), 7), ((1, 2, 3), 2), ((), 1), ((5,), 0)])
def test_row_seeds_must_be_as_many_as_rows(own, rows):
    with pytest.raises(ValueError, match=rf"^seed names {len(own)} rows, but the call has {rows};"):
        row_seeds(own, rows, 1)


@pytest.mark.parametrize(("rows", "samples"), [(100_000, 1), (1, 100_000), (400, 250)])
def test_no_two_samples_share_a_seed(rows, samples):
    """Of 100,000 numbers of 64 bits two are the same with a probability of 3e-10; of 32 bits, with one of 0.7; and if
    neighbouring rows shared samples, certainly. Every bit is set in half of them, give or take six deviations."""
    drawn = [seed for row in row_seeds(1, rows, samples) for seed in row]
    assert len(drawn) == len(set(drawn)) == 100_000
    bits = np.unpackbits(np.array(drawn, np.uint64)[:, None].view(np.uint8), axis=1).sum(0)
    assert len(bits) == 64
    assert (abs(bits - 50_000.0) < 6 * math.sqrt(100_000) / 2).all()


class Dawdling(seeds.Seeds):
    """Lets other threads go ahead between reading the number of calls and writing it. Without a lock they read the same
    one; CPython alone would hardly ever switch just there."""

    @property
    def _calls(self):
        count = self.count
        time.sleep(0)
        return count

    @_calls.setter
    def _calls(self, count):
        self.count = count


def test_threads_never_take_the_same_number(monkeypatch):
    shared = Dawdling()
    monkeypatch.setattr(seeds, "_seeds", shared)
    set_seed(6)
    taken = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def take(into):
        start.wait()
        into += (shared.next() for _ in range(1000))

    threads = [threading.Thread(target=take, args=(into,)) for into in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pair for into in taken for pair in into) == [(6, call) for call in range(1, 8001)]
    assert all(into == sorted(into) for into in taken), "each thread's own come in order"


@pytest.mark.parametrize("bad", [-1, 2**64, 0.5, 1.0, True, False, "7", None, (1,)])
def test_bad_seeds_are_refused(bad):
    """The sentence names the value, and the default seed and its calls stay as they were."""
    set_seed(1)
    first, second = (row_seeds(None, 1, 1) for _ in range(2))
    set_seed(1)
    assert row_seeds(None, 1, 1) == first
    with pytest.raises(ValueError, match=r"^the seed must be a whole number from 0 to 2\*\*64 - 1, not ") as error:
        set_seed(bad)
    assert repr(bad) in str(error.value)
    assert row_seeds(None, 1, 1) == second


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_seeds_at_the_ends_of_their_range(seed):
    set_seed(seed)
    assert row_seeds(None, 1, 1) != row_seeds(None, 1, 1)
    assert row_seeds(seed, 2, 2) == row_seeds(seed, 2, 2)
