"""The linear path: every conversion has its inverse, and they all follow from z = (1 - t) x0 + t eps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashjax import flow


@pytest.fixture(params=["scalar", "batch"])
def path(request):
    """(x0, eps, t, z, v) in float64; exact but for rounding."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x0, eps = (jnp.asarray(rng.normal(size=(3, 4, 5, 2))) for _ in range(2))
        t = jnp.asarray(0.3) if request.param == "scalar" else jnp.asarray([0.02, 0.5, 0.97])
        yield x0, eps, t, flow.interpolate(x0, eps, t), flow.velocity(x0, eps)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_path_runs_from_image_to_noise(path):
    x0, eps, *_ = path
    np.testing.assert_array_equal(flow.interpolate(x0, eps, 0.0), x0)
    np.testing.assert_array_equal(flow.interpolate(x0, eps, 1.0), eps)


def test_velocity_is_the_time_derivative_of_the_path(path):
    x0, eps, _, _, v = path
    for i in range(3):  # jvp of the path at each sample's own time
        _, tangent = jax.jvp(lambda t, i=i: flow.interpolate(x0[i : i + 1], eps[i : i + 1], t), (0.4,), (1.0,))
        close(tangent[0], v[i])


def test_image_and_noise_come_back_from_the_velocity(path):
    x0, eps, t, z, v = path
    close(flow.x0_from_velocity(z, v, t), x0)
    close(flow.eps_from_velocity(z, v, t), eps)


def test_score_and_velocity_are_inverses(path):
    _, eps, t, z, v = path
    score = flow.score_from_velocity(z, v, t)
    close(score, -eps / flow.expand(t, z))
    close(flow.velocity_from_score(z, score, t), v)


def test_score_is_the_gradient_of_the_noised_log_density():
    """For a point mass at x0 the noised density is N((1 - t) x0, t^2 I)."""
    with jax.enable_x64(True):
        x0, z, t = jnp.array([[0.5, -1.0]]), jnp.array([[0.2, 0.3]]), jnp.array([0.4])
        expected = jax.grad(lambda z: -jnp.sum((z - (1 - 0.4) * x0) ** 2) / (2 * 0.4**2))(z)
        close(flow.score_from_velocity(z, (z - x0) / 0.4, t), expected)


def test_time_goes_with_the_sample_and_nothing_else():
    """A [B] time must not broadcast over a trailing axis that happens to have B entries."""
    z, t = jnp.ones((3, 2, 3)), jnp.array([0.0, 0.5, 1.0])
    assert flow.expand(t, z).shape == (3, 1, 1)
    np.testing.assert_array_equal(flow.interpolate(z, 0 * z, t)[:, 0, 0], 1 - t)
    assert flow.expand(0.5, z).shape == ()


def test_guidance_of_one_is_the_condition_and_of_zero_its_absence():
    negative, positive = jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])
    np.testing.assert_array_equal(flow.guide(negative, positive, 1), positive)
    np.testing.assert_array_equal(flow.guide(negative, positive, 0), negative)
    np.testing.assert_array_equal(flow.guide(negative, positive, 4), [9.0, -10.0])


@given(st.floats(0.05, 20), st.floats(0.05, 20), st.floats(0, 1))
def test_shifts_compose_and_keep_the_ends(a, b, t):
    np.testing.assert_allclose(flow.shift_time(flow.shift_time(t, a), b), flow.shift_time(t, a * b), atol=1e-12)
    np.testing.assert_allclose(flow.shift_time(flow.shift_time(t, a), 1 / a), t, atol=1e-12)
    assert flow.shift_time(0.0, a) == 0
    np.testing.assert_allclose(flow.shift_time(1.0, a), 1, rtol=1e-14)  # 1 + (a - 1) rounds; a grid's float32 is exact
    assert flow.shift_time(t, 1) == t


def test_a_shift_above_one_moves_towards_noise():
    assert flow.shift_time(0.5, 3) == 0.75


def test_the_grid_of_the_four_step_student():
    grid = flow.time_grid(4, 3)
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid, [1, 0.9, 0.75, 0.5, 0], rtol=1e-7)


@given(st.integers(1, 64), st.floats(0.1, 20))
def test_grids_fall_from_exactly_one_to_exactly_zero(steps, shift):
    grid = flow.time_grid(steps, shift)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (1, 0)
    assert (np.diff(grid) < 0).all()


@pytest.mark.parametrize(
    ("steps", "shift", "message"),
    [
        (0, 1, "one step"), (4, 0, "positive"), (4, -1, "positive"), (4, np.nan, "positive"), (4, np.inf, "positive"),
        (4, 1e12, "two of 4 steps are at one time"),
    ],
)  # fmt: skip
def test_impossible_grids_are_named(steps, shift, message):
    with pytest.raises(ValueError, match=message):
        flow.time_grid(steps, shift)


def test_rescaled_guidance_keeps_every_tokens_norm():
    negative, positive = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
    plain, rescaled = (np.asarray(flow.guide(negative, positive, 4.0, rescale)) for rescale in (False, True))
    norms = [np.linalg.norm(x, axis=-1) for x in (rescaled, positive)]
    np.testing.assert_allclose(*norms, rtol=1e-5)
    ratio = rescaled / plain
    np.testing.assert_allclose(ratio, ratio[..., :1].repeat(4, -1), rtol=1e-5)
    assert np.isfinite(flow.guide(0 * positive, 0 * positive, 4.0, True)).all()
