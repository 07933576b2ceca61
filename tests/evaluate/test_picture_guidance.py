"""The guidance of pictures, where it has a closed form: Gaussians of one covariance, whose guided score at scale s is
the score of the Gaussian around ``neg + s (pos - neg)``, at every t."""

from types import SimpleNamespace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from flashjax import flow
from flashjax.evaluate import picture_guidance

SIGMA, MEANS = 0.2, {"": 0.0, "x": 0.3}


class Condition(NamedTuple):
    text: jnp.ndarray
    text_length: jnp.ndarray


def velocity(params, mean, z, t):
    mean, t = mean[:, None, None, None], flow.expand(t, z)
    gain = SIGMA**2 * (1 - t) / ((1 - t) ** 2 * SIGMA**2 + t**2)
    x0 = mean + gain * (z - (1 - t) * mean)
    return (z - x0) / t


@pytest.fixture
def pipe():
    denoiser = flow.Denoiser(lambda params, cond: cond.text[:, 0, 0], velocity)
    model = SimpleNamespace(Condition=Condition, denoiser=lambda config: denoiser)
    return SimpleNamespace(model=model, model_config=None, params={}, max_text_tokens=4)


ENCODER = SimpleNamespace(encode=lambda texts, max_tokens: [np.full((1, 1), MEANS[t], np.float32) for t in texts])


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_the_scale_that_drew_the_pictures_is_found_at_every_time(pipe, scale):
    rng = np.random.default_rng(0)
    pictures = rng.normal(scale * MEANS["x"], SIGMA, (150, 8, 8, 3))
    images = np.round((np.clip(pictures, -1, 1) + 1) * 127.5).astype(np.uint8)
    points = picture_guidance.measure(pipe, images, ["x"] * 150, ENCODER, (0.2, 0.6, 0.9))
    for p in points:
        assert p.low <= p.scale <= p.high
        assert p.low - 0.02 <= scale <= p.high + 0.02  # an interval of 95 % need not hold it
        assert p.high - p.low < 0.2


def test_every_picture_counts_once_whatever_the_batch(pipe):
    """The last batch is filled up with copies, which must not count."""
    context = pipe.model.denoiser(None).condition
    plain = flow.Denoiser(context, lambda params, c, z, t: 0 * z + flow.expand(c / 0.3, z))
    pipe.model.denoiser = lambda config: plain  # v_neg = 0 and v_pos = 1: the scale is the mean of eps - x0
    images = np.full((5, 64, 64, 3), 140, np.uint8)
    images[-1] = 255
    expected = -(images / 127.5 - 1).mean()
    for batch in (5, 4):
        (point,) = picture_guidance.measure(pipe, images, ["x"] * 5, ENCODER, (0.5,), batch=batch)
        assert abs(point.scale - expected) < 0.02  # five standard errors of the noise
