"""Student against teacher on held-out prompts: draws all sets of pictures, times them, measures them, writes the
report."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from flashjax import metrics as run_metrics
from flashjax import pipeline
from flashjax.data.records import RecordSource
from flashjax.evaluate import classifier, report, suite
from flashjax.models import text
from flashjax.pictures import contact_sheet
from flashjax.pipeline import Pipeline

LABELS = {
    "teacher80": "teacher, 80 NFE",
    "teacher4": "teacher, 4 NFE",
    "teacher4_guided": "teacher, 4 steps guided (8 NFE)",
    "student4": "student, 4 NFE",
}
DIVERSITY_PROMPTS, DIVERSITY_SEEDS = 18, 8
SHOWN = 6  # pictures a category in the report
TIMED = 64  # pictures of the batch that is timed


def draw_kept(
    pipe: Pipeline, prompts: Sequence[str], seeds: Sequence[int], encoder: text.TextEncoder, folder: Path, **settings
) -> np.ndarray:
    """``pipe.draw``'s pictures, from ``folder`` where they were drawn before: the teacher takes most of the time of an
    evaluation and draws the same for every student. A file's name is the hash of all that decides its pictures."""
    asked = json.dumps([pipe.defaults | settings, pipe.image_size, list(prompts), list(seeds)], sort_keys=True)
    digest = hashlib.sha256(asked.encode())
    for leaf in jax.tree.leaves(pipe.params):
        digest.update(np.asarray(leaf).tobytes())
    path = folder / f"{digest.hexdigest()[:32]}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    images = pipe.draw(list(prompts), list(seeds), encoder, **settings)
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npy")
    np.save(partial, images)
    os.replace(partial, path)
    return images


def draw_sets(
    student: Pipeline, teacher: Pipeline, prompts: Sequence[str], encoder: text.TextEncoder, keep: Path
) -> dict[str, np.ndarray]:
    """uint8 [N, H, W, 3] for every entry of the comparison. All sets start from the same noise a prompt, but for
    ``reference``, the teacher's second set, to which the distances of all others are measured."""
    n, own = len(prompts), student.defaults
    few = dict(steps=own["steps"], shift=own["shift"])
    guidance = teacher.defaults["guidance_scale"]
    plans = {
        "student4": (student, 1, {}),
        "teacher4": (teacher, 1, few | dict(guidance_scale=1.0)),
        "teacher4_guided": (teacher, 1, few | dict(guidance_scale=guidance)),
        "teacher80": (teacher, 1, {}),
        "reference": (teacher, 1 + n, {}),
    }
    sets = {}
    for name, (pipe, seed, settings) in tqdm(plans.items(), desc="drawing", unit="set"):
        sets[name] = draw_kept(pipe, prompts, range(seed, seed + n), encoder, keep, **settings)
    return sets


def draw_seeds(pipe: Pipeline, prompts: Sequence[str], encoder: text.TextEncoder, keep: Path) -> np.ndarray:
    """uint8 [P, S, H, W, 3]: S seeds of each prompt, for the diversity of a model."""
    many = [p for p in prompts for _ in range(DIVERSITY_SEEDS)]
    images = draw_kept(pipe, many, range(10_000, 10_000 + len(many)), encoder, keep)
    return images.reshape(len(prompts), DIVERSITY_SEEDS, *images.shape[1:])


def time_per_image(
    student: Pipeline, teacher: Pipeline, prompts: Sequence[str], encoder: text.TextEncoder, repeats: int = 3
) -> dict[str, float]:
    """Median milliseconds an image of both, drawn as one batch, alternating in one run after a warm-up; text encoding
    is included."""
    batch, times = len(prompts), {"student": [], "teacher": []}
    for i in range(repeats + 1):
        for name, pipe in (("student", student), ("teacher", teacher)):
            start = time.perf_counter()
            pipe.draw(list(prompts), list(range(batch)), encoder)
            if i:
                times[name].append((time.perf_counter() - start) / batch * 1e3)
    return {name: float(np.median(t)) for name, t in times.items()}


def study(
    workdir: str,
    teacher_path: str,
    data: str,
    out: str,
    *,
    classifier_path: str,
    command: str,
    limit: int | None = None,
    keep: str = ".cache/pictures",
) -> dict[str, Any]:
    """Compares the student of a run with its teacher on the held-out postcards in ``data`` and writes ``out`` (HTML)
    and the same figures beside it as JSON. ``limit``: at most so many prompts; ``keep``: where pictures are kept for
    the next evaluation (``draw_kept``). Returns the figures."""
    records = load_cards(data, limit)
    prompts = [r["caption"] for r in records]
    encoder = text.load_text_encoder(text.default_minilm_source())
    student, teacher = pipeline.load(workdir), pipeline.load(teacher_path)
    sets = draw_sets(student, teacher, prompts, encoder, Path(keep))
    spread_prompts = prompts[:DIVERSITY_PROMPTS]
    spread = {
        name: draw_seeds(p, spread_prompts, encoder, Path(keep))
        for name, p in (("teacher80", teacher), ("student4", student))
    }
    real = np.stack([r["image"] for r in records])
    judge = classifier.load(classifier_path)
    figures = suite.evaluate(sets, records, real, judge, diversity_sets=spread)
    figures["ms_per_image"] = time_per_image(student, teacher, prompts[:TIMED], encoder)
    figures["speedup"] = figures["ms_per_image"]["teacher"] / figures["ms_per_image"]["student"]
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    write(target, Path(workdir), figures, sets, records, command)
    return figures


def load_cards(data: str, limit: int | None = None) -> list[dict[str, Any]]:
    """The held-out records, an equal share of each category first."""
    source = RecordSource(data)
    return [source[i] for i in range(min(len(source), limit or len(source)))]


def write(
    target: Path, workdir: Path, figures: Mapping, sets: Mapping, records: Sequence[Mapping], command: str
) -> None:
    """The report page of a run that has been measured."""
    grids = {}
    for category in dict.fromkeys(r["category"] for r in records):
        chosen = [i for i, r in enumerate(records) if r["category"] == category][:SHOWN]
        columns = {label: [sets[name][i] for i in chosen] for name, label in LABELS.items() if name in sets}
        grids[category] = dict(captions=[records[i]["caption"] for i in chosen], columns=columns)
    config = json.loads((workdir / "config.json").read_text())
    rows = [[image for grid in grids.values() for image in grid["columns"][label][:3]] for label in LABELS.values()]
    contact_sheet(rows, labels=list(LABELS.values())).save(target.with_suffix(".png"))
    ms = figures["ms_per_image"]
    report.write_report(
        target, title="A four-step student of the postcards' teacher", command=command, metrics=figures, grids=grids,
        curves=run_metrics.read(workdir), step_table=(workdir / "step_table.txt").read_text(),
        config_text=json.dumps(config, indent=1),
        facts={"ms per image, student": round(ms["student"], 2), "ms per image, teacher": round(ms["teacher"], 2),
               "speed-up": f"{figures['speedup']:.1f} x"},
    )  # fmt: skip
