"""Meshes: which there are, and which are refused before anything compiles."""

import types

import jax
import numpy as np
import pytest

from flashjax.axes import AXES
from flashjax.distill import micro_batches
from flashjax.errors import Indivisible, UserError
from flashjax.parallel import hosts
from flashjax.parallel import mesh as meshes


def sizes(*values):
    return dict(zip(AXES, values, strict=True))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ((-1, 1, 1, 1), (8, 1, 1, 1)),
        ((1, -1, 1, 2), (1, 4, 1, 2)),
        ((2, 2, 2, -1), (2, 2, 2, 1)),
        ((1, 2, 2, 1), (1, 2, 2, 1)),
    ],
)
def test_the_rest_of_the_devices(wanted, found):
    mesh = meshes.make_mesh(sizes(*wanted))
    assert (mesh.axis_names, mesh.devices.shape) == (AXES, found)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ((3, 1, 1, 1), "takes 3 devices or a multiple; there are 8"),
        ((-1, 3, 1, 1), "takes 3 devices or a multiple; there are 8"),
        ((16, 1, 1, 1), "takes 16 devices or a multiple; there are 8"),
        ((-1, -1, 1, 1), "one at most -1"),
        ((0, 1, 1, 1), "has to be 1 or more"),
        ((-2, 1, 1, 1), "has to be 1 or more"),
    ],
)
def test_meshes_that_cannot_be(wanted, said):
    with pytest.raises(UserError, match=said) as error:
        meshes.make_mesh(sizes(*wanted))
    assert "\n" not in str(error.value)


def slice_of_16(number: int = 0) -> list[types.SimpleNamespace]:
    """The devices of a v6e of 4x4, which is slice ``number`` of several."""
    return [
        types.SimpleNamespace(
            id=16 * number + i, platform="tpu", device_kind="TPU v6 lite", coords=(i % 4, i // 4, 0), core_on_chip=0,
            process_index=number, slice_index=number,
        )
        for i in range(16)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "axis"), [((2, 16, 1, 1), 0), ((1, 8, 1, 4), 1), ((8, 1, 1, 4), 0), ((1, 32, 1, 1), 1)]
)
def test_data_or_else_fsdp_goes_from_slice_to_slice(wanted, axis):
    """Along every other axis all devices are of one slice; jax.make_mesh refuses several slices."""
    laid = meshes._across_slices(wanted, slice_of_16(1) + slice_of_16(0))
    slices = np.vectorize(lambda device: device.slice_index)(laid)
    assert slices.shape == wanted
    first, second = np.split(slices, 2, axis)
    assert (first == 0).all() and (second == 1).all()


class Gpu(types.SimpleNamespace):
    __hash__ = object.__hash__  # a mesh is known by its devices


@pytest.mark.parametrize("wanted", [(2, 8, 1, 1), (1, 16, 1, 1), (1, 4, 1, 4), (1, 2, 8, 1)])
def test_nodes_of_gpus_are_slices(wanted):
    """By which XLA numbers them: jax.make_mesh refused every run of several nodes."""
    about = dict(platform="gpu", device_kind="NVIDIA H100")
    gpus = [Gpu(id=i, process_index=i // 8, slice_index=i // 8, **about) for i in range(16)]
    mesh = meshes.make_mesh(sizes(*wanted), gpus)
    assert mesh.devices.shape == wanted
    nodes = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    first, second = np.split(nodes, 2, 0 if wanted[0] == 2 else 1)
    assert (first == first.flat[0]).all() and (second == 1 - first.flat[0]).all()


def test_what_two_slices_cannot_divide():
    with pytest.raises(UserError, match="fsdp = 3, context = 1, tensor = 4 on 2 TPU slices or nodes of GPUs; data"):
        meshes._across_slices((1, 3, 1, 4), slice_of_16(0)[:6] + slice_of_16(1)[:6])


def test_a_mesh_takes_the_devices_of_all_hosts():
    """Of a slice that is planned for, too: libtpu's compiler ends the process where its devices are too few."""
    hosts_of_4 = [types.SimpleNamespace(**vars(d) | dict(process_index=i // 4)) for i, d in enumerate(slice_of_16())]
    with pytest.raises(Indivisible, match="tensor = 1, which takes 4 of 16 devices and leaves some hosts none; take"):
        meshes.make_mesh(sizes(1, 4, 1, 1), hosts_of_4)
    assert meshes.make_mesh(sizes(1, 4, 1, 1), jax.devices()).size == 4  # of one host


def test_axes_lie_along_the_links_of_a_tpu():
    """An axis of 8 would have to be one side of 4x4 and half of the other."""
    with pytest.raises(UserError, match="fsdp = 8, context = 1, tensor = 2, which cannot be laid along the links"):
        meshes.make_mesh(sizes(1, 8, 1, 2), slice_of_16())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(batch=6), "A batch of 6 does not divide over 4 devices"),
        (dict(parts=3), "A batch of 8 does not divide into 3 micro-batches"),
        (dict(parts=4), "A micro-batch of 2 does not divide over 4 devices"),
        (dict(heads=3), "A model of 3 heads does not divide over 2 devices"),
        (dict(tokens=5), "An image of 5 tokens does not divide over 1 devices"),
    ],
)
def test_what_a_mesh_does_not_divide(changes, said):
    fitting = dict(batch=8, heads=4, tokens=5)
    meshes.check_fits(meshes.make_mesh(sizes(2, 2, 1, 2)), **fitting)
    if "tokens" in changes:
        said, mesh = said.replace("1 devices", "2 devices"), meshes.make_mesh(sizes(2, 2, 2, 1))
    else:
        mesh = meshes.make_mesh(sizes(2, 2, 1, 2))
    with pytest.raises(UserError, match=said):
        meshes.check_fits(mesh, **(fitting | changes))


def test_a_batch_is_divided_over_data_and_fsdp():
    batch = meshes.put_batch(dict(x=np.arange(8)), meshes.make_mesh(sizes(2, 2, 1, 2)))
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2,)}
    assert np.array_equal(batch["x"], np.arange(8))


def test_a_process_reads_the_rows_of_its_devices():
    """Each once, ascending, though devices of a tensor axis have the same ones and the mesh another order."""
    held = [slice(6, 8), slice(2, 4), slice(6, 8), slice(2, 4)]
    sharding = types.SimpleNamespace(
        addressable_devices_indices_map=lambda shape: {i: (rows,) for i, rows in enumerate(held)}
    )
    assert hosts.rows_of(sharding, 8).tolist() == [2, 3, 6, 7]
    whole = meshes.batch_sharded(meshes.make_mesh(sizes(2, 2, 1, 2)))
    assert hosts.rows_of(whole, 8).tolist() == list(range(8))  # of one process


def test_every_device_cuts_micro_batches_from_its_own_rows():
    """[8, 3] over four devices into two parts and back: nothing is sent, and every part is divided as the batch was."""
    mesh = meshes.make_mesh(sizes(2, 2, 1, 2))
    x = meshes.put_batch(np.arange(24).reshape(8, 3), mesh)
    divided = jax.jit(lambda x: micro_batches.divide(x, 2)).lower(x).compile()
    joined = jax.jit(micro_batches.join).lower(divided(x)).compile()
    for program in (divided, joined):
        assert not any(word in program.as_text() for word in ("all-", "collective", "permute"))
    assert {shard.data.shape for shard in divided(x).addressable_shards} == {(2, 1, 3)}
    np.testing.assert_array_equal(joined(divided(x)), x)
