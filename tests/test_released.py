"""Whole released models against diffusers' own pipelines: the same folder, prompts, pictures and noise."""

import functools

import numpy as np
import pytest
import tiny_pipelines
import torch

from flashjax import released
from flashjax.models import pixels

SIZE = dict(height=64, width=96)
STEPS = 6
AREA = 64 * 96  # of references, instead of 1024^2
PROMPTS = ["a red fox", "a very red fox in the snow"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """family -> (diffusers' pipeline, ours, the folder of both)."""

    @functools.cache
    def make(family):
        folder = tmp_path_factory.mktemp(family)
        theirs = tiny_pipelines.make(family, folder)
        ours = released.load(folder, keep=True)
        return theirs, ours, folder

    return make


def as_theirs(family: str, z) -> torch.Tensor:
    """One picture's latents [1, h, w, C] as diffusers' pipeline takes them."""
    if family == "z_image":
        z = pixels.decode(z, 2)
    z = torch.tensor(np.asarray(z))
    return z.permute(0, 3, 1, 2) if family in ("z_image", "flux2_klein") else z.flatten(1, 2)


def compare(family, theirs, ours, images=(), negative=None, scale=1.0, **settings):
    """Both batches of pictures; theirs one by one, since the length of its neighbour moves a prompt of 2.1."""
    own = SIZE | dict(steps=STEPS, guidance_scale=scale, negative_prompt=negative)
    plan = ours.plan(PROMPTS, list(images), **own)
    mine = (ours.decode(ours.sample(plan, [1, 2])) + 1) / 2
    noise = ours.noise(plan, [1, 2])
    if images:
        settings["image"] = list(images) if family != "qwen_image_edit" else images[0]
    for i, prompt in enumerate(PROMPTS):
        expected = theirs(
            prompt=prompt, latents=as_theirs(family, noise[i : i + 1]), num_inference_steps=STEPS, output_type="np",
            **SIZE, **settings,
        ).images  # fmt: skip
        assert expected.std() > 0.02 and np.mean((expected == 0) | (expected == 1)) < 0.2
        print(family, float(np.abs(mine[i] - expected[0]).max()), expected.std())
        np.testing.assert_allclose(mine[i], expected[0], rtol=0, atol=1e-4)


GUIDANCE = {
    "qwen_image_21": {},
    "qwen_image_21 guided": dict(negative="blurred", scale=3.0, true_cfg_scale=3.0, negative_prompt="blurred"),
    "qwen_image": dict(negative="blurred", scale=4.0, true_cfg_scale=4.0, negative_prompt="blurred"),
    "qwen_image default": dict(scale=4.0, true_cfg_scale=4.0, negative_prompt=" "),
    "z_image": dict(scale=6.0, guidance_scale=5.0),
    "z_image turbo": dict(scale=1.0, guidance_scale=0.0),
    "flux2_klein": dict(scale=4.0, guidance_scale=4.0),
    "flux2_klein plain": dict(scale=1.0, guidance_scale=1.0),
}


@pytest.mark.parametrize("case", GUIDANCE)
def test_text_to_image_is_that_of_diffusers(pairs, case):
    family = case.split()[0]
    theirs, ours, _ = pairs(family)
    compare(family, theirs, ours, **GUIDANCE[case])
