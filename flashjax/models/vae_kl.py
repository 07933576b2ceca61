"""The autoencoders of FLUX.2 and of Z-Image (which is FLUX.1's): 8 px latents, packed in patches of 2 x 2.

Source: diffusers' ``AutoencoderKLFlux2`` and ``AutoencoderKL``, one network, and what ``Flux2KleinPipeline`` and
``ZImagePipeline`` do around it. FLUX.2 has 32 channels, packed in the order (c, row, column) and normalised afterwards
with the running statistics of a batch norm, which are part of the weights. Z-Image has 16, normalised with two numbers
of the configuration and packed in the order (row, column, c).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from flashjax.errors import about_settings
from flashjax.models import network, pixels
from flashjax.models.autoencoder import Autoencoder, check_diffusers, functional, pack, unpack
from flashjax.models.convolutions import Conv, Decoder, Encoder, GroupNorm, Level, Style, UpConv

PRESETS = ("flux2", "z_image", "tiny")  # class methods of Config

_EPS = 1e-6


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes: ``widths`` of the encoder and ``decoder_widths`` from the finest to the coarsest level, ``blocks`` a
    level, ``groups`` of the norms, ``latent_channels``, ``quant_convs`` (whether there are 1 x 1 convolutions around
    the latents), and the normalisation: ``batch_norm_eps`` for FLUX.2's, or None for ``(z - shift) * scale``."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    decoder_widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    groups: int = 32
    channels: int = 3
    latent_channels: int = 32
    quant_convs: bool = True
    batch_norm_eps: float | None = 1e-4
    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self):
        if len(self.widths) != len(self.decoder_widths):
            raise ValueError(f"widths {self.widths} and decoder_widths {self.decoder_widths} differ in their levels.")
        if odd := [width for width in (*self.widths, *self.decoder_widths) if width % self.groups]:
            raise ValueError(f"A width of {odd[0]} channels does not divide into {self.groups} groups.")

    @property
    def stride(self) -> int:
        """Pixels a side of a token."""
        return 2 ** len(self.widths)

    @property
    def token_channels(self) -> int:
        return 4 * self.latent_channels

    @classmethod
    def from_diffusers(cls, config: dict) -> "Config":
        """From the ``config.json`` of an AutoencoderKLFlux2, or of an AutoencoderKL with a shift. Raises UserError for
        one of another model, or with settings that are not built."""
        flux2 = "batch_norm_eps" in config
        check = _check_flux2 if flux2 else _check_kl
        check(config)
        widths = tuple(config["block_out_channels"])
        own = dict(batch_norm_eps=config["batch_norm_eps"]) if flux2 else dict(
            batch_norm_eps=None, shift=config["shift_factor"], scale=config["scaling_factor"]
        )  # fmt: skip
        with about_settings():
            return cls(
                widths=widths, decoder_widths=tuple(config.get("decoder_block_out_channels") or widths),
                blocks=config["layers_per_block"], groups=config.get("norm_num_groups") or 32,
                channels=config.get("in_channels", 3), latent_channels=config["latent_channels"],
                quant_convs=config.get("use_quant_conv", True), **own,
            )  # fmt: skip

    @classmethod
    def flux2(cls) -> "Config":
        """FLUX.2 (dev and klein), 0.084 B parameters."""
        return cls()

    @classmethod
    def z_image(cls) -> "Config":
        """Z-Image (and Turbo), which took FLUX.1's: 0.084 B parameters."""
        return cls(latent_channels=16, quant_convs=False, batch_norm_eps=None, shift=0.1159, scale=0.3611)

    @classmethod
    def tiny(cls, **overrides) -> "Config":
        """FLUX.2's for tests: 4 px latents of 4 channels."""
        small = dict(widths=(8, 12, 16), decoder_widths=(8, 12, 16), blocks=1, groups=4, latent_channels=4)
        return cls(**(small | overrides))


class Statistics(nnx.Module):
    """Running mean and variance [size] of a batch norm."""

    def __init__(self, size: int):
        self.mean, self.var = nnx.Param(jnp.zeros((size,))), nnx.Param(jnp.ones((size,)))


class VAE(nnx.Module):
    """The network; parameter paths mirror the checkpoint's names."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        z, c = config.latent_channels, config
        style = Style(partial(GroupNorm, groups=c.groups, eps=_EPS), fused_qkv=False)
        self.config = config
        self.encoder = Encoder(c.channels, 2 * z, c.widths, _down(c, style, rngs), style, rngs)
        self.decoder = Decoder(z, c.channels, c.decoder_widths, _up(c, style, rngs), style, rngs)
        self.quant_conv = Conv(2 * z, 2 * z, 1, rngs) if c.quant_convs else None
        self.post_quant_conv = Conv(z, z, 1, rngs) if c.quant_convs else None
        self.bn = Statistics(4 * z) if c.batch_norm_eps is not None else None

    def encode(self, images: jax.Array) -> jax.Array:
        moments = self.encoder(images)
        mean, _ = jnp.split(self.quant_conv(moments) if self.quant_conv else moments, 2, axis=-1)
        if self.bn:
            center, std = self._statistics()
            return (pack(mean) - center) / std
        return pixels.encode((mean - self.config.shift) * self.config.scale, 2)

    def decode(self, latents: jax.Array) -> jax.Array:
        if self.bn:
            center, std = self._statistics()
            z = unpack(latents * std + center)
        else:
            z = pixels.decode(latents, 2) / self.config.scale + self.config.shift
        return self.decoder(self.post_quant_conv(z) if self.post_quant_conv else z)

    def _statistics(self) -> tuple[jax.Array, jax.Array]:
        mean, var = (x[...].astype(jnp.float32) for x in (self.bn.mean, self.bn.var))
        return mean, jnp.sqrt(var + self.config.batch_norm_eps)


def _down(config: Config, style: Style, rngs: nnx.Rngs) -> list[nnx.Module]:
    levels, n_in = [], config.widths[0]
    for i, width in enumerate(config.widths):
        resample = Conv(width, width, 3, rngs, stride=2) if i < len(config.widths) - 1 else None
        levels.append(Level(n_in, width, config.blocks, resample, style, rngs))
        n_in = width
    return levels


def _up(config: Config, style: Style, rngs: nnx.Rngs) -> list[nnx.Module]:
    levels, n_in = [], config.decoder_widths[-1]
    for i, width in reversed(list(enumerate(config.decoder_widths))):
        resample = UpConv(width, width, 3, rngs) if i else None
        levels.append(Level(n_in, width, config.blocks + 1, resample, style, rngs))
        n_in = width
    return levels


init = partial(network.init, VAE)
abstract = partial(network.abstract, VAE)


def autoencoder(config: Config) -> Autoencoder:
    """Latents [B, H/16, W/16, 128] of FLUX.2, [B, H/16, W/16, 64] of Z-Image; see the top of the file."""
    return functional(network.graphdef(VAE, config), pixels=config.stride)


_SIZES = ("block_out_channels", "layers_per_block", "latent_channels")


def _fixed(config: dict) -> dict:
    levels = len(config.get("block_out_channels") or ())
    return dict(
        act_fn="silu", mid_block_add_attention=True, out_channels=config.get("in_channels", 3),
        use_post_quant_conv=config.get("use_quant_conv", True),
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
    )  # fmt: skip


def _check_flux2(config: dict) -> None:
    check_diffusers(config, "AutoencoderKLFlux2", _SIZES, _fixed(config) | dict(patch_size=(2, 2)))


def _check_kl(config: dict) -> None:
    needed = (*_SIZES, "shift_factor", "scaling_factor")
    check_diffusers(config, "AutoencoderKL", needed, _fixed(config) | dict(latents_mean=None, latents_std=None))
