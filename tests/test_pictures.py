"""Sheets of pictures, and the noise that every picture starts from."""

import types

import jax
import numpy as np
import pytest

from flashjax import axes, flow, models, pictures, settings, weights
from flashjax import config as configs
from flashjax.errors import UserError
from flashjax.models import attention, latents
from flashjax.parallel import mesh as meshes
from flashjax.parallel import sharding


def test_contact_sheet_places_pictures_in_rows():
    red, blue = (np.full((4, 6, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(pictures.contact_sheet([[red, blue], [blue]], scale=2))
    assert sheet.shape == (2 + 2 * (8 + 2), 2 + 2 * (12 + 2), 3)
    assert (sheet[2:10, 2:14] == (255, 0, 0)).all()
    assert (sheet[2:10, 16:28] == (0, 0, 255)).all()
    assert (sheet[12:20, 2:14] == (0, 0, 255)).all()
    labelled = pictures.contact_sheet([[red], [blue]], labels=["one", "the second"])
    assert labelled.size[0] > pictures.contact_sheet([[red], [blue]]).size[0]


def test_one_picture_alone_has_no_frame():
    """What is drawn can be edited: as it is, or enlarged."""
    one = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(pictures.contact_sheet([[one]], scale=1), one)
    np.testing.assert_array_equal(pictures.contact_sheet([[one]], scale=2), one.repeat(2, 0).repeat(2, 1))
    assert pictures.contact_sheet([[one]], 1, ["a"]).size[1] == 4 + 2


def test_contact_sheet_of_nothing_or_of_unequal_pictures_says_so():
    with pytest.raises(UserError, match="none"):
        pictures.contact_sheet([])
    with pytest.raises(UserError, match="one size"):
        pictures.contact_sheet([[np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]])


def test_noise_belongs_to_its_seed():
    many = pictures.noise([3, 1, 2], 16)
    np.testing.assert_array_equal(many[1], pictures.noise([1], 16)[0])
    assert many.shape == (3, 4, 4, 48)
    assert abs(float(pictures.noise(list(range(50)), 32).std()) - 1) < 0.01


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["", "--config.distill.nfe=3", "--config.distill.shift=2.0"], (3, 2.0, 1.0, "euler")),
        (["", "--config.distill.rollout_mode=renoise"], (2, 1.0, 1.0, "renoise")),
        ([":teacher", "--config.sample.steps=5", "--config.sample.guidance_scale=3.0"], (5, 1.0, 3.0, "euler")),
    ],
)
def test_a_run_is_drawn_on_the_grid_that_it_is_meant_for(monkeypatch, request, tmp_path, argv, expected):
    """A student's is the one that it trains on, whatever the command line made of it."""
    file = f"{request.config.rootpath}/tests/configs/tiny_postcards.py"
    config, seen = configs.load([f"--config={file}{argv[0]}", *argv[1:]]), []

    def sample(params, cond, null, noise, grid, guidance_scale, mode):
        seen.append((grid, guidance_scale, mode))
        return noise

    monkeypatch.setattr(pictures, "make_sampler", lambda denoiser: sample)
    model = types.SimpleNamespace(Condition=lambda *parts: parts)
    encoder = types.SimpleNamespace(encode=lambda texts, max_tokens=None: [np.ones((2, 3), np.float32)] * len(texts))
    decode = weights.load_decoder(latents.PIXELS, config)
    pictures.make_drawer(config, model, None, encoder, decode, tmp_path, meshes.make_mesh(config.mesh))(None, 7)
    steps, shift, scale, mode = expected
    np.testing.assert_array_equal(seen[0][0], flow.time_grid(steps, shift))
    assert seen[0][1:] == (scale, mode)
    assert (tmp_path / "samples" / "step_000007.png").exists()


def test_pictures_are_drawn_on_the_runs_mesh(monkeypatch, request, tmp_path):
    """Attention's kernels for TPU look at the mesh and cannot be divided without it. Three pictures on eight devices
    are filled up, and are those that one device draws."""
    config = configs.load([f"--config={request.config.rootpath}/tests/configs/tiny_postcards.py"])
    model = models.architecture("qwen_image_21")
    sizes = models.make_config(model, config.model)
    denoiser, params = model.denoiser(sizes), model.init(sizes, jax.random.key(0))
    params["proj_out"]["kernel"] = jax.random.normal(jax.random.key(1), params["proj_out"]["kernel"].shape) * 0.1
    lengths = [4, 2, 3]
    cond = model.Condition(np.random.default_rng(0).normal(size=(3, 4, 384)).astype(np.float32), np.array(lengths))
    null = model.Condition(np.zeros((1, 2, 384), np.float32), np.array([2]))
    seen, attend = [], attention.attend

    def looked_at(q, *args, **kwargs):
        seen.append((axes.size(*axes.AXES), len(q)))
        return attend(q, *args, **kwargs)

    monkeypatch.setattr(attention, "attend", looked_at)
    found = []
    for devices, mesh in ((1, dict(data=1)), (8, dict(fsdp=4, tensor=2))):
        config.mesh.update(dict(data=1, fsdp=1, context=1, tensor=1) | mesh)
        on = meshes.make_mesh(config.mesh)
        placed = jax.device_put(params, sharding.shardings(model.abstract(sizes), on))
        drawn = pictures.make_drawn(config, denoiser, cond, null, [1, 2, 3], np.asarray, tmp_path, on)
        del seen[:]
        found.append(drawn(placed))
        assert {size for size, _ in seen} == {devices}
        assert max(rows for _, rows in seen) == {1: 3, 8: 4}[devices]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    config.batch_size = 2  # three at once would be more than the run has memory for
    config.mesh.update(dict(data=1, fsdp=1, tensor=1))
    del seen[:]
    one = meshes.make_mesh(config.mesh)
    drawn = pictures.make_drawn(config, denoiser, cond, null, [1, 2, 3], np.asarray, tmp_path, one)
    np.testing.assert_allclose(drawn(params), found[0], atol=1e-5)
    assert max(rows for _, rows in seen) == 2


def test_a_run_draws_prompts_of_its_own(monkeypatch, request, tmp_path):
    argv = f"--config={request.config.rootpath}/tests/configs/tiny_postcards.py", "--config.sample_prompts=('a', 'b')"
    config, said = configs.load(list(argv)), []

    def encode(texts, max_tokens=None):
        said.extend(texts)
        return [np.ones((2, 3), np.float32)] * len(texts)

    monkeypatch.setattr(pictures, "make_sampler", lambda denoiser: lambda params, cond, null, noise, *_: noise)
    model, encoder = types.SimpleNamespace(Condition=lambda *parts: parts), types.SimpleNamespace(encode=encode)
    decode, mesh = weights.load_decoder(latents.PIXELS, config), meshes.make_mesh(config.mesh)
    told = pictures.make_drawer(config, model, None, encoder, decode, tmp_path, mesh)(None, 1)
    assert said == ["a", "b", "a", "b", ""] and told["samples/spread"] > 0
    with pytest.raises(UserError, match=r"sample_prompts is \(1,\); it has to be texts"):
        settings.check_settings(configs.load([argv[0], "--config.sample_prompts=(1,)"]))


def test_drift_of_pictures_that_are_known():
    """Grey has no saturation, pure red all of it; a picture half black, half white has a deviation of a half."""
    images = np.zeros((2, 2, 4, 4, 3), np.uint8)
    images[:, 0, :2] = 255
    images[:, 1, ..., 0] = 255
    told = pictures.drift(images)
    assert told["samples/saturation"] == 0.5
    np.testing.assert_allclose(told["samples/contrast"], (0.5 + np.sqrt(2 / 9)) / 2)
    assert told["samples/spread"] == 0
    images[1] = 255 - images[1]
    assert pictures.drift(images, "samples/edit_")["samples/edit_spread"] == 1
