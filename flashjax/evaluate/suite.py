"""Everything that is measured of a distilled student, in one call and one JSON-able dict."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from flashjax.errors import UserError
from flashjax.evaluate import classifier as judge
from flashjax.evaluate import distributions, intervals, metrics
from flashjax.evaluate import ocr as reader

__all__ = ["evaluate"]

_FEW = ("teacher4", "teacher4_guided")
_FRECHET_SPLITS = 50
# Below this the covariance of the features is far from full rank, and the distance mostly noise.
_FRECHET_COMFORT = 256
_DISTANCES = ("frechet_to_teacher", "cmmd_to_teacher", "precision", "recall", "proportion_shift")
_NEIGHBOUR = 3  # of precision and recall, as their authors have it


def evaluate(
    samples: Mapping[str, np.ndarray],
    cards: Sequence[Mapping[str, Any]],
    real_images: np.ndarray,
    classifier: judge.Classifier,
    ocr: bool = True,
    diversity_sets: Mapping[str, np.ndarray] | None = None,
    labels: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure every set of samples.

    Args:
        samples: name to uint8 [N, H, W, 3], the same N prompts in the same order. "teacher80" has to be there;
            "student4" with "teacher4" or "teacher4_guided" gives the gap. "reference" is the teacher once more, from
            noise that no other set started from: Fréchet distances are to it. Had it the noise of one of the sets,
            that set would be nearer for its noise, and the teacher itself further away than a student (it was).
        cards: N records with category and named (attribute to value).
        real_images: uint8 [M, H, W, 3]; where M is N they are taken for the real pictures of the prompts and judged
            too, as "real": what the judges themselves lose.
        classifier: see `classifier.load`.
        ocr: read the words of signs; without it word_accuracy and letter_accuracy are None.
        diversity_sets: name to uint8 [P, S, H, W, 3], S seeds of P prompts; "teacher80" is the reference.
        labels: name to what people read; a name that is not in it stands for itself.
        seed: of the bootstrap.

    Returns:
        {"entries": name to figures, "gap": metric to what `intervals.gap_closed` says, or `gap_of_distances`,
        "diversity_ratio", "counts", "worst": the student's pictures that miss the most, each {"prompt": its position,
        "missed": attribute to what was named and what the classifier sees}, "verdict": sentences}.

    Raises:
        UserError: sets are missing, empty, or do not fit together.
    """
    _check(samples, cards)
    sets = dict(samples)
    if len(real_images) == len(cards):
        sets["real"] = real_images
    judged = {
        name: _judge(images, cards, classifier, ocr) for name, images in tqdm(sets.items(), desc="judging", unit="set")
    }
    real = judge.features(classifier, real_images)
    seeds = {k: seed_features(classifier, v) for k, v in (diversity_sets or {}).items()}
    spread, labels = {k: metrics.diversity(v) for k, v in seeds.items()}, labels or {}
    entries = {
        name: {"label": labels.get(name, name), **_entry(name, sets, judged, real, cards, spread)} for name in sets
    }
    result = {
        "entries": entries,
        "gap": _gaps(judged, seed) if "student4" in judged else {},
        "diversity_ratio": _ratios(seeds),
        "counts": _counts(cards, real_images, judged["teacher80"]),
        "worst": _worst(judged["student4"]["seen"], cards) if "student4" in judged else [],
    }
    return {**result, "verdict": _verdict(result)}


def _check(samples: Mapping[str, np.ndarray], cards: Sequence[Mapping[str, Any]]) -> None:
    if "teacher80" not in samples:
        raise UserError(
            f"The samples hold {', '.join(samples) or 'nothing'}; 'teacher80', the teacher as it is meant to be, is "
            "missing."
        )
    if wrong := [f"{name} ({len(images)})" for name, images in samples.items() if len(images) != len(cards)]:
        raise UserError(
            f"There are {len(cards)} prompts, but other numbers of pictures: {', '.join(wrong)}; "
            "sample every set for all prompts."
        )


def _judge(images: np.ndarray, cards, classifier: judge.Classifier, ocr: bool) -> dict[str, Any]:
    """What the judges say of one set, one value for each prompt."""
    seen, _ = judge.predict(classifier, images, [card["category"] for card in cards])
    named = [card["named"] for card in cards]
    signs = [i for i, wanted in enumerate(named) if "word" in wanted]
    words = [named[i]["word"] for i in signs]
    spelled = reader.spelling(images[signs], words) if ocr and signs else None
    return {
        "features": judge.features(classifier, images),
        "seen": seen,
        "scores": metrics.adherence_scores(seen, named),
        "letters": spelled,
        "words": None if spelled is None else (spelled == 1).astype(float),
        "words_classifier": np.array([seen[i]["word"] == word for i, word in zip(signs, words, strict=True)], float),
    }


def seed_features(classifier: judge.Classifier, images: np.ndarray) -> np.ndarray:
    """Features [P, S, D] of pictures uint8 [P, S, H, W, 3], S seeds of P prompts: what diversity is measured of."""
    prompts, seeds = images.shape[:2]
    return judge.features(classifier, images.reshape(-1, *images.shape[2:])).reshape(prompts, seeds, -1)


def _entry(name: str, sets, judged, real: np.ndarray, cards, spread) -> dict[str, Any]:
    own, images = judged[name], sets[name]
    kinds = [c["category"] for c in cards]
    told = metrics.adherence(own["seen"], [c["named"] for c in cards], kinds)
    scores = own["scores"][np.isfinite(own["scores"])]
    reference = judged.get("reference") if name != "reference" else None
    return {
        **(_to_teacher(own, reference, kinds) if reference else dict.fromkeys(_DISTANCES)),
        "frechet_to_real": None if name == "real" else metrics.frechet_distance(own["features"], real),
        "adherence": told["mean"],
        "adherence_interval": list(intervals.bootstrap(scores)[1:]),
        "adherence_per_category": told["per_category"],
        "word_accuracy": _mean(own["words"]),
        "letter_accuracy": _mean(own["letters"]),
        "word_accuracy_classifier": _mean(own["words_classifier"]),
        "sharpness": float(metrics.sharpness(images).mean()),
        "saturation": float(metrics.saturation(images).mean()),
        "saturation_drift": metrics.saturation_drift(images, sets["teacher80"]),
        "contrast": float(metrics.contrast(images).mean()),
        "contrast_drift": metrics.contrast_drift(images, sets["teacher80"]),
        "high_frequency": distributions.high_frequency(images),
        "diversity": _mean(spread.get(name)),
    }


def _to_teacher(own: Mapping[str, Any], reference: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Distances of one set to the teacher's other one, as distributions in the features of the classifier."""
    ours, theirs = own["features"], reference["features"]
    # The kernel of CMMD is meant for features of length 1, as CLIP's are.
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ours, theirs)]
    near = distributions.precision_recall(theirs, ours, _NEIGHBOUR) if len(ours) > _NEIGHBOUR else None
    prompts = range(len(ours))  # row i of either set is of prompt i
    return {
        "frechet_to_teacher": metrics.frechet_distance(ours, theirs),
        "cmmd_to_teacher": distributions.cmmd(*unit, groups=(prompts, prompts)),
        "precision": near and near.precision,
        "recall": near and near.recall,
        "proportion_shift": metrics.proportion_shift(own["seen"], reference["seen"], kinds),
    }


def _mean(values: np.ndarray | None) -> float | None:
    return None if values is None or not len(values) else float(np.mean(values))


def _ratios(seeds: Mapping[str, np.ndarray]) -> dict[str, float]:
    others = [name for name in seeds if name != "teacher80" and "teacher80" in seeds]
    return {name: metrics.diversity_ratio(seeds[name], seeds["teacher80"]) for name in others}


def _counts(cards, real_images, teacher: Mapping[str, Any]) -> dict[str, int]:
    return {
        "prompts": len(cards),
        "real": len(real_images),
        "signs": len(teacher["words_classifier"]),
        "prompts_with_named_attributes": int(np.isfinite(teacher["scores"]).sum()),
    }


def _worst(seen: Sequence[Mapping[str, str]], cards: Sequence[Mapping[str, Any]], most: int = 12) -> list[dict]:
    """By the number of named attributes that are missed, the most first; pictures that miss none are not in it."""
    missed = [
        {name: [value, found[name]] for name, value in card["named"].items() if found[name] != value}
        for found, card in zip(seen, cards, strict=True)
    ]
    order = sorted((i for i, parts in enumerate(missed) if parts), key=lambda i: -len(missed[i]))
    return [{"prompt": i, "missed": missed[i]} for i in order[:most]]


def _gaps(judged: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """For each metric the gap to the better of the teachers with as few steps, which is named. Where that is the guided
    one, of twice the evaluations, ``equal_cost`` holds the gap to the other (for means only: distances take long)."""
    few = [name for name in _FEW if name in judged]
    if not few:
        return {}
    found = {}
    named = np.isfinite(judged["teacher80"]["scores"])
    values = {k: v["scores"][named] for k, v in judged.items()}
    found["adherence"] = _mean_gaps(values, few, seed)
    if judged["student4"]["words"] is not None:
        values = {k: v["words"] for k, v in judged.items()}
        found["word_accuracy"] = _mean_gaps(values, few, seed)
    if "reference" in judged:
        found["frechet_to_teacher"] = _frechet_gap(judged, few, seed)
    return found


def _mean_gaps(values: Mapping[str, np.ndarray], few: Sequence[str], seed: int) -> dict[str, Any]:
    better = max(few, key=lambda name: values[name].mean())
    told = _mean_gap(values, better, seed)
    return told if better == few[0] else {**told, "equal_cost": _mean_gap(values, few[0], seed)}


def _mean_gap(values: Mapping[str, np.ndarray], few: str, seed: int) -> dict[str, Any]:
    told = intervals.gap_closed(values["student4"], values[few], values["teacher80"], seed=seed)
    means = {name: float(values[key].mean()) for name, key in _roles(few, "teacher80").items()}
    return {**told, **means, "few_step_set": few}


def _frechet_gap(judged: Mapping[str, Any], few: Sequence[str], seed: int) -> dict[str, Any]:
    reference = judged["reference"]["features"]

    def distance(name: str):
        features = judged[name]["features"]
        return lambda rows: metrics.frechet_distance(features[rows], reference[rows])

    every = np.arange(len(reference))
    best = min(few, key=lambda name: distance(name)(every))
    roles = _roles(best, "teacher80")
    parts = [distance(roles[name]) for name in ("student", "few_step", "many_step")]
    with _one_thread():
        told = intervals.gap_of_distances(*parts, len(reference), splits=_FRECHET_SPLITS, seed=seed)
    figures = {name: distance(key)(every) for name, key in roles.items()}
    return {**told, **figures, "few_step_set": best}


def _one_thread() -> contextlib.AbstractContextManager:
    """On matrices this small the threads of OpenBLAS wait for each other 20 to 40 times as long as they compute."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return contextlib.nullcontext()
    return importlib.import_module("threadpoolctl").threadpool_limits(1, user_api="blas")


def _roles(few: str, many: str) -> dict[str, str]:
    return {"student": "student4", "few_step": few, "many_step": many}


_TITLES = {
    "adherence": "Adherence to the prompt",
    "word_accuracy": "Words spelled right (OCR)",
    "frechet_to_teacher": "Fréchet distance to the teacher (lower is better)",
}


def _verdict(result: Mapping[str, Any]) -> list[str]:
    """Plain sentences for the end of a run."""
    labels = {name: entry["label"] for name, entry in result["entries"].items()}
    lines = []
    for name, gap in result["gap"].items():
        lines.append(_gap_line(_TITLES[name], gap, name == "frechet_to_teacher", labels))
        if "equal_cost" in gap:
            lines.append(_gap_line(f"{_TITLES[name]}, at equal cost", gap["equal_cost"], False, labels))
    student = result["entries"].get("student4")
    if student:
        drifts = f"{student['saturation_drift']:+.1%} and {student['contrast_drift']:+.1%}"
        lines.append(f"Saturation and contrast of the student: {drifts} against the teacher's.")
        fine = [_ratio(student, result["entries"]["teacher80"], key) for key in ("sharpness", "high_frequency")]
        lines.append("Sharpness of the student: {:.2f} of the teacher's; high frequencies: {:.2f}.".format(*fine))
        shifts = [result["entries"][name]["proportion_shift"] for name in ("student4", "teacher80")]
        if None not in shifts:
            lines.append(
                "Shift in the proportions of what prompts leave open: student {:.3f}; teacher {:.3f}.".format(*shifts)
            )
    if "student4" in result["diversity_ratio"]:
        lines.append(f"Diversity of the student: {result['diversity_ratio']['student4']:.2f} of the teacher's.")
    if result["counts"]["prompts"] < _FRECHET_COMFORT:
        lines.append(
            f"Only {result['counts']['prompts']} prompts were used; the Fréchet distances are rough below "
            f"{_FRECHET_COMFORT}."
        )
    return lines


def _ratio(student: Mapping[str, Any], teacher: Mapping[str, Any], key: str) -> float:
    return student[key] / max(teacher[key], 1e-12)


def _gap_line(title: str, gap: Mapping[str, Any], distance: bool, labels: Mapping[str, str]) -> str:
    form = (lambda x: f"{x:.2f}") if distance else (lambda x: f"{x:.1%}")
    roles = _roles(gap["few_step_set"], "teacher80")
    start = f"{title}: " + "; ".join(f"{labels[name]} {form(gap[role])}" for role, name in roles.items()) + "."
    backwards = (gap["gap"] > 0) == distance
    if not gap["resolved"] or gap["closed"] is None or backwards:
        return (
            f"{start} The gap between the teachers lies within its own uncertainty, or is none to close"
            f"{_ahead(gap, distance, labels)}."
        )
    if gap["low"] is None:
        return f"{start} {gap['closed']:.0%} of the gap is closed; its interval cannot be stated."
    return f"{start} {gap['closed']:.0%} of the gap is closed (95 % interval {gap['low']:.0%} to {gap['high']:.0%})."


def _ahead(gap: Mapping[str, Any], distance: bool, labels: Mapping[str, str]) -> str:
    if gap["ahead_low"] is None:
        return ""
    form = (lambda x: f"{x:+.2f}") if distance else (lambda x: f"{100 * x:+.1f} points")
    ahead, low, high = (form(gap[name]) for name in ("ahead", "ahead_low", "ahead_high"))
    return f"; against the {labels['teacher80']}, the student has {ahead} (95 % interval {low} to {high})"
