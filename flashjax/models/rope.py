"""Rotary positions for image transformers: three axes (frame, height, width), channel pairs (2i, 2i + 1)."""

import jax
import jax.numpy as jnp
import numpy as np


def frequencies(axes_dims: tuple[int, ...], theta: float) -> tuple[np.ndarray, ...]:
    """For every axis its ``dim / 2`` angular frequencies ``theta^(-2i / dim)``, float32."""
    return tuple(theta ** -(np.arange(0, dim, 2, dtype=np.float64) / dim).astype(np.float32) for dim in axes_dims)


def angles(positions: jax.Array, axes_dims: tuple[int, ...], theta: float) -> jax.Array:
    """Rotation angles [..., sum(axes_dims) / 2] in float32 of positions [..., axes]."""
    freqs = frequencies(axes_dims, theta)
    positions = jnp.asarray(positions, jnp.float32)
    return jnp.concatenate([positions[..., i, None] * f for i, f in enumerate(freqs)], axis=-1)


def image_positions(height: int, width: int) -> np.ndarray:
    """Positions [height * width, 2] of an image's tokens in raster order, centred on 0, negative side first
    (odd sizes have one more negative index)."""
    rows = np.arange(height) - (height - height // 2)
    columns = np.arange(width) - (width - width // 2)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def split_pairs(x: jax.Array, head_dim: int) -> jax.Array:
    """Reorders the last axis (heads * head_dim) so that each head holds its even channels, then its odd ones.

    Applied to the query and key *weights*, which is exact because attention only sees products of the two: activations
    then rotate as two contiguous halves, where interleaved pairs would keep CPU and TPU from using vector lanes.
    """
    shape = x.shape
    return x.reshape(*shape[:-1], -1, head_dim // 2, 2).swapaxes(-1, -2).reshape(shape)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates x [..., heads, head_dim], whose channels are split pairs, by angles given as cos, sin [..., 1, head_dim
    / 2]; in float32, result in x's dtype."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)
