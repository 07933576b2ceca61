"""Whole released models against diffusers' own pipelines: the same folder, prompts, pictures and noise."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image

from flashjax import cli, convert, export, flow, models, released
from flashjax.errors import UserError
from flashjax.models import pixels, qwen_image_21
from flashjax.released import drawing, families

SIZE = dict(height=64, width=96)
STEPS = 6
SIDE, SEEN = 80, 60  # square roots of the areas of references and of what Edit-2509's encoder sees: not 1024 and 384
PROMPTS = ["a red fox", "a very red fox in the snow"]
# The largest difference found is 1.1e-5, of pictures with a standard deviation of 0.05 to 0.09.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """family -> (diffusers' pipeline, ours, the folder of both)."""

    @functools.cache
    def make(family):
        folder = tmp_path_factory.mktemp(family)
        theirs = tiny_pipelines.make(family, folder)
        return theirs, released.load(folder, keep=True), folder

    return make


def as_theirs(family: str, z) -> torch.Tensor:
    """One picture's latents [1, h, w, C] as diffusers' pipeline takes them."""
    if family == "z_image":
        z = pixels.decode(z, 2)
    z = torch.tensor(np.asarray(z))
    return z.permute(0, 3, 1, 2) if family in ("z_image", "flux2_klein") else z.flatten(1, 2)


def compare(family, theirs, ours, settings, images=(), size=SIZE, **own):
    """Both batches of pictures; theirs one by one, since its neighbour's length moves a prompt of 2.1."""
    plan = ours.plan(PROMPTS, images, steps=STEPS, **size, **own)
    mine, noise = (ours.decode(ours.sample(plan, [1, 2])) + 1) / 2, ours.noise(plan, [1, 2])
    assert mine.shape == (2, *(ours.stride * side for side in plan.size), 4 if family == "qwen_image_21" else 3)
    for i, prompt in enumerate(PROMPTS):
        expected = theirs(
            prompt=prompt, latents=as_theirs(family, noise[i : i + 1]), num_inference_steps=STEPS, output_type="np",
            **size, **settings,
        ).images  # fmt: skip
        assert expected.std() > 0.02 and np.mean((expected == 0) | (expected == 1)) < 0.2
        np.testing.assert_allclose(mine[i], expected[0], rtol=0, atol=TOLERANCE)


# -- equality --------------------------------------------------------------------------------------------------------

# our settings, and theirs: Z-Image's pipeline counts guidance from 0
TEXT_TO_IMAGE = {
    "qwen_image_21": ({}, {}),
    "qwen_image_21 guided": (
        dict(guidance_scale=3.0, negative_prompt="blurred"), dict(true_cfg_scale=3.0, negative_prompt="blurred"),
    ),
    "qwen_image": (dict(negative_prompt="blurred"), dict(true_cfg_scale=4.0, negative_prompt="blurred")),
    "qwen_image as it is": ({}, dict(negative_prompt=" ")),
    "z_image": ({}, {}),
    "z_image Turbo": (dict(guidance_scale=1.0), dict(guidance_scale=0.0)),
    "flux2_klein": ({}, {}),
    "flux2_klein distilled": (dict(guidance_scale=1.0), dict(guidance_scale=1.0)),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXT_TO_IMAGE)
def test_text_to_image_is_that_of_diffusers(pairs, case):
    family, (own, settings) = case.split()[0], TEXT_TO_IMAGE[case]
    theirs, ours, _ = pairs(family)
    compare(family, theirs, ours, settings, **own)


def pictures(count: int, mode: str = "RGB") -> list[Image.Image]:
    """Of different sizes, with edges that resizing has to treat alike."""
    rng, sizes = np.random.default_rng(0), [(70, 100), (110, 64)]
    channels = len(mode)
    arrays = [np.kron(rng.integers(0, 256, (h // 7 + 1, w // 7 + 1, channels)), np.ones((7, 7, 1))) for h, w in sizes]
    return [
        Image.fromarray(array[:h, :w].astype(np.uint8), mode)
        for array, (h, w) in zip(arrays[:count], sizes, strict=False)
    ]


def small(ours, vision: int = SIDE):
    """With small references."""
    about, rules = dataclasses.replace(ours.family, area=SIDE**2), ours.encoder.rules
    encoder = dataclasses.replace(ours.encoder, rules=dataclasses.replace(rules, area=vision**2))
    return dataclasses.replace(ours, family=about, encoder=encoder)


def smaller(calculate_dimensions):
    return lambda area, ratio: calculate_dimensions(SIDE**2 if area == 1024**2 else area, ratio)


# family, references, theirs
EDITS = {
    "qwen_image_21 one": (1, dict(output_resolution=SIDE)),
    "qwen_image_21 two": (2, dict(output_resolution=SIDE)),
    "qwen_image_edit": (1, dict(negative_prompt=" ")),
    "qwen_image_edit_plus one": (1, dict(negative_prompt=" ")),
    "qwen_image_edit_plus two": (2, dict(negative_prompt=" ")),
    "flux2_klein one": (1, {}),
    "flux2_klein two": (2, {}),
}


def test_what_is_transparent_in_a_reference_is_white(pairs):
    """To networks that take RGB, as to those that were trained on such pictures here; the colour under it does not
    show."""
    _, ours, _ = pairs("flux2_klein")
    hidden = Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0))
    plan = ours.plan(["a"], [hidden])
    assert (plan.references[0] == 255).all()


@pytest.mark.parametrize("case", EDITS)
def test_edits_are_those_of_diffusers(pairs, monkeypatch, case):
    """At the size of the reference, which both take from it."""
    family, (count, settings) = case.split()[0], EDITS[case]
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        monkeypatch.setattr(module, "calculate_dimensions", smaller(module.calculate_dimensions))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", SEEN**2)
    theirs, ours, _ = pairs(family)
    if family != "flux2_klein":
        ours = small(ours, SEEN if family == "qwen_image_edit_plus" else SIDE)
    given = pictures(count, "RGBA" if family == "qwen_image_21" else "RGB")
    settings = settings | dict(image=given[0] if count == 1 else given)
    compare(family, theirs, ours, settings, given, size={})


@pytest.mark.parametrize("size", [(1400, 1000), (90, 500), (1024, 1024), (1025, 1030)])
def test_large_references_of_flux_are_shrunk_and_cut_as_diffusers_does(size):
    processor = Flux2KleinPipeline.__init__.__globals__["Flux2ImageProcessor"](vae_scale_factor=16)
    given = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    image = processor._resize_if_exceeds_area(given)
    sides = dict(zip(("width", "height"), (side // 16 * 16 for side in image.size), strict=True))
    expected = processor.preprocess(image, **sides, resize_mode="crop")[0].permute(1, 2, 0)
    ours = np.asarray(families.cropped(given, 1024**2, 16), np.float32) / 127.5 - 1
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-6)


def test_every_part_of_a_request_matters(pairs):
    """Else the equalities above would say little: prompt, negative prompt, guidance, order of the references."""
    ours, given = small(pairs("qwen_image_21")[1]), pictures(2)

    def draw(text="a red fox", images=given, scale=3.0, negative="blurred"):
        plan = ours.plan([text], images, steps=2, guidance_scale=scale, negative_prompt=negative, **SIZE)
        return ours.decode(ours.sample(plan, [1]))

    first = draw()
    others = draw("snow"), draw(images=given[::-1]), draw(scale=4.0), draw(negative="snow")
    assert min(np.abs(other - first).max() for other in others) > 100 * TOLERANCE


def export_student(family: str, folder, target, mode: str = "euler"):
    """A copy of a pipeline's folder with a student of random weights, four steps at a static shift, as `flashjax
    export` writes it."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("transformer", "scheduler"))
    name = released.FAMILIES[family].denoiser
    module = models.architecture(name)
    config = module.Config.from_diffusers(json.loads((folder / "transformer" / "config.json").read_text()))
    rng = np.random.default_rng(0)

    def draw(leaf):
        return (rng.normal(size=leaf.shape) * (leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 0.4)).astype(np.float32)

    described = dict(
        architecture=name, sampling=dict(steps=4, shift=3.0, guidance_scale=1.0, mode=mode), image_size=64,
        max_text_tokens=64, sigmas=flow.time_grid(4, 3.0).tolist(),
    )  # fmt: skip
    export.write(target, jax.tree.map(draw, module.abstract(config)), config, described)
    return target


# what the family's pipeline calls no guidance
STUDENTS = {
    "qwen_image_21": {},
    "qwen_image_21 edit": dict(output_resolution=SIDE),
    "qwen_image": dict(true_cfg_scale=1.0),
    "z_image": dict(guidance_scale=0.0),
    "flux2_klein": dict(guidance_scale=1.0),
    "flux2_klein edit": dict(guidance_scale=1.0),
}


@pytest.mark.parametrize("case", STUDENTS)
def test_an_exported_student_draws_the_same_in_both(pairs, tmp_path, case):
    """diffusers' pipeline with the exported transformer and scheduler."""
    family, count, settings = case.split()[0], int("edit" in case), STUDENTS[case]
    theirs, _, folder = pairs(family)
    folder = export_student(family, folder, tmp_path / "student")
    ours = released.load(folder)
    given = pictures(count, "RGBA" if family == "qwen_image_21" else "RGB")
    if family == "qwen_image_21":
        ours = small(ours)
    plan = ours.plan(["a red fox"], given, **SIZE)
    assert (plan.guidance_scale, ours.defaults["mode"]) == (1.0, "euler")
    np.testing.assert_array_equal(plan.grid, flow.time_grid(4, 3.0))
    components = theirs.components | dict(
        transformer=tiny_pipelines.FAMILIES[family][2].from_pretrained(folder / "transformer"),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
    )
    student = type(theirs)(**components)
    student.set_progress_bar_config(disable=True)
    image = dict(image=given[0]) if count else {}
    expected = student(
        prompt="a red fox", latents=as_theirs(family, ours.noise(plan, [1])), num_inference_steps=4, output_type="np",
        **SIZE, **settings, **image,
    ).images  # fmt: skip
    mine = (ours.decode(ours.sample(plan, [1])) + 1) / 2
    assert expected.std() > 0.02
    np.testing.assert_allclose(mine, expected, rtol=0, atol=TOLERANCE)


def test_a_student_that_adds_noise_says_so(pairs, tmp_path):
    """Its noise is drawn by another generator in diffusers; test_export.py compares the steps."""
    ours = released.load(export_student("qwen_image_21", pairs("qwen_image_21")[2], tmp_path / "student", "renoise"))
    assert ours.defaults["mode"] == "renoise"


def test_every_prompt_has_a_seed(pairs):
    with pytest.raises(ValueError, match="There are 2 prompts and 1 seeds"):
        pairs("qwen_image_21")[1].draw(PROMPTS, [1], **SIZE)


# -- folders, memory -------------------------------------------------------------------------------------------------


@pytest.fixture
def light(pairs, monkeypatch, tmp_path):
    """A copy of Qwen-Image-2.1's folder. Its encoder's 36 layers stand for themselves."""
    return shutil.copytree(pairs("qwen_image_21")[2], tmp_path / "model")


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


def test_the_folder_decides_how_it_is_sampled(light, pairs):
    given = [1.0, 0.9, 0.5]
    index = dict(_class_name="QwenImage21Pipeline", sample_sigmas=given)
    (light / "model_index.json").write_text(json.dumps(index))
    (light / "scheduler" / "scheduler_config.json").write_text(json.dumps(dict(shift=1.0)))
    ours = released.load(light)
    np.testing.assert_allclose(ours.plan(["a"]).grid, [*given, 0])
    with pytest.raises(UserError, match="made for 3 given steps, not 4; leave out --steps"):
        ours.plan(["a"], steps=4)
    klein = shutil.copytree(pairs("flux2_klein")[2], light.parent / "klein")
    (klein / "model_index.json").write_text(json.dumps(dict(_class_name="Flux2KleinPipeline", is_distilled=True)))
    plan = released.load(klein).plan(["a"])
    assert (len(plan.grid), plan.guidance_scale, plan.negative, plan.size) == (5, 1.0, [], (64, 64))


@pytest.mark.parametrize("family", released.FAMILIES)
def test_the_defaults_are_those_of_diffusers(family):
    import inspect

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
        ("qwen_image_21", ["--which=ema"], "--which does not go with --weights; leave it out."),
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
            "{}/scheduler/scheduler_config.json has shift = 'x', which should be a number above 0; fetch it again.",
        ),
        (
            lambda folder: (folder / "scheduler/scheduler_config.json").write_text('{"flashjax": {"sampling": [4]}}'),
            "scheduler_config.json has sampling = [4], which should be an object",
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
