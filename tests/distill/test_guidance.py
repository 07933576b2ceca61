"""The lambda table: rows sum to 1, silent teachers are not run, and a single voice is a single-teacher run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gaussians import DENOISER, affine, as_gaussian, gaussian, make_state, student_row
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flashjax.distill import guidance, steps


@st.composite
def specialist_weights(draw):
    """[M, K, C] in [0, 1] with sums up to 1, exactly 1 included."""
    shape = draw(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 3)))
    raw = draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 10).map(float)))
    rest = draw(hnp.arrays(np.float64, shape[1:], elements=st.integers(0, 3).map(float)))
    return raw / np.maximum(raw.sum(axis=0) + rest, 1)


@given(specialist_weights())
def test_rows_sum_to_one(weights):
    table = guidance.lambda_table(*weights.shape[1:], list(weights))
    assert table.shape == (*weights.shape[1:], 1 + len(weights))
    assert table.dtype == np.float32
    np.testing.assert_allclose(table.sum(axis=-1, dtype=np.float64), 1, atol=1e-6)
    assert table.min() >= 0
    np.testing.assert_array_equal(table[..., 1:], np.moveaxis(weights, 0, -1).astype(np.float32))


@pytest.mark.parametrize("parts", [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], np.array([0.6, 0.3, 0.1], np.float32)])
def test_specialists_that_take_everything_leave_the_base_teacher_silent(parts):
    """0.6 + 0.3 + 0.1 is 1 - 1e-16 in float64: that must not keep a whole teacher running, nor be an error."""
    table = guidance.lambda_table(1, 1, list(parts))
    assert table[0, 0, 0] == 0
    assert guidance.active(table, 0) == (1, 2, 3)


def test_without_specialists_the_base_teacher_speaks_alone():
    np.testing.assert_array_equal(guidance.lambda_table(3, 2), np.ones((3, 2, 1)))


def test_weights_broadcast_over_steps_or_classes():
    by_step = np.array([[0.0], [0.5], [1.0]])
    table = guidance.lambda_table(3, 2, [by_step])
    np.testing.assert_array_equal(table[..., 1], [[0, 0], [0.5, 0.5], [1, 1]])
    np.testing.assert_array_equal(guidance.lambda_table(3, 2, [[0.25, 0.75]])[..., 0], [[0.75, 0.25]] * 3)


@pytest.mark.parametrize(
    ("specialists", "where", "value"),
    [
        ([[[0, 0], [0, 1.5]]], r"lambda\[1, 1, 0\]", "-0.5"),
        ([[[0.7], [0.2]], [[0.6], [0.2]]], r"lambda\[0, 0, 0\]", "-0.3"),
        ([[[0, -0.25], [0, 0]]], r"lambda\[0, 1, 0\]", "1.25"),
        ([[[0, 0], [np.nan, 0]]], r"lambda\[1, 0, 0\]", "nan"),
    ],
)
def test_a_row_out_of_range_is_named(specialists, where, value):
    with pytest.raises(ValueError, match=rf"{where} would be {value}\. Weights lie in \[0, 1\].*takes the rest"):
        guidance.lambda_table(2, 2, specialists)


def test_active_teachers_by_step_and_class():
    table = guidance.lambda_table(3, 2, [[[0, 0], [1, 0.5], [1, 1]], [[0, 1], [0, 0], [0, 0]]])
    assert [guidance.active(table, k) for k in range(3)] == [(0, 2), (0, 1), (1,)]
    assert [guidance.active(table, 0, [c]) for c in range(2)] == [(0,), (2,)]
    assert guidance.active(table, 1, [0]) == (1,)


# -- how strongly ------------------------------------------------------------------------------------------------------


def test_a_scale_is_linear_between_its_knots_and_constant_beyond():
    scale = guidance.Scale((0.2, 0.6), (2.0, 1.0))
    np.testing.assert_allclose(scale(jnp.array([0.0, 0.2, 0.3, 0.5, 0.6, 1.0])), [2, 2, 1.75, 1.25, 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(guidance.Scale(scales=(3.0,))(jnp.array([0.0, 0.4, 1.0])), [3, 3, 3])


def test_guidance_is_off_only_where_it_is_off_everywhere():
    assert guidance.UNGUIDED.off
    assert not guidance.Scale((0.2, 0.6), (2.0, 1.0)).off


@pytest.mark.parametrize(
    ("times", "scales", "said"),
    [
        ((0.0, 0.5), (2.0,), "2 times and 1 scales"), ((), (), "one or more of each"),
        ((0.5, 0.2), (1.0, 2.0), "times that rise"), ((0.0, 1.5), (1.0, 2.0), "times that rise"),
        ((0.0,), (np.nan,), "finite scales"),
    ],
)  # fmt: skip
def test_knots_that_make_no_function_are_refused(times, scales, said):
    with pytest.raises(ValueError, match=said):
        guidance.Scale(times, scales)


# -- mixing ----------------------------------------------------------------------------------------------------------


def test_mix_is_the_weighted_sum_per_sample():
    v = [jax.random.normal(jax.random.key(i), (2, 3, 4)) for i in range(3)]
    weights = jnp.array([[0.5, 0.25, 0.25], [0.0, 0.9, 0.1]])
    expected = np.einsum("bm,mbhw->bhw", weights, np.stack(v))
    np.testing.assert_allclose(guidance.mix(v, weights), expected, rtol=1e-6, atol=1e-7)


def test_a_weight_of_zero_silences_nan_and_inf():
    good, weights = jnp.ones((2, 3)), jnp.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    nan_for_first = jnp.array([[jnp.nan] * 3, [2.0] * 3])
    mixed = guidance.mix([good, nan_for_first, jnp.full((2, 3), jnp.inf)], weights)
    np.testing.assert_array_equal(mixed, [[1.0] * 3, [1.5] * 3])


def test_nan_of_a_teacher_that_speaks_stays_visible():
    assert np.isnan(guidance.mix([jnp.ones((1, 2)), jnp.full((1, 2), jnp.nan)], jnp.array([[0.5, 0.5]]))).all()


def test_a_single_voice_is_returned_bit_for_bit():
    v = jax.random.normal(jax.random.key(0), (4, 5))
    assert guidance.mix([v], jnp.full((4, 1), 0.3)) is v
    one_hot = guidance.mix([jnp.full_like(v, jnp.nan), v], jnp.array([[0.0, 1.0]] * 4))
    np.testing.assert_array_equal(one_hot, v)


# -- through the training step ---------------------------------------------------------------------------------------


def train(teachers, lambdas, active, updates=5):
    """Several student_steps with one class of condition; the state's arrays afterwards."""
    student, optimizer = affine(np.zeros((1, 2)), np.eye(2)), optax.adam(0.05)
    recipe = steps.Recipe(grid=(1.0, 0.0), lambdas=lambdas)
    classes = jnp.zeros(8, jnp.int32)

    @jax.jit
    def step(state):
        return student_row(
            state, teachers, jax.ShapeDtypeStruct((8, 2), jnp.float32), classes, None, classes, jax.random.key(0), k=0,
            active=active, recipe=recipe, denoiser=DENOISER, student_optimizer=optimizer, critic_optimizer=optimizer,
        )  # fmt: skip

    state = make_state(student, as_gaussian(student), optimizer, optimizer)
    for _ in range(updates):
        state, metrics = step(state)
    # Shares name the teachers, of which there are others in every run here.
    return jax.tree.leaves((state, {name: x for name, x in metrics.items() if not name.startswith("share_")}))


GOOD, BROKEN = gaussian([[1.0, -1.0]], 0.5 * np.eye(2)), gaussian([[np.nan, 0.0]], np.full((2, 2), np.nan))


def test_one_hot_lambda_is_a_single_teacher_run_though_the_others_are_broken():
    expected = train((GOOD,), guidance.lambda_table(1, 1), (0,))
    assert all(np.isfinite(x).all() for x in expected)
    one_hot = guidance.lambda_table(1, 1, [0.0, 1.0])
    assert guidance.active(one_hot, 0) == (2,)
    actual = train((BROKEN, BROKEN, GOOD), one_hot, guidance.active(one_hot, 0))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_a_broken_teacher_that_runs_for_another_class_does_not_spread():
    """Run because another class needs it, silent for this one: lambda = 0 is enough."""
    expected = train((GOOD,), guidance.lambda_table(1, 1), (0,))
    actual = train((GOOD, BROKEN), guidance.lambda_table(1, 2, [[0.0, 1.0]]), (0, 1))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)  # two programs fuse differently
