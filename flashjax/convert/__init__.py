"""Weights between PyTorch safetensors and Flax parameter trees.

One table a model (`MODELS`), read in both directions; `table` explains the language of the tables. A table's module
also has ``CLASSES``, the names that its model goes by in config.json.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashjax import paths
from flashjax.convert import (
    flux2,
    manifest,
    minilm,
    qwen3,
    qwen3_vl,
    qwen25_vl,
    qwen_image,
    qwen_image_21,
    vae_kl,
    vae_qwen_image,
    vae_qwen_image_21,
    writer,
    z_image,
)
from flashjax.convert.arrays import slabs
from flashjax.convert.planning import Plan, common_dtype, execute, export, plan
from flashjax.convert.reader import ConversionError, Reader, Spec
from flashjax.convert.sources import INDEX, open_weights
from flashjax.convert.table import Rule, Table

__all__ = [
    "FLAX_WEIGHTS",
    "MODELS",
    "ConversionError",
    "Reader",
    "Spec",
    "load",
    "load_flax",
    "open_weights",
    "save",
]

FLAX_WEIGHTS = "params.safetensors"  # in a folder that `flashjax convert` wrote
MODELS = {
    "flux2": flux2,
    "minilm": minilm,
    "qwen25_vl": qwen25_vl,
    "qwen3": qwen3,
    "qwen3_vl": qwen3_vl,
    "qwen_image": qwen_image,
    "qwen_image_21": qwen_image_21,
    "vae_kl": vae_kl,
    "vae_qwen_image": vae_qwen_image,
    "vae_qwen_image_21": vae_qwen_image_21,
    "z_image": z_image,
}
_IDENTITY = Table((Rule("{path:.*}", "{path:.*}"),))


def table_of(model_name: str) -> Table:
    """Return the table of a model.

    Raises:
      ConversionError: no model has this name.
    """
    if model_name not in MODELS:
        raise ConversionError(f"There is no conversion for {model_name!r}; there is one for {', '.join(MODELS)}.")
    return MODELS[model_name].TABLE


def load(
    model_name: str,
    path: str | Path,
    target_abstract: Mapping[str, Any],
    dtype: Any = None,
) -> dict[str, Any]:
    """Read a PyTorch model's weights into the form of a Flax tree.

    Args:
      model_name: a key of `MODELS`.
      path: a .safetensors file, or a folder with one or with shards and index, or what
        `flashjax convert` wrote (of an Orbax checkpoint, all of it: `pods.load` reads a process's part).
      target_abstract: nested dict of `jax.ShapeDtypeStruct` (or arrays): the parameters of the
        model.
      dtype: floating dtype of the result; None takes each leaf's own from `target_abstract`.

    Returns:
      Nested dict of numpy arrays with the form, shapes and dtypes of `target_abstract`.

    Raises:
      ConversionError: the file cannot be read, or does not fit; all misfits are listed, and no
        weight was read.
    """
    todo, read = _plan(model_name, path, target_abstract, dtype)
    return paths.unflatten(execute(todo, read))


def check(model_name: str, path: str | Path, target_abstract: Mapping[str, Any]) -> None:
    """Raises ConversionError where `load` would; only names and shapes are read."""
    _plan(model_name, path, target_abstract)


def stored_dtype(path: str | Path) -> np.dtype:
    """Return the floating dtype of weights that `load` can read; float32, which holds them all, where
    there are several.

    Raises:
      ConversionError: the file cannot be read.
    """
    return common_dtype(manifest.weights(Path(path)).shapes())


def is_flax(path: Path) -> bool:
    """Whether `flashjax convert` wrote this file or folder."""
    if manifest.is_orbax(path):
        return True
    index = FLAX_WEIGHTS.removesuffix(".safetensors") + INDEX
    return path.name in (FLAX_WEIGHTS, index) or any((path / name).is_file() for name in (FLAX_WEIGHTS, index))


def load_flax(path: str | Path, target_abstract: Mapping[str, Any], dtype: Any = None) -> dict[str, Any]:
    """Read a safetensors file whose names are Flax paths ("blocks/attn/to_q/kernel"), with the same
    checks as `load`.

    Raises:
      ConversionError: as `load`.
    """
    reader = manifest.weights(Path(path))
    todo = plan(_IDENTITY, reader.shapes(), target_abstract, dtype, f"The weights in {path}")
    return paths.unflatten(execute(todo, reader.read))


def _plan(
    model_name: str, path: str | Path, target_abstract: Mapping[str, Any], dtype: Any = None
) -> tuple[Plan, Callable[[str], np.ndarray]]:
    """A plan, and what reads its tensors."""
    table, reader = table_of(model_name), manifest.weights(Path(path))
    shapes, what = reader.shapes(), f"The weights in {path}"
    if not is_flax(Path(path)):
        return plan(table, shapes, target_abstract, dtype, what), reader.read
    used = _in_use(table, shapes, target_abstract)

    def read(name: str) -> np.ndarray:
        return reader.read(name, None if used[name] == shapes[name] else (0, used[name].shape[0]))

    return plan(_IDENTITY, used, target_abstract, dtype, what), read


def _in_use(table: Table, shapes: Mapping[str, Spec], target_abstract: Mapping[str, Any]) -> dict[str, Spec]:
    """What a model takes of a converted one: as of PyTorch's weights, no more layers of an encoder than its states are
    read of (`Rule.surplus`)."""
    target, used = paths.flatten(target_abstract), dict(shapes)
    for name, spec in shapes.items():
        behind = [rule for rule in table.rules if rule.surplus and rule.sources(name, 0) is not None]
        if behind and name not in target:
            del used[name]
        elif behind and behind[0].stack:
            used[name] = Spec((min(spec.shape[0], target[name].shape[0]), *spec.shape[1:]), spec.dtype)
    return used


def save(
    model_name: str,
    params: Mapping[str, Any],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write Flax parameters as one safetensors file with PyTorch's names, shapes and the
    parameters' own dtypes.

    Args:
      model_name: a key of `MODELS`.
      params: nested dict of arrays (numpy or jax).
      path: the .safetensors file; replaced in one step if it exists.
      metadata: strings for the header; {"format": "pt"} is added, since transformers asks for it.

    Returns:
      The size of the file in bytes.

    Raises:
      ConversionError: listing every parameter that the table cannot name.
    """
    makers, specs = export(table_of(model_name), params)
    tensors = {name: lambda make=make: slabs(array := make(), array.dtype) for name, make in makers.items()}
    writer.write_weights(path, tensors, specs, {"format": "pt", **(metadata or {})})
    return Path(path).stat().st_size
