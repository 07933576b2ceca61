"""From a configuration to what a run does: the recipe of its steps, its lambda table and its step table."""

import difflib

import numpy as np
from ml_collections import ConfigDict

from flashjax import flow
from flashjax.distill import guidance, schedule, steps
from flashjax.errors import UserError

AS_THEY_ARE = ("rollout_mode", "ema_decay", "critic_updates_per_rollout", "share_sample", "substeps")  # of a Recipe
TEACHER = ("weights", "guidance", "negative")  # what config.distill.teachers may say of each; the last two need not be


def make_recipe(config: ConfigDict) -> steps.Recipe:
    """The distillation recipe of ``config.distill``; what is not in it keeps Recipe's default. Raises ValueError for
    settings that do not fit together."""
    names, grid = teacher_names(config), tuple(flow.time_grid(config.nfe, config.shift).tolist())
    scales = [config.teachers[name].get("guidance", config.guidance) for name in names]
    return steps.Recipe(
        grid=grid,
        lambdas=make_lambdas(config)[1][0],
        guidance_scales=tuple(guidance.Scale(tuple(scale["times"]), tuple(scale["scales"])) for scale in scales),
        **{name: steps.TimeSampler(**config[name]) for name in ("student_times", "critic_times") if name in config},
        **{name: config[name] for name in AS_THEY_ARE if name in config},
    )


def teacher_names(config: ConfigDict) -> tuple[str, ...]:
    """The teachers of ``config.distill`` in the order of the lambda table: "base", then the others by name."""
    if guidance.BASE not in config.teachers:
        raise UserError(f"config.distill.teachers has no teacher {guidance.BASE!r}; it takes what the others leave.")
    for name, teacher in config.teachers.items():
        for setting in teacher:
            if setting not in TEACHER:
                near = difflib.get_close_matches(setting, TEACHER, 1)
                hint = f"did you mean {near[0]}?" if near else f"a teacher has {', '.join(TEACHER)}."
                raise UserError(f"There is no setting config.distill.teachers.{name}.{setting}; {hint}")
    return (guidance.BASE, *(name for name in config.teachers if name != guidance.BASE))


def class_names(config: ConfigDict) -> tuple[str, ...]:
    """The rows of the lambda table: the categories of prompts, and edits."""
    if not config.classes or len(set(config.classes)) < len(config.classes) or "edit" in config.classes:
        raise UserError(
            f"config.distill.classes is {tuple(config.classes)}; it names the categories of the prompts, each once, "
            "and edits are a class of their own."
        )
    return (*config.classes, "edit")


def make_lambdas(config: ConfigDict) -> tuple[tuple[float, ...], np.ndarray]:
    """(shares of the run at which a table begins to hold, float32 [tables, steps, classes, teachers])."""
    pairs = schedule.over_time(config.guidance_table)
    known = dict(steps=config.nfe, classes=class_names(config), teachers=teacher_names(config))
    tables = [guidance.named_table(table, **known) for _, table in pairs]
    return tuple(start for start, _ in pairs), np.stack(tables)


def task_ratios(config: ConfigDict) -> dict:
    """T2I to edits over the run, as the step table takes them."""
    pairs = schedule.over_time(config.edit_share)
    if wrong := [share for _, share in pairs if not 0 <= share <= 1]:
        raise UserError(f"config.edit_share is {wrong[0]}; the share of edits lies in [0, 1].")
    return dict(task_ratios=[(1 - e, e) for _, e in pairs], task_starts=tuple(start for start, _ in pairs))


def make_table(config: ConfigDict, recipe: steps.Recipe | None) -> schedule.StepTable:
    ratios = task_ratios(config)
    if recipe is None:
        return schedule.flow_matching_table(config.steps, **ratios)
    starts, lambdas = make_lambdas(config.distill)
    edit = len(config.distill.classes)  # the class behind the categories
    common = dict(lambdas=lambdas, starts=starts, classes=(tuple(range(edit)), (edit,)), seed=config.seed, **ratios)
    if config.objective == "trajectory":
        return schedule.trajectory_table(config.student_updates, **common)
    return schedule.distillation_table(
        config.student_updates, critic_rows=config.distill.critic_rows, critic_warmup=config.distill.critic_warmup,
        **common,
    )  # fmt: skip


def describe(config: ConfigDict, table: schedule.StepTable) -> str:
    """The step table and the lambda tables, for people."""
    lines = [table.describe()]
    if config.objective != "flow_matching":
        names, classes = teacher_names(config.distill), class_names(config.distill)
        classes = classes if table.task.any() else classes[:-1]
        for start, lambdas in zip(table.starts, table.lambdas, strict=True):
            lines.append(f"weights of the teachers by step of the student, from row {start} on")
            lines.append(guidance.describe(lambdas[:, : len(classes)], classes, names))
    return "\n".join(lines)
