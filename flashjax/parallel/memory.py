"""What lies on a device, and what its compiler refuses for want of memory: in sentences, before a run has begun."""

import math
import re
from typing import Any

import jax

from flashjax.errors import UserError

# For what is kept all along; and for what a program takes beside it, where more of the run can stay what it is.
MEND = (
    "take more devices, divide further (config.mesh.fsdp), train adapters (config.lora.rank), or hold teachers "
    "elsewhere (config.teacher_memory); flashjax plan says what fits."
)
MEND_PROGRAM = (
    "raise config.micro_batches (its parts of a batch follow one another), let the backward pass keep less "
    "(config.model.remat), hold teachers in fewer bits (config.teacher_dtype=int8) or elsewhere "
    "(config.teacher_memory), take more devices or divide further (config.mesh.fsdp), or lower config.batch_size; "
    "flashjax plan says what fits."
)


def bytes_on_device(leaf: jax.ShapeDtypeStruct) -> int:
    """What an array of this shape and sharding takes of each device's own memory."""
    there = leaf.sharding.memory_kind in (None, "device")
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize if there else 0


def limit() -> int | None:
    """Bytes that programs may use of a device of this process; None where it does not say, as a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def check_room(kept: Any) -> None:
    """Raises UserError where the arrays that a run keeps (shapes with shardings) take more of a device than it has: a
    checkpoint of a larger mesh, for example. What programs need beside them is known when they are compiled."""
    needed, there = sum(map(bytes_on_device, jax.tree.leaves(kept))), limit()
    if there is not None and needed > there:
        kind = jax.local_devices()[0].device_kind
        raise UserError(
            f"State and teachers take {needed / 2**30:.3g} GiB of every device, and a {kind} has {there / 2**30:.3g} "
            f"GiB; {MEND}"
        )


def is_refusal(error: Exception) -> bool:
    """Whether a compiler's error says that a program does not fit."""
    return "RESOURCE_EXHAUSTED" in str(error)


def how_much(words: str) -> str:
    """What the compiler says of a program that does not fit: how much it wants and by how much that is too much."""
    found = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) hbm.*?by ([\d.]+\w)", words, re.S)
    return "{} wanted of {}, {} too much".format(*found.groups()) if found else words.splitlines()[0]
