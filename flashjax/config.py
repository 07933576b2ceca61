"""Configurations: short Python files with ``get_config(arg)``, overridden from the command line, locked.

    --config=configs/postcards.py:quick --config.student_optim.lr=1e-4

What stands after the colon are typed arguments of the file, separated by commas; a name alone means True.
"""

from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from flashjax.errors import UserError


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """The arguments after the colon: ``"quick,res=64"`` with ``quick=False, res=32`` as defaults gives quick=True, res=64.

    Values take the type of their default. Raises UserError for an unknown name or a value that is not of that type.
    """
    out = ConfigDict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            raise UserError(f"This configuration has no argument {name!r}; it takes {', '.join(defaults) or 'none'}.")
        kind = type(defaults[name])
        if kind is bool and text not in ("", "true", "false"):
            raise UserError(f"The argument {name} is a switch: write {name}, {name}=true or {name}=false, not {item!r}.")
        try:
            out[name] = text in ("", "true") if kind is bool else kind(text)
        except ValueError as error:
            raise UserError(f"The argument {name} has to be of type {kind.__name__}, not {text!r}.") from error
    return out


def load(argv: list[str]) -> ConfigDict:
    """The configuration that ``--config=FILE[:ARGS] [--config.key=value ...]`` describes, locked.

    A misspelt key is an error that names the nearest one. Raises UserError.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
    try:
        rest = values(["flashjax", *argv])[1:]
        config = values["config"].value
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"The configuration cannot be read: {_sentence(error)}") from error
    if rest:
        raise UserError(f"Not understood: {' '.join(rest)}. Settings are written --config.key=value.")
    if config is None:
        raise UserError("No configuration given; write --config=configs/postcards.py, for example.")
    return config


def _sentence(error: Exception) -> str:
    text = str(error.args[0] if error.args else error).strip().replace("\n", " ")
    return text if text.endswith((".", "?", "!")) else text + "."
