"""What a run's own pictures say while it goes on, and the checkpoint that is kept by it."""

import jax.numpy as jnp
import numpy as np
import pytest

from flashjax import checkpoint
from flashjax.config import load as load_config
from flashjax.data import prepare
from flashjax.data.records import RecordSource
from flashjax.errors import UserError
from flashjax.evaluate import classifier, metrics, watch

COUNT = 12
FINE = "--config=configs/postcards_teacher.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare.prepare(
        tmp_path_factory.mktemp("watched"), split="heldout", count_per_category=4, size=32, seed=0, progress=False
    )


def configured(data, *settings):
    return load_config([FINE, f"--config.watch.data={data}", f"--config.watch.count={COUNT}", *settings])


def test_real_pictures_are_at_no_distance_and_right(data):
    watched = watch.load(configured(data))
    records = [RecordSource(str(data))[i] for i in range(COUNT)]
    images = np.stack([r["image"] for r in records])
    told = watch.figures(watched, images)
    assert told["watch/frechet"] == pytest.approx(0, abs=1e-3)  # of features of float32
    assert told["watch/adherence"] > 0.95
    told = watch.figures(watched, 255 - images)
    assert told["watch/frechet"] > 5
    assert told["watch/adherence"] < 0.8


def test_the_distance_is_that_of_the_pictures_in_the_classifiers_features(data):
    watched = watch.load(configured(data))
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    judge = classifier.load("weights/postcards_classifier")
    expected = metrics.frechet_distance(classifier.features(judge, images), watched.real)
    assert watch.figures(watched, images)["watch/frechet"] == expected


def test_without_data_nothing_is_watched():
    assert watch.load(load_config([FINE])) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--config.keep_best=loss"], "config.keep_best is 'loss'; choose watch/frechet or watch/adherence"),
        (["--config.watch.data=", "--config.keep_best=watch/frechet"], "name a held-out set in config.watch.data"),
        (["--config.image_size=64"], "judges pictures of 32 px, and the run draws 64"),
        (["--config.watch.count=13"], "config.watch.count is 13 and"),
    ],
)
def test_what_cannot_be_watched_is_told(data, settings, words):
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        watch.load(configured(data, *settings))


@pytest.mark.parametrize(("better", "kept"), [(min, [2, 5, 6]), (max, [1, 5, 6])])
def test_the_best_is_kept_beside_the_newest(tmp_path, better, kept):
    """Also by a manager that was made anew, as after an interruption; what was saved without the figure is not best."""
    values = {1: 9.0, 2: 1.0, 3: 4.0, 4: None, 5: 3.0, 6: None}
    for half in ((1, 2, 3), (4, 5, 6)):
        found = checkpoint.Checkpoints(tmp_path, 2, "watch/frechet", better)
        for step in half:
            figures = {"watch/frechet": values[step]} if values[step] else None
            found.save(step, dict(x=jnp.ones(2)), dict(position=step), dict(config={}), figures)
        best = found.best()
        found.close()
    assert best == kept[0]
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == kept
