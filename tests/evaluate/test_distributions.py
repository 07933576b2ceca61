"""Distances of distributions against scikit-learn and by hand, on features made up."""

import itertools
import math

import numpy as np
import pytest
from scipy import fft
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from flashjax.errors import UserError
from flashjax.evaluate import distributions

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("n", "m", "sigma"), [(40, 70, 10.0), (1500, 1100, 1.0), (2, 2, 0.5)])
def test_cmmd_is_scikit_learns_kernel(n, m, sigma):
    a, b = RNG.normal(size=(n, 6)), RNG.normal(0.3, size=(m, 6))
    pairs = dict(aa=(a, a), bb=(b, b), ab=(a, b))
    k = {key: rbf_kernel(*pair, gamma=1 / (2 * sigma**2)) for key, pair in pairs.items()}
    off = [(k[key].sum() - np.trace(k[key])) / (s * (s - 1)) for key, s in (("aa", n), ("bb", m))]
    assert distributions.cmmd(a, b, sigma) == pytest.approx(1000 * (sum(off) - 2 * k["ab"].mean()), abs=1e-6)


def test_cmmd_is_unbiased():
    """Zero on average for samples of one distribution, of 6 and 9: the biased estimator would give over 100."""
    found = [distributions.cmmd(RNG.normal(size=(6, 3)), RNG.normal(size=(9, 3)), 1.0) for _ in range(2000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(2000)
    assert np.std(found) / np.sqrt(2000) < 4


def test_cmmd_of_shared_prompts_is_unbiased():
    """Each set has one picture of each of 12 prompts, near its prompt's: with their pairs in, 0 would be about -100."""

    def found(groups):
        prompts = RNG.normal(size=(12, 3))
        return distributions.cmmd(*(prompts + RNG.normal(0, 0.3, (2, 12, 3))), 1.0, groups=groups)

    left_out, kept = ([found(groups) for _ in range(2000)] for groups in ((range(12), range(12)), None))
    assert abs(np.mean(left_out)) < 4 * np.std(left_out) / np.sqrt(2000) < 6
    assert np.mean(kept) < -60


def test_cmmd_of_groups_is_a_plain_loop():
    """Several seeds of a prompt, not the same number everywhere, in any order; more rows than are taken at a time."""
    names = [list("baabc"), list("cdab")]
    a, b = (RNG.normal(size=(len(of), 3)) for of in names)

    def mean(x, y, of_x, of_y):
        pairs = [(p, q) for p, g in zip(x, of_x, strict=True) for q, h in zip(y, of_y, strict=True) if g != h]
        return np.mean([math.exp(-sum((p - q) ** 2) / 2) for p, q in pairs])

    within = mean(a, a, names[0], names[0]) + mean(b, b, names[1], names[1])
    expected = 1000 * (within - 2 * mean(a, b, *names))
    assert distributions.cmmd(a, b, 1.0, groups=names) == pytest.approx(expected, abs=1e-9)
    many = RNG.normal(size=(1500, 2))
    groups = RNG.integers(0, 5, 1500)
    k, apart = rbf_kernel(many, many, gamma=0.5), groups[:, None] != groups
    kb = rbf_kernel(many, a[:, :2], gamma=0.5)[groups[:, None] != np.arange(5)].mean()
    small = rbf_kernel(a[:, :2], gamma=0.5)
    small = (small.sum() - 5) / 20
    found = distributions.cmmd(many, a[:, :2], 1.0, groups=(groups, range(5)))
    assert found == pytest.approx(1000 * (k[apart].mean() + small - 2 * kb), abs=1e-6)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [(("ab", "abc"), r"\[2, 3\] rows do not fit features of \[2, 2\]"), (("aa", "ab"), "two prompts or more")],
)
def test_groups_that_do_not_serve(groups, sentence):
    with pytest.raises(UserError, match=sentence):
        distributions.cmmd(np.eye(2), np.eye(2), groups=tuple(map(list, groups)))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_those_of_scikit_learns_neighbours(k):
    real, made = RNG.normal(size=(1300, 4)), RNG.normal(0.5, 0.6, size=(400, 4))

    def among(samples, members):
        radii = NearestNeighbors(n_neighbors=k + 1).fit(members).kneighbors(members)[0][:, k]
        return np.mean([(np.linalg.norm(members - s, axis=1) <= radii).any() for s in samples])

    found = distributions.precision_recall(real, made, k)
    assert found == pytest.approx((among(made, real), among(real, made)), abs=1e-6)
    assert found.precision > found.recall  # narrower than the truth


def test_extremes():
    x = RNG.normal(size=(50, 3))
    assert distributions.precision_recall(x, x) == (1.0, 1.0)
    assert distributions.precision_recall(x, x + 1000) == (0.0, 0.0)
    one_mode = distributions.precision_recall(np.concatenate([x, x + 1000]), x)
    assert one_mode == (1.0, 0.5)


def test_patches_are_cut_and_not_resized():
    images = RNG.integers(0, 255, (3, 20, 30, 3), np.uint8)
    found = distributions.patches(images, 8, 4)
    assert found.shape == (12, 8, 8, 3)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(found[4 * i], image[6:14, 11:19])
        for patch in found[4 * i : 4 * i + 4]:
            windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8, 3))
            assert (windows == patch).all((-1, -2, -3)).any()
    with pytest.raises(UserError, match="do not fit"):
        distributions.patches(images, 21)


def test_the_spectrum_finds_a_grid():
    y, x = np.mgrid[:64, :64]
    smooth = np.repeat((127 + 100 * np.sin(2 * np.pi * x / 32))[None, ..., None], 3, -1)
    grid = smooth + 20 * ((x + y) % 2)[None, ..., None]
    calm, rough = (distributions.spectrum(np.uint8(np.clip(v, 0, 255))) for v in (smooth, grid))
    assert calm.sum() == pytest.approx(1)
    assert calm[0] > 0.99
    # The chequerboard's variance is 10^2 beside 100^2 / 2 of the wave.
    assert rough[-1] == pytest.approx(100 / 5100, rel=0.05)
    assert distributions.spectrum(np.zeros((1, 8, 8, 3), np.uint8)).sum() == 0


def test_the_spectrum_is_scipys():
    """Ring by ring, in loops, of pictures that are not square."""
    images = RNG.integers(0, 255, (2, 12, 18, 3), np.uint8)
    expected = np.zeros(8)
    for image in images:
        luma = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
        power, rings = np.abs(fft.fft2(luma)) ** 2, np.zeros(8)
        for (y, fy), (x, fx) in itertools.product(enumerate(fft.fftfreq(12)), enumerate(fft.fftfreq(18))):
            if (y, x) != (0, 0):  # the mean
                rings[min(int(math.hypot(fy, fx) / math.hypot(0.5, 0.5) * 8), 7)] += power[y, x]
        expected += rings / rings.sum() / len(images)
    np.testing.assert_allclose(distributions.spectrum(images), expected, rtol=0, atol=1e-6)
    assert distributions.high_frequency(images, 12, 1) == pytest.approx(
        distributions.spectrum(images[:, :, 3:15])[6:].sum(), abs=1e-6
    )


def test_high_frequencies_see_a_grid_that_a_mean_does_not():
    """A grid of +-4 of 255 on waves of one period a patch: its share of the variance follows from the amplitudes."""
    y, x = np.mgrid[:16, :16]
    wave = 128 + 40 * np.cos(2 * np.pi * x / 16)
    both = wave, wave + 4 * (-1.0) ** (x + y)
    calm, rough = (np.rint(np.repeat(v[None, ..., None], 3, -1)).astype(np.uint8) for v in both)
    assert distributions.high_frequency(calm, 16) < 1e-3  # what rounding to bytes leaves
    assert distributions.high_frequency(rough, 16) == pytest.approx(16 / (800 + 16), rel=0.02)


@pytest.mark.parametrize("wrong", [np.zeros((1, 3)), np.zeros((5, 2)), np.full((5, 3), np.nan), np.zeros(3)])
def test_features_that_are_none(wrong):
    for metric in (distributions.cmmd, distributions.precision_recall):
        with pytest.raises(UserError):
            metric(np.zeros((5, 3)), wrong)
