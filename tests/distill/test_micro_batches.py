"""An update from parts of a batch is that of the whole batch: the same draws, the same mean, the same figures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import critic_row, student_row
from hypothesis import given
from hypothesis import strategies as st
from toys import KEY, LINEAR, OPTIMIZER, linear, linear_state, recipe

from flashjax.distill import guidance, micro_batches, steps
from flashjax.distill.trajectory import trajectory_step

B = 8
LIKE = jax.ShapeDtypeStruct((B, 2, 2, 8), jnp.float32)
COND = jnp.linspace(-1, 1, B).reshape(B, 1, 1, 1)  # every sample has its own condition and class
CLASSES = jnp.arange(B) % 2
TEACHERS = linear(0.9), linear(-0.7)
LAMBDAS = guidance.lambda_table(4, 2, [[[0.25, 0.75]] * 4])
RULE = partial(recipe, lambdas=LAMBDAS, guidance_scales=(guidance.Scale(scales=(2.0,)),), critic_updates_per_rollout=2)
NULLS = dict(one=(0.3 * COND[-1:],) * 2, each=(0.3 * COND, -COND))


def cycles(parts: int, nulls):
    """Two student and two critic rows."""

    @jax.jit
    def cycle(state):
        common = dict(k=0, recipe=RULE(micro_batches=parts), denoiser=LINEAR, critic_optimizer=OPTIMIZER)
        state, metrics = student_row(
            state, TEACHERS, LIKE, COND, nulls[0], CLASSES, KEY, active=(0, 1), student_optimizer=OPTIMIZER, **common
        )
        state, more = critic_row(state, LIKE, COND, KEY, **common)
        return state, (metrics, more)

    state, first = cycle(linear_state())
    return *cycle(state), first


def trajectory(parts: int, nulls):
    return trajectory_step(
        linear_state(), TEACHERS, jax.random.normal(KEY, LIKE.shape), 1, COND, nulls, CLASSES, active=(0, 1),
        recipe=RULE(micro_batches=parts, substeps=3), denoiser=LINEAR, student_optimizer=OPTIMIZER,
    )  # fmt: skip


def matching(parts: int, nulls):
    return steps.flow_matching_step(
        linear_state(), jax.random.normal(KEY, LIKE.shape), COND, nulls[0], KEY, denoiser=LINEAR, optimizer=OPTIMIZER,
        times=steps.TimeSampler(), drop_rate=0.5, ema_decay=0.9, parts=parts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "nulls"), [(cycles, "each"), (trajectory, "one"), (trajectory, "each"), (matching, "one")]
)
def test_parts_make_the_whole(run, nulls):
    """Sums in another order, and no more: float32 keeps 1e-7 of each, and Adam's first updates are 1e-2 in size."""
    found, expected = (run(parts, NULLS[nulls]) for parts in (4, 1))
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=jax.tree_util.keystr(path))


def test_parts_need_the_memory_of_a_part():
    """Of 32 layers whose outputs the backward pass reads: 64 KiB a sample, against 4 KiB of parameters."""

    def loss(params, x):
        for _ in range(32):
            x = jnp.tanh(x @ params)
        return jnp.mean(x**2), ()

    params, x = jnp.eye(32), jnp.ones((64, 16, 32))
    whole, part = (
        jax.jit(partial(micro_batches.value_and_grad, loss, parts=parts)).lower(params, x).compile()
        for parts in (1, 16)
    )
    whole, part = (done.memory_analysis().temp_size_in_bytes for done in (whole, part))
    assert part < whole / 8


@given(rows=st.integers(1, 4), parts=st.integers(1, 4), width=st.integers(1, 3))
def test_what_is_divided_can_be_joined(rows, parts, width):
    x = np.arange(rows * parts * width).reshape(rows * parts, width)
    divided = micro_batches.divide(x, parts)
    assert divided.shape == (parts, rows, width)
    np.testing.assert_array_equal(micro_batches.join(divided), x)
    # A device that has consecutive rows has an equal share of every part.
    np.testing.assert_array_equal(np.sort(np.asarray(divided[0, :, 0])), np.arange(0, rows * parts, parts) * width)


def test_what_all_samples_share_is_in_every_part():
    divided = micro_batches.divide((np.arange(6), np.full((1, 2), 7)), 3)
    assert divided[1].shape == (3, 1, 2)
    assert (divided[1] == 7).all()


def test_a_batch_that_does_not_divide_is_told():
    with pytest.raises(ValueError, match="A batch of 8 does not divide into 3 micro-batches"):
        matching(3, NULLS["one"])
    with pytest.raises(ValueError, match="micro_batches is 0"):
        recipe(micro_batches=0)
