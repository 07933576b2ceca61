"""Intervals of figures: against scipy and plain loops, and whether they cover as often as they say."""

import json
import statistics

import numpy as np
import pytest
from scipy import stats

from flashjax.errors import UserError
from flashjax.evaluate import intervals, metrics


def test_bootstrap_of_a_mean_has_the_width_of_the_normal_law():
    values = np.random.default_rng(2).normal(5, 2, 400)
    found = intervals.bootstrap(values, draws=2000)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert intervals.bootstrap(values, draws=50) == intervals.bootstrap(values, draws=50)
    assert intervals.bootstrap(lambda rows: values[rows].mean(), count=400, draws=50) == intervals.bootstrap(
        values, draws=50)


@pytest.mark.parametrize("n", [5, 80])
def test_the_bootstrap_is_scipys(n):
    values = np.random.default_rng(n).gamma(1.0, size=n)
    found = intervals.bootstrap(values, draws=499, seed=3)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=499, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    np.testing.assert_allclose(found, (statistics.fmean(values), *theirs), rtol=0, atol=1e-6)


def test_the_bootstrap_covers_at_its_rate():
    """Of 100 skewed values; 0.033 is three standard errors of 400 tries."""
    rng = np.random.default_rng(0)
    found = [intervals.bootstrap(rng.gamma(2.0, size=100), draws=200, seed=i) for i in range(400)]
    assert abs(np.mean([x.low <= 2 <= x.high for x in found]) - 0.95) < 0.033


def test_bootstrap_refuses_missing_values():
    with pytest.raises(UserError, match="1 values that are not finite"):
        intervals.bootstrap([1.0, np.nan])
    with pytest.raises(UserError, match="not given"):
        intervals.bootstrap(lambda rows: 0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_gap_closed_is_the_same_for_higher_and_for_lower_is_better(sign):
    rng = np.random.default_rng(3)
    few = sign * rng.normal(0, 0.1, 300)
    many, student = few + sign, few + 0.75 * sign
    found = intervals.gap_closed(student, few, many)
    # The differences are the same for all prompts, so pairing leaves no uncertainty.
    assert [found[k] for k in ("closed", "low", "high")] == pytest.approx([0.75] * 3)
    assert found["gap"] == pytest.approx(sign)
    assert found["resolved"]


def test_the_gap_is_that_of_plain_loops():
    """Resamples of prompts, paired over the three, whose percentiles are moved onto the figure."""
    rng = np.random.default_rng(8)
    student, few, many = rng.normal(size=(3, 60)) * 0.3 + [[0.7], [0.0], [1.0]]
    found = intervals.gap_closed(student, few, many, draws=299, seed=5)
    again, closed, gaps, ahead = np.random.default_rng(5), [], [], []
    for _ in range(299):
        ours, less, more = zip(*((student[i], few[i], many[i]) for i in again.integers(0, 60, 60)), strict=True)
        gaps.append(statistics.fmean(more) - statistics.fmean(less))
        closed.append((statistics.fmean(ours) - statistics.fmean(less)) / gaps[-1])
        ahead.append(statistics.fmean(ours) - statistics.fmean(more))
    gap = many.mean() - few.mean()
    expected = [(student.mean() - few.mean()) / gap, gap, student.mean() - many.mean()]
    for draws, value in zip((closed, gaps, ahead), expected[:3], strict=True):
        expected += [value + stats.scoreatpercentile(draws, p) - statistics.median(draws) for p in (2.5, 97.5)]
    bounds = ("low", "high", "gap_low", "gap_high", "ahead_low", "ahead_high")
    told = [found[k] for k in ("closed", "gap", "ahead", *bounds)]
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)


def test_the_gap_closed_is_covered_at_its_rate():
    """Of 200 prompts whose difficulty the three share; 0.038 is three standard errors of 300 tries."""
    rng, found = np.random.default_rng(0), []
    for i in range(300):
        hard = rng.normal(0, 0.3, 200)
        sets = (hard + level + rng.normal(0, 0.3, 200) for level in (0.8, 0.0, 1.0))
        found.append(intervals.gap_closed(*sets, draws=200, seed=i))
    assert abs(np.mean([x["low"] <= 0.8 <= x["high"] for x in found]) - 0.95) < 0.038


def test_the_gap_of_distances_is_covered_at_its_rate():
    """Sets that share most of their noise, as from the same seeds. The truth is the mean of the tries, as distances
    follow the number of pictures; 0.065 is three standard errors of 100 tries at 95 %. Too wide is as wrong: resamples
    with replacement were, by half and more."""
    rng, found = np.random.default_rng(0), []
    for i in range(100):
        shared = 0.8 * rng.normal(size=(120, 6))
        reference, *sets = (
            share * shared + rng.normal(shift, (1 - (0.8 * share) ** 2) ** 0.5, (120, 6))
            for share, shift in ((0, 0.0), (1, 0.2), (1, 0.6), (1, 0.0))
        )
        parts = [lambda rows, x=x: metrics.frechet_distance(x[rows], reference[rows]) for x in sets]  # noqa: B023
        found.append(intervals.gap_of_distances(*parts, 120, splits=20, seed=i))
    bounds = {name: (f"{name}_low", f"{name}_high") for name in ("gap", "ahead")} | {"closed": ("low", "high")}
    for name, (low, high) in bounds.items():
        told = np.array([x[name] for x in found])
        covered = np.mean([x[low] <= told.mean() <= x[high] for x in found])
        width, wanted = np.mean([x[high] - x[low] for x in found]), 2 * 1.96 * told.std()
        assert covered > 0.95 - 0.065 and 0.8 < width / wanted < 1.4, (name, covered, width / wanted)


def test_gap_that_is_noise_is_not_resolved():
    rng = np.random.default_rng(4)
    student, few, many = rng.normal(size=(3, 50))
    assert not intervals.gap_closed(student, few, many)["resolved"]
    none = intervals.gap_closed(student, few, few)
    assert (none["closed"], none["low"], none["resolved"]) == (None, None, False)
    assert json.loads(json.dumps(none, allow_nan=False)) == none


def test_gap_of_distances_lies_in_its_interval():
    rng = np.random.default_rng(5)
    base = rng.normal(size=(120, 6))
    sets = [base * scale for scale in (1.1, 2.0, 1.02)]
    parts = [lambda rows, x=x: metrics.frechet_distance(x[rows], base[rows]) for x in sets]
    found = intervals.gap_of_distances(*parts, 120)
    assert found["low"] <= found["closed"] <= found["high"]
    assert found["resolved"]


def test_of_a_few_prompts_no_gap_of_distances_is_resolved():
    level = dict(student=1.0, few=2.0, many=0.5)
    found = intervals.gap_of_distances(*(lambda rows, x=x: x for x in level.values()), 7)
    assert found["closed"] == pytest.approx(2 / 3)
    assert (found["low"], found["gap_high"], found["resolved"]) == (None, None, False)
    none = intervals.gap_of_distances(*[lambda rows: 1.0] * 3, 40)
    assert (none["closed"], none["low"], none["gap"], none["resolved"]) == (None, None, 0.0, False)
