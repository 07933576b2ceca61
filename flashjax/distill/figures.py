"""Figures of a training step: (sum, count) pairs of float32 scalars, gathered on the device and averaged when written.
"""

import jax
import jax.numpy as jnp
import numpy as np

Metrics = dict[str, tuple[jax.Array, jax.Array]]


def health(seen: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Figures of a batch from those of its samples [B] that ``dmd_gradient`` gives. The cosine is that of how critic
    and teachers would correct the sample: their velocities have the noise in common, and are alike whatever they say.
    It is 0 where one of them would correct nothing.
    """
    mean = {name: value.mean() for name, value in seen.items()}
    sizes = jnp.sqrt(mean["fake"]) * jnp.sqrt(mean["real"])  # not of their product, which is 0 much sooner
    return dict(
        dmd_grad_abs=mean["grad"], dmd_direction_rms=jnp.sqrt(mean["direction"]),
        fake_real_cosine=mean["both"] / jnp.maximum(sizes, jnp.finfo(sizes.dtype).tiny),
    )  # fmt: skip


def shares(lambdas: np.ndarray, classes: jax.Array, k: jax.Array) -> dict[str, jax.Array]:
    """What part of the mixed score each teacher has at step k of ``lambdas`` [steps, classes, teachers], a mean over
    ``classes`` [B]: "share_" and its number; 0 for those that are not heard, so that the mean over a run's rows is its
    table's."""
    weights = jnp.asarray(lambdas)[k][classes].mean(axis=0)
    return {f"share_{m}": weights[m] for m in range(lambdas.shape[-1])}


def by_sample(x: jax.Array) -> jax.Array:
    """The mean of every sample of [B, ...]: [B]."""
    return x.mean(axis=tuple(range(1, x.ndim)))


def by_time(name: str, values: jax.Array, t: jax.Array) -> Metrics:
    """Values [B] by the quarter of [0, 1] that their t lies in, as "name/t0.25" and so on; a quarter may be empty."""
    quarter = jnp.minimum(jnp.floor(4 * t), 3)
    inside = [(quarter == i).astype(jnp.float32) for i in range(4)]
    return {f"{name}/t{i / 4:g}": (jnp.sum(values * mask), mask.sum()) for i, mask in enumerate(inside)}


def as_metrics(**values: jax.Array) -> Metrics:
    """Scalars as (sum, count)."""
    return {name: (value.astype(jnp.float32), jnp.ones((), jnp.float32)) for name, value in values.items()}
