"""``flashjax inspect``: what a folder or file of weights is, and what it can be used for. Only headers are read."""

import argparse
import re
from collections import Counter
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a model's folder, a whole pipeline, or one .safetensors file")


def run(args: argparse.Namespace) -> None:
    for number, part in enumerate(_parts(args.path)):
        print("\n" * bool(number) + str(part))
        for name, value in describe(part).items():
            print(f"  {name:<13}{value}")


def _parts(path: Path) -> list[Path]:
    """The path itself, or the folders of a pipeline that hold weights."""
    inner = sorted({file.parent for file in path.glob("*/*.safetensors")}) if path.is_dir() else []
    return inner if inner and not any(path.glob("*.safetensors")) else [path]


def describe(path: Path) -> dict[str, str]:
    """What there is to say about a folder or file of weights, by topic.

    Raises:
      UserError: there is nothing that can be read.
    """
    from flashjax import convert
    from flashjax.convert import detect, lora

    reader = convert.open_weights(path)
    folder = path if path.is_dir() else path.parent
    if lora.is_lora(reader):
        rank = ", ".join(map(str, sorted(lora.ranks(reader))))
        told = {"architecture": f"a LoRA, {lora.spelling(reader)} naming, rank {rank}"}
        use = f"merge it into its model: flashjax convert --source MODEL --lora {path} --out FOLDER"
    else:
        config = detect.read_config(folder / "config.json") if (folder / "config.json").is_file() else {}
        model, name = detect.model_of(config), detect.class_of(config)
        told = {"architecture": f"{name or 'not told (no config.json names it)'}{f', here {model}' if model else ''}"}
        use = _use(model, path, convert.is_flax(path))
    shapes = reader.shapes().values()
    told["parameters"] = f"{_count(sum(map(_size, shapes)))} in {len(reader)} tensors"
    sizes: Counter = Counter()
    for spec in shapes:
        sizes[str(spec.dtype)] += _size(spec)
    told["dtypes"] = ", ".join(f"{dtype} {_count(size)}" for dtype, size in sizes.most_common())
    files = reader.files()
    told["files"] = f"{len(files)}, {sum(file.stat().st_size for file in files) / 1e9:.4g} GB"
    return {**told, "licence": _licence(folder), "use": use}


def _use(model: str | None, path: Path, converted: bool) -> str:
    from flashjax import models
    from flashjax.convert import MODELS

    if model is None:
        return f"none in flashjax, which knows {', '.join(MODELS)}"
    kind = "an autoencoder" if model.startswith("vae") else "a text encoder"
    if model in models.ARCHITECTURES:
        kind = "a denoiser: teacher, and first weights of student and critic"
    command = f"--verify {path}" if converted else f"--source {path} --out FOLDER"
    return f"{kind}; {'check' if converted else 'convert'} it: flashjax convert {command}"


def _licence(folder: Path) -> str:
    """What the model's card says, or the first line of a LICENSE file, here or in the folder of the pipeline."""
    for place in (folder, folder.absolute().parent):
        card = place / "README.md"
        front = re.match(r"---\n(.*?)\n---", card.read_text(errors="replace"), re.DOTALL) if card.is_file() else None
        found = dict(re.findall(r"^(license\w*):[ \t]*(\S.*)$", front[1], re.MULTILINE)) if front else {}
        if name := found.get("license_name") or found.get("license"):
            return f"{name} (README.md)"
        for file in sorted(place.glob("LICEN[SC]E*")):
            if lines := file.read_text(errors="replace").split("\n"):
                return f"{next((line.strip() for line in lines if line.strip()), 'an empty file')} ({file.name})"
    return "not told; ask whoever released the weights"


def _size(spec) -> int:
    return spec.nbytes // spec.dtype.itemsize


def _count(size: int) -> str:
    for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= scale:
            return f"{size / scale:.4g} {letter}"
    return str(size)
