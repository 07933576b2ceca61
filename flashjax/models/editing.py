"""Conditions of edits: the pictures to edit as references before the instruction, where every word can look at them."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from flashjax.errors import UserError
from flashjax.models import latents


def condition(
    model: ModuleType, text: jax.Array, text_length: jax.Array, sources: Sequence[jax.Array] = (),
    autoencoder: latents.Latents = latents.PIXELS, at: tuple[int, ...] = (),
) -> Any:  # fmt: skip
    """The condition of a batch: text states [B, L, D], int32 [B], and for edits one picture or several, each [B, H, W,
    3] in [-1, 1], or their latents where ``autoencoder`` makes such; their sizes may differ from each other and from
    that of what is made of them. ``at``: how much of the text stands before each of them; nothing where it is ()."""
    if not sources:
        return model.Condition(text, text_length)
    at = at or (0,) * len(sources)
    return _edit(model, text, text_length, tuple(map(autoencoder.encode, sources)), at)


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
    if "references" not in model.Condition.__annotations__:
        raise UserError(f"Models of {model.__name__.rpartition('.')[2]} draw from text alone; leave the pictures out.")
    placed = dict(reference_at=at) if "reference_at" in model.Condition.__annotations__ else {}
    return model.Condition(text, length, references, **placed)
