"""Architectures. Each is one file that offers ``Config``, ``PRESETS``, ``Condition``, ``init``, ``abstract`` and
``denoiser``."""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flashjax.errors import UserError, about_settings, did_you_mean

ARCHITECTURES = ("qwen_image_21", "qwen_image", "flux2", "z_image")


def architecture(name: str) -> ModuleType:
    """The module of a denoiser architecture. Raises UserError for an unknown name."""
    if name not in ARCHITECTURES:
        raise UserError(f"There is no architecture {name!r}; there are {', '.join(ARCHITECTURES)}.")
    return importlib.import_module(f"flashjax.models.{name}")


def make_config(model: ModuleType, settings: Mapping[str, Any], where: str = "config.model") -> Any:
    """The Config of ``settings["preset"]`` with every other setting but ``architecture`` as an override; ``where`` they
    stand in the configuration. Raises UserError for a preset or a size that there is not, and for sizes that do not fit
    together."""
    overrides = {
        k: tuple(v) if isinstance(v, list) else v  # of a config.json they come as lists, and a Config is hashed
        for k, v in settings.items() if k not in ("architecture", "preset")
    }  # fmt: skip
    name, preset = settings["architecture"], settings["preset"]
    if preset not in model.PRESETS:
        raise UserError(f"{name} has no preset {preset!r}; choose one of {', '.join(model.PRESETS)}.")
    fields = [field.name for field in dataclasses.fields(model.Config)]
    for override in overrides:
        if override not in fields:
            hint = did_you_mean(override, fields, "it has")
            raise UserError(f"{name} has no setting {override!r} ({where}.{override}); {hint}")
        if type(value := overrides[override]) is int and value < 1:
            raise UserError(f"{where}.{override} is {value}; it has to be 1 or more.")
    with about_settings():
        return getattr(model.Config, preset)(**overrides)
