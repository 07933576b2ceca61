"""What was measured as files, and as the report's section (jinja2, autoescaped)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from flashjax.bench.comparing import METRICS, Row
from flashjax.bench.plan import Pictures
from flashjax.bench.prompts import Prompt, spread
from flashjax.errors import UserError
from flashjax.files import as_csv, read_object, sha256_of, write_whole

__all__ = ["SECTION", "origin", "read_measures", "table", "write_measures"]

_FIELDS = [field.name for field in fields(Row)]
_KINDS = dict(
    reference=str, systems=list, categories=list, rows=list, warnings=list, extractors=list, reader=str | None,
    prompts=int, bench_sha256=str, pictures=dict,
)  # fmt: skip

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


def origin(bench: str | Path, prompts: Sequence[Prompt], systems: Mapping[str, Pictures]) -> dict[str, Any]:
    """Of what measures are: how many prompts of which file, and the pictures of each system, by content."""
    shots = {
        name: [[p.id, seed, found[p.id][seed].digest] for p in prompts for seed in sorted(found[p.id])]
        for name, found in systems.items()
    }
    pictures = {name: hashlib.sha256(json.dumps(mine).encode()).hexdigest() for name, mine in shots.items()}
    return dict(prompts=len(prompts), bench_sha256=sha256_of(Path(bench)), pictures=pictures)


def read_measures(
    path: str | Path, bench: str | Path, prompts: Sequence[Prompt], systems: Mapping[str, Pictures]
) -> dict[str, Any]:
    """What ``write_measures`` wrote, of these pictures.

    Args:
        bench, prompts: a file, and all its prompts. systems: name to pictures. Where these are of fewer prompts than
            were measured, pictures are not compared.

    Raises:
        UserError: the file is damaged, or of another bench, other systems or other pictures.
    """
    told = read_object(path, "flashjax bench measure writes it")
    if wrong := _wrong(told):
        raise UserError(f"{path} is no measures.json of this flashjax bench measure: {wrong}.")
    measured, shared = spread(prompts, told["prompts"]), [name for name in told["pictures"] if name in systems]
    known = {name: systems[name] for name in shared if all(p.id in systems[name] for p in measured)}
    found = origin(bench, measured, known)
    if told["bench_sha256"] != found["bench_sha256"]:
        raise UserError(f"{path} is of another bench than {bench}; run flashjax bench measure with this one.")
    if not shared:
        raise UserError(f"{path} measures {', '.join(told['pictures'])}, and none of {', '.join(systems)}.")
    if other := [name for name in known if told["pictures"][name] != found["pictures"][name]]:
        raise UserError(f"{path} measures other pictures of {other[0]} than these; run flashjax bench measure again.")
    return told


def _wrong(told: Mapping[str, Any]) -> str:
    """What is wrong with measures; nothing is the empty string."""
    if wrong := [name for name, kind in _KINDS.items() if name not in told or not isinstance(told[name], kind)]:
        return f"its {wrong[0]} is missing, or of another kind"
    if not all(isinstance(e, dict) and {"name", "sha256"} <= set(e) for e in told["extractors"]):
        return "an extractor has no name or no sha256"
    return next(filter(None, map(_wrong_row, told["rows"], itertools.repeat(told["systems"]))), "")


def _wrong_row(row: Any, systems: Sequence[str]) -> str:
    if not isinstance(row, dict) or sorted(row) != sorted(_FIELDS):
        return "a row has other fields"
    if not all(isinstance(row[name], str) for name in ("system", "category", "metric", "extractor", "unit")):
        return "a row has a name that is no text"
    if row["metric"] not in METRICS:
        return f"it has the measure {row['metric']}, which is not known"
    if row["system"] not in systems:
        return f"it has a row of {row['system']}, which is none of its systems"
    numbers = [row[name] for name in ("value", "low", "high") if row[name] is not None]
    return "" if all(type(x) in (int, float) for x in numbers) else "a row has a figure that is no number"


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
