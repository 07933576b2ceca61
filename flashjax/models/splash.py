"""Attention by the splash kernel of JAX (Pallas, for TPUs): scores never leave the chip, forwards and backwards.

XLA writes all scores to memory, 4 bytes for each query, key and head; here a block at a time is made, used and
forgotten, and blocks that a static mask rules out are not made at all.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding, PartitionSpec

from flashjax import axes

BLOCKS = (512, 384, 256, 128)  # queries or keys at a time; the kernel takes multiples of the chip's 128 lanes


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array | None, allowed: np.ndarray | None, interpret: bool
) -> jax.Array:
    """Like ``attention.attend``, of q [B, Q, H, D] and k, v [B, K, H, D].

    ``valid``: bool [B or 1, K], keys that there are. ``allowed``: bool [Q, K], numpy, which queries may look at which
    keys; every query needs one that is valid. ``interpret``: run the kernel as JAX operations, on any device.

    On a mesh every device has its own samples, queries (``context``) and heads, and all keys; what does not divide is
    whole on each.
    """
    _, queries, heads, _ = q.shape
    by_batch, by_context, by_head = axes.of_attention(q.shape)
    queries //= axes.size("context") if by_context else 1
    heads //= axes.size("tensor") if by_head else 1
    # A mask of its own for the queries of every device; where there is none to divide, the kernel cannot divide it.
    masked = allowed is not None and not allowed.all()
    parts = len(allowed) // queries if masked else 1
    kernel = _kernel(_looks(allowed if masked else None, queries, k.shape[1], parts), heads, parts, interpret)
    if axes.size(*axes.AXES) == 1:
        return _local(kernel, q, k, v, valid)
    own, keys = PartitionSpec(by_batch, by_context, by_head), PartitionSpec(by_batch, None, by_head)
    by_valid = PartitionSpec(by_batch if valid is not None and len(valid) > 1 else None)
    where = NamedSharding(jax.sharding.get_abstract_mesh(), PartitionSpec(None, by_context if masked else None))
    return jax.shard_map(
        _local, in_specs=(kernel.manual_sharding_spec(where), own, keys, keys, by_valid), out_specs=own, check_vma=False
    )(kernel, q, k, v, valid)


def _local(kernel, q, k, v, valid):
    """What one device computes: sequences filled up to whole blocks. Filled queries are dropped, filled keys unseen."""
    (batch, queries, *_), keys = q.shape, k.shape[1]
    q, k, v = (_fill(x.swapaxes(1, 2), 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    segments = None
    if valid is not None or k.shape[2] > keys:
        valid = jnp.ones((1, keys), bool) if valid is None else valid
        seen = jnp.broadcast_to(_fill(valid, 1), (batch, k.shape[2])).astype(jnp.int32)
        segments = kernels.SegmentIds(jnp.ones((batch, q.shape[2]), jnp.int32), seen)
    return jax.vmap(kernel)(q, k, v, segments)[:, :, :queries].swapaxes(1, 2)


def _kernel(looks: masks.Mask, heads: int, parts: int, interpret: bool):
    block_q, block_k = block(looks.shape[0] // parts), block(looks.shape[1])
    sizes = kernels.BlockSizes(
        block_q=block_q, block_kv=block_k, block_kv_compute=block_k, block_q_dkv=block_q, block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k, block_q_dq=block_q, block_kv_dq=block_k,
    )  # fmt: skip
    return kernels.make_splash_mha(
        masks.MultiHeadMask([looks] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=parts,
        residual_checkpoint_name="attention", interpret=interpret,
    )  # fmt: skip


def _looks(allowed: np.ndarray | None, queries: int, keys: int, parts: int) -> masks.Mask:
    """The static mask of filled sequences; ``parts`` devices have ``queries`` each, and fill up their own."""
    size = filled(queries), filled(keys)
    if allowed is None:
        return masks.FullMask(size)
    fill = (0, 0), (0, size[0] - queries), (0, size[1] - keys)
    looks = np.pad(allowed.reshape(parts, -1, keys), fill, constant_values=True)  # a query without a key would be NaN
    return masks.NumpyMask(looks.reshape(-1, size[1]))


def block(length: int) -> int:
    """The block that fills a length up with the least; of several, the largest."""
    return min(BLOCKS, key=lambda size: (-length % size, -size))


def filled(length: int) -> int:
    return length + -length % block(length)


def _fill(x: jax.Array, axis: int) -> jax.Array:
    more = filled(x.shape[axis]) - x.shape[axis]
    return jnp.pad(x, [(0, more if i == axis else 0) for i in range(x.ndim)])
