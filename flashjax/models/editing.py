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
    return _edit(model, text, text_length, (autoencoder.encode(source),), (0,))


def null_condition(model: ModuleType, null: Any, cond: Any) -> Any:
    """What guidance leads away from: the null text [1, L, D] or [B, L, D] with the pictures of ``cond``, which an edit
    keeps."""
    if not getattr(cond, "references", ()):
        return null
    batch = len(cond.text)
    text, length = (jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in (null.text, null.text_length))
    return _edit(model, text, length, cond.references, getattr(cond, "reference_at", ()))


def _edit(model: ModuleType, text: jax.Array, length: jax.Array, references: tuple, at: tuple[int, ...]) -> Any:
    """Qwen-Image-2.1 is told where in the text a picture stands; Qwen-Image has a text that mentions it."""
    placed = dict(reference_at=at) if "reference_at" in model.Condition.__annotations__ else {}
    return model.Condition(text, length, references, **placed)
