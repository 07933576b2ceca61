"""The Qwen-Image-2.1 autoencoder against diffusers' class, by the rules of parity.py."""

import functools

import autoencoders as check
import ml_dtypes
import numpy as np
import pytest
import torch
from autoencoders import Pair, draw, nchw, nhwc, written
from diffusers import AutoencoderKLQwenImage21
from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import QwenImage21AvgDown3D, QwenImage21DupUp3D
from parity import close

from flashjax.errors import UserError
from flashjax.models import vae_qwen_image_21 as vae

_SMALL = dict(
    base_dim=6, decoder_base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
    latents_mean=[0.3, -0.2, 0.1, 0.5], latents_std=[1.5, 0.8, 2.0, 1.1],
)  # fmt: skip
# settings, and height and width of the latents
CASES = {
    "small": ({}, (3, 5)),
    "released_depth": (
        dict(
            base_dim=2, decoder_base_dim=3, dim_mult=[1, 2, 4, 8, 8], num_res_blocks=2,
            temperal_downsample=[False, True, True, True],
        ),
        (1, 2),
    ),
    "two_levels_without_alpha": (
        dict(
            base_dim=5, decoder_base_dim=None, dim_mult=[1, 1], temperal_downsample=[True], in_channels=3,
            out_channels=3,
        ),
        (7, 2),
    ),
    "time_first": (dict(dim_mult=[1, 4, 4], temperal_downsample=[True, False]), (4, 1)),
    "no_time_three_blocks": (
        dict(
            num_res_blocks=3, temperal_downsample=[False, False], z_dim=3, latents_mean=[1.0, -2.0, 0.0],
            latents_std=[0.5, 3.0, 1.0],
        ),
        (1, 1),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    @functools.cache
    def make(name):
        return Pair(vae, AutoencoderKLQwenImage21, _SMALL | CASES[name][0], tmp_path_factory.mktemp(name))

    return make


def inputs(pair: Pair, size, batch: int = 2):
    """Pictures, and latents of order 1, that belong to ``size`` latents."""
    c, pixels = pair.config, 2 ** (len(pair.config.widths) - 1)
    height, width = size
    return draw(batch, height * pixels, width * pixels, c.channels), draw(batch, *size, len(c.mean), loud=True)


def statistics(model):
    return (torch.tensor(x).view(1, -1, 1, 1, 1) for x in (model.config.latents_mean, model.config.latents_std))


def torch_encode(model, images) -> np.ndarray:
    mean, std = statistics(model)
    return nhwc(((model.encode(nchw(images)[:, :, None]).latent_dist.mode() - mean) / std)[:, :, 0])


def torch_decode(model, latents) -> np.ndarray:
    mean, std = statistics(model)
    return nhwc(model.decode(nchw(latents)[:, :, None] * std + mean).sample[:, :, 0])


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_diffusers(pairs, name):
    pair = pairs(name)
    images, latents = inputs(pair, CASES[name][1])
    check.encode(pair, images, torch_encode(pair.torch, images))
    check.decode(pair, latents, torch_decode(pair.torch, latents))


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("space", [1, 2])
@pytest.mark.parametrize("channels", [4, 2, 1])
def test_averages_agree_with_diffusers(channels, space, time):
    x = draw(2, 6, 4, 4)
    expected = QwenImage21AvgDown3D(4, channels, time, space)(nchw(x)[:, :, None])
    close(vae.average_down(x, channels, space, time), nhwc(expected[:, :, 0]), 1e-6)


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("channels", [8, 4, 2])
def test_repeats_agree_with_diffusers(channels, time):
    x = draw(2, 3, 2, 4)
    expected = QwenImage21DupUp3D(4, channels, time, 2)(nchw(x)[:, :, None], first_chunk=True)
    np.testing.assert_array_equal(vae.repeat_up(x, channels, time), nhwc(expected[:, :, 0]))


def test_pictures_are_clipped(pairs):
    check.clipping(pairs("small"), inputs(pairs("small"), (2, 3))[1])


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_way_back_is_bit_exact(pairs, tmp_path, dtype):
    pair = pairs("released_depth")
    found, original = written(pair, tmp_path, dtype), pair.torch.state_dict()
    assert found.keys() == original.keys()
    for name, weight in found.items():
        np.testing.assert_array_equal(weight, original[name].numpy().astype(dtype), err_msg=name)


def test_the_released_model_has_diffusers_tensors():
    check.names_and_shapes(vae, AutoencoderKLQwenImage21, "qwen_image_21", {}, 337_740_404)
    check.same_sizes(vae, AutoencoderKLQwenImage21, "qwen_image_21", {})


def test_everything_is_computed_in_float32(pairs):
    pair = pairs("small")
    check.low_precision_weights(pair, *inputs(pair, (3, 5)))
    check.precision(pair, *inputs(pair, (3, 5)))


def test_pictures_that_do_not_divide_are_named(pairs):
    with pytest.raises(ValueError, match="Images of 6 x 8 pixels do not divide into latents of 4 x 4"):
        pairs("small").encode(pairs("small").params, np.zeros((1, 6, 8, 4), np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(_class_name="AutoencoderKLQwenImage"), "is of a AutoencoderKLQwenImage, not of an AutoencoderKLQw"),
        (dict(temperal_downsample=None), "lacks temperal_downsample; is it the one of an AutoencoderKLQwenImage21?"),
        (dict(attn_scales=[0.5]), r"has attn_scales = \[0.5\]; only \(\) is built here"),
        (dict(is_residual=False), "has is_residual = False; only True is built here"),
        (dict(patch_size=2), "has patch_size = 2; only None is built here"),
        (dict(out_channels=3), "has out_channels = 3; only 4 is built here"),
        (dict(dim_mult=[2, 4, 4]), "the first factor has to be 1 here"),
        (dict(dim_mult=[1, 2]), "widths has 2 levels, decoder_widths 2 and halves_time 2 steps"),
        (dict(latents_mean=[1.0]), "has z_dim = 4, but 1 latents_mean and 4 latents_std"),
    ],
)
def test_a_config_that_is_not_built_is_named(pairs, changes, message):
    with pytest.raises(UserError, match=message):
        vae.Config.from_diffusers(pairs("small").saved_config() | changes)


def test_statistics_of_two_lengths_are_named():
    with pytest.raises(ValueError, match="mean has 8 latent channels, std has 1"):
        vae.Config.tiny(std=(1.0,))
