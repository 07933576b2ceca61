"""What Qwen3-VL and Qwen2.5-VL share in seeing: patches, attention within an image, images in a row of tokens.

Source: transformers' ``qwen3_vl`` and ``qwen2_5_vl``. A tower reads patches, and ``merge`` x ``merge`` neighbours
become one slot of the language model. Patches are therefore in merge-block order: block by block in raster order, and
in raster order within a block.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashjax.errors import UserError
from flashjax.models import layers, rope
from flashjax.models.attention import attend

TEMPORAL = 2  # frames of a video that one patch spans; a still image is shown as two equal frames
Slots = tuple[np.ndarray, np.ndarray]


def grid(image: jax.Array, patch: int, merge: int) -> tuple[int, int]:
    """Patches down and across of images [B, H, W, 3]. Raises ValueError for sizes that do not divide."""
    height, width = image.shape[1:3]
    if height % (patch * merge) or width % (patch * merge):
        raise ValueError(f"An image is {height} x {width} pixels; its sides must be multiples of {patch * merge}.")
    return height // patch, width // patch


def block_order(x, merge: int):
    """[..., rows, columns, d] to [..., rows * columns, d] in merge-block order."""
    *batch, rows, columns, d = x.shape
    x = x.reshape(*batch, rows // merge, merge, columns // merge, merge, d)
    return x.swapaxes(-4, -3).reshape(*batch, rows * columns, d)


def patches(images: jax.Array, patch: int, merge: int, mean, std) -> jax.Array:
    """Pixels [B, H, W, 3], uint8 or float in [-1, 1], normalised, as patches [B, N, patch * patch * 3], float32."""
    rows, columns = grid(images, patch, merge)
    unit = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else (images.astype(jnp.float32) + 1) / 2
    x = (unit - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
    x = x.reshape(len(x), rows, patch, columns, patch, 3).swapaxes(2, 3)
    return block_order(x.reshape(len(x), rows, columns, -1), merge)


def patch_angles(rows: int, columns: int, merge: int, head_dim: int) -> jax.Array:
    """Rotary angles [N, head_dim / 2] of a grid's patches: half for the row, half for the column."""
    positions = block_order(np.moveaxis(np.indices((rows, columns)), 0, -1), merge)
    return rope.angles(positions, (head_dim // 2,) * 2, 10_000.0)


def check_heads(width: int, heads: int) -> None:
    """Raises ValueError unless a head divides into two axes of rotary pairs."""
    if width % (4 * heads):
        raise ValueError(f"The vision tower's head width must be a multiple of 4, not {width} / {heads}.")


class PatchEmbed(nnx.Module):
    """A linear map of patches; ``kernel`` [TEMPORAL, patch, patch, 3, width]."""

    def __init__(self, patch: int, width: int, rngs: nnx.Rngs, dtype, bias: bool):
        shape = (TEMPORAL, patch, patch, 3, width)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape, dtype))
        self.bias = nnx.Param(jnp.zeros((width,), dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(jnp.float32).sum(0)  # both frames are the same image
        y = layers.project(x, kernel.reshape(-1, kernel.shape[-1]))
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class Attention(nnx.Module):
    """Attention among the patches [B, N, width] of one image."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, dtype):
        self.qkv = layers.Linear(width, 3 * width, rngs, dtype, bias=True)
        self.proj = layers.Linear(width, width, rngs, dtype, bias=True)
        self.heads = heads

    def __call__(self, x: jax.Array, cos: jax.Array, sin: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        q, k, v = (y.reshape(*x.shape[:-1], self.heads, -1) for y in jnp.split(self.qkv(x), 3, axis=-1))
        q, k = (rope.rotate(y, cos, sin) for y in (q, k))
        return self.proj(attend(q, k, v, mask).reshape(x.shape))


def layout(length: int, image_at: tuple[int, ...], sizes: tuple[tuple[int, int], ...]) -> Slots:
    """Where tokens and images stand in a row of ``length`` tokens: positions [length, 3] (time, row, column) and the
    slots [S] that images take, in their order.

    image_at: index of each image's first slot; sizes: its (rows, columns) of slots. Text counts on by one on all
    axes; an image holds one time, counts its rows and columns from it, and moves the text after it on by the larger
    of the two.
    """
    if len(image_at) != len(sizes):
        raise ValueError(f"image_at {image_at} must give a place for each of the {len(sizes)} images.")
    positions, slots, place, pos = np.zeros((length, 3), int), [np.zeros(0, int)], 0, 0
    for at, (rows, columns) in zip(image_at, sizes, strict=True):
        end = at + rows * columns
        if at < place or end > length:
            raise ValueError(
                f"An image of {rows} x {columns} slots does not fit at {at} of {length} tokens: images must stand in "
                f"order, and slots before {place} are taken."
            )
        positions[place:at] = pos + np.arange(at - place)[:, None]
        pos += at - place
        row, column = np.indices((rows, columns)).reshape(2, -1)
        positions[at:end] = pos + np.stack([np.zeros_like(row), row, column], axis=-1)
        slots.append(np.arange(at, end))
        place, pos = end, pos + max(rows, columns)
    positions[place:] = pos + np.arange(length - place)[:, None]
    return positions, np.concatenate(slots)


def read_sizes(config: Mapping[str, Any], names: Mapping[str, str], **fixed: Any) -> dict[str, Any]:
    """{field: size} of the vision tower in a ``config.json``. ``names``: {field: name there}; ``fixed``: settings of
    which one value is built. Raises UserError for another value, and for a size that is missing."""
    tower = config.get("vision_config") or {}
    if missing := [name for name in names.values() if tower.get(name) is None]:
        raise UserError(f"vision_config in config.json lacks {', '.join(missing)}.")
    for name, wanted in {"in_channels": 3, "temporal_patch_size": TEMPORAL, **fixed}.items():
        if tower.get(name, wanted) != wanted:
            raise UserError(f"vision_config in config.json has {name} = {tower[name]!r}; only {wanted!r} is built.")
    found = {field: tower[name] for field, name in names.items()}
    return {field: tuple(size) if isinstance(size, list) else size for field, size in found.items()}
