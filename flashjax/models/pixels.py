"""The identity autoencoder: pixels in patches. Stands where a VAE stands for large models."""

import jax
import jax.numpy as jnp
import numpy as np

PATCH = 4  # pixels


def encode(images: jax.Array, patch: int = PATCH) -> jax.Array:
    """Images [B, H, W, C] in [-1, 1] to latents [B, H / patch, W / patch, patch * patch * C]; exactly invertible."""
    b, h, w, c = images.shape
    if h % patch or w % patch:
        raise ValueError(f"Images of {h} x {w} pixels do not divide into patches of {patch}.")
    x = images.reshape(b, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // patch, w // patch, patch * patch * c)


def decode(latents: jax.Array, patch: int = PATCH) -> jax.Array:
    """Inverse of ``encode``."""
    b, h, w, d = latents.shape
    x = latents.reshape(b, h, w, patch, patch, d // patch**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * patch, w * patch, -1)


def from_uint8(images):
    """Images of bytes (numpy or jax) as float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1


def to_uint8(images: jax.Array) -> np.ndarray:
    """Images in [-1, 1] to uint8, rounded and clipped to the range of a picture. Raises FloatingPointError where
    they are not finite: NaN became black, or transparent, without a word."""
    if not jnp.isfinite(images).all():
        raise FloatingPointError("The pictures are not finite: weights of the model are NaN, infinite or too large.")
    return np.asarray(jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8))
