"""A student that follows the teachers' trajectory, where the teachers' smaller steps have a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussians import DENOISER, affine, gaussian
from toys import CLASSES, COND, LINEAR, OPTIMIZER, counting, linear, linear_state, recipe, trees_equal

from flashjax.distill import guidance
from flashjax.distill.state import TrainState
from flashjax.distill.trajectory import trajectory_step

MEAN, FACTOR = np.array([1.0, -0.5]), np.array([[0.6, 0.2], [0.2, 0.9]])


def follow(state, teachers, z, *, k=0, cond=COND, null=None, classes=CLASSES, active=(0,), denoiser=LINEAR, **changes):
    return trajectory_step(
        state, teachers, z, k, cond, (null,) * len(teachers), classes, active=active, recipe=recipe(**changes),
        denoiser=denoiser, student_optimizer=OPTIMIZER,
    )  # fmt: skip


Z = jax.random.normal(jax.random.key(1), (2, 2, 2, 8))


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_equal_steps():
    _, metrics = follow(linear_state(), (linear(),), Z, k=2)
    assert metrics["trajectory_loss"][0] < 1e-12
    _, metrics = follow(linear_state(), (linear(),), Z, k=2, substeps=3)
    assert metrics["trajectory_loss"][0] > 1e-6


@pytest.mark.parametrize("substeps", [1, 3])
def test_the_loss_is_the_distance_to_where_guided_and_mixed_teachers_lead(substeps):
    """Two linear teachers, guided, mixed by class: their smaller steps written out."""
    teachers, scale, k = (linear(0.9), linear(-0.7)), 2.5, 1
    lambdas = guidance.lambda_table(4, 2, [[[0.25, 0.75]] * 4])
    _, metrics = follow(
        linear_state(), teachers, Z, k=k, null=0 * COND[:1], active=(0, 1), lambdas=lambdas, substeps=substeps,
        guidance_scales=(guidance.Scale(scales=(scale,)),),
    )  # fmt: skip
    grid, weights = np.asarray(recipe().grid), np.array([[0.75, 0.25], [0.25, 0.75]])
    z = np.asarray(Z, np.float64)
    for i in range(substeps):
        t, t_next = (grid[k] + (grid[k + 1] - grid[k]) * j / substeps for j in (i, i + 1))
        voices = [float(p["a"]) * z + float(p["b"]) * t + scale * float(p["c"]) for p in teachers]
        z = z + (t_next - t) * sum(weights[:, m, None, None, None] * v for m, v in enumerate(voices))
    student = linear()
    v = float(student["a"]) * np.asarray(Z) + float(student["b"]) * grid[k] + float(student["c"])
    wanted = (z - np.asarray(Z)) / (grid[k + 1] - grid[k])
    np.testing.assert_allclose(metrics["trajectory_loss"][0], np.mean((v - wanted) ** 2), rtol=1e-5)


def test_one_step_learns_the_whole_flow_of_a_gaussian():
    """The flow of N(mu, F F^T) with a symmetric F takes noise z to mu + F z; an affine student of one step can do that,
    and forty Euler steps do it to a few percent."""
    teacher, grid = (gaussian(MEAN[None], FACTOR),), (1.0, 0.0)
    optimizer, classes = optax.adam(optax.cosine_decay_schedule(0.05, 400)), jnp.zeros(64, jnp.int32)
    state = TrainState.create(affine(np.zeros((1, 2)), np.eye(2)), optimizer)
    rule = recipe(grid=grid, lambdas=guidance.lambda_table(1, 1), substeps=40)

    @jax.jit
    def step(state, z):
        return trajectory_step(
            state, teacher, z, 0, classes, None, classes, active=(0,), recipe=rule, denoiser=DENOISER,
            student_optimizer=optimizer,
        )  # fmt: skip

    for i in range(400):
        state, metrics = step(state, jax.random.normal(jax.random.key(i), (64, 2)))
    assert metrics["trajectory_loss"][0] < 1e-6
    np.testing.assert_allclose(state.student.params["shift"][0], MEAN, atol=0.03)
    np.testing.assert_allclose(state.student.params["map"], FACTOR, atol=0.03)


def test_only_the_student_and_its_average_move_and_no_gradient_reaches_the_teachers():
    state = linear_state()
    new, _ = follow(state, (linear(0.9),), Z, substeps=2, ema_decay=0.75)
    assert not trees_equal(new.student.params, state.student.params)
    assert trees_equal(new.critic, state.critic)
    for e, old, p in zip(*map(jax.tree.leaves, (new.ema, state.ema, new.student.params)), strict=True):
        np.testing.assert_allclose(e, 0.75 * old + 0.25 * p, rtol=1e-6)
    grads = jax.grad(lambda teacher: follow(state, (teacher,), Z, substeps=2)[1]["trajectory_loss"][0])(linear(0.9))
    assert not any(np.any(g) for g in grads.values())


@pytest.mark.parametrize("substeps", [1, 3])
def test_a_step_runs_what_its_cost_counts(substeps):
    """A guided step of the teacher's is two evaluations; the student's own comes to them."""
    denoiser, calls = counting(LINEAR)
    rule = dict(substeps=substeps, guidance_scales=(guidance.Scale(scales=(2.0,)),))
    jax.eval_shape(lambda s: follow(s, (linear(),), Z, null=0 * COND[:1], denoiser=denoiser, **rule), linear_state())
    assert calls["velocity"] == 2 * substeps + 1


def test_no_substeps_are_refused():
    with pytest.raises(ValueError, match="substeps is 0"):
        recipe(substeps=0)
