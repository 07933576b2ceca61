"""The tables of a study: every cell with its interval, contrasts in pairs, as JSON, Markdown and one page of HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flashjax.evaluate.metrics import Interval
from flashjax.studies.grid import Cell, Study

DRAWS = 1000


def summary(study: Study, every: Sequence[Cell], seed: int = 0) -> dict[str, Any]:
    """{"figures": cell -> figure -> value, low, high, seeds; "contrasts": the same for a minus b; "missing"}. Intervals
    resample seeds and prompts; a contrast resamples both cells alike and takes the seeds that both have."""
    found: dict[str, dict[int, dict]] = {}
    for cell in every:
        if (result := cell.result) is not None:
            found.setdefault(cell.name, {})[cell.seed] = result["values"]
    figures = {name: _figures(runs, None, seed) for name, runs in found.items()}
    contrasts = {
        f"{a} - {b}": _figures(found[a], found[b], seed) for a, b in study.contrasts if a in found and b in found
    }
    missing = [f"{cell.name}, seed {cell.seed}" for cell in every if cell.result is None]
    return dict(title=study.title, figures=figures, contrasts=contrasts, missing=missing)


def _figures(runs: Mapping[int, Mapping], others: Mapping[int, Mapping] | None, seed: int) -> dict[str, dict]:
    seeds = sorted(runs if others is None else runs.keys() & others.keys())
    out = {}
    for name in dict.fromkeys(name for s in seeds for name in runs[s]):
        if any(name not in each[s] for each in (runs, others or runs) for s in seeds):
            continue
        first = np.array([runs[s][name] for s in seeds], float)
        values = first if others is None else first - np.array([others[s][name] for s in seeds], float)
        kept = values[:, np.isfinite(values).all(axis=0)]
        if kept.size:
            out[name] = interval(kept, seed)._asdict() | dict(seeds=len(seeds), prompts=kept.shape[1])
    return out


def interval(values: np.ndarray, seed: int = 0) -> Interval:
    """The mean of [seeds, prompts] and its 95 % interval, resampling seeds and prompts with replacement. With one seed
    the interval is of that run alone."""
    rng, (runs, prompts) = np.random.default_rng(seed), values.shape
    draws = [values[rng.integers(0, runs, runs)][:, rng.integers(0, prompts, prompts)].mean() for _ in range(DRAWS)]
    return Interval(float(values.mean()), *(float(x) for x in np.percentile(draws, [2.5, 97.5])))


def markdown(told: Mapping[str, Any], command: str) -> str:
    """The tables, with the command that made them; a contrast whose interval is clear of 0 is set in bold."""
    lines = [f"# {told['title']}", "", f"`{command}`", ""]
    for heading, rows, bold in (("Cells", told["figures"], False), ("Contrasts", told["contrasts"], True)):
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        if names:
            lines += [f"## {heading}", "", "| | seeds | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
        for label, row in rows.items():
            seeds = max((figure["seeds"] for figure in row.values()), default=0)
            lines.append(f"| {label} | {seeds} | " + " | ".join(_cell(row.get(name), bold) for name in names) + " |")
        lines.append("")
    if told["missing"]:
        lines += ["Missing: " + "; ".join(told["missing"]) + ".", ""]
    return "\n".join(lines)


def _cell(figure: Mapping | None, bold: bool) -> str:
    if figure is None:
        return ""
    text = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**figure)
    return f"**{text}**" if bold and (figure["low"] > 0 or figure["high"] < 0) else text


def page(told: Mapping[str, Any], study: Study, every: Sequence[Cell], command: str) -> str:
    """One self-contained page: the question, the tables, and pictures of every finished cell."""
    parts = [
        "<!doctype html><meta charset=utf-8><style>body{font:15px sans-serif;max-width:75em;margin:2em auto}"
        "table{border-collapse:collapse}td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:left}"
        "img{image-rendering:pixelated;max-width:100%}</style>",
        f"<title>{html.escape(told['title'])}</title><h1>{html.escape(told['title'])}</h1>",
        f"<p>{html.escape(study.question)}</p><p><code>{html.escape(command)}</code></p>",
    ]
    for heading, rows, bold in (("Cells", told["figures"], False), ("Contrasts", told["contrasts"], True)):
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        head = "".join(f"<th>{html.escape(name)}" for name in ("", *names))
        body = "".join(
            f"<tr><td>{html.escape(label)}" + "".join(f"<td>{_tagged(_cell(row.get(name), bold))}" for name in names)
            for label, row in rows.items()
        )
        parts.append(f"<h2>{heading}</h2><table><tr>{head}{body}</table>" if rows else "")
    if told["missing"]:
        parts.append(f"<p>Missing: {html.escape('; '.join(told['missing']))}.</p>")
    for cell in every:
        sheet = cell.folder / "pictures.png"
        if cell.result is not None and sheet.is_file():
            data = base64.b64encode(sheet.read_bytes()).decode()
            parts.append(f"<h3>{html.escape(cell.name)}, seed {cell.seed}</h3><img src='data:image/png;base64,{data}'>")
    return "\n".join(parts) + "\n"


def _tagged(text: str) -> str:
    return f"<b>{text.strip('*')}</b>" if text.startswith("**") else text
