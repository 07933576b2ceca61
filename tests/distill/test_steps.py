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
from gaussians import critic_row, generate, make_state, student_row
from toys import (
    CLASSES,
    COND,
    KEY,
    LIKE,
    LINEAR,
    OPTIMIZER,
    RECIPE,
    counting,
    critic_step,
    flow_step,
    linear,
    linear_state,
    linear_velocity,
    recipe,
    student_step,
    trees_equal,
)  # fmt: skip

from flashjax import flow
from flashjax.distill import dmd, figures, guidance, steps
from flashjax.distill.state import TrainState, ema_update
from flashjax.models import qwen_image_21 as qwen

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
    rule = recipe(guidance_scales=(guidance.Scale(scales=(scale,)),), lambdas=lambdas)
    step = functools.partial(student_step, k=1, recipe=rule, denoiser=denoiser)
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
    critic, told = state.critic, []
    for i in range(4):
        critic, each = steps.critic_update(
            critic, x, COND, jax.random.fold_in(critic_key, i), recipe=many, denoiser=LINEAR, optimizer=OPTIMIZER
        )
        told.append(each)
    assert trees_equal(new.critic, critic)
    assert trees_equal(metrics, jax.tree.map(lambda *values: sum(values), *told))
    assert metrics["critic_loss"][1] == 4


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
        x, zero, (zero,), cond, None, classes, steps.draw(dmd_key, rule.student_times, x.shape), k=1, active=(0,),
        recipe=rule, denoiser=net,
    )
    (noise, _), (z1, _), (x_t, t), _ = drawn
    t = t[:, None]
    draws = [noise, (z1 - 0.5 * noise) / 0.5, (x_t - (1 - t) * np.asarray(x)) / t]
    for k in (critic_key, jax.random.fold_in(critic_key, 0), jax.random.fold_in(critic_key, 1)):
        draws.append(np.asarray(jax.random.normal(jax.random.split(k)[1], (4096, 4))))
    correlation = np.corrcoef([d.ravel() for d in draws])
    assert np.abs(correlation - np.eye(len(draws))).max() < 0.05


# -- figures by time -------------------------------------------------------------------------------------------------


def test_figures_by_the_quarter_of_their_time():
    t = jnp.array([0.0, 0.24, 0.25, 0.6, 1.0])
    told = figures.by_time("loss", jnp.array([1.0, 2.0, 4.0, 8.0, 16.0]), t)
    assert {name: tuple(map(float, pair)) for name, pair in told.items()} == {
        "loss/t0": (3, 2), "loss/t0.25": (4, 1), "loss/t0.5": (8, 1), "loss/t0.75": (16, 1),
    }  # fmt: skip


def test_a_loss_by_time_is_the_loss(tiny):
    """Of a flow matching row, and of a critic row; weighted by their counts the quarters make the whole."""
    rows = {"loss": flow_step(TrainState.create(linear(), OPTIMIZER))[1]}
    state = make_state(linear(), linear(0.3), OPTIMIZER, OPTIMIZER)
    rows["critic_loss"] = rows["dmd_direction_square"] = student_step(state)[1]
    for name, metrics in rows.items():
        quarters = [metrics[f"{name}/t{q:g}"] for q in (0, 0.25, 0.5, 0.75)]
        assert sum(float(count) for _, count in quarters) == 2
        mean = sum(float(total) for total, _ in quarters) / 2
        whole = metrics["dmd_direction_rms"][0] ** 2 if "direction" in name else metrics[name][0]
        np.testing.assert_allclose(mean, whole, rtol=1e-5)


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
    for bad in (dict(mean=np.nan), dict(std=np.inf), dict(std=0.0), dict(shift=np.inf), dict(low=np.nan)):
        with pytest.raises(ValueError, match="has to be a number|have to be positive|has to hold"):
            steps.TimeSampler(**bad)


def test_shapes_that_would_broadcast_are_refused():
    """A clean prediction [B, 1, ...] or [B] against [B, C, ...] would give a gradient of the wrong samples."""
    x = jnp.ones((4, 3))
    with pytest.raises(AssertionError):
        dmd.gradient(x, x, x[:, :1])
    with pytest.raises(AssertionError):
        dmd.student_loss(x, x[:1])
    with pytest.raises(AssertionError):
        dmd.critic_loss(x, x, x[0])


def test_corrections_of_nothing_have_no_direction_and_tiny_ones_have():
    """A metric that is not finite ends a run."""
    seen = dict.fromkeys(("grad", "direction", "both", "fake", "real"), jnp.zeros(2))
    assert figures.health(seen)["fake_real_cosine"] == 0
    tiny = seen | dict(both=jnp.full(2, 1e-24), fake=jnp.full(2, 1e-24), real=jnp.full(2, 1e-24))
    assert figures.health(tiny)["fake_real_cosine"] == pytest.approx(1)
    assert jnp.isnan(figures.health(seen | dict(fake=jnp.full(2, jnp.nan)))["fake_real_cosine"])
