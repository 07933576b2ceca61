"""What an autoencoder is to the rest of flashjax, and large pictures in tiles.

An autoencoder's module offers ``PRESETS``, ``Config`` (with ``stride`` and ``token_channels``), ``init``, ``abstract``
and ``autoencoder(config)``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flashjax.errors import UserError
from flashjax.flow import Params
from flashjax.models import checks


class Autoencoder(NamedTuple):
    """Two functions between pictures and latents; nothing else of an autoencoder is visible outside its file.

    ``encode(params, images) -> latents``: images float32 [B, H, W, C] in [-1, 1] (C is 3, or 4 with alpha), with sides
    that are multiples of the pixels of a latent (else ValueError). Latents float32 [B, h, w, D] are what the family's
    denoiser takes: the posterior's mean, normalised, and packed where the denoiser's tokens are patches of latents.
    ``decode(params, latents) -> images``: the way back; images clipped to [-1, 1].

    Both compute in float32, whatever dtype the parameters have; on TPU in full float32 products (rounded ones leave
    visible noise, above all in alpha). Both are pure and not jitted.
    """

    encode: Callable[[Params, jax.Array], jax.Array]
    decode: Callable[[Params, jax.Array], jax.Array]


def functional(graphdef: nnx.GraphDef, pixels: int) -> Autoencoder:
    """The Autoencoder of a network (``network.graphdef``) with the methods ``encode(images)`` and ``decode(latents)``,
    whose latents stand for ``pixels`` x ``pixels`` pixels."""

    def encode(params: Params, images: jax.Array) -> jax.Array:
        height, width = images.shape[1:3]
        if height % pixels or width % pixels:
            raise ValueError(f"Images of {height} x {width} pixels do not divide into latents of {pixels} x {pixels}.")
        return nnx.merge(graphdef, params).encode(images.astype(jnp.float32))

    def decode(params: Params, latents: jax.Array) -> jax.Array:
        images = nnx.merge(graphdef, params).decode(latents.astype(jnp.float32))
        return jnp.clip(images, -1, 1)

    return Autoencoder(encode, decode)


def pack(z: jax.Array) -> jax.Array:
    """[B, 2h, 2w, C] to [B, h, w, 4C], channels in the order (c, row, column): Qwen-Image's and FLUX.2's."""
    b, h, w, c = z.shape
    return z.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, 4 * c)


def unpack(z: jax.Array) -> jax.Array:
    """Inverse of ``pack``."""
    b, h, w, c = z.shape
    return z.reshape(b, h, w, c // 4, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, c // 4)


def decode_tiled(autoencoder: Autoencoder, params: Params, latents: jax.Array, tile: int, overlap: int) -> jax.Array:
    """``decode`` piece by piece: memory for one tile, one decoder in the program however many tiles there are.

    Tiles are ``tile`` x ``tile`` latents (less where the picture is smaller) and share at least ``overlap`` with their
    neighbours, where the pictures fade linearly into each other. A tile as big as the picture gives ``decode`` exactly.
    With smaller ones the decoder's attention, and group norms, see one tile instead of the whole picture; tests measure
    some per cent of the picture's standard deviation on noise. With tiles of 64 and overlaps of 16, a picture of
    2048 px in latents of 16 px is 9 tiles, and takes the memory of one of 1024 px.

    Raises ValueError unless 0 <= overlap < tile.
    """
    images = _by_tiles(lambda z: autoencoder.decode(params, z), latents, latents.shape[1:3], tile, overlap)
    return jnp.clip(images, -1, 1)  # the weights add up to 1 but for their rounding


def encode_tiled(autoencoder: Autoencoder, params: Params, images: jax.Array, tile: int, overlap: int) -> jax.Array:
    """``encode`` piece by piece: as ``decode_tiled``, whose tiles, counted in latents, are these.

    Raises ValueError unless 0 <= overlap < tile, and for sides that do not divide into latents.
    """
    size = jax.eval_shape(autoencoder.encode, params, images).shape[1:3]
    return _by_tiles(lambda x: autoencoder.encode(params, x), images, size, tile, overlap)


def _by_tiles(function: Callable, x: jax.Array, size: tuple[int, int], tile: int, overlap: int) -> jax.Array:
    """``function`` of tiles of x [B, H, W, C], which is ``size`` latents high and wide, faded into one."""
    if not 0 <= overlap < tile:
        raise ValueError(f"Tiles of {tile} latents cannot overlap by {overlap}; it takes 0 <= overlap < tile.")
    batch, each, sides = len(x), x.shape[1] // size[0], [min(tile, side) for side in size]
    one = jax.ShapeDtypeStruct((batch, *(each * side for side in sides), x.shape[-1]), x.dtype)
    made = jax.eval_shape(function, one)
    scale = made.shape[1] // sides[0]
    rows, columns = (_tiles(side, tile, overlap, scale) for side in size)
    (top, left), (fade_rows, fade_columns) = (_pairs(*x) for x in zip(rows, columns, strict=True))

    def add(canvas, at):
        row, column, by_row, by_column = at
        piece = jax.lax.dynamic_slice(x, (0, row * each, column * each, 0), one.shape)
        result = function(piece) * (by_row[:, None] * by_column)[..., None]
        corner = (0, row * scale, column * scale, 0)
        there = jax.lax.dynamic_slice(canvas, corner, result.shape)
        return jax.lax.dynamic_update_slice(canvas, there + result, corner), None

    canvas = jnp.zeros((batch, *(side * scale for side in size), made.shape[-1]))
    return jax.lax.scan(add, canvas, (top, left, fade_rows, fade_columns))[0]


def _tiles(size: int, tile: int, overlap: int, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: the first latents [n] of evenly spread tiles, and the tiles' weights [n, tile * pixels], which
    add up to 1 at every pixel (at every latent, where ``pixels`` is 1). The quarter of an overlap next to a cut has
    weight 0: it saw zeros instead of the picture behind the cut."""
    count = max(1, -(-(size - overlap) // (tile - overlap)))
    tile = min(tile, size)
    starts = np.arange(count) * (size - tile) // max(count - 1, 1)
    weights = np.ones((count, tile * pixels))
    for i in range(count - 1):
        shared = (starts[i] + tile - starts[i + 1]) * pixels
        rise = np.clip((np.arange(shared) + 0.5) / max(shared, 1) * 2 - 0.5, 0, 1)
        weights[i, tile * pixels - shared :] *= rise[::-1]
        weights[i + 1, :shared] *= rise
    at = starts[:, None] * pixels + np.arange(tile * pixels)
    total = np.zeros(size * pixels)
    np.add.at(total, at, weights)
    return starts.astype(np.int32), (weights / total[at]).astype(np.float32)


def _pairs(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every row's entry beside every column's, row by row."""
    return np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), *(1,) * (columns.ndim - 1)))


def check_diffusers(config: Mapping[str, Any], class_name: str, needed: tuple[str, ...], fixed: Mapping[str, Any]):
    """Raises UserError unless a ``config.json`` is of this class, has the ``needed`` settings, and has the ``fixed``
    ones, where it has them, as they are built here."""
    if config.get("_class_name", class_name) != class_name:
        raise UserError(f"config.json is of a {config['_class_name']}, not of an {class_name}.")
    checks.needed(config, needed, class_name)
    checks.fixed(config, fixed)


def check_widths(config: Mapping[str, Any]) -> None:
    """Raises UserError where the sizes of a Qwen-Image autoencoder's ``config.json`` do not fit together as here."""
    means, stds, z = len(config["latents_mean"]), len(config["latents_std"]), config["z_dim"]
    if not means == stds == z:
        raise UserError(f"config.json has z_dim = {z}, but {means} latents_mean and {stds} latents_std.")
    if config["dim_mult"][0] != 1:
        raise UserError(f"config.json has dim_mult = {config['dim_mult']!r}; the first factor has to be 1 here.")
