"""The Qwen-Image autoencoder against diffusers' class and pipeline, by the rules of parity.py."""

import functools

import autoencoders as check
import ml_dtypes
import numpy as np
import pytest
import torch
from autoencoders import Pair, draw, nchw, nhwc, written
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline

from flashjax import paths
from flashjax.errors import UserError
from flashjax.models import vae_qwen_image as vae

_SMALL = dict(
    base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
    latents_mean=[0.3, -0.2, 0.1, 0.5], latents_std=[1.5, 0.8, 2.0, 1.1],
)  # fmt: skip
# settings, and height and width of the packed latents
CASES = {
    "small": ({}, (2, 3)),
    "released_depth": (
        dict(base_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]), (1, 3),
    ),
    "two_levels_three_blocks": (
        dict(base_dim=6, dim_mult=[1, 3], num_res_blocks=3, temperal_downsample=[True]), (5, 1),
    ),
    "equal_widths": (dict(base_dim=10, dim_mult=[1, 1, 1], temperal_downsample=[True, True]), (3, 3)),
    "alpha_and_odd_channels": (
        dict(
            base_dim=6, dim_mult=[1, 3, 2], input_channels=4, z_dim=3, latents_mean=[1.0, -2.0, 0.0],
            latents_std=[0.5, 3.0, 1.0],
        ),
        (1, 1),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    @functools.cache
    def make(name):
        return Pair(vae, AutoencoderKLQwenImage, _SMALL | CASES[name][0], tmp_path_factory.mktemp(name))

    return make


def inputs(pair: Pair, size, batch: int = 2):
    """Pictures, and latents of order 1, that belong to ``size`` packed latents."""
    c, pixels = pair.config, 2 ** len(pair.config.widths)
    height, width = size
    return draw(batch, height * pixels, width * pixels, c.channels), draw(batch, *size, 4 * len(c.mean), loud=True)


def statistics(model):
    return (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (model.config.latents_mean, model.config.latents_std))


def torch_encode(model, images) -> np.ndarray:
    mean, std = statistics(model)
    z = (model.encode(nchw(images)[:, :, None]).latent_dist.mode() - mean) / std
    b, c, _, h, w = z.shape
    return QwenImagePipeline._pack_latents(z, b, c, h, w).reshape(b, h // 2, w // 2, -1).detach().numpy()


def torch_decode(model, latents) -> np.ndarray:
    mean, std = statistics(model)
    b, h, w, c = latents.shape
    z = QwenImagePipeline._unpack_latents(torch.tensor(latents).reshape(b, h * w, c), 2 * h, 2 * w, 1)
    return nhwc(model.decode(z * std + mean).sample[:, :, 0])


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_diffusers(pairs, name):
    pair = pairs(name)
    images, latents = inputs(pair, CASES[name][1])
    check.encode(pair, images, torch_encode(pair.torch, images))
    check.decode(pair, latents, torch_decode(pair.torch, latents))


def test_pictures_are_clipped(pairs):
    check.clipping(pairs("small"), inputs(pairs("small"), (2, 3))[1])


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_way_back_is_exact(pairs, tmp_path, dtype):
    """Also of what a picture does not meet, so that diffusers loads it whole."""
    pair = pairs("released_depth")
    found = written(pair, tmp_path, dtype)
    original = {n: w.detach().numpy().astype(dtype) for n, w in pair.torch.state_dict().items()}
    assert found.keys() == original.keys()
    for name, weight in found.items():
        np.testing.assert_array_equal(weight, original[name], err_msg=name)
    again = AutoencoderKLQwenImage(**_SMALL | CASES["released_depth"][0])
    again.load_state_dict({name: torch.tensor(w.astype(np.float32)) for name, w in found.items()})


def test_what_acts_between_frames_is_not_met(pairs):
    """Neither the first slices of the kernels nor the convolutions over time."""
    pair = pairs("small")
    images, latents = inputs(pair, (2, 3))
    flat = paths.flatten(pair.params)
    cubes = {n: x for n, x in flat.items() if x.ndim == 5}
    assert {n for n in flat if "time_conv" in n} & cubes.keys() and len(cubes) > 10

    def other_frames(name, x):
        return 0 * x if "time_conv" in name else np.concatenate([9 * x[:-1], x[-1:]])

    other = paths.unflatten(flat | {name: other_frames(name, x) for name, x in cubes.items()})
    np.testing.assert_array_equal(pair.encode(other, images), pair.encode(pair.params, images))
    np.testing.assert_array_equal(pair.decode(other, latents), pair.decode(pair.params, latents))


def test_the_released_model_has_diffusers_tensors():
    check.names_and_shapes(vae, AutoencoderKLQwenImage, "qwen_image", {}, 126_892_531)
    check.same_sizes(vae, AutoencoderKLQwenImage, "qwen_image", {})


def test_everything_is_computed_in_float32(pairs):
    pair = pairs("small")
    check.low_precision_weights(pair, *inputs(pair, (2, 3)))
    check.precision(pair, *inputs(pair, (2, 3)))


def test_pictures_that_do_not_divide_are_named(pairs):
    with pytest.raises(ValueError, match="Images of 24 x 20 pixels do not divide into latents of 8 x 8"):
        pairs("small").encode(pairs("small").params, np.zeros((1, 24, 20, 3), np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(_class_name="AutoencoderKLWan"), "is of a AutoencoderKLWan, not of an AutoencoderKLQwenImage"),
        (dict(z_dim=None, base_dim=None), "lacks base_dim, z_dim; is it the one of an AutoencoderKLQwenImage?"),
        (dict(attn_scales=[0.5]), r"has attn_scales = \[0.5\]; only \(\) is built here"),
        (dict(temperal_downsample=[True]), "3 widths take one halves_time less, not 1"),
        (dict(dim_mult=[2, 4]), "the first factor has to be 1 here"),
        (dict(latents_std=[1.0]), "has z_dim = 4, but 4 latents_mean and 1 latents_std"),
    ],
)
def test_a_config_that_is_not_built_is_named(pairs, changes, message):
    with pytest.raises(UserError, match=message):
        vae.Config.from_diffusers(pairs("small").saved_config() | changes)


def test_statistics_of_two_lengths_are_named():
    with pytest.raises(ValueError, match="mean has 4 latent channels, std has 1"):
        vae.Config.tiny(std=(1.0,))
