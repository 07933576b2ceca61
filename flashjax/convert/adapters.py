"""LoRAs that stay LoRAs: factors beside a model's kernels, as flashjax stores them, from and to PyTorch's names.

    blocks/attn/to_q/kernel/a    [layers, in, rank]
    blocks/attn/to_q/kernel/b    [layers, rank, out]

A kernel W becomes W + (alpha / rank) a b. Rank and alpha stand in the file's header and are those of the whole file: a
layer of a smaller rank is filled up with zeros, and a factor takes up what its own alpha differs by. On the way back
ranks that are zero on both sides are left out, and with them the layers that no LoRA changes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flashjax import paths
from flashjax.convert import lora
from flashjax.convert.arrays import finite
from flashjax.convert.planning import common_dtype, export, is_float
from flashjax.convert.reader import PICKLES, ConversionError, Reader, Spec
from flashjax.convert.sources import open_weights
from flashjax.convert.table import Rule, Table, transpose
from flashjax.convert.writer import write_arrays

FORMAT = "flashjax adapter"  # in the header
FILES = {
    "flashjax": "adapter.safetensors",
    "diffusers": "pytorch_lora_weights.safetensors",  # what load_lora_weights(FOLDER) looks for
    "comfyui": "lora.safetensors",
}


class Adapter(NamedTuple):
    """``factors``: {kernel's path: {"a": [..., in, rank], "b": [..., rank, out]}}; the change is (alpha / rank) a b."""

    factors: dict[str, dict[str, np.ndarray]]
    rank: int
    alpha: float


def from_tree(tree: Mapping[str, Any], rank: int, alpha: float) -> Adapter:
    """The adapter of a tree as training has it: ``blocks/.../kernel/a`` and ``/b``."""
    factors: dict[str, dict[str, np.ndarray]] = {}
    for name, leaf in paths.flatten(tree).items():
        kernel, _, side = name.rpartition("/")
        factors.setdefault(kernel, {})[side] = np.asarray(leaf)
    return Adapter(factors, rank, alpha)


def pytorch_specs(table: Table, form: Mapping[str, Any]) -> dict[str, Spec]:
    """{PyTorch name: (shape, dtype)} of a model, from its table read backwards; no memory is touched."""
    leaves = paths.flatten(form)
    empty = {path: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape) for path, leaf in leaves.items()}
    return export(table, paths.unflatten(empty))[1]


def from_pytorch(changes: Mapping[str, lora.Factors], table: Table, form: Mapping[str, Any]) -> Adapter:
    """Bring factors under PyTorch's names (`lora.read`) beside the kernels of a model's ``form``; float32.

    Raises:
      ConversionError: a weight is no linear layer's.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in paths.flatten(form).items()}
    found = {name: changes[name] for name in changes}
    rank = max(len(each.a) for each in found.values())
    scales = [each.scale for each in found.values()]
    scale = max(scales, key=lambda each: (each != 0, scales.count(each)))  # no factor takes up what 0 differs by
    factors: dict[str, dict[str, np.ndarray]] = {}
    for name, (a, b, own) in found.items():
        path, slot = _place(table, name)
        *layers, width, out = shapes[path]
        pair = factors.setdefault(
            path, {"a": np.zeros((*layers, width, rank), np.float32), "b": np.zeros((*layers, rank, out), np.float32)}
        )
        at = ... if slot is None else slot
        pair["a"][at][:, : len(a)] = a.T
        pair["b"][at][: len(a)] = b.T if own == scale else b.T * np.float32(own / scale)
    return Adapter(factors, rank, scale * rank)


def _place(table: Table, name: str) -> tuple[str, int | None]:
    found = [(rule, place) for rule in table.rules if (place := rule.place(table.today(name)))]
    if len(found) != 1 or not _is_linear(found[0][0]):
        raise ConversionError(f"The LoRA changes {name}, which is no linear layer here; merge it with --lora alone.")
    return found[0][1]


def _is_linear(rule: Rule) -> bool:
    return rule.transform is transpose


def to_pytorch(adapter: Adapter, table: Table) -> dict[str, lora.Factors]:
    """The way back: {PyTorch name of a weight: Factors}, for `lora.write` and `lora.Merged`.

    Raises:
      ConversionError: the table has no linear layer of this name.
    """
    changes = {}
    for path, pair in adapter.factors.items():
        a, b = (np.asarray(pair[name], np.float32) for name in "ab")
        rules = [(r, names) for r in table.rules if _is_linear(r) and (names := r.sources(path, len(a))) is not None]
        if len(rules) != 1:
            raise ConversionError(f"The adapter changes {path}, which is no linear layer of the model.")
        rule, names = rules[0]
        for slot, name in enumerate(names):
            mine = (a[slot], b[slot]) if rule.stack else (a, b)
            used = mine[0].any(axis=0) | mine[1].any(axis=1)
            if used.any():
                changes[name] = lora.Factors(mine[0][:, used].T, mine[1][used].T, adapter.alpha / adapter.rank)
    return changes


def write(path: str | Path, adapter: Adapter, model: str, dtype: Any = np.float32) -> None:
    """Write an adapter of the model (a key of `MODELS`) as one safetensors file, its factors in ``dtype``."""
    arrays = {f"{at}/{side}": pair[side].astype(dtype) for at, pair in adapter.factors.items() for side in pair}
    about = {"format": FORMAT, "model": model, "rank": f"{adapter.rank}", "alpha": f"{adapter.alpha!r}"}
    write_arrays(path, arrays, about)


def is_adapter(reader: Reader) -> bool:
    """Whether `write` wrote a file."""
    return reader.metadata.get("format") == FORMAT


def read(path: str | Path, model: str, form: Mapping[str, Any]) -> Adapter:
    """Read what `write` wrote, in float32.

    Raises:
      ConversionError: it is of another model, incomplete, damaged or not finite.
    """
    reader = open_weights(path)
    if reader.metadata.get("model") != model:
        raise ConversionError(f"{path} is an adapter of {reader.metadata.get('model')}, not of {model}.")
    try:
        rank, alpha = int(reader.metadata["rank"]), float(reader.metadata["alpha"])
        if rank < 1 or not math.isfinite(alpha):
            raise ValueError("out of range")
    except (KeyError, ValueError) as error:
        raise ConversionError(f"The header of {path} tells no rank and alpha; write the adapter again.") from error
    shapes = {path: tuple(leaf.shape) for path, leaf in paths.flatten(form).items()}
    factors: dict[str, dict[str, np.ndarray]] = {}
    for name, spec in reader.shapes().items():
        kernel, _, side = name.rpartition("/")
        shape = shapes.get(kernel, ())
        wanted = {"a": (*shape[:-1], rank), "b": (*shape[:-2], rank, *shape[-1:])}.get(side)
        if len(shape) < 2 or spec.shape != wanted or not is_float(spec.dtype):
            raise ConversionError(f"{name} in {path} fits no layer of the model at rank {rank}; fetch the right one.")
        array = reader.read(name)
        if not finite(array):
            raise ConversionError(f"{name} in {path} holds NaN or infinite values; the adapter is damaged.")
        factors.setdefault(kernel, {})[side] = array.astype(np.float32)
    if incomplete := [kernel for kernel, pair in factors.items() if len(pair) < 2]:
        raise ConversionError(f"{path} is incomplete: {incomplete[0]} lacks its a or its b.")
    return Adapter(factors, rank, alpha)


def _pickle(path: Path) -> Path | None:
    """The pickle that ``path`` is, or has in it in place of safetensors."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if any(file.suffix == ".safetensors" for file in files):
        return None
    return next((file for file in files if file.suffix in PICKLES), None)


def open_lora(path: str | Path, model: str, table: Table, form: Mapping[str, Any]) -> Mapping[str, lora.Factors]:
    """Open a LoRA in any spelling, flashjax's own included, as {PyTorch name: Factors}.

    Raises:
      ConversionError: it does not fit the model; see `read` and `lora.read`.
    """
    if pickled := _pickle(Path(path)):
        raise ConversionError(
            f"{pickled} is a pickle, and --allow-pickle is for --source alone; save the LoRA as .safetensors "
            "(safetensors.torch.save_file)."
        )
    if is_adapter(open_weights(path)):
        return to_pytorch(read(path, model, form), table)
    return lora.read(path, pytorch_specs(table, form), table.native, table.today)


def convert(path: Path, folder: Path, spelling: str, model: str, table: Table, form: Mapping[str, Any]) -> Path:
    """Write a LoRA of any spelling in another (a key of `FILES`) into ``folder``; returns the file.

    The factors keep their dtype, but for those that take up a scale (see above): they are float32 if it would round.

    Raises:
      ConversionError: see `open_lora`.
    """
    changes = open_lora(path, model, table, form)
    factors = {name: spec for name, spec in open_weights(path).shapes().items() if len(spec.shape) > 1}  # no alphas
    dtype, scales = common_dtype(factors), {changes[name].scale for name in changes}
    if len(scales) > 1 or (spelling == "diffusers" and scales != {1.0}):
        dtype = np.dtype(np.float32)
    file = folder / FILES[spelling]
    if spelling == "flashjax":
        write(file, from_pytorch(changes, table, form), model, dtype)
    else:
        lora.write(file, changes, spelling, dtype, table.comfyui)
    return file
