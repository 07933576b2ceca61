"""A run as one self-contained page: what came out, pictures side by side, curves, and everything to repeat it.

The page needs no network: pictures are embedded, curves are SVG, captions are escaped. Its one script enlarges
pictures; without scripts all else is there.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from flashjax.errors import UserError
from flashjax.evaluate import charts
from flashjax.evaluate._page import PAGE
from flashjax.files import write_whole

__all__ = ["write_report"]

_NOTHING = "\u2013"
_UNRANKED = ("real", "reference", "nothing done", "exact")  # what models are compared with
_COLUMNS = (
    ("success", "Done as told", "higher", "{:.1%}"),
    ("kept", "Rest kept", "higher", "{:.1%}"),
    ("text", "Words replaced (OCR)", "higher", "{:.1%}"),
    ("outside", "Error outside the change", "lower", "{:.4f}"),
    ("adherence", "Adherence", "higher", "{:.1%}"),
    ("word_accuracy", "Words (OCR)", "higher", "{:.1%}"),
    ("letter_accuracy", "Letters (OCR)", "higher", "{:.1%}"),
    ("word_accuracy_classifier", "Words (classifier)", "higher", "{:.1%}"),
    ("frechet_to_teacher", "Fréchet to teacher", "lower", "{:.2f}"),
    ("cmmd_to_teacher", "CMMD to teacher", "lower", "{:.3f}"),
    ("precision", "Precision", "higher", "{:.1%}"),
    ("recall", "Recall", "higher", "{:.1%}"),
    ("frechet_to_real", "Fréchet to real", "lower", "{:.2f}"),
    ("proportion_shift", "Shift of proportions", "lower", "{:.3f}"),
)
_TONE = (
    ("diversity", "Diversity", "as teacher", "{:.2f}"),
    ("sharpness", "Sharpness", "as teacher", "{:.4f}"),
    ("high_frequency", "High frequencies", "as teacher", "{:.2%}"),
    ("saturation", "Saturation", "as teacher", "{:.3f}"),
    ("contrast", "Contrast", "as teacher", "{:.3f}"),
)


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    command: str,
    metrics: Mapping[str, Any],
    grids: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    step_table: str,
    config_text: str,
    facts: Mapping[str, Any],
    guidance: Mapping[str, tuple[Sequence[str], Sequence[str], np.ndarray]] | None = None,
) -> Path:
    """Write the page; it appears under its name only when it is complete.

    Args:
        path: the .html file; its folder is made.
        title: the heading.
        command: the command line that repeats the run.
        metrics: what `suite.evaluate` gives, or {} where nothing was measured. It may have a "note" on the figures
            and "by_category", the heading of the table of categories.
        grids: heading to {"captions": P strings, "columns": label to P pictures uint8 [H, W, 3]}. Rows are prompts,
            columns stand in the given order; pictures of up to 40 px are shown four times as large, sharp-edged.
        curves: name to (steps, values); values that are not finite are left out of the line and counted below it.
        step_table, config_text: text, shown as it is; "" where there is none.
        facts: name to value, for instance device, seconds, pictures.
        guidance: heading to (classes, teachers, weights [steps, classes, teachers]), the lambda tables to draw.

    Returns:
        The path.

    Raises:
        UserError: a grid's columns do not have one picture for each caption, or a curve's lengths differ.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(PAGE).render(
        title=title,
        command=command,
        verdict=metrics.get("verdict", []),
        tables=_tables(metrics.get("entries", {})),
        note=metrics.get("note", ""),
        by_category=metrics.get("by_category", "Adherence by category"),
        categories=_categories(metrics.get("entries", {})),
        counts=metrics.get("counts", {}),
        grids=[_grid(name, grid) for name, grid in grids.items()],
        curves=[_curve(name, *points) for name, points in curves.items()],
        step_table=step_table,
        config_text=config_text,
        facts=facts,
        guidance=[_guidance(name, *table) for name, table in (guidance or {}).items()],
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode())
    return path


def _tables(entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Names, heads and rows of the tables of figures; columns that nobody has are left out, and tables without any."""
    tables = [_table(entries, "", _COLUMNS), _table(entries, "Variety, detail and tone", _TONE)]
    return [table for table in tables if table["heads"]]


def _table(entries: Mapping[str, Any], title: str, columns: Sequence[tuple[str, str, str, str]]) -> dict[str, Any]:
    used = [c for c in columns if any(e.get(c[0]) is not None for e in entries.values())]
    rows = []
    for name, entry in entries.items():
        cells = [_NOTHING if entry.get(key) is None else form.format(entry[key]) for key, _, _, form in used]
        rows.append({"label": entry.get("label", name), "cells": cells, "student": name.startswith("student")})
    return {"name": title, "heads": [(label, wish) for _, label, wish, _ in used], "rows": rows}


def _categories(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Adherence of every entry in every category, and the average of the categories for those that have all, by which
    models are ranked."""
    kinds = list(dict.fromkeys(k for e in entries.values() for k in e.get("adherence_per_category", {})))
    cells = {name: [e.get("adherence_per_category", {}).get(kind) for kind in kinds] for name, e in entries.items()}
    # Rounded, as means of the same rates in another order differ in the last bits.
    averages = {name: round(fmean(found), 9) for name, found in cells.items() if found and None not in found}
    ranked = sorted((v for name, v in averages.items() if name not in _UNRANKED), reverse=True)
    rows = []
    for name, entry in entries.items():
        average = averages.get(name)
        told = [_NOTHING if value is None else f"{value:.1%}" for value in (*cells[name], average)]
        told.append(_NOTHING if average is None or name in _UNRANKED else str(ranked.index(average) + 1))
        rows.append({"label": entry.get("label", name), "cells": told, "student": name.startswith("student")})
    return {"heads": [*kinds, "average", "rank"] if kinds else [], "rows": rows}


def _guidance(name: str, classes: Sequence[str], teachers: Sequence[str], weights: np.ndarray) -> dict[str, Any]:
    """Rows of cells, a cell a step of the student: the teachers that are heard there, with their weight."""

    def cell(k: int, c: int) -> list[dict[str, Any]]:
        heard = [(m, float(w)) for m, w in enumerate(weights[k, c]) if w]
        return [{"teacher": teachers[m], "color": m % 6, "percent": f"{w:.0%}"} for m, w in heard]

    steps = range(len(weights))
    rows = [{"label": label, "cells": [cell(k, c) for k in steps]} for c, label in enumerate(classes)]
    return {"name": name, "steps": [f"step {k + 1}" for k in steps], "rows": rows}


def _grid(name: str, grid: Mapping[str, Any]) -> dict[str, Any]:
    captions, columns = list(grid["captions"]), grid["columns"]
    if wrong := [f"{label} ({len(images)})" for label, images in columns.items() if len(images) != len(captions)]:
        raise UserError(
            f"The grid '{name}' has {len(captions)} captions, but other numbers of pictures in "
            f"{', '.join(wrong)}; give one picture for each caption."
        )
    rows = [
        {"caption": caption, "pictures": [_picture(images[i]) for images in columns.values()]}
        for i, caption in enumerate(captions)
    ]
    return {"name": name, "labels": list(columns), "rows": rows}


def _picture(image: np.ndarray) -> dict[str, Any]:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise UserError(f"A picture of the report has to be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}.")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    scale = max(1, 160 // image.shape[1]) if image.shape[1] > 40 else 4
    return {
        "uri": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        "width": image.shape[1] * scale,
        "height": image.shape[0] * scale,
    }


def _curve(name: str, steps: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise UserError(f"The curve '{name}' has {x.size} steps and {y.size} values; give one value for each step.")
    kept = np.isfinite(x) & np.isfinite(y)
    last = f"{y[kept][-1]:.4g} at step {x[kept][-1]:g}" if kept.any() else "no finite values"
    lost = int((~kept).sum())
    return {
        "name": name,
        "last": last + (f"; {lost} values not finite" if lost else ""),
        "svg": charts.lines_svg([(x[kept], y[kept])]),
    }
