"""Systems against a reference by what was measured of their pictures: one row a metric, system and category.

Means, ratios and differences have intervals, from resampled prompts: several seeds of a prompt are averaged first.
Distances of distributions have none. Resampling repeats pictures, which narrows the covariance of a Fréchet distance,
counts a picture as its own neighbour in precision and recall, and as its own equal in CMMD. What they can be told from
is a second set of the reference's pictures, of other seeds, as a system of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flashjax.bench import statistics
from flashjax.bench.measuring import Measured
from flashjax.errors import UserError
from flashjax.evaluate import distributions, intervals, metrics

__all__ = ["METRICS", "Row", "compare"]

_NEIGHBOUR = 3  # of precision and recall, as their authors have it

METRICS = {
    "cmmd": "CMMD",
    "frechet": "Fréchet distance",
    "precision": "Precision",
    "recall": "Recall",
    "diversity_ratio": "Diversity of seeds, of the reference's",
    "saturation": "Saturation",
    "saturation_drift": "Saturation, drift",
    "contrast": "Contrast",
    "contrast_drift": "Contrast, drift",
    "high_frequency": "High frequencies in patches",
    "high_frequency_drift": "High frequencies in patches, drift",
    "word_accuracy": "Words rendered right (OCR)",
    "word_accuracy_change": "Words rendered right (OCR), difference",
    "text_distance": "Edits a character of text (OCR)",
    "text_distance_change": "Edits a character of text (OCR), difference",
    "outside_error": "Error outside of what the edit may change",
    "outside_error_change": "Error outside of what the edit may change, difference",
    "source_difference": "Difference to the source anywhere (no error)",
}

_RELATIVE, _ABSOLUTE = ("saturation", "contrast", "high_frequency"), ("word_accuracy", "text_distance", "outside_error")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        category: "" for all of them. metric: of ``METRICS``. extractor: whose features; "" for metrics of none.
        value, low, high: None where there is none. n: how many. unit: of what, "pictures" or "prompts".
        rough: fewer pictures than the features have dimensions.
    """

    system: str
    category: str
    metric: str
    extractor: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    rough: bool = False


def compare(
    systems: Mapping[str, Measured], reference: str, category: Mapping[str, str], seed: int = 0
) -> dict[str, Any]:
    """All figures, ready for JSON.

    Args:
        systems: name to what was measured of the same prompts. reference: one of the names.
        category: of each prompt. seed: of the resampling.

    Returns:
        {"reference", "systems", "categories", "rows": of `Row` as dicts, "warnings": sentences}.

    Raises:
        UserError: the reference is none of the systems, or the systems are of other prompts.
    """
    if reference not in systems:
        raise UserError(f"The reference {reference} is none of the systems {', '.join(systems)}.")
    for name, measured in systems.items():
        if set(measured.prompts) != set(systems[reference].prompts):
            raise UserError(f"{name} and {reference} have pictures of other prompts; measure both of the same bench.")
    kinds, rows = list(dict.fromkeys(category[p] for p in systems[reference].prompts)), []
    for name in systems:
        for kind in ("", *(kinds if len(kinds) > 1 else ())):
            own, other = (_of(systems[s], kind, category) for s in (name, reference))
            figures = _levels(own, seed) if name == reference else _all(own, other, seed)
            rows += [Row(name, kind, *figure) for figure in figures]
    warnings = [*_rough(rows, systems[reference]), *_unlike(systems, reference)]
    warnings += [*_shapes(systems), *_lost(systems[reference])]
    return dict(
        reference=reference, systems=list(systems), categories=kinds, rows=[asdict(r) for r in rows], warnings=warnings
    )


def _of(measured: Measured, kind: str, category: Mapping[str, str]) -> Measured:
    """The pictures of one category; of all for ""."""
    keep = [i for i, p in enumerate(measured.prompts) if kind in ("", category[p])]
    return Measured(
        tuple(measured.prompts[i] for i in keep), tuple(measured.seeds[i] for i in keep),
        {name: v[keep] for name, v in measured.values.items()},
        {name: v[keep] for name, v in measured.features.items()}, tuple(measured.sizes[i] for i in keep),
    )  # fmt: skip


def _all(own: Measured, other: Measured, seed: int) -> list[tuple]:
    """The figures of a system, without its name and category."""
    rows = []
    for name in own.features:
        rows += _distances(name, own, other) + _diversity(name, own, other, seed)
    return rows + _levels(own, seed) + _changes(own, other, seed)


def _distances(name: str, own: Measured, other: Measured) -> list[tuple]:
    ours, theirs = own.features[name], other.features[name]
    if ours.shape[1:] != theirs.shape[1:]:
        raise UserError(f"The features of {name} are {list(ours.shape)} and {list(theirs.shape)}; take one network.")
    n = min(len(ours), len(theirs))
    near = distributions.precision_recall(theirs, ours, _NEIGHBOUR) if n > _NEIGHBOUR else (None, None)
    several = len(set(own.prompts)) > 1  # CMMD leaves pairs of one prompt out
    # The kernel of CMMD is meant for features of length 1, as CLIP's are.
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (ours, theirs)]
    found = dict(
        cmmd=distributions.cmmd(*unit, groups=(own.prompts, other.prompts)) if several else None,
        frechet=metrics.frechet_distance(ours, theirs) if n > 1 else None,
        precision=near[0], recall=near[1],
    )  # fmt: skip
    few = n <= ours.shape[1]
    return [(m, name, v, None, None, n, "pictures", few and m == "frechet") for m, v in found.items()]


def _diversity(name: str, own: Measured, other: Measured, seed: int) -> list[tuple]:
    """Over the prompts that both have several seeds of; no row where there are none."""
    ours, theirs = (_spread(m.prompts, m.features[name]) for m in (own, other))
    both = [p for p in ours if p in theirs]
    if not both:
        return []
    pair = [np.array([spread[p] for p in both]) for spread in (ours, theirs)]
    return [("diversity_ratio", name, *_ratio(*pair, seed), len(both), "prompts")]


def _spread(prompts: Sequence[str], features: np.ndarray) -> dict[str, float]:
    """Prompt to the mean distance of its seeds in the features, where it has several."""
    at = defaultdict(list)
    for i, prompt in enumerate(prompts):
        at[prompt].append(i)
    return {p: float(metrics.diversity(features[rows][None])[0]) for p, rows in at.items() if len(rows) > 1}


def _ratio(ours: np.ndarray, theirs: np.ndarray, seed: int, less: float = 0.0) -> tuple:
    """(value, low, high) of the ratio of the means, less a constant; of nothing where the reference has nothing."""
    if theirs.mean() == 0:
        return None, None, None

    def figure(rows: np.ndarray) -> float:
        base = theirs[rows].mean()
        return math.nan if base == 0 else float(ours[rows].mean() / base - less)

    return _told(intervals.bootstrap(figure, count=len(ours), seed=seed), len(ours))


def _told(interval: intervals.Interval, n: int) -> tuple:
    """Without ends for a single prompt, of which there is nothing to resample, or where draws had no value."""
    told = n > 1 and math.isfinite(interval.low) and math.isfinite(interval.high)
    return interval if told else (interval.value, None, None)


def _levels(own: Measured, seed: int) -> list[tuple]:
    """Means of what single pictures have, prompts counting alike."""
    rows = []
    for metric in (*_RELATIVE, *_ABSOLUTE, "source_difference"):
        values = list(by_prompt(own, metric).values())
        if values:
            interval = statistics.mean_interval(values, seed=seed)
            rows.append((metric, "", *_told(interval, len(values)), len(values), "prompts"))
    return rows


def _changes(own: Measured, other: Measured, seed: int) -> list[tuple]:
    """Relative drifts and differences to the reference, paired by prompt."""
    rows = []
    for metric in (*_RELATIVE, *_ABSOLUTE):
        ours, theirs = by_prompt(own, metric), by_prompt(other, metric)
        both = [p for p in ours if p in theirs]
        if not both:
            continue
        a, b = (np.array([found[p] for p in both]) for found in (ours, theirs))
        if metric in _RELATIVE:
            rows.append((f"{metric}_drift", "", *_ratio(a, b, seed, less=1.0), len(both), "prompts"))
        else:
            interval = statistics.mean_interval(a - b, seed=seed)
            rows.append((f"{metric}_change", "", *_told(interval, len(both)), len(both), "prompts"))
    return rows


def by_prompt(measured: Measured, metric: str) -> dict[str, float]:
    """Prompt to the mean of its seeds that have a value; a prompt without one is not in it."""
    found = defaultdict(list)
    values = measured.values.get(metric, np.full(len(measured.prompts), math.nan))
    for prompt, value in zip(measured.prompts, values, strict=True):
        if math.isfinite(value):
            found[prompt].append(value)
    return {prompt: float(np.mean(values)) for prompt, values in found.items()}


def _rough(rows: Sequence[Row], reference: Measured) -> list[str]:
    told = []
    for name, features in reference.features.items():
        rough = [r for r in rows if r.rough and r.extractor == name]
        if rough:
            kinds = ", ".join(dict.fromkeys(r.category or "all" for r in rough))
            told.append(
                f"The Fréchet distances in the features of {name} ({features.shape[1]} dimensions) are of "
                f"{min(r.n for r in rough)} pictures or more, no more than there are dimensions ({kinds}): too high, "
                "and to be compared only between equal numbers of pictures. CMMD is unbiased."
            )
    return told


def _unlike(systems: Mapping[str, Measured], reference: str) -> list[str]:
    """What makes figures of the systems differ beside their models."""
    told, base = [], systems[reference]
    shots = {name: set(zip(m.prompts, m.seeds, strict=True)) for name, m in systems.items()}
    if len({len(s) for s in shots.values()}) > 1:
        counts = ", ".join(f"{name} {len(s)}" for name, s in shots.items())
        told.append(f"The systems have different numbers of pictures ({counts}), and Fréchet distances fall with them.")
    shared = {name: bool(s & shots[reference]) for name, s in shots.items() if name != reference}
    if len(set(shared.values())) > 1:
        names = ", ".join(name for name, some in shared.items() if some)
        told.append(f"{names} shares seeds with {reference} and others do not: the same noise makes pictures nearer.")
    other = [name for name, m in systems.items() if set(m.sizes) != set(base.sizes)]
    if other:
        told.append(
            f"Pictures of {', '.join(other)} are of other sizes than those of {reference}: high frequencies and "
            "contrast follow the size too."
        )
    return told


def _shapes(systems: Mapping[str, Measured]) -> list[str]:
    told = []
    for name, measured in systems.items():
        if count := _count(measured, "other_shape"):
            told.append(f"{count} edits of {name} have another shape than their source and were not laid over it.")
    return told


def _lost(measured: Measured) -> list[str]:
    count = _count(measured, "texts_lost")
    told = f"Of {count} edits the texts to change were not found in the source; their error outside was not measured."
    return [told] if count else []


def _count(measured: Measured, mark: str) -> int:
    """Pictures that are marked with 1 in a value that others have not, or have as 0."""
    return int(np.nansum(measured.values.get(mark, np.zeros(0))))
