"""The training steps: pure functions (state, inputs) -> (state, metrics).

``denoiser`` is the pair of functions of ``flow.Denoiser``; conditions are opaque trees with a leading batch axis.
Randomness comes from ``fold_in(key, state.step)``, so a step can be repeated from its number alone.
Metrics: `figures`.
"""

import dataclasses
import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flashjax import flow
from flashjax.distill import dmd, guidance, micro_batches, rollout
from flashjax.distill.figures import Metrics, as_metrics, by_sample, by_time, health, shares
from flashjax.distill.state import Role, TrainState

TIMES = ("uniform", "logit_normal")


@dataclasses.dataclass(frozen=True)
class TimeSampler:
    """How t is drawn for noising: uniform in [low, high] or logit-normal(mean, std), then shifted. Raises ValueError
    for what is no distribution on [0, 1]."""

    kind: str = "uniform"
    low: float = 0.02
    high: float = 0.98
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def __post_init__(self):
        if self.kind not in TIMES:
            raise ValueError(f"Unknown time distribution {self.kind!r}; choose {' or '.join(TIMES)}.")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"Times go from low {self.low} to high {self.high}; 0 <= low <= high <= 1 has to hold.")
        if not (0 < self.std < math.inf and 0 < self.shift < math.inf):
            raise ValueError(f"std ({self.std}) and shift ({self.shift}) of a time distribution have to be positive.")
        if not math.isfinite(self.mean):
            raise ValueError(f"The mean of a time distribution is {self.mean}; it has to be a number.")

    def __call__(self, key: jax.Array, batch: int) -> jax.Array:
        """float32 [batch] in (0, 1)."""
        if self.kind == "uniform":
            t = jax.random.uniform(key, (batch,), minval=self.low, maxval=self.high)
        else:
            t = jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (batch,)))
        return flow.shift_time(t, self.shift)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a distillation run holds fixed. Raises ValueError for what no run can hold."""

    grid: tuple[float, ...]  # flow.time_grid; the student's sampler uses the same numbers
    lambdas: np.ndarray  # guidance.lambda_table [steps, classes, teachers]; a run that changes it replaces it by row
    # Of each teacher, or one for all, by t; the student learns it and samples without.
    guidance_scales: tuple[guidance.Scale, ...] = (guidance.UNGUIDED,)
    rollout_mode: str = "euler"
    student_times: TimeSampler = TimeSampler()
    critic_times: TimeSampler = TimeSampler()
    ema_decay: float = 0.99
    critic_updates_per_rollout: int = 1
    share_sample: bool = True  # hand the student's sample to one critic update in the same step
    substeps: int = 1  # of the teachers within one step of the student, where it learns their trajectory
    micro_batches: int = 1  # parts of the batch, one after another, that an update's gradient is summed up from

    def __post_init__(self):
        rollout.check_mode(self.rollout_mode)
        updates = self.critic_updates_per_rollout
        if updates < 1:
            raise ValueError(f"critic_updates_per_rollout is {updates}; it has to be 1 or more.")
        for name in ("substeps", "micro_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be 1 or more.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it has to lie in [0, 1).")
        if len(self.guidance_scales) not in (1, self.lambdas.shape[-1]):
            raise ValueError(f"{len(self.guidance_scales)} guidance scales for {self.lambdas.shape[-1]} teachers.")

    def scale(self, teacher: int) -> guidance.Scale:
        """The guidance of a teacher."""
        return self.guidance_scales[teacher if len(self.guidance_scales) > 1 else 0]


def flow_matching_step(
    state: TrainState, x0: jax.Array, cond: Any, null: Any, key: jax.Array, *, denoiser: flow.Denoiser,
    optimizer: optax.GradientTransformation, times: TimeSampler, drop_rate: float, ema_decay: float, parts: int = 1,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """Trains the student's slot on real images x0 [B, ...]: ``E |v(z_t, t) - (eps - x0)|^2``; the gradient is summed up
    from ``parts`` parts of the batch.

    ``null`` has cond's structure with batch 1; it replaces a sample's condition with probability ``drop_rate``, which
    is what makes classifier-free guidance possible later.
    """
    noise_key, time_key, drop_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    eps = jax.random.normal(noise_key, x0.shape, jnp.float32)
    t = times(time_key, len(x0))
    drop = jax.random.bernoulli(drop_key, drop_rate, (len(x0),))
    cond = jax.tree.map(lambda n, c: jnp.where(drop.reshape(-1, *(1,) * (c.ndim - 1)), n, c), null, cond)

    def loss_fn(params, part):
        x0, eps, t, cond = part
        v = denoiser.velocity(params, denoiser.condition(params, cond), flow.interpolate(x0, eps, t), t)
        errors = by_sample(jnp.square(v - flow.velocity(x0, eps)))
        return errors.mean(), errors

    inputs = x0, eps, t, cond
    (loss, errors), grads = micro_batches.value_and_grad(loss_fn, state.student.params, inputs, parts)
    state = state.update_student(grads, optimizer, ema_decay)
    return state, as_metrics(loss=loss, grad_norm=optax.tree.norm(grads)) | by_time("loss", errors, t)


def step_keys(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Four independent keys of a step: first noise, rollout, distribution matching, critic."""
    key, critic_key = jax.random.split(jax.random.fold_in(key, step))
    return *jax.random.split(key), jax.random.fold_in(key, 2), critic_key


def draw(key: jax.Array, times: TimeSampler, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """(t [B], noise [B, ...]) at which samples of a shape are noised."""
    time_key, noise_key = jax.random.split(key)
    return times(time_key, shape[0]), jax.random.normal(noise_key, shape, jnp.float32)


def begin(
    params: flow.Params, step: jax.Array, noise_like: jax.ShapeDtypeStruct, cond: Any, key: jax.Array, *,
    denoiser: flow.Denoiser,
) -> tuple[flow.Context, jax.Array]:  # fmt: skip
    """The student's context and its first state z_0, the noise [B, ...] of this step."""
    noise = jax.random.normal(step_keys(key, step)[0], noise_like.shape, jnp.float32)
    return denoiser.condition(params, cond), noise


def advance(
    params: flow.Params, step: jax.Array, context: flow.Context, z: jax.Array, i: jax.Array, key: jax.Array, *,
    recipe: Recipe, denoiser: flow.Denoiser,
) -> jax.Array:  # fmt: skip
    """z_{i+1} from z_i: one student evaluation, no gradient. Backward simulation is ``begin`` and k of these, so that
    the student meets its own states and never noised real images. i is an array: one program serves every step."""
    grid = jnp.asarray(recipe.grid, jnp.float32)
    mode, fresh_key = recipe.rollout_mode, jax.random.fold_in(step_keys(key, step)[1], i)
    fresh = rollout.fresh_noise(fresh_key, z) if mode == "renoise" else None
    return rollout.take_step(
        lambda z, t: denoiser.velocity(params, context, z, t), z, grid[i], grid[i + 1], mode, fresh
    )


def predict(denoiser: flow.Denoiser, params: flow.Params, context: flow.Context, z: jax.Array, k, recipe: Recipe):
    """x_theta [B, ...], the student's clean prediction at its step k; z_k is data, whatever made it."""
    z = jax.lax.stop_gradient(z)
    t = rollout.times(jnp.asarray(recipe.grid, jnp.float32)[k], len(z))
    return flow.x0_from_velocity(z, denoiser.velocity(params, context, z, t), t)


def student_step(
    state: TrainState, teachers: tuple[flow.Params, ...], z: jax.Array, k: jax.Array, cond: Any, nulls: Any,
    classes: jax.Array, key: jax.Array, *, active: tuple[int, ...], recipe: Recipe, denoiser: flow.Denoiser,
    student_optimizer: optax.GradientTransformation, critic_optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """One DMD update of the student at its step k, and of the critic on the same sample if the recipe shares it.

    teachers: all parameter trees, base first; only ``active`` ones are read. z: the student's state z_k [B, ...].
    nulls: the negative condition of each teacher (batch 1 or B). classes: int32 [B], the condition class of each sample
    in the lambda table.
    """
    _, _, dmd_key, critic_key = step_keys(key, state.step)

    def loss_fn(params, part):
        z, cond, nulls, classes, drawn = part
        x = predict(denoiser, params, denoiser.condition(params, cond), z, k, recipe)
        grad, seen = dmd_gradient(
            jax.lax.stop_gradient(x), state.critic.params, teachers, cond, nulls, classes, drawn,
            k=k, active=active, recipe=recipe, denoiser=denoiser,
        )  # fmt: skip
        return dmd.student_loss(x, grad), (x, seen)

    inputs = z, cond, nulls, classes, draw(dmd_key, recipe.student_times, z.shape)
    (loss, (x, seen)), grads = micro_batches.value_and_grad(
        loss_fn, state.student.params, inputs, recipe.micro_batches
    )
    state = state.update_student(grads, student_optimizer, recipe.ema_decay)
    metrics = as_metrics(
        student_loss=loss, student_grad_norm=optax.tree.norm(grads), sample_std=x.std(), **health(seen),
        **shares(recipe.lambdas, classes, k),
    )  # fmt: skip
    metrics |= by_time("dmd_direction_square", seen["direction"], inputs[-1][0])
    if recipe.share_sample:
        critic, critic_metrics = critic_update(
            state.critic, x, cond, critic_key, recipe=recipe, denoiser=denoiser, optimizer=critic_optimizer
        )
        state, metrics = state.replace(critic=critic), metrics | critic_metrics
    return state, metrics


def critic_step(
    state: TrainState, context: flow.Context, z: jax.Array, k: jax.Array, cond: Any, key: jax.Array, *,
    recipe: Recipe, denoiser: flow.Denoiser, critic_optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """``critic_updates_per_rollout`` critic updates on the student's prediction from z_k, each with its own (t, noise);
    figures are of them all. ``context`` is the student's."""
    critic_key = step_keys(key, state.step)[3]
    x = predict(denoiser, state.student.params, context, z, k, recipe)
    critic, told = state.critic, []
    for i in range(recipe.critic_updates_per_rollout):
        critic, metrics = critic_update(
            critic, x, cond, jax.random.fold_in(critic_key, i),
            recipe=recipe, denoiser=denoiser, optimizer=critic_optimizer,
        )  # fmt: skip
        told.append(metrics)
    metrics = functools.reduce(functools.partial(jax.tree.map, operator.add), told)
    return state.replace(step=state.step + 1, critic=critic), metrics


def dmd_gradient(
    x: jax.Array, critic: flow.Params, teachers: tuple[flow.Params, ...], cond: Any, nulls: Any, classes: jax.Array,
    drawn: tuple[jax.Array, jax.Array], *, k: jax.Array, active: tuple[int, ...], recipe: Recipe,
    denoiser: flow.Denoiser,
) -> tuple[jax.Array, dict[str, jax.Array]]:  # fmt: skip
    """The weighted distribution-matching gradient at student samples x, noised by ``drawn`` = (t, noise), and what
    ``health`` makes figures of, for each sample.

    The fake score is never guided; every active teacher is, and their velocities mix by lambda[k, class].
    """
    t, noise = drawn
    x_t = flow.interpolate(x, noise, t)
    v_fake = denoiser.velocity(critic, denoiser.condition(critic, cond), x_t, t)
    v_real = teacher_velocity(teachers, cond, nulls, classes, k=k, active=active, recipe=recipe, denoiser=denoiser)(
        x_t, t
    )
    x0_fake, x0_real = (flow.x0_from_velocity(x_t, v, t) for v in (v_fake, v_real))
    grad = dmd.gradient(x, x0_fake, x0_real)
    products = dict(
        grad=jnp.abs(grad), direction=jnp.square(x0_fake - x0_real), both=(x0_fake - x) * (x0_real - x),
        fake=jnp.square(x0_fake - x), real=jnp.square(x0_real - x),
    )  # fmt: skip
    return grad, {name: by_sample(value) for name, value in products.items()}


def teacher_velocity(
    teachers: tuple[flow.Params, ...], cond: Any, nulls: Any, classes: jax.Array, *, k: jax.Array,
    active: tuple[int, ...], recipe: Recipe, denoiser: flow.Denoiser,
) -> rollout.Velocity:  # fmt: skip
    """What the teachers say at the student's step k, as a function of (z, t): every active one guided by its own scale,
    away from its own negative condition, mixed by lambda[k, class]. Their contexts are computed once."""
    contexts = [
        (
            denoiser.condition(teachers[m], cond),
            None if recipe.scale(m).off else denoiser.condition(teachers[m], nulls[m]),
        )
        for m in active
    ]
    weights = jnp.asarray(recipe.lambdas)[k][classes][:, jnp.asarray(active)]

    def velocity(z, t):
        spoken = zip(active, contexts, strict=True)
        voices = [guided_velocity(denoiser, teachers[m], *context, recipe.scale(m)(t), z, t) for m, context in spoken]
        return guidance.mix(voices, weights)

    return velocity


def guided_velocity(denoiser, params, context, null_context, guidance_scale, z, t, rescale=False) -> jax.Array:
    """The velocity with classifier-free guidance (``flow.guide``): two evaluations, or one without a null context."""
    v = denoiser.velocity(params, context, z, t)
    if null_context is None:
        return v
    return flow.guide(denoiser.velocity(params, null_context, z, t), v, guidance_scale, rescale)


def critic_update(
    critic: Role, x: jax.Array, cond: Any, key: jax.Array, *, recipe: Recipe, denoiser: flow.Denoiser, optimizer
) -> tuple[Role, Metrics]:
    """One flow-matching update of the critic on student samples x, at its own t and noise."""

    def loss_fn(params, part):
        x, cond, (t, eps) = part
        v = denoiser.velocity(params, denoiser.condition(params, cond), flow.interpolate(x, eps, t), t)
        return dmd.critic_loss(v, x, eps), by_sample(jnp.square(v - flow.velocity(x, eps)))

    inputs = jax.lax.stop_gradient(x), cond, draw(key, recipe.critic_times, x.shape)
    (loss, errors), grads = micro_batches.value_and_grad(loss_fn, critic.params, inputs, recipe.micro_batches)
    metrics = as_metrics(critic_loss=loss, critic_grad_norm=optax.tree.norm(grads))
    return critic.apply(grads, optimizer), metrics | by_time("critic_loss", errors, inputs[-1][0])
