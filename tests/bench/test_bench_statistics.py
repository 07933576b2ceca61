"""Every statistic against an independent implementation, and intervals against the truth."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn.metrics import cohen_kappa_score

from flashjax.bench import statistics
from flashjax.errors import UserError
from flashjax.evaluate import intervals


def bca_by_hand(groups, resamples, seed):
    """Efron and Tibshirani (1993), equations 14.9 to 14.15, in plain loops; of several samples, whose influences are
    their own (DiCiccio and Efron, 1996), here for the mean of their means."""
    rng, theta = np.random.default_rng(seed), np.mean([x.mean() for x in groups])
    drawn = [[x[row].mean() for row in rng.integers(0, len(x), (resamples, len(x)))] for x in groups]
    draws = np.mean(drawn, 0)
    z0 = special.ndtri((np.sum(draws < theta) + np.sum(draws <= theta)) / (2 * resamples))
    cubes = squares = 0.0
    for x in groups:
        left_out = [(np.delete(x, i).mean() - x.mean()) / len(groups) for i in range(len(x))]
        u = -(len(x) - 1) * np.array(left_out)
        cubes, squares = cubes + (u**3).sum() / len(x) ** 3, squares + (u**2).sum() / len(x) ** 2
    a = cubes / (6 * squares**1.5)
    ends = [special.ndtr(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in special.ndtri([0.025, 0.975])]
    return np.percentile(draws, 100 * np.array(ends))


@pytest.mark.parametrize("sizes", [(5,), (40,), (301,), (30, 12, 7)], ids=str)
def test_the_interval_is_bca(sizes):
    groups = [np.random.default_rng(n).gamma(1.0, size=n) for n in sizes]
    found = statistics.mean_interval(*groups, resamples=499, seed=3)
    np.testing.assert_allclose([found.low, found.high], bca_by_hand(groups, 499, 3), rtol=0, atol=1e-6)
    assert found.value == pytest.approx(np.mean([x.mean() for x in groups]), abs=1e-12)


def test_categories_weigh_the_same_and_are_resampled_apart():
    """Against numpy: a large and a small group whose means lie far apart, so that mixing them would widen all."""
    rng = np.random.default_rng(4)
    groups = rng.normal(2, 0.5, 60), rng.normal(4, 0.2, 15)
    found = statistics.mean_interval(*groups)
    assert found.value == pytest.approx((groups[0].mean() + groups[1].mean()) / 2)
    error = math.sqrt(sum(g.var() / len(g) for g in groups)) / 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert math.isnan(statistics.mean_interval([1.0, 2.0], [3.0]).low)


def differences(rng, n):
    """Scores of two systems that share the prompt's difficulty, rounded as judges round, one skewed by failures."""
    hard = rng.normal(3.5, 0.7, n)
    ours = np.clip(np.round(hard + rng.normal(0, 0.5, n), 1), 1, 5)
    theirs = np.clip(np.round(hard - 0.2 + rng.normal(0, 0.5, n) - 1.5 * (rng.random(n) < 0.1), 1), 1, 5)
    return ours - theirs


def rates(*shares):
    """Losses, ties and flips, wins."""
    return lambda rng, n: rng.choice([0, 0.5, 1], n, p=shares)


def covering(world, n, interval, tries):
    """The share of tries in which the interval of n values of a world holds its mean."""
    rng = np.random.default_rng(0)
    truth = world(rng, 1_000_000).mean()
    found = [interval(world(rng, n), int(rng.integers(1 << 30))) for _ in range(tries)]
    return np.mean([x.low <= truth <= x.high for x in found])


@pytest.mark.parametrize(("n", "coverage", "tries"), [(80, 0.95, 600), (20, 0.92, 600), (5, 0.84, 200)])
def test_intervals_cover_at_the_rate_that_is_told(n, coverage, tries):
    """What the docstring and the note say, to three standard errors: 0.027 of 600 at 95 %, 0.078 of 200 at 84 %."""
    found = covering(differences, n, lambda x, seed: statistics.mean_interval(x, resamples=599, seed=seed), tries)
    assert abs(found - coverage) < 3 * math.sqrt(coverage * (1 - coverage) / tries)


@pytest.mark.parametrize("n", [10, 20, 40, 80])
@pytest.mark.parametrize(
    "shares", [(0.3, 0.3, 0.4), (0.05, 0.15, 0.8), (0.02, 0.06, 0.92), (0.08, 0, 0.92), (0.05, 0.85, 0.1)], ids=str
)
def test_win_rates_cover_even_where_nearly_all_is_won(shares, n):
    """0.013 is three standard errors of 4,000 tries; the third row is where the bootstrap covers in 77 %."""
    assert covering(rates(*shares), n, lambda x, _: intervals.rate_interval(x), 4000) > 0.92 - 0.013


@pytest.mark.parametrize(("wins", "n"), [(0, 20), (1, 2), (13, 20), (20, 20), (460, 500)])
def test_a_win_rate_without_ties_has_wilsons_interval(wins, n):
    found = intervals.rate_interval([1.0] * wins + [0.0] * (n - wins))
    theirs = stats.binomtest(wins, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(found, (wins / n, *theirs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [3, 20, 150])
def test_a_win_rate_with_ties_has_the_ends_that_solve_wilsons_equation(n):
    """Where |p - rate| is 1.96 standard errors of a coin of p, of as many prompts as ties make of n."""
    x = np.random.default_rng(n).choice([0, 0.5, 1], n, p=(0.2, 0.5, 0.3))
    rate = x.mean()
    spread = (sum((value - rate) ** 2 for value in x) + rate * (1 - rate)) / (n + 1)
    prompts, z = n * rate * (1 - rate) / spread, stats.norm.ppf(0.975)

    def beyond(p):
        return (p - rate) ** 2 - z**2 * p * (1 - p) / prompts

    ends = optimize.brentq(beyond, 0, rate, xtol=1e-12), optimize.brentq(beyond, rate, 1, xtol=1e-12)
    np.testing.assert_allclose(intervals.rate_interval(x), (rate, *ends), rtol=0, atol=1e-6)


def test_ties_make_a_win_rate_surer():
    """Never certain, though: a coin more is always among the prompts."""
    few, tied = (intervals.rate_interval(x) for x in ([1.0] * 10 + [0.0] * 10, [0.5] * 20))
    assert 0.05 < tied.high - tied.low < 0.3 * (few.high - few.low)
    assert math.isnan(intervals.rate_interval([1.0]).low)
    for wrong in ([], [1.5], [math.nan], [[1.0]]):
        with pytest.raises(UserError, match="scores from 0 to 1"):
            intervals.rate_interval(wrong)


@pytest.mark.parametrize("n", [3, 20])
def test_whether_a_judge_moves_is_students_test(n):
    """Which is wrong in one try of twenty; the bootstrap of three answers would be in every fourth."""
    tries = np.random.default_rng(n).normal(0.4, 1, (400, n))
    np.testing.assert_array_equal([statistics.moved(x) for x in tries], stats.ttest_1samp(tries, 0, 1).pvalue < 0.05)
    assert statistics.moved([0.5] * n)
    assert not statistics.moved([0.0] * n)


@pytest.mark.parametrize("n", range(2, 12))
@pytest.mark.parametrize("share", [0.1, 0.52, 0.6])
def test_a_judge_in_halves_that_does_not_move(n, share):
    """Every possible outcome of n changes of which so many are half a point, up or down: how often chance is a move."""
    level = 0.0
    for up, down in itertools.product(range(n + 1), repeat=2):
        if up + down <= n and statistics.moved([0.5] * up + [-0.5] * down + [0.0] * (n - up - down)):
            level += stats.multinomial.pmf([up, down, n - up - down], n, [share / 2, share / 2, 1 - share])
    assert level < 0.07
    assert not statistics.moved([0.5, 0.5])


def test_what_is_too_little_is_told():
    assert "so few the interval may be too narrow" in statistics.power_note([0.1, 0.2] * 30)
    assert "too narrow" not in statistics.power_note([0.1, 0.2] * 40)


def test_intervals_of_little():
    assert statistics.mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    rounded = [3.6 - 3.5, 0.1, 0.1, 0.1]  # equal but for the last bits
    assert statistics.mean_interval(rounded) == pytest.approx((0.1, 0.1, 0.1))
    assert math.isnan(statistics.mean_interval([2.0]).low)
    for wrong in ([], [1.0, math.nan], [[1.0]]):
        with pytest.raises(UserError, match="An interval needs finite values"):
            statistics.mean_interval(wrong)


SCORES = st.lists(st.tuples(st.integers(2, 10), st.integers(2, 10)), min_size=2, max_size=40)


@settings(max_examples=40)
@given(SCORES)
def test_kappa_is_scikit_learns(pairs):
    a, b = np.array(pairs).T / 2
    ours = statistics.weighted_kappa(a, b)
    if ours is None:
        assert len(set(a) | set(b)) == 1
    else:
        theirs = cohen_kappa_score((a * 2).astype(int), (b * 2).astype(int), labels=range(2, 11), weights="quadratic")
        assert ours == pytest.approx(theirs, abs=1e-9)


@given(SCORES)
def test_spearman_is_the_correlation_of_mean_ranks(pairs):
    a, b = np.array(pairs).T / 2
    ours = statistics.spearman(a, b)
    ranks = [[np.mean([sorted(x).index(v) + i for i in range(list(x).count(v))]) for v in x] for x in (a, b)]
    if ours is None:
        assert len(set(a)) == 1 or len(set(b)) == 1
    else:
        assert ours == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)


def test_a_milder_judge_correlates_and_does_not_agree():
    a = np.array([1.0, 2.0, 3.0, 1.5])
    assert statistics.spearman(a, a + 1.5) == pytest.approx(1.0)
    assert statistics.weighted_kappa(a, a) == 1
    assert statistics.weighted_kappa(a, a + 1.5) < 0.5


def test_all_verdicts_of_two_orders():
    """The system is A in the first order and B in the second, so that it wins with ("A", "B")."""
    meaning = {("A", "B"): 1.0, ("B", "A"): 0.0, ("tie", "tie"): 0.5}
    pairs = [*itertools.product(["A", "B", "tie"], repeat=2), (None, "A"), ("B", None)]
    found = statistics.verdicts(pairs)
    assert found[:5] == (1, 1, 1, 6, 2)
    assert found.flip_rate == 6 / 9
    assert list(found.scores) == [meaning.get(p, 0.5) for p in pairs if None not in p]
    assert statistics.verdicts([(None, None)]).flip_rate is None


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_strengths_are_those_of_logistic_regression(seed, count):
    """Of all games together, each against the reference, whose strength is 0."""
    rng = np.random.default_rng(seed)
    won, lost = (rng.integers(1, 30, count) + 0.5 * rng.integers(0, 2, count) for _ in range(2))

    def loss(strengths):
        return -(won * special.log_expit(strengths) + lost * special.log_expit(-strengths)).sum()

    theirs = optimize.minimize(loss, np.zeros(count), method="BFGS", options={"gtol": 1e-7}).x
    ours = [statistics.strength(rate) for rate in won / (won + lost)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_the_log_odds():
    assert statistics.strength(0.75) == pytest.approx(math.log(3), abs=1e-9)
    assert statistics.strength(0.5) == 0
    assert [statistics.strength(rate) for rate in (0.0, 1.0, None)] == [None] * 3
    for n in range(2, 500):  # the end of Wilson's interval is 1 up to rounding
        assert statistics.strength(intervals.rate_interval([1.0] * n).high) is None


def test_the_power_note():
    differences = np.tile([1.0, -1.0], 300)
    assert statistics.power_note(differences) == (
        "At n = 600, differences under 0.08 are noise; one of 0.11 is found in 80 % of tries."
    )
    assert "no difference can be told" in statistics.power_note([1.0])
    # Found: by Student's test in four of five tries; 0.027 is three standard errors of 2,000.
    tries = np.random.default_rng(0).normal(0.28, 1, (2000, 100))
    assert "one of 0.28 is" in statistics.power_note(stats.zscore(tries[0], ddof=1))
    assert abs(np.mean([statistics.moved(x) for x in tries]) - 0.8) < 0.027
    assert "With 1 prompts of a category no difference" in statistics.power_note(differences, [1.0])
    large, small = differences, np.tile([2.0, -2.0], 50)  # as mean_interval takes groups, whose means weigh the same
    found = statistics.mean_interval(large, small)
    assert f"differences under {(found.high - found.low) / 2:.2f} are noise" in statistics.power_note(large, small)
