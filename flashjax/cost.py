"""Floating-point operations of a run: of every row of its step table by role, from ``models.flops``."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from flashjax.data import records
from flashjax.distill import schedule, steps
from flashjax.models import flops, latents
from flashjax.parallel import chips

# "recomputed" is what remat adds: the device does it, MFU leaves it out.
ROLES = ("rollout", "student", "critic", "teachers", "recomputed")
BACKWARD = 2  # forward passes that a backward pass costs
Work = dict[str, float]


class Cost:
    """What the rows of a step table cost. ``Work`` maps roles to operations of a batch.

    ``sizes``: for each task that of a sample; ``nulls``: for each teacher the text tokens of its negative condition;
    ``own_nulls``: for a task whose samples have their own, the tokens of those.
    """

    def __init__(
        self, architecture: str, config: Any, recipe: steps.Recipe | None, *, batch: int,
        sizes: dict[int, flops.Sizes], nulls: Sequence[int], own_nulls: Mapping[int, int] | None = None,
    ):  # fmt: skip
        self._recipe, self._batch, self._sizes, self._nulls = recipe, batch, sizes, nulls
        self._own_nulls = own_nulls or {}
        self._count = lambda size: flops.evaluation(architecture, config, size)
        self._remat = config.remat != "none"

    def program(self, program: schedule.Program) -> Work:
        """One call of a program of the table."""
        own, work = self._count(self._sizes[program.task]), collections.Counter()
        batch = self._batch
        match program.phase:
            case schedule.FLOW_MATCHING:
                self._train(work, "student", own.both)
            case schedule.BEGIN:
                work["rollout"] += batch * own.condition
            case schedule.ADVANCE:
                work["rollout"] += batch * own.velocity
            case schedule.CRITIC:
                work["rollout"] += batch * own.velocity
                self._train(work, "critic", own.both * self._recipe.critic_updates_per_rollout)
            case schedule.TRAJECTORY:
                self._train(work, "student", own.both)
                work["teachers"] += self._teachers(program, self._recipe.substeps)
            case schedule.STUDENT:
                self._train(work, "student", own.both)
                work["critic"] += batch * own.both
                work["teachers"] += self._teachers(program, 1)
                if self._recipe.share_sample:
                    self._train(work, "critic", own.both)
        return dict(work)

    def row(self, table: schedule.StepTable, step: int) -> Work:
        """A row with its rollout."""
        return total(self.program(p) for p in (*table.rollout(step), table.program(step)))

    def _train(self, work: collections.Counter, role: str, forward: float) -> None:
        work[role] += self._batch * forward * (1 + BACKWARD)
        work["recomputed"] += self._batch * forward * self._remat

    def _teachers(self, program: schedule.Program, evaluations: int) -> float:
        """Contexts once, velocities ``evaluations`` times; of guided teachers those of the negative condition too. A
        null of T2I is of batch 1, that of an edit sees its sample's picture."""
        size, work = self._sizes[program.task], 0.0
        for teacher in program.active:
            own = self._count(size)
            work += self._batch * (own.condition + evaluations * own.velocity)
            if not self._recipe.scale(teacher).off:
                own_null = self._own_nulls.get(program.task)
                null = self._count(flops.Sizes(size.image, own_null or self._nulls[teacher], size.references))
                contexts = self._batch if size.references else 1
                work += contexts * null.condition + self._batch * evaluations * null.velocity
        return work


def sizes_of(config: ConfigDict, batches: Mapping[int, Mapping[str, Any]]) -> dict[int, flops.Sizes]:
    """The tokens of a sample of each task, from a batch of it, arrays or their shapes."""
    made = latents.of(config)
    image = made.tokens(config.image_size)
    edited = {task: sum(made.tokens_given(x.shape) for x in records.sources(batch)) for task, batch in batches.items()}
    return {task: flops.Sizes(image, config.max_text_tokens, references) for task, references in edited.items()}


def own_nulls(batches: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
    """The text tokens of the nulls that samples bring themselves, by task."""
    return {task: batch["null"].shape[1] for task, batch in batches.items() if "null" in batch}


def at_peak(
    counted: Cost, table: schedule.StepTable, device_kind: str, devices: int
) -> Callable[[int], float] | None:
    """The seconds that a row's model operations take at the peak of all devices; None for a kind without a known one,
    of which no MFU can be told."""
    chip = chips.of_kind(device_kind)
    if chip is None:
        return None
    peak = chip.flops / chip.devices * devices
    return lambda step: of_model(counted.row(table, step)) / peak


def total(works) -> Work:
    """The sum of several, role by role."""
    out = collections.Counter()
    for work in works:
        out.update(work)
    return {role: out[role] for role in ROLES if out[role]}


def of_model(work: Work) -> float:
    """The operations that MFU counts: all but the recomputed."""
    return sum(value for role, value in work.items() if role != "recomputed")
