"""Grids of released models against diffusers' scheduler, which computes in float32: equal within a few roundings."""

import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

from flashjax import flow, schedules

STEPS = (2, 4, 8, 28, 50)
TOKENS = (16, 256, 4096, 6889, 16384)  # below the base, at it, 1024^2 and 1328^2 in v1, 2048^2 in 2.1
QWEN = dict(
    use_dynamic_shifting=True, time_shift_type="exponential", base_image_seq_len=256, max_image_seq_len=8192,
    base_shift=0.5, max_shift=0.9, shift_terminal=0.02,
)  # fmt: skip


def sigmas_of(scheduler, sigmas, mu=None):
    scheduler.set_timesteps(sigmas=sigmas, mu=mu)
    return scheduler.sigmas.numpy()


def uniform(steps):
    return np.linspace(1.0, 1 / steps, steps)


def close(a, b):
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(
    "changes",
    [{}, dict(shift_terminal=None), dict(max_image_seq_len=4096, max_shift=1.15, shift_terminal=0.1)],
)
def test_dynamic_shift_is_that_of_the_qwen_pipelines(steps, tokens, changes):
    scheduler = FlowMatchEulerDiscreteScheduler(**QWEN | changes)
    config = scheduler.config
    mu = calculate_shift(
        tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    close(schedules.scheduler_sigmas(QWEN | changes, steps, tokens), sigmas_of(scheduler, uniform(steps), mu))


def test_four_steps_at_a_megapixel_as_documented():
    np.testing.assert_allclose(schedules.scheduler_sigmas(QWEN, 4, 4096), [1, 0.767, 0.456, 0.02, 0], atol=5e-4)


@pytest.mark.parametrize("steps", (1, *STEPS))
@pytest.mark.parametrize("shift", (6.0, 3.0))
def test_static_shift_is_the_grid_of_z_image(steps, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    close(flow.time_grid(steps, shift), sigmas_of(scheduler, uniform(steps)))


@pytest.mark.parametrize("steps", (1, *STEPS, 200, 250))
@pytest.mark.parametrize("tokens", (*TOKENS, 4300, 4301))
def test_klein_shifts_by_its_fit(steps, tokens):
    mu = compute_empirical_mu(tokens, steps)
    assert schedules.klein_mu(steps, tokens) == pytest.approx(mu, rel=1e-12)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    grid = schedules.scheduler_sigmas(dict(use_dynamic_shifting=True), steps, tokens, klein=True)
    close(grid, sigmas_of(scheduler, uniform(steps), mu))


def test_turbo_is_sampled_at_its_own_times():
    given = (1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568)
    grid = schedules.explicit_sigmas(given)
    assert len(grid) == 9
    close(grid, sigmas_of(FlowMatchEulerDiscreteScheduler(), list(given)))


@pytest.mark.parametrize("sigmas", [(), (1.1, 0.5), (1.0, 0.5, 0.5), (1.0, 0.0), (0.5, 1.0), (1.0, float("nan"))])
def test_times_that_are_no_grid(sigmas):
    with pytest.raises(ValueError, match="Times have to fall, from 1 or less, and stay above 0"):
        schedules.explicit_sigmas(sigmas)


@pytest.mark.parametrize(("steps", "expected"), [(1, "one step cannot end at 0.02"), (0, "at least one step, not 0")])
def test_too_few_steps(steps, expected):
    with pytest.raises(ValueError, match=expected):
        schedules.scheduler_sigmas(QWEN, steps, 4096)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(max_image_seq_len=256), "base_image_seq_len and max_image_seq_len are both 256"),
        (dict(max_shift=1000), "no grid of falling times at 16 tokens"),
        (dict(shift_terminal=2.0), "no grid of falling times"),
        (dict(shift_terminal=-1), "no grid of falling times"),
    ],
)
def test_settings_that_make_no_grid(changes, expected):
    with pytest.raises(ValueError, match=expected):
        schedules.scheduler_sigmas(QWEN | changes, 4, 16)


@pytest.mark.parametrize("sigmas", [None, (1.0, 0.8, 0.3)])
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(
    "settings",
    [
        QWEN, QWEN | dict(time_shift_type="linear"), dict(use_dynamic_shifting=True, shift=3.0), dict(shift=6.0), {},
        dict(shift=3.0, shift_terminal=0.1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("klein", [False, True])
def test_a_folders_scheduler_gives_the_grid_of_its_pipeline(settings, tokens, sigmas, klein):
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    config, steps = scheduler.config, len(sigmas or uniform(7))
    line = config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    mu = compute_empirical_mu(tokens, steps) if klein else calculate_shift(tokens, *line)
    expected = sigmas_of(scheduler, uniform(steps) if sigmas is None else list(sigmas), mu)
    close(schedules.scheduler_sigmas(settings, steps, tokens, klein, sigmas), expected)
