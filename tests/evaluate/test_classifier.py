"""The judge: it learns, it is stored exactly, it refuses what it cannot judge; and the suite that uses it."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from flashjax.data import postcards
from flashjax.errors import UserError
from flashjax.evaluate import classifier, classifier_network, distributions, suite
from flashjax.evaluate.classifier import Config
from flashjax.paths import flatten


def _records(count):
    kinds = list(postcards.CATEGORIES)
    cards = [postcards.make(kinds[i % 3], "train", i // 3, 1) for i in range(count)]
    return [{**dataclasses.asdict(card), "image": postcards.render(card, 32)} for card in cards]


@pytest.fixture(scope="module")
def records():
    return _records(64)


@pytest.fixture(scope="module")
def judge(records):
    config = Config(widths=(8, 16, 24, 24), steps=120, batch=32, learning_rate=6e-3, shift=0, noise=0.0, gain=0.0)
    return classifier.train(records, config, seed=0)


@pytest.fixture(scope="module")
def images(records):
    return np.stack([record["image"] for record in records])


def test_small_judge_learns_64_pictures_by_heart(judge, records):
    right = classifier.accuracy(judge, records)
    assert right["category"] == 1.0
    assert len(right) == 1 + sum(len(m.ATTRIBUTES) for m in postcards.CATEGORIES.values())
    assert np.mean(list(right.values())) > 0.9


def test_saved_judge_is_the_same_judge(judge, images, tmp_path):
    classifier.save(dataclasses.replace(judge, card={"seed": 0}), tmp_path / "judge")
    loaded = classifier.load(tmp_path / "judge")
    assert loaded.config == judge.config
    assert loaded.card["seed"] == 0
    np.testing.assert_array_equal(classifier.features(loaded, images), classifier.features(judge, images))


def test_load_tells_what_is_wrong(judge, tmp_path):
    with pytest.raises(UserError, match="no readable classifier"):
        classifier.load(tmp_path)
    classifier.save(judge, tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"labels": {}}))
    with pytest.raises(UserError, match="other attributes"):
        classifier.load(tmp_path)
    card["config"]["features"] = 7
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="shapes"):
        classifier.load(tmp_path)


def test_full_size_judge_is_small():
    leaves = jax.tree.leaves(classifier.abstract(Config()))
    assert sum(leaf.size for leaf in leaves) < 400_000


def test_judge_refuses_floats_and_wrong_counts(judge, images, records):
    with pytest.raises(UserError, match="uint8"):
        classifier.features(judge, images.astype(np.float32))
    with pytest.raises(UserError, match="64 pictures came with 1"):
        classifier.predict(judge, images, ["text"])
    with pytest.raises(UserError, match="only 3 records"):
        classifier.train(records[:3], Config(), 0)


def test_suite_measures_every_set_and_is_json(judge, images, records):
    rng = np.random.default_rng(0)

    def noisy(scale):
        return np.clip(images + rng.normal(0, scale, images.shape), 0, 255).astype(np.uint8)

    samples = {"teacher80": noisy(2), "reference": noisy(2), "teacher4": noisy(90), "student4": noisy(4)}
    spread = {k: np.stack([v[:6], noisy(9)[:6]], 1) for k, v in samples.items() if k in ("teacher80", "student4")}
    result = suite.evaluate(samples, records, images, judge, ocr=False, diversity_sets=spread)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    entries, gap = result["entries"], result["gap"]
    assert set(entries) == {*samples, "real"}
    distances = [entries[k]["frechet_to_teacher"] for k in ("teacher80", "student4", "teacher4")]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert entries["reference"]["frechet_to_teacher"] is None
    kernel = [entries[k]["cmmd_to_teacher"] for k in ("teacher80", "student4", "teacher4")]
    assert kernel[0] < kernel[1] < kernel[2]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True)
            for x in (classifier.features(judge, samples[k]) for k in ("teacher4", "reference"))]  # fmt: skip
    assert kernel[2] == pytest.approx(distributions.cmmd(*unit, groups=(range(64), range(64))), rel=1e-9)
    among = [(entries[k]["precision"], entries[k]["recall"]) for k in ("student4", "teacher4")]
    assert among[0] == (1.0, 1.0)
    assert among[1] < among[0]
    assert entries["teacher4"]["high_frequency"] > 1.5 * entries["student4"]["high_frequency"]
    assert entries["teacher4"]["contrast_drift"] > 0 == entries["teacher80"]["contrast_drift"]
    assert gap["frechet_to_teacher"]["many_step"] == distances[0]
    assert entries["student4"]["word_accuracy"] is None
    assert gap["adherence"]["few_step_set"] == "teacher4"
    assert gap["adherence"]["closed"] > 0.5
    assert gap["frechet_to_teacher"]["resolved"]
    assert result["diversity_ratio"]["student4"] > 0
    assert any("of the gap is closed" in line for line in result["verdict"])


def test_suite_refuses_sets_that_do_not_fit(judge, images, records):
    with pytest.raises(UserError, match="'teacher80', .* is missing"):
        suite.evaluate({"student4": images}, records, images, judge)
    with pytest.raises(UserError, match=r"student4 \(3\)"):
        suite.evaluate({"teacher80": images, "student4": images[:3]}, records, images, judge)


def test_no_picture_is_far_from_all_others(judge):
    """Noise lies outside of all that the judge was trained on; its features are no longer than a postcard's."""
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    lengths = np.linalg.norm(classifier.features(judge, images), axis=1)
    np.testing.assert_allclose(lengths, np.sqrt(judge.config.features), rtol=1e-5)


def test_a_judge_is_of_its_own_size():
    """As many cells whatever the side, so that all its layers but the first have the same form."""
    shapes = {side: flatten(classifier_network.abstract(Config(side=side))) for side in (32, 64)}
    other = {path for path in shapes[32] if shapes[32][path].shape != shapes[64][path].shape}
    assert other == {"conv1/kernel"} and shapes[64]["conv1/kernel"].shape == (3, 3, 48, 48)
    larger = classifier.Classifier(config := Config(side=64), classifier_network.init(config, 0))
    assert classifier.features(larger, np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, config.features)
    with pytest.raises(UserError, match=r"uint8 \[N, 64, 64, 3\], not uint8 \[2, 32, 32, 3\]"):
        classifier.features(larger, np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="px a side, not of 40"):
        Config(side=40)


def test_prompts_alone_teach_nothing(records):
    bare = [{"category": record["category"], "spec": record["spec"]} for record in records]
    with pytest.raises(UserError, match="without --prompts-only"):
        classifier.train(bare, Config(), seed=0)
