"""What a row of the table hands to its pure step: the right part of the batch, key, grid, teachers and optimizers."""

import types
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussians import make_state
from ml_collections import ConfigDict
from toys import linear, linear_velocity, recipe, trees_equal

from flashjax import flow
from flashjax.distill import guidance, schedule, steps
from flashjax.distill.trajectory import trajectory_step
from flashjax.models import pixels
from flashjax.programs import run_row, step_call


class Condition(NamedTuple):
    text: jax.Array
    text_length: jax.Array


MODEL = types.SimpleNamespace(Condition=Condition)
DENOISER = flow.Denoiser(lambda params, cond: params["c"] * cond.text, linear_velocity)
TIMES = dict(kind="uniform", low=0.3, high=0.6)
CONFIG = ConfigDict(
    dict(seed=3, micro_batches=2, teacher_memory="device", times=TIMES, drop_rate=0.5, ema_decay=0.7)
)
KEY, SIZE = jax.random.key(3), 4
LAMBDAS = guidance.lambda_table(2, 2, [[[0.2, 0.9], [0.5, 0.1]]])  # two teachers, whose weights differ by class
DOUBLE = guidance.Scale(scales=(2.0,))
RULE = recipe(
    grid=tuple(flow.time_grid(2, 2.0).tolist()), lambdas=LAMBDAS, guidance_scales=(DOUBLE,), micro_batches=2
)
TEACHERS = linear(0.9), linear(-0.7)
STUDENT, CRITIC = optax.sgd(0.1), optax.sgd(0.3)
NULL = Condition(jnp.full((1, 1, 1, 1), -2.0), jnp.ones(1, jnp.int32))
BATCH = dict(
    text=np.arange(1, 5, dtype=np.float32).reshape(4, 1, 1, 1), text_length=np.array([1, 1, 1, 1], np.int32),
    category=np.array([0, 1, 1, 0], np.int32), index=np.array([1, 0, 7, 9]),
    image=np.random.default_rng(0).uniform(-1, 1, (4, SIZE, SIZE, 3)).astype(np.float32),
)  # fmt: skip
COND = Condition(BATCH["text"], BATCH["text_length"])


class WithReferences(NamedTuple):
    text: jax.Array
    text_length: jax.Array
    references: tuple = ()
    reference_at: tuple = ()


def begun():
    return make_state(linear(), linear(0.3), STUDENT, CRITIC).replace(step=jnp.int32(5))


def row(table, step: int, batch=BATCH):
    """The state after a row, as training runs it."""
    call = partial(
        step_call, config=CONFIG, model=MODEL, denoiser=DENOISER, recipe=RULE, table=table, nulls=(NULL, NULL),
        size=SIZE, student_optimizer=STUDENT, critic_optimizer=CRITIC,
    )  # fmt: skip
    return run_row({p: partial(call, program=p) for p in table.programs()}, table, step, begun(), TEACHERS, batch)


def rolled_out(k: int):
    """(context, z_k) of the pure functions."""
    like, state = jax.ShapeDtypeStruct((4, 1, 1, 48), jnp.float32), begun()
    context, z = steps.begin(state.student.params, state.step, like, COND, KEY, denoiser=DENOISER)
    for i in range(k):
        z = steps.advance(state.student.params, state.step, context, z, i, KEY, recipe=RULE, denoiser=DENOISER)
    return context, z


def row_of(table, phase: int, k: int) -> int:
    return int(np.flatnonzero((table.phase == phase) & (table.k == k))[0])


@pytest.fixture(scope="module")
def table():
    return schedule.distillation_table(4, critic_rows=2, lambdas=LAMBDAS[None], seed=0)


@pytest.mark.parametrize("k", range(2))
def test_a_student_row(table, k):
    def direct(classes):
        return steps.student_step(
            begun(), TEACHERS, rolled_out(k)[1], k, COND, (NULL, NULL), classes, KEY, active=(0, 1), recipe=RULE,
            denoiser=DENOISER, student_optimizer=STUDENT, critic_optimizer=CRITIC,
        )  # fmt: skip

    done, expected = row(table, row_of(table, schedule.STUDENT, k)), direct(BATCH["category"])
    assert trees_equal(done, expected)
    assert not trees_equal(direct(BATCH["index"]), expected)  # such a mix-up would be seen here


@pytest.mark.parametrize("k", range(2))
def test_a_critic_row(table, k):
    context, z = rolled_out(k)
    expected = steps.critic_step(
        begun(), context, z, k, COND, KEY, recipe=RULE, denoiser=DENOISER, critic_optimizer=CRITIC
    )
    assert trees_equal(row(table, row_of(table, schedule.CRITIC, k)), expected)


@pytest.mark.parametrize("k", range(2))
def test_a_trajectory_row(k):
    def direct(classes):
        return trajectory_step(
            begun(), TEACHERS, rolled_out(k)[1], k, COND, (NULL, NULL), classes, active=(0, 1), recipe=RULE,
            denoiser=DENOISER, student_optimizer=STUDENT,
        )  # fmt: skip

    table = schedule.trajectory_table(4, lambdas=LAMBDAS[None], seed=0)
    done, expected = row(table, row_of(table, schedule.TRAJECTORY, k)), direct(BATCH["category"])
    assert trees_equal(done, expected)
    assert not trees_equal(direct(BATCH["index"]), expected)


def test_a_flow_matching_row():
    expected = steps.flow_matching_step(
        begun(), pixels.encode(BATCH["image"]), COND, NULL, KEY, denoiser=DENOISER, optimizer=STUDENT,
        times=steps.TimeSampler(**TIMES), drop_rate=0.5, ema_decay=0.7, parts=2,
    )  # fmt: skip
    assert trees_equal(row(schedule.flow_matching_table(1), 0), expected)


def test_an_edit_row_conditions_on_its_source_and_so_does_its_null():
    """The null condition has the same pictures: guidance strengthens the instruction, not the likeness."""
    source = np.random.default_rng(1).uniform(-1, 1, BATCH["image"].shape).astype(np.float32)
    seen = []

    def condition(params, cond):
        seen.append(cond)
        return params["c"] * cond.text + sum(r.mean(axis=-1, keepdims=True) for r in cond.references)

    config = ConfigDict(CONFIG.to_dict() | dict(micro_batches=1))  # whole, to be looked at
    denoiser, model = flow.Denoiser(condition, linear_velocity), types.SimpleNamespace(Condition=WithReferences)
    lambdas = np.pad(LAMBDAS, ((0, 0), (0, 1), (0, 0)), constant_values=1.0) * [1, 1]
    lambdas[:, 2] = [[0, 1], [1, 0]]  # of edits: the second teacher alone, then the base
    table = schedule.trajectory_table(
        4, lambdas=lambdas[None].astype(np.float32), seed=0, task_ratios=(0, 1), classes=((0, 1), (2,))
    )
    step, batch = int(np.flatnonzero(table.k == 0)[0]), BATCH | dict(source=source, category=np.full(4, 2, np.int32))
    assert table.program(step).active == (1,)
    call = partial(
        step_call, config=config, model=model, denoiser=denoiser, recipe=RULE, table=table, nulls=(NULL, NULL),
        size=SIZE, student_optimizer=STUDENT, critic_optimizer=CRITIC,
    )  # fmt: skip
    programs = {p: partial(call, program=p) for p in table.programs()}
    run_row(programs, table, step, begun().replace(step=jnp.int32(step)), TEACHERS, batch)
    nulls = [cond for cond in seen if (cond.text == NULL.text).all()]
    assert (len(seen), len(nulls)) == (4, 1)  # "begin", teacher, its null, student
    for cond in seen:
        np.testing.assert_array_equal(cond.references[0], pixels.encode(source))
        assert cond.reference_at == (0,)
        assert cond.text.shape == (4, 1, 1, 1)

    # A null that each sample has from an encoder which saw its picture takes the place of all teachers'.
    seen.clear()
    own = dict(null=np.full((4, 1, 1, 1), -5.0, np.float32), null_length=np.full(4, 1, np.int32))
    run_row(programs, table, step, begun().replace(step=jnp.int32(step)), TEACHERS, batch | own)
    assert not any((cond.text == NULL.text).all() for cond in seen)
    (null,) = [cond for cond in seen if (cond.text == -5).all()]
    np.testing.assert_array_equal(null.references[0], pixels.encode(source))
