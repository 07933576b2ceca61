"""The folder of a conversion: it appears whole or not at all, and an interrupted one goes on where it stopped.

Everything is written to ``<out>.partial``, which is renamed at the end. A journal there holds the identity of the
conversion (what from, what to) and a line for every finished shard, or parameter of an Orbax checkpoint; the same
command takes up what is finished, any other one begins anew. A lock on the journal keeps two conversions from writing
the same folder.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.convert import manifest
from flashjax.convert.reader import ConversionError, Spec
from flashjax.convert.sources import INDEX
from flashjax.convert.writer import ordered, write_weights
from flashjax.errors import UserError

_JOURNAL = ".journal"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPARE = 64 << 20  # bytes of a disk for headers, configuration and tokenizer


class NoRoom(ConversionError):
    """The disk is too small; what is finished stays."""


class Partial:
    """``<out>.partial``, as a context: kept for the next start if it is left by anything but wrong input.

    ``done`` maps finished files to {"bytes": size, "sha256": {tensor: digest}}.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]):
        self.out, self.folder = out, out.with_name(out.name + ".partial")
        self._identity = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.done: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "Partial":
        journal = self.folder / _JOURNAL
        if self.folder.exists() and not journal.is_file() and any(self.folder.iterdir()):
            raise ConversionError(f"{self.folder} holds files that no conversion wrote; move them, or change --out.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal = journal.open("a+")
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._journal.close()
            raise ConversionError(f"Another conversion is writing {self.folder}; wait or change --out.") from error
        self._resume()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which is told of below
            self._journal.close()
        if isinstance(error, UserError) and not (isinstance(error, NoRoom) and self.done):
            shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise ConversionError(
                f"The disk of {self.out.parent} is full; make room and give the same command again: it goes on from "
                f"the {len(self.done)} files that are finished in {self.folder}."
            ) from error

    def _resume(self) -> None:
        self._journal.seek(0)
        text = self._journal.read()
        lines = [_parsed(line) for line in text.splitlines()]
        if lines and lines[0].get("identity") == self._identity:
            self.done = {line["file"]: line for line in lines[1:] if self._is_whole(line)}
            if not text.endswith("\n"):  # of a run that was killed while it wrote
                self._journal.write("\n")
        else:
            self._journal.truncate(0)
            self._note({"identity": self._identity})
        self._clean(self.folder)

    def _clean(self, folder: Path) -> None:
        """Remove what is not finished, from between what is."""
        for file in folder.iterdir():
            name = file.relative_to(self.folder).as_posix()
            if any(done.startswith(f"{name}/") for done in self.done):
                self._clean(file)
            elif name not in (_JOURNAL, *self.done):
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def _is_whole(self, line: Mapping[str, Any]) -> bool:
        file = self.folder / line.get("file", "")
        return "file" in line and file.exists() and manifest.size(file) == line.get("bytes")

    def _note(self, line: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def finish(self, name: str, hashes: Mapping[str, str]) -> None:
        """Note that a file, or a folder of files, is complete and on the disk."""
        file = self.folder / name
        for each in file.rglob("*"):
            _sync(each)
        self.done[name] = {"file": name, "bytes": manifest.size(file), "sha256": dict(hashes)}
        self._note(self.done[name])

    def check_room(self, size: int) -> None:
        """Raise NoRoom where the disk cannot take ``size`` more bytes."""
        free = shutil.disk_usage(self.folder).free
        if size + _SPARE > free:
            raise NoRoom(
                f"The result takes {size / 1e9:.2f} GB more, the disk of {self.out.parent} has {free / 1e9:.2f} GB; "
                "make room, or choose another --out."
            )

    def commit(self) -> None:
        """Give the folder its name, in place of an earlier conversion that is there."""
        for file in (*self.folder.rglob("*"), self.folder):
            _sync(file)
        old = _replaced(self.out)
        if (self.out / manifest.NAME).is_file():
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        self.folder.rename(self.out)
        _sync(self.out.parent)
        (self.out / _JOURNAL).unlink()
        shutil.rmtree(old, ignore_errors=True)


def _replaced(out: Path) -> Path:
    """Where an earlier conversion waits until the new one has its name."""
    return out.with_name(out.name + ".replaced")


def _parsed(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):  # the last line of a run that was killed while it wrote it
        found = json.loads(line)
        return found if isinstance(found, dict) else {}
    return {}


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_out(out: Path, source: Path, force: bool | None) -> None:
    """Raise ConversionError where ``out`` must not be written: nothing but an earlier conversion is ever replaced, or
    removed, and that not either where ``force`` is None."""
    if out.exists() and not out.is_dir():
        raise ConversionError(f"{out} is a file; --out takes a folder.")
    if not out.name:
        raise ConversionError(f"--out {out} is no folder that could be made; name one in it.")
    if out.resolve() == source.resolve():
        raise ConversionError(f"The source and the output are the same folder {out}; choose another --out.")
    if (old := _replaced(out)).exists() and not (old / manifest.NAME).is_file():
        raise ConversionError(f"{old} is in the way, and no conversion wrote it; move it, or change --out.")
    present = {file.name for file in out.iterdir()} if out.is_dir() else set()
    if present and not force:
        or_force = "" if force is None else ", or add --force to overwrite"
        raise ConversionError(f"The folder {out} is not empty; choose another --out{or_force}.")
    if present and (foreign := sorted(present - _converted(out))):
        raise ConversionError(
            f"--force replaces only what a conversion wrote, and {out} also holds {', '.join(foreign[:5])}; move it, "
            "or choose another --out."
        )


def _converted(out: Path) -> set[str]:
    """The files of an earlier conversion, and the journal, which is left where one ended just behind its renaming."""
    try:
        return manifest.files_of(out) | {_JOURNAL}
    except ConversionError as error:
        raise ConversionError(
            f"{out / manifest.NAME} cannot be read, so that it is not known what a conversion wrote there; remove the "
            "folder, or choose another --out."
        ) from error


def shard(specs: Mapping[str, Spec], limit: int, stem: str) -> dict[str, list[str]]:
    """{file name: parameters}: files of at most ``limit`` bytes, or of one parameter that is larger."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in ordered(specs):
        if shards[-1] and size + specs[name].nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += specs[name].nbytes
    if len(shards) == 1:
        return {f"{stem}.safetensors": shards[0]}
    return {f"{stem}-{i:05}-of-{len(shards):05}.safetensors": names for i, names in enumerate(shards, 1)}


def write_shards(
    partial: Partial,
    shards: Mapping[str, list[str]],
    tensors: Mapping[str, Callable[[], Iterable[np.ndarray]]],
    specs: Mapping[str, Spec],
    metadata: Mapping[str, str],
    progress: Callable[[int], None],
) -> None:
    """Write what is not finished yet, and the index if there are several shards. See `writer.write_weights`."""
    sizes = {file: sum(specs[name].nbytes for name in names) for file, names in shards.items()}
    partial.check_room(sum(size for file, size in sizes.items() if file not in partial.done))
    for file, names in shards.items():
        if file in partial.done:
            progress(sizes[file])
            continue
        chosen = {name: specs[name] for name in names}
        partial.finish(file, write_weights(partial.folder / file, tensors, chosen, metadata, progress))
    if len(shards) > 1:
        stem = next(iter(shards)).rsplit("-", 3)[0]
        weight_map = {name: file for file, names in shards.items() for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (partial.folder / (stem + INDEX)).write_text(json.dumps(index, indent=1) + "\n")
