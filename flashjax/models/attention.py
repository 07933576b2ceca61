"""Attention in one place: every model calls ``attend``, and this file decides which kernel computes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from flashjax import axes

# "auto" is splash for long sequences on TPUs, cuDNN for 16-bit ones on GPUs, else XLA.
KINDS = ("auto", "xla", "splash", "cudnn")
LONG = 1024  # keys from which on their scores, and not the products around them, fill the memory
LANES = 128  # of a TPU: narrower heads leave some of them idle


def check_kind(name: str) -> None:
    """Raises ValueError for a name that is none of ``KINDS``."""
    if name not in KINDS:
        raise ValueError(f"attention is {name!r}; choose {', '.join(KINDS)}.")


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None, *, allowed: np.ndarray | None = None,
    kind: str = "xla",
) -> jax.Array:  # fmt: skip
    """Softmax attention.

    q [B, Q, H, D]; k, v [B, K, H, D]; mask broadcastable to [B, H, Q, K], True where a query may look; allowed: the
    same as numpy [Q, K], known when the program is made. Scores are scaled by 1 / sqrt(D) and normalised in float32.
    Returns [B, Q, H, D] in q's dtype. ``kind``: of ``KINDS``; splash and cuDNN take masks of keys, [B or 1, 1, 1, K];
    splash is interpreted on other devices than TPUs, which is for tests. Raises ValueError for another mask.
    """
    q, k, v = axes.queries(q), axes.keys(k), axes.keys(v)
    kind = chosen(kind, k, mask, allowed)
    if kind == "xla":
        return _xla(q, k, v, mask, allowed)
    if not of_keys(mask):
        raise ValueError(f"Attention by {kind} takes masks of keys, [B or 1, 1, 1, K], not {mask.shape}.")
    valid = None if mask is None else mask[:, 0, 0]
    if kind == "cudnn":
        return checkpoint_name(axes.queries(_apart(q, k, v, valid, "cudnn")), "attention")
    from flashjax.models import splash  # Pallas takes a second to import

    return axes.queries(splash.attend(q, k, v, valid, allowed, interpret=axes.platform() != "tpu"))


def chosen(kind: str, k: jax.Array, mask: jax.Array | None, allowed: np.ndarray | None) -> str:
    """What ``kind`` is for these keys and masks on the devices that the program is made for. cuDNN knows no masks of
    queries and keys: such a prefix, computed once a batch, is XLA's."""
    if kind == "auto" and of_keys(mask):
        long = k.shape[1] >= LONG and k.shape[-1] % LANES == 0
        by_device = dict(tpu="splash" if long else "xla", gpu="cudnn" if k.dtype.itemsize == 2 else "xla")
        kind = by_device.get(axes.platform(), "xla")
    return "xla" if kind == "auto" or (kind == "cudnn" and allowed is not None) else kind


def of_keys(mask: jax.Array | None) -> bool:
    """Whether a mask says of keys alone whether they are looked at."""
    return mask is None or (mask.ndim == 4 and mask.shape[1:3] == (1, 1))


def _apart(q, k, v, valid, implementation):
    """`_by_lengths`, of what each device of a mesh has: its samples, queries (``context``) and heads, and all keys. JAX
    by itself divides cuDNN's kernel neither by queries nor its lengths as it divides the samples."""
    if axes.size(*axes.AXES) == 1:
        return _by_lengths(q, k, v, valid, implementation)
    by_batch, by_context, by_head = axes.of_attention(q.shape)
    own, keys = PartitionSpec(by_batch, by_context, by_head), PartitionSpec(by_batch, None, by_head)
    by_valid = PartitionSpec(by_batch if valid is not None and len(valid) > 1 else None)
    local = functools.partial(_by_lengths, implementation=implementation)
    return jax.shard_map(local, in_specs=(own, keys, keys, by_valid), out_specs=own, check_vma=False)(q, k, v, valid)


def _by_lengths(q, k, v, valid, implementation):
    """JAX's own attention, over the first keys of each sample. Attention does not ask for the order of keys: valid ones
    are moved to the front, so that their number says all. A mask would be added to scores, and kept for each. Lengths
    are filled up to even ones, of which cuDNN has gradients."""
    queries, lengths = q.shape[1], None
    if valid is not None:
        valid = jnp.broadcast_to(valid, k.shape[:2])
        order = jnp.argsort(~valid, axis=1)[..., None, None]
        k, v = (jnp.take_along_axis(x, order, axis=1) for x in (k, v))
        lengths = valid.sum(axis=1, dtype=jnp.int32)
    elif k.shape[1] % 2:
        lengths = jnp.full(len(k), k.shape[1], jnp.int32)
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v, key_value_seq_lengths=lengths, implementation=implementation)
    return out[:, :queries]


def _xla(q, k, v, mask, allowed):
    """Scores in memory. A row whose mask is False everywhere returns the mean of v, never NaN.

    The exponentials are normalised after the product with v: D numbers a query to divide instead of K, and on CPU the
    backward pass is a third faster than that of ``jax.nn.softmax``.
    """
    if allowed is not None:
        mask = jnp.asarray(allowed) if mask is None else jnp.asarray(allowed) & mask
    q, k, v = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    out = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return checkpoint_name(axes.queries((out / total).astype(v.dtype).swapaxes(1, 2)), "attention")
