"""From a path to a reader: one safetensors file, or a folder of shards with their index or without one."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from flashjax.convert.reader import (
    MAX_HEADER,
    PICKLES,
    ConversionError,
    Entry,
    Reader,
    read_file,
    refuse_pickle,
    unique,
)

INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors", re.DOTALL)


def open_weights(path: str | Path) -> Reader:
    """Open a `.safetensors` file, an index, or a folder with one file, or with shards and their `*.index.json`, or
    with a complete set of numbered shards ("model-00001-of-00003.safetensors").

    Only headers are read here.

    Raises:
      ConversionError: the path is missing, is a pickle, is truncated or is not a safetensors file, shards are missing,
        or do not agree with their index.
    """
    path = Path(path)
    if not path.exists():
        raise ConversionError(f"There are no weights at {path}; give a .safetensors file or a folder of them.")
    if path.is_dir():
        return _open_folder(path)
    if path.name.endswith(INDEX):
        return _open_index(path)
    return Reader(*read_file(path), path)


def part_of(path: Path) -> tuple[int, int] | None:
    """(2, 3) of the file "model-00002-of-00003.safetensors": a part of a model alone; None of anything else."""
    part = _SHARD.fullmatch(path.name)
    if part is None or int(part["count"]) < 2 or path.is_dir():
        return None
    return int(part["number"]), int(part["count"])


def _open_folder(folder: Path) -> Reader:
    present = {file.name for file in folder.iterdir() if file.is_file()}
    indexes = sorted(name for name in present if name.endswith(INDEX))
    files = sorted(name for name in present if name.endswith(".safetensors"))
    if len(indexes) == 1:
        return _open_index(folder / indexes[0], indexes[0].removesuffix(INDEX))
    if not indexes and files and all(_SHARD.fullmatch(name) for name in files):
        return _open_numbered(folder, files)
    if not indexes and len(files) == 1:
        return Reader(*read_file(folder / files[0]), folder / files[0])
    if candidates := indexes or files:
        raise ConversionError(
            f"The folder {folder} offers more than one choice ({', '.join(candidates[:5])}); name the one to read."
        )
    if pickles := sorted(name for name in present if Path(name).suffix in PICKLES):
        raise ConversionError(refuse_pickle(folder / pickles[0]))
    if dangling := sorted(file.name for file in folder.glob("*.safetensors") if file.is_symlink()):
        raise ConversionError(f"{dangling[0]} in {folder} is a link to a file that is not there; fetch it again.")
    raise ConversionError(f"The folder {folder} holds no .safetensors file; give the folder of the model's weights.")


def _open_numbered(folder: Path, files: list[str]) -> Reader:
    """A complete set of numbered shards that has no index."""
    parts = [_SHARD.fullmatch(name) for name in files]
    sets = sorted({(part["stem"], int(part["count"])) for part in parts})
    if len(sets) > 1:
        raise ConversionError(
            f"The folder {folder} holds shards of more than one set ({', '.join(stem for stem, _ in sets)}); keep one."
        )
    missing = sorted(set(range(1, sets[0][1] + 1)) - {int(part["number"]) for part in parts})
    if missing:
        numbers = ", ".join(map(str, missing[:10]))
        raise ConversionError(f"Of the {sets[0][1]} shards in {folder}, {numbers} is not there; complete the download.")
    if len(files) > sets[0][1]:
        raise ConversionError(f"{folder} has more shards than the {sets[0][1]} of their names; fetch them again.")
    headers = {name: read_file(folder / name) for name in files}
    holders: dict[str, str] = {}
    for file, (entries, _) in headers.items():
        for name in entries:
            if name in holders:
                raise ConversionError(f"The shards {holders[name]} and {file} in {folder} both hold {name}; keep one.")
            holders[name] = file
    return _joined(headers, holders, folder)


def _open_index(index: Path, stem: str | None = None) -> Reader:
    """``stem``: also refuse numbered shards of this name that the index does not know."""
    weight_map = _weight_map(index)
    shards, present = sorted(set(weight_map.values())), {file.name for file in index.parent.iterdir()}
    if outside := [(key, name) for key, name in weight_map.items() if Path(name).name != name or name in ("", "..")]:
        raise ConversionError(
            f"The index {index} places {_short(outside[0][0])} outside of its folder ({_short(outside[0][1])}), where "
            "nothing is read; fetch it again."
        )
    if missing := [name for name in shards if name not in present]:
        raise ConversionError(
            f"The index {index} names {len(shards)} shards, but {', '.join(map(_short, missing[:10]))} is not in the "
            "folder; complete the download."
        )
    parts = {name: _SHARD.fullmatch(name) for name in sorted(present - set(shards))}
    if extra := [name for name, part in parts.items() if part and part["stem"] == stem]:
        raise ConversionError(
            f"The shard {extra[0]} in {index.parent} is not in the index {index.name}: shards of two versions lie "
            "there; remove those that do not belong."
        )
    headers = {name: read_file(index.parent / name) for name in shards}
    for key, shard in weight_map.items():
        if key not in headers[shard][0]:
            raise ConversionError(
                f"The index {index} places {_short(key)} in {shard}, which does not hold it; index and shards are of "
                "different versions."
            )
    for shard, (entries, _) in headers.items():
        if unknown := [key for key in entries if weight_map.get(key) != shard]:
            raise ConversionError(
                f"The index {index} does not know {unknown[0]} of {shard}; index and shards are of different versions."
            )
    return _joined(headers, weight_map, index.parent)


def _short(name: str) -> str:
    return name if name.isprintable() and len(name) < 100 else repr(name[:100])


def _weight_map(index: Path) -> dict[str, str]:
    try:
        if index.stat().st_size > MAX_HEADER:
            raise ValueError("it is too large")
        weight_map = json.loads(index.read_bytes(), object_pairs_hook=unique)["weight_map"]
        if not weight_map or not all(isinstance(name, str) for name in weight_map.values()):
            raise ValueError("it is no map of names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConversionError(f"The index {index} has no readable 'weight_map'; fetch it again.") from error
    return weight_map


def _joined(
    headers: Mapping[str, tuple[dict[str, Entry], dict[str, str]]], holders: Mapping[str, str], place: Path
) -> Reader:
    entries = {key: headers[shard][0][key] for key, shard in holders.items()}
    return Reader(entries, next(iter(headers.values()))[1], place)
