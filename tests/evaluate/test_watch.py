"""What a run's own pictures say while it goes on, and the checkpoint that is kept by it."""

import re
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from flashjax import checkpoint, pictures, settings
from flashjax.config import load as load_config
from flashjax.data import prepare
from flashjax.data.records import RecordSource
from flashjax.errors import UserError
from flashjax.evaluate import classifier, edits, metrics, watch
from flashjax.models import pixels, qwen_image_21
from flashjax.parallel import mesh as meshes
from flashjax.recipe import make_recipe, make_table

COUNT = 12
FINE = "--config=configs/postcards_teacher.py"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return partial(
        prepare.prepare, tmp_path_factory.mktemp("watched"), split="heldout", count_per_category=4, size=32, seed=0,
        progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(prepared):
    return prepared()


@pytest.fixture(scope="module")
def edit_data(prepared):
    return prepared(edits=True)


def configured(data, *settings):
    return load_config([FINE, f"--config.watch.data={data}", f"--config.watch.count={COUNT}", *settings])


def configured_edits(edit_data, *settings):
    """Of a run that has edits."""
    asked = [f"--config.watch.edit_data={edit_data}", f"--config.watch.count={COUNT}"]
    return load_config(["--config=configs/postcards_joint.py", *asked, *settings])


def test_real_pictures_are_at_no_distance_and_right(data):
    watched = watch.load(configured(data)).prompts
    records = [RecordSource(str(data))[i] for i in range(COUNT)]
    images = np.stack([r["image"] for r in records])
    told = watch.figures(watched, images)
    assert told["watch/frechet"] == pytest.approx(0, abs=1e-3)  # of features of float32
    assert told["watch/adherence"] > 0.95
    told = watch.figures(watched, 255 - images)
    assert told["watch/frechet"] > 5
    assert told["watch/adherence"] < 0.8


def test_the_distance_is_that_of_the_pictures_in_the_classifiers_features(data):
    watched = watch.load(configured(data)).prompts
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    judge = classifier.load("weights/postcards_classifier")
    expected = metrics.frechet_distance(classifier.features(judge, images), watched.real)
    assert watch.figures(watched, images)["watch/frechet"] == expected


def test_without_data_nothing_is_watched():
    assert watch.load(load_config([FINE])) == watch.Watched()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--config.keep_best=loss"], "config.keep_best is 'loss'; choose one of watch/frechet, watch/adherence, "),
        (["--config.watch.data=", "--config.keep_best=watch/frechet"], "a held-out set; name it in config.watch.data"),
        (["--config.keep_best=watch/edit_kept"], "a held-out set; name it in config.watch.edit_data"),
        (["--config.watch.edit_data=x"], "none of config.sources is of edits"),
        (["--config.watch.data=nowhere.arrayrecord"], "no held-out set (config.watch.data) at nowhere.arrayrecord"),
        (["--config.image_size=64"], "judges pictures of 32 px, and the run draws 64"),
        (["--config.watch.count=13"], "config.watch.count is 13 and"),
    ],
)
def test_what_cannot_be_watched_is_told(data, settings, words):
    with pytest.raises(UserError, match=re.escape(words)):
        watch.load(configured(data, *settings))


def test_edits_that_cannot_be_watched_are_told(data, edit_data):
    """Each set in the other's place; edits that nobody prepared; an autoencoder; a network that takes no picture."""
    for config, words in (
        (configured_edits(data), "`flashjax prepare --split heldout --edits` makes them"),
        (configured(edit_data), "`flashjax prepare --split heldout` makes them"),
        (configured_edits("nowhere"), "no held-out set (config.watch.edit_data) at nowhere"),
        (configured_edits(edit_data, "--config.autoencoder.architecture=vae_kl"), "for runs that read pixels"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            watch.load(config)
    config = configured_edits(edit_data, "--config.edit_share=0", "--config.model.architecture=z_image")
    with pytest.raises(UserError, match="z_image cannot be trained on edits"):
        settings.check_edits(config, make_table(config, make_recipe(config.distill)))


class Encoder:
    def encode(self, texts, max_tokens=None):
        return [np.full((2 + len(said.split()), 3), len(said), np.float32) for said in texts]


def test_a_figure_that_no_watched_edit_has_is_told_before_the_run(edit_data, monkeypatch):
    """Edits that change every pixel leave nothing outside them: a mean of nothing would choose checkpoints."""
    none = dict(success=np.ones(2), kept=np.ones(2), outside=np.full(2, np.nan))
    monkeypatch.setattr(edits, "scores", lambda *_: none)
    with pytest.raises(UserError, match=f"None of the {COUNT} watched edits has watch/edit_outside; raise"):
        watch.load_edits(configured_edits(edit_data).watch, None)


@pytest.mark.parametrize("does", ["edits", "nothing"])
def test_edits_are_drawn_from_their_sources_and_judged(edit_data, tmp_path, monkeypatch, does):
    """By a model that does all as told, and by one that gives the sources back: better and worse as FIGURES has it, and
    neither touches what the edit leaves alone. Words count as those of the sources do."""
    monkeypatch.setattr(edits.ocr, "word_hits", lambda images, words: np.full(len(words), does == "edits"))
    records = [RecordSource(str(edit_data))[i] for i in range(COUNT)]
    exact = pixels.encode(pixels.from_uint8(np.stack([record["image"] for record in records])))

    def sample(params, cond, null, start, *rest):
        assert cond.text_length.tolist() == [2 + len(record["instruction"].split()) for record in records]
        np.testing.assert_array_equal(null.references[0], cond.references[0])  # guidance keeps the picture
        return exact if does == "edits" else cond.references[0]

    monkeypatch.setattr(pictures, "make_sampler", lambda denoiser: sample)
    config, decode = configured_edits(edit_data), lambda z: pixels.to_uint8(pixels.decode(z))
    mesh = meshes.make_mesh(dict(data=1, fsdp=1, context=1, tensor=1))
    (draw,) = watch.make_watchers(config, qwen_image_21, None, Encoder(), decode, watch.load(config), tmp_path, mesh)
    told = draw(None, 1)
    assert told.keys() == watch.EDIT_FIGURES.keys() <= watch.FIGURES.keys()
    assert (told["watch/edit_success"] > 0.8) == (does == "edits")
    assert (told["watch/edit_success"] < 0.4) == (does == "nothing")
    assert told["watch/edit_kept"] > 0.9
    assert told["watch/edit_outside"] == pytest.approx(0, abs=1e-12)


def test_a_stain_outside_the_edits_is_seen(edit_data, monkeypatch):
    monkeypatch.setattr(edits.ocr, "word_hits", lambda images, words: np.full(len(words), True))
    watched = watch.load(configured_edits(edit_data)).edits
    images = np.stack([record["source"] for record in watched.records])
    told = watch.edit_figures(watched, 255 - images)
    assert told["watch/edit_outside"] == pytest.approx(np.nanmean(edits.outside_error(255 - images, watched.records)))
    assert told["watch/edit_outside"] > 0.2
    assert told["watch/edit_kept"] < 0.8
    best = {name: better.__name__ for name, better in watch.FIGURES.items() if name.startswith("watch/edit")}
    assert best == {"watch/edit_success": "max", "watch/edit_kept": "max", "watch/edit_outside": "min"}


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


def test_a_run_goes_on_with_another_figure(tmp_path):
    """What was saved with the one before is not best by the new one, and stands in nobody's way."""
    saved = []
    for best, better, steps in (("watch/frechet", min, (1, 2)), ("watch/edit_success", max, (3, 4))):
        found = checkpoint.Checkpoints(tmp_path, 1, best, better)
        assert found.best() is None
        for step in steps:
            found.save(step, dict(x=jnp.ones(2)), dict(position=step), dict(config={}), {best: -float(step)})
        saved.append(found.best())  # of which the last save may be in flight
        found.close()
    assert saved == [2, 3]
