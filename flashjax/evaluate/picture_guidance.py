"""The guidance that a student of a teacher's *pictures* needs inside the loss, as a function of t.

A teacher that samples with guidance s draws pictures of some distribution. The score of that distribution, diffused to
t, is not the guided score: at much noise, where a solver's steps have barely begun to part, it is that of a scale near
1. The scale at which the guided velocity predicts the pictures' own flow best, in the mean square, is a regression:

    s*(t) = sum <eps - x0 - v_neg, v_pos - v_neg> / sum |v_pos - v_neg|^2    at z_t = (1 - t) x0 + t eps

over pictures x0 and noise eps. Of real pictures it is 1 wherever the teacher is calibrated.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flashjax import flow, pictures
from flashjax.models import pixels, text
from flashjax.pipeline import Pipeline

BOOTSTRAP = 400


class Point(NamedTuple):
    """The scale at one t, with the 95 % interval of a bootstrap over prompts."""

    t: float
    scale: float
    low: float
    high: float


def measure(
    pipe: Pipeline, images: np.ndarray, prompts: Sequence[str], encoder: text.TextEncoder, times: Sequence[float],
    seed: int = 0, batch: int = 64,
) -> list[Point]:  # fmt: skip
    """One point for each t in (0, 1) from pictures uint8 [N, H, W, 3] of N prompts, each noised once a time."""
    cond, null = pictures.conditions(pipe.model, encoder, list(prompts), pipe.max_text_tokens)
    sums = _sums_program(pipe, null)
    points, resampled = [], np.random.default_rng(seed).integers(0, len(images), (BOOTSTRAP, len(images)))
    for i, t in enumerate(tqdm(times, "measuring", unit="time")):
        parts = []
        for start in range(0, len(images), batch):
            chosen = np.minimum(np.arange(start, start + batch), len(images) - 1)  # one batch size is compiled
            some = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], cond)
            key = jax.random.fold_in(jax.random.key(seed), i * len(images) + start)
            parts.append(sums(pipe.params, some, pixels.encode(pixels.from_uint8(images[chosen])), np.float32(t), key))
        over, under = np.concatenate(parts, axis=1)[:, : len(images)].astype(np.float64)
        scales = over[resampled].sum(axis=1) / under[resampled].sum(axis=1)
        points.append(Point(float(t), over.sum() / under.sum(), *np.percentile(scales, (2.5, 97.5))))
    return points


def _sums_program(pipe: Pipeline, null):
    """(params, cond, x0 [B, ...], t, key) -> numerator and denominator of every sample, [2, B]."""
    denoiser = pipe.model.denoiser(pipe.model_config)

    @jax.jit
    def sums(params, cond, x0, t, key):
        eps, at = jax.random.normal(key, x0.shape), jnp.full(len(x0), t)
        z = flow.interpolate(x0, eps, at)
        pos, neg = (denoiser.velocity(params, denoiser.condition(params, c), z, at) for c in (cond, null))
        axes = tuple(range(1, x0.ndim))
        parts = (flow.velocity(x0, eps) - neg) * (pos - neg), jnp.square(pos - neg)
        return jnp.stack([part.sum(axes) for part in parts])

    return sums
