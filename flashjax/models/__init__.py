"""Architectures. Each is one file that offers ``Config``, ``Condition``, ``init``, ``abstract`` and ``denoiser``."""

import importlib
from types import ModuleType

from flashjax.errors import UserError

ARCHITECTURES = ("qwen_image_21",)


def architecture(name: str) -> ModuleType:
    """The module of a denoiser architecture. Raises UserError for an unknown name."""
    if name not in ARCHITECTURES:
        raise UserError(f"There is no architecture {name!r}; there are {', '.join(ARCHITECTURES)}.")
    return importlib.import_module(f"flashjax.models.{name}")
