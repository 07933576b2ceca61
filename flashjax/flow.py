"""The linear path between data and noise, and everything that follows from it.

Convention (rectified flow, as in Qwen-Image-Flash, section 3): ``z_t = (1 - t) x0 + t eps`` with t in [0, 1],
t = 1 pure noise. A network predicts the velocity ``v = dz/dt = eps - x0``. From (z_t, v, t) all other
parameterisations follow by algebra; this file is the only place where that algebra lives.

Shapes: ``x0, eps, z, v`` are [batch, ...]; ``t`` is a scalar or [batch]. Conversions compute in the dtype that they
are given, so callers pass float32 (or float64): in bfloat16, ``z - t v`` loses the image near t = 1.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = Any
Context = Any


class Denoiser(NamedTuple):
    """Two functions make a model; nothing else of a model is visible to the mathematics.

    ``condition(params, cond) -> context``: what depends neither on time nor on the noisy image (for block-causal
    models the per-layer prefix keys and values). Computed once per batch and parameter tree, shared by every
    evaluation. ``velocity(params, context, z, t) -> v``: the velocity at ``z`` [B, ...] and ``t`` [B], in float32.
    """

    condition: Callable[[Params, Any], Context]
    velocity: Callable[[Params, Context, jax.Array, jax.Array], jax.Array]


def expand(t: jax.Array, like: jax.Array) -> jax.Array:
    """``t`` ([] or [B]) with trailing axes, so that it broadcasts over ``like`` [B, ...]."""
    t = jnp.asarray(t)
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim)) if t.ndim else t


def interpolate(x0: jax.Array, eps: jax.Array, t: jax.Array) -> jax.Array:
    """The path: ``z_t = (1 - t) x0 + t eps``."""
    t = expand(t, x0)
    return (1 - t) * x0 + t * eps


def velocity(x0: jax.Array, eps: jax.Array) -> jax.Array:
    """The conditional velocity ``v = eps - x0``, the regression target of flow matching."""
    return eps - x0


def x0_from_velocity(z: jax.Array, v: jax.Array, t: jax.Array) -> jax.Array:
    """The clean prediction ``x0 = z - t v``."""
    return z - expand(t, z) * v


def eps_from_velocity(z: jax.Array, v: jax.Array, t: jax.Array) -> jax.Array:
    """The noise prediction ``eps = z + (1 - t) v``."""
    return z + (1 - expand(t, z)) * v


def score_from_velocity(z: jax.Array, v: jax.Array, t: jax.Array) -> jax.Array:
    """The score ``grad log p_t(z) = -eps / t = -(z + (1 - t) v) / t``; t > 0."""
    return -eps_from_velocity(z, v, t) / expand(t, z)


def velocity_from_score(z: jax.Array, score: jax.Array, t: jax.Array) -> jax.Array:
    """Inverse of ``score_from_velocity``: ``v = -(t s + z) / (1 - t)``; 0 < t < 1."""
    t = expand(t, z)
    return -(t * score + z) / (1 - t)


def guide(v_neg: jax.Array, v_pos: jax.Array, guidance_scale, rescale: bool = False) -> jax.Array:
    """Classifier-free guidance, the one convention of this project: ``v = v_neg + s (v_pos - v_neg)``.

    s is a scalar or [B]; ``s = 1`` is no guidance. (DMD2, older FastVideo code and Z-Image's pipeline write
    ``v_pos + w (v_pos - v_neg)``: s = w + 1.) ``rescale``, as the first Qwen-Image generation is guided, gives every
    token (last axis) of v the norm that it has in v_pos.
    """
    v = v_neg + expand(guidance_scale, v_pos) * (v_pos - v_neg)
    if not rescale:
        return v
    wanted, found = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (v_pos, v))
    return v * (wanted / jnp.maximum(found, jnp.finfo(v.dtype).tiny))


def shift_time(t, shift: float):
    """Resolution shift ``t -> s t / (1 + (s - 1) t)``: s > 1 moves times towards noise; 0 and 1 stay fixed."""
    return shift * t / (1 + (shift - 1) * t)


MOST_STEPS = 10_000  # a slip of the finger took all memory


def time_grid(steps: int, shift: float = 1.0) -> np.ndarray:
    """The times that a sampler visits: float32 [steps + 1], from exactly 1 (noise) down to exactly 0 (image).

    Training and inference call this same function with the same numbers, and the export writes its result: a student
    is a student of its grid. ``steps=4, shift=3`` gives 1, .9, .75, .5, 0. Raises ValueError for what is no such grid.
    """
    if steps < 1:
        raise ValueError(f"A time grid needs at least one step, not {steps}.")
    if steps > MOST_STEPS:
        raise ValueError(f"A time grid has {MOST_STEPS} steps at most, not {steps}.")
    if not 0 < shift < math.inf:
        raise ValueError(f"The time shift has to be positive, not {shift}; 1 leaves the grid uniform.")
    uniform = np.linspace(1.0, 0.0, steps + 1, dtype=np.float64)
    grid = shift_time(uniform, shift).astype(np.float32)
    if not (np.diff(grid) < 0).all():
        raise ValueError(f"With a time shift of {shift} two of {steps} steps are at one time; take one nearer to 1.")
    return grid
