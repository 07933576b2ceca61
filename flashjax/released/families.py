"""What distinguishes the families of released models from each other, but for their prompts (``models.prompts``)."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from flashjax.errors import UserError
from flashjax.models import prompts
from flashjax.upright import UNREADABLE, eight_bits


def resized(picture: Image.Image, area: int, multiple: int) -> Image.Image:
    """To about ``area`` pixels, up or down, as Qwen-Image's pipelines do; the size decides, not ``multiple``."""
    height, width = prompts.area_size(picture.height, picture.width, area)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, area: int, multiple: int) -> Image.Image:
    """Down to ``area`` pixels where there are more, then cut to multiples of ``multiple``, as FLUX.2's does."""
    if picture.width * picture.height > area:
        scale = math.sqrt(area / (picture.width * picture.height))
        size = int(picture.width * scale), int(picture.height * scale)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    width, height = (side // multiple * multiple for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family is drawn with.

    Attributes:
      pipeline: diffusers' class, as ``model_index.json`` names it.
      denoiser, autoencoder: modules of flashjax.models.
      steps, guidance_scale: defaults. The scale is in our convention: Z-Image's pipeline calls our 6 a 5.
      rescale: guidance keeps the norm of every token, see ``flow.guide``.
      references: fewest and most pictures to edit; None: any number.
      fit: what the autoencoder is given of a reference: (picture, area, multiple) -> picture.
      follows: the reference whose size a picture gets by default.
      area: pixels of a reference, and of a picture without one.
      block: a picture's sides in tokens are multiples of this.
      klein: a dynamic time shift is FLUX.2's.
    """

    pipeline: str
    denoiser: str
    autoencoder: str
    steps: int = 50
    guidance_scale: float = 4.0
    rescale: bool = False
    references: tuple[int, int | None] = (0, 0)
    fit: Callable[[Image.Image, int, int], Image.Image] = resized
    follows: int = -1
    area: int = 1024**2
    block: int = 1
    klein: bool = False


_QWEN_IMAGE = dict(denoiser="qwen_image", autoencoder="vae_qwen_image", rescale=True)
FAMILIES = {
    "qwen_image_21": Family(
        "QwenImage21Pipeline", "qwen_image_21", "vae_qwen_image_21", steps=40, guidance_scale=1.0,
        references=(0, None), block=2,
    ),
    "qwen_image": Family("QwenImagePipeline", **_QWEN_IMAGE),
    "qwen_image_edit": Family("QwenImageEditPipeline", references=(1, 1), **_QWEN_IMAGE),
    "qwen_image_edit_plus": Family("QwenImageEditPlusPipeline", references=(1, None), **_QWEN_IMAGE),
    "z_image": Family("ZImagePipeline", "z_image", "vae_kl", guidance_scale=6.0),
    "flux2_klein": Family(
        "Flux2KleinPipeline", "flux2", "vae_kl", references=(0, None), fit=cropped, follows=0, klein=True
    ),
}  # fmt: skip


def read_picture(path: str | Path) -> Image.Image:
    """A picture from a file, turned upright, of 8 bits a channel. Raises UserError."""
    try:
        with Image.open(path) as image:
            return eight_bits(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise UserError(f"The picture {path} cannot be read ({error}).") from error


def as_seen(rules: prompts.Family, image: Image.Image) -> np.ndarray:
    """A reference as the encoder sees it: uint8 [H, W, 3]. Resized twice, by the pipeline and by its processor; what is
    transparent is white."""
    height, width = prompts.vision_size(rules, image.height, image.width)
    image = resized(image, rules.area, 1)
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
