"""The template of the report's page (jinja2, autoescaped)."""

from flashjax.evaluate import zoom
from flashjax.evaluate.charts import STYLE
from flashjax.evaluate.theme import THEME

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
""" + THEME + STYLE + zoom.STYLE + """main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 28px; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 14px; }
h2 { font-size: 19px; margin: 44px 0 12px; }
h3 { font-size: 15px; margin: 24px 0 8px; }
p { margin: 0 0 10px; }
.soft { color: var(--soft); font-size: 13px; }
pre, code { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 14px; margin: 0;
      overflow: auto; max-height: 480px; }
.verdict { background: var(--tint); border-radius: 10px; padding: 14px 18px; margin: 22px 0 0; list-style: none; }
.verdict li + li { margin-top: 6px; }
.wide { overflow-x: auto; }
table.figures { border-collapse: separate; border-spacing: 0; width: 100%; font-variant-numeric: tabular-nums; }
.figures th, .figures td { padding: 7px 7px; text-align: right; border-bottom: 1px solid var(--rule); }
.figures th:first-child, .figures td:first-child { text-align: left; padding-left: 8px; }
.figures thead th { font-size: 13px; font-weight: 600; vertical-align: bottom; line-height: 1.3; }
.figures thead small { display: block; font-weight: 400; color: var(--soft); }
.figures td:first-child { white-space: nowrap; }
.figures th:first-child, .figures td:first-child { position: sticky; left: 0; background: var(--paper); }
.figures tr.student td { background: var(--tint); font-weight: 600; }
table.samples { border-collapse: collapse; }
.samples th { font-size: 13px; font-weight: 600; text-align: left; padding: 0 12px 8px 0; max-width: 140px;
              vertical-align: bottom; line-height: 1.3; overflow-wrap: anywhere; }
.samples td { padding: 0 12px 12px 0; vertical-align: middle; }
.samples td.caption { min-width: 150px; max-width: 260px; font-size: 13.5px; line-height: 1.4; padding-right: 20px; }
.samples img, dialog img { image-rendering: pixelated; }
.samples img { display: block; border-radius: 4px; box-shadow: 0 0 0 1px var(--rule); }
@media (max-width: 640px) {
  main { padding: 28px 14px 60px; }
  .figures td:first-child { white-space: normal; min-width: 104px; max-width: 40vw; overflow-wrap: anywhere; }
  .samples, .samples thead, .samples tbody { display: block; }
  .samples tr { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 6px; margin-bottom: 12px; }
  .samples thead th:first-child { display: none; }
  .samples th, .samples td { padding: 0; font-size: 12px; }
  .samples td.caption { grid-column: 1 / -1; max-width: none; padding: 0; }
  .samples img { width: 100%; height: auto; }
}
.shares { display: flex; min-width: 96px; border-radius: 4px; overflow: hidden; text-align: left; }
.shares span { overflow: hidden; white-space: nowrap; padding: 1px 0 1px 5px; font-size: 12px; color: #15161a; }
.teacher0 { background: #c9d4e6; } .teacher1 { background: #f2c48d; } .teacher2 { background: #a8d8b0; }
.teacher3 { background: #e3b3d2; } .teacher4 { background: #f1e08b; } .teacher5 { background: #9fd3dd; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
         padding: 12px 14px 6px; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px; font-size: 13.5px;
             font-weight: 600; margin-bottom: 4px; }
figcaption span { font-weight: 400; color: var(--soft); font-size: 12.5px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 22px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
details { margin-top: 12px; }
summary { cursor: pointer; font-weight: 600; padding: 6px 0; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<pre>{{ command }}</pre>
{% if verdict %}
<ul class="verdict">
{% for line in verdict %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}

{% for grid in grids %}
<h2>{{ grid.name }}</h2>
<div class="wide"><table class="samples" style="--columns: {{ grid.labels | length }}">
<thead><tr><th></th>{% for label in grid.labels %}<th>{{ label }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in grid.rows %}
<tr><td class="caption">{{ row.caption }}</td>
{%- for picture in row.pictures %}
<td><img src="{{ picture.uri }}" width="{{ picture.width }}" height="{{ picture.height }}" alt="{{ row.caption }}"></td>
{%- endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endfor %}

{% for table in tables %}
{% if loop.first %}<h2>Measured on held-out prompts</h2>{% else %}<h3>{{ table.name }}</h3>{% endif %}
<div class="wide"><table class="figures">
<thead><tr><th></th>{% for label, wish in table.heads %}<th>{{ label }}<small>{{ wish }}</small></th>
{%- endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr{% if row.student %} class="student"{% endif %}><td>{{ row.label }}</td>
{%- for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% if loop.first %}
<p class="soft">{% for name, count in counts.items() %}{{ name.replace("_", " ") }}: {{ count }}
{{- "" if loop.last else "; " }}{% endfor %}. {{ note }}</p>
{% endif %}
{% endfor %}

{% if categories.heads %}
<h3>{{ by_category }}</h3>
<div class="wide"><table class="figures">
<thead><tr><th></th>{% for head in categories.heads %}<th>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in categories.rows %}
<tr{% if row.student %} class="student"{% endif %}><td>{{ row.label }}</td>
{%- for cell in row.cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}

{% for table in guidance %}
{% if loop.first %}<h2>Who guides which step</h2>{% endif %}
<h3>{{ table.name }}</h3>
<div class="wide"><table class="figures guidance">
<thead><tr><th></th>{% for step in table.steps %}<th>{{ step }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr><td>{{ row.label }}</td>
{%- for cell in row.cells %}<td><div class="shares">
{%- for share in cell %}<span class="teacher{{ share.color }}" style="width: {{ share.percent }}"
{{- " " }}title="{{ share.teacher }} {{ share.percent }}">{{ share.teacher }}</span>
{%- endfor %}</div></td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endfor %}

{% if curves %}
<h2>Training</h2>
<div class="curves">
{% for curve in curves %}
<figure><figcaption>{{ curve.name }}<span>{{ curve.last }}</span></figcaption>{{ curve.svg }}</figure>
{% endfor %}
</div>
{% endif %}

{% if facts %}
<h2>Facts</h2>
<dl>
{% for name, value in facts.items() %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endif %}

{% if config_text %}
<h2>To repeat it</h2>
<details><summary>Configuration</summary><pre>{{ config_text }}</pre></details>
<details><summary>Step table</summary><pre>{{ step_table }}</pre></details>
{% endif %}
</main>
""" + zoom.DIALOG + """
<script>
"use strict";
""" + zoom.SCRIPT + """for (const img of document.querySelectorAll(".samples img")) {
  const cell = img.parentElement, label = cell.closest("table").tHead.rows[0].cells[cell.cellIndex].textContent;
  zoomable(img, null, label + ": " + img.alt);
}
</script>
</body>
</html>
"""
