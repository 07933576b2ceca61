"""The step table: what every training step does, decided before the first one.

A row a step: phase, task, and the student step k that is trained. Rows follow from the configuration and a seed by
counting, not by tossing coins: the task ratio and the balance over k are met in every window, anybody can print the
table or hash it, and a run resumes from a step number alone.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flashjax.distill import guidance

# "begin" and "advance" are no rows of their own: they roll the student out to step k in front of a row.
PHASES = ("flow_matching", "student", "critic", "begin", "advance", "trajectory")
FLOW_MATCHING, STUDENT, CRITIC, BEGIN, ADVANCE, TRAJECTORY = range(6)
TASKS = ("t2i", "edit")
# Figures that the log has for each of the student's steps too; a teacher's share is another.
BY_STEP = ("student_loss", "trajectory_loss", "critic_loss", "dmd_direction_rms", "fake_real_cosine")


class Program(NamedTuple):
    """What distinguishes one compiled step from another: k does not, the teachers that it runs (``active``) do."""

    phase: int
    task: int
    active: tuple[int, ...] = ()

    def __str__(self) -> str:
        teachers = f" teachers={','.join(map(str, self.active))}" if self.active else ""
        return f"{PHASES[self.phase]} {TASKS[self.task]}{teachers}"


@dataclasses.dataclass(frozen=True)
class StepTable:
    """int8 columns ``phase``, ``task``, ``k``, each [steps].

    lambdas: float32 [tables, steps of the student, classes, teachers]; ``starts`` int64 [tables], the row from which on
    each holds. ``classes``: for each task the classes that its rows can have (None: all), so that a teacher that is
    heard in edits alone does not run elsewhere.
    """

    phase: np.ndarray
    task: np.ndarray
    k: np.ndarray
    lambdas: np.ndarray
    starts: np.ndarray
    classes: tuple[tuple[int, ...] | None, ...] = (None, None)

    def __len__(self) -> int:
        return len(self.phase)

    def program(self, step: int) -> Program:
        """The program that updates the state at ``step``."""
        phase = int(self.phase[step])
        task, teachers = int(self.task[step]), ()
        if phase in (STUDENT, TRAJECTORY):
            teachers = guidance.active(self.lambdas_at(step), int(self.k[step]), self.classes[task])
        return Program(phase, task, teachers)

    def lambdas_at(self, step: int | jax.Array) -> np.ndarray | jax.Array:
        """The lambda table [steps of the student, classes, teachers] of row ``step``, which may be traced."""
        numeric = np if isinstance(step, int) else jnp
        return numeric.asarray(self.lambdas)[numeric.searchsorted(self.starts, step, side="right") - 1]

    def rollout(self, step: int) -> list[Program]:
        """The programs that run before it: none for flow matching, else the beginning and k steps of the student."""
        if self.phase[step] == FLOW_MATCHING:
            return []
        task = int(self.task[step])
        return [Program(BEGIN, task)] + [Program(ADVANCE, task)] * int(self.k[step])

    def programs(self) -> list[Program]:
        """Every program of the run, in order of first use: exactly these get compiled."""
        tables = np.searchsorted(self.starts, np.arange(len(self)), side="right")
        columns = np.stack([self.phase, self.task, self.k, tables], axis=1)
        first = np.unique(columns, axis=0, return_index=True)[1]
        return list(dict.fromkeys(p for i in sorted(first.tolist()) for p in (*self.rollout(i), self.program(i))))

    def labelled(self, step: int, metrics: dict[str, Any], teachers: Sequence[str]) -> dict[str, Any]:
        """The metrics of a row for the log: losses and shares once more for its k, shares by the teachers' names, and
        everything under the name of its task where the run has several."""
        out = {}
        for name, value in metrics.items():
            if name.startswith("share_"):
                name = f"share/{teachers[int(name.removeprefix('share_'))]}"
            out[name] = value
            if name in BY_STEP or name.startswith("share/"):
                out[f"{name}/k{self.k[step]}"] = value
        several = (self.task != self.task[0]).any()
        return {f"{TASKS[self.task[step]]}/{name}": v for name, v in out.items()} if several else out

    def digest(self) -> str:
        """sha256 over all columns and the lambda table; a checkpoint of another table cannot be resumed."""
        h = hashlib.sha256()
        for array in (self.phase, self.task, self.k, self.lambdas, self.starts):
            h.update(f"{array.dtype}{array.shape}".encode())
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()

    def describe(self) -> str:
        """A summary for people: rows by phase, task and k, and the number of programs."""
        lines = [f"step table {self.digest()[:12]}: {len(self)} steps, {len(self.programs())} programs"]
        for p in sorted(set(self.phase.tolist())):
            rows = self.phase == p
            lines.append(f"  {PHASES[p]:<14}{rows.sum():>8} rows")
            for name, column in (("task", np.array(TASKS)[self.task]), ("k", self.k)):
                values, counts = np.unique(column[rows], return_counts=True)
                lines.append(f"    {name:<12}" + "  ".join(f"{v}: {c}" for v, c in zip(values, counts, strict=True)))
        return "\n".join(lines)


def over_time(setting: Any) -> tuple[tuple[float, Any], ...]:
    """((from, value), ...) of a setting that may change over the run: given as such pairs, ``from`` being a share of
    the run that begins with 0 and rises below 1, or as one value for all of it. Raises ValueError."""
    if not isinstance(setting, tuple | list):
        return ((0.0, setting),)
    pairs = tuple(setting)
    try:
        froms = [float(start) for start, _ in pairs]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A setting that changes over the run is written ((0, value), (0.5, value), ...), not {setting}."
        ) from error
    if not froms or froms[0] != 0 or not froms[-1] < 1 or not (np.diff(froms) > 0).all():
        raise ValueError(f"The phases of a run begin at 0 and rise below 1; {setting} begins them at {froms}.")
    return tuple((start, value) for start, (_, value) in zip(froms, pairs, strict=True))


def rows_of(starts: Sequence[float], rows: int) -> np.ndarray:
    """int64: the rows at which phases of a run begin, given as shares of it."""
    return np.floor(np.asarray(starts, np.float64) * rows + 1e-9).astype(np.int64)


def diffuse(ratios: Sequence[float], count: int) -> np.ndarray:
    """int64 [count] of choices whose running shares never stray from ``ratios`` by more than one row.

    Among the choices that may come next without running ahead, the one that is due first (Tijdeman's rule). Always
    taking what is owed most, plain error diffusion, strays further from four choices on.
    """
    shares = np.asarray(ratios, np.float64)
    if len(shares) == 0 or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError(f"Ratios {list(ratios)} have to be non-negative with a positive sum.")
    shares, owed, rows = shares / shares.sum(), np.zeros(len(shares)), np.zeros(count, np.int64)
    slack = 1 / max(2 * np.count_nonzero(shares) - 2, 1)
    for i in range(count):
        owed += shares
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a share of 0 is never due
            due = np.where(owed >= slack - 1e-9, (1 - slack - owed) / shares, np.inf)
        rows[i] = np.argmin(np.round(due, 9))
        owed[rows[i]] -= 1
    return rows


def balanced(times: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """int8 [count]: one random order after another of a block that has each value i ``times[i]`` times."""
    block = np.repeat(np.arange(len(times)), times)
    blocks = [rng.permutation(block) for _ in range(-(-count // len(block)))]
    return np.concatenate(blocks)[:count].astype(np.int8) if count else np.zeros(0, np.int8)


def flow_matching_table(
    steps: int, task_ratios: Sequence = (1.0,), task_starts: Sequence[float] = (0.0,)
) -> StepTable:
    """Every row trains on real images. ``task_ratios``: T2I to edits, or such a pair for each of ``task_starts``, the
    shares of the run at which they begin to hold."""
    phase = np.full(steps, FLOW_MATCHING, np.int8)
    none, task = np.zeros((1, 0, 0, 0), np.float32), _tasks(phase, task_ratios, task_starts)
    return StepTable(phase, task, np.zeros(steps, np.int8), none, np.zeros(1, np.int64))


def trajectory_table(
    student_updates: int, *, lambdas: np.ndarray, seed: int, task_ratios: Sequence = (1.0,),
    task_starts: Sequence[float] = (0.0,), starts: Sequence[float] = (0.0,),
    classes: tuple[tuple[int, ...] | None, ...] = (None, None), step_rows: Sequence[int] | None = None,
) -> StepTable:  # fmt: skip
    """Every row trains one student step on the teachers' trajectory; ``lambdas`` as in ``distillation_table``.

    ``step_rows``: of each block of rows, how many train each step of the student; None: one."""
    if student_updates < 1:
        raise ValueError(f"student_updates ({student_updates}) has to be positive.")
    phase = np.full(student_updates, TRAJECTORY, np.int8)
    task = _tasks(phase, task_ratios, task_starts)
    k = _steps(phase, task, step_rows or [1] * lambdas.shape[1], seed)
    return StepTable(phase, task, k, lambdas, rows_of(starts, len(phase)), classes)


def distillation_table(
    student_updates: int,
    *,
    critic_rows: int,
    lambdas: np.ndarray,
    seed: int,
    critic_warmup: int = 0,
    task_ratios: Sequence = (1.0,),
    task_starts: Sequence[float] = (0.0,),
    starts: Sequence[float] = (0.0,),
    classes: tuple[tuple[int, ...] | None, ...] = (None, None),
) -> StepTable:
    """``critic_warmup`` critic rows, then cycles of one student row and ``critic_rows`` critic rows.

    How many critic updates a row makes is the recipe's matter (``share_sample``, ``critic_updates_per_rollout``).
    ``lambdas``: ``guidance.lambda_table``'s arrays, stacked; one for each of ``starts``, shares of the run. Its second
    axis gives the number of student steps. ``classes`` as in StepTable.
    """
    if student_updates < 1 or critic_rows < 0 or critic_warmup < 0:
        raise ValueError(
            f"student_updates ({student_updates}) has to be positive, critic_rows ({critic_rows}) and "
            f"critic_warmup ({critic_warmup}) not negative."
        )
    cycle = [STUDENT] + [CRITIC] * critic_rows
    phase = np.array([CRITIC] * critic_warmup + cycle * student_updates, np.int8)
    task = _tasks(phase, task_ratios, task_starts)
    k = _steps(phase, task, [1] * lambdas.shape[1], seed)
    return StepTable(phase, task, k, lambdas, rows_of(starts, len(phase)), classes)


def _tasks(phase: np.ndarray, task_ratios: Sequence, task_starts: Sequence[float]) -> np.ndarray:
    """The column task, in its ratio within every phase and every stretch of the run with a ratio of its own."""
    task, ratios = np.zeros_like(phase), np.atleast_2d(np.asarray(task_ratios, np.float64))
    stretch = np.searchsorted(rows_of(task_starts, len(phase)), np.arange(len(phase)), side="right") - 1
    for p in (FLOW_MATCHING, STUDENT, CRITIC, TRAJECTORY):
        for i, ratio in enumerate(ratios):
            rows = (phase == p) & (stretch == i)
            task[rows] = diffuse(ratio, int(rows.sum()))
    return task


def _steps(phase: np.ndarray, task: np.ndarray, step_rows: Sequence[int], seed: int) -> np.ndarray:
    """The column k, balanced within every phase and task, so that every task trains every k as often as the other
    does. Raises ValueError for more steps than the column can count."""
    k, steps = np.zeros_like(phase), len(step_rows)
    if steps - 1 > np.iinfo(k.dtype).max:
        raise ValueError(f"A student takes {np.iinfo(k.dtype).max + 1} steps at the most, not {steps}.")
    for p in (STUDENT, CRITIC, TRAJECTORY):
        for choice in range(len(TASKS)):
            # A generator a phase and task: a longer run begins with the rows of a shorter one.
            chosen = (phase == p) & (task == choice)
            k[chosen] = balanced(step_rows, int(chosen.sum()), np.random.default_rng([seed, p, choice]))
    return k
