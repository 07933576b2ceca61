"""Judgements as one self-contained page, and the same as JSON and CSV.

Tables are plain HTML. The prompts are data in the page, one block each with its thumbnails, and a short script shows
a few at a time: a page of 1,800 opens at once. Everything that a stranger wrote reaches the page as text.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from flashjax.bench._measures import table
from flashjax.bench._page import PAGE
from flashjax.bench.plan import Pictures
from flashjax.bench.prompts import Prompt
from flashjax.bench.summary import by_prompt, summarise

__all__ = ["write_report"]

_NOTHING = "\u2013"
_MOST = 40 << 20  # bytes of all thumbnails, before base64 makes four of three
_SIZES = ((384, 80), (320, 75), (256, 65), (192, 55), (128, 45), (96, 30))  # side in pixels, WebP quality
_CSV = ("kind", "system", "reference", "judge", "category", "prompt", "seed", "order", "outcome", "value", "dollars")


def write_report(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], prompts: Sequence[Prompt],
    pictures: Mapping[str, Pictures], *, title: str, command: str, reference: str | None = None,
    measures: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Writes ``path`` (.html), and .json and .csv beside it; each appears when it is complete.

    Args:
        rows: of scores.jsonl.
        prompts: of the bench. pictures: system to prompt's id to seed to picture, for the thumbnails.
        measures: of measures.json, for a table.

    Returns:
        What ``summarise`` gives.
    """
    told = summarise(rows, reference)
    page = _environment().render(
        title=title, command=command, told=told, head=_head(told), differences=_differences(told),
        distributions=_distributions(rows, told), blocks=_blocks(rows, prompts, pictures, told),
        lost=[r for r in _outcomes(rows) if r["count"]], measured=table(measures),
    )  # fmt: skip
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, page)
    _write(path.with_suffix(".json"), json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write(path.with_suffix(".csv"), _as_csv(rows))
    return told


def _environment() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda v: _NOTHING if v is None else f"{v:.2f}"
    environment.filters["share"] = lambda v: _NOTHING if v is None else f"{v:.0%}"
    return environment.from_string(PAGE)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(text.encode("utf-8", "replace"))
    os.replace(partial, path)


def _head(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The paper's table: systems by judges, categories, average and rank."""
    lines = []
    for system in told["systems"]:
        for i, row in enumerate(r for r in told["table"] if r["system"] == system):
            cells = [row["cells"][c] and row["cells"][c]["value"] for c in told["categories"]]
            first = dict(system=system, span=len(told["judges"]), rank=told["rank"][system]) if i == 0 else None
            lines.append(dict(first=first, judge=row["judge"], cells=[*cells, row["average"]]))
    return lines


def _differences(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        d | dict(noise=d["low"] is None or d["low"] <= 0 <= d["high"], category=d["category"] or "all")
        for d in told["differences"]
        if d["value"] is not None
    ]


def _outcomes(rows: Sequence[Mapping]) -> list[dict[str, Any]]:
    """How many calls of each judge ended without a score, by outcome."""
    found: dict[tuple, int] = {}
    for r in rows:
        key = r["judge"], r["kind"], r["outcome"]
        found[key] = found.get(key, 0) + 1
    return [dict(judge=j, kind=k, outcome=o, count=n) for (j, k, o), n in found.items() if o != "scored"]


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


def _blocks(
    rows: Sequence[Mapping], prompts: Sequence[Prompt], pictures: Mapping[str, Pictures], told: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One block a prompt, the worst first: where the systems lie farthest below the reference, or else lowest."""
    by = {}
    for r in rows:
        by.setdefault(r["prompt"], []).append(r)
    count = sum(len(p) for system in pictures.values() for p in system.values())
    size = _thumbnail_size(pictures, max(1, count))
    blocks = []
    for p in prompts:
        mine = by.get(p.id, [])
        shots = [
            dict(system=system, seed=seed, picture=_thumbnail(picture.path, *size))
            for system, found in pictures.items()
            for seed, picture in sorted(found.get(p.id, {}).items())
        ]
        said = [
            {k: r.get(k) for k in ("kind", "system", "judge", "seed", "order", "outcome", "value", "reason")}
            | dict(parts=r.get("subscores", {}), failures=r.get("failures", []))
            for r in mine
        ]
        about = dict(id=p.id, category=p.category, prompt=p.prompt, source=p.source_prompt, facts=p.facts)
        blocks.append((_badness(mine, told["reference"]), about | dict(shots=shots, said=said)))
    blocks.sort(key=lambda pair: pair[0])
    return [dict(id=b["id"], category=b["category"], data=_in_script(b)) for _, b in blocks]


def _badness(rows: Sequence[Mapping], reference: str | None) -> float:
    """Lower is worse; a prompt with no score at all comes first."""
    points = [r for r in rows if r["kind"] == "point" and r["outcome"] == "scored"]
    means = {s: by_prompt(r for r in points if r["system"] == s) for s in {r["system"] for r in points}}
    values = {s: next(iter(m.values())) for s, m in means.items()}
    base = values.pop(reference, 0.0) if reference and len(values) > 1 else 0.0
    return min(values.values(), default=-10.0) - base


def _in_script(value: Any) -> Markup:
    """JSON that cannot end its script element: no < and no & is left, and line separators of old scripts neither."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _thumbnail_size(pictures: Mapping[str, Pictures], count: int) -> tuple[int, int]:
    """The largest thumbnails that fit, judged by the largest of a few of the pictures themselves."""
    paths = [shot.path for found in pictures.values() for seeds in found.values() for shot in seeds.values()]
    sample = paths[:: max(1, len(paths) // 16)]
    for size in _SIZES:
        if sum(len(_thumbnail(p, *size)) for p in sample) * 0.75 / max(1, len(sample)) * count <= _MOST:
            return size
    return _SIZES[-1]


def _thumbnail(path: Path, side: int, quality: int) -> str:
    """base64 of a WebP; pictures of up to 64 px stay as they are, as lossless WebP."""
    out = io.BytesIO()
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    small = max(image.size) <= 64
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(out, "WEBP", quality=quality, lossless=small, method=0)
    return base64.b64encode(out.getvalue()).decode()


def _as_csv(rows: Sequence[Mapping]) -> str:
    """A line a call. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_CSV)
    for r in rows:
        cells = [r.get(k, "") for k in _CSV]
        writer.writerow([f"'{c}" if isinstance(c, str) and c[:1] in tuple("=+-@\t") and c else c for c in cells])
    return out.getvalue()
