"""What no run can have, said before anything is compiled: settings by themselves, and settings beside their data."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flashjax import flow, optim
from flashjax.axes import AXES
from flashjax.config import OPERATIONS, settle
from flashjax.distill import rollout, schedule, steps
from flashjax.errors import UserError, did_you_mean
from flashjax.models import held, latents, lora
from flashjax.parallel import mesh as meshes
from flashjax.workdir import OPTIMIZERS

# What a configuration has to have: every one, and by its objective.
EVERY = (
    "objective", "seed", "batch_size", "mesh", "image_size", "model", "sources", "edit_share", "max_text_tokens",
    "log_every", "sample_every", "checkpoint_every", "keep_checkpoints",
)  # fmt: skip
_OPTIMIZER = (*optim.KNOWN, *optim.NUMBERS, "clip")
_STUDENT = ("teachers", "classes", "guidance_table", "nfe", "shift", "guidance", "rollout_mode")
_CRITIC = ("critic_rows", "critic_warmup", "critic_updates_per_rollout", "share_sample")
_TIMES = tuple(field.name for field in dataclasses.fields(steps.TimeSampler))
NEEDED = dict(
    flow_matching=("steps", "init", "times", "drop_rate", "optim", "ema_decay", "sample"),
    trajectory=("student_updates", "init", "distill", "student_optim"),
    dmd=("student_updates", "init", "distill", "student_optim", "critic_optim"),
)
# What of config.distill each reads.
DISTILLED = dict(
    trajectory=(*_STUDENT, "ema_decay", "substeps", "step_rows"),
    dmd=(*_STUDENT, *_CRITIC, "ema_decay", "student_times", "critic_times"),
)
# What groups of them have to have, and may have beside it; None: sizes, by names that models.make_config knows.
GROUPS = {
    "model": (("architecture", "preset"), None), "autoencoder": (latents.SETTINGS, None),
    "distill": (_STUDENT, (*_CRITIC, "ema_decay", "substeps", "step_rows", "student_times", "critic_times")),
    "distill.student_times": ((), _TIMES), "distill.critic_times": ((), _TIMES), "times": ((), _TIMES),
    "sample": (("steps", "shift", "guidance_scale", "mode"), ()), "mesh": (AXES, ()),
    **dict.fromkeys(OPTIMIZERS, (_OPTIMIZER, ())),
    **{name: ((), tuple(OPERATIONS[name])) for name in ("lora", "watch")},
}  # fmt: skip
SOURCE = ("path", "task", "weight")  # what config.sources may say of each; the last two need not be
EDITS = ("qwen_image_21", "qwen_image", "flux2")  # architectures that are trained on pictures to edit
MOST_ROWS = 10**8  # of a run; each takes some bytes of the step table
LEAST = dict(batch_size=1, log_every=1, sample_every=1, checkpoint_every=1, keep_checkpoints=1, seed=0)
LEAST |= dict(watchdog_minutes=0, micro_batches=1)
# What settings have to be, where they are there: a file may write anything, and 4.0 is no count of steps.
WHOLE = (
    "seed", "batch_size", "micro_batches", "image_size", "max_text_tokens", "steps", "student_updates", "log_every",
    "sample_every", "checkpoint_every", "keep_checkpoints", "sample.steps", "lora.rank", "watch.count", "distill.nfe",
    "distill.substeps", "distill.critic_rows", "distill.critic_warmup", "distill.critic_updates_per_rollout",
    *(f"mesh.{axis}" for axis in AXES),
)  # fmt: skip
NUMBERS = (
    "watchdog_minutes", "drop_rate", "ema_decay", "sample.shift", "sample.guidance_scale", "lora.alpha",
    "distill.shift", "distill.ema_decay",
    *(f"{group}times.{name}" for group in ("", "distill.student_", "distill.critic_") for name in _TIMES[1:]),
)  # fmt: skip
TEXTS = (
    "init", "compile_cache", "keep_best", "model.architecture", "model.preset", "watch.data", "watch.edit_data",
    "watch.classifier", *(f"autoencoder.{name}" for name in latents.SETTINGS),
)  # fmt: skip
NOTHING = (  # may be empty
    "init", "compile_cache", "keep_best", "watch.data", "watch.edit_data", "autoencoder.preset", "autoencoder.weights",
)  # fmt: skip
KINDS = {"a whole number": (numbers.Integral, WHOLE), "a number": (numbers.Real, NUMBERS), "a text": (str, TEXTS)}


def unread(config: ConfigDict) -> list[str]:
    """The settings that a run of this objective does not read, as those of another one."""
    read = {*EVERY, *NEEDED[config.objective], *OPERATIONS}
    names = [name for name in config if name not in read]
    distilled = DISTILLED.get(config.objective, ())
    return names + [f"distill.{name}" for name in config.get("distill", ()) if distilled and name not in distilled]


def check_settings(config: ConfigDict) -> None:
    """Raises ValueError for settings that no run can have, and settles the others (config.settle). What the recipe, the
    step table and the mesh can tell is told where they are made, which is as early."""
    check_names(config)
    settle(config)
    check_sources(config.sources)
    check_kinds(config)
    for name, least in LEAST.items():
        if not config[name] >= least:  # nor nan
            raise UserError(f"config.{name} is {config[name]}; it has to be {least} or more.")
    if config.seed >> 32:
        raise UserError(f"config.seed is {config.seed}; jax takes its seeds from 32 bits, so it ends at {2**32 - 1}.")
    for name in ("steps", "student_updates"):
        if name in NEEDED[config.objective] and config[name] > MOST_ROWS:
            raise UserError(f"config.{name} is {config[name]}; it has to be {MOST_ROWS:,} at most.")
    for name in OPTIMIZERS:
        if name in NEEDED[config.objective]:
            optim.check(config[name], f"config.{name}")
    for name, known in dict(teacher_dtype=held.DTYPES, teacher_memory=held.MEMORIES).items():
        if config[name] not in known:
            raise UserError(f"config.{name} is {config[name]!r}; choose {', '.join(map(repr, known))}.")
    frozen = config.objective != "flow_matching" or lora.of(config)
    if not frozen and (config.teacher_dtype or config.teacher_memory != held.MEMORIES[0]):
        raise UserError("Flow matching without adapters has no frozen network; leave teacher_dtype and _memory alone.")
    meshes.check_sizes(config.mesh)
    stride = latents.of(config).stride
    if config.image_size < stride or config.image_size % stride:
        raise UserError(f"config.image_size is {config.image_size}; it has to be a multiple of {stride}.")
    prompts = config.sample_prompts
    if not isinstance(prompts, tuple | list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise UserError(f"config.sample_prompts is {prompts!r}; it has to be texts, as in ('a red house', 'a lake').")
    rows = config.profile if isinstance(config.profile, tuple | list) else ()
    if len(rows) != 2 or not all(map(_is_whole, rows)) or not 0 <= rows[0] <= rows[1]:
        raise UserError(f"config.profile is {config.profile!r}; write (first row, last row), or (0, 0) for none.")
    if config.objective == "flow_matching":
        check_flow_matching(config)
    if lora.of(config) is not None:
        check_lora(config)


def check_names(config: ConfigDict) -> None:
    """Raises UserError for settings that a configuration lacks, and for those that no run reads, as a misspelt one of
    a file. Sources, teachers and the sizes of networks are looked at where they are read."""
    objective = config.get("objective")
    needed, known = (*EVERY, *NEEDED.get(objective, ())), (*OPERATIONS, *dict.fromkeys(sum(NEEDED.values(), ())))
    _check_group(config, "config", needed, known)
    if objective not in NEEDED:
        raise UserError(f"There is no objective {objective!r}; choose {' or '.join(NEEDED)}.")
    for path, (own, more) in GROUPS.items():
        group, (first, *rest) = config, path.split(".")
        if first not in (*needed, *OPERATIONS) or (rest and rest[0] not in config[first]):
            continue  # of another objective, or left to its defaults
        for name in (first, *rest):
            group = group[name]
        _check_group(group, f"config.{path}", own + (_CRITIC if (objective, path) == ("dmd", "distill") else ()), more)


def _check_group(group: Any, where: str, needed: Sequence[str], more: Sequence[str] | None) -> None:
    known = tuple(dict.fromkeys((*needed, *(more or ()))))
    if not isinstance(group, ConfigDict):
        raise UserError(f"{where} is {group!r}; it is a group of settings: {', '.join(known)}.")
    if more is not None and (unknown := [name for name in group if name not in known]):
        hint = did_you_mean(unknown[0], known, f"{where} has", where + ".{}")
        raise UserError(f"There is no setting {where}.{unknown[0]}; {hint}")
    if missing := [name for name in needed if name not in group]:
        raise UserError(
            f"The run needs {where}.{missing[0]}, which this configuration does not have; take it from a shipped one."
        )


def check_kinds(config: ConfigDict) -> None:
    """Raises UserError for a setting that this run reads as a number or a text, and that is none, or no whole one.
    None in place of a text that may be empty becomes the empty one."""
    for _, group, name in _given(config, NOTHING):
        if group[name] is None:
            with group.ignore_type():
                group[name] = ""
    for wanted, (kind, paths) in KINDS.items():
        for path, group, name in _given(config, paths):
            if not _is(kind, group[name]):
                raise UserError(f"config.{path} is {group[name]!r}; it has to be {wanted}.")


def _given(config: ConfigDict, paths: Sequence[str]) -> Iterator[tuple[str, ConfigDict, str]]:
    """(path, its group, its name there) of those of ``paths`` that this run reads, and that are there."""
    read = (*EVERY, *NEEDED[config.objective], *OPERATIONS)
    for path in paths:
        *groups, name = path.split(".")
        if (*groups, name)[0] in read:
            group = functools.reduce(lambda found, each: found.get(each, {}), groups, config)
            if name in group:
                yield path, group, name


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


_is_whole = functools.partial(_is, numbers.Integral)


def check_sources(sources: Any) -> None:
    """Raises UserError for ``config.sources`` that name nothing, or say of a source what none has. What its manifest
    tells is told where it is opened (data.mixture)."""
    if not isinstance(sources, ConfigDict) or not sources:
        told = "empty" if isinstance(sources, ConfigDict) else repr(sources)
        raise UserError(f"config.sources is {told}; name at least one prepared set: {{'mine': {{'path': ...}}}}.")
    for name, given in sources.to_dict().items():
        where, has = f"config.sources.{name}", ", ".join(SOURCE)
        if not isinstance(given, Mapping):
            raise UserError(f"{where} is {given!r}; a source has {has}.")
        if unknown := [setting for setting in given if setting not in SOURCE]:
            raise UserError(f"There is no setting {where}.{unknown[0]}; a source has {has}.")
        if not isinstance(given.get("path"), str) or not given["path"]:
            raise UserError(f"The source {name!r} has no path; name the file of a prepared set as {where}.path.")
        if (task := given.get("task", schedule.TASKS[0])) not in schedule.TASKS:
            raise UserError(f"{where}.task is {task!r}; tasks are {', '.join(schedule.TASKS)}.")
        check_weight(f"{where}.weight", given.get("weight", 1.0))


def check_weight(where: str, weight: Any) -> None:
    """Raises UserError for what is neither a weight, nor weights by category, nor these over the run."""
    try:
        pairs = schedule.over_time(weight)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    for _, now in pairs:
        for category, number in now.items() if isinstance(now, Mapping) else [(None, now)]:
            if not isinstance(number, numbers.Real) or not 0 <= number < math.inf:
                at = "" if category is None else f" of {category!r}"
                raise UserError(
                    f"{where}{at} is {number!r}; a weight is a number from 0 on, or one by category: "
                    "{'portrait': 2.0, 'text': 1.0}."
                )


def check_flow_matching(config: ConfigDict) -> None:
    steps.TimeSampler(**config.times)
    flow.time_grid(config.sample.steps, config.sample.shift)
    rollout.check_mode(config.sample.mode)
    if not math.isfinite(config.sample.guidance_scale):
        raise UserError(f"config.sample.guidance_scale is {config.sample.guidance_scale}; 1.0 is no guidance.")
    if config.steps < 1:
        raise UserError(f"config.steps is {config.steps}; it has to be 1 or more.")
    for name in ("drop_rate", "ema_decay"):
        if not 0 <= config[name] < 1:
            raise UserError(f"config.{name} is {config[name]}; it has to lie in [0, 1).")


def check_lora(config: ConfigDict) -> None:
    if config.objective == "flow_matching" and not config.init:
        raise UserError("A LoRA run of flow matching adapts what config.init names; name it, or set lora.rank=0.")
    for name in OPTIMIZERS:
        if name in config and config[name].kind != "adamw":
            raise UserError(
                f"config.{name}.kind is {config[name].kind}, which is for whole matrices; with adapters choose adamw."
            )


def check_edits(config: ConfigDict, table: schedule.StepTable) -> None:
    """Raises UserError for a table with edits, or edits to watch, and an architecture that takes no picture."""
    if (table.task.any() or config.watch.edit_data) and config.model.architecture not in EDITS:
        raise UserError(f"{config.model.architecture} cannot be trained on edits yet; {', '.join(EDITS)} can.")


def check_latents(config: ConfigDict, model_config: Any, manifests: Mapping[str, dict]) -> latents.Latents:
    """The latents of the configuration. Raises UserError where model, autoencoder and data sets do not go together."""
    latents.check(config, model_config.in_channels)
    made = latents.of(config)
    for name, manifest in manifests.items():
        path, width = config.sources[name].path, manifest["text_width"]
        if width != model_config.context_dim:
            raise UserError(
                f"{path} holds text states of {width} channels (of {manifest['encoder']}), config.model takes "
                f"{model_config.context_dim}; prepare it with the encoder of this model."
            )
        stored = manifest.get("autoencoder") or latents.PIXELS.name
        pictured = manifest["size"] or manifest.get("source_size")
        if pictured and looks(config, manifest) and stored != made.name:
            raise UserError(
                f"{path} holds pictures as {stored}, and config.autoencoder is {made.name}; prepare it with that one."
            )
        guided = config.objective != "flow_matching" and config.distill.teachers.values()
        if manifest.get("own_nulls") and any(teacher.get("negative") for teacher in guided or ()):
            raise UserError(
                f"Every record of {path} has its own null; take the negative prompts out of config.distill.teachers."
            )
    return made


def looks(config: ConfigDict, manifest: Mapping[str, Any]) -> bool:
    """Whether the pictures of a data set matter: distillation reads none of those that prompts ask for."""
    return config.objective == "flow_matching" or manifest.get("task") == "edit"


class Edited(NamedTuple):
    """What the programs of edits have to know of the pictures that they edit: how many an edit has, of how many pixels
    a side, and where its text mentions them (editing.condition)."""

    sources: int
    size: int
    reference_at: tuple[int, ...] = ()


def edited(config: ConfigDict, manifests: Mapping[str, dict]) -> Edited:
    """The same in all sets of edits; of a run without any, one as large as what is made. Raises UserError."""
    default, found = Edited(1, config.image_size), {}
    for name, manifest in manifests.items():
        if manifest.get("task") == "edit":
            size = manifest.get("source_size") or manifest["size"]
            found[name] = Edited(manifest.get("sources", 1), size, tuple(manifest.get("reference_at", ())))
    for name, own in found.items():
        first = next(iter(found))
        if own != found[first]:
            raise UserError(
                f"Edits of config.sources.{first} have {found[first].sources} pictures of {found[first].size} px each, "
                f"of {name} {own.sources} of {own.size} px; take sets that agree, in their encoder too."
            )
    return next(iter(found.values()), default)


def check_data(manifest: dict, path: str, config: ConfigDict) -> None:
    """Raises UserError where the data set cannot serve the configuration: before anything is compiled."""
    longest, limit, batch = manifest["max_text_tokens"], config.max_text_tokens, config.batch_size
    size = manifest["size"] or config.image_size
    if size != config.image_size and looks(config, manifest):
        raise UserError(f"{path} has pictures of {size} px; set config.image_size from {config.image_size} to {size}.")
    source, stride = manifest.get("source_size") or config.image_size, latents.of(config).stride
    if source % stride:
        raise UserError(f"{path} has pictures to edit of {source} px, no multiple of {stride}; prepare another size.")
    if config.objective == "flow_matching" and not manifest["size"]:
        raise UserError(
            f"{path} has no pictures to learn from, which flow matching needs; prepare it without --prompts-only, or "
            "of rows of your own that have an 'image'."
        )
    if longest > limit:
        raise UserError(f"{path} has texts of up to {longest} tokens; raise config.max_text_tokens from {limit}.")
    task = manifest.get("task", schedule.TASKS[0])
    tasks = [source.get("task", schedule.TASKS[0]) for source in config.sources.values()]
    if manifest["count"] < batch and tasks.count(task) == 1:  # a small one beside others is read in more epochs
        raise UserError(f"{path} holds {manifest['count']} records, no batch of {batch}; lower config.batch_size.")
    if config.objective != "flow_matching" and task != "edit":
        known = tuple(config.distill.classes)
        if absent := [name for name in manifest["categories"] if name not in known]:
            raise UserError(
                f"{path} has the category {absent[0]!r}, which is not among config.distill.classes ("
                f"{', '.join(known)}); add it."
            )
