"""The metrics against closed forms and independent implementations (scipy, the standard library, plain loops), and
intervals against the truth."""

import colorsys
import itertools
import json
import math
import statistics

import numpy as np
import pytest
import scipy.linalg
from scipy import ndimage, stats
from scipy.spatial import distance

from flashjax.errors import UserError
from flashjax.evaluate import metrics


def _correlated(rng, n, d, shift=0.0):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / math.sqrt(d) + shift


def test_frechet_distance_is_that_of_diagonal_gaussians():
    mean_a, mean_b = np.array([0.0, 1.0]), np.array([3.0, 1.0])
    std_a, std_b = np.array([1.0, 2.0]), np.array([4.0, 0.5])
    found = metrics.frechet_from_moments(mean_a, np.diag(std_a**2), mean_b, np.diag(std_b**2))
    assert found == pytest.approx(9 + np.square(std_a - std_b).sum(), rel=1e-12)


def test_frechet_distance_agrees_with_the_matrix_square_root():
    rng = np.random.default_rng(0)
    a, b = _correlated(rng, 200, 12), _correlated(rng, 300, 12, 0.5)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    wanted = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(wanted, rel=1e-9)


def test_frechet_distance_holds_for_singular_covariances():
    rng = np.random.default_rng(1)
    few = rng.normal(size=(5, 40)).astype(np.float32)
    assert metrics.frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(few, few + 1) == pytest.approx(40, rel=1e-6)


def test_frechet_distance_refuses_what_is_no_feature():
    good = np.ones((4, 3))
    with pytest.raises(UserError, match="not finite"):
        metrics.frechet_distance(good, np.full((4, 3), np.nan))
    with pytest.raises(UserError, match="3 and 2 dimensions"):
        metrics.frechet_distance(good, np.ones((4, 2)))
    with pytest.raises(UserError, match="at least 2"):
        metrics.frechet_distance(good[:1], good)


def test_sharpness_of_a_checkerboard_and_of_a_plain_picture():
    board = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)
    images = np.stack([np.repeat(board[..., None], 3, -1), np.full((8, 8, 3), 77, np.uint8)])
    np.testing.assert_allclose(metrics.sharpness(images), [4.0, 0.0], atol=1e-12)


def test_saturation_and_its_drift():
    red, pink = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 127, np.uint8)
    red[..., 0], pink[..., 0] = 255, 255
    assert metrics.saturation(red)[0] == 1.0
    assert metrics.saturation(pink)[0] == pytest.approx(128 / 255)
    assert metrics.saturation_drift(red, pink) == pytest.approx(255 / 128 - 1)
    with pytest.raises(UserError, match="gray"):
        metrics.saturation_drift(red, np.zeros_like(red))
    with pytest.raises(UserError, match="uint8"):
        metrics.saturation(red.astype(np.float32))


def test_contrast_and_its_drift():
    board = np.repeat((np.indices((8, 8)).sum(0) % 2)[None, ..., None], 3, -1)
    strong, weak = (255 * board).astype(np.uint8), (100 + 51 * board).astype(np.uint8)
    assert metrics.contrast(strong)[0] == pytest.approx(0.5)
    assert metrics.contrast(weak)[0] == pytest.approx(0.1)  # a shift of brightness is no contrast
    assert metrics.contrast_drift(weak, strong) == pytest.approx(-0.8)
    with pytest.raises(UserError, match="of one brightness, so there is no contrast"):
        metrics.contrast_drift(weak, np.full_like(weak, 9))


def test_light_and_colour_are_those_of_other_libraries():
    """Pixel by pixel, of pictures that are not square."""
    images = np.random.default_rng(6).integers(0, 256, (2, 9, 14, 3), np.uint8)
    for i, image in enumerate(images / 255):
        luma = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
        edges = ndimage.convolve(luma, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]))[1:-1, 1:-1]
        chroma = [s * v for _, s, v in (colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3))]
        assert metrics.sharpness(images)[i] == pytest.approx(np.abs(edges).mean(), abs=1e-6)
        assert metrics.saturation(images)[i] == pytest.approx(statistics.fmean(chroma), abs=1e-6)
        assert metrics.contrast(images)[i] == pytest.approx(statistics.pstdev(luma.ravel().tolist()), abs=1e-6)


def test_diversity_is_scipys_distances():
    features = np.random.default_rng(7).normal(size=(4, 5, 3))
    expected = [distance.pdist(x).mean() for x in features]
    np.testing.assert_allclose(metrics.diversity(features), expected, rtol=0, atol=1e-6)


def test_diversity_is_the_mean_distance_of_pairs():
    triangle = np.array([[[0.0, 0], [3, 4], [0, 0]], [[1, 1], [1, 1], [1, 1]]])
    np.testing.assert_allclose(metrics.diversity(triangle), [10 / 3, 0])
    assert metrics.diversity_ratio(triangle / 2, triangle) == pytest.approx(0.5)
    with pytest.raises(UserError, match="two seeds"):
        metrics.diversity(triangle[:, :1])


def test_adherence_counts_named_attributes_only():
    named = [{"sky": "blue", "orb": "none"}, {"word": "GO", "ink": "red"}, {"word": "GO"}]
    seen = [{"sky": "blue", "orb": "left", "land": "x"}, {"word": "NO", "ink": "red"}, {"word": "GO"}]
    np.testing.assert_allclose(metrics.adherence_scores(seen, named), [0.5, 1.0, np.nan])
    told = metrics.adherence(seen, named, ["landscape", "text", "text"])
    assert told == {"mean": 0.75, "prompts": 2, "per_category": {"landscape": 0.5, "text": 1.0}}
    with pytest.raises(UserError, match="no prediction of sky"):
        metrics.adherence_scores([{}], named[:1])


def test_bootstrap_of_a_mean_has_the_width_of_the_normal_law():
    values = np.random.default_rng(2).normal(5, 2, 400)
    found = metrics.bootstrap(values, draws=2000)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert metrics.bootstrap(values, draws=50) == metrics.bootstrap(values, draws=50)
    assert metrics.bootstrap(lambda rows: values[rows].mean(), count=400, draws=50) == metrics.bootstrap(
        values, draws=50)


@pytest.mark.parametrize("n", [5, 80])
def test_the_bootstrap_is_scipys(n):
    values = np.random.default_rng(n).gamma(1.0, size=n)
    found = metrics.bootstrap(values, draws=499, seed=3)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=499, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    np.testing.assert_allclose(found, (statistics.fmean(values), *theirs), rtol=0, atol=1e-6)


def test_the_bootstrap_covers_at_its_rate():
    """Of 100 skewed values; 0.033 is three standard errors of 400 tries."""
    rng = np.random.default_rng(0)
    found = [metrics.bootstrap(rng.gamma(2.0, size=100), draws=200, seed=i) for i in range(400)]
    assert abs(np.mean([x.low <= 2 <= x.high for x in found]) - 0.95) < 0.033


def test_bootstrap_refuses_missing_values():
    with pytest.raises(UserError, match="1 values that are not finite"):
        metrics.bootstrap([1.0, np.nan])
    with pytest.raises(UserError, match="not given"):
        metrics.bootstrap(lambda rows: 0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_gap_closed_is_the_same_for_higher_and_for_lower_is_better(sign):
    rng = np.random.default_rng(3)
    few = sign * rng.normal(0, 0.1, 300)
    many, student = few + sign, few + 0.75 * sign
    found = metrics.gap_closed(student, few, many)
    # The differences are the same for all prompts, so pairing leaves no uncertainty.
    assert [found[k] for k in ("closed", "low", "high")] == pytest.approx([0.75] * 3)
    assert found["gap"] == pytest.approx(sign)
    assert found["resolved"]


def test_the_gap_is_that_of_plain_loops():
    """Resamples of prompts, paired over the three, whose percentiles are moved onto the figure."""
    rng = np.random.default_rng(8)
    student, few, many = rng.normal(size=(3, 60)) * 0.3 + [[0.7], [0.0], [1.0]]
    found = metrics.gap_closed(student, few, many, draws=299, seed=5)
    again, closed, gaps = np.random.default_rng(5), [], []
    for _ in range(299):
        ours, less, more = zip(*((student[i], few[i], many[i]) for i in again.integers(0, 60, 60)), strict=True)
        gaps.append(statistics.fmean(more) - statistics.fmean(less))
        closed.append((statistics.fmean(ours) - statistics.fmean(less)) / gaps[-1])
    gap = many.mean() - few.mean()
    expected = [(student.mean() - few.mean()) / gap, gap]
    for draws, value in zip((closed, gaps), expected[:2], strict=True):
        expected += [value + stats.scoreatpercentile(draws, p) - statistics.median(draws) for p in (2.5, 97.5)]
    told = [found[k] for k in ("closed", "gap", "low", "high", "gap_low", "gap_high")]
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-6)


def test_the_gap_closed_is_covered_at_its_rate():
    """Of 200 prompts whose difficulty the three share; 0.038 is three standard errors of 300 tries."""
    rng, found = np.random.default_rng(0), []
    for i in range(300):
        hard = rng.normal(0, 0.3, 200)
        sets = (hard + level + rng.normal(0, 0.3, 200) for level in (0.8, 0.0, 1.0))
        found.append(metrics.gap_closed(*sets, draws=200, seed=i))
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
        found.append(metrics.gap_of_distances(*parts, 120, splits=20, seed=i))
    for name, low, high in (("closed", "low", "high"), ("gap", "gap_low", "gap_high")):
        told = np.array([x[name] for x in found])
        covered = np.mean([x[low] <= told.mean() <= x[high] for x in found])
        width, wanted = np.mean([x[high] - x[low] for x in found]), 2 * 1.96 * told.std()
        assert covered > 0.95 - 0.065 and 0.8 < width / wanted < 1.4, (name, covered, width / wanted)


def test_gap_that_is_noise_is_not_resolved():
    rng = np.random.default_rng(4)
    student, few, many = rng.normal(size=(3, 50))
    assert not metrics.gap_closed(student, few, many)["resolved"]
    none = metrics.gap_closed(student, few, few)
    assert (none["closed"], none["low"], none["resolved"]) == (None, None, False)
    assert json.loads(json.dumps(none, allow_nan=False)) == none


def test_gap_of_distances_lies_in_its_interval():
    rng = np.random.default_rng(5)
    base = rng.normal(size=(120, 6))
    sets = [base * scale for scale in (1.1, 2.0, 1.02)]
    parts = [lambda rows, x=x: metrics.frechet_distance(x[rows], base[rows]) for x in sets]
    found = metrics.gap_of_distances(*parts, 120)
    assert found["low"] <= found["closed"] <= found["high"]
    assert found["resolved"]


def test_of_a_few_prompts_no_gap_of_distances_is_resolved():
    level = dict(student=1.0, few=2.0, many=0.5)
    found = metrics.gap_of_distances(*(lambda rows, x=x: x for x in level.values()), 7)
    assert found["closed"] == pytest.approx(2 / 3)
    assert (found["low"], found["gap_high"], found["resolved"]) == (None, None, False)
    none = metrics.gap_of_distances(*[lambda rows: 1.0] * 3, 40)
    assert (none["closed"], none["low"], none["gap"], none["resolved"]) == (None, None, 0.0, False)


def test_proportions_are_compared_by_attribute_and_category():
    kinds = ["a", "a", "b", "b"]
    reference = [dict(sky="blue", word="X"), dict(sky="gray"), dict(sky="blue"), dict(sky="blue")]
    assert metrics.proportion_shift(reference[1::-1] + reference[2:], reference, kinds) == 0
    all_blue = [dict(sky="blue", word="Y")] * 4
    assert metrics.proportion_shift(all_blue, reference, kinds) == pytest.approx((0.5 + 0) / 2)
    pink = [dict(sky="pink")] * 4
    assert metrics.proportion_shift(pink, reference, kinds) == 1
    assert metrics.proportion_shift(pink, reference, ["a"] * 4) == 1


def test_the_shift_is_the_total_variation_of_its_definition():
    """The most that the shares of any set of values differ by, tried one by one."""
    rng, kinds = np.random.default_rng(9), ["a"] * 12 + ["b"] * 20
    sets = [[dict(sky=str(x), land=str(y)) for x, y in rng.integers(0, 4, (32, 2))] for _ in range(2)]
    expected = []
    for kind, name in itertools.product("ab", ("sky", "land")):
        ours, theirs = ([s[name] for s, k in zip(cards, kinds, strict=True) if k == kind] for cards in sets)
        some = itertools.chain.from_iterable(itertools.combinations("0123", size) for size in range(5))
        expected.append(max(np.isin(ours, values).mean() - np.isin(theirs, values).mean() for values in some))
    assert metrics.proportion_shift(*sets, kinds) == pytest.approx(np.mean(expected), abs=1e-6)
