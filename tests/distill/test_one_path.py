"""What is trained is what is sampled, and what the table announces is what is compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import DENOISER, affine, as_gaussian, critic_row, gaussian, generate, make_state, student_row, walk_down
from toys import (
    CLASSES,
    COND,
    GRID,
    KEY,
    LIKE,
    LINEAR,
    OPTIMIZER,
    flow_step,
    linear,
    linear_velocity,
    recipe,
    trees_equal,
)  # fmt: skip

from flashjax import flow
from flashjax.distill import guidance, rollout, schedule, steps
from flashjax.distill.sampling import make_sampler
from flashjax.distill.state import TrainState
from flashjax.distill.trajectory import trajectory_step
from flashjax.programs import run_row

# -- training and sampling are one ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", rollout.MODES)
def test_the_last_training_step_makes_the_image_that_sampling_makes(tiny, mode):
    """generate(k = last) and the sampler that users call, from the same noise. Rounding only: z - t v against
    z + (0 - t) v, in programs that fuse differently, through four evaluations of a network."""
    denoiser, trees, cond, _ = tiny
    noise_key, rollout_key, *_ = steps.step_keys(KEY, 0)
    noise = jax.random.normal(noise_key, LIKE.shape)
    rule = recipe(rollout_mode=mode)
    trained = jax.jit(lambda p: generate(denoiser, p, LIKE, cond, KEY, k=3, recipe=rule))(trees[0])
    sampled = make_sampler(denoiser)(trees[0], cond, None, noise, flow.time_grid(4, 3.0), mode=mode, key=rollout_key)
    np.testing.assert_allclose(sampled, trained, rtol=1e-5, atol=1e-5)
    assert np.abs(trained - noise).max() > 0.1


@pytest.mark.parametrize("mode", rollout.MODES)
def test_the_last_training_step_is_a_rollout_over_the_whole_grid(mode):
    noise_key, rollout_key, *_ = steps.step_keys(KEY, 0)
    trained = generate(LINEAR, linear(), LIKE, COND, KEY, k=3, recipe=recipe(rollout_mode=mode))
    velocity = functools.partial(linear_velocity, linear(), LINEAR.condition(linear(), COND))
    noise = jax.random.normal(noise_key, LIKE.shape)
    rolled = walk_down(velocity, noise, flow.time_grid(4, 3.0), 4, mode, rollout_key)
    np.testing.assert_allclose(rolled, trained, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", range(4))
def test_a_training_step_starts_where_sampling_is_after_k_steps(k):
    """With the velocity of a point mass every prediction is the point, so z_k is known: (1 - t_k) p + t_k noise."""
    seen = []

    def velocity(params, context, z, t):
        seen.append((z, t))
        return (z - 3.0) / flow.expand(t, z)

    net = flow.Denoiser(lambda params, cond: None, velocity)
    x = generate(net, {}, LIKE, COND, KEY, k=k, recipe=recipe())
    noise = jax.random.normal(steps.step_keys(KEY, 0)[0], LIKE.shape)
    z, t = seen[-1]
    np.testing.assert_array_equal(t, np.full(2, GRID[k], np.float32))
    np.testing.assert_allclose(z, (1 - GRID[k]) * 3 + GRID[k] * noise, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(x, np.full(LIKE.shape, 3.0), atol=1e-5)


def test_the_rollout_before_step_k_carries_no_gradient():
    """x = z_1 - t_1 v(z_1): only the a of the last evaluation counts, though z_1 depends on it, too."""
    params = linear()
    slope = jax.grad(lambda p: generate(LINEAR, p, LIKE, COND, KEY, k=1, recipe=recipe()).sum())(params)
    context = LINEAR.condition(params, COND)
    noise = jax.random.normal(steps.step_keys(KEY, 0)[0], LIKE.shape)
    z = noise + (GRID[1] - GRID[0]) * linear_velocity(params, context, noise, jnp.full(2, GRID[0]))
    np.testing.assert_allclose(slope["a"], -GRID[1] * z.sum(), rtol=1e-4)
    np.testing.assert_allclose(slope["c"], -GRID[1] * z.size, rtol=1e-5)


# -- one program, one compilation -------------------------------------------------------------------------------------


def test_every_program_compiles_once():
    """A run through a table with a specialist: jit's own cache must hold one entry a program after 24 rows, in which
    states come from fresh creation and from every kind of step, and k changes from row to row."""
    lambdas = guidance.lambda_table(2, 2, [[[0, 0], [0.5, 1]]])
    table = schedule.distillation_table(6, critic_rows=3, lambdas=lambdas[None], seed=0)
    rule = recipe(grid=tuple(flow.time_grid(2).tolist()), lambdas=lambdas, critic_updates_per_rollout=2)
    teachers = tuple(gaussian([[m, 0.0]] * 2, np.eye(2)) for m in (1.0, 2.0))
    like, jitted = jax.ShapeDtypeStruct((2, 2), jnp.float32), {}

    common = dict(recipe=rule, denoiser=DENOISER)

    def call(state, teachers, classes, carry, k, *, program):
        match program.phase:
            case schedule.BEGIN:
                return steps.begin(state.student.params, state.step, like, classes, KEY, denoiser=DENOISER)
            case schedule.ADVANCE:
                return carry[0], steps.advance(state.student.params, state.step, *carry, k, KEY, **common)
            case schedule.CRITIC:
                return steps.critic_step(state, *carry, k, classes, KEY, critic_optimizer=OPTIMIZER, **common)
            case schedule.STUDENT:
                return steps.student_step(
                    state, teachers, carry[1], k, classes, None, classes, KEY, active=program.active,
                    student_optimizer=OPTIMIZER, critic_optimizer=OPTIMIZER, **common,
                )  # fmt: skip

    student = affine(np.zeros((2, 2)), np.eye(2))
    state = make_state(student, as_gaussian(student), OPTIMIZER, OPTIMIZER)
    for program in table.programs():
        jitted[program] = jax.jit(functools.partial(call, program=program))
    for step in range(len(table)):
        state, _ = run_row(jitted, table, step, state, teachers, jnp.array([0, 1], jnp.int32))
    assert int(state.step) == len(table) == 24
    assert {program: f._cache_size() for program, f in jitted.items()} == dict.fromkeys(jitted, 1)


@pytest.mark.parametrize("phase", ["flow_matching", "trajectory", "student", "critic"])
def test_a_step_returns_a_state_of_the_types_it_takes(tiny, phase):
    """Shape, dtype and weak type of every leaf: else the second step would compile again, and donation would fail."""
    denoiser, trees, cond, null = tiny
    state = TrainState.create(trees[0], OPTIMIZER, OPTIMIZER if phase in ("student", "critic") else None)
    common = dict(k=1, recipe=recipe(), denoiser=denoiser, critic_optimizer=OPTIMIZER)
    step = {
        "flow_matching": lambda s: flow_step(s, denoiser=denoiser, cond=cond, null=null),
        "trajectory": lambda s: trajectory_step(
            s, (trees[2],), jnp.zeros(LIKE.shape), 1, cond, (null,), CLASSES, active=(0,), recipe=recipe(substeps=2),
            denoiser=denoiser, student_optimizer=OPTIMIZER,
        ),
        "critic": lambda s: critic_row(s, LIKE, cond, KEY, **common),
        "student": lambda s: student_row(
            s, (trees[2],), LIKE, cond, null, CLASSES, KEY, active=(0,), student_optimizer=OPTIMIZER, **common
        ),
    }[phase]
    out, metrics = jax.eval_shape(step, state)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)  # noqa: E731
    assert describe(out) == describe(jax.eval_shape(lambda s: s, state))
    for total, count in metrics.values():
        assert (total.shape, total.dtype, count.shape, count.dtype) == ((), jnp.float32, (), jnp.float32)


def test_a_fresh_state_holds_no_buffer_twice():
    """Donation of a state in which two leaves share memory is an error on accelerators."""
    params = linear()
    state = TrainState.create(params, OPTIMIZER, OPTIMIZER)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((params, state))]
    assert len(set(pointers)) == len(pointers)
    assert trees_equal(state.student.params, params)
    assert trees_equal(state.critic.params, params)
