"""Student against teacher on held-out prompts: draws all sets of pictures, times them, measures them, writes the
report."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from flashjax import __version__, checkpoint, pipeline, recipe
from flashjax import metrics as run_metrics
from flashjax.data.records import RecordSource
from flashjax.errors import UserError
from flashjax.evaluate import classifier, ocr, report, suite
from flashjax.evaluate.watch import HELD_OUT
from flashjax.files import as_csv, whole, write_whole
from flashjax.models import text
from flashjax.pictures import contact_sheet
from flashjax.pipeline import Pipeline
from flashjax.workdir import check_out

HEAD = ("pictures", "figure", "value", "low", "high")  # of the figures as a table
COLUMNS = ("teacher80", "teacher4", "teacher4_guided", "student4")  # of the report, from left to right
# What records have to hold, and the command that makes them. Of a teacher's guidance any pictures with prompts tell.
KINDS = HELD_OUT | dict(pictures=({"caption", "image"}, "flashjax prepare --split heldout"))
SHOWN = 6  # pictures a category in the report
TIMED = 64  # pictures of the batch that is timed
NOTE = (
    "Distances, precision and recall are to the teacher's pictures from other seeds, in features of the classifier; "
    "the many-step teacher's own row is how near a perfect student would come."
)


def draw_kept(
    pipe: Pipeline, prompts: Sequence[str], seeds: Sequence[int], encoder: text.TextEncoder, folder: Path, **settings
) -> np.ndarray:
    """``pipe.draw``'s pictures, from ``folder`` where they were drawn before: the teacher takes most of the time of an
    evaluation and draws the same for every student. A file's name is the hash of all that decides its pictures."""
    path = folder / f"{_digest(pipe, prompts, seeds, encoder, settings)}.npy"
    if path.exists():
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            logging.warning("%s is damaged (%s); its pictures are drawn again.", path, error)
    folder.mkdir(parents=True, exist_ok=True)  # first: one that cannot be made is told before the minutes of drawing
    images = pipe.draw(list(prompts), list(seeds), encoder, **settings)
    with whole(path) as partial, partial.open("wb") as file:
        np.save(file, images)
    return images


def _digest(pipe: Pipeline, prompts: Sequence[str], seeds: Sequence[int], encoder, settings: Mapping) -> str:
    asked = [
        pipeline.DRAWING_VERSION, repr(pipe.model_config), pipe.defaults | settings, pipe.image_size,
        encoder.identity, list(prompts), list(seeds), checkpoint.digest(pipe.params),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


class Plan(NamedTuple):
    """One set of the comparison: who draws, from which seed on, with which settings, and what people read of it."""

    pipe: Pipeline
    seed: int
    settings: dict
    label: str


def make_plans(student: Pipeline, teacher: Pipeline, prompts: int) -> dict[str, Plan]:
    """Name to plan. All sets start from the same noise a prompt, but for ``reference``, the teacher's second set, to
    which the distances of all others are measured. A teacher without guidance has no guided set."""
    few = {name: student.defaults[name] for name in ("steps", "shift")}
    plain, *guided = few_steps(teacher, **few)
    many = f"teacher, {nfe(teacher)} NFE"
    plans = {
        "student4": Plan(student, 1, {}, f"student, {nfe(student)} NFE"),
        "teacher4": Plan(teacher, 1, plain, f"teacher, {nfe(teacher, **plain)} NFE"),
    }
    for own in guided:
        label = f"teacher, {few['steps']} steps guided ({nfe(teacher, **own)} NFE)"
        plans["teacher4_guided"] = Plan(teacher, 1, own, label)
    return plans | {
        "teacher80": Plan(teacher, 1, {}, many),
        "reference": Plan(teacher, 1 + prompts, {}, f"{many}, other seeds"),
    }


def few_steps(teacher: Pipeline, **few) -> list[dict]:
    """Settings for a teacher on ``few`` steps: at a student's cost, and with its own guidance if it has any."""
    scales = dict.fromkeys((1.0, teacher.defaults["guidance_scale"]))
    return [few | dict(guidance_scale=scale) for scale in scales]


def nfe(pipe: Pipeline, **settings) -> int:
    """Evaluations of the network a picture."""
    s = pipe.defaults | settings
    return s["steps"] * (1 if s["guidance_scale"] == 1 else 2)


def draw_sets(
    plans: Mapping[str, Plan], prompts: Sequence[str], encoder: text.TextEncoder, keep: Path
) -> dict[str, np.ndarray]:
    """uint8 [N, H, W, 3] for every plan."""
    sets = {}
    for name, plan in tqdm(plans.items(), desc="drawing", unit="set"):
        seeds = range(plan.seed, plan.seed + len(prompts))
        sets[name] = draw_kept(plan.pipe, prompts, seeds, encoder, keep, **plan.settings)
    return sets


def timing(
    student: Pipeline, teacher: Pipeline, prompts: Sequence[str], encoder: text.TextEncoder, repeats: int = 2
) -> dict[str, Any]:
    """``ms_per_image``, the median milliseconds of both, drawn as one batch, alternating in one run after a warm-up,
    with text encoding; their ratio, ``speedup``; and ``load``, how many processes wanted a core meanwhile. A student
    draws several times a turn: its second or so of work is longer by half where another process passes by."""
    batch, times = len(prompts), {"student": [], "teacher": []}
    for i in range(repeats + 1):
        for name, pipe in (*[("student", student)] * 4, ("teacher", teacher)):
            start = time.perf_counter()
            pipe.draw(list(prompts), list(range(batch)), encoder)
            if i:
                times[name].append((time.perf_counter() - start) / batch * 1e3)
    ms = {name: float(np.median(t)) for name, t in times.items()}
    return {"ms_per_image": ms, "speedup": ms["teacher"] / ms["student"], "load": os.getloadavg()[0]}


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
    step: int | None = None,
) -> dict[str, Any]:
    """Compares the student of a run with its teacher on the held-out postcards in ``data`` and writes ``out`` (HTML),
    the same figures beside it as JSON and, those of the sets of pictures, as CSV. ``limit``: at most so many prompts;
    ``keep``: where pictures are kept for the next evaluation (``draw_kept``); ``step``: of the run's checkpoint, None
    for the newest. Returns the figures. Raises UserError, before anything is drawn."""
    check_paths(workdir, out, data)
    ocr.reader()
    records = load_cards(data, limit)
    side, prompts = records[0]["image"].shape[0], [r["caption"] for r in records]
    judge, encoder = classifier.load(classifier_path), text.default_encoder()
    student, teacher = pipeline.load(workdir, step=step), pipeline.load(teacher_path)
    check_sizes({data: side, workdir: student.image_size, teacher_path: teacher.image_size}, judge)
    encoder.tokens(prompts, min(student.max_text_tokens, teacher.max_text_tokens))
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    sets, figures = measure(student, teacher, records, judge, encoder, Path(keep))
    write_whole(target.with_suffix(".json"), (json.dumps(figures, indent=1) + "\n").encode())
    write_whole(target.with_suffix(".csv"), as_csv(HEAD, figures_of(figures["entries"])).encode())
    title = f"A {student.defaults['steps']}-step student of the postcards' teacher"
    write(target, Path(workdir), title, figures, sets, records, command)
    return figures


def figures_of(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple]:
    """Every figure of every set of pictures, as HEAD has it: "" where it has no interval."""
    for entry in entries.values():
        for name, value in entry.items():
            if isinstance(value, Mapping):
                yield from ((entry["label"], f"{name}/{key}", each, "", "") for key, each in value.items())
            elif name != "label" and not isinstance(value, list | tuple):
                yield (entry["label"], name, value, *entry.get(f"{name}_interval", ("", "")))


def measure(
    student: Pipeline, teacher: Pipeline, records: Sequence[Mapping], judge: classifier.Classifier,
    encoder: text.TextEncoder, keep: Path,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # fmt: skip
    """(all sets of pictures, all figures)."""
    prompts, real = [r["caption"] for r in records], np.stack([r["image"] for r in records])
    plans = make_plans(student, teacher, len(prompts))
    sets = draw_sets(plans, prompts, encoder, keep)
    others = range(plans["reference"].seed, plans["reference"].seed + len(prompts))
    again = draw_kept(student, prompts, others, encoder, keep)
    pairs = {"teacher80": (sets["teacher80"], sets["reference"]), "student4": (sets["student4"], again)}
    spread = {name: np.stack(pair, 1) for name, pair in pairs.items()}  # two seeds of every prompt
    labels = {name: plan.label for name, plan in plans.items()} | {"real": "real pictures"}
    figures = suite.evaluate(sets, records, real, judge, diversity_sets=spread, labels=labels)
    return sets, figures | timing(student, teacher, prompts[:TIMED], encoder)


def check_paths(workdir: str, out: str, data: str) -> None:
    """Raises UserError for a report that would not be one, and for what is not a run."""
    if Path(out).suffix.lower() != ".html":
        beside = "the figures and a picture go beside it, as .json, .csv and .png."
        raise UserError(f"--out {out} has to end in .html; {beside}")
    if not all((Path(workdir) / name).is_file() for name in ("config.json", "step_table.txt", "metrics.jsonl")):
        raise UserError(
            f"{workdir} is not the work directory of a run (config.json, step_table.txt, metrics.jsonl, checkpoints/); "
            "the report tells of the training, so give the run and not what was exported from it."
        )
    check_out(Path(out), (".json", ".csv", ".png"), [workdir], read=[data])


def load_cards(data: str, limit: int | None = None, kind: str = "data") -> list[dict[str, Any]]:
    """The held-out records, an equal share of each category first. ``kind``: one of KINDS. Raises UserError where they
    cannot be measured on."""
    source = RecordSource(data)
    count = len(source) if limit is None else min(len(source), limit)
    keys, command = KINDS[kind]
    if "image" not in source[0]:
        raise UserError(f"{data} holds prompts only; `{command}`, without --prompts-only, makes what is measured here.")
    if source[0]["image"].dtype != np.uint8:
        raise UserError(f"{data} holds pictures as latents; prepare it without --encoder to measure on it.")
    # An edit has a caption and a picture too, but its picture is not what the caption says.
    if not keys <= source[0].keys() or (kind != "edit_data" and "source" in source[0]):
        raise UserError(f"{data} holds records of another kind; `{command}` makes those that are measured here.")
    if count < 2:
        raise UserError(f"{count} postcard of {data} is too few to measure a distance; take two or more.")
    return [source[i] for i in range(count)]


def check_sizes(sizes: Mapping[str, int], judge: classifier.Classifier) -> None:
    """Raises UserError where pictures (path to side) are not all of the size that the classifier reads."""
    if wrong := [f"{path} ({side} px)" for path, side in sizes.items() if side != judge.config.side]:
        raise UserError(
            f"The classifier reads pictures of {judge.config.side} px, but there are others in {', '.join(wrong)}; "
            f"give a classifier, a teacher, a student and held-out pictures of one size."
        )


def write(
    target: Path, workdir: Path, title: str, figures: Mapping, sets: Mapping, records: Sequence[Mapping], command: str
) -> None:
    """The report page of a run that has been measured."""
    grids, labels = {}, {name: figures["entries"][name]["label"] for name in COLUMNS if name in sets}
    for category in dict.fromkeys(r["category"] for r in records):
        chosen = [i for i, r in enumerate(records) if r["category"] == category][:SHOWN]
        columns = {label: [sets[name][i] for i in chosen] for name, label in labels.items()}
        grids[category] = dict(captions=[records[i]["caption"] for i in chosen], columns=columns)
    rows = [[image for grid in grids.values() for image in grid["columns"][label][:3]] for label in labels.values()]
    contact_sheet(rows, labels=list(labels.values())).save(target.with_suffix(".png"))
    if worst := figures["worst"]:
        columns = {label: [sets[name][w["prompt"]] for w in worst] for name, label in labels.items()}
        grids["Worst of the student first"] = dict(captions=[_missed(w, records) for w in worst], columns=columns)
    config = json.loads((workdir / "config.json").read_text())
    ms = figures["ms_per_image"]
    report.write_report(
        target, title=title, command=command, metrics={**figures, "note": NOTE}, grids=grids,
        curves={
            name: curve for name, curve in run_metrics.read(workdir).items()
            if not name.startswith("data/") and "/t0" not in name
        },
        step_table=(workdir / "step_table.txt").read_text(),
        config_text=json.dumps(config, indent=1),
        facts={"ms per image, student": round(ms["student"], 2), "ms per image, teacher": round(ms["teacher"], 2),
               "speed-up": f"{figures['speedup']:.1f} x", "flashjax": __version__, "date": f"{date.today()}",
               "load while timing": f"{figures['load']:.1f} on {os.cpu_count()} cores"},
        guidance=guidance_tables(ConfigDict(config)),
    )  # fmt: skip


def guidance_tables(config: ConfigDict) -> dict[str, tuple]:
    """The lambda tables of a run with several teachers, by when they hold: (classes, teachers, weights)."""
    if "distill" not in config or len(teachers := recipe.teacher_names(config.distill)) == 1:
        return {}
    starts, tables = recipe.make_lambdas(config.distill)
    classes = recipe.class_names(config.distill)[: None if config.edit_share else -1]
    when = [f"From {start * 100:g}% of the run on" if len(starts) > 1 else "All through the run" for start in starts]
    return {name: (classes, teachers, table[:, : len(classes)]) for name, table in zip(when, tables, strict=True)}


def _missed(worst: Mapping[str, Any], records: Sequence[Mapping]) -> str:
    """The caption of a bad picture, with what the classifier sees in it."""
    parts = (f"{name}: {seen} for {named}" for name, (named, seen) in worst["missed"].items())
    return f"{records[worst['prompt']]['caption']} [seen {'; '.join(parts)}]"
