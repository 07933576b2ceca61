"""What was measured as files, and as the report's section (jinja2, autoescaped)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from flashjax.bench.comparing import METRICS, Row
from flashjax.errors import UserError
from flashjax.files import as_csv, read_object, write_whole

__all__ = ["SECTION", "read_measures", "table", "write_measures"]

_FIELDS = [field.name for field in fields(Row)]
_KEYS = ("reference", "systems", "categories", "rows", "warnings", "extractors", "reader")

SECTION = """
{% if measured %}
<h2>Measured, against {{ measured.reference }}</h2>
<div class="wide"><table><thead><tr><th class="name">Model</th><th class="name">Measure</th>
{%- for c in measured.columns %}<th>{{ c }}</th>{% endfor %}</tr></thead><tbody>
{% for line in measured.lines %}
<tr><td class="name system">{{ line.system }}</td><td class="name">{{ line.title }}</td>
{%- for cell in line.cells %}<td>{% if cell %}{{ cell.value }}{{ "*" if cell.rough }}<br>
<span class="soft">{{ cell.interval }}n = {{ cell.n }}</span>{% else %}\u2013{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="soft" style="overflow-wrap: anywhere">* no more pictures than the features have dimensions.
Intervals of 95 % are of resampled prompts; distances have none. Features: {{ measured.extractors | join("; ") }}.
Texts were read by {{ measured.reader or "nothing" }}.</p>
{% for w in measured.warnings %}
<p class="soft">{{ w }}</p>
{% endfor %}
{% endif %}
"""


def write_measures(folder: Path, told: Mapping[str, Any]) -> None:
    """``measures.json`` and ``measures.csv``, a line a row; each appears when it is complete."""
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder / "measures.json", text.encode("utf-8", "replace"))
    rows = (["" if row[name] is None else row[name] for name in _FIELDS] for row in told["rows"])
    write_whole(folder / "measures.csv", as_csv(_FIELDS, rows).encode("utf-8", "replace"))


def read_measures(path: str | Path) -> dict[str, Any]:
    """What ``write_measures`` wrote. Raises UserError."""
    told = read_object(path, "flashjax bench measure writes it")
    if set(_KEYS) - set(told) or not all(isinstance(r, dict) and sorted(r) == sorted(_FIELDS) for r in told["rows"]):
        raise UserError(f"{path} is no measures.json of this flashjax bench measure.")
    return told


def table(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The section's figures: a line a system and metric, a column a category; None of None."""
    if told is None:
        return None
    kinds = list(dict.fromkeys(row["category"] for row in told["rows"]))
    cells = {(r["system"], r["metric"], r["extractor"], r["category"]): r for r in told["rows"]}
    order = sorted(dict.fromkeys(key[:3] for key in cells), key=lambda k: (k[2], list(METRICS).index(k[1])))
    lines = [
        dict(
            system=system, title=METRICS[metric] + (f", {extractor}" if extractor else ""),
            cells=[_cell(cells.get((system, metric, extractor, kind))) for kind in kinds],
        )
        for system, metric, extractor in sorted(order, key=lambda k: told["systems"].index(k[0]))
    ]  # fmt: skip
    extractors = [f"{e['name']}, sha256 {e['sha256']}" for e in told["extractors"]]
    kept = {name: told[name] for name in ("reference", "reader", "warnings")}
    return kept | dict(columns=[kind or "all" for kind in kinds], lines=lines, extractors=extractors)


def _cell(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None or row["value"] is None:
        return None
    value, low, high = (_shown(row["metric"], row[name]) for name in ("value", "low", "high"))
    return dict(value=value, interval="" if low is None else f"{low} to {high}, ", n=row["n"], rough=row["rough"])


def _shown(metric: str, value: float | None) -> str | None:
    if value is None:
        return None
    if metric.endswith("_drift"):
        return f"{value:+.1%}"
    return f"{value:+.3f}" if metric.endswith("_change") else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
