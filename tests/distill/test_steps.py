"""The training steps: who moves, who must not, what a step costs, and what its randomness depends on.

Closed-form denoisers where the mathematics is meant; the tiny Qwen-Image-2.1 where a real network could break the
promise (contexts, integer leaves, stacked layers).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussians import DENOISER, affine, as_gaussian, critic_row, gaussian, generate, make_state, student_row, walk_down

from flashjax import flow
from flashjax.distill import guidance, rollout, schedule, steps
from flashjax.distill.sampling import make_sampler
from flashjax.distill.state import TrainState, ema_update
from flashjax.models import qwen_image_21 as qwen
from flashjax.programs import run_row

KEY = jax.random.key(0)
GRID = tuple(flow.time_grid(4, 3.0).tolist())
OPTIMIZER = optax.adam(1e-2)
LIKE = jax.ShapeDtypeStruct((2, 2, 2, 8), jnp.float32)
CLASSES = jnp.array([0, 1])


def recipe(**changes) -> steps.Recipe:
    return steps.Recipe(**dict(grid=GRID, lambdas=guidance.lambda_table(4, 2), guidance_scale=1.0) | changes)


def trees_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# -- a real network, and one whose velocity is a handful of numbers ---------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """(denoiser, parameters of student, critic and teacher, condition, null): Qwen-Image-2.1 with a reference."""
    config = qwen.Config.tiny(layers=1)
    leaves, tree = jax.tree.flatten(qwen.abstract(config))

    @jax.jit
    def randomise(key):
        keys = jax.random.split(key, len(leaves))
        return tree.unflatten([0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])

    cond = qwen.Condition(
        jax.random.normal(KEY, (2, 3, 24)), jnp.array([3, 2]), (jax.random.normal(KEY, (2, 2, 1, 8)),), (1,)
    )
    trees = [randomise(jax.random.key(i)) for i in range(3)]
    return qwen.denoiser(config), trees, cond, jax.tree.map(lambda x: x[:1], cond)


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


# -- gradients go to the active role only -----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["student", "critic"])
def test_a_loss_reaches_its_own_role_and_nobody_else(tiny, phase):
    """The step's own losses, differentiated from outside by every parameter tree at once."""
    denoiser, trees, cond, null = tiny
    common = dict(k=1, recipe=RECIPE, denoiser=denoiser, critic_optimizer=OPTIMIZER)

    def loss(student, critic, teacher):
        state = make_state(student, critic, OPTIMIZER, OPTIMIZER)
        if phase == "critic":
            return critic_row(state, LIKE, cond, KEY, **common)[1]["critic_loss"][0]
        _, metrics = student_row(
            state, (teacher,), LIKE, cond, null, CLASSES, KEY, active=(0,), student_optimizer=OPTIMIZER, **common
        )
        return metrics["student_loss"][0]

    grads = dict(zip(("student", "critic", "teacher"), jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*trees), strict=True))
    for path, g in jax.tree.leaves_with_path(grads.pop(phase)):
        assert np.isfinite(g).all(), path
        assert np.any(g), path
    assert not any(np.any(g) for g in jax.tree.leaves(grads))


def test_the_shared_sample_trains_the_critic_without_a_gradient_to_the_student():
    def loss(student, critic):
        return student_step(make_state(student, critic, OPTIMIZER, OPTIMIZER))[1]["critic_loss"][0]

    by_student, by_critic = jax.jit(jax.grad(loss, argnums=(0, 1)))(linear(), linear(0.3))
    assert not any(np.any(g) for g in by_student.values())
    assert all(np.any(g) for g in by_critic.values())


def test_only_the_active_role_moves():
    state = linear_state()
    alone, _ = student_step(state, recipe=recipe(share_sample=False))
    assert not trees_equal(alone.student.params, state.student.params)
    assert trees_equal(alone.critic, state.critic)
    shared, metrics = student_step(state)
    assert trees_equal(shared.student, alone.student)
    assert not trees_equal(shared.critic.params, state.critic.params)
    assert "critic_loss" in metrics
    after, _ = critic_step(state)
    assert not trees_equal(after.critic.params, state.critic.params)
    assert trees_equal((after.student, after.ema), (state.student, state.ema))
    assert [int(s.step) for s in (state, alone, shared, after)] == [0, 1, 1, 1]


def test_the_average_moves_on_student_updates_only_and_by_its_decay():
    state = linear_state()
    new, _ = student_step(state, recipe=recipe(ema_decay=0.75))
    for e, old, p in zip(*map(jax.tree.leaves, (new.ema, state.ema, new.student.params)), strict=True):
        np.testing.assert_allclose(e, 0.75 * old + 0.25 * p, rtol=1e-6)
    assert trees_equal(critic_step(new)[0].ema, new.ema)
    assert trees_equal(ema_update(state.ema, new.ema, 0.0), new.ema)


def test_nan_of_a_teacher_stays_visible():
    state, metrics = student_step(linear_state(), teachers=(linear(np.nan),))
    assert np.isnan(metrics["student_loss"][0])
    assert np.isnan(state.student.params["a"])


# -- what a step costs ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("k", range(4))
def test_early_exit_evaluates_k_times_and_once_with_gradient(tiny, k):
    inner, trees, cond, _ = tiny
    denoiser, calls = counting(inner)
    x = jax.eval_shape(lambda p: generate(denoiser, p, LIKE, cond, KEY, k=k, recipe=recipe()), trees[0])
    assert calls == dict(condition=1, velocity=k + 1)  # one context for all of them
    assert (x.shape, x.dtype) == (LIKE.shape, jnp.float32)


@pytest.mark.parametrize(("scale", "teachers", "each"), [(1.0, 1, 1), (2.0, 1, 2), (2.0, 2, 2)])
def test_a_student_step_runs_what_it_needs(scale, teachers, each):
    """k + 1 of the student, one of the critic, one or two an active teacher, one for the shared critic update."""
    denoiser, calls = counting(LINEAR)
    lambdas = guidance.lambda_table(4, 2, [[[0, 0], [0.5, 0.5], [1, 1], [1, 1]]] if teachers == 2 else [])
    trees = tuple(linear(0.9) for _ in range(lambdas.shape[-1]))
    step = functools.partial(student_step, k=1, recipe=recipe(guidance_scale=scale, lambdas=lambdas), denoiser=denoiser)
    jax.eval_shape(functools.partial(step, teachers=trees), linear_state())
    assert calls["velocity"] == 2 + 1 + each * teachers + 1


def test_a_critic_step_rolls_out_once_however_often_it_updates():
    denoiser, calls = counting(LINEAR)
    jax.eval_shape(
        lambda s: critic_step(s, k=2, recipe=recipe(critic_updates_per_rollout=5), denoiser=denoiser), linear_state()
    )
    assert calls["velocity"] == 3 + 5


def recorder(size):
    """An optimizer that changes nothing and remembers the gradients that it was given."""

    def init(params):
        return jnp.zeros((), jnp.int32), jax.tree.map(lambda p: jnp.zeros((size, *p.shape)), params)

    def update(grads, state, params=None):
        count, seen = state
        seen = jax.tree.map(lambda s, g: s.at[count].set(g), seen, grads)
        return jax.tree.map(jnp.zeros_like, grads), (count + 1, seen)

    return optax.GradientTransformation(init, update)


def test_updates_of_one_rollout_differ_in_time_and_noise():
    """Same critic, same sample: if two gradients were equal, so were (t, noise)."""
    optimizer = recorder(8)
    state, _ = critic_step(linear_state(optimizer), recipe=recipe(critic_updates_per_rollout=4), optimizer=optimizer)
    count, seen = state.critic.opt_state
    assert count == 4
    assert len(np.unique(seen["a"][:4])) == 4
    state, _ = critic_step(state, recipe=recipe(critic_updates_per_rollout=4), optimizer=optimizer)
    assert len(np.unique(state.critic.opt_state[1]["a"])) == 8  # nor are they repeated in the next step


def test_four_updates_of_one_rollout_train_as_four_updates():
    state, many = linear_state(), recipe(critic_updates_per_rollout=4)
    new, metrics = critic_step(state, recipe=many)
    critic_key = steps.step_keys(KEY, 0)[3]
    x = generate(LINEAR, state.student.params, LIKE, COND, KEY, k=1, recipe=many)
    critic = state.critic
    for i in range(4):
        critic, last = steps.critic_update(
            critic, x, COND, jax.random.fold_in(critic_key, i), recipe=many, denoiser=LINEAR, optimizer=OPTIMIZER
        )
    assert trees_equal(new.critic, critic)
    assert trees_equal(metrics, last)


# -- randomness -------------------------------------------------------------------------------------------------------


def still(state, n, step):
    """n steps with a learning rate of 0: the metrics of each."""
    out = []
    for _ in range(n):
        state, metrics = step(state, optimizer=optax.sgd(0.0))
        out.append(metrics)
    return out


@pytest.mark.parametrize("step", [student_step, critic_step])
def test_randomness_depends_on_key_and_step_number_only(step):
    start = linear_state(optax.sgd(0.0))
    by_history = still(start, 4, step)
    jumped = still(start.replace(step=jnp.int32(3), ema=linear(7.0)), 1, step)
    assert trees_equal(by_history[3], jumped[0])
    losses = [float(next(iter(m.values()))[0]) for m in by_history]
    assert len(set(losses)) == 4
    other = step(start, key=jax.random.key(1), optimizer=optax.sgd(0.0))[1]
    assert not trees_equal(other, by_history[0])


@pytest.mark.parametrize("step", [student_step, critic_step, flow_step])
def test_the_same_state_gives_the_same_step(step):
    first, second = jax.jit(step)(linear_state()), jax.jit(lambda s: step(s))(linear_state())
    assert trees_equal(first, second)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(first))


def test_draws_of_one_step_are_independent():
    """Rollout noise, re-noising and both critic draws come from different keys: an identity of two would show as a
    correlation of 1 among these 16,384 numbers (one standard deviation: 0.008)."""
    drawn = []

    def velocity(params, context, z, t):
        drawn.append((np.asarray(z), np.asarray(t)))
        return jnp.zeros_like(z) + params["a"]

    zero = linear(0.0)
    like, cond = jax.ShapeDtypeStruct((4096, 4), jnp.float32), jnp.ones((4096, 1))
    rule = recipe(grid=(1.0, 0.5, 0.0), lambdas=guidance.lambda_table(2, 1), rollout_mode="renoise", share_sample=False)
    _, _, dmd_key, critic_key = steps.step_keys(KEY, 0)
    net = flow.Denoiser(lambda params, cond: None, velocity)
    x = generate(net, zero, like, cond, KEY, k=1, recipe=rule)
    classes = jnp.zeros(4096, jnp.int32)
    steps.dmd_gradient(
        x, zero, (zero,), cond, None, classes, dmd_key, k=1, active=(0,), recipe=rule, denoiser=net
    )
    (noise, _), (z1, _), (x_t, t), _ = drawn
    t = t[:, None]
    draws = [noise, (z1 - 0.5 * noise) / 0.5, (x_t - (1 - t) * np.asarray(x)) / t]
    for k in (critic_key, jax.random.fold_in(critic_key, 0), jax.random.fold_in(critic_key, 1)):
        draws.append(np.asarray(jax.random.normal(jax.random.split(k)[1], (4096, 4))))
    correlation = np.corrcoef([d.ravel() for d in draws])
    assert np.abs(correlation - np.eye(len(draws))).max() < 0.05


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
    table = schedule.distillation_table(6, critic_rows=3, lambdas=lambdas, seed=0)
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


@pytest.mark.parametrize("phase", ["flow_matching", "student", "critic"])
def test_a_step_returns_a_state_of_the_types_it_takes(tiny, phase):
    """Shape, dtype and weak type of every leaf: else the second step would compile again, and donation would fail."""
    denoiser, trees, cond, null = tiny
    state = TrainState.create(trees[0], OPTIMIZER, None if phase == "flow_matching" else OPTIMIZER)
    common = dict(k=1, recipe=recipe(), denoiser=denoiser, critic_optimizer=OPTIMIZER)
    step = {
        "flow_matching": lambda s: flow_step(s, denoiser=denoiser, cond=cond, null=null),
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


# -- flow matching ----------------------------------------------------------------------------------------------------


def test_flow_matching_regresses_noise_minus_image_and_moves_the_average():
    state = TrainState.create(linear(), OPTIMIZER)
    new, metrics = flow_step(state)
    noise_key, time_key, _ = jax.random.split(jax.random.fold_in(KEY, 0), 3)
    eps, x0 = jax.random.normal(noise_key, LIKE.shape), jnp.ones(LIKE.shape)
    t = steps.TimeSampler()(time_key, 2)
    v = linear_velocity(linear(), 0.2, flow.interpolate(x0, eps, t), t)
    np.testing.assert_allclose(metrics["loss"][0], np.mean((v - (eps - x0)) ** 2), rtol=1e-5)
    for e, old, p in zip(*map(jax.tree.leaves, (new.ema, state.ema, new.student.params)), strict=True):
        np.testing.assert_allclose(e, 0.9 * old + 0.1 * p, rtol=1e-6)
    assert new.critic is None


def test_dropped_conditions_become_the_null_condition(tiny):
    denoiser, trees, cond, _ = tiny
    null = qwen.Condition(-cond.text[:1], jnp.array([1]), (2 * cond.references[0][:1],), (1,))
    state = TrainState.create(trees[0], OPTIMIZER)

    @functools.partial(jax.jit, static_argnames="drop_rate")
    def loss(cond, drop_rate):
        return flow_step(state, drop_rate=drop_rate, denoiser=denoiser, cond=cond, null=null)[1]["loss"][0]

    everywhere = jax.tree.map(lambda n, c: jnp.broadcast_to(n, c.shape), null, cond)
    kept, dropped, replaced = loss(cond, 0.0), loss(cond, 1.0), loss(everywhere, 0.0)
    np.testing.assert_allclose(dropped, replaced, rtol=1e-6)
    assert abs(kept - dropped) > 1e-3


def test_conditions_are_dropped_at_the_rate_and_by_sample():
    """With a parameter a sample: no gradient where the condition, 1, became 0. For 4,096 samples one standard deviation
    of the rate is 0.006."""
    net, optimizer = flow.Denoiser(lambda params, cond: params * cond, lambda p, context, z, t: context), recorder(1)
    state, _ = steps.flow_matching_step(
        TrainState.create(jnp.zeros((4096, 1)), optimizer), jnp.ones((4096, 1)), jnp.ones((4096, 1)),
        jnp.zeros((1, 1)), KEY, denoiser=net, optimizer=optimizer, times=steps.TimeSampler(), drop_rate=0.2,
        ema_decay=0.9,
    )  # fmt: skip
    assert abs(np.mean(state.student.opt_state[1][0] != 0) - 0.8) < 0.025


# -- times ------------------------------------------------------------------------------------------------------------


def test_time_samplers():
    uniform = steps.TimeSampler(low=0.1, high=0.4)(KEY, 4096)
    assert uniform.dtype == jnp.float32
    assert 0.1 <= uniform.min() < 0.11
    assert 0.39 < uniform.max() <= 0.4
    shifted = steps.TimeSampler(low=0.1, high=0.4, shift=3.0)(KEY, 4096)
    np.testing.assert_allclose(shifted, flow.shift_time(uniform, 3.0), rtol=1e-6)
    logit = steps.TimeSampler("logit_normal", mean=1.0, std=0.5)(KEY, 4096)
    z = np.log(logit / (1 - logit))
    assert abs(z.mean() - 1) < 0.04  # 0.008 is one standard deviation
    assert abs(z.std() - 0.5) < 0.03
    with pytest.raises(ValueError, match="Unknown time distribution 'beta'; choose uniform or logit_normal"):
        steps.TimeSampler("beta")(KEY, 1)
