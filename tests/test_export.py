"""An exported model is the model that was trained: same weights, same grid, same pictures, in other tools' terms."""

import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest

from flashjax import cli, convert, export, flow, paths, pictures, pipeline
from flashjax.distill import rollout
from flashjax.errors import UserError
from flashjax.models import pixels
from flashjax.models import qwen_image_21 as model

CONFIG = model.Config.postcards(width=32, layers=2, heads=2, axes_dims=(4, 6, 6))


class Encoder:
    """Stands for the text encoder: states that depend on the prompt only."""

    width = 384

    def encode(self, texts, max_tokens=None):
        return [np.random.default_rng(len(t)).normal(size=(2 + len(t) % 5, 384)).astype(np.float32) for t in texts]


def described(steps=4, shift=3.0, mode="euler"):
    return dict(
        architecture="qwen_image_21",
        sampling=dict(steps=steps, shift=shift, guidance_scale=1.0, mode=mode),
        image_size=16,
        max_text_tokens=8,
        sigmas=flow.time_grid(steps, shift).tolist(),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An exported model with random weights; proj_out is not left at zero, or every picture would be the noise."""
    path = tmp_path_factory.mktemp("model")
    params = model.init(CONFIG, jax.random.key(0))
    params["proj_out"]["kernel"] = jax.random.normal(jax.random.key(1), params["proj_out"]["kernel"].shape) * 0.1
    for name in ("transformer", "scheduler"):
        (path / name).mkdir()
    weights = path / "transformer" / "diffusion_pytorch_model.safetensors"
    convert.save("qwen_image_21", jax.tree.map(np.asarray, params), weights)
    (path / "transformer" / "config.json").write_text(json.dumps(CONFIG.to_diffusers()))
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(export.scheduler_config(described())))
    return path


def test_the_model_config_survives_the_round_trip():
    assert model.Config.from_diffusers(CONFIG.to_diffusers()) == CONFIG


@pytest.mark.parametrize("changes", [dict(theta=500.0), dict(padded_positions=True)], ids=str)
def test_what_diffusers_cannot_be_told_is_not_exported(changes, tmp_path):
    """Its class has 10,000 for theta: another function was drawn, without a word."""
    config = dataclasses.replace(CONFIG, **changes)
    params = model.init(config, jax.random.key(0))
    (name,) = changes
    with pytest.raises(UserError, match=f"config.model.{name} is {changes[name]}, which diffusers' class does not ha"):
        export.write(tmp_path, params, config, described())
    assert list(tmp_path.iterdir()) == []
    how = dataclasses.replace(CONFIG, dtype="bfloat16", remat="full", attention="xla")
    export.write(tmp_path, params, how, described())


def test_an_encoder_of_another_width_is_told(folder):
    """Prompts may have been prepared with a released model's."""

    class Wide(Encoder):
        def encode(self, texts, max_tokens=None):
            return [np.ones((3, 64), np.float32) for _ in texts]

    with pytest.raises(UserError, match="reads text states of 384 numbers, and the encoder at hand makes 64: its"):
        pipeline.load(str(folder)).draw(["a"], [0], Wide())


@pytest.mark.parametrize(("steps", "shift"), [(4, 1.0), (4, 3.0), (8, 2.5), (1, 1.0)])
def test_diffusers_scheduler_visits_the_trained_grid(steps, shift):
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = export.scheduler_config(described(steps, shift))
    config.pop("flashjax")
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps))
    # float32 on both sides, one division more in diffusers
    np.testing.assert_allclose(scheduler.sigmas.numpy(), flow.time_grid(steps, shift), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", rollout.MODES)
def test_diffusers_scheduler_steps_as_the_rollout_does(mode):
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = export.scheduler_config(described(mode=mode))
    scheduler = FlowMatchEulerDiscreteScheduler.from_config({k: v for k, v in config.items() if k != "flashjax"})
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / 4, 4))
    z, v = np.random.default_rng(0).normal(size=(2, 2, 4, 4, 48)).astype(np.float32)
    torch.manual_seed(0)
    noise = torch.randn(z.shape).numpy()
    torch.manual_seed(0)
    there = scheduler.step(torch.tensor(v), scheduler.timesteps[0], torch.tensor(z)).prev_sample
    t, t_next = (np.full(2, t, np.float32) for t in flow.time_grid(4, 3.0)[:2])
    np.testing.assert_allclose(there.numpy(), rollout.advance(v, z, t, t_next, mode, noise), rtol=0, atol=1e-5)


def test_drawing_is_the_rollout_on_the_grid(folder):
    pipe = pipeline.load(str(folder))
    drawn = pipe.draw(["a", "bcd"], [5, 6], Encoder())
    denoiser = model.denoiser(CONFIG)
    cond, _ = pictures.conditions(model, Encoder(), ["a", "bcd"], 8)
    context = denoiser.condition(pipe.params, cond)
    z = pictures.noise([5, 6], 16)
    grid = flow.time_grid(4, 3.0)
    for t, t_next in itertools.pairwise(grid):
        z = z + (t_next - t) * denoiser.velocity(pipe.params, context, z, np.full(2, t, np.float32))
    # rounding to 8 bit may fall on either side of a half
    assert np.abs(drawn.astype(int) - pixels.to_uint8(pixels.decode(z)).astype(int)).max() <= 1


@pytest.mark.parametrize("mode", rollout.MODES)
def test_a_picture_depends_on_its_prompt_and_seed_alone(folder, mode):
    pipe = pipeline.load(str(folder))
    together = pipe.draw(["a", "bc", "def"], [1, 2, 3], Encoder(), batch=2, mode=mode)
    for prompt, seed, expected in zip(["a", "bc", "def"], [1, 2, 3], together, strict=True):
        alone = pipe.draw([prompt], [seed], Encoder(), mode=mode)[0]
        assert np.abs(expected.astype(int) - alone.astype(int)).max() <= 1
    assert (together[0] != pipe.draw(["a"], [9], Encoder(), mode=mode)[0]).any()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_devices_draw_what_one_draws(folder, scale):
    """Five pictures on eight devices, each of which draws its own row."""
    pipe, where = pipeline.load(str(folder)), []
    asked = ["a", "bcd", "ef", "g", "hijk"], [5, 6, 7, 8, 9], Encoder()

    def sample(*inputs):
        where.append(spread.sample(*inputs))
        return where[-1]

    spread = pipeline.spread(pipe)
    drawn = dataclasses.replace(spread, sample=sample).draw(*asked, batch=5, guidance_scale=scale)
    assert np.abs(drawn.astype(int) - pipe.draw(*asked, guidance_scale=scale)).max() <= 1
    assert {shard.data.shape[0] for shard in where[0].addressable_shards} == {1}
    assert len(where[0].sharding.device_set) == 8


def test_guidance_uses_the_null_condition(folder):
    pipe = pipeline.load(str(folder))
    plain = pipe.draw(["abcd"], [1], Encoder())
    assert (pipe.draw(["abcd"], [1], Encoder(), guidance_scale=4.0) != plain).any()


def test_a_folder_that_is_no_model_says_so(tmp_path):
    with pytest.raises(UserError, match="neither a run's work directory nor an exported model"):
        pipeline.load(str(tmp_path))
    (tmp_path / "transformer").mkdir()
    with pytest.raises(UserError, match=r"not a complete exported model \(scheduler/sch.*json: No such file or direc"):
        pipeline.load(str(tmp_path))


NO_STEPS = described()["sampling"] | dict(steps=0)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("transformer/config.json", dict(_class_name="UNet2DConditionModel"), "lacks in_channels, context_in_dim"),
        ("scheduler/scheduler_config.json", dict(flashjax=dict(sampling={})), "not a complete .*architecture"),
        ("scheduler/scheduler_config.json", dict(flashjax=described() | dict(sampling={})), "not a complete .*steps"),
        ("scheduler/scheduler_config.json", [], "not a complete exported model"),
        ("transformer/config.json", [], "transformer/config.json is not a JSON object; fetch it again."),
        ("transformer/config.json", CONFIG.to_diffusers() | dict(num_layers="7"), "json has num_layers = '7', wh"),
        ("scheduler/scheduler_config.json", dict(flashjax=described() | dict(sampling=NO_STEPS)), "one step, not 0"),
    ],
)
def test_another_models_files_are_told(folder, tmp_path, file, content, words):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        pipeline.load(str(tmp_path / "copy"))


def test_an_exported_model_has_one_set_of_weights(folder):
    with pytest.raises(UserError, match="leave out --which and --step"):
        pipeline.load(str(folder), "student")
    with pytest.raises(UserError, match="leave out --which and --step"):
        pipeline.load(str(folder), step=4)


def test_converted_weights_load_as_well(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    inner, converted = tmp_path / "copy" / "transformer", tmp_path / "converted"
    assert cli.main(["convert", "--model", "qwen_image_21", "--source", str(inner), "--out", str(converted)]) == 0
    shutil.rmtree(inner)
    converted.rename(inner)
    found, expected = (paths.flatten(pipeline.load(str(f)).params) for f in (tmp_path / "copy", folder))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_pixels_round_trip():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3)).astype(np.uint8)
    latents = pixels.encode(images.astype(np.float32) / 127.5 - 1)
    assert latents.shape == (3, 4, 6, 48)
    np.testing.assert_array_equal(pixels.to_uint8(pixels.decode(latents)), images)
    # a patch holds its own pixels, row by row
    np.testing.assert_allclose(latents[0, 1, 2].reshape(4, 4, 3), images[0, 4:8, 8:12].astype(np.float32) / 127.5 - 1)
