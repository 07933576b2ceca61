"""What a run's denoiser reads in place of pixels: patches of them, or the latents of a released autoencoder.

    config.autoencoder = dict(architecture="pixels", preset="", weights="")  # patches of 4 x 4 pixels; the default
    config.autoencoder = dict(architecture="vae_qwen_image_21", preset="qwen_image_21", weights="Qwen-Image-2.1/vae")

Patches are made in the training step. Latents of an autoencoder lie in the records: training needs their shape alone,
and no program holds an encoder. Distillation from prompts needs no pictures at all. ``weights`` are for drawing
(``flashjax.weights.load_decoder``).
"""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax

from flashjax import models
from flashjax.errors import UserError, did_you_mean
from flashjax.models import pixels

SETTINGS = ("architecture", "preset", "weights")  # of any autoencoder
AUTOENCODERS = ("vae_qwen_image_21", "vae_qwen_image", "vae_kl")


@dataclasses.dataclass(frozen=True)
class Latents:
    """``stride``: pixels a side of a token; ``channels`` of a token; ``module`` and ``config`` of the autoencoder, None
    for patches."""

    name: str = "pixels"
    stride: int = pixels.PATCH
    channels: int = 3 * pixels.PATCH**2
    module: ModuleType | None = None
    config: Any = None

    def shape(self, size: int) -> tuple[int, int, int]:
        """Of one picture of ``size`` pixels a side, as the denoiser reads it: (h, w, channels)."""
        return size // self.stride, size // self.stride, self.channels

    def record_shape(self, size: int) -> tuple[int, int, int]:
        """Of one picture as a record holds it and the loader gives it."""
        return self.shape(size) if self.module else (size, size, 3)

    def encode(self, given: jax.Array) -> jax.Array:
        """Latents [B, h, w, channels] of what the loader gives: pictures [B, H, W, 3] in [-1, 1], or latents."""
        return given if self.module else pixels.encode(given)

    def tokens(self, size: int) -> int:
        """Of one picture of ``size`` pixels a side."""
        return (size // self.stride) ** 2

    def tokens_given(self, shape: tuple[int, ...]) -> int:
        """Of one picture as the loader gives it, [..., H, W, 3] or latents [..., h, w, channels]."""
        side = 1 if self.module else self.stride
        return (shape[-3] // side) * (shape[-2] // side)


PIXELS = Latents()


def of(config: Mapping[str, Any]) -> Latents:
    """The latents of a run's configuration. Raises UserError for an autoencoder, a preset or a size that there is not.
    """
    settings = config.get("autoencoder")
    if not settings:
        return PIXELS
    name = settings["architecture"]
    if name == PIXELS.name:
        _check_no_sizes(settings)
        return PIXELS
    if name not in AUTOENCODERS:
        known = ", ".join((PIXELS.name, *AUTOENCODERS))
        raise UserError(f"There is no autoencoder {name!r} (config.autoencoder.architecture); there are {known}.")
    module = importlib.import_module(f"flashjax.models.{name}")
    made = models.make_config(module, {k: v for k, v in settings.items() if k != "weights"}, "config.autoencoder")
    return Latents(name, made.stride, made.token_channels, module, made)


def _check_no_sizes(settings: Mapping[str, Any]) -> None:
    """Raises UserError for patches of pixels with a setting of their own, as a misspelt one is."""
    if unknown := [setting for setting in settings if setting not in SETTINGS]:
        hint = did_you_mean(unknown[0], SETTINGS, "they have")
        raise UserError(f"Pixels have no setting {unknown[0]!r} (config.autoencoder.{unknown[0]}); {hint}")


def check(config: Mapping[str, Any], in_channels: int) -> None:
    """Raises UserError where the denoiser takes other latents than the configuration's autoencoder makes."""
    made = of(config)
    if made.channels != in_channels:
        raise UserError(
            f"{made.name} makes tokens of {made.channels} channels (config.autoencoder), and config.model takes "
            f"{in_channels}; choose the autoencoder or the preset that goes with the other."
        )
