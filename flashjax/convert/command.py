"""`flashjax convert`: PyTorch weights to a folder that flashjax loads on its own.

    flashjax convert --source Qwen-Image-2.1 --out weights/qwen_image_21
    flashjax convert --source Qwen-Image-2.1 --lora turbo.safetensors:0.8 --out weights/turbo
    flashjax convert --source Qwen-Image-2.1 --lora turbo.safetensors --keep-lora flashjax --out weights/turbo_lora
    flashjax convert --verify weights/qwen_image_21

The folder gets the parameters (names are Flax paths: "blocks/attn/to_q/kernel") as `params.safetensors` or as shards
with an index, the source's `config.json` and its tokenizer files, and `manifest.json` with the sha256 of every tensor.
It can stand wherever the source's folder could: `convert.load` reads both.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from tqdm import tqdm

from flashjax import __version__
from flashjax.convert import (
    FLAX_WEIGHTS,
    MODELS,
    ConversionError,
    Spec,
    adapters,
    detect,
    is_flax,
    lora,
    manifest,
    open_weights,
    output,
    pickles,
    table_of,
)
from flashjax.convert.planning import Plan, keep_dtypes, makers, plan
from flashjax.convert.reader import Reader
from flashjax.convert.sources import part_of
from flashjax.errors import refuse_options

_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "vocab.json", "merges.txt",
)  # fmt: skip
_DTYPES = {"keep": None, "float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


# What writing a whole model takes, beside its --source and --out, and its value where it is not given.
_OF_A_MODEL = dict(
    dtype="keep", to="safetensors", mesh=None, shard_size=4 * 10**9, allow_pickle=False, allow_nonfinite=False,
    force=False,
)  # fmt: skip
_OF_SOURCES = dict(model=None, source=None, config=None, lora=[], keep_lora=None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `flashjax convert`."""
    parser.add_argument("--model", choices=sorted(MODELS), help="architecture (default: what config.json says)")
    parser.add_argument(
        "--source",
        type=Path,
        help="folder with config.json and weights, a whole diffusers pipeline, or one .safetensors file with its "
        "config.json beside it (minilm: default is the installed package)",
    )
    parser.add_argument("--config", type=Path, help="the model's config.json (default: the one beside the weights)")
    todo = parser.add_mutually_exclusive_group(required=True)
    todo.add_argument("--out", type=Path, help="folder to write; it appears when it is complete")
    todo.add_argument("--verify", type=Path, metavar="DIR", help="check a converted folder, and write nothing")
    parser.add_argument(
        "--dtype",
        choices=tuple(_DTYPES),
        default="keep",
        help="floating dtype of the result; keep: each tensor's own (default %(default)s)",
    )
    parser.add_argument(
        "--to",
        choices=("safetensors", "orbax"),
        default="safetensors",
        help="orbax: a checkpoint that many hosts read at once, each its own part (default %(default)s)",
    )
    parser.add_argument(
        "--mesh",
        type=_mesh,
        metavar="AXIS=SIZE[,...]",
        help="with --to orbax: the mesh to load it on, for instance fsdp=8",
    )
    parser.add_argument("--shard-size", type=_gigabytes, default="4", metavar="GB", help="(default %(default)s)")
    parser.add_argument(
        "--lora",
        type=_lora,
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="merge a LoRA into the weights, with this strength (default 1); may be given several times",
    )
    parser.add_argument(
        "--keep-lora",
        choices=tuple(adapters.FILES),
        help="write the LoRA alone, rather than merging it: as flashjax's adapter, or with the names of diffusers or "
        "ComfyUI. --lora may be any of these; --source is its model, of which only config.json is read",
    )
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="also read .bin and .pt files. They are pickles: programs that Python runs, and that can do anything that "
        "you can. They are run in a process of their own which may only write the weights, but prefer .safetensors "
        "files, and pickles of people whose programs you would run",
    )
    parser.add_argument("--allow-nonfinite", action="store_true", help="convert weights that are NaN or infinite")
    parser.add_argument("--force", action="store_true", help="replace an earlier conversion in --out")


def _mesh(text: str) -> dict[str, int]:
    """{axis: size}."""
    mesh = {name: size for name, equals, size in (axis.partition("=") for axis in text.split(",")) if equals}
    sizes = {name: int(size) for name, size in mesh.items() if size.isdecimal() and name in ("fsdp", "tensor")}
    if len(sizes) < text.count(",") + 1 or not all(0 < size <= 2**20 for size in sizes.values()):
        raise argparse.ArgumentTypeError(f"{text!r} is no mesh; write for instance fsdp=8 or fsdp=16,tensor=4")
    return sizes


def _gigabytes(text: str) -> int:
    try:
        size = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in GB")
    return size


def _lora(text: str) -> tuple[Path, float]:
    file, colon, scale = text.rpartition(":")
    with contextlib.suppress(ValueError):
        if colon and math.isfinite(strength := float(scale)):
            return Path(file), strength
        if colon:
            raise argparse.ArgumentTypeError(f"{scale} is no strength; write a finite number behind the file")
    return Path(text), 1.0


def run(args: argparse.Namespace) -> None:
    """Convert, or verify, as the options say. Raises UserError."""
    if args.verify:
        refuse_options(args, _OF_SOURCES | _OF_A_MODEL, "with --verify")
        return _verify(args.verify)
    args.out = args.out.resolve()  # a link leads to the disk that has the room
    source, config_file = _find_source(args)
    if args.keep_lora:
        return _keep_lora(args, source, config_file)
    if (args.to == "orbax") != (args.mesh is not None):
        raise ConversionError("--to orbax and --mesh go together: parts are as large as one device of the mesh holds.")
    if args.mesh:
        refuse_options(args, dict(shard_size=_OF_A_MODEL["shard_size"]), "with --to orbax")
    part = part_of(source)
    whole = source.parent if part else source
    if is_flax(whole):
        raise ConversionError(f"{whole} is converted already; give the PyTorch model's folder with --source.")
    if part:
        raise ConversionError(
            f"{source} is shard {part[0]} of {part[1]} alone; give the folder of all of them: --source {whole}"
        )
    output.check_out(args.out, source, args.force)
    config = detect.read_config(config_file)
    args.model = detect.choose(args.model, config, config_file)
    with pickles.readable(source, args.out, args.allow_pickle) as readable:
        reader = open_weights(readable)
        if lora.is_lora(reader) or adapters.is_adapter(reader):
            raise ConversionError(f"{source} is a LoRA; give it with --lora, and the model it is for with --source.")
        if readable != source:  # the stand-in of pickles, which is gone when a message is read
            reader.place = source
        _convert(args, reader, config, config_file)


def _keep_lora(args: argparse.Namespace, source: Path, config_file: Path) -> None:
    refuse_options(args, _OF_A_MODEL, "with --keep-lora")
    if [scale for _, scale in args.lora] != [1.0]:
        raise ConversionError("--keep-lora takes one --lora, without a scale: whoever applies the LoRA chooses it.")
    output.check_out(args.out, source, force=None)
    config = detect.read_config(config_file)
    model = detect.choose(args.model, config, config_file)
    with detect.about(config_file):
        form, table = detect.form(model, config), table_of(model)
    file = adapters.convert(args.lora[0][0], args.out, args.keep_lora, model, table, form)
    print(f"{file}: a LoRA of {model}, {file.stat().st_size / 1e6:.3g} MB")


def _convert(args: argparse.Namespace, reader: Reader, config: Mapping[str, Any], config_file: Path) -> None:
    with detect.about(config_file):
        form, table = detect.form(args.model, config), table_of(args.model)
    if args.lora:
        loras = [(adapters.open_lora(file, args.model, table, form), scale) for file, scale in args.lora]
        reader = lora.Merged(reader, loras, table.today)
    todo = _plan(args, reader, form)
    files = [config_file, *(f for name in _TOKENIZER if (f := config_file.parent / name).is_file())]
    with output.Partial(args.out, _identity(args, reader, todo, files)) as partial:
        done = _write_orbax(args, partial, reader, todo) if args.mesh else _write(args, partial, reader, todo)
        for file in files:
            shutil.copyfile(file, partial.folder / (file.name if file != config_file else "config.json"))
        manifest.write(partial.folder, _about(args, reader, todo), todo.target, done)
        partial.commit()
    print(_summary(args, todo, [file.name for file in files]))


def _find_source(args: argparse.Namespace) -> tuple[Path, Path]:
    """The folder or file of the weights, and the config.json."""
    if args.source is None:
        if args.model != "minilm":
            what = args.model or "model to convert"
            raise ConversionError(f"There is no packaged {what}; give the folder of its weights with --source.")
        from flashjax.models.text import default_minilm_source

        args.source = default_minilm_source()
    if not args.source.exists():
        raise ConversionError(f"The source {args.source} is not there; give a folder with config.json and weights.")
    source = detect.component(args.source, args.model) if args.source.is_dir() else args.source
    folder = source if source.is_dir() else source.parent
    return source, args.config or folder / "config.json"


def _plan(args: argparse.Namespace, reader: Reader, form: Mapping[str, Any]) -> Plan:
    table, shapes = table_of(args.model), reader.shapes()
    todo = plan(table, shapes, form, _DTYPES[args.dtype], f"The weights in {reader.place}")
    return todo if _DTYPES[args.dtype] else keep_dtypes(todo, shapes)


def _identity(args: argparse.Namespace, reader: Reader, todo: Plan, files: list[Path]) -> dict[str, Any]:
    """What two starts must have in common for the second to go on from the first."""
    loras = (part for file, _ in args.lora for part in lora.files(open_weights(file)))
    stats = {str(file.resolve()): file.stat() for file in (*reader.files(), *files, *loras)}
    moves = [(move.source, move.path, move.slot, move.transform.name) for move in todo.moves]
    return dict(
        version=__version__, model=args.model, to=args.to, mesh=args.mesh, shard_size=args.shard_size,
        allow_nonfinite=args.allow_nonfinite,
        loras=[(str(file.resolve()), scale) for file, scale in args.lora],
        files={name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()},
        plan=hashlib.sha256(repr((sorted(map(str, moves)), sorted(todo.target.items()))).encode()).hexdigest(),
    )  # fmt: skip


def _write_orbax(args: argparse.Namespace, partial: output.Partial, reader: Reader, todo: Plan) -> dict[str, Any]:
    """Returns what the manifest is to know of it, as `_write` does."""
    from flashjax.convert import pods  # Orbax takes seconds to import
    from flashjax.models import ARCHITECTURES

    folders = {name: f"{manifest.ORBAX}/{pods.place(name)}" for name in todo.target}
    partial.check_room(_size({n: spec for n, spec in todo.target.items() if folders[n] not in partial.done}))
    tensors = makers(todo, reader, args.allow_nonfinite)
    stacked = frozenset(move.path for move in todo.moves if move.slot is not None)
    parts = pods.chunks(todo.target, stacked, args.mesh, args.model in ARCHITECTURES)
    with _bar("converting", _size(todo.target)) as bar:
        for name, spec in todo.target.items():
            if (folder := folders[name]) in partial.done:
                bar.update(spec.nbytes)
            else:
                written = pods.write(partial.folder / folder, spec, parts[name], tensors[name](), bar.update)
                partial.finish(folder, {name: written})
    hashes = {name: partial.done[folder]["sha256"][name] for name, folder in folders.items()}
    pods.finish(partial.folder / manifest.ORBAX, todo.target)
    return {manifest.ORBAX: {"sha256": hashes}}


def _write(args: argparse.Namespace, partial: output.Partial, reader: Reader, todo: Plan) -> dict[str, Any]:
    shards = output.shard(todo.target, args.shard_size, FLAX_WEIGHTS.removesuffix(".safetensors"))
    metadata = {"format": "flashjax", "model": args.model}
    tensors = makers(todo, reader, args.allow_nonfinite)
    with _bar("converting", _size(todo.target)) as bar:
        output.write_shards(partial, shards, tensors, todo.target, metadata, bar.update)
    return partial.done


def _about(args: argparse.Namespace, reader: Reader, todo: Plan) -> dict[str, Any]:
    return dict(
        model=args.model, flashjax=__version__, parameters=_count(todo.target), bytes=_size(todo.target),
        source={file.name: file.stat().st_size for file in reader.files()}, dropped=dict(todo.dropped),
        loras=[{"file": file.name, "scale": scale} for file, scale in args.lora],
    )  # fmt: skip


def _verify(folder: Path) -> None:
    found = manifest.read(folder)
    with _bar("checking", found["bytes"]) as bar:
        manifest.check(folder, bar.update)
    print(f"{folder}: all {len(found['tensors'])} parameters are as converted")
    if missing := [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]:
        print(f"not compared with PyTorch: {' and '.join(missing)} not installed")
        return
    from flashjax.convert.verify import verify

    print(f"{folder}: {verify(folder)}")


def _bar(what: str, total: int) -> tqdm:
    """Bytes, speed and remaining time on stderr; silent where that is no terminal."""
    return tqdm(desc=what, total=total, unit="B", unit_scale=True, disable=None)


def _size(specs: Mapping[str, Spec]) -> int:
    return sum(spec.nbytes for spec in specs.values())


def _count(specs: Mapping[str, Spec]) -> int:
    return sum(int(np.prod(spec.shape)) for spec in specs.values())


def _summary(args: argparse.Namespace, todo: Plan, copied: list[str]) -> str:
    dtypes = ", ".join(sorted({str(spec.dtype) for spec in todo.target.values()}))
    lines = [
        f"{args.out}: {args.model}, {len(todo.moves)} tensors -> {len(todo.target)} parameters, "
        f"{_size(todo.target) / 1e9:.3g} GB ({dtypes})",
        f"copied: {', '.join(copied)}",
    ]
    for reason, count in Counter(reason for _, reason in todo.dropped).items():
        names = ", ".join(name for name, why in todo.dropped if why == reason)
        lines.append(f"dropped {count}: {names} ({reason})")
    return "\n".join(lines)
