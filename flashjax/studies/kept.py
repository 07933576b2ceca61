"""Finished cells in one file beside the page, a line of JSON each, with which a study goes on on another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flashjax.errors import UserError
from flashjax.files import write_whole
from flashjax.studies.grid import Cell

NEEDED = ("key", "cell", "seed", "code", "machine", "values")


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Results by the key of their cell; none where there is no file. Raises UserError for a line that is none."""
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else (), 1):
        try:
            result = json.loads(line)
            found[result["key"]] = {name: result[name] for name in NEEDED} | result
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}, line {number}, is no finished cell: {type(error).__name__}: {error}.") from error
    return found


def check_none_lost(path: Path, elsewhere: Mapping[str, Mapping], every: Sequence[Cell]) -> None:
    """Raises UserError if the file has cells that are none of the study's, or if there are pages beside it without it,
    which writing them anew would lose."""
    if not path.is_file() and (page := path.with_suffix(".json")).is_file():
        raise UserError(f"{page} tells of cells that {path} does not have; move it away, or give another --docs.")
    keys = {key for cell in every for key in cell.keys}
    if others := [result for key, result in elsewhere.items() if key not in keys]:
        cells = ", ".join(dict.fromkeys(result["cell"] for result in others))
        versions = " ".join(dict.fromkeys(result["code"] for result in others))
        raise UserError(
            f"{path} has {len(others)} finished cells of other code, settings or weights than the study's ({cells}). "
            f"Take those of other code with --accept {versions}; or move the file away, and they begin anew."
        )


def write(path: Path, every: Sequence[Cell]) -> None:
    """All finished cells, those from elsewhere too, with the pictures that the page shows: of one seed each; and behind
    them what the file has besides, which another process wrote meanwhile by other code."""
    lines, shown, keys = [], set(), {cell.key for cell in every if cell.result is not None}
    for cell in every:
        if (result := cell.result) is not None:
            told = {"key": cell.key, **result, "sheet": "" if cell.name in shown else cell.sheet}
            lines.append(json.dumps(told, separators=(",", ":")) + "\n")
            shown.add(cell.name)
    lines += [json.dumps(told, separators=(",", ":")) + "\n" for key, told in read(path).items() if key not in keys]
    write_whole(path, "".join(lines).encode())
