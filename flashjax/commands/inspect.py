"""``flashjax inspect``: what a folder or file of weights is, and what it can be used for. Only headers are read."""

import argparse
import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, help="a model's folder, a whole pipeline, one .safetensors file, or a run's work directory"
    )


def run(args: argparse.Namespace) -> None:
    for number, part in enumerate(_parts(args.path)):
        print("\n" * bool(number) + str(part))
        for name, value in describe(part).items():
            print(f"  {name:<13}{value if value.isprintable() else ascii(value)}")  # of somebody else's file


def _parts(path: Path) -> list[Path]:
    """The path itself, or the folders of a pipeline that hold weights: its authors' own file may lie beside them."""
    from flashjax.convert import manifest

    inner = [f for f in path.iterdir() if any(f.glob("*.safetensors")) or manifest.is_orbax(f)] if path.is_dir() else []
    whole = (path / "model_index.json").is_file() or not (any(path.glob("*.safetensors")) or manifest.is_orbax(path))
    return sorted(inner) if inner and whole else [path]


def describe(path: Path) -> dict[str, str]:
    """What there is to say about a folder or file of weights, by topic.

    Raises:
      UserError: there is nothing that can be read.
    """
    from flashjax import convert
    from flashjax.convert import adapters, detect, lora, manifest, sources

    if (path / "checkpoints").is_dir():
        return _run(path)
    if manifest.is_orbax(path):
        return _orbax(path)
    reader = convert.open_weights(path)
    folder = path if path.is_dir() else path.parent
    if adapters.is_adapter(reader):
        told, use = _adapter(path, reader)
    elif lora.is_lora(reader):
        told, use = _lora(path, reader)
    else:
        config = detect.read_config(folder / "config.json") if (folder / "config.json").is_file() else {}
        part = sources.part_of(path)
        whole = folder if part or convert.is_flax(path) else path  # what is converted is checked as a folder
        told, use = _architecture(config), _use(detect.model_of(config), whole, convert.is_flax(whole))
        if part:
            use = f"shard {part[0]} of {part[1]}, none alone; the folder {folder} is {use}"
    files = reader.files()
    told |= _sizes(reader.shapes())
    told["files"] = f"{len(files)}, {sum(file.stat().st_size for file in files) / 1e9:.4g} GB"
    return {**told, "licence": _licence(folder), "use": use}


def _architecture(config: Mapping[str, Any]) -> dict[str, str]:
    from flashjax.convert import detect

    model, name = detect.model_of(config), detect.class_of(config)
    known = f"{name or 'not told (no config.json names it)'}{f', here {model}' if model else ''}"
    return {"architecture": known}


def _adapter(path: Path, reader: Any) -> tuple[dict[str, str], str]:
    """A LoRA as flashjax writes it."""
    about, kernels = reader.metadata, sorted({name.rpartition("/")[0] for name in reader})
    told = f"an adapter (LoRA) of {about.get('model')}, rank {about.get('rank')}, alpha {about.get('alpha')}"
    use = (
        "a teacher's weights (config.distill.teachers), merged with the base teacher; merge it for good, or give it to "
        f"other tools: flashjax convert --source MODEL --lora {path} [--keep-lora diffusers] --out FOLDER"
    )
    return {"architecture": told, "targets": _listed(kernels)}, use


def _lora(path: Path, reader: Any) -> tuple[dict[str, str], str]:
    """A LoRA of another tool."""
    from flashjax.convert import ConversionError, detect, lora

    rank, modules = ", ".join(map(str, sorted(lora.ranks(reader)))), lora.modules(reader)
    told = {"architecture": f"a LoRA, {lora.spelling(reader)} naming, rank {rank}"}
    told["targets"] = _listed(sorted({re.sub(r"(?<=[._])\d+(?=[._])", "*", name) for name in modules}))
    others = lora.of_text_encoder(modules)
    own = sorted(set(modules) - set(others))
    if fitting := detect.fitting(own) if own else []:
        told["fits"] = f"the names of {', '.join(fitting)}"
    use = f"merge it into its model: flashjax convert --source MODEL --lora {path} --out FOLDER"
    if others:
        told["beside"] = f"{len(others)} of {len(modules)} targets are a text encoder's, which is not merged here"
        use = "save the other targets as a file of their own, which can be merged (docs/convert.md)" if own else "none"
    try:
        lora.pairs(reader)
    except ConversionError as error:  # what convert refuses first, whatever else there is to say
        use = f"none: {error}"
    return told, use


def _orbax(path: Path) -> dict[str, str]:
    """What `flashjax convert --to orbax` wrote."""
    from flashjax.convert import detect, manifest, pods

    config = detect.read_config(path / "config.json")
    use = _use(detect.model_of(config), path, converted=True)
    size = manifest.size(path / manifest.ORBAX)
    return {
        **_architecture(config),
        **_sizes(pods.Stored(path).shapes()),
        "files": f"an Orbax checkpoint, {size / 1e9:.4g} GB; each host of a pod reads its part",
        "licence": _licence(path),
        "use": use,
    }


def _run(path: Path) -> dict[str, str]:
    """A run's work directory: its newest checkpoint."""
    from flashjax import checkpoint, paths
    from flashjax.convert.reader import Spec

    form, meta, step = checkpoint.form(path / "checkpoints")
    config = meta["config"]
    shapes = {name: Spec(tuple(x.shape), x.dtype) for name, x in paths.flatten(form).items()}
    rank = (config.get("lora") or {}).get("rank") or 0
    whole = f"its adapter, rank {rank}" if rank else "a whole network"
    return {
        "architecture": f"a run of {config['model']['architecture']}, {config['objective']}, {whole}",
        **_sizes(shapes),
        "files": f"the newest checkpoint is of step {step}; counted is the average (ema)",
        "licence": _licence(path),
        "use": f"draw with it: flashjax sample --checkpoint {path}; for other tools: flashjax export --workdir {path}",
    }


def _sizes(shapes: Mapping[str, Any]) -> dict[str, str]:
    sizes: Counter = Counter()
    for spec in shapes.values():
        sizes[str(spec.dtype)] += _size(spec)
    parameters = f"{_count(sum(sizes.values()))} in {len(shapes)} tensors"
    return {
        "parameters": parameters,
        "dtypes": ", ".join(f"{dtype} {_count(size)}" for dtype, size in sizes.most_common()),
    }


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:6]
    return f"{len(names)}: {', '.join(shown)}{', ...' if len(names) > len(shown) else ''}"


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
