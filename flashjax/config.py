"""Configurations: short Python files with ``get_config(arg)``, overridden from the command line, locked.

    --config=configs/postcards.py:quick --config.student_optim.lr=5e-5 --config.edit_share='((0, 0.0), (0.5, 0.3))'

What stands after the colon are typed arguments of the file, separated by commas; a name alone means True. Settings that
may be a number, a mapping or either over the run are written as Python writes them (``LITERALS``).
"""

import ast
import difflib
import fnmatch
import importlib.util
import operator
import re
import reprlib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict, FieldReference

from flashjax.errors import UserError, did_you_mean
from flashjax.workdir import OPTIMIZERS, existing

# What a configuration file's own code may raise: all but a lack of memory, Ctrl-C and exit.
FILE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError,
)  # fmt: skip

# Every run has these settings; a configuration file names those that it wants to be otherwise.
OPERATIONS = dict(
    profile=(0, 0),  # first and last row to trace into the work directory; (0, 0): none
    watchdog_minutes=0.0,  # the run ends where no row was finished for so long; 0: it waits for ever
    compile_cache="",  # folder of compiled programs; "": what JAX_COMPILATION_CACHE_DIR says
    # What the denoiser reads in place of pixels, see models.latents; weights: folder of the decoder that draws samples.
    autoencoder=dict(architecture="pixels", preset="", weights=""),
    # Parts of a batch whose gradients are added up before an update: less memory, the same update.
    micro_batches=1,
    # Of kept teachers, and of a LoRA run's base: bfloat16, as released weights are, float32 or int8; "": as
    # config.model.param_dtype. Sample, evaluate and export merge a LoRA run with its base as it was before.
    teacher_dtype="",
    teacher_memory="device",  # where their blocks lie; pinned_host: a layer comes to the device when it is used
    # Rank of the adapters that are trained in place of the kernels that the rules choose; 0: everything is trained.
    lora=dict(rank=0, alpha=16.0, rules=((r"blocks/.*/kernel", True), (r".*", False))),
    # Held-out sets, ``data`` of prompts with pictures and ``edit_data`` of edits; the first ``count`` of each are drawn
    # and judged whenever samples are.
    watch=dict(data="", edit_data="", count=300, classifier="weights/postcards_classifier"),
    sample_prompts=(),  # what a run draws while it goes on; (): twelve of the postcards' (pictures.PROMPTS)
    keep_best="",  # a figure of them (watch.FIGURES): the best checkpoint by it is kept beside the newest
)
# So has every optimizer (optim.make_optimizer).
OPTIMIZER = dict(mu_dtype="float32")


class Literal(NamedTuple):
    """A setting that is written as a literal of Python: the types that it may have, and an example."""

    kinds: tuple[type, ...]
    like: str


# By path, where * is a name that the reader chooses; a tuple is the setting over the run, or a weight for each step.
LITERALS = {
    "edit_share": Literal((float, tuple), "0.3 or ((0, 0.0), (0.5, 0.3))"),
    "sources": Literal((dict,), "{'prompts': {'path': 'data/prompts/train.arrayrecord', 'weight': 1.0}}"),
    "sources.*.weight": Literal((float, dict, tuple), "2.0, {'portrait': 2.0, 'text': 1.0} or ((0, 1.0), (0.5, 2.0))"),
    "sample_prompts": Literal((tuple,), "('a red house', 'a portrait of a sailor')"),
    "distill.teachers": Literal((dict,), "{'base': {'weights': 'runs/base'}, 'faces': {'weights': 'runs/faces'}}"),
    "distill.guidance_table": Literal(
        (dict, tuple), "{'portrait': {'faces': (0, 0, 0.5, 1)}} or ((0, {}), (0.5, {'portrait': {'faces': 'linear'}}))"
    ),
    "distill.guidance_table.*": Literal((dict,), "{'faces': (0, 0, 0.5, 1)}"),
    "distill.guidance_table.*.*": Literal((str, tuple), "(0, 0, 0.5, 1) or base_then_specialist"),
}


def varying(value: Any) -> FieldReference:
    """The first value of a setting that may later be of another type: a number, a mapping, or either over the run.

    A ConfigDict keeps the type that a setting began with. After ``config.edit_share = varying(0.0)`` the line
    ``config.edit_share = ((0, 0.0), (0.5, 0.3))`` is taken; it is read as any other setting.
    """
    return FieldReference(value, field_type=object)


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """The arguments after the colon: ``"quick,res=64"`` with defaults ``quick=False, res=32`` gives quick=True, res=64.

    Values take the type of their default. Raises UserError for an unknown name or a value that is not of that type.
    """
    out = ConfigDict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, _, text = item.partition("=")
        if name not in defaults:
            hint = did_you_mean(name, defaults, "it takes")
            raise UserError(f"This configuration has no argument {name!r}; {hint}")
        kind = type(defaults[name])
        if kind is bool and text not in ("", "true", "false"):
            raise UserError(f"The argument {name} is a switch: write {name} or {name}=false, not {item!r}.")
        try:
            out[name] = text in ("", "true") if kind is bool else kind(text)
        except ValueError as error:
            raise UserError(f"The argument {name} has to be of type {kind.__name__}, not {text!r}.") from error
    return out


def load(argv: list[str]) -> ConfigDict:
    """The configuration that ``--config=FILE[:ARGS] [--config.key=value ...]`` describes, locked.

    A misspelt key is an error that names the nearest one. Raises UserError.
    """
    file, settings = None, []
    for item in argv:
        name, equals, text = item.partition("=")
        if name == "--config" and text:
            file = text
        elif name.startswith("--config.") and equals:
            settings.append((name.removeprefix("--config."), text))
        else:
            raise UserError(f"Not understood: {item}. Settings are written --config.key=value.")
    if file is None:
        raise UserError("No configuration given; write --config=configs/postcards.py, for example.")
    config = _run_file(file)
    _complete(config, OPERATIONS)
    for name in OPTIMIZERS:
        if name in config:
            _complete(config[name], OPTIMIZER)
    for key, text in settings:
        _override(config, key, text)
    return config.lock()


def _complete(group: ConfigDict, defaults: Mapping[str, Any]) -> None:
    """Adds the settings that ``group`` and the groups in it leave out."""
    for key, value in defaults.items():
        if key not in group:
            group[key] = value
        elif isinstance(value, dict) and isinstance(group[key], ConfigDict):
            _complete(group[key], value)


def _run_file(file: str) -> ConfigDict:
    """What ``get_config`` of FILE[:ARGS] returns."""
    found = re.fullmatch(r"(.+?\.py)(?::(.*))?", file)  # folders may have colons in their names
    name, arg = found.groups() if found else (file.partition(":")[0], None)
    path = existing(name, "configuration file")

    def made(module: ModuleType) -> Any:
        try:
            return module.get_config(arg or None)
        except UserError as error:
            raise UserError(f"--config={file}: {error}") from error

    config = from_file(path, "configuration", "get_config(arg) in it", made)
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config in {path} returned {type(config).__name__}; it has to return a ConfigDict.")
    return config


def from_file(path: Path, what: str, holding: str, get: Callable[[ModuleType], Any]) -> Any:
    """What ``get`` takes out of a Python file, which is run. Raises UserError for what is none, and for what its code
    raises, with the line. ``what`` it is and what it has to be ``holding``: for the sentences."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"{path} is no {what}; give a Python file with {holding}.")
    spec = importlib.util.spec_from_file_location("flashjax_file", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return get(module)
    except UserError:
        raise
    except FILE_ERRORS as error:
        raise UserError(f"The {what} {path} cannot be read: {_place(error, path)}.") from error


def _place(error: Exception, path: Path) -> str:
    """The error in one line, with the line of the file that it arose from."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"line {lines[-1]}: {text}" if lines else text


def _override(config: ConfigDict, key: str, text: str) -> None:
    """Sets ``config.key`` from text, as the type that it has."""
    *groups, name = key.split(".")
    group, seen = config, "config"
    for part in groups:
        _check_key(config, group, seen, part)
        group, seen = group[part], f"{seen}.{part}"
        if not isinstance(group, ConfigDict):
            raise UserError(f"{seen} is a single setting, so there is no config.{key}.")
    _check_key(config, group, seen, name)
    value = _parse(f"config.{key}", text, group[name])
    with group.ignore_type():  # _parse knows what the setting takes
        group[name] = value


def _check_key(config: ConfigDict, group: ConfigDict, seen: str, part: str) -> None:
    if part in group:
        return
    near = difflib.get_close_matches(part, group.keys(), 1)
    elsewhere = [path for path in _paths(config) if path.rpartition(".")[2] == part]
    meant = elsewhere or [f"{seen}.{name}" for name in near]
    hint = f"did you mean {' or '.join(meant)}?" if meant else f"{seen} has {', '.join(group.keys()) or 'none'}."
    if literal := _literal(seen):
        hint += f" New ones are written whole, {seen}=\"{literal.like}\"."
    raise UserError(f"There is no setting {seen}.{part}; {hint}")


def _paths(group: ConfigDict, seen: str = "config") -> list[str]:
    """The names of all single settings."""
    inner = (_paths(v, f"{seen}.{k}") if isinstance(v, ConfigDict) else [f"{seen}.{k}"] for k, v in group.items())
    return [path for paths in inner for path in paths]


def _parse(key: str, text: str, old: Any) -> Any:
    """The text as the type of ``old``, or as what LITERALS says. A sequence is written (1, 2) or, where its parts are
    plain words, a,b."""
    if literal := _literal(key):
        return _evaluated(key, text, literal)
    if isinstance(old, ConfigDict):
        raise UserError(f"{key} is a group of settings; set one of {', '.join(f'{key}.{name}' for name in old)}.")
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        if text not in ("true", "false", "True", "False"):
            raise UserError(f"{key} has to be true or false, not {text!r}.")
        return text in ("true", "True")
    try:
        if isinstance(old, tuple | list):
            return _sequence(text, old)
        return ast.literal_eval(text) if old is None else type(old)(text)
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"{key} has to be of type {type(old).__name__}, like {old!r}, not {text!r}.") from error


def _literal(key: str) -> Literal | None:
    """What is known of config.<path>, if it is written as a literal."""
    parts = key.split(".")[1:]
    for path, literal in LITERALS.items():
        names = path.split(".")
        if len(names) == len(parts) and all(map(fnmatch.fnmatchcase, parts, names)):
            return literal
    return None


def _evaluated(key: str, text: str, literal: Literal) -> Any:
    """The text as a literal of one of the kinds. Where words are among them, what is in no brackets is one."""
    if str in literal.kinds and not text.startswith(("(", "[")):
        return text
    wrong = f"{key} is written like {literal.like}, not {text}."
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(wrong) from error
    value = float(value) if type(value) is int else tuple(value) if isinstance(value, list) else value
    if type(value) not in literal.kinds or not _named(value):
        raise UserError(wrong)
    return ConfigDict(value) if isinstance(value, dict) else value


def _named(value: Any) -> bool:
    """Whether the keys of all mappings in a literal can be names of settings."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and "." not in name for name in value) and all(map(_named, value.values()))
    return not isinstance(value, tuple | list) or all(map(_named, value))


def _sequence(text: str, old: tuple | list) -> tuple | list:
    if text.startswith(("(", "[")):
        value = ast.literal_eval(text)
        return type(old)(value if isinstance(value, tuple | list) else (value,))
    words = [word for word in text.split(",") if word]
    return type(old)(words if all(isinstance(o, str) for o in old) else [ast.literal_eval(word) for word in words])


def settle(group: ConfigDict, where: str = "config") -> None:
    """Turns every setting into what a run's folder keeps of it, and gives back: NumPy's numbers into Python's, dtypes
    into their names. Raises UserError for a setting that JSON has no word for."""
    for name, value in group.items():
        if isinstance(value, ConfigDict):
            settle(value, f"{where}.{name}")
        elif (settled := _settled(value, f"{where}.{name}")) is not value:
            with group.ignore_type():
                group[name] = settled


def _settled(value: Any, where: str) -> Any:
    """The value itself, if there is nothing to turn."""
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, np.dtype | type) and np.dtype(value).kind not in "OSU":  # as other classes are
        value = np.dtype(value).name
    if isinstance(value, tuple | list):
        settled = type(value)(_settled(each, where) for each in value)
        return value if all(map(operator.is_, settled, value)) else settled
    if isinstance(value, Mapping):
        settled = {name: _settled(each, f"{where}.{name}") for name, each in value.items()}
        return value if all(settled[name] is value[name] for name in value) else settled
    if not isinstance(value, str | int | float | None):
        raise UserError(
            f"{where} is {reprlib.repr(value)}, which the folder of a run cannot keep; a setting is a number, a text, "
            "or a tuple or a group of these."
        )
    return value


def weights_of(config: ConfigDict) -> list[str]:
    """The paths of the networks that a run begins with: of its teachers, and of what it begins as."""
    teachers = config.get("distill", ConfigDict()).get("teachers", {}).values()
    paths = [*(teacher.get("weights", "") for teacher in teachers), config.get("init", "")]
    return [path for path in paths if path]
