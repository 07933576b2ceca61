"""Guidance inside the loss: how strongly teachers are guided, and which one speaks when (step-wise multi-teacher
guidance), for which condition.

    s_real^(k)(x_t, t, c) = sum_m lambda[k, c, m] s_m(x_t, t, c),   sum_m lambda[k, c, m] = 1

(Qwen-Image-Flash, eq. 5 to 7; m = 0 is the base teacher.) All teachers share path and noise level and the score is
affine in the velocity, so mixing scores, velocities or clean predictions is the same. The table is static numpy: which
teachers a step needs is known before anything compiles, and a teacher that a step does not need is not run.

A configuration names what the table numbers: ``{"portrait": {"portrait_teacher": (0, 0, 0.5, 1)}}`` is class, teacher,
and a weight for each step of the student; the teacher called "base" takes the rest.
"""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashjax.errors import did_you_mean


@dataclasses.dataclass(frozen=True)
class Scale:
    """Classifier-free guidance as a function of t: linear from knot to knot, constant beyond the outer ones.

    Guided sampling and the guided score are two things. Where a solver samples with scale s, the score of its
    *pictures*, diffused to t, is that of a much smaller scale, above all at much noise; a student that matches the
    distribution of the guided pictures needs that one (docs/results.md). One knot is a constant scale. Raises
    ValueError.
    """

    times: tuple[float, ...] = (0.0,)
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self):
        times, scales = np.asarray(self.times, float), np.asarray(self.scales, float)
        if len(times) != len(scales) or not len(times):
            raise ValueError(f"Guidance has {len(times)} times and {len(scales)} scales; give one or more of each.")
        if not ((times >= 0) & (times <= 1)).all() or (np.diff(times) <= 0).any() or not np.isfinite(scales).all():
            raise ValueError(
                f"Guidance needs times that rise within [0, 1] and finite scales, not {self.times} and {self.scales}."
            )

    @property
    def off(self) -> bool:
        """No guidance at any t: the null condition need not be evaluated."""
        return all(scale == 1 for scale in self.scales)

    def __call__(self, t: jax.Array) -> jax.Array:
        """The scale of each sample, like t [B]."""
        return jnp.interp(t, jnp.asarray(self.times, t.dtype), jnp.asarray(self.scales, t.dtype))


UNGUIDED = Scale()
BASE = "base"  # the teacher that takes what the others leave
SHAPES = ("base_then_specialist", "specialist_then_base", "linear", "last_step", "constant:WEIGHT")
EXAMPLE = "{'portrait': {'portrait_teacher': (0, 0, 0.5, 1)}}"


def shape(name: str, steps: int) -> tuple[float, ...]:
    """A specialist's weights over the steps of the student, by name; for four of them:

    base_then_specialist (0, 0, 0.5, 1), specialist_then_base (1, 0.5, 0, 0), linear (0, 1/3, 2/3, 1), last_step
    (0, 0, 0, 1), constant:0.5 (0.5, 0.5, 0.5, 0.5). The number behind "constant:" is the weight at every step, in
    [0, 1]; it has no default. Raises ValueError.
    """
    k, half, last = np.arange(steps), steps // 2, steps - 1
    late = np.maximum(k - half + 1, 0) / (steps - half)
    known = dict(
        base_then_specialist=late, specialist_then_base=late[::-1], linear=k / last if last else np.ones(1),
        last_step=(k == last) * 1.0,
    )  # fmt: skip
    if name in known:
        return tuple(known[name].tolist())
    kind, _, weight = name.partition(":")
    try:
        if kind == "constant":
            return (float(weight),) * steps
    except ValueError as error:
        raise ValueError(f"The shape {name!r} needs a number, the weight of every step: 'constant:0.5'.") from error
    raise ValueError(f"There is no shape {name!r} of weights; {_nearest(name, SHAPES)}")


def named_table(
    table: Mapping[str, Mapping[str, Any]], *, steps: int, classes: Sequence[str], teachers: Sequence[str]
) -> np.ndarray:
    """``lambda_table`` of names: ``table[class][teacher]`` is a weight for each of ``steps``, or the name of a shape.

    ``teachers``: all of them, "base" first. A class without an entry has the base teacher alone. Raises ValueError
    that names class, teacher and step.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"A table names classes, as in {EXAMPLE} (and {{}} is the base teacher alone), not {table!r}.")
    weights = np.zeros((len(teachers), steps, len(classes)))
    for c, row in table.items():
        if c not in classes:
            raise ValueError(f"There is no class {c!r} to speak of; {_nearest(c, classes)}")
        if not isinstance(row, Mapping):
            raise ValueError(f"A class names its teachers, as in {EXAMPLE}; {c!r} has {row!r}.")
        for teacher, given in row.items():
            if teacher == BASE:
                raise ValueError(f"{BASE!r} is given a weight for {c!r}; it takes what the others leave.")
            if teacher not in teachers:
                raise ValueError(f"There is no teacher {teacher!r} for {c!r}; {_nearest(teacher, teachers[1:])}")
            weights[teachers.index(teacher), :, classes.index(c)] = _by_step(given, steps, f"{teacher!r} for {c!r}")
    bad = np.argwhere(~((weights >= 0) & (weights <= 1)))
    if len(bad):
        m, k, c = bad[0]
        raise ValueError(
            f"The weight of {teachers[m]!r} for {classes[c]!r} at step {k} is {weights[m, k, c]:.3g}; weights lie in "
            "[0, 1]."
        )
    over = np.argwhere(weights.sum(axis=0) > 1 + 1e-6)
    if len(over):
        k, c = over[0]
        raise ValueError(
            f"The weights for {classes[c]!r} at step {k} sum to {weights[:, k, c].sum():.3g}; the base teacher takes "
            "the rest, so they may sum to 1 at the most."
        )
    return lambda_table(steps, len(classes), list(weights[1:]))


def _by_step(given: Any, steps: int, whose: str) -> Sequence[float]:
    """A weight for each step, of numbers or the name of a shape. ``whose``: teacher and class, for the errors."""
    if isinstance(given, str):
        try:
            return shape(given, steps)
        except ValueError as error:
            raise ValueError(f"The weights of {whose} are {given!r}. {error}") from error
    if not isinstance(given, Sequence):
        raise ValueError(
            f"The weights of {whose} are {given!r}; write one for each of the student's {steps} steps, or a shape, as "
            "'constant:0.5'."
        )
    if len(given) != steps:
        raise ValueError(f"{len(given)} weights are given to {whose}; the student takes {steps} steps.")
    for k, weight in enumerate(given):
        if not isinstance(weight, numbers.Real):
            raise ValueError(f"The weight of {whose} at step {k} is {weight!r}; weights are numbers in [0, 1].")
    return given


def describe(lambdas: np.ndarray, classes: Sequence[str], teachers: Sequence[str]) -> str:
    """The table [steps, classes, teachers] for people: a line a class and teacher that is ever heard there."""
    lines = []
    for c, name in enumerate(classes):
        for m in np.flatnonzero(lambdas[:, c].any(axis=0)):
            weights = "  ".join(f"{w:.3g}".ljust(5) for w in lambdas[:, c, m]).rstrip()
            lines.append(f"  {name:<14}{teachers[m]:<20}{weights}")
    return "\n".join(lines)


def _nearest(name: Any, known: Sequence[str]) -> str:
    return did_you_mean(str(name), known, "there are", "'{}'")


def lambda_table(steps: int, classes: int, specialists: Sequence[np.ndarray] = ()) -> np.ndarray:
    """float32 [steps, classes, 1 + specialists]; rows sum to 1 because the base teacher takes what is left.

    ``specialists``: for every teacher after the base, its weights, broadcastable to [steps, classes], in [0, 1].
    Raises ValueError where a row would leave the base teacher a negative weight.
    """
    columns = [np.broadcast_to(np.asarray(s, np.float64), (steps, classes)) for s in specialists]
    rest = 1.0 - sum(columns, np.zeros((steps, classes)))
    rest[np.abs(rest) < 1e-6] = 0  # 0.6 + 0.3 + 0.1 leaves 1e-16: rounding, not a teacher to run
    table = np.stack([rest, *columns], axis=-1)
    bad = np.argwhere((table < 0) | (table > 1) | ~np.isfinite(table))
    if len(bad):
        k, c, m = bad[0]
        raise ValueError(
            f"lambda[{k}, {c}, {m}] would be {table[k, c, m]:.3g}. Weights lie in [0, 1], and those of the specialised "
            "teachers may sum to 1 at the most: the base teacher takes the rest."
        )
    return table.astype(np.float32)


def active(table: np.ndarray, k: int, classes: Sequence[int] | None = None) -> tuple[int, ...]:
    """The teachers that student step k can need, for the given condition classes (all, if None)."""
    rows = table[k] if classes is None else table[k, list(classes)]
    return tuple(int(m) for m in np.flatnonzero((rows > 0).any(axis=0)))


def mix(velocities: Sequence[jax.Array], weights: jax.Array) -> jax.Array:
    """``sum_m w[:, m] v_m`` of velocities [B, ...] with weights [B, M]. A weight of 0 silences its teacher wholly, even
    where that teacher's output is not finite; a single velocity is returned as it is, bit for bit."""
    if len(velocities) == 1:
        return velocities[0]
    total = jnp.zeros_like(velocities[0])
    for m, v in enumerate(velocities):
        w = weights[:, m].reshape((-1,) + (1,) * (v.ndim - 1))
        total = total + jnp.where(w > 0, w * v, 0)
    return total
