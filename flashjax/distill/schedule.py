"""The step table: what every training step does, decided before the first one.

A row a step: phase, task, and the student step k that is trained. Rows follow from the configuration and a seed by
counting, not by tossing coins: the task ratio and the balance over k are met in every window, anybody can print the
table or hash it, and a run resumes from a step number alone.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flashjax.distill import guidance

# "begin" and "advance" are no rows of their own: they roll the student out to step k in front of a row.
PHASES = ("flow_matching", "student", "critic", "begin", "advance", "trajectory")
FLOW_MATCHING, STUDENT, CRITIC, BEGIN, ADVANCE, TRAJECTORY = range(6)


class Program(NamedTuple):
    """What distinguishes one compiled step from another: k does not, the teachers that it runs (``active``) do."""

    phase: int
    task: int
    active: tuple[int, ...] = ()

    def __str__(self) -> str:
        teachers = f" teachers={','.join(map(str, self.active))}" if self.active else ""
        return f"{PHASES[self.phase]} task={self.task}{teachers}"


@dataclasses.dataclass(frozen=True)
class StepTable:
    """int8 columns ``phase``, ``task``, ``k``, each [steps]; ``lambdas`` [steps of the student, classes, teachers]."""

    phase: np.ndarray
    task: np.ndarray
    k: np.ndarray
    lambdas: np.ndarray

    def __len__(self) -> int:
        return len(self.phase)

    def program(self, step: int) -> Program:
        """The program that updates the state at ``step``."""
        phase = int(self.phase[step])
        teachers = guidance.active(self.lambdas, int(self.k[step])) if phase in (STUDENT, TRAJECTORY) else ()
        return Program(phase, int(self.task[step]), teachers)

    def rollout(self, step: int) -> list[Program]:
        """The programs that run before it: none for flow matching, else the beginning and k steps of the student."""
        if self.phase[step] == FLOW_MATCHING:
            return []
        task = int(self.task[step])
        return [Program(BEGIN, task)] + [Program(ADVANCE, task)] * int(self.k[step])

    def programs(self) -> list[Program]:
        """Every program of the run, in order of first use: exactly these get compiled."""
        columns = np.stack([self.phase, self.task, self.k], axis=1)
        first = np.unique(columns, axis=0, return_index=True)[1]
        return list(dict.fromkeys(p for i in sorted(first.tolist()) for p in (*self.rollout(i), self.program(i))))

    def digest(self) -> str:
        """sha256 over all columns and the lambda table; a checkpoint of another table cannot be resumed."""
        h = hashlib.sha256()
        for array in (self.phase, self.task, self.k, self.lambdas):
            h.update(f"{array.dtype}{array.shape}".encode())
            h.update(np.ascontiguousarray(array).tobytes())
        return h.hexdigest()

    def describe(self) -> str:
        """A summary for people: rows by phase, task and k, and the number of programs."""
        lines = [f"step table {self.digest()[:12]}: {len(self)} steps, {len(self.programs())} programs"]
        for p in sorted(set(self.phase.tolist())):
            rows = self.phase == p
            lines.append(f"  {PHASES[p]:<14}{rows.sum():>8} rows")
            for name, column in (("task", self.task), ("k", self.k)):
                values, counts = np.unique(column[rows], return_counts=True)
                lines.append(f"    {name:<12}" + "  ".join(f"{v}: {c}" for v, c in zip(values, counts, strict=True)))
        return "\n".join(lines)


def diffuse(ratios: Sequence[float], count: int) -> np.ndarray:
    """int8 [count] of choices whose running shares never stray from ``ratios`` by more than one row.

    Among the choices that may come next without running ahead, the one that is due first (Tijdeman's rule). Always
    taking what is owed most, plain error diffusion, strays further from four choices on.
    """
    shares = np.asarray(ratios, np.float64)
    if len(shares) == 0 or (shares < 0).any() or shares.sum() <= 0:
        raise ValueError(f"Ratios {list(ratios)} have to be non-negative with a positive sum.")
    shares, owed, rows = shares / shares.sum(), np.zeros(len(shares)), np.zeros(count, np.int8)
    slack = 1 / max(2 * np.count_nonzero(shares) - 2, 1)
    for i in range(count):
        owed += shares
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a share of 0 is never due
            due = np.where(owed >= slack - 1e-9, (1 - slack - owed) / shares, np.inf)
        rows[i] = np.argmin(np.round(due, 9))
        owed[rows[i]] -= 1
    return rows


def balanced(values: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """int8 [count]: one random permutation of 0 .. values - 1 after another."""
    blocks = [rng.permutation(values) for _ in range(-(-count // values))]
    return np.concatenate(blocks)[:count].astype(np.int8) if count else np.zeros(0, np.int8)


def flow_matching_table(steps: int, task_ratios: Sequence[float] = (1.0,)) -> StepTable:
    """Every row trains on real images."""
    phase = np.full(steps, FLOW_MATCHING, np.int8)
    return StepTable(phase, diffuse(task_ratios, steps), np.zeros(steps, np.int8), np.zeros((0, 0, 0), np.float32))


def trajectory_table(
    student_updates: int, *, lambdas: np.ndarray, seed: int, task_ratios: Sequence[float] = (1.0,)
) -> StepTable:
    """Every row trains one student step on the teachers' trajectory; ``lambdas`` as in ``distillation_table``."""
    if student_updates < 1:
        raise ValueError(f"student_updates ({student_updates}) has to be positive.")
    phase = np.full(student_updates, TRAJECTORY, np.int8)
    task, k = _tasks_and_steps(phase, task_ratios, len(lambdas), seed)
    return StepTable(phase, task, k, lambdas)


def distillation_table(
    student_updates: int,
    *,
    critic_rows: int,
    lambdas: np.ndarray,
    seed: int,
    critic_warmup: int = 0,
    task_ratios: Sequence[float] = (1.0,),
) -> StepTable:
    """``critic_warmup`` critic rows, then cycles of one student row and ``critic_rows`` critic rows.

    How many critic updates a row makes is the recipe's matter (``share_sample``, ``critic_updates_per_rollout``).
    ``lambdas`` is ``guidance.lambda_table``'s array; its first axis gives the number of student steps.
    """
    if student_updates < 1 or critic_rows < 0 or critic_warmup < 0:
        raise ValueError(
            f"student_updates ({student_updates}) has to be positive, critic_rows ({critic_rows}) and "
            f"critic_warmup ({critic_warmup}) not negative."
        )
    cycle = [STUDENT] + [CRITIC] * critic_rows
    phase = np.array([CRITIC] * critic_warmup + cycle * student_updates, np.int8)
    task, k = _tasks_and_steps(phase, task_ratios, len(lambdas), seed)
    return StepTable(phase, task, k, lambdas)


def _tasks_and_steps(
    phase: np.ndarray, task_ratios: Sequence[float], steps: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The columns task and k, balanced within every phase."""
    task, k = np.zeros_like(phase), np.zeros_like(phase)
    for p in (STUDENT, CRITIC, TRAJECTORY):
        rows = phase == p
        task[rows] = diffuse(task_ratios, int(rows.sum()))
        for choice in range(len(task_ratios)):
            # A generator a phase and task: a longer run begins with the rows of a shorter one, and every task
            # trains every k equally often.
            chosen = rows & (task == choice)
            k[chosen] = balanced(steps, int(chosen.sum()), np.random.default_rng([seed, p, choice]))
    return task, k
