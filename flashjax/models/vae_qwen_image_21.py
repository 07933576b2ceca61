"""The autoencoder of Qwen-Image-2.1: pictures with alpha, 16 px latents of 64 channels, not packed.

Source: diffusers' ``AutoencoderKLQwenImage21``, which handles a picture as the first frame of a video: where a level
changes the resolution in time too, the shortcut around it knows of a frame that is not there. Its weights include
convolutions (``time_conv``) which act from the second frame on; they are kept and never computed with.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from flashjax.errors import about_settings
from flashjax.models import network
from flashjax.models.autoencoder import Autoencoder, check_diffusers, check_widths, functional
from flashjax.models.convolutions import Conv, Decoder, Encoder, Level, RMSNorm, Style, UpConv

PRESETS = ("qwen_image_21", "tiny")  # class methods of Config

_MEAN = (
    0.5126, 0.7721, -0.0631, 1.3506, -0.7855, -2.1025, -0.3458, 1.3722,
    1.8873, -1.7177, -0.6510, 0.2732, 0.7562, -0.6163, -1.0277, 3.8363,
    2.0210, 0.0472, 0.9320, 2.0087, 2.4954, -0.1391, -1.4249, 1.8464,
    -0.5236, 1.2826, 3.7046, -1.3035, 2.7286, -1.4518, -1.9036, -1.9955,
    -0.0342, -1.0265, -0.7636, 3.0555, 0.0746, -3.0751, -0.1076, 1.7376,
    -1.0914, -1.9435, -0.2784, -1.3680, 0.4809, -0.4433, 0.3764, 0.5729,
    -2.0595, 1.0960, -1.3260, -2.0211, -5.0179, 0.5275, 4.0162, 1.8505,
    0.3026, 1.9373, 1.4937, 0.2632, 0.5547, -1.7121, -0.1562, 0.0304,
)  # fmt: skip
_STD = (
    3.2001, 3.2936, 3.4321, 3.0091, 3.1061, 4.0379, 4.0705, 3.7910,
    3.0785, 3.6500, 3.9308, 3.0904, 2.8778, 3.7675, 3.7320, 5.0756,
    3.2864, 4.0397, 3.1317, 4.0443, 2.9249, 3.9454, 3.0988, 4.2489,
    3.4896, 3.8513, 3.9323, 3.4719, 3.7498, 4.2830, 3.5694, 4.2467,
    3.9037, 3.2947, 5.0770, 3.5075, 3.2700, 3.4767, 2.8063, 5.1125,
    3.5327, 4.7833, 3.1286, 4.1819, 3.8527, 3.8312, 3.5605, 4.3875,
    3.9624, 4.0168, 3.5643, 4.0550, 5.5614, 4.2963, 4.4080, 3.4959,
    3.8747, 3.7608, 3.5735, 3.1490, 3.7662, 3.6746, 3.4563, 3.8161,
)  # fmt: skip
_STYLE = Style(RMSNorm, fused_qkv=True)


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes: ``widths`` of the encoder and ``decoder_widths`` from the finest to the coarsest level, ``blocks`` a
    level, ``channels`` of the pictures; ``halves_time``, for every step from a level to the next coarser one, whether a
    video would lose frames there too; ``mean`` and ``std`` of every latent channel."""

    widths: tuple[int, ...] = (96, 192, 384, 768, 768)
    decoder_widths: tuple[int, ...] = (144, 288, 576, 1152, 1152)
    blocks: int = 2
    channels: int = 4
    halves_time: tuple[bool, ...] = (False, True, True, True)
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD

    def __post_init__(self):
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} latent channels, std has {len(self.std)}; give one of each.")
        if not len(self.widths) == len(self.decoder_widths) == len(self.halves_time) + 1:
            raise ValueError(
                f"widths has {len(self.widths)} levels, decoder_widths {len(self.decoder_widths)} and halves_time "
                f"{len(self.halves_time)} steps; n levels in both have n - 1 steps."
            )

    @property
    def stride(self) -> int:
        """Pixels a side of a token."""
        return 2 ** (len(self.widths) - 1)

    @property
    def token_channels(self) -> int:
        return len(self.mean)

    @classmethod
    def from_diffusers(cls, config: dict) -> "Config":
        """From a diffusers ``config.json``. Raises UserError for one of another model, or with settings that are not
        built."""
        needed = (
            "base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample", "latents_mean", "latents_std",
        )  # fmt: skip
        channels = config.get("in_channels", 4)
        fixed = dict(attn_scales=(), is_residual=True, patch_size=None, out_channels=channels)
        check_diffusers(config, "AutoencoderKLQwenImage21", needed, fixed)
        check_widths(config)
        decoder_width = config.get("decoder_base_dim", 144) or config["base_dim"]
        with about_settings():
            return cls(
                widths=tuple(config["base_dim"] * m for m in config["dim_mult"]),
                decoder_widths=tuple(decoder_width * m for m in config["dim_mult"]),
                blocks=config["num_res_blocks"], channels=channels, halves_time=tuple(config["temperal_downsample"]),
                mean=tuple(config["latents_mean"]), std=tuple(config["latents_std"]),
            )  # fmt: skip

    @classmethod
    def qwen_image_21(cls) -> "Config":
        """The released model, 0.338 B parameters."""
        return cls()

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests: 4 px latents of 8 channels."""
        small = dict(
            widths=(6, 12, 12), decoder_widths=(8, 16, 16), blocks=1, halves_time=(False, True),
            mean=(0.3, -0.2, 0.1, 0.5, 0.0, 1.0, -0.7, 0.2), std=(1.5, 0.8, 2.0, 1.1, 0.9, 1.3, 1.0, 0.7),
        )  # fmt: skip
        return cls(**(small | overrides))


def average_down(x: jax.Array, channels: int, space: int, time: int) -> jax.Array:
    """[B, H, W, C] to [B, H / space, W / space, channels]: pixels become channels in the order (c, time, row, column),
    and neighbouring channels are averaged. The first of two frames is missing, and counts as zeros."""
    b, h, w, c = x.shape
    y = x.reshape(b, h // space, space, w // space, space, c).transpose(0, 1, 3, 5, 2, 4)
    y = y.reshape(b, h // space, w // space, c, 1, space * space)
    y = jnp.pad(y, [(0, 0)] * 4 + [(time - 1, 0), (0, 0)])
    return y.reshape(b, h // space, w // space, channels, -1).mean(-1)


def repeat_up(x: jax.Array, channels: int, time: int) -> jax.Array:
    """[B, h, w, C] to [B, 2h, 2w, channels]: channels are repeated and become pixels in the order (c, time, row,
    column); of two frames the last one stays."""
    b, h, w, c = x.shape
    y = x.repeat(channels * time * 4 // c, axis=-1).reshape(b, h, w, channels, time, 2, 2)[..., -1, :, :]
    return y.transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, channels)


class VAE(nnx.Module):
    """The network; parameter paths mirror the checkpoint's names."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        z = len(config.mean)
        self.config = config
        self.encoder = Encoder(config.channels, 2 * z, config.widths, _down(config, rngs), _STYLE, rngs)
        self.quant_conv, self.post_quant_conv = Conv(2 * z, 2 * z, 1, rngs), Conv(z, z, 1, rngs)
        self.decoder = Decoder(z, config.channels, config.decoder_widths, _up(config, rngs), _STYLE, rngs)

    def encode(self, images: jax.Array) -> jax.Array:
        mean, _ = jnp.split(self.quant_conv(self.encoder(images)), 2, axis=-1)
        return (mean - jnp.array(self.config.mean)) / jnp.array(self.config.std)

    def decode(self, latents: jax.Array) -> jax.Array:
        z = latents * jnp.array(self.config.std) + jnp.array(self.config.mean)
        return self.decoder(self.post_quant_conv(z))


def _down(config: Config, rngs: nnx.Rngs) -> list[nnx.Module]:
    levels, n_in = [], config.widths[0]
    for i, width in enumerate(config.widths):
        inner = i < len(config.widths) - 1
        space, time = (2, 1 + config.halves_time[i]) if inner else (1, 1)
        resample = Conv(width, width, 3, rngs, stride=2) if inner else None
        if time == 2:
            resample.with_time(1, (), rngs)
        shortcut = partial(average_down, channels=width, space=space, time=time)
        levels.append(Level(n_in, width, config.blocks, resample, _STYLE, rngs, shortcut))
        n_in = width
    return levels


def _up(config: Config, rngs: nnx.Rngs) -> list[nnx.Module]:
    levels, n_in = [], config.decoder_widths[-1]
    for i, width in reversed(list(enumerate(config.decoder_widths))):
        resample = UpConv(width, width, 3, rngs) if i else None
        if i and config.halves_time[i - 1]:
            resample.with_time(2, (), rngs)
        shortcut = partial(repeat_up, channels=width, time=1 + config.halves_time[i - 1]) if i else None
        levels.append(Level(n_in, width, config.blocks + 1, resample, _STYLE, rngs, shortcut))
        n_in = width
    return levels


init = partial(network.init, VAE)
abstract = partial(network.abstract, VAE)


def autoencoder(config: Config) -> Autoencoder:
    """Latents [B, H/16, W/16, 64] of the released model: (z - mean) / std. Pictures [B, H, W, 4]; plain ones have
    alpha 1."""
    return functional(network.graphdef(VAE, config), pixels=config.stride)
