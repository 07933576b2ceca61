"""Conditions of edits: the picture to edit as a reference before the instruction, where every word can look at it."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from flashjax.models import latents


def condition(
    model: ModuleType, text: jax.Array, text_length: jax.Array, source: jax.Array | None = None,
    autoencoder: latents.Latents = latents.PIXELS,
) -> Any:  # fmt: skip
    """The condition of a batch: text states [B, L, D], int32 [B], and for edits the pictures [B, H, W, 3] in [-1, 1],
    or their latents where ``autoencoder`` makes such; they may be of another size than what is made of them."""
    if source is None:
        return model.Condition(text, text_length)
    return model.Condition(text, text_length, (autoencoder.encode(source),), (0,))


def null_condition(model: ModuleType, null: Any, cond: Any) -> Any:
    """What guidance leads away from: the null text [1, L, D] with the pictures of ``cond``, which an edit keeps."""
    if not getattr(cond, "references", ()):
        return null
    batch = len(cond.text)
    text, length = (jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in (null.text, null.text_length))
    return model.Condition(text, length, cond.references, cond.reference_at)
