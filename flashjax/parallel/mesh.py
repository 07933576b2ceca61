"""The device mesh. One compile path everywhere: ``jax.jit`` with NamedShardings; CPU shards exactly as TPU does."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flashjax.axes import AXES, BATCH
from flashjax.errors import Indivisible, UserError


def mesh_sizes(wanted: Mapping[str, int], available: int) -> tuple[int, ...]:
    """How many devices every axis of ``AXES`` has; one that is -1 takes what the others leave of ``available``.

    Without a -1 the mesh may take fewer devices than there are. Raises UserError for what cannot be laid out, which is
    `Indivisible` where another number of devices may do."""
    check_sizes(wanted)
    sizes = [wanted[axis] for axis in AXES]
    fixed = math.prod(size for size in sizes if size != -1)
    if available % fixed:
        raise Indivisible(
            f"config.mesh has {_told(wanted)}, which takes {fixed} devices or a multiple; there are {available}, which "
            "do not divide by it."
        )
    return tuple(available // fixed if size == -1 else size for size in sizes)


def check_sizes(wanted: Mapping[str, int]) -> None:
    """Raises UserError for a ``config.mesh`` that no number of devices serves."""
    sizes = [wanted[axis] for axis in AXES]
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(
            f"config.mesh has {_told(wanted)}; every axis has to be 1 or more, and one at most -1 (the rest)."
        )


def _told(wanted: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} = {wanted[axis]}" for axis in AXES)


def make_mesh(wanted: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of ``config.mesh`` over all devices, or as many of them as it asks for, where all are of one host.
    Raises UserError, as ``mesh_sizes`` does."""
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(wanted, len(devices))
    count = math.prod(sizes)
    # By the devices, which may be of a slice that is planned for.
    if count < len(devices) and len({device.process_index for device in devices}) > 1:
        raise Indivisible(
            f"config.mesh has {_told(wanted)}, which takes {count} of {len(devices)} devices and leaves some hosts "
            "none; take all (-1 is the rest)."
        )
    # Auto, spelled out: jax.make_mesh defaults to Explicit axes, under which plain embeddings and convolutions fail.
    auto = (AxisType.Auto,) * len(AXES)
    try:
        if _slices(devices[:count]) > 1:  # which jax.make_mesh refuses
            return Mesh(_across_slices(sizes, devices[:count]), AXES, axis_types=auto)
        return jax.make_mesh(sizes, AXES, axis_types=auto, devices=devices[:count])
    except NotImplementedError as error:  # of JAX, which lays axes along the links between TPUs
        raise Indivisible(
            f"config.mesh has {_told(wanted)}, which cannot be laid along the links of this TPU slice; an axis has to "
            "be a side of the slice or a product of sides, as fsdp = 4, tensor = 4 of a slice of 4x4."
        ) from error


def _slices(devices: Sequence[Any]) -> int:
    """How many TPU slices or nodes of GPUs the devices are of, which the data centre's network joins."""
    return len({getattr(device, "slice_index", 0) for device in devices})


def _across_slices(sizes: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """The devices of several slices or nodes, [axis, ...] of ``sizes``: ``data`` goes from one to the next, or else
    ``fsdp``, and every other axis stays on the links of one. Raises Indivisible where neither divides over them."""
    slices = _slices(devices)
    across = next((i for i, name in enumerate(AXES) if name in BATCH and sizes[i] % slices == 0), None)
    if across is None:
        raise Indivisible(
            f"config.mesh has {_told(dict(zip(AXES, sizes, strict=True)))} on {slices} TPU slices or nodes of GPUs; "
            f"data or fsdp has to divide by {slices}, as the network between them is too slow for the other axes."
        )
    over = tuple(slices if i == across else 1 for i in range(len(AXES)))
    inside = tuple(size // count for size, count in zip(sizes, over, strict=True))
    may_split = devices[0].device_kind == "TPU v5 lite"  # as in jax.make_mesh
    return mesh_utils.create_hybrid_device_mesh(inside, over, devices, allow_split_physical_axes=may_split)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis is divided over ``data`` and ``fsdp``."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def check_fits(mesh: Mesh, *, batch: int, heads: int, tokens: int, parts: int = 1) -> None:
    """Raises UserError where a batch does not divide into its ``parts`` micro-batches, and Indivisible where one of
    these, heads or an image's tokens do not divide over the mesh: in a moment, not after compiling."""
    if batch % parts:
        raise UserError(
            f"A batch of {batch} does not divide into {parts} micro-batches; change config.batch_size or "
            "config.micro_batches."
        )
    data = math.prod(mesh.shape[axis] for axis in BATCH)
    for what, count, devices, mend in (
        ("A batch of {}", batch, data, "config.batch_size or data and fsdp of config.mesh"),
        ("A micro-batch of {}", batch // parts, data, "config.micro_batches or config.batch_size"),
        ("A model of {} heads", heads, mesh.shape["tensor"], "config.mesh.tensor"),
        ("An image of {} tokens", tokens, mesh.shape["context"], "config.mesh.context"),
    ):
        if count % devices:
            raise Indivisible(f"{what.format(count)} does not divide over {devices} devices; change {mend}.")


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Numpy leaves [B, ...] of this process to global arrays divided over ``data`` and ``fsdp``."""
    sharding = batch_sharded(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)
