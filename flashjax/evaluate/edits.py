"""Whether an edit does what its instruction says, and nothing else, on postcards whose every attribute is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from flashjax.errors import UserError
from flashjax.evaluate import classifier as judge
from flashjax.evaluate import intervals, ocr

__all__ = ["figures", "lines", "outside_error", "scores"]


RATES = ("success", "text")  # figures of edits that are done or not


def scores(images: np.ndarray, records: Sequence[Mapping[str, Any]], classifier: judge.Classifier) -> dict:
    """One value for each edit, NaN where it has none; float64 [N] each.

    success: the changed attribute is what was asked for, by the classifier; a changed word by OCR, letter by letter.
    kept: the share of all other attributes that are as they were, by the classifier.
    outside: mean absolute difference from the source, of 1 for black against white, where the exact edit changes
    nothing (`outside_error`).
    text: for changed words, whether OCR reads the new one.

    Args:
        images: uint8 [N, H, W, 3], what a model made of the sources.
        records: of edits, with category, spec, edit_spec, changed, source, and the exact result as image.
        classifier: see `classifier.load`.
    """
    if len(images) != len(records):
        raise UserError(f"There are {len(images)} pictures of {len(records)} edits; give one for each.")
    seen, _ = judge.predict(classifier, images, [record["category"] for record in records])
    words = [i for i, record in enumerate(records) if record["changed"] == "word"]
    text = np.full(len(records), np.nan)
    if words:
        text[words] = ocr.word_hits(images[words], [records[i]["edit_spec"]["word"] for i in words])
    success, kept = np.empty(len(records)), np.empty(len(records))
    for i, (found, record) in enumerate(zip(seen, records, strict=True)):
        changed, wanted = record["changed"], record["edit_spec"]
        success[i] = text[i] if changed == "word" else found[changed] == wanted[changed]
        kept[i] = np.mean([found[name] == value for name, value in wanted.items() if name != changed])
    return dict(success=success, kept=kept, outside=outside_error(images, records), text=text)


def outside_error(images: np.ndarray, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """float64 [N] in [0, 1]: mean |image - source| over the pixels that the exact edit leaves alone, apart from those
    that touch a changed one, whose edges are soft; NaN where it leaves none."""
    out = np.full(len(records), np.nan)
    for i, (image, record) in enumerate(zip(images, records, strict=True)):
        source = record["source"]
        changed = np.pad((source != record["image"]).any(axis=-1), 1)
        near = np.lib.stride_tricks.sliding_window_view(changed, (3, 3)).any(axis=(-2, -1))
        if not near.all():
            out[i] = np.abs(image.astype(float) - source)[~near].mean() / 255
    return out


def figures(
    sets: Mapping[str, np.ndarray], records: Sequence[Mapping[str, Any]], classifier: judge.Classifier, seed: int = 0
) -> dict[str, Any]:
    """Every figure of `scores` with its 95 % interval, for every set of pictures; also of the sources ("nothing done")
    and of the exact results ("exact"), between which models lie. JSON-able; None where a figure has no edits.
    ``failed`` are the positions of the edits that were not done."""
    known = (("nothing done", "source"), ("exact", "image"))
    bounds = {name: np.stack([record[key] for record in records]) for name, key in known}
    told: dict[str, Any] = {}
    for name, images in tqdm((bounds | dict(sets)).items(), desc="judging", unit="set"):
        values = scores(images, records, classifier)
        told[name] = {key: _interval(value, seed, rate=key in RATES) for key, value in values.items()}
        told[name]["failed"] = np.flatnonzero(values["success"] == 0).tolist()
        told[name]["success_by_category"] = {
            kind: float(np.mean([s for s, r in zip(values["success"], records, strict=True) if r["category"] == kind]))
            for kind in dict.fromkeys(r["category"] for r in records)
        }
    return told


def lines(told: Mapping[str, Any]) -> Iterator[tuple]:
    """`figures` as a table: set, figure, value, low, high; "" where there is no interval, no line where no value is."""
    for name, row in told.items():
        for key in ("success", "kept", "outside", "text"):
            if row[key] is not None:
                value, *ends = (row[key][part] for part in ("value", "low", "high"))
                yield name, key, value, *("" if end is None else end for end in ends)
        for kind, value in row["success_by_category"].items():
            yield name, f"success/{kind}", value, "", ""


def _interval(values: np.ndarray, seed: int, rate: bool) -> dict[str, float] | None:
    """Where nearly all edits end alike, so do resamples of them: of none of 41 done a bootstrap says that it is 0. Of a
    single edit there is no interval."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return None
    if len(kept) == 1:
        return dict(value=float(kept[0]), low=None, high=None, count=1)
    told = intervals.rate_interval(kept) if rate else intervals.bootstrap(kept, seed=seed)
    return told._asdict() | dict(count=len(kept))
