"""How a frozen network is held: in fewer bits, or in the host's memory, and read as what it is.

A network reads a kernel as ``kernel[...]``. What stands in a kernel's place in the tree of parameters may therefore be
something that becomes the kernel where it is used, in a scanned stack one layer at a time: int8 values with their
scales, or an array of the host's that travels. ``lora.Adapted`` is of the same kind and stands on top of these.

    blocks/attn/to_q/kernel/int8     [..., in, out], round(kernel / scale)
    blocks/attn/to_q/kernel/scale    [..., 1, out] float32, the column's largest |value| / 127
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashjax import flow, paths

MEMORIES = ("device", "pinned_host")
DTYPES = ("", "float32", "bfloat16", "int8")
PARTS = ("int8", "scale")


@partial(jax.tree_util.register_dataclass, data_fields=PARTS, meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A kernel of int8 values, which reads as bfloat16: its rounding is half of the values'."""

    int8: Any
    scale: jax.Array

    def __getitem__(self, index: Any) -> jax.Array:
        values = self.int8[...].astype(jnp.float32) * self.scale
        return values.astype(jnp.bfloat16)[index]


@partial(jax.tree_util.register_dataclass, data_fields=["there"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class OnHost:
    """An array in the host's memory, which comes to the device where it is read."""

    there: jax.Array

    def __getitem__(self, index: Any) -> jax.Array:
        return jax.device_put(self.there, jax.memory.Space.Device)[index]


def keep(tree: flow.Params, dtype: str) -> flow.Params:
    """A network's parameters as they are to be kept: in ``dtype``, one of `DTYPES`. "" leaves them as they are, int8 is
    for the blocks' kernels, the rest in bfloat16. No product is computed in it. Of numpy arrays it is made by numpy,
    of arrays on devices there: XLA multiplies by an inverse, so that what lies between two int8 values may round to the
    other one."""
    if not dtype:
        return tree
    leaves: dict[str, Any] = {}
    for path, leaf in paths.flatten(tree).items():
        if dtype == "int8" and _is_large(path):
            leaves |= {f"{path}/{part}": x for part, x in zip(PARTS, _quantized(leaf), strict=True)}
        else:
            leaves[path] = leaf.astype(jnp.dtype("bfloat16" if dtype == "int8" else dtype))
    return paths.unflatten(leaves)


def _quantized(kernel: Any) -> tuple[Any, Any]:
    kernel = kernel.astype(np.float32)
    scale = abs(kernel).max(axis=-2, keepdims=True) / np.float32(127)
    scale = scale + (scale == 0)  # a column of zeros
    return (kernel / scale).round().astype(np.int8), scale


def placed(shardings: flow.Params, memory: str) -> flow.Params:
    """Where a kept network lies: as ``shardings`` say (a tree of the same form), the blocks' kernels in ``memory``."""
    places = paths.flatten(shardings)
    moved = {p: s.with_memory_kind(memory) if _is_large(p) and memory != "device" else s for p, s in places.items()}
    return paths.unflatten(moved)


def readable(tree: flow.Params, memory: str) -> flow.Params:
    """The tree as a network reads it, inside of a program, from what `keep` made and `placed` placed."""
    leaves: dict[str, Any] = {}
    for path, leaf in paths.flatten(tree).items():
        leaves[path] = OnHost(leaf) if memory != "device" and _is_large(path) else leaf
    for path in [p.removesuffix("/int8") for p in leaves if p.endswith("/kernel/int8")]:
        leaves[path] = Quantized(*(leaves.pop(f"{path}/{part}") for part in PARTS))
    return paths.unflatten(leaves)


def _is_large(path: str) -> bool:
    return path.startswith("blocks/") and path.endswith(("/kernel", "/kernel/int8"))
