"""Trajectory matching: the student learns, from its own states, where several smaller steps of the teachers lead."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from flashjax import flow
from flashjax.distill import micro_batches, rollout
from flashjax.distill.figures import Metrics, as_metrics, shares
from flashjax.distill.state import TrainState
from flashjax.distill.steps import Recipe, teacher_velocity


def trajectory_step(
    state: TrainState, teachers: tuple[flow.Params, ...], z: jax.Array, k: jax.Array, cond: Any, nulls: Any,
    classes: jax.Array, *, active: tuple[int, ...], recipe: Recipe, denoiser: flow.Denoiser,
    student_optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """One update of the student's step k towards where the teachers' ``substeps`` smaller steps lead from its own state
    z_k [B, ...]: ``E |v_theta(z_k, t_k) - (z_end - z_k) / (t_{k+1} - t_k)|^2``.

    Distribution matching then begins near its goal: a student that starts as the teacher's own coarse steps has to find
    guidance and proportions by the critic's noisy word. It cannot replace it: regression averages what the teachers'
    finer steps tell apart, and stays soft.
    """
    grid = jnp.asarray(recipe.grid, jnp.float32)
    inner = jnp.linspace(grid[k], grid[k + 1], recipe.substeps + 1)

    def loss_fn(params, part):
        z, cond, nulls, classes = part
        velocity = teacher_velocity(
            teachers, cond, nulls, classes, k=k, active=active, recipe=recipe, denoiser=denoiser
        )
        end = z
        for i in range(recipe.substeps):
            end = rollout.take_step(velocity, end, inner[i], inner[i + 1], "euler", None)
        wanted = jax.lax.stop_gradient((end - z) / (grid[k + 1] - grid[k]))
        v = denoiser.velocity(params, denoiser.condition(params, cond), z, rollout.times(grid[k], len(z)))
        return jnp.mean(jnp.square(v - wanted)), ()

    inputs = z, cond, nulls, classes
    (loss, _), grads = micro_batches.value_and_grad(loss_fn, state.student.params, inputs, recipe.micro_batches)
    state = state.update_student(grads, student_optimizer, recipe.ema_decay)
    heard = shares(recipe.lambdas, classes, k)
    return state, as_metrics(trajectory_loss=loss, student_grad_norm=optax.tree.norm(grads), **heard)
