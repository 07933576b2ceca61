"""The autoencoder of Qwen-Image (2512, Edit, Edit-2509 and Edit-2511 too): 8 px latents of 16 channels, packed in
patches of 2 x 2.

Source: diffusers' ``AutoencoderKLQwenImage`` and the packing of ``QwenImagePipeline``. That class is a video
autoencoder with causal convolutions over time. A picture is one frame with zeros before it, so that of every kernel
only the last slice in time acts. The rest, two thirds of 0.127 B parameters, is kept and never computed with: without
it a checkpoint would not come back as it was.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from flashjax.errors import about_settings
from flashjax.models import network
from flashjax.models.autoencoder import Autoencoder, check_diffusers, check_widths, functional, pack, unpack
from flashjax.models.convolutions import (
    CausalConv,
    Conv,
    Decoder,
    Encoder,
    Level,
    ResidualBlock,
    RMSNorm,
    Style,
    UpConv,
)

PRESETS = ("qwen_image", "tiny")  # class methods of Config

_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
_STYLE = Style(RMSNorm, fused_qkv=True, conv=CausalConv)
_FRAMES = (3,)  # that a time_conv spans


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes: ``widths`` from the finest to the coarsest level, ``blocks`` a level, ``channels`` of the pictures;
    ``halves_time``, for every step from a level to the next coarser one, whether a video would lose frames there too;
    ``mean`` and ``std`` of every latent channel (their number is that of the latent channels)."""

    widths: tuple[int, ...] = (96, 192, 384, 384)
    blocks: int = 2
    channels: int = 3
    halves_time: tuple[bool, ...] = (False, True, True)
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD

    def __post_init__(self):
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} latent channels, std has {len(self.std)}; give one of each.")
        if len(self.widths) != len(self.halves_time) + 1:
            raise ValueError(f"{len(self.widths)} widths take one halves_time less, not {len(self.halves_time)}.")

    @property
    def stride(self) -> int:
        """Pixels a side of a token."""
        return 2 ** len(self.widths)

    @property
    def token_channels(self) -> int:
        return 4 * len(self.mean)

    @classmethod
    def from_diffusers(cls, config: dict) -> "Config":
        """From a diffusers ``config.json``. Raises UserError for one of another model, or with settings that are not
        built."""
        needed = (
            "base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample", "latents_mean", "latents_std",
        )  # fmt: skip
        check_diffusers(config, "AutoencoderKLQwenImage", needed, dict(attn_scales=()))
        check_widths(config)
        with about_settings():
            return cls(
                widths=tuple(config["base_dim"] * m for m in config["dim_mult"]), blocks=config["num_res_blocks"],
                channels=config.get("input_channels", 3), halves_time=tuple(config["temperal_downsample"]),
                mean=tuple(config["latents_mean"]), std=tuple(config["latents_std"]),
            )  # fmt: skip

    @classmethod
    def qwen_image(cls) -> "Config":
        """The released model, 0.127 B parameters."""
        return cls()

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """For tests: 4 px latents of 4 channels."""
        small = dict(
            widths=(8, 12, 12), blocks=1, halves_time=(False, True), mean=(0.3, -0.2, 0.1, 0.5),
            std=(1.5, 0.8, 2.0, 1.1),
        )  # fmt: skip
        return cls(**(small | overrides))


class VAE(nnx.Module):
    """The network; parameter paths mirror the checkpoint's names."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        z = len(config.mean)
        self.config = config
        self.encoder = Encoder(config.channels, 2 * z, config.widths, _down(config, rngs), _STYLE, rngs)
        self.quant_conv, self.post_quant_conv = CausalConv(2 * z, 2 * z, 1, rngs), CausalConv(z, z, 1, rngs)
        self.decoder = Decoder(z, config.channels, config.widths, _up(config, rngs), _STYLE, rngs)

    def encode(self, images: jax.Array) -> jax.Array:
        mean, _ = jnp.split(self.quant_conv(self.encoder(images)), 2, axis=-1)
        return pack((mean - jnp.array(self.config.mean)) / jnp.array(self.config.std))

    def decode(self, latents: jax.Array) -> jax.Array:
        z = unpack(latents) * jnp.array(self.config.std) + jnp.array(self.config.mean)
        return self.decoder(self.post_quant_conv(z))


def _down(config: Config, rngs: nnx.Rngs) -> list[nnx.Module]:
    """Blocks and strided convolutions in one flat list, as the checkpoint counts them."""
    modules, n_in = [], config.widths[0]
    for i, width in enumerate(config.widths):
        ins = (n_in, *(width,) * (config.blocks - 1))
        modules += [ResidualBlock(n, width, _STYLE, rngs) for n in ins]
        if i < len(config.widths) - 1:
            conv = Conv(width, width, 3, rngs, stride=2)
            modules.append(conv.with_time(1, _FRAMES, rngs) if config.halves_time[i] else conv)
        n_in = width
    return modules


def _up(config: Config, rngs: nnx.Rngs) -> list[nnx.Module]:
    """Levels whose last convolution halves the number of channels."""
    levels, n_in = [], config.widths[-1]
    for i, width in reversed(list(enumerate(config.widths))):
        resample = UpConv(width, width // 2, 3, rngs) if i else None
        if i and config.halves_time[i - 1]:
            resample.with_time(2, _FRAMES, rngs)
        levels.append(Level(n_in, width, config.blocks + 1, resample, _STYLE, rngs))
        n_in = width // 2
    return levels


init = partial(network.init, VAE)
abstract = partial(network.abstract, VAE)


def autoencoder(config: Config) -> Autoencoder:
    """Latents [B, H/16, W/16, 64] of the released model: (z - mean) / std, channels in the order (c, row, column)."""
    return functional(network.graphdef(VAE, config), pixels=config.stride)
