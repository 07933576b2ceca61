"""The rollout against flows that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussians import gaussian_velocity, walk_down

from flashjax import flow
from flashjax.distill import rollout

KEY = jax.random.key(0)
MEAN = np.array([1.0, -2.0], np.float32)
FACTOR = np.array([[0.8, 0.3], [0.3, 0.6]], np.float32)  # symmetric: the square root of the covariance


@pytest.fixture
def noise():
    return jax.random.normal(jax.random.key(1), (64, 2))


def walk(velocity, noise, steps, mode="euler", k=None, shift=1.0):
    return walk_down(velocity, noise, flow.time_grid(steps, shift), steps if k is None else k, mode, KEY)


def test_euler_converges_to_the_exact_map_at_first_order(noise):
    """All covariances on the path commute, so the flow takes noise to mean + sqrt(covariance) noise. The error of
    Euler's method halves with the step; its next term, of relative size 1 / steps, explains the 10 %."""
    exact = MEAN + noise @ FACTOR.T
    velocity = jax.jit(lambda z, t: gaussian_velocity(MEAN, FACTOR, z, t))
    errors = [np.abs(walk(velocity, noise, n) - exact).max() for n in (16, 32, 64)]
    np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.1)
    assert errors[-1] < 0.05


@pytest.mark.parametrize("mode", rollout.MODES)
@pytest.mark.parametrize("steps", [1, 4])
def test_the_posterior_mean_of_a_point_mass_returns_the_point(noise, mode, steps):
    """x0 = z - t (z - p) / t = p at every step."""
    velocity = lambda z, t: (z - MEAN) / flow.expand(t, z)  # noqa: E731
    image = walk(velocity, noise, steps, mode, shift=3)
    np.testing.assert_allclose(image, np.broadcast_to(MEAN, noise.shape), atol=1e-6)


@pytest.mark.parametrize("mode", rollout.MODES)
def test_no_steps_is_the_noise_and_every_step_calls_once(noise, mode):
    times = []

    def velocity(z, t):
        assert t.shape == (64,)
        assert t.dtype == jnp.float32
        times.append(float(t[0]))
        return z

    np.testing.assert_array_equal(walk(velocity, noise, 4, mode, k=0), noise)
    assert times == []
    for k in range(1, 5):
        times.clear()
        walk(velocity, noise, 4, mode, k=k, shift=3)
        np.testing.assert_array_equal(np.float32(times), flow.time_grid(4, 3)[:k])


def test_renoise_diffuses_the_prediction_to_the_next_time_with_fresh_noise(noise):
    """Around a point mass the state after a step is exactly (1 - t) p + t eps; eps is new at every step and key."""
    velocity = lambda z, t: (z - MEAN) / flow.expand(t, z)  # noqa: E731
    grid = flow.time_grid(4, 3)
    drawn = [noise] + [(walk(velocity, noise, 4, "renoise", k, 3) - (1 - grid[k]) * MEAN) / grid[k] for k in (1, 2, 3)]
    for i, eps in enumerate(drawn):
        assert abs(np.std(eps) - 1) < 0.2  # 128 numbers: 0.06 is one standard deviation
        for other in drawn[:i]:
            assert abs(np.mean(np.asarray(eps) * other)) < 0.4  # 0.09 is one
    other_key = walk_down(velocity, noise, grid, 1, "renoise", jax.random.key(5))
    assert np.abs(other_key - walk(velocity, noise, 4, "renoise", 1, 3)).max() > 0.1


def test_euler_ignores_the_key(noise):
    grid = flow.time_grid(3)
    a, b = (walk_down(lambda z, t: jnp.sin(z), noise, grid, 3, "euler", jax.random.key(i)) for i in (0, 1))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", rollout.MODES)
def test_at_time_zero_both_modes_give_the_clean_prediction(noise, mode):
    t, v = jnp.full(64, 0.4), jnp.cos(noise)
    image = rollout.advance(v, noise, t, jnp.zeros(64), mode, noise)
    np.testing.assert_allclose(image, flow.x0_from_velocity(noise, v, t), rtol=1e-6, atol=1e-7)


def test_an_unknown_mode_is_named(noise):
    with pytest.raises(ValueError, match="Unknown rollout mode 'heun'; choose one of euler, renoise"):
        walk(lambda z, t: z, noise, 1, "heun")
