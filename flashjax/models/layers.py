"""Parts that every transformer here shares: norms, sinusoids, stacked layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def layer_norm(x: jax.Array, eps: float) -> jax.Array:
    """LayerNorm over the last axis without affine parameters; statistics in float32, result in x's dtype."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    return (y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)).astype(x.dtype)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """``x / rms(x) * scale`` over the last axis; statistics in float32, result in x's dtype."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)
    return (y * scale.astype(jnp.float32)).astype(x.dtype)


def sinusoid(t: jax.Array, dim: int = 256, max_period: float = 10_000.0, time_scale: float = 1_000.0) -> jax.Array:
    """Time features [B, dim] of t [B] in [0, 1]: cosines, then sines, of ``1000 t f_i``. Always float32:
    diffusers casts t to the latents' dtype first, where bfloat16 turns 978.453 into 980."""
    half = dim // 2
    freqs = jnp.exp(-jnp.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    args = time_scale * t.astype(jnp.float32)[:, None] * freqs
    return jnp.concatenate([jnp.cos(args), jnp.sin(args)], axis=-1)


def silu(x: jax.Array) -> jax.Array:
    """``x sigmoid(x)``, written with tanh: the same function, and on CPU twice as fast as the logistic."""
    return 0.5 * x * (1 + jnp.tanh(0.5 * x))


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., n] times kernel [n, m], in x's dtype, as one product of two matrices.

    The tokens are flattened first because XLA's CPU backend computes the kernel's gradient 2.5 times slower
    when it has to contract over two axes (batch, sequence); elsewhere it makes no difference.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)).reshape(*x.shape[:-1], -1)


class Linear(nnx.Module):
    """A bias-free projection; ``kernel`` [n_in, n_out]."""

    def __init__(self, n_in: int, n_out: int, rngs: nnx.Rngs, dtype: Any, init: Callable | None = None):
        init = init or nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (n_in, n_out), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        return project(x, self.kernel[...])


class Scale(nnx.Module):
    """A learned vector, named ``scale`` in the parameter tree (the weight of an RMS norm)."""

    def __init__(self, size: int, init: float, dtype: Any):
        self.scale = nnx.Param(jnp.full((size,), init, dtype))


def stack(make: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """``count`` copies of a layer as one module whose parameters have a leading layer axis."""
    return jax.vmap(lambda key: make(nnx.Rngs(params=key)))(jax.random.split(rngs.params(), count))


def run_stack(layers: nnx.Module, count: int, body: Callable, carry: Any, inputs: Any, *, scan: bool, remat: bool):
    """Runs ``carry, out = body(layer, carry, input)`` over the layers; returns the carry and the outputs.

    ``inputs`` and the outputs are stacked over layers if ``scan``, else tuples of one entry a layer. Same parameters
    and the same function either way: scanned is small to compile (TPU, GPU); unrolled is twice as fast on CPU, where
    matrix products inside a while loop lose their threads. Parameters are taken apart with ``lax.split`` because its
    transpose is one concatenation; indexing would add ``count`` full-size zero-padded gradients.
    """
    graphdef, params = nnx.split(layers)

    def step(carry, layer):
        return body(nnx.merge(graphdef, layer[0]), carry, layer[1])

    if remat:
        step = jax.checkpoint(step, prevent_cse=not scan)
    if scan:
        return jax.lax.scan(step, carry, (params, inputs))
    slices = jax.tree.map(lambda p: [s[0] for s in jax.lax.split(p, (1,) * count)], params)
    leaves, tree = jax.tree.flatten(slices, is_leaf=lambda x: isinstance(x, list))
    outputs = []
    for i in range(count):
        layer = jax.tree.unflatten(tree, [leaf[i] for leaf in leaves])
        carry, out = step(carry, (layer, None if inputs is None else inputs[i]))
        outputs.append(out)
    return carry, tuple(outputs)
