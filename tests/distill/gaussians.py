"""Denoisers in closed form: what the tests of the distillation mathematics are measured against.

Data N(mu, F F^T) gives p_t = N((1 - t) mu, (1 - t)^2 F F^T + t^2 I), whose velocity is affine in z. A parameter tree
tells its role by its keys, because one denoiser serves student, critic and teachers.
"""

import jax
import jax.numpy as jnp
import optax

from flashjax import flow
from flashjax.distill import rollout, steps
from flashjax.distill.state import Role, TrainState


def gaussian_velocity(mean, factor, z, t):
    """The exact velocity of N(mean, factor factor^T) in two dimensions at z [B, 2], t [B]."""
    t, covariance = flow.expand(t, z), factor @ factor.T
    noisy = (1 - t[..., None]) ** 2 * covariance + t[..., None] ** 2 * jnp.eye(2, dtype=z.dtype)
    a, b, c, d = noisy[:, 0, 0], noisy[:, 0, 1], noisy[:, 1, 0], noisy[:, 1, 1]
    y = z - (1 - t) * mean
    whitened = jnp.stack([d * y[:, 0] - b * y[:, 1], a * y[:, 1] - c * y[:, 0]], axis=-1) / (a * d - b * c)[:, None]
    return t * whitened - (mean + (1 - t) * whitened @ covariance)  # E[eps | z] - E[x0 | z]


def _velocity(params, classes, z, t):
    if "map" in params:  # one step from t = 1: x0 = shift + map z
        return z - (params["shift"][classes] + z @ params["map"].T)
    return gaussian_velocity(params["mean"][classes], params["factor"], z, t)


DENOISER = flow.Denoiser(lambda params, classes: classes, _velocity)


def gaussian(mean, factor):
    """A teacher or critic; ``mean`` [classes, 2]."""
    return {"mean": jnp.asarray(mean, jnp.float32), "factor": jnp.asarray(factor, jnp.float32)}


def affine(shift, matrix):
    """A one-step student; ``shift`` [classes, 2]."""
    return {"shift": jnp.asarray(shift, jnp.float32), "map": jnp.asarray(matrix, jnp.float32)}


def as_gaussian(student):
    """The distribution of an affine student's samples: its exact critic."""
    return {"mean": student["shift"], "factor": student["map"]}


def make_state(student, critic, student_optimizer=None, critic_optimizer=None) -> TrainState:
    student_optimizer, critic_optimizer = student_optimizer or optax.sgd(0.1), critic_optimizer or optax.sgd(0.1)
    roles = Role.create(student, student_optimizer), Role.create(critic, critic_optimizer)
    return TrainState(jnp.zeros((), jnp.int32), *roles, student)


def roll_out(denoiser, params, step, like, cond, key, k, recipe):
    """(context, z_k) as train.py's programs make them: one beginning, k steps."""
    context, z = steps.begin(params, step, like, cond, key, denoiser=denoiser)
    for i in range(k):
        z = steps.advance(params, step, context, z, i, key, recipe=recipe, denoiser=denoiser)
    return context, z


def generate(denoiser, params, like, cond, key, *, k, recipe):
    """x_theta of step 0: the student's own rollout and the differentiable prediction at its end."""
    context, z = roll_out(denoiser, params, 0, like, cond, key, k, recipe)
    return steps.predict(denoiser, params, context, z, k, recipe)


def student_row(state, teachers, like, cond, null, classes, key, *, k, recipe, denoiser, **kwargs):
    """A student row of the step table, with its rollout."""
    _, z = roll_out(denoiser, state.student.params, state.step, like, cond, key, k, recipe)
    nulls = (null,) * len(teachers)
    return steps.student_step(
        state, teachers, z, k, cond, nulls, classes, key, recipe=recipe, denoiser=denoiser, **kwargs
    )  # fmt: skip


def critic_row(state, like, cond, key, *, k, recipe, denoiser, **kwargs):
    """A critic row of the step table, with its rollout."""
    context, z = roll_out(denoiser, state.student.params, state.step, like, cond, key, k, recipe)
    return steps.critic_step(state, context, z, k, cond, key, recipe=recipe, denoiser=denoiser, **kwargs)


def walk_down(velocity, noise, grid, k, mode, key):
    """The first k steps of a grid from noise, one after another."""
    z = noise
    for i in range(k):
        fresh = rollout.fresh_noise(jax.random.fold_in(key, i), z)
        z = rollout.take_step(velocity, z, grid[i], grid[i + 1], mode, fresh)
    return z
