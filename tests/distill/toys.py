"""The training steps on a denoiser whose velocity is a handful of numbers, with arguments that tests leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gaussians import critic_row, make_state, student_row

from flashjax import flow
from flashjax.distill import guidance, steps
from flashjax.distill.state import TrainState

KEY = jax.random.key(0)
GRID = tuple(flow.time_grid(4, 3.0).tolist())
OPTIMIZER = optax.adam(1e-2)
LIKE = jax.ShapeDtypeStruct((2, 2, 2, 8), jnp.float32)
CLASSES = jnp.array([0, 1])


def recipe(**changes) -> steps.Recipe:
    return steps.Recipe(**dict(grid=GRID, lambdas=guidance.lambda_table(4, 2)) | changes)


def trees_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def linear_velocity(params, context, z, t):
    return params["a"] * z + context + params["b"] * flow.expand(t, z)


LINEAR = flow.Denoiser(lambda params, cond: params["c"] * cond, linear_velocity)
COND = jnp.ones((2, 1, 1, 1))


def linear(a=0.5, b=0.1, c=0.2):
    return {"a": jnp.float32(a), "b": jnp.float32(b), "c": jnp.float32(c)}


TEACHERS, RECIPE = (linear(0.9),), recipe()


def linear_state(optimizer=OPTIMIZER) -> TrainState:
    return make_state(linear(), linear(0.3), optimizer, optimizer)


def student_step(state, *, k=1, key=KEY, recipe=RECIPE, denoiser=LINEAR, teachers=TEACHERS, optimizer=OPTIMIZER):
    return student_row(
        state, teachers, LIKE, COND, COND[:1], CLASSES, key, k=k, active=guidance.active(recipe.lambdas, k),
        recipe=recipe, denoiser=denoiser, student_optimizer=optimizer, critic_optimizer=optimizer,
    )  # fmt: skip


def critic_step(state, *, k=1, key=KEY, recipe=RECIPE, denoiser=LINEAR, optimizer=OPTIMIZER):
    return critic_row(state, LIKE, COND, key, k=k, recipe=recipe, denoiser=denoiser, critic_optimizer=optimizer)


def flow_step(state, *, drop_rate=0.0, key=KEY, denoiser=LINEAR, cond=COND, null=0 * COND[:1]):
    return steps.flow_matching_step(
        state, jnp.ones(LIKE.shape), cond, null, key, denoiser=denoiser, optimizer=OPTIMIZER, times=steps.TimeSampler(),
        drop_rate=drop_rate, ema_decay=0.9,
    )  # fmt: skip


def counting(denoiser):
    """The denoiser, and a counter of its calls (at trace time: a call is an evaluation in the compiled program)."""
    calls = dict(condition=0, velocity=0)

    def condition(params, cond):
        calls["condition"] += 1
        return denoiser.condition(params, cond)

    def velocity(params, context, z, t):
        calls["velocity"] += 1
        return denoiser.velocity(params, context, z, t)

    return flow.Denoiser(condition, velocity), calls
