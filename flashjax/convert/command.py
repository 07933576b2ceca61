"""`flashjax convert`: PyTorch weights to a folder that flashjax loads on its own.

    flashjax convert --model minilm --source all-MiniLM-L6-v2 --out weights/minilm

The folder gets `params.safetensors` (names are Flax paths: "blocks/attn/to_q/kernel"), the source's
`config.json` and its tokenizer files. The weights come last, so a folder that has them is complete. It can stand
wherever the source's folder could: `convert.load` reads both.
"""

import argparse
import importlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.convert import (
    FLAX_WEIGHTS,
    MODELS,
    ConversionError,
    Reader,
    Spec,
    open_weights,
    table_of,
)
from flashjax.convert.planning import Plan, is_float, makers, plan
from flashjax.convert.writer import write_weights

_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "vocab.json", "merges.txt",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `flashjax convert`."""
    parser.add_argument("--model", required=True, choices=sorted(MODELS), help="architecture")
    parser.add_argument(
        "--source",
        type=Path,
        help="folder with config.json and weights (minilm: default is the installed package)",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument(
        "--dtype",
        choices=("keep", "float32", "bfloat16"),
        default="keep",
        help="floating dtype of the result; keep: the file's own",
    )
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")


def run(args: argparse.Namespace) -> None:
    """Convert as the options say. Raises UserError."""
    source = _find_source(args.model, args.source)
    _check_out(source, args.out, args.force)
    reader = open_weights(source)
    config = _read_config(source / "config.json")
    todo = plan(
        table_of(args.model),
        reader.shapes(),
        _target(args.model, config),
        _dtype(args.dtype, reader.shapes()),
    )
    copied = _copy_side_files(source, args.out)
    size = _write(args.model, todo, reader, args.out)
    print(_summary(args, todo, size, copied))


def _find_source(model: str, source: Path | None) -> Path:
    if source is None:
        if model != "minilm":
            raise ConversionError(f"There is no packaged {model}; give the folder of its weights with --source.")
        from flashjax.models.text import default_minilm_source

        return default_minilm_source()
    if not source.is_dir():
        raise ConversionError(f"The source {source} is not a folder; give the one with config.json and the weights.")
    # where a whole diffusers pipeline keeps it
    inner = source / ("vae" if model.startswith("vae_") else "transformer")
    return inner if not (source / "config.json").is_file() and inner.is_dir() else source


def _check_out(source: Path, out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConversionError(f"{out} is a file; --out takes a folder.")
    if out.resolve() == source.resolve():
        raise ConversionError(f"The source and the output are the same folder {out}; choose another --out.")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConversionError(f"The folder {out} is not empty; choose another --out, or add --force to overwrite.")


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConversionError(f"There is no {file}; the sizes of the model are read from it.")
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ConversionError(f"{file} is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(config, dict):
        raise ConversionError(f"{file} is not a JSON object; fetch it again.")
    return config


def _target(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters' form, from the model itself: the table is checked against what will be
    run."""
    if model == "minilm":
        from flashjax.models import minilm

        return minilm.abstract(minilm.Config.from_bert(config))
    module = importlib.import_module(f"flashjax.models.{model}")
    return module.abstract(module.Config.from_diffusers(config))


def _dtype(choice: str, source: Mapping[str, Spec]) -> np.dtype:
    """The floating dtype to write; `keep` in a file of several takes float32, which holds them
    all."""
    if choice == "float32":
        return np.dtype(np.float32)
    if choice == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    found = {spec.dtype for spec in source.values() if is_float(spec.dtype)}
    return found.pop() if len(found) == 1 else np.dtype(np.float32)


def _copy_side_files(source: Path, out: Path) -> list[str]:
    out.mkdir(parents=True, exist_ok=True)
    # an overwritten folder must not look complete while it is half old, half new
    (out / FLAX_WEIGHTS).unlink(missing_ok=True)
    names = [name for name in ("config.json", *_TOKENIZER) if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, out / name)
    return names


def _write(model: str, todo: Plan, reader: Reader, out: Path) -> int:
    total = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in todo.target.values())
    metadata = {"format": "flashjax", "model": model}
    arrays = makers(todo, reader.read)
    return write_weights(out / FLAX_WEIGHTS, arrays, todo.target, metadata, _Bar(total))


class _Bar:
    """A progress bar on stderr; silent where stderr is no terminal."""

    def __init__(self, total: int):
        self.total, self.done = total, 0

    def __call__(self, size: int) -> None:
        self.done += size
        if not sys.stderr.isatty():
            return
        share = self.done / max(self.total, 1)
        end = "\n" if self.done >= self.total else ""
        bar = "#" * int(30 * share)
        print(f"\rconverting [{bar:<30}] {share:4.0%} {_human(self.done)}", end=end, file=sys.stderr)


def _human(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _summary(args: argparse.Namespace, todo: Plan, size: int, copied: list[str]) -> str:
    lines = [
        f"{args.out / FLAX_WEIGHTS}: {len(todo.moves)} tensors -> {len(todo.target)} parameters, {_human(size)}",
        f"copied: {', '.join(copied)}",
    ]
    for reason, count in Counter(reason for _, reason in todo.dropped).items():
        names = ", ".join(name for name, why in todo.dropped if why == reason)
        lines.append(f"dropped {count}: {names} ({reason})")
    return "\n".join(lines)
