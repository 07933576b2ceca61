"""The configurations of released models: sizes that go together, and each distils in miniature from end to end."""

import importlib
import types

import jax
import numpy as np
import pytest

from flashjax import checkpoint, export, models, paths, recipe, settings, train, weights
from flashjax import config as configs
from flashjax.data import prepare
from flashjax.models import latents, lora, prompts, qwen_image_21, text

FAMILIES = dict(qwen_image_21="qwen_image_21", qwen_image="qwen_image", klein="flux2_klein", z_image="z_image")


def encode(captions, max_tokens=None):
    """A stand-in for the text encoder: every caption has its own states."""
    return [np.random.default_rng(len(c)).normal(size=(2 + len(c.split()), 384)).astype(np.float32) for c in captions]


def tokens(captions, max_tokens=None):
    return [[0, *caption.split(), 1] for caption in captions]


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The set of each task."""
    asked = dict(split="train", count_per_category=4, seed=0, encode=encode, progress=False)
    folder = tmp_path_factory.mktemp("data")
    return prepare.prepare(folder, **asked, size=None), prepare.prepare(folder, **asked, size=32, edits=True)


EDITS = ("qwen_image:edit,lora", "qwen_image_21:edit", "klein:edit,lora")


@pytest.mark.parametrize("which", [*FAMILIES, *(f"{name}:lora" for name in FAMILIES), *EDITS])
def test_sizes_go_together(which):
    name, _, arg = which.partition(":")
    config = configs.load([f"--config=configs/{name}.py:{arg}"])
    settings.check_settings(config)
    assert config.watchdog_minutes > 0  # a pod that is stuck costs until somebody looks
    recipe.make_table(config, recipe.make_recipe(config.distill))
    model = models.architecture(config.model.architecture)
    sizes, rules = models.make_config(model, config.model), prompts.FAMILIES[FAMILIES[name]]
    latents.check(config, sizes.in_channels)
    encoder = importlib.import_module(f"flashjax.models.{rules.encoder}").Config()
    assert len(rules.features) * encoder.width == sizes.context_dim
    if adapted := lora.of(config):
        factors = paths.flatten(lora.form(adapted, model.abstract(sizes)))
        assert not any("mod" in path for path in factors)
        assert len(factors) >= 14
        assert jax.tree.leaves(model.abstract(sizes))[0].dtype == "bfloat16"


OTHERS = ("qwen_image", "klein", "z_image", *(f"{name}:lora" for name in FAMILIES), "qwen_image_21:specialists")
OTHERS += ("qwen_image:edit", "qwen_image_21:edit", "klein:edit", "qwen_image:edit,lora", "klein:edit,lora")
OTHERS = [pytest.param(name, marks=pytest.mark.long) for name in OTHERS]


@pytest.mark.parametrize("name", ["qwen_image_21", *OTHERS])
def test_a_tiny_run_goes_from_end_to_end(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "default_encoder", lambda: types.SimpleNamespace(encode=encode, tokens=tokens))
    file, _, arg = name.partition(":")
    config = configs.load([f"--config=configs/{file}.py:tiny,{arg}", "--config.mesh.fsdp=1"])
    with config.unlocked():
        for source in config.sources.values():
            source.path = str(data[source.task == "edit"])
    folder = train.train(config, str(tmp_path / "run"))
    drawn = dict(t2i="step_000020.png", edit="step_000020_edits.png")
    tasks = {source.task for source in config.sources.values()}
    assert {file.name for file in (folder / "samples").iterdir()} == {drawn[task] for task in tasks}
    params, _, step = checkpoint.restore_params(folder / "checkpoints", "student")
    assert step == 20
    if not arg:
        model = models.architecture(config.model.architecture)
        begun = weights.random(model.abstract(models.make_config(model, config.model)))
        moved = [(paths.flatten(begun)[path] != x).any() for path, x in paths.flatten(params).items()]
        assert np.mean(moved) > 0.9


@pytest.mark.parametrize("name", FAMILIES)
def test_a_specialist_is_of_the_teacher_that_it_stands_beside(name):
    """The same network, weights and latents, adapters of the same kernels, and the guidance that the teacher has."""
    own = configs.load([f"--config=configs/specialist.py:model={name}"])
    other = configs.load([f"--config=configs/{name}.py:lora"])
    settings.check_settings(own)
    settings.check_settings(configs.load([f"--config=configs/specialist.py:model={name},rank=0"]))
    assert (own.model, own.autoencoder) == (other.model, other.autoencoder)
    assert own.init == other.distill.teachers.base.weights
    assert (own.sample.guidance_scale,) == other.distill.guidance.scales
    model = models.architecture(own.model.architecture)
    whole = model.abstract(models.make_config(model, own.model))
    assert lora.form(lora.of(own), whole) == lora.form(lora.of(other), whole)


def test_a_tiny_specialist_becomes_a_teacher(tmp_path, monkeypatch):
    """A run on pictures of one category, whose adapter stands beside the same base as its factors."""
    monkeypatch.setattr(text, "default_encoder", lambda: types.SimpleNamespace(encode=encode, tokens=tokens))
    asked = dict(split="train", count_per_category=8, seed=0, encode=encode, progress=False)
    path = prepare.prepare(tmp_path, **asked, size=32)
    file = ["--config=configs/specialist.py:tiny,of=text", f"--config.sources.pictures.path={path}"]
    folder = train.train(configs.load([*file, "--config.mesh.fsdp=1"]), str(tmp_path / "run"))
    assert [file.name for file in (folder / "samples").iterdir()] == ["step_000006.png"]
    assert "text          100.00% of 8 records" in (folder / "step_table.txt").read_text()
    adapter = export.export_lora(str(folder), str(tmp_path / "adapter"), "flashjax").parent
    teachers = {"base": {"weights": "random"}, "signs": {"weights": f"{adapter}"}}
    table = "{'text': {'signs': (0, 0, 0.5, 1)}}"
    config = ["--config=configs/qwen_image_21.py:tiny,lora,edit", f"--config.distill.teachers={teachers}"]
    config = configs.load([*config, f"--config.distill.guidance_table={table}"])
    settings.check_settings(config)
    base = weights.random(qwen_image_21.abstract(models.make_config(qwen_image_21, config.model)))
    trained, _, _ = checkpoint.restore_params(folder / "checkpoints", "ema")
    scale = 64.0 / 4 / lora.of(config).scale
    for weights_ in (adapter, folder):
        found = weights.load_specialist(config, base, str(weights_))
        assert lora.is_adapter(found)
        for name, x in paths.flatten(found).items():
            np.testing.assert_array_equal(x, paths.flatten(trained)[name] * (scale if name.endswith("/b") else 1))
