"""Parts that every transformer here shares: norms, sinusoids, stacked layers."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from flashjax import axes, host


def layer_norm(x: jax.Array, eps: float) -> jax.Array:
    """LayerNorm over the last axis without affine parameters; statistics in float32, result in x's dtype."""
    y = x.astype(jnp.float32)
    y = y - y.mean(-1, keepdims=True)
    return (y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)).astype(x.dtype)


def modulated(x: jax.Array, shift: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """LN(x) scaled by 1 + scale and shifted, by rows that broadcast over x [B, S, width]."""
    return layer_norm(x, eps) * (1 + scale) + shift


def repeat(x: jax.Array, batch: int) -> jax.Array:
    """x of batch 1 (or ``batch`` already) for every sample of a batch."""
    return jnp.broadcast_to(x, (batch, *x.shape[1:]))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """``x / rms(x) * scale`` over the last axis; statistics in float32, result in x's dtype."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)
    return (y * scale.astype(jnp.float32)).astype(x.dtype)


def sinusoid(t: jax.Array, dim: int = 256, max_period: float = 10_000.0, time_scale: float = 1_000.0) -> jax.Array:
    """Time features [B, dim] of t [B] in [0, 1]: cosines, then sines, of ``1000 t f_i``. Always float32:
    diffusers casts t to the latents' dtype first, where bfloat16 turns 978.453 into 980.

    The f_i are constants, correctly rounded. PyTorch's own exponential misses the last bit of two in 128 (AMD) or three
    (Intel), of which 1000 radians make 6e-5; XLA's on CPU misses 14 to 18."""
    half = dim // 2
    exponents = np.float32(-math.log(max_period)) * np.arange(half, dtype=np.float32) / np.float32(half)
    freqs = np.exp(exponents.astype(np.float64)).astype(np.float32)
    args = time_scale * t.astype(jnp.float32)[:, None] * freqs
    return jnp.concatenate([jnp.cos(args), jnp.sin(args)], axis=-1)


def silu(x: jax.Array) -> jax.Array:
    """``x sigmoid(x)``, written with tanh: the same function, and on CPU twice as fast as the logistic."""
    return 0.5 * x * (1 + jnp.tanh(0.5 * x))


def project(x: jax.Array, kernel: jax.Array, products: Any = None, precision: Any = None) -> jax.Array:
    """x [..., n] times kernel [n, m], in x's dtype; ``precision`` as of `jax.lax.Precision`.

    ``products`` rounds the factors to another dtype and still adds up in float32, forwards and backwards: with bfloat16
    and float32 activations, a CPU that has the instruction multiplies faster. None multiplies in x's dtype.

    The tokens are flattened first because XLA's CPU backend computes the kernel's gradient 2.5 times slower
    when it has to contract over two axes (batch, sequence); elsewhere it makes no difference. Where ``context`` divides
    the sequence they are not: batch and sequence as one axis have no layout, and every device would gather all tokens.
    """
    flat = x.reshape(-1, x.shape[-1]) if axes.size("context") == 1 else x
    if products is None:
        y = jnp.matmul(flat, kernel.astype(x.dtype), precision=precision)
    else:
        y = _rounded_product(flat, kernel, jnp.dtype(products))
    return y.astype(x.dtype).reshape(*x.shape[:-1], -1)


def project_together(x: jax.Array, kernels: Sequence[jax.Array], products: Any = None) -> list[jax.Array]:
    """``project`` with several kernels: one product, which is faster. Where ``tensor`` divides the kernels' outputs,
    several: side by side, their parts would have to move between devices."""
    if axes.size("tensor") > 1:
        return [project(x, kernel, products) for kernel in kernels]
    ends = list(itertools.accumulate(kernel.shape[-1] for kernel in kernels))
    return jnp.split(project(x, jnp.concatenate(kernels, axis=-1), products), ends[:-1], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded_product(x, kernel, dtype):
    return _rounded_forward(x, kernel, dtype)[0]


def _rounded_forward(x, kernel, dtype):
    # The dtypes of the two travel as empty arrays: residuals have to be arrays.
    factors = _rounded(x, dtype), _rounded(kernel, dtype)
    return _dot(*factors, [-1], [0]), (*factors, jnp.empty(0, x.dtype), jnp.empty(0, kernel.dtype))


def _rounded_backward(dtype, saved, g):
    # Not what differentiation would give: it leaves g in float32, and the products with it as slow as before.
    x, kernel, x_like, kernel_like = saved
    g = _rounded(g, dtype)
    rows = range(x.ndim - 1)
    return _dot(g, kernel, [-1], [1]).astype(x_like.dtype), _dot(x, g, rows, rows).astype(kernel_like.dtype)


def _rounded(x, dtype):
    if not _widens():
        return x.astype(dtype)
    info = jnp.finfo(dtype)  # by an operation of its own: XLA would leave out a conversion there and back
    return jax.lax.reduce_precision(x, info.nexp, info.nmant).astype(dtype)


def _dot(a, b, a_axes: Sequence[int], b_axes: Sequence[int]):
    if _widens():
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.tensordot(a, b, (tuple(a_axes), tuple(b_axes)), preferred_element_type=jnp.float32)


def _widens() -> bool:
    """Whether rounded factors are multiplied as float32, the same numbers: where a processor has no instruction for
    bfloat16, XLA's way of doing without takes half as long again as a float32 product."""
    return axes.platform() == "cpu" and not host.multiplies_bfloat16()


_rounded_product.defvjp(_rounded_forward, _rounded_backward)


class Linear(nnx.Module):
    """A projection; ``kernel`` [n_in, n_out], ``bias`` [n_out] if asked for. ``products``: see ``project``."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        rngs: nnx.Rngs,
        dtype: Any,
        init: Callable | None = None,
        products: Any = None,
        bias: bool = False,
    ):
        init = init or nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (n_in, n_out), dtype))
        self.bias = nnx.Param(jnp.zeros((n_out,), dtype)) if bias else None
        self.products = products

    def __call__(self, x: jax.Array, precision: Any = None) -> jax.Array:
        y = project(x, self.kernel[...], self.products, precision)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


def by_output(linear: Linear, x: jax.Array) -> jax.Array:
    """``linear(x)`` of x [B, n], one row a sample, on a mesh: the kernel, of thousands of rows, stays divided by its
    outputs and the few rows travel; so does no part of its gradient over ``fsdp``. Float32 factors are not rounded,
    which TPUs and GPUs do by default: such rows follow from t, and tell every token what to do."""
    rows = linear(axes.constrain(x, "data"), precision=jax.lax.Precision.HIGHEST)
    y = axes.constrain(rows, "data", axes.OUTPUT)
    # In two steps, gather and cut: the compiler finds no way for both at once, and then gathers over "data" too.
    return axes.constrain(axes.constrain(y, "data"), axes.BATCH)


class TimeEmbed(nnx.Module):
    """The embedding of t, in float32 products: it runs once a sample, so that rounding its factors would gain no
    time."""

    def __init__(self, width: int, rngs: nnx.Rngs, dtype: Any, bias: bool = False):
        self.linear_1 = Linear(256, width, rngs, dtype, bias=bias)
        self.linear_2 = Linear(width, width, rngs, dtype, bias=bias)

    def __call__(self, t: jax.Array) -> jax.Array:
        """SiLU(temb) [B, width] of t [B]: every user of the embedding applies SiLU first."""
        return silu(by_output(self.linear_2, silu(by_output(self.linear_1, sinusoid(t)))))


class Scale(nnx.Module):
    """A learned vector, named ``scale`` in the parameter tree (the weight of an RMS norm)."""

    def __init__(self, size: int, init: float, dtype: Any):
        self.scale = nnx.Param(jnp.full((size,), init, dtype))


def stack(make: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """``count`` copies of a layer as one module whose parameters have a leading layer axis."""
    return jax.vmap(lambda key: make(nnx.Rngs(params=key)))(jax.random.split(rngs.params(), count))


# What the backward pass of a stack has from the forward pass; all else it computes again, a layer at a time.
REMAT = dict(
    none=None,  # everything: fastest, and fits small models only
    full=jax.checkpoint_policies.nothing_saveable,  # the stream between layers
    attention=jax.checkpoint_policies.save_only_these_names("attention"),  # and what attention gave
    offload=jax.checkpoint_policies.save_and_offload_only_these_names(  # the stream, in the host's memory
        names_which_can_be_saved=[], names_which_can_be_offloaded=["stream"],
        offload_src="device", offload_dst="pinned_host",
    ),
)  # fmt: skip


def check_remat(name: str) -> None:
    """Raises ValueError for a name that ``REMAT`` has not."""
    if name not in REMAT:
        raise ValueError(f"remat is {name!r}; choose {', '.join(REMAT)}.")


def run_stack(layers: nnx.Module, count: int, body: Callable, carry: Any, inputs: Any, *, scan: bool, remat: str):
    """Runs ``carry, out = body(layer, carry, input)`` over the layers; returns the carry and the outputs.

    ``inputs`` and the outputs are stacked over layers if ``scan``, else tuples of one entry a layer. Same parameters
    and the same function either way: scanned is small to compile (TPU, GPU); unrolled is twice as fast on CPU, where
    matrix products inside a while loop lose their threads. The carry's streams [B, S, width] are divided over the mesh
    between layers; ``remat`` names one of ``REMAT``. Parameters are taken apart with ``lax.split`` because its
    transpose is one concatenation; indexing would add ``count`` full-size zero-padded gradients.
    """
    graphdef, params = nnx.split(layers)

    def step(carry, layer):
        carry = jax.tree.map(lambda x: checkpoint_name(axes.tokens(x), "stream"), carry)
        carry, out = body(nnx.merge(graphdef, layer[0]), carry, layer[1])
        return jax.tree.map(axes.tokens, carry), out

    if remat != "none":
        step = jax.checkpoint(step, prevent_cse=not scan, policy=REMAT[remat])
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
