"""Whole released models against diffusers' own pipelines: the same folder, prompts, pictures and noise."""

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
from requests_of import SIDE, SIZE, pictures, small

from flashjax import export, flow, models, released
from flashjax.models import pixels
from flashjax.released import families, read_picture

STEPS = 6
SEEN = 60  # square root of the area of what Edit-2509's encoder sees: not 384
PROMPTS = ["a red fox", "a very red fox in the snow"]
# The largest difference found is 1.1e-5, of pictures with a standard deviation of 0.05 to 0.09.
TOLERANCE = 2e-5


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


def smaller(calculate_dimensions):
    return lambda area, ratio: calculate_dimensions(SIDE**2 if area == 1024**2 else area, ratio)


# family, references, theirs
EDITS = {
    "qwen_image_21 one": (1, dict(output_resolution=SIDE)),
    "qwen_image_21 two": (2, dict(output_resolution=SIDE)),
    "qwen_image_edit": (1, dict(negative_prompt=" ")),
    "qwen_image_edit_plus one": (1, dict(negative_prompt=" ")),
    "qwen_image_edit_plus two": (2, dict(negative_prompt=" ")),
    "qwen_image_edit_plus 2511": (1, dict(negative_prompt=" ")),
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


@pytest.mark.parametrize("family", ["qwen_image_21", "flux2_klein"])
def test_a_reference_of_16_bits_keeps_its_greys(pairs, tmp_path, family):
    _, ours, _ = pairs(family)
    Image.fromarray(np.full((SIDE, SIDE), 100 * 257, np.uint16)).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as image:
        for given in (image, read_picture(tmp_path / "grey.png")):
            plan = ours.plan(["a"], [given])
            assert (plan.references[0][..., :3] == 100).all() and all((seen == 100).all() for seen in plan.seen)


def others_say_more(cases, *names):
    """The cases of a table, of which those of these names are long tests."""
    return [pytest.param(case, marks=pytest.mark.long) if case in names else case for case in cases]


@pytest.mark.parametrize(
    "case", others_say_more(EDITS, "qwen_image_21 one", "qwen_image_edit_plus one", "flux2_klein one")
)
def test_edits_are_those_of_diffusers(pairs, monkeypatch, case):
    """At the size of the reference, which both take from it."""
    family, (count, settings) = case.split()[0], EDITS[case]
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        monkeypatch.setattr(module, "calculate_dimensions", smaller(module.calculate_dimensions))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", SEEN**2)
    theirs, ours, _ = pairs(family, **(dict(zero_cond_t=True) if case.endswith("2511") else {}))
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


@pytest.mark.parametrize("case", others_say_more(STUDENTS, "qwen_image_21", "flux2_klein"))
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
