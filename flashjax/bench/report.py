"""Judgements as one self-contained page, and the same as JSON and CSV.

Tables are plain HTML. The prompts are data in the page, one block each with its thumbnails, and a short script shows
a few at a time: a page of 1,800 opens at once. Everything that a stranger wrote reaches the page as text.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from flashjax.bench import thumbnails
from flashjax.bench._measures import table
from flashjax.bench._page import PAGE
from flashjax.bench.plan import Pictures
from flashjax.bench.prompts import Prompt
from flashjax.bench.summary import summarise
from flashjax.files import as_csv, write_whole

__all__ = ["write_report"]

_NOTHING = "\u2013"
_PAGE, _SHOT = 54_000_000, 200  # bytes: of a page at most, under 60 MB as thumbnails are guessed; around a thumbnail
_CSV = ("kind", "system", "reference", "judge", "category", "prompt", "seed", "order", "outcome", "value", "dollars")


def write_report(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], prompts: Sequence[Prompt],
    pictures: Mapping[str, Pictures], *, sources: Pictures | None = None, title: str, command: str,
    reference: str | None = None, measures: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Writes ``path`` (.html), and .json and .csv beside it; each appears when it is complete.

    Args:
        rows: of scores.jsonl, as ``read_scores`` checks them.
        prompts: of the bench. pictures: system to prompt's id to seed to picture. sources: of edits, prompt's id to
            seed to picture. Thumbnails of all are in the page, which shows the files themselves where it finds them.
        measures: of measures.json, for a table.

    Returns:
        What ``summarise`` gives, and ``dollars_by_judge``.

    Raises:
        UserError: there are no scores, or a picture cannot be decoded.
    """
    path, told = Path(path), summarise(rows, reference)
    told |= dict(dollars_by_judge=_dollars(rows, told["judges"]))
    blocks = _blocks(rows, prompts, told["reference"])
    room = _PAGE - sum(len(_in_script(block)) for block in blocks)
    shots = _shots(path.parent, pictures, sources or {}, room)
    lost, differ = _lost(rows)
    page = _environment().render(
        title=title, command=command, told=told, head=_head(told), differences=_differences(told),
        distributions=_distributions(rows, told), blocks=_scripts(blocks, shots), lost=lost, differ=differ,
        measured=table(measures),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {
        ".json": json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        ".csv": _as_csv(rows),
    }
    for suffix, text in {path.suffix: page, **written}.items():
        write_whole(path.with_suffix(suffix), text.encode("utf-8", "replace"))
    return told


def _environment() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda v: _NOTHING if v is None else f"{v:.2f}"
    environment.filters["cell"] = _cell
    environment.filters["share"] = lambda v: _NOTHING if v is None else f"{v:.0%}"
    return environment.from_string(PAGE)


def _head(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The paper's table: systems by judges, categories, average and rank."""
    lines = []
    for system in told["systems"]:
        for i, row in enumerate(r for r in told["table"] if r["system"] == system):
            cells = [*map(row["cells"].get, told["categories"]), row["average"]]
            first = dict(system=system, span=len(told["judges"]), rank=told["rank"][system]) if i == 0 else None
            lines.append(dict(first=first, judge=row["judge"], cells=cells))
    return lines


def _cell(cell: Mapping[str, Any] | None) -> Markup:
    """A mean, and below it the ends of its interval and the number of prompts."""
    if cell is None:
        return Markup(_NOTHING)
    ends = "" if cell["low"] is None else f"{cell['low']:.2f} to {cell['high']:.2f}, "
    return Markup(f"{cell['value']:.2f}<small>{ends}n = {cell['n']}</small>")


def _differences(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        d | dict(noise=d["low"] is None or d["low"] <= 0 <= d["high"], category=d["category"] or "all")
        for d in told["differences"]
        if d["value"] is not None
    ]


def _dollars(rows: Sequence[Mapping], judges: Sequence[str]) -> dict[str, float]:
    """Judge to US dollars; rows with one answer were paid for once."""
    return {j: sum({r["key"]: r.get("dollars", 0.0) for r in rows if r["judge"] == j}.values()) for j in judges}


def _lost(rows: Sequence[Mapping]) -> tuple[list[dict[str, Any]], list[str]]:
    """How many calls ended without a score, by judge, question, system and outcome; and a sentence for each judge and
    question of which the systems did not lose the same share."""
    asked = Counter((r["judge"], r["kind"], r["system"]) for r in rows)
    found = Counter((r["judge"], r["kind"], r["system"], r["outcome"]) for r in rows if r["outcome"] != "scored")
    lost = Counter((*key[:3],) for key in found.elements())
    lines = [
        dict(judge=j, kind=k, system=s, outcome=o, count=n, asked=asked[j, k, s]) for (j, k, s, o), n in found.items()
    ]
    sentences = []
    for judge, kind in dict.fromkeys(key[:2] for key in asked):
        mine = {s: (lost[j, k, s], n) for (j, k, s), n in asked.items() if (j, k) == (judge, kind)}
        if len({count / of for count, of in mine.values()}) > 1:
            counts = ", ".join(f"{count} of {of} about {system}" for system, (count, of) in mine.items())
            sentences.append(f"The models differ: of the {kind} questions to {judge}, {counts} have no score.")
    return lines, sentences


def _distributions(rows: Sequence[Mapping], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Histograms of scores in quarters, as SVG made of numbers alone."""
    found = []
    for system in told["systems"]:
        for judge in told["judges"]:
            mine = [r for r in rows if (r["kind"], r["system"], r["judge"]) == ("point", system, judge)]
            values = [r["value"] for r in mine if r["outcome"] == "scored"]
            counts = [sum(round((v - 1) * 4) == i for v in values) for i in range(17)]
            highest = max(*counts, 1)
            bars = "".join(
                f'<rect x="{i * 14 + 2}" y="{70 - 64 * n / highest:.1f}" width="11" height="{64 * n / highest:.1f}"/>'
                for i, n in enumerate(counts)
            )
            ticks = "".join(f'<text x="{i * 56 + 7}" y="84" text-anchor="middle">{i + 1}</text>' for i in range(5))
            svg = Markup(f'<svg viewBox="0 0 242 88" role="img">{bars}{ticks}</svg>')
            found.append(dict(system=system, judge=judge, count=len(values), svg=svg))
    return found


def _shots(
    folder: Path, pictures: Mapping[str, Pictures], sources: Pictures, room: int
) -> dict[str, list[dict[str, Any]]]:
    """Prompt's id to its pictures: thumbnails, in ``room`` bytes, and where the files are from the page's folder; a
    source comes first."""
    found = [(id_, "source", None, by[min(by)].path) for id_, by in sources.items()]
    found += [
        (id_, system, seed, by[seed].path)
        for system, mine in pictures.items() for id_, by in mine.items() for seed in sorted(by)
    ]  # fmt: skip
    size, shots = thumbnails.fitting([path for *_, path in found], room - _SHOT * len(found)), {}
    for id_, system, seed, path in found:
        file = quote(Path(os.path.relpath(path, folder)).as_posix())
        shot = dict(system=system, seed=seed, file=file, picture=thumbnails.thumbnail(path, *size))
        shots.setdefault(id_, []).append(shot)
    return shots


def _blocks(rows: Sequence[Mapping], prompts: Sequence[Prompt], reference: str | None) -> list[dict[str, Any]]:
    """One block a prompt, the worst first: without a score, or where the systems lie farthest below the reference, or
    else lowest."""
    by = {}
    for r in rows:
        by.setdefault(r["prompt"], []).append(r)
    blocks = []
    for p in prompts:
        mine = by.get(p.id, [])
        said = [
            {k: r.get(k) for k in ("kind", "system", "judge", "seed", "order", "outcome", "value", "reason")}
            | dict(parts=r.get("subscores", {}), failures=r.get("failures", []))
            for r in mine
        ]
        about = dict(id=p.id, category=p.category, prompt=p.prompt, source=p.source_prompt, facts=p.facts)
        blocks.append((_badness(mine, reference), about | dict(said=said)))
    blocks.sort(key=lambda pair: pair[0])
    return [block for _, block in blocks]


def _scripts(blocks: Sequence[Mapping[str, Any]], shots: Mapping[str, list]) -> list[dict[str, Any]]:
    """The blocks with their pictures, as the page's data."""
    return [
        dict(id=b["id"], category=b["category"], data=_in_script({**b, "shots": shots.get(b["id"], [])}))
        for b in blocks
    ]


def _badness(rows: Sequence[Mapping], reference: str | None) -> float:
    """Lower is worse, judge by judge, as one may be milder than another; a prompt that some system has no score of, or
    none by a judge who scored the reference, comes first."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in rows:
        if r["kind"] == "point":
            scores[r["system"]][r["judge"]] += [r["value"]] if r["outcome"] == "scored" else []
    base = scores.pop(reference) if reference in scores and len(scores) > 1 else None
    gaps = [
        [fmean(v) - (fmean(base[j]) if base else 0.0) for j, v in by.items() if v and (base is None or base[j])]
        for by in scores.values()
    ]
    return min(map(fmean, gaps)) if gaps and all(gaps) else -10.0


def _in_script(value: Any) -> Markup:
    """JSON that cannot end its script element: no < and no & is left, and line separators of old scripts neither."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _as_csv(rows: Sequence[Mapping]) -> str:
    """A line a call."""
    return as_csv(_CSV, ([row.get(name, "") for name in _CSV] for row in rows))
