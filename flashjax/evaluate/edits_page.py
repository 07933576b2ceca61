"""Edits and what was measured of them, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from flashjax import __version__
from flashjax.evaluate import report

__all__ = ["write_page"]

_SHOWN, _FAILURES = 6, 12  # edits a category, and of those that were not done, on the page


def write_page(
    target: Path, told: Mapping[str, Any], sets: Mapping[str, np.ndarray], records: Sequence[Mapping], command: str
) -> None:
    """What `edits.figures` found: every set between source and exact edit, and what the last one did not do."""
    columns = {"source": [r["source"] for r in records], **sets, "exact": [r["image"] for r in records]}
    kinds, last = [r["category"] for r in records], list(sets)[-1]
    chosen = {kind: [i for i, k in enumerate(kinds) if k == kind][:_SHOWN] for kind in dict.fromkeys(kinds)}
    if failed := told[last]["failed"][:_FAILURES]:
        chosen[f"Not done: {last}"] = failed
    grids = {
        name: dict(
            captions=[records[i]["instruction"] for i in some],
            columns={label: [images[i] for i in some] for label, images in columns.items()},
        )
        for name, some in chosen.items()
    }
    shown = dict(entries={name: _entry(name, row) for name, row in told.items()}, counts=dict(edits=len(records)))
    shown |= dict(verdict=[_sentence(name, told[name]) for name in sets], by_category="Done as told, by category")
    facts = {"flashjax": __version__, "date": f"{date.today()}"}
    report.write_report(
        target, title="Edits of postcards", command=command, metrics=shown, grids=grids, curves={}, step_table="",
        config_text="", facts=facts,
    )  # fmt: skip


def _entry(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    values = {key: row[key] and row[key]["value"] for key in ("success", "kept", "text", "outside")}
    return dict(label=name, adherence_per_category=row["success_by_category"]) | values


def _sentence(name: str, row: Mapping[str, Any]) -> str:
    done, kept = (_told(row[key]) for key in ("success", "kept"))
    return f"{name}: {done} of the edits are done as told, and {kept} of the other attributes are as they were."


def _told(rate: Mapping[str, Any]) -> str:
    interval = "" if rate["low"] is None else " (95 % interval {low:.1%} to {high:.1%})".format(**rate)
    return f"{rate['value']:.1%}{interval}"
