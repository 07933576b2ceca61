"""A study as one self-contained page (jinja2, autoescaped): tables, contrasts as intervals, curves, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from flashjax.evaluate import charts
from flashjax.evaluate.theme import THEME
from flashjax.studies.contrasts import budget, clear, tables
from flashjax.studies.grid import Cell

PLOTTED = ("adherence", "word", "Fréchet", "diversity", "edit success", "edit outside")

_PAGE = (
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ told.title }}</title>
<style>
"""
    + THEME
    + charts.STYLE
    + """main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 28px; margin: 0 0 14px; } h2 { font-size: 19px; margin: 44px 0 12px; } h3 { font-size: 15px; }
code, pre { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 6px 8px; text-align: right; border-bottom: 1px solid var(--rule); }
th { font-size: 13px; vertical-align: bottom; } td small { display: block; color: var(--soft); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
td.clear { font-weight: 600; background: var(--tint); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px; }
figcaption { font-size: 13.5px; font-weight: 600; } .soft { color: var(--soft); font-size: 13px; }
.legend { font-size: 13px; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 0 0 12px; }
.legend b { display: inline-block; width: 18px; height: 3px; margin-right: 6px; vertical-align: middle; }
img { image-rendering: pixelated; max-width: 100%; }
{% for color in colors %}
svg .line{{ loop.index0 }} { stroke: {{ color }}; } .legend .line{{ loop.index0 }} { background: {{ color }}; }
{% endfor %}
</style>
</head>
<body>
<main>
<h1>{{ told.title }}</h1>
<p>{{ told.question }}</p>
<pre>{{ command }}</pre>
{% for table in tables %}
<h2>{{ table.name }}</h2>
<div class="wide"><table>
<thead><tr><th></th><th>seeds</th>{% for name in table.heads %}<th>{{ name }}</th>{% endfor %}</tr></thead>
{% for row in table.rows %}
<tr><td>{{ row.label }}</td><td>{{ row.seeds }}</td>
{%- for text, marked in row.cells %}<td{% if marked %} class="clear"{% endif %}>{{ text.partition(" ")[0] }}
{%- if " " in text %}<small>{{ text.partition(" ")[2] }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endfor %}
<p class="soft">In brackets: 95 % intervals, as wide as resampling seeds and prompts makes them and as Student's t of
the seeds' means, which alone is that of figures of whole sets. Marked: contrasts of three seeds whose interval leaves
out 0; of those that are none, about one in twenty is marked too.</p>
{% if intervals %}
<h2>Contrasts</h2>
<div class="charts">{% for name, svg in intervals %}<figure><figcaption>{{ name }}</figcaption>{{ svg }}</figure>
{% endfor %}</div>
{% endif %}
{% if curves %}
<h2>While they trained</h2>
<p class="legend">{% for name in lines %}<span><b class="line{{ loop.index0 }}"></b>{{ name }}</span>{% endfor %}</p>
<div class="charts">{% for name, svg in curves %}<figure><figcaption>{{ name }}</figcaption>{{ svg }}</figure>
{% endfor %}</div>
{% endif %}
<p>{{ budget }}</p>
{% if told.missing %}<p>Missing: {{ told.missing | join("; ") }}.</p>{% endif %}
<h2>Pictures</h2>
{% for name, uri in sheets %}
<h3>{{ name }}</h3><img src="{{ uri }}" alt="{{ name }}">
{% endfor %}
</main>
</body>
</html>
"""
)


def page(told: Mapping[str, Any], every: Sequence[Cell], command: str) -> str:
    """The page of what `contrasts.summary` told; pictures are of each cell's first finished seed."""
    lines = list(dict.fromkeys(cell for by_cell in told["curves"].values() for cell in by_cell))
    empty = (np.empty(0), np.empty(0))
    curves = [
        (name, charts.lines_svg([by_cell.get(cell, empty) for cell in lines], "row of the run"))
        for name, by_cell in told["curves"].items()
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_PAGE).render(
        told=told, command=command, budget=budget(told), tables=tables(told), intervals=_intervals(told),
        colors=[f"hsl({360 * i // len(lines)} 65% 50%)" for i in range(len(lines))],
        curves=curves, lines=lines, sheets=_sheets(every),
    )  # fmt: skip


def _intervals(told: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    out = []
    for name in PLOTTED:
        rows = [(label, row[name]) for label, row in told["contrasts"].items() if name in row]
        known = ((label, f) for label, f in rows if f["low"] is not None)
        if drawn := [(label, f["value"], f["low"], f["high"], clear(f)) for label, f in known]:
            out.append((name, charts.intervals_svg(drawn)))
    return out


def _sheets(every: Sequence[Cell]) -> list[tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for cell in every:
        if (sheet := cell.sheet) and cell.name not in found:
            label = cell.name if cell.config is None else f"{cell.name}, seed {cell.seed}"
            found[cell.name] = (label, f"data:image/png;base64,{sheet}")
    return list(found.values())
