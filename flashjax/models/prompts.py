"""How each family of models writes a prompt, and which of the encoder's states its denoiser reads: data, and what
turns a prompt into tokens by it.

Source: the families' pipelines in diffusers, and for the two Qwen3 encoders the chat template of their tokenizer;
tests/models compare the texts. Reading a prompt takes three steps: ``read`` makes tokens, the module ``encoder`` of
flashjax.models makes states of them, and ``kept`` says which of these go to the denoiser.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.errors import UserError

IMAGE_PAD = "<|image_pad|>"  # one for every slot of an image
PADDING = "<|endoftext|>"  # behind a prompt; FLUX.2-klein reads its states
Tokenizer = Callable[[list[str]], list[list[int]]]  # texts to token ids, special tokens read as such, none added

_IMAGE = f"<|vision_start|>{IMAGE_PAD}<|vision_end|>"
_SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"
_USER = "<|im_start|>user\n{images}{prompt}<|im_end|>\n<|im_start|>assistant\n"
_DESCRIBE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
_EDIT = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)


@dataclass(frozen=True)
class Family:
    """The rules of one family.

    Attributes:
      encoder: module of flashjax.models that makes the states.
      features, final_norm: its configuration's fields of these names.
      template: the text around {images} and {prompt}.
      image, between: how the text mentions one image ({number} counts from 1), and what stands between two of them.
      images: fewest and most images that a prompt takes; None: any number.
      drop: how many tokens at the front the denoiser is not given: the system's part of the template.
      limit: most tokens of a prompt behind these; None: no limit.
      padded: whether every prompt is padded up to ``limit`` and the denoiser reads the padding.
      keeps_slots: whether the denoiser is given the states at image slots.
      null: the prompt that guidance compares with.
      blank: what is written for an empty prompt.
      multiple: sides in pixels of what one slot of an image covers.
      area: pixels of an image that the encoder sees, by default.
    """

    encoder: str
    features: tuple[int, ...]
    template: str
    final_norm: bool = False
    image: str = ""
    between: str = ""
    images: tuple[int, int | None] = (0, 0)
    drop: int = 0
    limit: int | None = None
    padded: bool = False
    keeps_slots: bool = True
    null: str = ""
    blank: str = ""
    multiple: int = 1
    area: int = 1024**2

    @property
    def settings(self) -> dict[str, Any]:
        """Overrides for the encoder's configuration."""
        return {"features": self.features, "final_norm": self.final_norm}


_QWEN_IMAGE = dict(encoder="qwen25_vl", features=(28,), final_norm=True, null=" ")
_QWEN_IMAGE_EDIT = dict(template=_SYSTEM.format(_EDIT) + _USER, drop=64, multiple=28, **_QWEN_IMAGE)
FAMILIES = {
    "qwen_image_21": Family(
        encoder="qwen3_vl", features=(36,), drop=14, keeps_slots=False, null=" ", blank=" ", multiple=32,
        template=_SYSTEM.format("Comprehend and analyze the provided prompt.") + _USER,
        image="<image{number}>" + _IMAGE, between=" ", images=(0, None),
    ),
    "qwen_image": Family(template=_SYSTEM.format(_DESCRIBE) + _USER, drop=34, limit=512, **_QWEN_IMAGE),
    "qwen_image_edit": Family(image=_IMAGE, images=(1, 1), **_QWEN_IMAGE_EDIT),
    "qwen_image_edit_plus": Family(
        image="Picture {number}: " + _IMAGE, images=(1, None), area=384**2, **_QWEN_IMAGE_EDIT
    ),
    "z_image": Family(encoder="qwen3", features=(35,), template=_USER, limit=512),
    "flux2_klein": Family(
        encoder="qwen3", features=(9, 18, 27), template=_USER + "<think>\n\n</think>\n\n", limit=512, padded=True
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """One prompt: ``ids`` int32 [n], the index of each image's first slot, and each image's number of slots."""

    ids: np.ndarray
    image_at: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()


def text(family: Family, prompt: str, slots: Sequence[int] = ()) -> str:
    """What the tokenizer reads. ``slots``: how many slots each image takes."""
    if any("\ud800" <= letter <= "\udfff" for letter in prompt):  # what Python makes of bytes that are no UTF-8
        raise UserError(f"The prompt {shorten(prompt)} is no valid text; write it in UTF-8.")
    low, high = family.images
    if len(slots) < low or (high is not None and len(slots) > high):
        wanted = f"at least {low}" if high is None else f"{low} to {high}" if low < high else f"exactly {low}"
        raise UserError(f"The images of a prompt must be {wanted} for this model, not {len(slots)}.")
    mentions = (
        family.image.format(number=number).replace(IMAGE_PAD, IMAGE_PAD * count)
        for number, count in enumerate(slots, start=1)
    )
    return family.template.format(images=family.between.join(mentions), prompt=prompt or family.blank)


def read(family: Family, tokenizer: Tokenizer, prompt: str, sizes: Sequence[tuple[int, int]] = ()) -> Tokens:
    """The tokens of one prompt. ``sizes``: (height, width) in pixels of each image as the encoder sees it.

    Raises UserError for a prompt that is longer than the family's limit (prompts are never cut silently) or holds the
    token that stands for images, for a wrong number of images, and for a size that is no multiple of the family's.
    """
    slots = tuple(_slots(family, *size) for size in sizes)
    ids = np.array(tokenizer([text(family, prompt, slots)])[0], np.int32)
    if family.limit is not None and len(ids) > family.drop + family.limit:
        raise UserError(
            f"The prompt {shorten(prompt)} has {len(ids) - family.drop} tokens with its template, the limit is "
            f"{family.limit}; shorten it."
        )
    places = np.flatnonzero(ids == token_id(tokenizer, IMAGE_PAD))
    if len(places) != sum(slots):
        raise UserError(f"The prompt {shorten(prompt)} contains {IMAGE_PAD}, which stands for images; leave it out.")
    starts = np.cumsum((0, *slots))[:-1]
    return Tokens(ids, tuple(int(places[start]) for start in starts), slots)


def pack(
    family: Family, rows: Sequence[Tokens], pad: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """A batch of prompts: tokens int32 [B, length], padded on the right with ``pad`` (the id of ``PADDING``), the true
    lengths int32 [B], and the places of the images, which have to be the same in all. ``length`` None is the longest
    prompt's; a padded family has its own."""
    if len({(row.image_at, row.slots) for row in rows}) > 1:
        raise ValueError("The prompts of a batch must mention the same images at the same places.")
    lengths = np.array([len(row.ids) for row in rows], np.int32)
    total = family.drop + family.limit if family.padded else length or int(lengths.max())
    packed = np.full((len(rows), total), pad, np.int32)
    for out, row in zip(packed, rows, strict=True):
        out[: len(row.ids)] = row.ids
    return packed, lengths, rows[0].image_at


def kept(family: Family, tokens: Tokens, length: int) -> np.ndarray:
    """Which of ``length`` states the denoiser is given, as indices [K]: of a row with n real states, n - (length - K)
    are real among these. (A padded family's denoiser takes all for real.)"""
    is_kept = np.arange(length) >= family.drop
    if not family.keeps_slots:
        for at, count in zip(tokens.image_at, tokens.slots, strict=True):
            is_kept[at : at + count] = False
    return np.flatnonzero(is_kept)


def reference_at(family: Family, tokens: Tokens) -> tuple[int, ...]:
    """How many of the states that the denoiser is given stand before each image, its slots not counted."""
    before = np.cumsum((0, *tokens.slots))
    return tuple(at - family.drop - int(n) for at, n in zip(tokens.image_at, before, strict=False))


def area_size(height: int, width: int, area: int) -> tuple[int, int]:
    """The size to which Qwen-Image's pipelines resize an image: its own aspect ratio, about ``area`` pixels, sides
    multiples of 32."""
    across = math.sqrt(area * (width / height))
    return tuple(round(side / 32) * 32 for side in (across / (width / height), across))


def vision_size(family: Family, height: int, width: int, area: int | None = None) -> tuple[int, int]:
    """The size at which the encoder sees an image of about ``area`` pixels (None: the family's): what the pipelines
    resize to, then multiples of the encoder's slots, as its processor does."""
    sides = area_size(height, width, area or family.area)
    return tuple(round(side / family.multiple) * family.multiple for side in sides)


@contextlib.contextmanager
def about_tokenizer(folder: Path) -> Iterator[None]:
    """What goes wrong while a tokenizer is read from ``folder`` is a UserError that names it. Nothing else goes inside.

    The Rust library tokenizers raises the bare class Exception, for what is JSON but no tokenizer; what transformers
    stumbles over before it asks that library is of several kinds.
    """
    try:
        yield
    except Exception as error:
        stumbled = isinstance(error, OSError | ValueError | LookupError | TypeError | AttributeError)
        if isinstance(error, UserError) or not (stumbled or type(error) is Exception):
            raise
        said = " ".join(str(error).split())
        raise UserError(f"The tokenizer in {folder} cannot be read ({said}); fetch it again.") from error


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token. Raises UserError where the tokenizer takes it for text."""
    ids = tokenizer([token])[0]
    if len(ids) != 1:
        raise UserError(f"The tokenizer splits {token} into {len(ids)} tokens; give the tokenizer of a Qwen model.")
    return ids[0]


def shorten(prompt: str) -> str:
    """A prompt for a message."""
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")


def _slots(family: Family, height: int, width: int) -> int:
    if height % family.multiple or width % family.multiple:
        raise UserError(f"An image is {height} x {width} pixels; its sides must be multiples of {family.multiple}.")
    return (height // family.multiple) * (width // family.multiple)
