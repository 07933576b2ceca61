"""The device mesh. One compile path everywhere: ``jax.jit`` with NamedShardings; CPU shards exactly as TPU does."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data",)


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh over the first ``devices`` devices (0: all), with one axis ``data``."""
    available = jax.devices()
    count = devices or len(available)
    if count > len(available):
        raise ValueError(f"The configuration asks for {count} devices; this machine has {len(available)}.")
    # Auto, spelled out: jax.make_mesh defaults to Explicit axes, under which plain embeddings and convolutions fail.
    return jax.make_mesh((count,), AXES, axis_types=(AxisType.Auto,), devices=available[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis is divided over ``data``."""
    return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Numpy leaves [B, ...] of this process to global arrays divided over ``data``."""
    sharding = batch_sharded(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
