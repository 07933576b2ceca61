"""What a study measures of a cell: one value for each held-out prompt and edit, so that cells compare in pairs, and
what only a whole set of pictures has, as a list of one value."""

from __future__ import annotations

import contextlib
import inspect
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashjax import metrics as run_metrics
from flashjax import pictures, pipeline
from flashjax.data.manifest import read_manifest
from flashjax.errors import UserError
from flashjax.evaluate import classifier, edits, metrics, ocr, study, suite
from flashjax.models import text
from flashjax.studies.grid import Cell, content
from flashjax.train import train
from flashjax.workdir import existing

SHOWN = 12  # pictures of a cell in the report
DIVERSITY_PROMPTS, DIVERSITY_SEEDS = 18, 8
KEEP = ".cache/pictures"  # of models that are there already, which are drawn for every study
OCR = "OCR"  # what reads words, with its version, beside the paths that a cell read
CLASSIFIER = "weights/postcards_classifier"
CURVES = ("watch/", "samples/")  # what a run measured of its own pictures on the way


def train_and_measure(cell: Cell, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a cell to its end (or goes on with it) and measures it; a model that is there already is measured only.
    ``curves``: figure to (steps, values) of the run; ``read``: see there."""
    drawn = {} if cell.config is None else {f"the runs of {cell.name}": cell.config.image_size}
    check(settings, drawn)  # before the minutes of training
    given = read(cell, settings)
    if cell.config is None:
        return measure(cell.model, cell, **settings) | dict(read=given)
    workdir = train(cell.config, str(cell.folder / "run"))
    curves = {name: curve for name, curve in run_metrics.read(workdir).items() if name.startswith(CURVES)}
    return measure(str(workdir), cell, **settings) | dict(curves=curves, read=given)


def read(cell: Cell, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Path to what lies there (`_lies_at`), of the sets that a cell is trained and measured on, of the teacher that it
    is compared with and of the classifier, as far as they are here; and what reads words."""
    lies = {path: told for path in _named(cell, settings) if (told := _lies_at(path)) is not None}
    return lies | {OCR: ocr.reader()}


def _named(cell: Cell, settings: Mapping[str, Any]) -> list[str]:
    paths = [source.path for source in cell.config.sources.values()] if cell.config is not None else []
    paths += [settings[name] for name in ("data", "edit_data", "teacher") if settings.get(name)]
    return [*paths, settings.get("classifier_path", CLASSIFIER)]


def _lies_at(path: str) -> Any:
    """Of a set what its manifest says, without hashes of files, since text states differ in their last bits from
    machine to machine; of a classifier and a teacher its content; None where there is nothing."""
    if Path(path).is_dir():
        return content(path)
    if not Path(path).with_suffix(".json").is_file():
        return None
    return {k: v for k, v in read_manifest(path).items() if k not in ("sha256", "bytes")}


def check_read(every: Sequence[Cell], settings: Mapping[str, Any]) -> None:
    """Raises UserError where a finished cell was trained or measured on another set than lies at its path now, or than
    another finished cell: their contrasts would compare prompts that are not the same."""
    paths = dict.fromkeys(path for cell in every for path in _named(cell, settings))
    known = {path: (told, "what is there now") for path in paths if (told := _lies_at(path)) is not None}
    with contextlib.suppress(UserError):  # where it is not installed cells are listed, and none is measured
        known[OCR] = ocr.reader(), "what is there now"
    for cell in every:
        for path, told in (cell.result or {}).get("read", {}).items():
            other, whose = known.setdefault(path, (told, f"{cell.name}, seed {cell.seed}, read"))
            if told != other:
                parts = isinstance(told, dict) and isinstance(other, dict)
                names = [k for k in sorted(told | other) if told.get(k) != other.get(k)] if parts else ["content"]
                raise UserError(
                    f"The finished cell {cell.name}, seed {cell.seed}, read another {path} than {whose} (it differs in "
                    f"{', '.join(names)}); put that back, or move the finished cells away, and they begin anew."
                )


def check(settings: Mapping[str, Any], drawn: Mapping[str, int]) -> None:
    """Raises UserError for arguments of `measure` that it does not take, that name nothing or what cannot be measured
    on, for pictures (of the sets, and ``drawn``: name to side) that the classifier does not read, and where nothing
    reads words."""
    takes = [name for name, each in inspect.signature(measure).parameters.items() if each.kind is each.KEYWORD_ONLY]
    if unknown := [name for name in settings if name not in takes]:
        raise UserError(f"The study's 'measure' has no {unknown[0]!r}; it takes {', '.join(takes)}.")
    if not settings.get("data") and not settings.get("edit_data"):
        raise UserError("The study measures nothing; give its 'measure' the paths data or edit_data.")
    if settings.get("teacher") and not settings.get("data"):
        raise UserError("The study's 'measure' compares prompts with its teacher; give it data, or leave teacher out.")
    for name in takes:
        if name != "limit" and settings.get(name):
            existing(settings[name], f"{name} of the study's 'measure'")
    limit, sides, counts = settings.get("limit"), dict(drawn), {}
    if limit is not None and not isinstance(limit, numbers.Integral):
        raise UserError(f"The study's 'measure' has the limit {limit!r}, which has to be a whole number.")
    for kind in ("data", "edit_data"):
        if path := settings.get(kind):
            records = study.load_cards(path, limit, kind)
            counts[path], sides[path] = len(records), records[0]["image"].shape[0]
    largest = max(counts, key=counts.get)  # a set of edits may be smaller than that of prompts beside it
    if limit is not None and counts[largest] < limit:
        raise UserError(f"The study's 'measure' has the limit {limit}, and {largest} has {counts[largest]} records.")
    study.check_sizes(sides, classifier.load(settings.get("classifier_path", CLASSIFIER)))
    ocr.reader()


def measure(
    workdir: str, cell: Cell, *, classifier_path: str = CLASSIFIER, data: str = "",
    edit_data: str = "", limit: int | None = None, teacher: str = "",
) -> dict[str, Any]:  # fmt: skip
    """``values``: figure to one number for each prompt (None where it has none): adherence and word by category, and
    for edits success, kept and outside. With a ``teacher`` also the diversity of some prompts and, in lists of one
    number, the Fréchet distance to its pictures of the same prompts from other seeds. A sheet of pictures goes to the
    cell's folder."""
    judge, encoder = classifier.load(classifier_path), text.default_encoder()
    pipe, values, rows = pipeline.load(workdir), {}, []
    keep = Path(KEEP) if cell.config is None and not cell.again else cell.folder / "drawn"
    if data:
        records = study.load_cards(data, limit)
        said, count = [r["caption"] for r in records], len(records)
        images = study.draw_kept(pipe, said, range(1, 1 + count), encoder, keep)
        values |= prompt_values(images, records, judge)
        rows.append(list(images[:SHOWN]))
        if teacher:
            theirs = study.draw_kept(pipeline.load(teacher), said, range(1 + count, 1 + 2 * count), encoder, Path(KEEP))
            values |= distances(images, theirs, records, judge)
            seeds = draw_seeds(pipe, said[:DIVERSITY_PROMPTS], encoder, keep)
            values["diversity"] = _plain(metrics.diversity(suite.seed_features(judge, seeds)))
    if edit_data:
        records = study.load_cards(edit_data, limit, "edit_data")
        sources = np.stack([r["source"] for r in records])
        said, seeds = [r["instruction"] for r in records], list(range(1, 1 + len(records)))
        images = pipe.draw(said, seeds, encoder, images=sources)
        scores = edits.scores(images, records, judge)
        values |= {f"edit {name}": _plain(each) for name, each in scores.items()}
        rows += [list(sources[:SHOWN]), list(images[:SHOWN])]
    shortest = min(map(len, rows))
    pictures.contact_sheet([row[:shortest] for row in rows]).save(cell.folder / "pictures.png")
    return dict(values=values)


def draw_seeds(pipe: pipeline.Pipeline, prompts: Sequence[str], encoder: text.TextEncoder, keep: Path) -> np.ndarray:
    """uint8 [P, S, H, W, 3]: S seeds of each prompt, for the diversity of a model."""
    many = [p for p in prompts for _ in range(DIVERSITY_SEEDS)]
    images = study.draw_kept(pipe, many, range(10_000, 10_000 + len(many)), encoder, keep)
    return images.reshape(len(prompts), DIVERSITY_SEEDS, *images.shape[1:])


def prompt_values(images: np.ndarray, records, judge: classifier.Classifier) -> dict[str, list]:
    """Adherence of every prompt, in all and by category; whether the word of every sign can be read; saturation."""
    kinds, named = [r["category"] for r in records], [r["named"] for r in records]
    scores = metrics.adherence_scores(classifier.predict(judge, images, kinds)[0], named)
    values = {"adherence": _plain(scores), "saturation": _plain(metrics.saturation(images))}
    for kind in dict.fromkeys(kinds):
        values[f"adherence, {kind}"] = _plain(np.where(np.array(kinds) == kind, scores, np.nan))
    words, signs = np.full(len(records), np.nan), [i for i, n in enumerate(named) if "word" in n]
    if signs:
        words[signs] = ocr.word_hits(images[signs], [named[i]["word"] for i in signs])
        values["word"] = _plain(words)
    return values


def distances(images: np.ndarray, theirs: np.ndarray, records, judge: classifier.Classifier) -> dict[str, list]:
    """The Fréchet distance of two sets of pictures of the same prompts, in all and by category."""
    ours, others = classifier.features(judge, images), classifier.features(judge, theirs)
    kinds = np.array([r["category"] for r in records])
    rows = {"Fréchet": np.full(len(kinds), True)} | {f"Fréchet, {kind}": kinds == kind for kind in dict.fromkeys(kinds)}
    return {name: [round(metrics.frechet_distance(ours[at], others[at]), 6)] for name, at in rows.items()}


def _plain(values: Sequence[float]) -> list[float | None]:
    return [round(float(v), 6) if np.isfinite(v) else None for v in values]
