"""The numpy specification of a draw: its noise, its filters at their borders, and its frequencies."""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chi2
from quickbrown.backends.sampling import draw, kept, logprob, mix, sample, uniform
from quickbrown.engine.batch import Draws

INF = math.inf
u64 = ctypes.c_uint64


def row(*values):
    return np.array(values, np.float32)


def test_noise_is_splitmix64():
    """The published first outputs of SplitMix64 started at 0 and at 1234567, the latter from Rosetta Code."""
    golden = 0x9E3779B97F4A7C15
    assert [mix(i * golden % 2**64) for i in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [mix((1234567 + i * golden) % 2**64) for i in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_uniform_agrees_with_machine_arithmetic(seed, position):
    """The same formula in C's uint64, where wraparound is the machine's."""

    def mix(z):
        z = u64(z + 0x9E3779B97F4A7C15).value
        z = u64((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9).value
        z = u64((z ^ (z >> 27)) * 0x94D049BB133111EB).value
        return z ^ (z >> 31)

    u = uniform(seed, position)
    assert 0 <= u < 1
    assert u == math.ldexp(mix(mix(seed) ^ position) >> 11, -53)


def test_uniform_keeps_its_values():
    """Computed with a C compiler's uint64_t; texts of published seeds hang on them."""
    assert uniform(0, 0) == float.fromhex("0x1.4e0dba5e9a32fp-1")
    assert uniform(0, 1) == float.fromhex("0x1.169fb5191256p-5")
    assert uniform(1, 0) == float.fromhex("0x1.7906ac21d0e58p-2")
    assert uniform(42, 1000) == float.fromhex("0x1.5455d36f84b6ep-1")
    assert uniform(2**64 - 1, 12345678901) == float.fromhex("0x1.0a617f32530c8p-3")


@given(st.integers(0, 2**64 - 1), st.floats(0.125, 8))
def test_temperature_zero_and_top_k_one_take_the_likeliest(seed, temperature):
    x = row(1, 3, 2, 3)
    assert draw(x, 0.0, seed=seed) == 1, "the lowest id wins ties"
    assert draw(x, temperature, top_k=1, seed=seed) == 1
    assert draw(x, 0.0, top_k=2, top_p=0.5, min_p=0.9, seed=seed) == 1


FILTERS = [
    # weights, whose logarithms are the logits; options; ids that stay
    ([1, 2, 4, 8], {}, [0, 1, 2, 3]),
    ([1, 2, 4, 8], {"top_k": 2}, [2, 3]),
    ([1, 2, 4, 8], {"top_k": 4}, [0, 1, 2, 3]),
    ([1, 2, 4, 8], {"top_k": 99}, [0, 1, 2, 3]),
    ([4, 4, 8, 4], {"top_k": 2}, [0, 2]),  # a tie at the border
    ([4, 4, 4, 4], {"top_k": 3}, [0, 1, 2]),
    ([0, 5, 0, 3], {"top_k": 3}, [1, 3]),  # -inf does not fill up k
    ([1, 1, 1, 1], {"top_p": 0.5}, [0, 1]),  # reached exactly
    ([1, 1, 1, 1], {"top_p": 0.500001}, [0, 1, 2]),
    ([1, 1, 2, 4], {"top_p": 0.499}, [3]),
    ([1, 1, 2, 4], {"top_p": 0.501}, [2, 3]),
    ([1, 1, 2, 4], {"top_p": 0.749}, [2, 3]),
    ([1, 1, 2, 4], {"top_p": 0.8}, [0, 2, 3]),  # a tie
    ([1, 1, 2, 4], {"top_p": 1e-9}, [3]),  # at least one
    ([1, 1, 2, 4], {"top_p": 0.999999}, [0, 1, 2, 3]),
    ([1, 1, 2, 4], {"top_k": 2, "top_p": 0.66}, [3]),  # of what top_k left: 2/3
    ([1, 1, 2, 4], {"top_k": 2, "top_p": 0.67}, [2, 3]),
    ([1, 1, 2, 4], {"min_p": 0.249}, [0, 1, 2, 3]),
    ([1, 1, 2, 4], {"min_p": 0.251}, [2, 3]),
    ([1, 1, 2, 4], {"min_p": 1}, [3]),
    ([4, 1, 2, 4], {"min_p": 1}, [0, 3]),  # not below the border
    ([1, 1, 2, 4], {"temperature": 0.5, "min_p": 0.24}, [2, 3]),  # squares: 1 1 4 16
    ([1, 4, 9, 16], {"temperature": 2, "top_p": 0.69}, [2, 3]),  # roots: 1 2 3 4
    ([1, 4, 9, 16], {"temperature": 2, "top_p": 0.71}, [1, 2, 3]),
]


@pytest.mark.parametrize(("weights", "options", "stay"), FILTERS)
def test_filters_at_their_borders(weights, options, stay):
    with np.errstate(divide="ignore"):
        x = np.log(np.array(weights, np.float32))
    p = kept(x, **{"temperature": 1.0, **options})
    assert np.flatnonzero(p).tolist() == stay


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.6}, {"temperature": 1.7, "top_k": 6}, {"top_p": 0.8}, {"min_p": 0.15},
     {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "min_p": 0.1}],
)  # fmt: skip
@pytest.mark.parametrize("by", ["position", "seed"])
def test_frequencies_are_the_probabilities(options, by):
    """Chi-square of fixed draws: over positions of one seed, and over seeds at one position."""
    options = {"temperature": 1.0, **options}
    x = np.random.default_rng(1).normal(0, 0.7, 12).astype(np.float32)
    n = 4000
    noise = [{"seed": 77, "position": 9, by: i} for i in range(n)]
    seen = np.bincount([draw(x, **options, **key) for key in noise], minlength=12)
    p = processed(x.astype(np.float64), **options)
    assert seen[p == 0].sum() == 0
    expected = n * p[p > 0]
    freedom = len(expected) - 1
    chi2 = float(((seen[p > 0] - expected) ** 2 / expected).sum())
    limit = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3  # Wilson & Hilferty: p = 0.001
    assert freedom >= 3, "the filters must leave something to test"
    assert chi2 < limit


def processed(x, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The filters once more, token by token in plain Python."""
    chances = {i: math.exp(v / temperature) for i, v in enumerate(x)}
    ranked = sorted(chances, key=lambda i: (-x[i], i))[: top_k or None]
    total = sum(chances[i] for i in ranked)
    stay, reached = [], 0.0
    for i in ranked:
        if reached / total >= top_p:
            break
        stay.append(i)
        reached += chances[i]
    stay = [i for i in stay if chances[i] >= min_p * chances[ranked[0]]]
    total = sum(chances[i] for i in stay)
    return np.array([chances[i] / total if i in stay else 0.0 for i in range(len(x))])


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12, unique=True),
    st.sampled_from([0.3, 1.0, 3.0]),
    st.integers(0, 5),
    st.sampled_from([0.31, 0.77, 0.953, 1.0]),
    st.sampled_from([0.0, 0.07, 0.5]),
)
def test_kept_is_what_plain_python_keeps(x, temperature, top_k, top_p, min_p):
    p = kept(row(*x), temperature, top_k, top_p, min_p)
    np.testing.assert_allclose(p / p.sum(), processed(x, temperature, top_k, top_p, min_p), atol=1e-9)


def test_ids_are_walked_upwards():
    """With noise u, the draw is the first id whose running sum exceeds u: here 0.1, 0.3, 0.6, 1."""
    x = np.log(np.array([0.1, 0.2, 0.3, 0.4])).astype(np.float32)
    for position in range(200):
        u = uniform(4, position)
        assert draw(x, 1.0, seed=4, position=position) == (u >= 0.1) + (u >= 0.3) + (u >= 0.6)


def test_noise_that_just_reaches_a_sum_goes_on(monkeypatch):
    for u, token in ((0.0, 0), (0.25, 1), (0.5, 2), (0.75, 3), (1 - 2**-53, 3)):
        monkeypatch.setattr("quickbrown.backends.sampling.uniform", lambda seed, position, u=u: u)
        assert draw(row(1, 1, 1, 1), 1.0) == token


def test_kept_are_probabilities_of_the_whole_row():
    np.testing.assert_allclose(kept(np.log(row(1, 2, 5)), 1.0), [0.125, 0.25, 0.625], rtol=1e-6)
    np.testing.assert_allclose(kept(np.log(row(1, 2, 5)), 1.0, top_k=2), [0, 0.25, 0.625], rtol=1e-6)


def test_infinite_logits():
    assert draw(row(0, INF, 5, INF), 1.0) == 1
    assert draw(row(0, INF, 5, INF), 0.0) == 1
    assert {draw(row(-INF, 0, -INF, 0, -INF), t, seed=s) for s in range(50) for t in (0.01, 1.0, 1e30)} == {1, 3}
    assert draw(row(-INF, -INF, -3), 0.0) == 2
    assert {draw(row(-3e38, 3e38, 3e38), 1e-40, seed=s) for s in range(50)} == {1, 2}
    assert {draw(row(-INF, 0, 1), INF, seed=s) for s in range(50)} == {1, 2}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_decide_nothing_are_refused(temperature):
    with pytest.raises(ValueError, match="token 1 is nan"):
        draw(row(1, math.nan, INF), temperature)
    with pytest.raises(ValueError, match="all logits are -inf"):
        draw(row(-INF, -INF), temperature)
    with pytest.raises(ValueError, match="nan"):
        logprob(row(1, math.nan), 0)


def test_logprob_is_of_the_whole_row_at_temperature_one():
    weights = [1, 2, 5]
    for token, weight in enumerate(weights):
        assert logprob(np.log(np.array(weights, np.float32)), token) == pytest.approx(math.log(weight / 8), abs=1e-6)
    assert logprob(row(1e4, 1e4 - 2), 1) == pytest.approx(-2 - math.log1p(math.exp(-2)))
    assert logprob(row(0, -INF), 1) == -INF
    assert logprob(row(0, INF, INF), 2) == pytest.approx(-math.log(2))
    assert logprob(row(0, INF, INF), 0) == -INF


def test_sample_draws_each_row_with_its_own_parameters():
    x = np.random.default_rng(0).normal(0, 2, (3, 20)).astype(np.float32)
    rows = [2, 0, 1, 2, 1]
    options = [
        {"temperature": 0.0, "seed": 1, "position": 4},
        {"temperature": 1.5, "top_k": 7, "seed": 2**64 - 1, "position": 2**40},
        {"temperature": 0.75, "top_p": 0.5, "seed": 2, "position": 6},
        {"temperature": 2.0, "min_p": 0.25, "seed": 3, "position": 7},
        {"temperature": 2.0, "seed": 3, "position": 8},
    ]

    def column(name, kind, default=0):
        return np.array([option.get(name, default) for option in options], kind)

    draws = Draws(
        rows=np.array(rows, np.int32), seeds=column("seed", np.uint64), positions=column("position", np.int64),
        temperatures=column("temperature", np.float32), top_k=column("top_k", np.int32),
        top_p=column("top_p", np.float32, 1), min_p=column("min_p", np.float32), logprobs=True,
    )  # fmt: skip
    tokens, logprobs = zip(*sample(x, draws), strict=True)
    assert {type(token) for token in tokens} == {int}
    want = [draw(x[r], **option) for r, option in zip(rows, options, strict=True)]
    assert list(tokens) == want
    assert len(set(want)) > 2
    np.testing.assert_allclose(logprobs, [logprob(x[r], t) for r, t in zip(rows, want, strict=True)], rtol=1e-6)
    assert all(math.isnan(x) for _, x in sample(x, replace(draws, logprobs=False)))


@pytest.mark.parametrize(
    ("x", "freedom", "tail"),
    [(3.841459, 1, 0.05), (10.82757, 1, 0.001), (18.30704, 10, 0.05), (29.58830, 10, 0.001), (124.3421, 100, 0.05),
     (149.4493, 100, 0.001), (1074.679, 1000, 0.05), (6**2, 1, 1.973175e-9), (20 * math.log(10), 2, 1e-10)],
)  # fmt: skip
def test_the_tail_of_chi_square(x, freedom, tail):
    """The critical values of printed tables; six deviations of a normal; and e^(-x / 2), the tail of two."""
    assert chi2.sf(x, freedom) == pytest.approx(tail, rel=2e-5)


def test_the_tail_of_chi_square_from_end_to_end():
    """It falls from 1 to 0 without a step; far out, where no table goes, it meets Wilson & Hilferty's normal."""
    assert [chi2.sf(x, 3) for x in (-1, 0, math.inf)] == [1, 1, 0]
    for freedom in (1, 2, 9, 400):
        tails = np.array([chi2.sf(x, freedom) for x in np.linspace(0, 6 * freedom + 60, 500)])
        assert (np.diff(tails) < 1e-12).all()
        assert tails[-1] < 1e-10
    for freedom in (300, 3001, 24000):
        x = freedom + 6 * math.sqrt(2 * freedom)
        z = ((x / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom))
        assert chi2.sf(x, freedom) == pytest.approx(math.erfc(z / math.sqrt(2)) / 2, rel=0.05)


def test_pearson_by_hand():
    """Cells of 5 or more, joined from the rarest up: 3 + 4 (of which 9 came), 12, 21."""
    assert chi2.pearson(np.array([22, 4, 9, 5, 0]), np.array([21, 4, 12, 3, 0])) == (
        pytest.approx(1 / 21 + 3**2 / 12 + 2**2 / 7),
        2,
    )
    assert chi2.pearson(np.array([22, 4, 8, 5, 1]), np.array([21, 4, 12, 3, 0]))[0] == math.inf
    assert chi2.pearson(np.array([6, 6, 2]), np.array([6, 6, 2]) / 14) == (0, 1), "the 2 join a 6"
    assert chi2.pearson(np.array([4] * 7), np.ones(7)) == (0, 2), "an incomplete cell joins the one before"
    with pytest.raises(ValueError, match="tests nothing"):
        chi2.pearson(np.array([3, 6]), np.array([1, 2]))


def test_counts_that_follow_their_chances_are_as_likely_as_they_should_be():
    """Numpy's own multinomial counts, cells joined: a tenth of 5,000 lies below 0.1, a hundredth below 0.01.

    Six deviations of those numbers are allowed: a test that always answered 1, or joined cells by what was counted,
    would not be within them.
    """
    p = np.array([0.4, 0.3, 0.2, 0.05, *[0.005] * 10])
    counts = np.random.default_rng(2).multinomial(400, p, 5000)
    q = np.array([chi2.likelihood(row, p) for row in counts])
    for tail in (0.01, 0.1, 0.5, 0.9):
        assert abs((q < tail).mean() - tail) < 6 * math.sqrt(tail * (1 - tail) / len(q)), tail


def drawn(x, options, keys):
    """What `draw` draws with each key. The distribution is the same for all and worked out once: `kept` is slow."""
    options = {"temperature": 1.0} | options
    p = kept(x, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quickbrown.backends.sampling.kept", lambda *_: p)
        seeds, positions = (key.tolist() for key in keys)
        return np.array([draw(x, **options, seed=s, position=at) for s, at in zip(seeds, positions, strict=True)])


@pytest.mark.parametrize("along", chi2.ALONG)
@pytest.mark.parametrize(("vocabulary", "n"), [(7, 600), (129, 600), (1000, 300)])
def test_counts_are_as_the_probabilities(vocabulary, n, along):
    """Every kind of row under every filter, by χ²; and nothing is drawn that a filter drops."""
    for kind, x in zip(chi2.KINDS, chi2.table(vocabulary), strict=True):
        for options in chi2.OPTIONS:
            counts = np.bincount(drawn(x, options, chi2.keys(along, n)), minlength=vocabulary)
            chi2.compare(f"{kind}, {options}", counts, chi2.chances(x, **options))


def test_counts_of_a_large_vocabulary():
    x, options = chi2.table(49152)[0], {"temperature": 0.5, "top_p": 0.875}
    counts = np.bincount(drawn(x, options, chi2.keys("texts", 2000)), minlength=49152)
    chi2.compare("49,152 tokens", counts, chi2.chances(x, **options))


@functools.cache
def counted():
    x, options = chi2.one()
    return np.bincount(drawn(x, options, chi2.keys("positions", 200_000)), minlength=len(x))


def test_many_draws_are_as_the_probabilities():
    x, options = chi2.one()
    chi2.compare("200,000 draws", counted(), chi2.chances(x, **options))


@pytest.mark.parametrize("mistake", chi2.mistakes())
def test_counts_are_not_as_probabilities_nearby(mistake):
    """Or the tests above would say nothing."""
    assert chi2.likelihood(counted(), chi2.mistakes()[mistake]) < chi2.LEAST


ROW = np.log(row(1, 2, 3, 4, 5, 6))  # 36 pairs, of which 10,000 draws have 5 or more each


def likelihood(name, keys):
    """Of the counts, or of those of pairs, of 10,000 draws."""
    tokens, p = drawn(ROW, {}, keys), chi2.chances(ROW)
    return chi2.likelihood(*(chi2.pairs(tokens, p) if name in chi2.PAIRS else (np.bincount(tokens, minlength=6), p)))


@pytest.mark.parametrize("name", chi2.PAIRS)
def test_draws_know_nothing_of_each_other(name):
    """Pairs of draws against the product of their distributions."""
    assert likelihood(name, chi2.keys(name, 10_000)) > chi2.LEAST


@pytest.mark.parametrize("fault", chi2.FAULTS)
def test_noise_keyed_wrongly_is_noticed(fault):
    change, where = chi2.FAULTS[fault]
    assert likelihood(where, change(*chi2.keys(where, 10_000))) < chi2.LEAST


NOISE = {
    "its highest bit is stuck": (lambda s, p: uniform(s, p) / 2, "positions"),
    "all but its highest 5 bits are stuck": (lambda s, p: math.floor(uniform(s, p) * 32) / 32, "positions"),
    "a Weyl sequence, too even": (lambda s, p: p * (math.sqrt(5) - 1) / 2 % 1, "a position and the next"),
}


@pytest.mark.parametrize("fault", NOISE)
def test_noise_that_is_none_is_noticed(fault, monkeypatch):
    noise, where = NOISE[fault]
    monkeypatch.setattr("quickbrown.backends.sampling.uniform", noise)
    assert likelihood(where, chi2.keys(where, 10_000)) < chi2.LEAST
