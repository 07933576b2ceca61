"""From a configuration to what a run does: the recipe of its steps, its lambda table and its step table."""

import collections
import json
import math
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flashjax import flow
from flashjax.config import OPERATIONS
from flashjax.distill import guidance, schedule, steps
from flashjax.errors import UserError, did_you_mean
from flashjax.models import latents
from flashjax.settings import unread

AS_THEY_ARE = ("rollout_mode", "ema_decay", "critic_updates_per_rollout", "share_sample", "substeps")  # of a Recipe
UNREAD = {"uniform": ("mean", "std"), "logit_normal": ("low", "high")}  # of a TimeSampler, by its kind
TEACHER = ("weights", "guidance", "negative")  # what config.distill.teachers may say of each; the last two need not be


def make_recipe(config: ConfigDict) -> steps.Recipe:
    """The distillation recipe of ``config.distill``; what is not in it keeps Recipe's default. Raises ValueError for
    settings that do not fit together."""
    names, grid = teacher_names(config), tuple(flow.time_grid(config.nfe, config.shift).tolist())
    common = _scale("config.distill.guidance", config.guidance)
    own = {name: given["guidance"] for name, given in config.teachers.items() if "guidance" in given}
    own = {name: _scale(f"config.distill.teachers.{name}.guidance", given) for name, given in own.items()}
    return steps.Recipe(
        grid=grid,
        lambdas=make_lambdas(config)[1][0],
        guidance_scales=tuple(own.get(name, common) for name in names),
        **{name: steps.TimeSampler(**config[name]) for name in ("student_times", "critic_times") if name in config},
        **{name: config[name] for name in AS_THEY_ARE if name in config},
    )


def _scale(where: str, given: Any) -> guidance.Scale:
    """The guidance that a configuration gives as times and scales. Raises UserError that begins with ``where``."""
    told = given.to_dict() if isinstance(given, ConfigDict) else given
    if not isinstance(told, Mapping) or set(told) != {"times", "scales"}:
        raise UserError(f"{where} is {told!r}; guidance has times and scales: dict(times=(0.0,), scales=(2.0,)).")
    for name, values in told.items():
        if not isinstance(values, tuple | list) or not all(isinstance(value, numbers.Real) for value in values):
            raise UserError(f"{where}.{name} is {values!r}; it is a number for each knot, as in (0.05, 0.8).")
    try:
        return guidance.Scale(tuple(told["times"]), tuple(told["scales"]))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def teacher_names(config: ConfigDict) -> tuple[str, ...]:
    """The teachers of ``config.distill`` in the order of the lambda table: "base", then the others by name. Raises
    UserError for a teacher that says what none has, or names no weights."""
    if not isinstance(config.teachers, ConfigDict) or guidance.BASE not in config.teachers:
        raise UserError(f"config.distill.teachers has no teacher {guidance.BASE!r}; it takes what the others leave.")
    for name, teacher in config.teachers.items():
        where = f"config.distill.teachers.{name}"
        if not isinstance(teacher, ConfigDict):
            raise UserError(f"{where} is {teacher!r}; a teacher is written dict(weights=...).")
        for setting in teacher:
            if setting not in TEACHER:
                hint = did_you_mean(setting, TEACHER, "a teacher has")
                raise UserError(f"There is no setting {where}.{setting}; {hint}")
        if not isinstance(teacher.get("weights"), str) or not teacher.weights:
            raise UserError(f"The teacher {name!r} has no weights; name the folder of its weights as {where}.weights.")
        if not isinstance(teacher.get("negative", ""), str):
            raise UserError(f"{where}.negative is {teacher.negative!r}; it is a prompt.")
    return (guidance.BASE, *(name for name in config.teachers if name != guidance.BASE))


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """The rows of the lambda table: the categories of prompts, and edits."""
    named = isinstance(config.classes, list | tuple) and all(isinstance(name, str) for name in config.classes)
    if not named or not config.classes or len(set(config.classes)) < len(config.classes) or "edit" in config.classes:
        raise UserError(
            f"config.distill.classes is {config.classes}; it names the categories of the prompts, each once, "
            "and edits are a class of their own."
        )
    return (*config.classes, "edit")


def make_lambdas(config: ConfigDict) -> tuple[tuple[float, ...], np.ndarray]:
    """(shares of the run at which a table begins to hold, float32 [tables, steps, classes, teachers])."""
    pairs, tables = guidance_tables(config), []
    known = dict(steps=config.nfe, classes=class_names(config), teachers=teacher_names(config))
    for start, table in pairs:
        try:
            tables.append(guidance.named_table(table, **known))
        except ValueError as error:
            when = f", from {start:g} of the run on" if len(pairs) > 1 else ""
            raise UserError(f"config.distill.guidance_table{when}: {error}") from error
    return tuple(start for start, _ in pairs), np.stack(tables)


def guidance_tables(config: ConfigDict) -> tuple[tuple[float, Any], ...]:
    """(share of the run from which it holds, table as it is written) of ``config.distill``."""
    return _over_time("distill.guidance_table", config.to_dict()["guidance_table"])


def _over_time(name: str, setting: Any) -> tuple[tuple[float, Any], ...]:
    try:
        return schedule.over_time(setting)
    except ValueError as error:
        raise UserError(f"config.{name}: {error}") from error


def task_ratios(config: ConfigDict) -> dict:
    """T2I to edits over the run, as the step table takes them."""
    pairs = _over_time("edit_share", config.edit_share)
    for _, share in pairs:
        if not isinstance(share, numbers.Real) or not 0 <= share <= 1:
            raise UserError(
                f"config.edit_share is {share!r}; the share of edits is a number in [0, 1], or over the run such as "
                "((0, 0.0), (0.5, 0.3))."
            )
    return dict(task_ratios=[(1 - e, e) for _, e in pairs], task_starts=tuple(start for start, _ in pairs))


def make_table(config: ConfigDict, recipe: steps.Recipe | None) -> schedule.StepTable:
    ratios = task_ratios(config)
    if recipe is None:
        return schedule.flow_matching_table(config.steps, **ratios)
    starts, lambdas = make_lambdas(config.distill)
    edit = len(config.distill.classes)  # the class behind the categories
    common = dict(lambdas=lambdas, starts=starts, classes=(_classes_read(config), (edit,)), seed=config.seed, **ratios)
    if config.objective == "trajectory":
        if recipe.rollout_mode != "euler":  # the target is a step's mean velocity, which tells of no clean picture
            raise UserError(
                f"config.distill.rollout_mode is {recipe.rollout_mode}, and a trajectory is followed from state to "
                "state; set it to euler, or distil by distribution matching (config.objective=dmd)."
            )
        return schedule.trajectory_table(config.student_updates, step_rows=_step_rows(config.distill), **common)
    if not config.distill.critic_rows and not config.distill.share_sample:
        raise UserError("The critic would never follow the student; set config.distill.critic_rows or share_sample.")
    return schedule.distillation_table(
        config.student_updates, critic_rows=config.distill.critic_rows, critic_warmup=config.distill.critic_warmup,
        **common,
    )  # fmt: skip


def _step_rows(config: ConfigDict) -> tuple[int, ...] | None:
    """``config.distill.step_rows``, None where every step has as many rows. Raises UserError."""
    rows = config.get("step_rows", ())
    if rows == ():
        return None
    whole = isinstance(rows, tuple | list) and all(isinstance(n, numbers.Integral) and n > 0 for n in rows)
    if not whole or len(rows) != config.nfe or sum(rows) > 127:
        raise UserError(
            f"config.distill.step_rows is {rows!r}; it says for each of the {config.nfe} steps of the student how many "
            "rows of a block, of 127 at the most, train it, as (2, 1, 1, 1) for four of which the first has two fifths."
        )
    return tuple(rows)


def _classes_read(config: ConfigDict) -> tuple[int, ...]:
    """The classes of prompts that config.sources can hold: a teacher that is heard in others alone is never run."""
    found: set[str] = set()
    for source in config.sources.to_dict().values():
        if source.get("task", schedule.TASKS[0]) == schedule.TASKS[0]:
            for _, weight in schedule.over_time(source.get("weight", 1.0)):
                by_class = weight if isinstance(weight, Mapping) else dict.fromkeys(config.distill.classes, weight)
                found |= {name for name, each in by_class.items() if each}
    return tuple(c for c, name in enumerate(config.distill.classes) if name in found)


def describe(config: ConfigDict, table: schedule.StepTable) -> str:
    """The step table, the lambda tables, and what the configuration says in vain, for people."""
    lines = [table.describe()]
    if config.objective != "flow_matching":
        names, classes = teacher_names(config.distill), class_names(config.distill)
        classes = classes if table.task.any() else classes[:-1]
        for start, lambdas in zip(table.starts, table.lambdas, strict=True):
            lines.append(f"weights of the teachers by step of the student, from row {start} on")
            lines.append(guidance.describe(lambdas[:, : len(classes)], classes, names))
    return "\n".join(lines + [f"without effect: {told}" for told in in_vain(config, table)])


def in_vain(config: ConfigDict, table: schedule.StepTable) -> list[str]:
    """What the configuration names and no row of the table uses: a sentence for each."""
    told = [*_unread_times(config)]
    told += [f"config.{name}, which the objective {config.objective} does not read." for name in unread(config)]
    told += [*_unread_groups(config), *_unread_sources(config, table), *_unreached(config, table)]
    return told if config.objective == "flow_matching" else [*told, *_unheard(config, table)]


def _unread_groups(config: ConfigDict) -> Iterator[str]:
    """Of groups of which one setting says that the others are not read, and which every run has."""
    watched = config.watch.data or config.watch.edit_data
    why = dict(
        lora="" if config.lora.rank else "config.lora.rank is 0",
        autoencoder="pixels have none" if config.autoencoder.architecture == latents.PIXELS.name else "",
        watch="" if watched else "neither config.watch.data nor edit_data names a set",
    )
    for group in filter(why.get, why):
        now, before = json.loads(config[group].to_json()), json.loads(json.dumps(OPERATIONS[group]))
        yield from (f"config.{group}.{name}, as {why[group]}." for name in now if now[name] != before[name])


def _unread_sources(config: ConfigDict, table: schedule.StepTable) -> Iterator[str]:
    tasks = set(table.task.tolist())
    for name, source in config.sources.to_dict().items():
        task = source.get("task", schedule.TASKS[0])
        if schedule.TASKS.index(task) not in tasks:
            yield f"config.sources.{name} is never read, as config.edit_share leaves no row to the task {task}."
        elif all(_nothing(weight) for _, weight in schedule.over_time(source.get("weight", 1.0))):
            yield f"config.sources.{name} is never read, as its weight is 0."


def _unreached(config: ConfigDict, table: schedule.StepTable) -> Iterator[str]:
    """What the run is too short for, and drawings that no checkpoint follows."""
    if config.profile[0] >= len(table):
        yield f"config.profile, as the run ends before its row {config.profile[0]}."
    for name, count in updates(config, table).items():
        if 0 < count <= config[name].warmup:
            yield (
                f"config.{name}.lr, which is never reached: its warmup takes {config[name].warmup} updates, and the "
                f"run has {count}."
            )
    one_in = math.lcm(config.sample_every, config.checkpoint_every) // config.sample_every
    if config.keep_best and one_in > 1:
        yield (
            f"config.keep_best for drawings that no checkpoint follows, all but one in {one_in}; make "
            "config.sample_every a multiple of config.checkpoint_every."
        )


def _unheard(config: ConfigDict, table: schedule.StepTable) -> Iterator[str]:
    """Of the teachers, their weights and what they are told."""
    names, rows = teacher_names(config.distill), collections.defaultdict(set)
    for _, given in guidance_tables(config.distill):
        for c, row in given.items():
            rows[c] |= set(row)
    heard = {names[m] for program in table.programs() for m in program.active}
    tasks, classes = set(table.task.tolist()), config.distill.classes
    read = {classes[c] for c in _classes_read(config)}
    for c, named in rows.items():
        where = f"the weights for {c!r} in config.distill.guidance_table"
        if int(c == "edit") not in tasks:
            yield f"{where}, as config.edit_share leaves it no row."
        elif c not in ("edit", *read) and named & heard:
            yield f"{where}, as the weights of config.sources leave it out."
    for name, scale in zip(names, make_recipe(config.distill).guidance_scales, strict=True):
        if name not in {guidance.BASE, *heard}:
            yield f"the teacher {name!r} is never heard, and its weights are loaded all the same; take it out."
        if scale.off and config.distill.teachers[name].get("negative"):
            yield f"the negative prompt of the teacher {name!r}, whose guidance is 1 at every t."


def updates(config: ConfigDict, table: schedule.StepTable) -> dict[str, int]:
    """How many updates each optimizer of the run makes, the student's first."""
    if config.objective != "dmd":
        return {"optim" if config.objective == "flow_matching" else "student_optim": len(table)}
    distill, student = config.distill, int((table.phase == schedule.STUDENT).sum())
    critic = (len(table) - student) * distill.critic_updates_per_rollout
    return dict(student_optim=student, critic_optim=critic + (student if distill.share_sample else 0))


def _unread_times(config: ConfigDict) -> Iterator[str]:
    read = dict(flow_matching=("times",), dmd=("distill.student_times", "distill.critic_times"))
    for where in read.get(config.objective, ()):
        *group, name = where.split(".")
        times = (config[group[0]] if group else config).get(name, {})
        kind = times.get("kind", steps.TimeSampler.kind)
        yield from (f"config.{where}.{n}, as times of the kind {kind} have none." for n in UNREAD[kind] if n in times)


def _nothing(weight: Any) -> bool:
    return not any(weight.values() if isinstance(weight, Mapping) else [weight])
