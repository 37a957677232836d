"""The native sampler against its specification, backends/sampling.py."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest

import chi2
import variants
from quickbrown import _native
from quickbrown.backends.native.compile import PackedWeights, emit
from quickbrown.backends.native.record import Recorder
from quickbrown.backends.sampling import edited, kept, logprob, sample, uniform
from quickbrown.engine.batch import Draws
from quickbrown.quant.weight import Weight
from quickbrown.types import Edit, EditKind

U = 2.0**-24
INF = math.inf


class Sampler:
    """Native draws from any logits: a plan whose result is the rows of a table of float32."""

    def __init__(self, logits, threads=2):
        logits = np.ascontiguousarray(logits, np.float32)
        count = len(logits)
        recorder = Recorder()
        result = recorder.rows(recorder.embed(Weight("f32", logits.shape, logits.view(np.uint8)), None), None)
        pool = _native.Pool(threads)
        weights = PackedWeights(recorder.verbs, pool)
        plan = _native.Plan(pool, weights.arena, _native.KvMemory("bf16", 1, [(1, 16, 16)]))
        emit(recorder.verbs, result, weights, plan)
        every, none = np.arange(count, dtype=np.int32), np.zeros(0, np.int32)
        blocks = -(-count // _native.BLOCK)
        ends, held = np.array([0, count], np.int32), np.array([0, blocks], np.int32)
        plan.run(every, every, ends, np.zeros(blocks, np.int32), held, every, none)
        assert plan.logits().tobytes() == logits.tobytes()
        self.plan, self.draws = plan, _native.Draws(plan)

    def sample(self, d):
        return arrays(
            self.draws.sample(
                d.rows, d.seeds, d.positions, d.temperatures, d.top_k, d.top_p, d.min_p, d.logprobs, d.edits
            )
        )

    def redraw(self, d, processed):
        lists = (x.tolist() for x in (d.rows, d.seeds, d.positions, d.temperatures, d.top_k, d.top_p, d.min_p))
        return arrays(self.draws.redraw(*lists, d.logprobs, processed))


def arrays(drawn):
    """Tokens, and log-probabilities."""
    tokens, logprobs = zip(*drawn, strict=True) if drawn else ((), ())
    return np.array(tokens, np.int32), np.array(logprobs, np.float32)


def draws(rows, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, positions=None, logprobs=True):
    """One draw a row given; every option one value or one a draw."""
    rows = np.asarray(rows, np.int32)
    n = len(rows)

    def filled(value, type):
        return np.ascontiguousarray(np.broadcast_to(np.asarray(value, type), n))

    return Draws(
        rows=rows,
        seeds=filled(seed, np.uint64),
        positions=filled(np.arange(n) if positions is None else positions, np.int64),
        temperatures=filled(temperature, np.float32),
        top_k=filled(top_k, np.int32),
        top_p=filled(top_p, np.float32),
        min_p=filled(min_p, np.float32),
        logprobs=logprobs,
    )


def doubt(logits, temperature):
    """How far a sum of float32 probabilities may be off: of each, the exponent (a difference, the scale's three
    roundings, a product: 5 U |z|), exp2 itself (7 U), once within a stretch and once for the stretch, whose product is
    rounded (U), and a float32 sum of 128 in a tree (7 U), weighed by the probability; twice, as the whole is summed
    too. Sums of more are in float64 on both sides."""
    z = (logits.astype(np.float64) - logits.max()) / temperature
    p = np.exp(z)
    with np.errstate(invalid="ignore"):
        return 2 * float(np.nansum(p * (5 * np.abs(z) + 22)) / p.sum()) * U


def excused(logits, token, temperature, top_k, top_p, min_p, u):
    """Whether `token` is drawn when borders move by no more than rounding can move them."""
    d = doubt(logits, temperature)
    of_min_p = (5 * abs(math.log(min_p)) + 8) * U if min_p else 0.0
    for by_p in (-d, 0, d):
        for by_min in (-of_min_p, 0, of_min_p):
            p = kept(logits, temperature, top_k, top_p + by_p if top_p < 1 else 1.0, min_p * (1 + by_min))
            if not p.any():  # min_p above 1
                continue
            reached = np.cumsum(p) / p.sum()
            before = reached[token - 1] if token else 0.0
            if p[token] > 0 and before - d <= u <= reached[token] + d:
                return True
    return False


def rows(random, vocabulary, count):
    """Flat, ordinary, peaky, tied (whole numbers), with tokens ruled out, and far from 0."""
    x = random.standard_normal((count, vocabulary)).astype(np.float32)
    kinds = [lambda r: r * 0.01, lambda r: r * 3, lambda r: r * 30, np.rint, lambda r: r, lambda r: r + 1000]
    for i in range(count):
        x[i] = kinds[i % 6](x[i])
        if i % 6 == 4:
            x[i, random.random(vocabulary) < 0.5] = -INF
            x[i, random.integers(vocabulary)] = 1
    return x


FILTERS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 1.8, "top_k": 1},
    {"top_k": 5},
    {"top_k": 40, "temperature": 0.5},
    {"top_p": 0.9},
    {"top_p": 0.05},
    {"top_p": 0.999, "temperature": 1.5},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"min_p": 1e-4, "temperature": 0.8},
    {"top_k": 50, "top_p": 0.95, "min_p": 0.05, "temperature": 0.9},
    {"top_k": 300, "top_p": 0.5, "min_p": 0.02, "temperature": 1.3},
    {"top_k": 10**9, "top_p": 0.8},
]


@pytest.mark.parametrize("vocabulary", [1, 2, 15, 16, 17, 129, 1000, 50000])
def test_draws_as_specified(vocabulary):
    """The same tokens from the same noise, of hundreds of draws under every filter and all together.

    A draw may differ only where the noise, top_p or min_p lies closer to a border than float32 can tell (`excused`),
    and that must be rare: fewer than one in a hundred. Log-probabilities: the error of log(sum) is the relative error
    of the sum, plus one rounding of the result.
    """
    random = np.random.default_rng(vocabulary)
    count, repeats = (6, 1) if vocabulary > 1000 else (12, 12)
    logits = rows(random, vocabulary, count)
    sampler = Sampler(logits)
    drawn = parted = 0
    for options in FILTERS:
        d = draws(np.tile(np.arange(count), repeats), seed=random.integers(2**63), **options)
        (got, got_log), (want, want_log) = sampler.sample(d), arrays(sample(logits, d))
        drawn += len(got)
        for i in np.flatnonzero(got != want):
            row = logits[d.rows[i]]
            parted += 1
            u = uniform(int(d.seeds[i]), int(d.positions[i]))
            borders = float(d.temperatures[i]), int(d.top_k[i]), float(d.top_p[i]), float(d.min_p[i]), u
            assert borders[0] > 0, f"greedy took {got[i]}, not {want[i]}"
            assert excused(row, got[i], *borders), f"{options}, row {d.rows[i]}: drew {got[i]}, not {want[i]}, u = {u}"
            want_log[i] = logprob(row, got[i])
        allowed = np.array([doubt(row, 1.0) for row in logits])[d.rows] + 2 * U * (1 + np.abs(want_log))
        assert (np.abs(got_log - want_log) <= allowed).all(), f"{options}: {np.abs(got_log - want_log).max():.3g}"
    assert parted < drawn / 100, f"{parted} of {drawn} draws parted, though each had an excuse"


def test_frequencies():
    """40 000 draws of one row, by chi-square: a sampler that is off by 2 % of one token of 20 % would fail.

    With 29 degrees of freedom the limit, 85, is passed by chance once in 6 million seeds, and the seed is fixed.
    """
    random = np.random.default_rng(5)
    logits = random.standard_normal((1, 50)).astype(np.float32)
    options = {"temperature": 1.5, "top_k": 30}
    n = 40_000
    tokens, _ = Sampler(logits).sample(draws(np.zeros(n), seed=11, logprobs=False, **options))
    p = kept(logits[0], **options)
    p /= p.sum()
    counts = np.bincount(tokens, minlength=50)
    assert not counts[p == 0].any()
    expected = n * p[p > 0]
    assert expected.min() > 20
    assert len(expected) == 30
    assert (((counts[p > 0] - expected) ** 2) / expected).sum() < 85


def test_a_draw_does_not_depend_on_its_company():
    """One at a time, or 64 together on one, two or three threads: the same tokens and log-probabilities to the bit."""
    logits = rows(np.random.default_rng(3), 3000, 8)
    d = draws(np.tile(np.arange(8), 8), top_p=0.9, min_p=0.01, seed=np.arange(64) % 5)
    whole = [Sampler(logits, threads).sample(d) for threads in (1, 2, 3)]
    for tokens, logprobs in whole[1:]:
        assert tokens.tobytes() == whole[0][0].tobytes()
        assert logprobs.tobytes() == whole[0][1].tobytes()
    alone = Sampler(logits)
    for i in range(64):
        token, chance = alone.sample(draws([i % 8], top_p=0.9, min_p=0.01, seed=i % 5, positions=[i]))
        assert token[0] == whole[0][0][i]
        assert chance.tobytes() == whole[0][1][i : i + 1].tobytes()


def test_noise_is_the_specification_bit_for_bit():
    for seed, position in ((0, 0), (1, 0), (2**64 - 1, 2**62), (12345, 678)):
        assert _native.uniform(seed, position) == uniform(seed, position)


def test_logprobs_only_when_wanted():
    assert np.isnan(Sampler(np.ones((1, 4))).sample(draws([0], logprobs=False))[1]).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("vocabulary", [1, 17, 1000])
@pytest.mark.parametrize("count", [1, 5])
def test_rows_that_nothing_can_be_drawn_from(temperature, vocabulary, count):
    """A nan anywhere, also behind the last whole vector and of any sign, and a row of -inf: a sentence, on the thread
    that asked; the sampler still works afterwards."""
    logits = np.zeros((count + 3, vocabulary), np.float32)
    logits[-1, vocabulary - 1], logits[-2, 0], logits[-3] = -math.nan, math.nan, -INF
    sampler = Sampler(logits)
    for bad, said in ((count + 2, "NaN"), (count + 1, "NaN"), (count, "-inf")):
        with pytest.raises(ValueError, match=said):
            sampler.sample(draws([*range(count), bad], temperature=temperature))
        with pytest.raises(ValueError, match=said):
            sampler.sample(draws([bad], temperature=temperature))
    assert (sampler.sample(draws(range(count), temperature=temperature))[0] < vocabulary).all()


def test_infinite_logits_have_logprobs():
    """They share the whole probability."""
    logits = np.zeros((2, 40), np.float32)
    logits[0, 21] = logits[1, 7] = logits[1, 30] = INF
    d = draws([0, 1, 0, 1], temperature=[1, 1, 0, 0])
    np.testing.assert_allclose(Sampler(logits).sample(d)[1], arrays(sample(logits, d))[1], atol=U)


def test_infinite_logits_win():
    """+inf wins like at temperature 0, the lowest id of several."""
    logits = np.zeros((2, 40), np.float32)
    logits[0, 21] = logits[1, 7] = logits[1, 30] = INF
    d = draws([0, 1, 0, 1], temperature=[1, 1, 0, 0])
    assert Sampler(logits).sample(d)[0].tolist() == [token for token, _ in sample(logits, d)] == [21, 7, 21, 7]


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-38, 3e-39, 1e-40, 1e-45])
def test_temperatures_near_zero(temperature):
    """Down to float32's smallest number, whose reciprocal overflows: everything but the likeliest token vanishes."""
    logits = np.random.default_rng(1).standard_normal((3, 100)).astype(np.float32)
    d = draws([0, 1, 2], temperature=temperature, top_p=[1, 0.9, 1], min_p=[0, 0, 0.1])
    assert d.temperatures[0] > 0
    assert Sampler(logits).sample(d)[0].tolist() == logits.argmax(-1).tolist()


def test_rows_and_arrays_are_checked():
    sampler = Sampler(np.zeros((2, 8)))
    for bad in ([2], [-1], [0, 2]):
        with pytest.raises(IndexError, match="no row of that number"):
            sampler.sample(draws(bad))
    d = draws([0, 1])
    with pytest.raises(ValueError, match="different lengths"):
        sampler.sample(replace(d, top_k=d.top_k[:1].copy()))
    assert sampler.sample(draws([]))[0].size == 0
    assert sampler.sample(d)[0].size == 2


def clear(logits, options):
    """Whether no token lies so near a border of top_p or min_p that float32 could put it on the other side: the least
    that rounding can leave is the most."""
    top_p, min_p = options.get("top_p", 1.0), options.get("min_p", 0.0)
    if top_p == 1 and min_p == 0:
        return True
    d = doubt(logits, options.get("temperature", 1.0)) if top_p < 1 else 0.0
    of_min_p = (5 * abs(math.log(min_p)) + 8) * U if min_p else 0.0
    least, most = (
        chi2.chances(logits, **options | {"top_p": top_p + by * d, "min_p": min_p * (1 - by * of_min_p)})
        for by in (-1, 1)
    )
    return ((least > 0) == (most > 0)).all()


LARGE = [{"temperature": 0.5}, {"top_p": 0.125}, {"temperature": 2.0, "top_k": 50, "min_p": 0.125}]


@pytest.mark.parametrize("along", chi2.ALONG)
@pytest.mark.parametrize(
    ("vocabulary", "n", "some"),
    [(7, 25_000, chi2.OPTIONS), (129, 4000, chi2.OPTIONS), (1000, 500, chi2.OPTIONS), (49152, 60, LARGE)],
)
def test_counts_are_as_the_probabilities(vocabulary, n, some, along):
    """Four kinds of rows, drawn from in turn in one call, n times each with the same keys, under every filter.

    By χ², and nothing is drawn that a filter drops: not even where rounding might, as no border lies that near.
    """
    table = chi2.table(vocabulary)
    sampler = Sampler(table)
    seeds, positions = (np.repeat(key, 4) for key in chi2.keys(along, n))
    for options in some:
        turns = np.tile(np.arange(4), n)
        tokens, _ = sampler.sample(draws(turns, seed=seeds, positions=positions, logprobs=False, **options))
        for kind, x, its_tokens in zip(chi2.KINDS, table, tokens.reshape(n, 4).T, strict=True):
            what = f"{kind}, {options}"
            assert clear(x, options), what
            chi2.compare(what, np.bincount(its_tokens, minlength=vocabulary), chi2.chances(x, **options))


@functools.cache
def counted(along):
    x, options = chi2.one()
    seeds, positions = chi2.keys(along, 200_000)
    zeros = np.zeros(200_000)
    tokens, _ = Sampler(x[None]).sample(draws(zeros, seed=seeds, positions=positions, logprobs=False, **options))
    return np.bincount(tokens, minlength=len(x))


@pytest.mark.parametrize("along", chi2.ALONG)
def test_many_draws_are_as_the_probabilities(along):
    x, options = chi2.one()
    chi2.compare("200,000 draws", counted(along), chi2.chances(x, **options))


@pytest.mark.parametrize("mistake", chi2.mistakes())
def test_counts_are_not_as_probabilities_nearby(mistake):
    """Or the tests above would say nothing."""
    for along in chi2.ALONG:
        assert chi2.likelihood(counted(along), chi2.mistakes()[mistake]) < chi2.LEAST


def likelihood(name, keys):
    """Of the counts, or of those of pairs, of draws of 12 tokens with the keys."""
    x = np.log(np.arange(1, 13, dtype=np.float32))
    seeds, positions = keys
    tokens, _ = Sampler(x[None]).sample(draws(np.zeros(len(seeds)), seed=seeds, positions=positions, logprobs=False))
    p = chi2.chances(x)
    return chi2.likelihood(*(chi2.pairs(tokens, p) if name in chi2.PAIRS else (np.bincount(tokens, minlength=12), p)))


@pytest.mark.parametrize("name", chi2.PAIRS)
def test_draws_know_nothing_of_each_other(name):
    """Pairs of draws, all in one call, against the product of their distributions."""
    assert likelihood(name, chi2.keys(name, 30_000)) > chi2.LEAST


@pytest.mark.parametrize("fault", chi2.FAULTS)
def test_noise_keyed_wrongly_is_noticed(fault):
    """The sampler is given what it would use itself if it had the fault."""
    change, where = chi2.FAULTS[fault]
    assert likelihood(where, change(*chi2.keys(where, 30_000))) < chi2.LEAST


# -- rows that were changed before the draw ----------------------------------------------------------------------------


def test_redraws_are_as_specified():
    """Tokens as drawn from the changed rows, log-probabilities as in the rows as they were; some draws share a row."""
    random = np.random.default_rng(5)
    x = rows(random, 1000, 24)
    sampler, chosen = Sampler(x), random.integers(0, 24, 60)
    processed = (np.maximum(x[chosen], -1) + 2 * random.standard_normal((60, 1000))).astype(np.float32)
    processed[::3, random.permutation(1000)[:900]] = -INF
    d = draws(chosen, temperature=np.tile([0.0, 0.7, 1.3], 20), top_k=np.tile([0, 50], 30), seed=3)
    tokens, logprobs = sampler.redraw(d, processed)
    changed, _ = Sampler(processed).sample(replace(d, rows=np.arange(60, dtype=np.int32)))
    assert tokens.tobytes() == changed.tobytes()
    plain, _ = sampler.sample(d)
    assert (tokens != plain).sum() > 10, "the changes change nothing"
    for row, token, got in zip(chosen, tokens, logprobs, strict=True):
        want = logprob(x[row], token)
        assert got == want == -INF or abs(got - want) <= 1e-5 * max(1, abs(want))
    assert np.isinf(logprobs).any(), "no token that only the changed row allows"
    _, none = sampler.redraw(replace(d, logprobs=False), processed)
    assert np.isnan(none).all()


def test_redraws_of_rows_as_they_are():
    """The same bytes as a draw."""
    x = rows(np.random.default_rng(6), 500, 12)
    sampler, d = Sampler(x), draws(range(12), temperature=0.8, top_p=0.9, seed=1)
    for got, want in zip(sampler.redraw(d, x), sampler.sample(d), strict=True):
        assert got.tobytes() == want.tobytes()


def test_redraws_that_make_no_sense_are_refused():
    x = rows(np.random.default_rng(7), 50, 3)
    sampler, d = Sampler(x), draws(range(3))
    for wrong in (x[:2], x[:, :49], np.concatenate([x, x])):
        with pytest.raises(ValueError, match="one processed row a draw, as wide as the logits"):
            sampler.redraw(d, np.ascontiguousarray(wrong))
    for wrong in (x.astype(np.float64), x[:, ::-1], x[0]):
        with pytest.raises(TypeError):
            sampler.redraw(d, wrong)
    with pytest.raises(IndexError, match="no row of that number"):
        sampler.redraw(draws([0, 1, 3]), x)
    nothing, broken = np.full_like(x, -INF), np.where(np.arange(50) == 7, np.nan, x).astype(np.float32)
    with pytest.raises(ValueError, match=r"no token can be drawn: every logit is -inf"):
        sampler.redraw(d, nothing)
    with pytest.raises(ValueError, match="the logits hold a NaN"):
        sampler.redraw(d, broken)
    assert sampler.redraw(d, x)[0].tobytes() == sampler.sample(d)[0].tobytes()


# -- edits -------------------------------------------------------------------------------------------------------------


def edit(kind, ids, values):
    return Edit(kind, np.array(ids, np.int32), np.array(values, np.float32))


def only(allowed):
    """Of a mask, (V,) bool."""
    bits = np.concatenate([allowed, np.zeros(-len(allowed) % 32, bool)])
    return edit(EditKind.ONLY, np.packbits(bits, bitorder="little").view(np.int32), [])


def some_edits(random, vocabulary):
    """Up to five, of any kind and in any order; ids come twice, and values are of any size."""
    made = []
    for kind in random.integers(0, 4, random.integers(0, 6)):
        if kind == EditKind.ONLY:
            made.append(only(random.random(vocabulary) < 0.8))
            continue
        ids = random.integers(0, vocabulary, random.integers(1, 40))
        values = random.choice(np.float32([1.3, 0.7, -2.5, 1e-40, 3e38, 0.0]), len(ids) if random.random() < 0.5 else 1)
        made.append(edit(EditKind(kind), ids, values if kind != EditKind.SCALE else np.abs(values) + np.float32(1e-3)))
    return made


@pytest.mark.parametrize("vocabulary", [1, 2, 31, 32, 33, 100, 1000])
def test_edits_are_the_specification_bit_for_bit(vocabulary):
    """Of rows with zeros of both signs, infinities, nan and the smallest numbers there are."""
    random = np.random.default_rng(vocabulary)
    odd = np.float32([0.0, -0.0, INF, -INF, math.nan, 1e-45, -1e-45, 3.4e38, -3.4e38])
    for _ in range(60):
        row = random.standard_normal(vocabulary).astype(np.float32)
        row[random.random(vocabulary) < 0.3] = random.choice(odd)
        edits = some_edits(random, vocabulary)
        want = edited(row, edits)
        np.testing.assert_array_equal(np.float32(_native.edited(row, edits)), want)  # nan equals nan
        real = ~np.isnan(want)
        assert np.float32(_native.edited(row, edits))[real].tobytes() == want[real].tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_draws_from_edited_rows(threads):
    """As from rows that were edited before, log-probabilities as in the rows as they were, which they are again: also
    where several draws of a row, edited and not, are in one call."""
    random = np.random.default_rng(8)
    x = rows(random, 5000, 12)
    chosen = np.sort(random.integers(0, 12, 60))
    d = draws(chosen, temperature=np.tile([0.0, 0.7, 1.3], 20), top_k=np.tile([0, 50], 30), top_p=0.9, seed=3)
    plain, _ = Sampler(x).sample(d)
    processed = x[chosen]
    for i in range(0, 60, 2):
        loud = edit(EditKind.ADD, random.integers(0, 5000, 300), [2.0])
        edits = [
            edit(EditKind.SCALE, plain, [1.5]),
            loud,
            only(random.random(5000) < 0.5),
            edit(EditKind.PUT, [4], [3]),
        ]
        for one in edits[: 1 + i % 4]:
            d.edits.append((i, one))
        processed[i] = edited(x[chosen[i]], edits[: 1 + i % 4])
    sampler = Sampler(x, threads)
    tokens, logprobs = sampler.sample(d)
    assert sampler.plan.logits().tobytes() == x.tobytes()
    want, _ = Sampler(processed).sample(replace(d, rows=np.arange(60, dtype=np.int32), edits=[]))
    assert tokens.tobytes() == want.tobytes()
    assert (tokens != plain).sum() > 10, "the edits change nothing"
    for row, token, got in zip(chosen, tokens, logprobs, strict=True):
        expected = logprob(x[row], token)
        assert got == expected == -INF or abs(got - expected) <= 1e-5 * max(1, abs(expected))


def test_edits_that_make_no_sense_are_refused():
    x = rows(np.random.default_rng(9), 50, 2)
    sampler, d = Sampler(x), draws(range(2))
    for wrong, said in (
        (edit(EditKind.PUT, [50], [0]), "outside the vocabulary"),
        (edit(EditKind.ADD, [3, -1], [0]), "outside the vocabulary"),
        (edit(EditKind.ADD, [3, 4, 5], [0, 1]), "one value for all ids, or one for each"),
        (edit(EditKind.ADD, [3], []), "one value for all ids, or one for each"),
        (edit(EditKind.ONLY, [-1], []), "one bit for each logit"),
        (edit(EditKind.ONLY, [-1, -1], [0]), "one bit for each logit"),
        (edit(4, [1], [0]), "no such kind"),
    ):
        with pytest.raises(ValueError, match=said):
            sampler.sample(replace(d, edits=[(0, wrong)]))
    fine = edit(EditKind.PUT, [1], [9])
    with pytest.raises(ValueError, match="no draw of that number"):
        sampler.sample(replace(d, edits=[(2, fine)]))
    with pytest.raises(ValueError, match="rows of the draws must ascend"):
        sampler.sample(replace(draws([1, 0]), edits=[(0, fine)]))
    for wrong in ("no edit", (1, fine.ids), (1, fine.ids[None], fine.values)):
        with pytest.raises(TypeError):
            sampler.sample(replace(d, edits=[(0, wrong)]))
    with pytest.raises(ValueError, match="the processors leave no token: every logit is -inf; allow at least one"):
        sampler.sample(replace(d, edits=[(1, only(np.zeros(50, bool)))]))
    with pytest.raises(ValueError, match="a processor made a logit nan"):
        sampler.sample(replace(d, edits=[(1, edit(EditKind.PUT, [49], [math.nan]))]))
    assert sampler.plan.logits().tobytes() == x.tobytes()


# -- rows that lie in wait ---------------------------------------------------------------------------------------------


def waiting(kind, n, random):
    """A row of n logits that a shortcut of the sampler could trip over."""
    x = np.zeros(n, np.float32)
    if kind == "one finite":
        x[:] = -INF
        x[n // 2] = -3e38
    elif kind == "denormal":
        x[:] = random.integers(-3, 4, n) * np.float32(1e-45)
    elif kind == "huge":
        x[:] = random.choice(np.float32([3.4e38, -3.4e38, 0, -INF, 1e-45, 3.3e38]), n)
    elif kind == "ascending":
        x[:] = np.arange(n) * (8 / n)
    elif kind == "two values":
        x[:] = random.random(n) < 0.3
    elif kind == "steps":  # ties that straddle stretches of every length
        x[:] = np.arange(n) // 100 % 7
    elif kind == "zeros of both signs":
        x[random.random(n) < 0.5] = -0.0
    elif kind == "needles":  # what a sample of the row does not see
        x[random.integers(0, n, 30)] = np.log(n) + np.arange(30) / 30
    elif kind == "period":  # what a sample with a fixed stride sees only
        x[:: max(1, n // 1024)] = 2.0
    elif kind == "far":
        x[:] = 1e6 + random.integers(0, 5, n)
    return x


KINDS = [
    "equal",
    "one finite",
    "denormal",
    "huge",
    "ascending",
    "two values",
    "steps",
    "zeros of both signs",
    "needles",
]


@pytest.mark.parametrize("n", [1, 100, 128, 129, 4095, 4097, 20011])
@pytest.mark.parametrize("kind", [*KINDS, "period", "far"])
def test_rows_that_shortcuts_could_trip_over(kind, n):
    """As specified, or excused by rounding."""
    random = np.random.default_rng(n)
    row = waiting(kind, n, random)
    sampler = Sampler(row[None])
    for options in (*FILTERS, {"top_k": n // 2}, {"top_k": 2000, "top_p": 0.7}, {"top_p": 0.95, "min_p": 0.3}):
        d = draws(np.zeros(20), seed=random.integers(2**63), **options)
        tokens, logprobs = sampler.sample(d)
        want = [token for token, _ in sample(row[None], d)]
        for i in np.flatnonzero(tokens != want):
            u = uniform(int(d.seeds[i]), int(d.positions[i]))
            borders = float(d.temperatures[i]), int(d.top_k[i]), float(d.top_p[i]), float(d.min_p[i]), u
            assert borders[0] > 0, f"greedy took {tokens[i]}, not {want[i]}"
            assert excused(row, tokens[i], *borders), f"{options}: drew {tokens[i]}, not {want[i]}, u = {u}"
        expected = np.array([logprob(row, token) for token in tokens])
        np.testing.assert_allclose(logprobs, expected, rtol=4 * U, atol=doubt(row, 1.0) + 4 * U)


class TestOthers:
    pytestmark = variants.outer_only

    def test_under(self, name):
        """All of the above under each other instruction set of this machine."""
        variants.again(__file__, name)
