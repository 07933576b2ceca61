"""The metrics against closed forms and independent implementations (scipy, the standard library, plain loops)."""

import colorsys
import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
from scipy import ndimage
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


def test_adherence_is_that_of_plain_loops():
    """The share of right answers of each prompt in exact fractions, and their means."""
    rng, values = np.random.default_rng(3), np.array(["a", "b", "c"])
    draw = lambda names: dict(zip(names, map(str, rng.choice(values, len(names))), strict=True))  # noqa: E731
    every, kinds = ("sky", "land", "orb", "trees"), [str(k) for k in rng.choice(["x", "y"], 200)]
    named = [draw([n for n in every if rng.random() < 0.5] + ["word"] * (rng.random() < 0.3)) for _ in kinds]
    seen = [draw(every) for _ in kinds]
    shares = {}
    for i, wanted in enumerate(named):
        asked = [n for n in wanted if n != "word"]
        if asked:
            shares[i] = Fraction(sum(seen[i][n] == wanted[n] for n in asked), len(asked))
    told = metrics.adherence(seen, named, kinds)
    assert told["prompts"] == len(shares) < 200
    assert told["mean"] == pytest.approx(float(sum(shares.values()) / len(shares)), abs=1e-12)
    for kind, found in told["per_category"].items():
        own = [share for i, share in shares.items() if kinds[i] == kind]
        assert found == pytest.approx(float(sum(own) / len(own)), abs=1e-12)


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
