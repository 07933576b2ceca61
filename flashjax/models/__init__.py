"""Architectures. Each is one file that offers ``Config``, ``Condition``, ``init``, ``abstract`` and ``denoiser``."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flashjax.errors import UserError, about_settings

ARCHITECTURES = ("qwen_image_21",)


def architecture(name: str) -> ModuleType:
    """The module of a denoiser architecture. Raises UserError for an unknown name."""
    if name not in ARCHITECTURES:
        raise UserError(f"There is no architecture {name!r}; there are {', '.join(ARCHITECTURES)}.")
    return importlib.import_module(f"flashjax.models.{name}")


def make_config(model: ModuleType, settings: Mapping[str, Any]) -> Any:
    """The Config of ``settings["preset"]`` with every other setting but ``architecture`` as an override. Raises
    UserError for a preset that there is not, and for sizes that do not fit together."""
    overrides = {k: v for k, v in settings.items() if k not in ("architecture", "preset")}
    preset = getattr(model.Config, settings["preset"], None)
    if preset is None:
        raise UserError(f"{settings['architecture']} has no preset {settings['preset']!r}; its Config names them all.")
    with about_settings():
        return preset(**overrides)
