"""Distribution matching distillation: the student's gradient and the critic's loss.

    grad KL(student || teacher) = E[ (dx/dtheta)^T (s_fake(x_t, t) - s_real(x_t, t)) ],   x_t = (1 - t) x + t xi

(Qwen-Image-Flash, section 3; DMD, arXiv 2311.18828, eq. 7.) Both scores are affine in their clean predictions with
the same coefficients, ``s_fake - s_real = (1 - t) / t^2 (x0_fake - x0_real)``, so implementations work on the clean
predictions and replace the factor in front by a per-sample weight (DMD2, arXiv 2405.14867).
All arithmetic here is float32 (or float64 if given). Nothing is clipped or repaired: a NaN stays visible.
"""

import chex
import jax
import jax.numpy as jnp

from flashjax import flow

WEIGHT_EPS = 1e-6


def sample_weight(x: jax.Array, x0_real: jax.Array) -> jax.Array:
    """``1 / mean |x - x0_real|`` over everything but the batch: [B, 1, ...]. Makes the gradient's size independent of
    t and of how far the teacher moves the sample."""
    distance = jnp.abs(x - x0_real).mean(axis=tuple(range(1, x.ndim)), keepdims=True)
    return 1 / (distance + WEIGHT_EPS)


def gradient(x: jax.Array, x0_fake: jax.Array, x0_real: jax.Array) -> jax.Array:
    """The direction in which a student's sample x [B, ...] moves *against*: ``w (x0_fake - x0_real)``."""
    chex.assert_equal_shape((x, x0_fake, x0_real))  # they would broadcast into a wrong gradient
    return sample_weight(x, x0_real) * (x0_fake - x0_real)


def student_loss(x: jax.Array, grad: jax.Array) -> jax.Array:
    """A scalar whose gradient in x is ``grad / x.size``: ``mean (x - sg[x - grad])^2 / 2``.

    Everything but x is under stop-gradient, so neither critic nor teachers can receive a gradient through it.
    """
    chex.assert_equal_shape((x, grad))
    target = jax.lax.stop_gradient(x - grad)
    return 0.5 * jnp.mean(jnp.square(x - target))


def critic_loss(v: jax.Array, x: jax.Array, eps: jax.Array) -> jax.Array:
    """Flow matching on the student's samples: ``mean (v - (eps - x))^2``; x is data here, never differentiated."""
    chex.assert_equal_shape((v, x, eps))
    return jnp.mean(jnp.square(v - flow.velocity(jax.lax.stop_gradient(x), eps)))
