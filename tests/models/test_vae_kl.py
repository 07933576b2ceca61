"""FLUX.2's and Z-Image's autoencoders against diffusers' classes and pipelines, by the rules of parity.py."""

import functools

import autoencoders as check
import jax
import ml_dtypes
import numpy as np
import pytest
import torch
from autoencoders import Pair, draw, nchw, nhwc, written
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2KleinPipeline, ZImageTransformer2DModel

from flashjax import cli, convert
from flashjax.errors import UserError
from flashjax.models import vae_kl as vae


def levels(*widths: int, **settings) -> dict:
    """Settings of diffusers' classes with these widths."""
    down, up = ["DownEncoderBlock2D"] * len(widths), ["UpDecoderBlock2D"] * len(widths)
    return dict(block_out_channels=list(widths), down_block_types=down, up_block_types=up, **settings)


Z_IMAGE = levels(
    128, 256, 512, 512, layers_per_block=2, latent_channels=16, sample_size=1024, scaling_factor=0.3611,
    shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False,
)  # fmt: skip
_FLUX2 = levels(8, 12, 16, layers_per_block=1, norm_num_groups=4, latent_channels=4)
_Z_IMAGE = _FLUX2 | dict(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
# class, settings, and height and width of the packed latents
CASES = {
    "flux2": (AutoencoderKLFlux2, _FLUX2, (2, 3)),
    "flux2_released_depth": (
        AutoencoderKLFlux2, levels(2, 4, 6, 6, layers_per_block=2, norm_num_groups=2, latent_channels=3), (1, 3),
    ),
    "flux2_small_decoder": (
        AutoencoderKLFlux2, _FLUX2 | dict(decoder_block_out_channels=[4, 4, 8], batch_norm_eps=0.1), (5, 1),
    ),
    "flux2_one_group_no_quant": (
        AutoencoderKLFlux2,
        levels(
            5, 7, layers_per_block=3, norm_num_groups=1, latent_channels=2, use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        (3, 3),
    ),
    "flux2_equal_widths_two_blocks": (
        AutoencoderKLFlux2, levels(6, 6, layers_per_block=2, norm_num_groups=6, latent_channels=5), (1, 1),
    ),
    "z_image": (AutoencoderKL, _Z_IMAGE, (3, 2)),
    "z_image_released_depth": (
        AutoencoderKL,
        Z_IMAGE | levels(3, 6, 9, 9, norm_num_groups=3, latent_channels=2, scaling_factor=1.7, shift_factor=-0.4),
        (1, 1),
    ),
    "kl_with_quant": (
        AutoencoderKL, _Z_IMAGE | dict(use_quant_conv=True, use_post_quant_conv=True, norm_num_groups=2), (1, 5),
    ),
    "kl_one_group_three_blocks": (
        AutoencoderKL,
        _Z_IMAGE | levels(5, 7, layers_per_block=3, norm_num_groups=1, latent_channels=3, shift_factor=0.9), (5, 3),
    ),
    "kl_falling_widths": (
        AutoencoderKL, _Z_IMAGE | levels(12, 8, 4, layers_per_block=1, latent_channels=1, scaling_factor=0.2), (2, 1),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    @functools.cache
    def make(name):
        torch_class, settings, _ = CASES[name]
        return Pair(vae, torch_class, settings, tmp_path_factory.mktemp(name))

    return make


def inputs(pair: Pair, size, batch: int = 2):
    """Pictures, and latents of order 1, that belong to ``size`` packed latents."""
    c, pixels = pair.config, 2 ** len(pair.config.widths)
    height, width = size
    return draw(batch, height * pixels, width * pixels, 3), draw(batch, *size, 4 * c.latent_channels, loud=True)


def batch_norm(model):
    std = torch.sqrt(model.bn.running_var + model.config.batch_norm_eps)
    return model.bn.running_mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def torch_encode(model, images) -> np.ndarray:
    z = model.encode(nchw(images)).latent_dist.mode()
    if isinstance(model, AutoencoderKLFlux2):
        mean, std = batch_norm(model)
        return nhwc((Flux2KleinPipeline._patchify_latents(z) - mean) / std)
    z = (z - model.config.shift_factor) * model.config.scaling_factor
    b, c, h, w = z.shape
    tokens = [ZImageTransformer2DModel._patchify_image(None, one[:, None], 2, 1)[0] for one in z]
    return torch.stack(tokens).reshape(b, h // 2, w // 2, 4 * c).detach().numpy()


def torch_decode(model, latents) -> np.ndarray:
    _, h, w, c = latents.shape
    if isinstance(model, AutoencoderKLFlux2):
        mean, std = batch_norm(model)
        z = Flux2KleinPipeline._unpatchify_latents(nchw(latents) * std + mean)
    else:
        tokens = [torch.tensor(one).reshape(h * w, c) for one in latents]
        z = _z_image_unpatchify(tokens, h, w, c // 4) / model.config.scaling_factor + model.config.shift_factor
    return nhwc(model.decode(z).sample.clamp(-1, 1))  # the pipelines' image processor clips


def _z_image_unpatchify(tokens, h, w, channels):
    class Stub:
        out_channels = channels

    images = ZImageTransformer2DModel.unpatchify(Stub(), tokens, [(1, 2 * h, 2 * w)] * len(tokens), 2, 1)
    return torch.stack(images)[:, :, 0]


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_diffusers(pairs, name):
    pair = pairs(name)
    images, latents = inputs(pair, CASES[name][2])
    check.encode(pair, images, torch_encode(pair.torch, images))
    check.decode(pair, latents, torch_decode(pair.torch, latents))


@pytest.mark.parametrize("name", ["flux2", "z_image"])
def test_pictures_are_clipped(pairs, name):
    check.clipping(pairs(name), inputs(pairs(name), (2, 3))[1])


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ["flux2_released_depth", "z_image_released_depth"])
def test_the_way_back_is_bit_exact(pairs, tmp_path, name, dtype):
    pair = pairs(name)
    found, original = written(pair, tmp_path, dtype), pair.torch.state_dict()
    assert set(found) == set(original) - {"bn.num_batches_tracked"}
    for name, weight in found.items():
        np.testing.assert_array_equal(weight, original[name].numpy().astype(dtype), err_msg=name)


def test_the_released_models_have_diffusers_tensors():
    check.names_and_shapes(vae, AutoencoderKLFlux2, "flux2", {}, 84_046_372)
    check.same_sizes(vae, AutoencoderKLFlux2, "flux2", {})
    check.names_and_shapes(vae, AutoencoderKL, "z_image", Z_IMAGE, 83_819_683)
    check.same_sizes(vae, AutoencoderKL, "z_image", Z_IMAGE)


@pytest.mark.parametrize("name", ["flux2", "z_image"])
def test_everything_is_computed_in_float32(pairs, name):
    pair = pairs(name)
    size = CASES[name][2]
    check.low_precision_weights(pair, *inputs(pair, size))
    check.precision(pair, *inputs(pair, size))


def test_a_fresh_model_has_the_announced_shapes(pairs):
    check.init(vae, pairs("flux2").config)


def test_pictures_that_do_not_divide_are_named(pairs):
    with pytest.raises(ValueError, match="Images of 24 x 20 pixels do not divide into latents of 8 x 8"):
        pairs("flux2").encode(pairs("flux2").params, np.zeros((1, 24, 20, 3), np.float32))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("flux2", dict(_class_name="AutoencoderKLWan"), "is of a AutoencoderKLWan, not of an AutoencoderKLFlux2"),
        ("flux2", dict(patch_size=[1, 2]), r"has patch_size = \[1, 2\]; only \(2, 2\) is built here"),
        ("flux2", dict(latent_channels=None), "lacks latent_channels; is it the one of an AutoencoderKLFlux2?"),
        ("flux2", dict(act_fn="gelu"), "has act_fn = 'gelu'; only 'silu' is built here"),
        ("flux2", dict(mid_block_add_attention=False), "has mid_block_add_attention = False; only True is built here"),
        ("flux2", dict(use_post_quant_conv=False), "has use_post_quant_conv = False; only True is built here"),
        ("flux2", dict(decoder_block_out_channels=[4, 8]), r"decoder_widths \(4, 8\) differ in their levels"),
        ("flux2", dict(norm_num_groups=5), "A width of 8 channels does not divide into 5 groups"),
        ("z_image", dict(shift_factor=None), "lacks shift_factor; is it the one of an AutoencoderKL?"),
        ("z_image", dict(latents_mean=[0.1]), r"has latents_mean = \[0.1\]; only None is built here"),
        ("z_image", dict(down_block_types=["AttnDownEncoderBlock2D"] * 3), "has down_block_types = "),
    ],
)
def test_a_config_that_is_not_built_is_named(pairs, name, changes, message):
    with pytest.raises(UserError, match=message):
        vae.Config.from_diffusers(pairs(name).saved_config() | changes)


def test_the_command_finds_the_autoencoder_of_a_pipeline(pairs, tmp_path, capsys):
    pair, source = pairs("flux2"), tmp_path / "pipeline"
    pair.torch.save_pretrained(source / "vae")
    options = ["--model", "vae_kl", "--source", str(source), "--out", str(tmp_path / "out")]
    assert cli.main(["convert", *options]) == 0
    assert "dropped 1: bn.num_batches_tracked (counts training steps" in capsys.readouterr().out
    found = convert.load("vae_kl", tmp_path / "out", pair.abstract)
    jax.tree.map(np.testing.assert_array_equal, found, pair.params)
