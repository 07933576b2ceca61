"""What is checked of sizes and of the ``config.json`` of a released model, whatever the model."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from flashjax.errors import UserError


def products(dtype: Any) -> None:
    """Raises ValueError unless ``dtype``, to which factors of matrix products are rounded, is None or a dtype."""
    try:
        jnp.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"products is {dtype!r}, no dtype; write float32 or bfloat16.") from error


def even_axes(axes_dims: Sequence[int], width: int, heads: int) -> None:
    """Raises ValueError unless rotary axes are even and make up a head."""
    if width % heads or sum(axes_dims) != width // heads or any(d % 2 for d in axes_dims):
        raise ValueError(
            f"axes_dims {axes_dims} must be even and sum to the head width, which is width / heads = "
            f"{width} / {heads}."
        )


def without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """A ``config.json`` without the settings that it leaves to the class's default."""
    return {name: value for name, value in config.items() if value is not None}


def needed(config: Mapping[str, Any], names: Sequence[str], class_name: str) -> None:
    """Raises UserError unless a ``config.json`` has all the settings ``names``."""
    if missing := [name for name in names if config.get(name) is None]:
        article = "an" if class_name.startswith("A") else "a"
        raise UserError(f"config.json lacks {', '.join(missing)}; is it the one of {article} {class_name}?")


def fixed(config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises UserError unless a ``config.json`` has ``settings``, where it has them, as they are built here."""
    for name, wanted in settings.items():
        found = config.get(name, wanted)
        if _listed(found) != _listed(wanted):
            raise UserError(f"config.json has {name} = {found!r}; only {wanted!r} is built here.")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
