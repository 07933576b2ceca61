"""A released model: what it takes to draw with one, and how."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from flashjax import pictures, schedules
from flashjax.distill.sampling import make_sampler
from flashjax.errors import UserError, about_settings
from flashjax.models import pixels, prompts
from flashjax.models.autoencoder import decode_tiled, encode_tiled
from flashjax.released.encoding import Encoder, Part
from flashjax.released.families import Family, as_seen
from flashjax.upright import eight_bits, upright

# A picture of more pixels than WHOLE goes through the autoencoder in tiles; TILE and OVERLAP are pixels of their sides.
# Whole, one of 2048 px takes four times the memory of one of 1024 px, in tiles the same (docs/performance.md).
WHOLE, TILE, OVERLAP = 3 * 1024**2, 1024, 256
LONGEST = 200  # times the other side: Qwen's processors take no longer pictures


@dataclasses.dataclass(frozen=True)
class Plan:
    """A request that can be drawn: tokens of the prompts and (where there is guidance) of the negative one, references
    as the encoder and as the autoencoder see them (uint8 [H, W, C]), and ``size``: height and width in tokens."""

    rows: list[prompts.Tokens]
    negative: list[prompts.Tokens]
    seen: list[np.ndarray]
    references: list[np.ndarray]
    size: tuple[int, int]
    grid: np.ndarray
    guidance_scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Released:
    """A released model. ``keep`` its weights from one drawing to the next; else only one network is in memory at a
    time. ``defaults``: steps, guidance_scale and mode of this folder; ``sigmas``: times that it prescribes, or None;
    ``stride``: pixels a side of a token."""

    name: str
    family: Family
    encoder: Encoder
    denoiser: Part
    autoencoder: Part
    scheduler: Mapping[str, Any]
    defaults: Mapping[str, Any]
    sigmas: Sequence[float] | None
    stride: int
    keep: bool = False

    def draw(
        self, texts: Sequence[str], seeds: Sequence[int], images: Sequence[Image.Image] = (), **settings
    ) -> np.ndarray:
        """uint8 pictures [N, H, W, C] (C is 4 for Qwen-Image-2.1: with alpha), one a prompt and seed. ``images``: the
        pictures to edit, the same for all prompts. ``settings``: see ``plan``, which raises UserError."""
        return self.render(self.plan(texts, images, **settings), seeds)

    def render(self, plan: Plan, seeds: Sequence[int]) -> np.ndarray:
        """``draw`` of a request that has been checked."""
        return pixels.to_uint8(self.decode(self.sample(plan, seeds)))

    def plan(
        self,
        texts: Sequence[str],
        images: Sequence[Image.Image] = (),
        *,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
    ) -> Plan:
        """Checks a request and prepares all of it that takes no weights.

        height and width in pixels: both or neither; by default those of the reference, or a square. guidance_scale: 1
        is none; the family's null prompt stands where there is no ``negative_prompt``. Raises UserError.
        """
        family, rules, step = self.family, self.encoder.rules, self.stride * self.family.block
        self._check_references(images)
        transparent = self.autoencoder.config.channels == 4
        with about_settings():
            images = [eight_bits(image).convert("RGBA") if transparent else upright(image) for image in images]
        fitted = [family.fit(image, family.area, step) for image in images]
        if small := [i for i, image in zip(images, fitted, strict=True) if min(image.size) < step]:
            raise UserError(f"A picture is {small[0].width} x {small[0].height}; sides take {step} pixels at least.")
        size = self._size(fitted, height, width, step)
        scale = self.defaults["guidance_scale"] if guidance_scale is None else guidance_scale
        if scale < 1:
            raise UserError(
                f"Guidance {scale:g} leads to the negative prompt; 1 is none, and what Z-Image's pipeline calls 0."
            )
        if scale == 1 and negative_prompt is not None:
            raise UserError("A negative prompt does nothing at guidance 1; leave it out, or give --guidance.")
        seen = [as_seen(rules, image) for image in images] if rules.images != (0, 0) else []
        sizes = [image.shape[:2] for image in seen]
        negative = [] if scale == 1 else [rules.null if negative_prompt is None else negative_prompt]
        tokenizer = self.encoder.tokenizer
        rows = [[prompts.read(rules, tokenizer, text, sizes) for text in some] for some in (texts, negative)]
        return Plan(*rows, seen, [np.asarray(image) for image in fitted], size, self._grid(steps, size), scale)

    def noise(self, plan: Plan, seeds: Sequence[int]) -> jax.Array:
        """Float32 [N, h, w, C]: picture i depends on seeds[i] alone."""
        shape = (*plan.size, self.denoiser.config.in_channels)
        return jax.vmap(lambda key: jax.random.normal(key, shape))(pictures.keys(list(seeds)))

    def sample(self, plan: Plan, seeds: Sequence[int]) -> jax.Array:
        """Packed latents [N, h, w, C] of a plan's pictures. Raises ValueError unless there is a seed for each."""
        if len(seeds) != len(plan.rows):
            raise ValueError(f"There are {len(plan.rows)} prompts and {len(seeds)} seeds; a picture takes one of each.")
        cond, null = self._conditions(plan)
        z = self._sampler(
            self.denoiser.params, cond, null, self.noise(plan, seeds), plan.grid, plan.guidance_scale,
            self.defaults["mode"], pictures.keys(list(seeds)),
        )  # fmt: skip
        self._drop(self.denoiser)
        return z

    def decode(self, z: jax.Array) -> np.ndarray:
        """Pictures float32 [N, H, W, C] in [-1, 1] of packed latents, one at a time: they are large."""
        out = [np.asarray(self._decode(self.autoencoder.params, one[None])) for one in z]
        self._drop(self.autoencoder)
        return np.concatenate(out)

    def _conditions(self, plan: Plan):
        """The conditions of the prompts and, of batch 1, of the negative one (None without guidance)."""
        texts = [self.encoder.states(rows, plan.seen) if rows else None for rows in (plan.rows, plan.negative)]
        self._drop(self.encoder.part)
        given = [pixels.from_uint8(image)[None] for image in plan.references]
        references = [self._encode(self.autoencoder.params, image) for image in given]
        self._drop(self.autoencoder)
        at = prompts.reference_at(self.encoder.rules, plan.rows[0])
        return [text and self._condition(*text, references, at) for text in texts]

    def _condition(self, text, length, references, at):
        condition = self.denoiser.module.Condition
        references = tuple(np.repeat(x, len(text), axis=0) for x in references)
        given = dict(text=text, text_length=length, references=references, reference_at=at)
        return condition(**{field.name: given[field.name] for field in dataclasses.fields(condition)})

    def _check_references(self, images: Sequence[Image.Image]) -> None:
        low, high = self.family.references
        if len(images) < low:
            raise UserError(f"{self.name} edits pictures; give it {'one' if high == 1 else 'at least one'} (--image).")
        if high is not None and len(images) > high:
            what = f"edits {high} picture at a time" if high else "draws from text alone"
            raise UserError(f"{self.name} {what}; it was given {len(images)} (--image).")
        if long := [image.size for image in images if max(image.size) > LONGEST * min(image.size)]:
            width, height = long[0]
            raise UserError(f"A picture is {width} x {height}; one side is {LONGEST} times the other at most.")

    def _size(self, fitted: Sequence[Image.Image], height: int | None, width: int | None, step: int):
        if (height is None) != (width is None):
            raise UserError("Give height and width, or neither.")
        if height is None:
            side = round(math.sqrt(self.family.area))
            width, height = fitted[self.family.follows].size if fitted else (side, side)
        if min(height, width) < step or height % step or width % step:
            raise UserError(f"Pictures of {width} x {height} do not divide; {self.name} takes multiples of {step}.")
        return height // self.stride, width // self.stride

    def _grid(self, steps: int | None, size: tuple[int, int]) -> np.ndarray:
        if self.sigmas is not None and steps not in (None, len(self.sigmas)):
            raise UserError(f"This model was made for {len(self.sigmas)} given steps, not {steps}; leave out --steps.")
        with about_settings():
            return schedules.scheduler_sigmas(
                self.scheduler, self.defaults["steps"] if steps is None else steps, math.prod(size), self.family.klein,
                self.sigmas,
            )  # fmt: skip

    def _drop(self, part: Part) -> None:
        if not self.keep:
            part.drop()

    @functools.cached_property
    def _sampler(self):
        part = self.denoiser
        return make_sampler(part.module.denoiser(part.config), self.family.rescale)

    @functools.cached_property
    def _encode(self):
        return self._through_the_autoencoder("encode", encode_tiled, pixels_a_side=1)

    @functools.cached_property
    def _decode(self):
        return self._through_the_autoencoder("decode", decode_tiled, pixels_a_side=self.stride)

    def _through_the_autoencoder(self, name: str, tiled: Callable, pixels_a_side: int) -> Callable:
        """A jitted function of (params, pictures or latents), in tiles where the picture is large."""
        autoencoder = self.autoencoder.module.autoencoder(self.autoencoder.config)
        tile, overlap = TILE // self.stride, OVERLAP // self.stride

        def run(params: Any, x: jax.Array) -> jax.Array:
            if math.prod(x.shape[1:3]) * pixels_a_side**2 <= WHOLE:
                return getattr(autoencoder, name)(params, x)
            return tiled(autoencoder, params, x, tile, overlap)

        return jax.jit(run)
