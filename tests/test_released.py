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
from diffusers import Flux2KleinPipeline, FlowMatchEulerDiscreteScheduler, QwenImage21Transformer2DModel
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image

from flashjax import cli, convert, export, flow, paths, released
from flashjax.errors import UserError
from flashjax.models import pixels, qwen_image_21
from flashjax.released import families

SIZE = dict(height=64, width=96)
STEPS = 6
SIDE, SEEN = 80, 60  # of references and of what Edit-2509's encoder sees, instead of 1024 and 384: square roots of areas
PROMPTS = ["a red fox", "a very red fox in the snow"]
# Largest differences found: 3e-6 without references, xe-6 with them, of pictures with a standard deviation of 0.07.
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
        print("ERR", family, np.abs(mine[i] - expected[0]).max(), expected.std())
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
    about, rules = (dataclasses.replace(x, area=a) for x, a in ((ours.family, SIDE**2), (ours.rules, vision**2)))
    return dataclasses.replace(ours, family=about, rules=rules)


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


@pytest.mark.parametrize("case", EDITS)
def test_edits_are_those_of_diffusers(pairs, monkeypatch, case):
    """At the size of the reference, which both take from it."""
    family, (count, settings) = case.split()[0], EDITS[case]
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        original = module.calculate_dimensions
        sizes = {1024**2: SIDE**2}
        monkeypatch.setattr(module, "calculate_dimensions", lambda a, r, f=original: f(sizes.get(a, a), r))
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
