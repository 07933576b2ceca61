"""The folder of a run: its configuration, metrics, checkpoints and pictures."""

import difflib
import json
import shutil
from pathlib import Path

from ml_collections import ConfigDict

from flashjax.checkpoint import check_meta
from flashjax.errors import UserError

# What may change between the start of a run and its continuation without making it another run.
LOGISTICS = ("log_every", "sample_every", "checkpoint_every", "keep_checkpoints", "devices")


def identity(config: ConfigDict) -> dict:
    """The settings that make a run what it is."""
    return {k: v for k, v in json.loads(config.to_json_best_effort()).items() if k not in LOGISTICS}


def claim(workdir: str, config: ConfigDict, needed_bytes: int = 0) -> Path:
    """Creates the folder, or takes one that this very configuration made. Raises UserError if it belongs to another
    run, cannot be written, or its disk has less than ``needed_bytes`` left; nothing is overwritten."""
    folder = Path(workdir)
    record = folder / "config.json"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir {folder} is a file; give a folder.")
    if record.exists():
        check_meta(json.loads(record.read_text()), identity(config), folder)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"--workdir {folder} holds files but no run of flashjax; give an empty or a new folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed_bytes:
            raise UserError(f"The run needs about {needed_bytes >> 20} MiB in {folder}; its disk has {free >> 20} MiB left.")
        record.write_text(json.dumps(identity(config), indent=1, sort_keys=True))
    except OSError as error:
        raise UserError(f"--workdir {folder} cannot be written: {error.strerror}.") from error
    return folder


def existing(path: str, what: str) -> Path:
    """A path that has to exist; the error names the nearest sibling."""
    found = Path(path)
    if found.exists():
        return found
    siblings = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
    near = difflib.get_close_matches(found.name, siblings, 1)
    raise UserError(f"There is no {what} at {found}." + (f" Did you mean {found.parent / near[0]}?" if near else ""))
