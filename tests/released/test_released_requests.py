"""Released models as the command draws with them: their folders, what is in memory, and requests that cannot be."""

import dataclasses
import inspect
import json
import os
import shutil

import jax
import numpy as np
import pytest
import tiny_pipelines
from PIL import Image
from requests_of import SIZE, pictures, small

from flashjax import cli, convert, export, flow, released
from flashjax.commands import sample as command
from flashjax.errors import UserError
from flashjax.models import qwen_image_21
from flashjax.released import drawing


def test_one_network_is_in_memory_at_a_time(light, monkeypatch):
    ours, seen, read = released.load(light), [], convert.load

    def load(name, *args):
        parts = ours.encoder.part, ours.denoiser, ours.autoencoder
        seen.append([part.name for part in parts if "params" in vars(part)])
        return read(name, *args)

    monkeypatch.setattr(convert, "load", load)
    settings = dict(steps=2, **SIZE)
    drawn = small(ours).draw(["a red fox"], [1], pictures(1), **settings)
    assert seen == [[]] * 4  # the encoder, the autoencoder for the reference and again for the picture, the denoiser
    assert not any("params" in vars(part) for part in (ours.encoder.part, ours.denoiser, ours.autoencoder))
    assert drawn.dtype == np.uint8 and drawn.shape == (1, 64, 96, 4)
    keeping = dataclasses.replace(small(ours), keep=True)
    np.testing.assert_array_equal(keeping.draw(["a red fox"], [1], pictures(1), **settings), drawn)
    keeping.draw(["a red fox"], [1], pictures(1), **settings)
    assert len(seen) == 7


def test_large_pictures_go_through_the_autoencoder_in_tiles(light, monkeypatch):
    whole, large = released.load(light, keep=True), released.load(light, keep=True)
    monkeypatch.setattr(drawing, "WHOLE", 0)
    monkeypatch.setattr(drawing, "TILE", 64)
    monkeypatch.setattr(drawing, "OVERLAP", 32)
    params, rng = large.autoencoder.params, np.random.default_rng(0)
    pairs = (
        ("_decode", rng.normal(size=(1, 4, 6, 4)).astype(np.float32)),
        ("_encode", rng.uniform(-1, 1, (1, 64, 96, 4)).astype(np.float32)),
    )
    for name, x in pairs:
        tiled = np.asarray(getattr(large, name)(params, x))
        with monkeypatch.context() as patch:
            patch.setattr(drawing, "WHOLE", 64 * 96)
            exact = np.asarray(getattr(whole, name)(params, x))
        assert tiled.shape == exact.shape and 1e-4 < np.abs(tiled - exact).mean() / exact.std() < 0.3


def test_weights_keep_their_precision(light):
    """bfloat16 is read and computed with as bfloat16, and moves the picture a little."""
    exact = released.load(light)
    part = exact.denoiser
    rough = jax.tree.map(lambda x: np.asarray(x.astype("bfloat16")), part.params)
    part.drop()
    convert.save(part.name, rough, part.folder / "diffusion_pytorch_model.safetensors")
    ours = released.load(light)
    assert ours.denoiser.config.dtype == ours.denoiser.dtype == "bfloat16" and exact.denoiser.dtype == np.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(ours.denoiser.params)} == {"bfloat16"}
    ours.denoiser.drop()
    assert ours.encoder.part.dtype == np.float32
    assert ours.draw(["a red fox"], [1], steps=2, **SIZE).std() > 1


def test_weights_that_are_nan_draw_no_black_picture(light):
    part = released.load(light).denoiser
    params = jax.tree.map(np.asarray, part.params)
    params["img_in"]["kernel"] = params["img_in"]["kernel"] * np.float32(np.nan)
    convert.save(part.name, params, part.folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(FloatingPointError, match="weights of the model are NaN, infinite or too large"):
        released.load(light).draw(["a red fox"], [1], steps=2, **SIZE)


def test_the_folder_decides_how_it_is_sampled(light, pairs):
    given = [1.0, 0.9, 0.5]
    index = dict(_class_name="QwenImage21Pipeline", sample_sigmas=given)
    (light / "model_index.json").write_text(json.dumps(index))
    (light / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(shift=1.0)))
    ours = released.load(light)
    np.testing.assert_allclose(ours.plan(["a"]).grid, [*given, 0])
    with pytest.raises(UserError, match="made for 3 given steps, not 4; leave out --steps"):
        ours.plan(["a"], steps=4)
    # A student of the model, whose scheduler was put into the folder, has its own grid.
    sampling = dict(steps=4, shift=3.0, guidance_scale=1.0, mode="euler")
    about = dict(architecture="qwen_image_21", sampling=sampling, image_size=64, max_text_tokens=8, sigmas=[])
    scheduler = light / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(export.scheduler_config(about)))
    np.testing.assert_allclose(released.load(light).plan(["a"]).grid, flow.time_grid(4, 3.0), atol=1e-6)
    klein = shutil.copytree(pairs("flux2_klein")[2], light.parent / "klein")
    (klein / "model_index.json").write_text(json.dumps(dict(_class_name="Flux2KleinPipeline", is_distilled=True)))
    plan = released.load(klein).plan(["a"])
    assert (len(plan.grid), plan.guidance_scale, plan.negative, plan.size) == (5, 1.0, [], (64, 64))


@pytest.mark.parametrize("family", released.FAMILIES)
def test_the_defaults_are_those_of_diffusers(family):
    about, cls = released.FAMILIES[family], tiny_pipelines.FAMILIES[family][0]
    settings = inspect.signature(cls.__call__).parameters
    scale = settings["true_cfg_scale" if "true_cfg_scale" in settings else "guidance_scale"].default
    assert about.pipeline == cls.__name__ and about.steps == settings["num_inference_steps"].default
    assert about.guidance_scale == scale + (family == "z_image")
    assert (about.references[1] == 0) == ("image" not in settings)


# -- the command -----------------------------------------------------------------------------------------------------


def sample(folder, out, *argv: str) -> int:
    return cli.main(["sample", f"--weights={folder}", f"--out={out}", "--prompt", "a red fox", *argv])


def test_a_png_says_what_made_it(light, tmp_path):
    reference, out = tmp_path / "given.png", tmp_path / "x.png"
    pictures(1)[0].save(reference)
    argv = ["snow", "--seed=7", "--steps=2", "--size=96x64", "--guidance=3", "--negative=blurred"]
    assert sample(light, out, *argv) == 0
    with Image.open(out) as image:
        assert image.size == (2 * 96, 64) and image.mode == "RGBA"
        assert image.text == dict(
            prompt="a red fox | snow", seed="7", steps="2", guidance="3.0", model=f"qwen_image_21 {light}",
            negative="blurred",
        )  # fmt: skip
        drawn = np.asarray(image)
    expected = released.load(light).draw(
        ["a red fox", "snow"], [7, 8], steps=2, guidance_scale=3.0, negative_prompt="blurred", **SIZE
    )
    np.testing.assert_array_equal(drawn, np.concatenate(expected, axis=1))


def test_a_name_that_is_no_utf_8_does_not_cost_the_picture(tmp_path):
    """It stands in the PNG that is written when all has been drawn."""
    command._save(Image.new("RGB", (8, 8)), tmp_path / "x.png", dict(image=os.fsdecode(b"caf\xe9.png")))
    with Image.open(tmp_path / "x.png") as image:
        assert image.text["image"] == "caf\\udce9.png"


@pytest.mark.parametrize(
    ("family", "argv", "sentence"),
    [
        ("qwen_image_21", ["--model=sdxl"], "There is no family 'sdxl' of released models; there are qwen_image_21, "),
        ("qwen_image_21", ["--size=100"], "Pictures of 100 x 100 do not divide; qwen_image_21 takes multiples of 32."),
        ("z_image", ["--size=64x72"], "Pictures of 64 x 72 do not divide; z_image takes multiples of 16."),
        ("qwen_image_21", ["--steps=0"], "A time grid needs at least one step, not 0."),
        ("qwen_image_21", ["--steps=1"], "A grid of one step cannot end at 0.02"),
        ("qwen_image_21", ["--negative=a"], "A negative prompt does nothing at guidance 1"),
        ("qwen_image_21", ["--image=none.png"], "The picture none.png cannot be read ("),
        ("qwen_image_21", ["--image=text.png"], "The picture text.png cannot be read (cannot identify"),
        ("qwen_image_21", ["--image=deep.tiff"], "The picture deep.tiff cannot be read (pixels of the mode F have no"),
        ("flux2_klein", ["--image=exif.webp"], "The picture exif.webp cannot be read ("),
        ("qwen_image_21", ["--which=ema"], "--which does nothing with --weights; leave it out."),
        ("z_image", ["--image=given.png"], "z_image draws from text alone; it was given 1 (--image)."),
        ("qwen_image_edit", [], "qwen_image_edit edits pictures; give it one (--image)."),
        ("qwen_image_edit_plus", [], "qwen_image_edit_plus edits pictures; give it at least one (--image)."),
        ("qwen_image_edit", ["--image", "given.png", "given.png"], "edits 1 picture at a time; it was given 2"),
        ("flux2_klein", ["--image=dot.png"], "A picture is 8 x 8; sides take 16 pixels at least."),
        ("qwen_image_21", ["--image=line.png"], "A picture is 603 x 3; one side is 200 times the other at most."),
        ("z_image", ["--guidance=0"], "Guidance 0 leads to the negative prompt; 1 is none, and what Z-Image's"),
        ("z_image", ["--prompt", "a " * 600], "tokens with its template, the limit is 512; shorten it."),
    ],
)
def test_requests_that_cannot_be(pairs, monkeypatch, capsys, tmp_path, family, argv, sentence):
    """Before a weight is read."""
    folder = pairs(family)[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(convert, "load", None)
    pictures(1)[0].save("given.png")
    Image.new("RGB", (8, 8)).save("dot.png")
    Image.new("RGB", (603, 3)).save("line.png")
    Image.new("F", (64, 64)).save("deep.tiff")
    Image.new("RGB", (64, 64)).save("exif.webp", exif=b"Exif\0\0MM\0*\0\0")  # ends inside of a number
    (tmp_path / "text.png").write_text("x")
    assert sample(folder, "out.png", *argv) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("flashjax sample: ") and sentence in said
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder / "vae"), "There is no {}/vae; a pipeline's folder holds one."),
        (
            lambda folder: (folder / "vae/config.json").write_text('{"_class_name": "AutoencoderKL"}'),
            "{}/vae/config.json is of a AutoencoderKL, not of an AutoencoderKLQwenImage21.",
        ),
        (lambda folder: shutil.rmtree(folder / "processor"), "There is no tokenizer_config.json in {}/tokenizer or "),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "There is no {}/scheduler/scheduler_config.json"),
        (lambda folder: (folder / "model_index.json").unlink(), "There is no {}/model_index.json; --weights takes"),
        (lambda folder: (folder / "model_index.json").write_text("x"), "{}/model_index.json is not valid JSON"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "{}/model_index.json is not a JSON object"),
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}'),
            "{} holds a FluxPipeline; there are QwenImage21Pipeline, ",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"use_beta_sigmas": true}'),
            "scheduler_config.json has use_beta_sigmas, which is not built.",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"_class_name": "DDIMScheduler"}'),
            "scheduler_config.json is of a DDIMScheduler; only FlowMatchEulerDiscreteScheduler is built.",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"shift": "x"}'),
            "{}/scheduler/scheduler_config.json has shift = 'x', which should be a number between 0 and 1e+30; "
            "fetch it again.",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"flashjax": {"sampling": [4]}}'),
            "scheduler_config.json has sampling = [4], which should be an object",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"time_shift_type": "sqrt"}'),
            "{}/scheduler/scheduler_config.json has time_shift_type = 'sqrt', which should be exponential or linear.",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"shift_terminal": 2}'),
            "{}/scheduler/scheduler_config.json has shift_terminal = 2, which should be a number from 0 to less than 1",
        ),
        (
            lambda folder: (folder / "model_index.json").write_text('{"_class_name": ["a"]}'),
            "{} holds a model without _class_name; there are QwenImage21Pipeline, ",
        ),
        (
            lambda folder: (folder / "model_index.json").write_text('{"sample_sigmas": {"a": 1}}'),
            "{}/model_index.json has sample_sigmas = {{'a': 1}}, which should be a list of numbers",
        ),
        (
            lambda folder: (folder / "transformer/diffusion_pytorch_model.safetensors").unlink(),
            "{}/transformer",
        ),
    ],
)
def test_folders_that_are_not_whole(light, monkeypatch, capsys, spoil, sentence):
    monkeypatch.setattr(convert, "load", None)
    spoil(light)
    assert sample(light, light / "out.png") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("flashjax sample: ") and sentence.format(light) in said


NO_TOKENIZER = {
    "nothing in it": (lambda whole: {}, "'added_tokens'"),
    "no model": (lambda whole: {key: value for key, value in whole.items() if key != "model"}, "Model missing."),
    "an empty model": (lambda whole: whole | {"model": {}}, "did not match any variant"),
    "a list": (lambda whole: [], ""),
    "null": (lambda whole: None, ""),
    "a number for the added tokens": (lambda whole: whole | {"added_tokens": 3}, ""),
}


@pytest.mark.parametrize("name", NO_TOKENIZER)
def test_json_that_is_no_tokenizer_is_told(pairs, tmp_path, name):
    """tokenizers raises the bare class Exception; transformers stumbles in its own ways before."""
    change, words = NO_TOKENIZER[name]
    shutil.copytree(pairs("qwen_image_21")[2] / "processor", tmp_path / "processor")
    file = tmp_path / "processor" / "tokenizer.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(UserError) as told:
        released.load_encoder(tmp_path, "qwen_image_21")
    said = str(told.value)
    assert said.startswith(f"The tokenizer in {tmp_path}/processor cannot be read (") and words in said
    assert said.endswith("; fetch it again.") and said.isprintable()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_max_length": "x"}, "not supported between"),
        ({"tokenizer_class": 3}, "no attribute"),
        ({"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, "contains custom code"),
    ],
)
def test_settings_of_no_tokenizer_are_told(pairs, monkeypatch, tmp_path, settings, words):
    """And nobody is asked whether to run code that lies there."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody is asked"))
    shutil.copytree(pairs("qwen_image_21")[2] / "processor", tmp_path / "processor")
    file = tmp_path / "processor" / "tokenizer_config.json"
    kept = {} if "auto_map" in settings else json.loads(file.read_text())
    file.write_text(json.dumps(kept | settings))
    with pytest.raises(UserError, match=f"The tokenizer in .*processor cannot be read .*{words}"):
        released.load_encoder(tmp_path, "qwen_image_21")


def test_networks_of_different_models_are_told_apart(light):
    file = light / "transformer" / "config.json"
    config = qwen_image_21.Config.from_diffusers(json.loads(file.read_text()))
    for change, sentence in (
        (dict(in_channels=8), "/vae makes latents of 4 channels, .*/transformer takes 8"),
        (dict(context_dim=16), "/text_encoder makes states of 32 channels, .*/transformer takes 16"),
    ):
        other = dataclasses.replace(config, **change)
        file.write_text(json.dumps(other.to_diffusers()))
        params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), qwen_image_21.abstract(other))
        convert.save("qwen_image_21", params, file.parent / "diffusion_pytorch_model.safetensors")
        with pytest.raises(UserError, match=sentence):
            released.load(light)


@pytest.mark.parametrize("argv", [[], ["--weights=a", "--checkpoint=b"]])
def test_exactly_one_model_is_drawn_with(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sample", *argv, "--prompt=a", "--out=b.png"])
    assert stopped.value.code == 2
    assert "--checkpoint" in capsys.readouterr().err.strip().splitlines()[-1]
