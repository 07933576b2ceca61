"""Gradients of a batch, a part of it at a time: as exact as of the whole, in the memory of a part.

A step draws times and noise for its whole batch and hands them over among the inputs, so that a sample's draws do not
depend on how the batch is divided.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flashjax.flow import Params

Loss = Callable[[Params, Any], tuple[jax.Array, Any]]


def value_and_grad(loss: Loss, params: Params, inputs: Any, parts: int) -> tuple[tuple[jax.Array, Any], Params]:
    """``((loss, aux), gradient in params)`` of a mean over samples, from equal parts of the batch, one after another.

    ``loss(params, inputs) -> (scalar, aux)``: the scalar is a mean over samples, and every leaf of aux [B, ...] has
    what belongs to each. Leaves of inputs: [B, ...], or [1, ...] for what all samples share. The gradient is summed up
    in float32 and comes back in the parameters' dtype. Raises ValueError where the batch does not divide.
    """
    both = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return both(params, inputs)
    divided = divide(inputs, parts)
    first = jax.eval_shape(both, params, jax.tree.map(lambda x: x[0], divided))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (first[0][0], first[1]))

    def add(total, part):
        (value, aux), grads = both(params, part)
        return jax.tree.map(lambda sum_, x: sum_ + x.astype(jnp.float32) / parts, total, (value, grads)), aux

    (value, grads), aux = jax.lax.scan(add, zeros, divided)
    return (value, join(aux)), jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)


def divide(inputs: Any, parts: int) -> Any:
    """[B, ...] as [parts, B / parts, ...]; part i has the samples i, i + parts, i + 2 parts, ...

    Not the first B / parts: those are on the first devices of a mesh, and would have to be sent to the others. So every
    device takes its share of each part from its own rows. Leaves [1, ...] are repeated.
    """
    batch = max((len(x) for x in jax.tree.leaves(inputs)), default=1)
    if batch % parts:
        raise ValueError(f"A batch of {batch} does not divide into {parts} micro-batches.")

    def cut(x):
        if len(x) == 1:
            return jnp.broadcast_to(x, (parts, *x.shape))
        return x.reshape(len(x) // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, inputs)


def join(outputs: Any) -> Any:
    """Inverse of ``divide``: [parts, B / parts, ...] as [B, ...]."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), outputs)
