"""The folder of a run: its configuration, metrics, checkpoints and pictures."""

import contextlib
import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flashjax.errors import UserError
from flashjax.files import held, read_object, write_whole

# What a run may go on with otherwise, if it is told so: the rest of its rows are read from another mixture. By the
# names in the folder's config.json and in a checkpoint's meta.
MIXTURE = ("sources", "edit_share", "config.sources", "config.edit_share", "table", "data")
# What may change between the start of a run and its continuation without making it another run.
LOGISTICS = ("log_every", "sample_every", "checkpoint_every", "keep_checkpoints", "mesh", "profile", "compile_cache")
LOGISTICS += ("watchdog_minutes", "watch", "keep_best", "micro_batches", "teacher_memory", "sample_prompts")
# How a network is computed and not what, over the same parameters: kept of a run, which is sampled so, and may change.
HOW = tuple(f"{at}model.{name}" for at in ("", "config.") for name in ("scan_layers", "remat", "attention"))
RECORDS = ("config", "metrics", "step_table")  # what a run is known by, in its folder
OPTIMIZERS = ("optim", "student_optim", "critic_optim")  # the settings that are an optimizer's


def identity(config: ConfigDict) -> dict:
    """The settings that make a run what it is, and those by ``HOW`` beside them."""
    settings = {k: v for k, v in json.loads(config.to_json()).items() if k not in LOGISTICS}
    # Runs that were begun without these are the same runs.
    if not settings.get("lora", {}).get("rank"):
        settings.pop("lora", None)
    if settings.get("autoencoder", {}).get("architecture") == "pixels":
        settings.pop("autoencoder")
    if not settings.get("teacher_dtype"):
        settings.pop("teacher_dtype", None)
    for optimizer in OPTIMIZERS:
        if settings.get(optimizer, {}).get("mu_dtype") == "float32":
            del settings[optimizer]["mu_dtype"]
    return settings


def claim(workdir: str, config: ConfigDict, needed_bytes: int = 0, free: tuple[str, ...] = ()) -> Path:
    """Creates the folder, or takes one that this very configuration made, but for ``HOW`` and what ``free`` names.
    Raises UserError if it belongs to another run, is an address (of which a folder of this machine would be made, and
    lost with it), cannot be written, or its disk has less than ``needed_bytes`` left; nothing is overwritten."""
    from flashjax.checkpoint import check_meta  # Orbax is slow to import

    if "://" in workdir:
        raise UserError(f"--workdir {workdir} is an address; give a folder: a bucket that is mounted is one.")
    folder = Path(workdir)
    record = folder / "config.json"
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--workdir {folder} is a file; give a folder.")
        if record.exists() and _begun(folder):
            check_meta(_read(record), identity(config), f"The folder {folder}", free)
        elif folder.exists() and any(folder.iterdir()) and not _ours(record):
            raise UserError(f"--workdir {folder} holds files but no run of flashjax; give an empty or a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed_bytes:
            needed = needed_bytes >> 20
            raise UserError(f"The run needs about {needed} MiB in {folder}; its disk has {free >> 20} MiB left.")
        write_whole(record, json.dumps(identity(config), indent=1, sort_keys=True).encode())
    except OSError as error:
        raise UserError(f"--workdir {folder} cannot be used: {error.strerror}.") from error
    return folder


def keep_table(folder: Path, table: str, changed: bool) -> None:
    """Writes the step table and the mixture of a run to its step_table.txt. Of a mixture ``changed`` on the way,
    what was there stays below: it is what the rows until now were read by."""
    file = folder / "step_table.txt"
    before = file.read_text() if file.is_file() else ""
    newest, *older = before.partition("\nBefore row ")
    saved = _saved(folder)
    if changed and saved and newest not in ("", table):
        older = [f"\nBefore row {max(saved)} it was this:\n\n{before}"]
    write_whole(file, "".join([table, *older]).encode())


def check_unfinished(folder: Path, rows: int) -> None:
    """Raises UserError for a run that has done all its rows: its mixture would change on paper alone."""
    if (folder / "checkpoints" / str(rows)).is_dir():
        raise UserError(f"The run in {folder} is finished; its mixture cannot be changed any more.")


def check_disk(folder: Path, state: Sequence[Any], keep: int) -> None:
    """Raises UserError where the disk has no room for the checkpoints of a run that are still to come, each of all
    arrays of its ``state``; ``keep`` of them (the best too, where it is kept), and one that is being written, are there
    at a time."""
    needed = max(1, keep + 1 - len(_saved(folder))) * sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"The checkpoints of the run take {needed / 1e9:.3g} GB more in {folder}, and its disk has "
            f"{free / 1e9:.3g} GB left; make room, or lower config.keep_checkpoints."
        )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raises UserError where another process of this machine trains in the folder: two would delete each other's half
    written checkpoints. (Of this machine: locks on a network's disk may outlive a host that is lost.)"""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    with held(Path(tempfile.gettempdir(), f"flashjax-{os.getuid()}-{digest}.lock")) as free:
        if not free:
            raise UserError(
                f"Another process trains in {folder}; wait for it or stop it (it saves on SIGTERM), or give another "
                "--workdir."
            )
        yield


def shared(workdir: str, config: ConfigDict) -> Path:
    """The folder that process 0 has claimed. Raises UserError where this process does not see what it wrote."""
    record = Path(workdir) / "config.json"
    if not record.is_file() or _read(record) != identity(config):
        raise UserError(f"{record} of process 0 is not seen here; --workdir has to be a folder that all hosts share.")
    return Path(workdir)


def _begun(folder: Path) -> bool:
    """Whether a run left rows of metrics or a checkpoint. One that stopped before (its data set was missing, say) binds
    nobody, though it has made the file and the folder for them."""
    metrics = folder / "metrics.jsonl"
    return bool(_saved(folder)) or (metrics.is_file() and metrics.stat().st_size > 0)


def _saved(folder: Path) -> list[int]:
    """The steps of a run's checkpoints, in no order."""
    return [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]


def _ours(record: Path) -> bool:
    """Whether the file is a run's: models' folders have a config.json too, which is not ours to replace."""
    return record.is_file() and {"objective", "seed", "sources"} <= set(_read(record))


def _read(record: Path) -> dict[str, Any]:
    return read_object(record, "give another --workdir")


def check_out(
    out: Path, others: Sequence[str] = (), runs: Sequence[str] = (), flag: str = "--out", read: Sequence[str] = ()
) -> None:
    """Raises UserError where no file can be written at ``out``, or beside it with the suffixes ``others``, or where it
    would take the place of what one of ``runs`` is known by, or of a file that is ``read`` (of a data set also its
    manifest): before the work, which would be lost."""
    sets = [path for path in map(Path, read) if path.suffix == ".arrayrecord"]
    inputs = {path.resolve() for path in (*map(Path, read), *(path.with_suffix(".json") for path in sets))}
    for file in (out, *map(out.with_suffix, others)):
        if file.is_dir():
            raise UserError(f"{flag} {out} cannot be written: {file} is a folder; give another name.")
        if file.resolve() in inputs:
            raise UserError(f"{flag} {out} would be written over {file}, which is read for it; give another name.")
    check_folder(out.absolute().parent, f"{flag} {out}")
    if out.stem in RECORDS and any(Path(run).resolve() == out.absolute().parent.resolve() for run in runs):
        raise UserError(f"{flag} {out} has the name of a file of the run's own; give another one, such as report.html.")


def check_folder(folder: Path, told: str) -> None:
    """Raises UserError, which begins with ``told``, where a folder takes no files, or cannot be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "is write-protected" if there.is_dir() else "is a file"
        raise UserError(f"{told} cannot be written: {there} {why}; give another folder.")


_MADE_BY = {"data set": " `flashjax prepare` makes one; the configuration's file has the command."}


def existing(path: str, what: str) -> Path:
    """A path that has to exist; the error names the nearest sibling, or else what makes a ``what``."""
    found = Path(path)
    if found.exists():
        return found
    siblings = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
    if what == "data set":  # not its manifest, which opened as one would be called damaged
        siblings = [name for name in siblings if name.endswith(".arrayrecord")]
    near = difflib.get_close_matches(found.name, siblings, 1) or [s for s in siblings if Path(s).stem == found.name]
    hint = f" Did you mean {found.parent / near[0]}?" if near else _MADE_BY.get(what, "")
    raise UserError(f"There {'are' if what.endswith('s') else 'is'} no {what} at {found}.{hint}")
