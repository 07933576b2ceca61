"""Figures of systems against a reference, by scipy and scikit-learn, on features and values made up."""

import numpy as np
import pytest
from scipy import linalg, stats
from scipy.spatial import distance
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from flashjax.bench.comparing import METRICS, compare
from flashjax.bench.measuring import Measured
from flashjax.errors import UserError

RNG = np.random.default_rng(0)
PROMPTS = [f"p{i}" for i in range(12)]
CATEGORY = {p: "ab"[i % 2] for i, p in enumerate(PROMPTS)}


def made(shift: float = 0.0, seeds=(0, 1), prompts=PROMPTS, size=(64, 64), **values) -> Measured:
    """Two seeds a prompt, features [N, 3] around ``shift``; ``values``: one a picture."""
    n = len(prompts) * len(seeds)
    values = dict(saturation=np.linspace(0.2, 0.4, n), contrast=np.full(n, 0.1), high_frequency=np.ones(n)) | values
    return Measured(
        tuple(p for p in prompts for _ in seeds), tuple(s for _ in prompts for s in seeds), values,
        dict(net=RNG.normal(shift, 1 + shift, (n, 3))), ((size),) * n,
    )  # fmt: skip


def rows(told, **wanted) -> dict:
    """Metric to row."""
    found = [r for r in told["rows"] if all(r[k] == v for k, v in wanted.items())]
    assert len({r["metric"] for r in found}) == len(found)
    return {r["metric"]: r for r in found}


def cmmd(a, b, prompts):
    """Over pairs of different prompts, which both sets share."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    apart = np.array([[p != q for q in prompts] for p in prompts])
    aa, bb, ab = (rbf_kernel(*pair, gamma=1 / 200)[apart].mean() for pair in ((a, a), (b, b), (a, b)))
    return 1000 * (aa + bb - 2 * ab)


def frechet(a, b):
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(sum(covariances) - 2 * root)


def among(samples, members):
    radii = NearestNeighbors(n_neighbors=4).fit(members).kneighbors(members)[0][:, 3]
    return np.mean([(np.linalg.norm(members - s, axis=1) <= radii).any() for s in samples])


@pytest.mark.parametrize("kind", ["", "a"])
def test_distances_overall_and_by_category(kind):
    systems = dict(teacher=made(), student=made(0.3))
    found = rows(compare(systems, "teacher", CATEGORY), system="student", category=kind, extractor="net")
    keep = [kind in ("", CATEGORY[p]) for p in systems["student"].prompts]
    ours, theirs = (systems[name].features["net"][keep] for name in ("student", "teacher"))
    expected = dict(
        cmmd=cmmd(ours, theirs, [p for p in PROMPTS for _ in (0, 1) if kind in ("", CATEGORY[p])]),
        frechet=frechet(ours, theirs), precision=among(ours, theirs), recall=among(theirs, ours),
    )  # fmt: skip
    for metric, value in expected.items():
        assert found[metric]["value"] == pytest.approx(value, abs=1e-6), metric
        assert (found[metric]["n"], found[metric]["unit"]) == (sum(keep), "pictures")
        assert found[metric]["low"] is None


def test_diversity_of_seeds_is_that_of_the_reference():
    systems = dict(teacher=made(), student=made(0.5))
    found = rows(compare(systems, "teacher", CATEGORY), system="student", category="")["diversity_ratio"]
    means = [np.mean([distance.pdist(x)[0] for x in s.features["net"].reshape(12, 2, 3)]) for s in systems.values()]
    assert found["value"] == pytest.approx(means[1] / means[0], rel=1e-12)
    assert found["low"] < found["value"] < found["high"]
    assert (found["n"], found["unit"]) == (12, "prompts")
    alone = compare(dict(teacher=made(seeds=(0,)), student=made(seeds=(0,))), "teacher", CATEGORY)
    assert "diversity_ratio" not in rows(alone, system="student", category="")


def test_drifts_are_relative_and_paired():
    """Every prompt 10 % more saturated: the interval is a point, however much prompts differ."""
    base = made()
    other = made(saturation=base.values["saturation"] * 1.1, contrast=np.full(24, 0.08))
    found = rows(compare(dict(teacher=base, student=other), "teacher", CATEGORY), system="student", category="")
    drift = found["saturation_drift"]
    assert [drift[k] for k in ("value", "low", "high")] == pytest.approx([0.1] * 3)
    assert found["contrast_drift"]["value"] == pytest.approx(-0.2)
    assert found["saturation"]["value"] == pytest.approx(0.33)
    gray = compare(dict(teacher=made(saturation=np.zeros(24)), student=base), "teacher", CATEGORY)
    assert rows(gray, system="student", category="")["saturation_drift"]["value"] is None


def test_the_interval_of_a_drift_is_scipys():
    """Prompts are resampled in pairs, each the mean of its seeds, and the percentiles are of the ratio."""
    systems = dict(teacher=made(saturation=RNG.random(24)), student=made(saturation=RNG.random(24)))
    found = rows(compare(systems, "teacher", CATEGORY, seed=4), system="student", category="")["saturation_drift"]
    theirs, ours = (m.values["saturation"].reshape(12, 2).mean(1) for m in systems.values())
    ends = stats.bootstrap(
        (ours, theirs), lambda a, b: a.mean() / b.mean() - 1, paired=True, vectorized=False, n_resamples=1000,
        method="percentile", rng=np.random.default_rng(4),
    ).confidence_interval  # fmt: skip
    expected = [ours.mean() / theirs.mean() - 1, *ends]
    np.testing.assert_allclose([found[k] for k in ("value", "low", "high")], expected, rtol=0, atol=1e-6)


def test_texts_are_compared_where_both_were_read():
    """A prompt counts once, whatever its seeds; p0 has no text, and one seed of p1 none."""
    words = np.repeat(np.linspace(0, 1, 12), 2)
    words[[0, 1, 3]] = np.nan
    systems = dict(teacher=made(word_accuracy=words), student=made(word_accuracy=words - 0.25))
    told = compare(systems, "teacher", CATEGORY)
    found = rows(told, system="student", category="")
    assert found["word_accuracy"]["value"] == pytest.approx(np.linspace(0, 1, 12)[1:].mean() - 0.25)
    change = found["word_accuracy_change"]
    assert [change[k] for k in ("value", "low", "high")] == pytest.approx([-0.25] * 3)
    assert change["n"] == 11
    assert "word_accuracy" in rows(told, system="teacher", category="b")
    assert "word_accuracy_change" not in rows(told, system="teacher", category="")
    assert {r["metric"] for r in told["rows"]} <= set(METRICS)


def test_an_interval_of_one_prompt_is_none():
    one = ["p0"]
    told = compare(dict(teacher=made(prompts=one), student=made(prompts=one)), "teacher", CATEGORY)
    found = rows(told, system="student", category="")
    assert [found["contrast"][k] for k in ("low", "high", "n")] == [None, None, 1]
    assert found["cmmd"]["value"] is None  # no pair of two prompts
    assert found["precision"]["value"] is None  # two pictures have no third neighbour
    assert told["categories"] == ["a"]
    assert {r["category"] for r in told["rows"]} == {""}  # one category would say the same twice


def test_warnings():
    few = dict(teacher=made(prompts=PROMPTS[:1]), student=made(prompts=PROMPTS[:1], size=(32, 32)))
    said = " ".join(compare(few, "teacher", CATEGORY)["warnings"])
    assert "net (3 dimensions) are of 2 pictures" in said
    assert "Pictures of student are of other sizes than those of teacher" in said
    assert rows(compare(few, "teacher", CATEGORY), system="student", category="")["frechet"]["rough"]
    seeds = dict(teacher=made(), again=made(seeds=(7, 8)), student=made(seeds=(0,)))
    said = " ".join(compare(seeds, "teacher", CATEGORY)["warnings"])
    assert "different numbers of pictures (teacher 24, again 24, student 12)" in said
    assert "student shares seeds with teacher and others do not" in said
    shape = dict(teacher=made(), student=made(other_shape=np.eye(24)[0]))
    assert compare(shape, "teacher", CATEGORY)["warnings"] == [
        "1 edits of student have another shape than their source and were not laid over it."
    ]
    lost = dict(teacher=made(texts_lost=np.eye(24)[0]), student=made())
    assert compare(lost, "teacher", CATEGORY)["warnings"] == [
        "Of 1 edits the texts to change were not found in the source; their error outside was not measured."
    ]


def test_systems_that_do_not_compare():
    with pytest.raises(UserError, match="reference x is none of the systems teacher"):
        compare(dict(teacher=made()), "x", CATEGORY)
    with pytest.raises(UserError, match="student and teacher have pictures of other prompts"):
        compare(dict(teacher=made(), student=made(prompts=PROMPTS[1:])), "teacher", CATEGORY)
    other = made()
    wide = Measured(other.prompts, other.seeds, other.values, dict(net=np.zeros((24, 5))), other.sizes)
    with pytest.raises(UserError, match=r"features of net are \[24, 5\] and \[24, 3\]"):
        compare(dict(teacher=made(), student=wide), "teacher", CATEGORY)
