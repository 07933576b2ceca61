"""The manifest beside a record file. Apart from ``prepare``, whose postcards need packages that training does not."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.files import read_object

# The categories of the postcards; a record's category_id, and a condition's class in the lambda table, is the position.
CLASSES = ("landscape", "portrait", "text")


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the manifest beside a record file says; ``path`` is the record file or the manifest itself. Raises
    FileNotFoundError where there is none, UserError where it is not JSON."""
    manifest = Path(path).with_suffix(".json")
    if not manifest.is_file():
        raise FileNotFoundError(f"There is no manifest {manifest}; prepare the set again to get one.")
    return read_object(manifest, "delete it and prepare the set again")


def places(manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """Category to the positions of its records in the file, int64, ascending. Records take turns through the manifest's
    ``categories``, unless its ``ranges`` say which [start, stop) each category has."""
    if "ranges" in manifest:
        return {name: np.arange(*bounds) for name, bounds in manifest["ranges"].items()}
    turns, at = manifest["categories"], np.arange(manifest["count"])
    return {
        name: at[np.isin(at % len(turns), [i for i, turn in enumerate(turns) if turn == name])]
        for name in dict.fromkeys(turns)
    }
