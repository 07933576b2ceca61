"""Walking down the time grid: the few-step student (in training and at inference) and the many-step teacher.

``velocity(z, t)`` is a closure over parameters and context. Training and inference take the same steps, so a student
can only be trained on those that it will take.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flashjax import flow

Velocity = Callable[[jax.Array, jax.Array], jax.Array]
MODES = ("euler", "renoise")


def times(t: float, batch: int) -> jax.Array:
    """t for every sample: float32 [B]."""
    return jnp.full((batch,), t, jnp.float32)


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"Unknown rollout mode {mode!r}; choose one of {', '.join(MODES)}.")


def advance(v: jax.Array, z: jax.Array, t: jax.Array, t_next: jax.Array, mode: str, noise: jax.Array | None = None):
    """One step from t to t_next < t along v.

    "euler": ``z + (t_next - t) v``, the deterministic flow. "renoise": predict the clean image and diffuse it to t_next
    with *fresh* ``noise`` (DMD2; re-using noise between steps causes artefacts). At t_next = 0 both give x0.
    """
    check_mode(mode)
    if mode == "euler":
        return z + flow.expand(t_next - t, z) * v
    return flow.interpolate(flow.x0_from_velocity(z, v, t), noise, t_next)


def take_step(velocity: Velocity, z: jax.Array, t, t_next, mode: str, noise: jax.Array | None) -> jax.Array:
    """The state at t_next from the one at t (scalars): one network evaluation; ``noise`` (`fresh_noise`) serves
    "renoise" only. Training and every sampler go down their grids by this."""
    t, t_next = times(t, len(z)), times(t_next, len(z))
    return advance(velocity(z, t), z, t, t_next, mode, noise)


def fresh_noise(key: jax.Array, z: jax.Array) -> jax.Array:
    """Noise like z [B, ...] from one key for the batch, or from [B] of them, so that a sample depends on its own
    alone."""
    if key.ndim == 0:
        return jax.random.normal(key, z.shape, z.dtype)
    return jax.vmap(lambda own: jax.random.normal(own, z.shape[1:], z.dtype))(key)
