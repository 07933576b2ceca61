"""What a study measures of a cell: one value for each held-out prompt and edit, so that cells compare in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flashjax import pictures, pipeline
from flashjax.errors import UserError
from flashjax.evaluate import classifier, edits, metrics, ocr, study
from flashjax.models import text
from flashjax.studies.grid import Cell
from flashjax.train import train

SHOWN = 12  # pictures of a cell in the report


def train_and_measure(cell: Cell, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a cell to its end (or goes on with it) and measures it."""
    return measure(str(train(cell.config, str(cell.folder / "run"))), cell, **settings)


def measure(
    workdir: str, cell: Cell, *, classifier_path: str = "weights/postcards_classifier", data: str = "",
    edit_data: str = "", limit: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """``values``: figure to one number for each prompt (None where it has none): adherence and word by category, and
    for edits success, kept and outside; a sheet of pictures goes to the cell's folder."""
    if not data and not edit_data:
        raise UserError("The study measures nothing; give its 'measure' the paths data or edit_data.")
    judge, encoder = classifier.load(classifier_path), text.load_text_encoder(text.default_minilm_source())
    pipe, values, rows = pipeline.load(workdir), {}, []
    if data:
        records = study.load_cards(data, limit)
        images = pipe.draw([r["caption"] for r in records], list(range(1, 1 + len(records))), encoder)
        values |= prompt_values(images, records, judge)
        rows.append(list(images[:SHOWN]))
    if edit_data:
        records = study.load_cards(edit_data, limit)
        sources = np.stack([r["source"] for r in records])
        said, seeds = [r["instruction"] for r in records], list(range(1, 1 + len(records)))
        images = pipe.draw(said, seeds, encoder, images=sources)
        scores = edits.scores(images, records, judge)
        values |= {f"edit {name}": _plain(each) for name, each in scores.items()}
        rows += [list(sources[:SHOWN]), list(images[:SHOWN])]
    shortest = min(map(len, rows))
    pictures.contact_sheet([row[:shortest] for row in rows]).save(cell.folder / "pictures.png")
    return dict(values=values)


def prompt_values(images: np.ndarray, records, judge: classifier.Classifier) -> dict[str, list]:
    """Adherence of every prompt, in all and by category; whether the word of every sign can be read; saturation."""
    kinds, named = [r["category"] for r in records], [r["named"] for r in records]
    scores = metrics.adherence_scores(classifier.predict(judge, images, kinds)[0], named)
    values = {"adherence": _plain(scores), "saturation": _plain(metrics.saturation(images))}
    for kind in dict.fromkeys(kinds):
        values[f"adherence {kind}"] = _plain(np.where(np.array(kinds) == kind, scores, np.nan))
    words, signs = np.full(len(records), np.nan), [i for i, n in enumerate(named) if "word" in n]
    if signs:
        words[signs] = ocr.word_hits(images[signs], [named[i]["word"] for i in signs])
        values["word"] = _plain(words)
    return values


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 6) if np.isfinite(v) else None for v in values]
