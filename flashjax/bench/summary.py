"""From the rows of ``scores.jsonl`` to the figures of the report."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from flashjax.bench import statistics
from flashjax.errors import UserError
from flashjax.evaluate import intervals
from flashjax.evaluate.intervals import Interval

__all__ = ["drift_of", "summarise"]

Row = dict[str, Any]
_NO_CELL = dict(value=None, low=None, high=None, n=0)


def summarise(rows: Sequence[Row], reference: str | None = None) -> dict[str, Any]:
    """All figures, ready for JSON.

    Args:
        reference: the system that the others are compared with; without one, that of the pairs, if there are any.

    Returns:
        categories, judges, systems: in the order of the rows.
        prompts: how many there are. outcomes: system to outcome to the number of its pictures, over all judges.
        table: for each system and judge ``cells``, a cell a category, ``average`` (a cell too; of the categories, as
            the paper's), and its ``outcomes``. A cell is value, low, high, n, over the n prompts that *all* systems
            have a score of by this judge, or else a refusal of what is hard would be rewarded; None without any.
        rank: system to its place by the average of all judges.
        differences: system against reference, by judge and category and overall, which is the mean of the categories
            as the average is: value, low, high, n, power.
        agreement, pairs, injection, drift: see the functions.

    Raises:
        UserError: there are no scores, or the pairs are against another reference.
    """
    points = [r for r in rows if r["kind"] == "point"]
    if not points:
        raise UserError("There are no scored pictures; run flashjax bench judge first.")
    reference = _reference(rows, reference)
    judges, systems, categories = (list(dict.fromkeys(r[k] for r in points)) for k in ("judge", "system", "category"))
    means = {(s, j): mine for j in judges for s, mine in _fair(_of(points, judge=j), systems).items()}
    category = {r["prompt"]: r["category"] for r in points}
    shared = {j: _shared([means[s, j] for s in systems]) for j in judges}
    table = [_table_row(s, j, means[s, j], shared[j], category, categories, points) for s in systems for j in judges]
    others = [s for s in systems if reference in systems and s != reference]
    against = {(s, j): _fair(_of(points, judge=j), [s, reference]).values() for s in others for j in judges}
    return dict(
        categories=categories, judges=judges, systems=systems, reference=reference, table=table,
        rank=_rank(table, systems), prompts=len(category),
        outcomes={s: Counter(r["outcome"] for r in _of(points, system=s)) for s in systems},
        differences=[
            _difference(s, j, kind, *against[s, j], category)
            for s in others for j in judges for kind in (*categories, None)
        ],
        agreement=[_agreement(a, b, points) for a, b in itertools.combinations(judges, 2)],
        pairs=[
            _pairs(s, j, _of(rows, kind="pair", system=s, judge=j, reference=reference)) for s in others for j in judges
        ],
        injection=[_injection(j, *(_of(rows, kind=k, judge=j) for k in ("injection", "control"))) for j in judges],
        drift=drift_of(rows),
        dollars=sum({r["key"]: r.get("dollars", 0.0) for r in rows}.values()),
        served={j: sorted({r["served"] for r in rows if r["judge"] == j and r.get("served")}) for j in judges},
    )  # fmt: skip


def _reference(rows: Sequence[Row], wanted: str | None) -> str | None:
    paired = {r["reference"] for r in _of(rows, kind="pair")}
    reference = wanted or min(paired, default=None)
    if paired - {reference}:
        raise UserError(
            f"The pairs were judged against {', '.join(sorted(paired))}, so that a report against {reference} would "
            "leave them out; leave --reference out, or judge again with it."
        )
    return reference


def _of(rows: Iterable[Row], **wanted) -> list[Row]:
    return [r for r in rows if all(r.get(k) == v for k, v in wanted.items())]


def by_prompt(rows: Iterable[Row]) -> dict[str, float]:
    """Prompt to the mean of its scored seeds; a prompt without a score is not in it."""
    found = defaultdict(list)
    for row in rows:
        if row["outcome"] == "scored":
            found[row["prompt"]].append(row["value"])
    return {prompt: float(np.mean(values)) for prompt, values in found.items()}


def _fair(points: Sequence[Row], systems: Sequence[str]) -> dict[str, dict[str, float]]:
    """System to prompt to mean, over the seeds that none of the systems lost, those without a single score aside: the
    mean of what was not refused would reward the refusal of a bad seed."""
    some = {r["system"] for r in points if r["outcome"] == "scored"}
    lost = {
        (r["prompt"], r["seed"])
        for r in points if r["outcome"] != "scored" and r["system"] in some.intersection(systems)
    }  # fmt: skip
    kept = [r for r in points if (r["prompt"], r["seed"]) not in lost]
    return {s: by_prompt(_of(kept, system=s)) for s in systems}


def _shared(means: Sequence[dict[str, float]]) -> list[str]:
    """The prompts that all systems have, those without a single score aside."""
    some = [m for m in means if m]
    return [prompt for prompt in some[0] if all(prompt in m for m in some)] if some else []


def _cell(*groups: Sequence[float]) -> dict[str, Any] | None:
    """The mean of the groups' means: value, low, high (None where too few have no interval), n; None for an empty
    group."""
    if not groups or not all(groups):
        return None
    return _told(statistics.mean_interval(*groups), sum(map(len, groups)))


def _told(interval: Interval, n: int) -> dict[str, Any]:
    return {k: None if v != v else v for k, v in interval._asdict().items()} | dict(n=n)


def _table_row(system: str, judge: str, means, shared, category, categories, points) -> dict[str, Any]:
    values = {kind: [means[p] for p in shared if category[p] == kind and p in means] for kind in categories}
    outcomes = Counter(r["outcome"] for r in _of(points, system=system, judge=judge))
    cells = {kind: _cell(found) for kind, found in values.items()}
    return dict(system=system, judge=judge, cells=cells, average=_cell(*values.values()), outcomes=outcomes)


def _rank(table: Sequence[dict], systems: Sequence[str]) -> dict[str, int | None]:
    """1 is best; None for a system that some judge has no average of."""
    overall = {}
    for system in systems:
        averages = [row["average"] for row in table if row["system"] == system]
        overall[system] = None if None in averages else float(np.mean([cell["value"] for cell in averages]))
    ordered = sorted((v for v in overall.values() if v is not None), reverse=True)
    return {s: None if v is None else ordered.index(v) + 1 for s, v in overall.items()}


def _difference(system: str, judge: str, kind: str | None, ours, theirs, category) -> dict[str, Any]:
    """Ours minus the reference's, over the prompts that both have a score of."""
    both = [p for p in ours if p in theirs]
    kinds = [kind] if kind else dict.fromkeys(category.values())
    values = [[ours[p] - theirs[p] for p in both if category[p] == k] for k in kinds]
    told = dict(system=system, judge=judge, category=kind, power=statistics.power_note(*values))
    return told | (_cell(*values) or _NO_CELL)


def _agreement(a: str, b: str, points: Sequence[Row]) -> dict[str, Any]:
    """Of two judges on the pictures that both scored."""
    scores = [
        {(r["system"], r["prompt"], r["seed"]): r["value"] for r in _of(points, judge=j, outcome="scored")}
        for j in (a, b)
    ]
    both = [k for k in scores[0] if k in scores[1]]
    x, y = ([s[k] for k in both] for s in scores)
    shift = float(np.mean(np.subtract(y, x))) if both else None
    told = dict(judges=[a, b], n=len(both), mean_difference=shift)
    return told | dict(spearman=statistics.spearman(x, y), kappa=statistics.weighted_kappa(x, y))


def _paired(rows: Sequence[Row]) -> dict[tuple, list[str | None]]:
    """(prompt, seed) to the winners of both orders, of one system and judge."""
    found: dict[tuple, list[str | None]] = defaultdict(lambda: [None, None])
    for row in rows:
        value = row["value"] if row["outcome"] == "scored" else None
        found[row["prompt"], row["seed"]][row["order"]] = value
    return found


def _pairs(system: str, judge: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Wins, ties, losses, flips against the reference, and the win rate (ties and flips count half) by prompt, all
    prompts together whatever their category; ``strength`` is that of the rate and of its ends."""
    found = _paired(rows)
    told = statistics.verdicts([tuple(v) for v in found.values()])
    by = defaultdict(list)
    for (prompt, _), score in zip([k for k, v in found.items() if None not in v], told.scores, strict=True):
        by[prompt].append(score)
    scores = [float(np.mean(v)) for v in by.values()]
    kept = dict(wins=told.wins, ties=told.ties, losses=told.losses, flips=told.flips, lost=told.lost)
    rate = _told(intervals.rate_interval(scores), len(scores)) if scores else None
    strength = rate and {k: statistics.strength(rate[k]) for k in ("value", "low", "high")}
    return dict(system=system, judge=judge, flip_rate=told.flip_rate, rate=rate, strength=strength) | kept


def _injection(judge: str, rows: Sequence[Row], controls: Sequence[Row]) -> dict[str, Any]:
    """How far the pictures with a demand in them score above the same ones with a text in its place that asks for
    nothing."""
    plain = {(r["system"], r["prompt"], r["seed"]): r["value"] for r in _of(controls, outcome="scored")}
    mine = [r for r in rows if r["outcome"] == "scored" and (r["system"], r["prompt"], r["seed"]) in plain]
    gains = [r["value"] - plain[r["system"], r["prompt"], r["seed"]] for r in mine]
    told = _moved(gains)
    return dict(judge=judge, asked=len(rows)) | told | dict(moved=told["moved"] and told["value"] > 0)


def drift_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each judge that was asked about a frozen set on ``day``: how far it scores above its first day, ``since``
    (None where this is the first). Each day is tested by itself, without a correction for how many there are."""
    told = []
    for judge in dict.fromkeys(r["judge"] for r in _of(rows, kind="drift")):
        mine = _of(rows, kind="drift", judge=judge)
        gains = [r["value"] - r["before"] for r in mine if r["outcome"] == "scored" and r.get("before") is not None]
        about = dict(judge=judge, day=mine[0]["day"], since=mine[0].get("since"), asked=len(mine))
        told.append(about | dict(scored=len(_of(mine, outcome="scored"))) | _moved(gains))
    return told


def _moved(gains: Sequence[float]) -> dict[str, Any]:
    """A cell and ``moved``, see ``statistics.moved``; None without an interval."""
    cell = _cell(gains) or _NO_CELL
    return cell | dict(moved=None if cell["low"] is None else statistics.moved(gains))
