"""What a study found: every figure of every cell with its interval, and contrasts in pairs; as Markdown too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from flashjax.evaluate.intervals import Interval
from flashjax.studies.grid import Cell, Study

DRAWS = 1000
SEEDS = 3  # fewer runs say nothing of how runs differ


def summary(study: Study, every: Sequence[Cell], seed: int = 0) -> dict[str, Any]:
    """{"figures": cell -> figure -> value, low, high, seeds, prompts; "contrasts": the same for a minus b; "curves":
    figure -> cell -> (steps, values), means over the seeds; "cells": what was run, for how long, with which code;
    "missing"}. Intervals: `interval`; a contrast resamples both cells alike and takes the seeds that both have. Where
    there is one seed and one value, low and high are None."""
    found: dict[str, dict[int, dict]] = {}
    for cell in every:
        if (result := cell.result) is not None:
            found.setdefault(cell.name, {})[cell.seed] = result
    values = {name: {s: run["values"] for s, run in runs.items()} for name, runs in found.items()}
    figures = {name: _figures(runs, None, seed) for name, runs in values.items()}
    contrasts = {
        f"{a} - {b}": _figures(values[a], values[b], seed)
        for a, b in study.contrasts
        if a in values and b in values and values[a].keys() & values[b].keys()
    }
    ran = [
        {k: v for k, v in run.items() if k not in ("values", "curves", "sheet")}
        for runs in found.values()
        for run in runs.values()
    ]
    missing = [f"{cell.name}, seed {cell.seed}" for cell in every if cell.result is None]
    return dict(
        title=study.title, question=study.question, figures=figures, contrasts=contrasts, curves=_curves(found),
        cells=ran, missing=missing,
    )  # fmt: skip


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
            told = {k: v if math.isfinite(v) else None for k, v in interval(kept, seed)._asdict().items()}
            out[name] = told | dict(seeds=len(seeds), prompts=kept.shape[1])
    return out


def interval(values: np.ndarray, seed: int = 0) -> Interval:
    """The mean of [seeds, prompts] and its 95 % interval. With one seed it is of that run alone, resampling prompts;
    with several it reaches as far as resampling seeds and prompts does, and as far as Student's t of the means of the
    seeds: of three seeds the resampled ones never leave their span, which leaves out the truth once in four times. With
    one prompt, a figure of whole sets, t is all; with one of both there is none (NaN)."""
    rng, (runs, prompts) = np.random.default_rng(seed), values.shape
    mean, ends = float(values.mean()), []
    if values.size == 1:
        return Interval(mean, math.nan, math.nan)
    if prompts > 1:
        draws = [values[rng.integers(0, runs, runs)][:, rng.integers(0, prompts, prompts)].mean() for _ in range(DRAWS)]
        ends += np.percentile(draws, [2.5, 97.5]).tolist()
    if runs > 1:
        half = float(stats.t.ppf(0.975, runs - 1) * values.mean(axis=1).std(ddof=1) / math.sqrt(runs))
        ends += [mean - half, mean + half]
    return Interval(mean, min(ends), max(ends))


def _curves(found: Mapping[str, Mapping[int, Mapping]]) -> dict[str, dict[str, tuple[list, list]]]:
    """Of figures that all seeds of a cell have, at the same rows: those of a version of the code that knew fewer have
    fewer, and how often a run draws is no part of what it is."""
    out: dict[str, dict] = {}
    for cell, runs in found.items():
        curves = [run["curves"] for run in runs.values() if "curves" in run]
        for name in curves[0] if curves else ():
            steps = curves[0][name][0]
            if any(name not in each or each[name][0] != steps for each in curves):
                continue
            out.setdefault(name, {})[cell] = (steps, np.mean([each[name][1] for each in curves], axis=0).tolist())
    return out


def clear(figure: Mapping[str, Any]) -> bool:
    """Whether the interval of a contrast leaves out 0, of as many seeds as it takes to say so."""
    told = figure["low"] is not None and figure["seeds"] >= SEEDS
    return told and (figure["low"] > 0 or figure["high"] < 0)


class Row(NamedTuple):
    """``cells``: for every figure of the table its text, "" for none, and whether it is marked as clear."""

    label: str
    seeds: int
    cells: list[tuple[str, bool]]


class Table(NamedTuple):
    name: str
    heads: list[str]
    rows: list[Row]


def tables(told: Mapping[str, Any]) -> list[Table]:
    """What `summary` told, as it is read: figures of cells, then contrasts, of which those that are clear are marked.
    """
    made = []
    for heading, rows, marks in (("Cells", told["figures"], False), ("Contrasts", told["contrasts"], True)):
        for group, names in groups(rows).items():
            shown = [
                Row(
                    label, max((figure["seeds"] for figure in row.values()), default=0),
                    [(formatted(row.get(name)), marks and name in row and clear(row[name])) for name in names],
                )
                for label, row in rows.items()
            ]  # fmt: skip
            made.append(Table(f"{heading}: {group.lower()}", names, shown))
    return made


def groups(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The figures of a table in tables that can be read: of all prompts, by category, of edits."""
    out: dict[str, list[str]] = {"Prompts": [], "By category": [], "Edits": []}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        out["Edits" if name.startswith("edit ") else "By category" if ", " in name else "Prompts"].append(name)
    return {group: names for group, names in out.items() if names}


def budget(told: Mapping[str, Any]) -> str:
    """What the finished cells took, by which code and on which machines, as a sentence."""
    minutes = [cell["seconds"] / 60 for cell in told["cells"]]
    by = Counter(f"code {cell['code']} on {cell['machine']}" for cell in told["cells"])
    made = "; ".join(f"{count} by {where}" for where, count in by.items())
    each = f"{min(minutes):.0f} to {max(minutes):.0f} each"
    return f"{len(minutes)} cells in {sum(minutes):.0f} minutes ({each}): {made}."


def markdown(told: Mapping[str, Any], command: str) -> str:
    """The tables, with the command that made them; a contrast of three seeds whose interval leaves out 0 is bold."""
    lines = [f"# {told['title']}", "", told["question"], "", f"    {command}", ""]
    for table in tables(told):
        lines += [f"## {table.name}", ""]
        lines += ["| | seeds | " + " | ".join(table.heads) + " |", "|---|---|" + "---|" * len(table.heads)]
        for row in table.rows:
            shown = (f"**{text}**" if marked else text for text, marked in row.cells)
            lines.append(f"| {row.label} | {row.seeds} | " + " | ".join(shown) + " |")
        lines.append("")
    lines += [budget(told), ""]
    if told["missing"]:
        lines += ["Missing: " + "; ".join(told["missing"]) + ".", ""]
    return "\n".join(lines)


def formatted(figure: Mapping[str, Any] | None) -> str:
    """A figure as people read it; "" for none."""
    if figure is None:
        return ""
    value = "{value:.3f}".format(**figure)
    return value if figure["low"] is None else value + " ({low:.3f} to {high:.3f})".format(**figure)
