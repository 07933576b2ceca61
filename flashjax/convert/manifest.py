"""manifest.json: what a conversion wrote, with the sha256 of every tensor, and the check of a folder against it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flashjax.convert.reader import ConversionError, Spec
from flashjax.convert.sources import open_weights

NAME = "manifest.json"
FORMAT = 1
ORBAX = "params"  # the checkpoint of a folder that `pods` wrote


def write(folder: Path, about: Mapping[str, Any], specs: Mapping[str, Spec], done: Mapping[str, Any]) -> None:
    """Write the manifest of a folder whose other files are complete.

    Args:
      about: what else is to be known of the conversion.
      specs: {parameter: (shape, dtype)}.
      done: {weights file: {"sha256": {parameter: digest}}}, see `output.Partial`.
    """
    tensors = {
        name: dict(file=file, dtype=str(specs[name].dtype), shape=list(specs[name].shape), sha256=digest)
        for file, line in done.items()
        for name, digest in line["sha256"].items()
    }
    files = {}
    for file in sorted(file for file in folder.iterdir() if not file.name.startswith(".")):
        files[file.name] = {"bytes": size(file)}
        if file.name not in done:
            files[file.name]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    found = dict(format=FORMAT, **about, files=files, tensors=dict(sorted(tensors.items())))
    (folder / NAME).write_text(json.dumps(found, indent=1) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of a converted folder.

    Raises:
      ConversionError: there is none, or it cannot be read.
    """
    file = folder / NAME
    if not file.is_file():
        raise ConversionError(f"There is no {file}; give a folder that `flashjax convert` wrote.")
    try:
        found = json.loads(file.read_bytes())
        whole = all({"file", "dtype", "shape", "sha256"} <= about.keys() for about in found["tensors"].values())
        whole &= all("bytes" in about for about in found["files"].values())
        whole &= isinstance(found["model"], str) and isinstance(found["bytes"], int)
        if found["format"] != FORMAT or not whole:
            raise ValueError("another format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConversionError(f"{file} is no manifest that this version reads; convert the model again.") from error
    return found


def content(folder: Path) -> str:
    """16 digits of sha256 over names, dtypes, shapes and sha256 of all tensors, as the manifest tells them: the content
    of weights that nobody has to hold for it. What `check` compares with the manifest are the weights themselves.

    Raises:
      ConversionError: as `read`.
    """
    tensors = sorted(read(folder)["tensors"].items())
    told = [(name, *(about[fact] for fact in ("dtype", "shape", "sha256"))) for name, about in tensors]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def files_of(folder: Path) -> set[str]:
    """The names of all files that a conversion wrote into ``folder``; none where no conversion did."""
    return {NAME, *read(folder)["files"]} if (folder / NAME).is_file() else set()


def check(folder: Path, progress: Callable[[int], None]) -> dict[str, Any]:
    """Compare every file and tensor with the manifest, which is returned.

    Raises:
      ConversionError: naming the first file or tensor that differs.
    """
    found = read(folder)
    for name, about in found["files"].items():
        file = folder / name
        if not file.exists():
            raise ConversionError(f"{file} is missing; the manifest lists it. Convert or copy the folder again.")
        same = size(file) == about["bytes"]
        if not same or ("sha256" in about and hashlib.sha256(file.read_bytes()).hexdigest() != about["sha256"]):
            raise _changed(f"{file}")
    reader = weights(folder)
    if odd := sorted(set(reader) ^ set(found["tensors"])):
        raise ConversionError(f"{odd[0]} is only in the weights or only in the manifest of {folder}; convert it again.")
    for name, about in found["tensors"].items():
        shape, dtype = reader.shapes()[name]
        if (list(shape), str(dtype)) != (about["shape"], about["dtype"]):
            raise _changed(f"{name} in {reader.file(name)}")
        if _digest(reader, name, progress) != about["sha256"]:
            raise _changed(f"{name} in {reader.file(name)}")
    return found


def check_size(folder: Path, name: str) -> None:
    """Raise ConversionError unless a file or folder that a conversion wrote is as large as it was then."""
    found, wanted = size(folder / name), read(folder)["files"].get(name, {}).get("bytes", 0)
    if found != wanted:
        raise ConversionError(f"{folder / name} is not whole, {found} bytes of {wanted}; copy or convert it again.")


def size(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    inner = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in inner)


def is_orbax(folder: Path) -> bool:
    """Whether a folder holds an Orbax checkpoint, for many devices, and no safetensors."""
    return (folder / ORBAX).is_dir()


def weights(folder: Path) -> Any:
    """The reader of a converted folder: of safetensors, or of an Orbax checkpoint."""
    if not is_orbax(folder):
        return open_weights(folder)
    from flashjax.convert import pods  # Orbax takes seconds to import

    return pods.Stored(folder)


def _digest(reader: Any, name: str, progress: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    for piece in reader.stream(name):
        digest.update(piece)
        progress(len(piece))
    return digest.hexdigest()


def _changed(what: str) -> ConversionError:
    return ConversionError(f"{what} is not what was converted (its sha256 or size differs); convert or copy it again.")
