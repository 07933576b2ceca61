"""The template of the report's page (jinja2, autoescaped), and its script, which writes texts as texts only."""

from flashjax.bench._measures import SECTION
from flashjax.evaluate import zoom
from flashjax.evaluate.theme import THEME

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
""" + THEME + zoom.STYLE + """main { max-width: 1120px; margin: 0 auto; padding: 36px 20px 80px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 14px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 12px; }
pre { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; background: var(--card); padding: 10px 12px;
      border: 1px solid var(--rule); border-radius: 8px; overflow: auto; }
.soft { color: var(--soft); font-size: 13px; }
.bad { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: 6px 11px; text-align: right; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-size: 13px; } th, td { white-space: nowrap; } th.name, td.name { text-align: left; }
td small { display: block; font-size: 11px; color: var(--soft); }
td.system { white-space: normal; min-width: 92px; } td.note { white-space: normal; min-width: 260px; }
@media (max-width: 640px) { main { padding: 28px 14px 60px; } th, td { padding: 5px 6px; font-size: 13px; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 12px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 10px 12px; }
svg { display: block; width: 100%; } svg rect { fill: var(--accent); } svg text { fill: var(--soft); font-size: 11px; }
nav { display: flex; flex-wrap: wrap; gap: 10px; align-items: center; margin: 0 0 12px; }
button, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--rule);
                 border-radius: 8px; padding: 5px 12px; min-height: 36px; cursor: pointer; }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 14px;
          margin: 0 0 14px; }
article.linked { border-color: var(--accent); }
a { color: var(--accent); }
article p { margin: 0 0 10px; overflow-wrap: anywhere; }
.shots { display: flex; flex-wrap: wrap; gap: 12px; }
.shots div { width: min(250px, 100%); font-size: 13px; }
.shots img { width: 100%; border-radius: 6px; display: block; background: var(--rule); }
li { overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 6px 0; }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<pre>{{ command }}</pre>

<h2>Scores</h2>
<div class="wide"><table>
<thead><tr><th class="name">Model</th><th class="name">Judge</th>
{%- for c in told.categories %}<th>{{ c }}</th>{% endfor %}<th>Average</th><th>Rank</th></tr></thead>
<tbody>
{% for line in head %}
<tr>{% if line.first %}<td class="name system" rowspan="{{ line.first.span }}">{{ line.first.system }}</td>{% endif %}
<td class="name">{{ line.judge }}</td>
{%- for cell in line.cells %}<td>{{ cell | cell }}</td>{% endfor %}
{%- if line.first %}<td rowspan="{{ line.first.span }}">{{ line.first.rank or "\u2013" }}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
<p class="soft">1.00 to 5.00; the average is that of the categories, the rank that of all judges' averages. Prompts that
some model has no score of are left out for all models; replies that are no score are counted below. In small type: the
95 % interval, and how many of the {{ told.prompts }} prompts the figure is of.
Spent: {{ "%.2f" | format(told.dollars) }} US dollars
{%- for judge, dollars in told.dollars_by_judge.items() %}
{{ ":" if loop.first else "," }} {{ judge }} {{ "%.2f" | format(dollars) }}
{%- endfor %}.
{% for judge, names in told.served.items() %}
{{ judge }} was served by {{ names | join(", ") or "an unnamed model" }}.
{% endfor %}</p>

{% if lost %}
<h2>Without a score</h2>
<div class="wide"><table><thead><tr><th class="name">Judge</th><th class="name">Question</th>
<th class="name">Model</th><th class="name">Outcome</th><th>Calls</th></tr></thead><tbody>
{% for r in lost %}
<tr><td class="name">{{ r.judge }}</td><td class="name">{{ r.kind }}</td><td class="name system">{{ r.system }}</td>
<td class="name bad">{{ r.outcome }}</td><td>{{ r.count }} of {{ r.asked }}</td></tr>
{% endfor %}
</tbody></table></div>
{% for sentence in differ %}
<p class="bad">{{ sentence }}</p>
{% endfor %}
{% endif %}

{% if differences %}
<h2>Against {{ told.reference }}, prompt by prompt</h2>
<div class="wide"><table><thead><tr><th class="name">Model</th><th class="name">Judge</th><th class="name">Category</th>
<th>Difference</th><th>95 % interval</th><th>Prompts</th><th class="name">What n can show</th></tr></thead><tbody>
{% for d in differences %}
<tr><td class="name system">{{ d.system }}</td><td class="name">{{ d.judge }}</td><td class="name">{{ d.category }}</td>
<td>{{ "%+.2f" | format(d.value) }}</td>
<td>{{ d.low | figure }} to {{ d.high | figure }}{{ " (noise)" if d.noise }}</td>
<td>{{ d.n }}</td><td class="name soft note">{{ d.power }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}

{% if told.pairs | selectattr('rate') | list %}
<h2>Pairs, both orders</h2>
<div class="wide"><table><thead><tr><th class="name">Model</th><th class="name">Judge</th><th>Wins</th><th>Ties</th>
<th>Losses</th><th>Flips</th><th>No answer</th><th>Win rate</th><th>95 % interval</th><th>Strength</th>
<th>95 % interval</th></tr></thead><tbody>
{% for p in told.pairs %}
<tr><td class="name system">{{ p.system }}</td><td class="name">{{ p.judge }}</td>
<td>{{ p.wins }}</td><td>{{ p.ties }}</td>
<td>{{ p.losses }}</td><td>{{ p.flips }} ({{ p.flip_rate | share }})</td><td>{{ p.lost }}</td>
{% if p.rate %}<td>{{ p.rate.value | share }}</td><td>{{ p.rate.low | share }} to {{ p.rate.high | share }}</td>
<td>{{ p.strength.value | figure }}</td><td>{{ p.strength.low | figure }} to {{ p.strength.high | figure }}</td>
{% else %}<td>\u2013</td><td>\u2013</td><td>\u2013</td><td>\u2013</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
<p class="soft">Win rates are of all prompts together, whatever their category; ties and flips count half. The strength
is Bradley and Terry's, over {{ told.reference }}: the log of the odds of winning, without an end where all are won, or
lost.</p>
{% endif %}
""" + SECTION + """
<h2>Can the judges be trusted?</h2>
<ul>
{% for a in told.agreement %}
<li>{{ a.judges | join(" and ") }} on {{ a.n }} pictures: Spearman {{ a.spearman | figure }}, weighted kappa
{{ a.kappa | figure }}{% if a.n %}, the second scores {{ "%+.2f" | format(a.mean_difference) }} higher{% endif %}.</li>
{% endfor %}
{% macro moves(p) %}
{% if p.value is none %}too few answers ({{ p.n }} of {{ p.asked }}).{% else %}
{{ "%+.2f" | format(p.value) }} ({{ p.low | figure }} to {{ p.high | figure }}), n = {{ p.n }}
{{- "; this judge moves." if p.moved else "." }}{% endif %}
{% endmacro %}
{% for p in told.injection if p.asked %}
<li{% if p.moved %} class="bad"{% endif %}>A demand for 5.00 drawn into the picture, against a date in
its place, {{ p.judge }}: {{ moves(p) }}</li>
{% endfor %}
{% for p in told.drift %}
<li{% if p.moved %} class="bad"{% endif %}>The frozen set on {{ p.day }}, {{ p.judge }}: {% if p.since %}
against {{ p.since }}, {{ moves(p) }} Each day is tested by itself: of twenty without a change one shows
a move.{% else %}
{{ p.scored }} of {{ p.asked }} scored for the first time.{% endif %}</li>
{% endfor %}
</ul>

<h2>Distributions</h2>
<div class="charts">
{% for d in distributions %}
<figure><figcaption class="soft">{{ d.system }}, {{ d.judge }}: {{ d.count }} scores</figcaption>{{ d.svg }}</figure>
{% endfor %}
</div>

<h2>Prompts, worst first</h2>
<nav><select id="category" aria-label="Category"><option value="">all categories</option>
{% for c in told.categories %}<option>{{ c }}</option>{% endfor %}</select>
<button id="back">Back</button><span id="place" class="soft"></span><button id="on">On</button></nav>
<div id="prompts"></div>
</main>
""" + zoom.DIALOG + """
{% for b in blocks %}
<script type="application/json" class="prompt" data-id="{{ b.id }}" data-category="{{ b.category }}">
{{- b.data }}</script>
{% endfor %}
<script>
"use strict";
""" + zoom.SCRIPT + """const PER = 12, all = [...document.querySelectorAll("script.prompt")];
const filter = document.getElementById("category");
let at = 0;
const make = (name, text, parent, kind) => {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (kind) e.className = kind;
  if (parent) parent.append(e);
  return e;
};
const score = s => s.outcome === "scored" ? (typeof s.value === "number" ? s.value.toFixed(2) : s.value) : s.outcome;
function shot(s, said, row) {
  const cell = make("div", undefined, row), img = make("img", undefined, cell);
  img.loading = "lazy"; img.alt = s.system; img.src = "data:image/webp;base64," + s.picture;
  zoomable(img, s.file);
  const mine = said.filter(x => x.kind === "point" && x.system === s.system && x.seed === s.seed);
  make("b", s.system, cell); make("span", " " + mine.map(x => x.judge + " " + score(x)).join(", "), cell, "soft");
}
function card(b, parent) {
  const e = make("article", undefined, parent);
  e.id = "prompt-" + b.id;
  const head = make("p", undefined, e, "soft");
  make("a", b.id, head).href = "#" + e.id;
  head.append(" \\u00b7 " + b.category);
  if (b.source) make("p", "Source: " + b.source, e, "soft");
  make("p", b.prompt, e);
  const row = make("div", undefined, e, "shots");
  for (const s of b.shots) shot(s, b.said, row);
  const more = make("details", undefined, e);
  make("summary", "What the judges say, and the facts to check", more);
  const list = make("ul", undefined, more);
  for (const x of b.said) {
    const parts = Object.entries(x.parts).map(([k, v]) => k + " " + v).concat(x.failures).join(", ");
    const order = x.order === null || x.order === undefined ? "" : ", order " + (x.order + 1);
    make("li", `${x.judge}, ${x.kind} of ${x.system}${order}: ${score(x)}. ${x.reason}` + (parts ? ` (${parts})` : ""),
         list, x.outcome === "scored" ? "" : "bad");
  }
  const facts = make("ul", undefined, more, "soft");
  for (const f of b.facts) make("li", f, facts);
}
function show(step) {
  const wanted = filter.value;
  const mine = all.filter(s => !wanted || s.dataset.category === wanted);
  at = Math.max(0, Math.min(at + step * PER, Math.floor(Math.max(0, mine.length - 1) / PER) * PER));
  const box = document.getElementById("prompts");
  box.replaceChildren();
  for (const s of mine.slice(at, at + PER)) card(JSON.parse(s.textContent), box);
  document.getElementById("place").textContent = mine.length
    ? `${at + 1} to ${Math.min(at + PER, mine.length)} of ${mine.length}` : "none";
}
document.getElementById("back").onclick = () => show(-1);
document.getElementById("on").onclick = () => show(1);
filter.onchange = () => { at = 0; show(0); };
function follow() {
  const place = all.findIndex(s => "#prompt-" + s.dataset.id === location.hash);
  if (place < 0) return;
  filter.value = "";
  at = place - place % PER;
  show(0);
  const linked = document.getElementById("prompt-" + all[place].dataset.id);
  linked.classList.add("linked");  // not :target: a browser may look for that only once, before the card is there
  linked.scrollIntoView();
}
addEventListener("hashchange", follow);
show(0);
follow();
</script>
</body>
</html>
"""
