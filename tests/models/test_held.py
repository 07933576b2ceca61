"""Frozen networks in fewer bits and in the host's memory: the same function, to what the bits hold."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flashjax import models, paths
from flashjax.models import held, lora, qwen_image_21
from flashjax.parallel import mesh as meshes
from flashjax.parallel import sharding

RNG = np.random.default_rng(0)
CONFIG = qwen_image_21.Config.tiny(in_channels=12, scan_layers=True)
KERNEL = "blocks/mlp/gate/kernel"
COND = qwen_image_21.Condition(
    RNG.normal(size=(2, 5, CONFIG.context_dim)).astype(np.float32), np.array([5, 3], np.int32)
)
Z, T = RNG.normal(size=(2, 4, 4, 12)).astype(np.float32), np.array([0.3, 0.8], np.float32)


def draw(form):
    scaled = jax.tree.map(lambda x: RNG.normal(size=x.shape) * (x.shape[-2] ** -0.5 if x.ndim > 1 else 0.4), form)
    return jax.tree.map(lambda x: x.astype(np.float32), scaled)


BASE = draw(qwen_image_21.abstract(CONFIG))


def velocity(params, memory: str = "device", scan: bool = True, adapter=None):
    config = dataclasses.replace(CONFIG, scan_layers=scan)
    denoiser = qwen_image_21.denoiser(config)

    @jax.jit
    def run(params, adapter):
        whole = held.readable(params, memory)
        used = denoiser if adapter is None else lora.denoiser(denoiser, whole, 2.0)
        given = whole if adapter is None else adapter
        return used.velocity(given, used.condition(given, COND), Z, T)

    return np.asarray(run(params, adapter))


def test_int8_is_the_nearest_value_on_each_columns_grid():
    kernel = RNG.normal(size=(3, 64, 8)).astype(np.float32) * np.float32([1, 10, 100, 1, 1, 1, 1, 1])
    kernel[1, :, 3] = 0
    kept = paths.flatten(held.keep({"blocks": {"kernel": kernel}, "scale": np.ones(4, np.float32)}, "int8"))
    values, scale = kept["blocks/kernel/int8"], kept["blocks/kernel/scale"]
    assert (values.dtype, scale.shape, kept["scale"].dtype) == (np.int8, (3, 1, 8), jnp.dtype(jnp.bfloat16))
    read = np.asarray(held.Quantized(values, jnp.asarray(scale))[...], np.float32)
    # Half a step of the column's grid, and bfloat16's 8 bits of what was read.
    assert (np.abs(read - kernel) <= scale / 2 * 1.001 + np.abs(kernel) * 2**-8).all()
    assert np.abs(values).max(axis=1).min() == 0 and (np.abs(values[0]).max(axis=0) == 127).all()


@pytest.mark.parametrize("scan", [True, False])
def test_a_network_reads_int8_as_the_values_it_stands_for(scan):
    kept = held.keep(BASE, "int8")
    dense = dict(paths.flatten(held.keep(BASE, "bfloat16")))
    for path in [p.removesuffix("/int8") for p in paths.flatten(kept) if p.endswith("/int8")]:
        dense[path] = held.Quantized(*(paths.flatten(kept)[f"{path}/{part}"] for part in held.PARTS))[...]
    found, expected = velocity(kept, scan=scan), velocity(paths.unflatten(dense), scan=scan)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    exact = velocity(BASE, scan=scan)
    wrong = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 1e-4 < wrong < 0.05  # it does quantize, and what is lost is little


@pytest.mark.parametrize("dtype", ["", "int8"])
def test_the_hosts_memory_changes_no_bit(dtype):
    kept = held.keep(BASE, dtype)
    mesh = meshes.make_mesh(dict(data=1, fsdp=1, context=1, tensor=1), jax.devices()[:1])
    there = jax.device_put(kept, held.placed(sharding.shardings(kept, mesh), "pinned_host"))
    kinds = {path: x.sharding.memory_kind for path, x in paths.flatten(there).items()}
    name = KERNEL if not dtype else f"{KERNEL}/int8"
    assert (kinds[name], kinds["img_in/kernel"]) == ("pinned_host", "device")
    expected = velocity(jax.device_put(kept))
    np.testing.assert_array_equal(velocity(there, "pinned_host"), expected)
    # Divided over four devices, a layer's part comes to each.
    mesh = meshes.make_mesh(dict(data=1, fsdp=2, context=1, tensor=2), jax.devices()[:4])
    there = jax.device_put(kept, held.placed(sharding.shardings(kept, mesh), "pinned_host"))
    with jax.set_mesh(mesh):
        found = velocity(there, "pinned_host")
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_an_adapter_stands_on_a_base_of_int8_on_the_host():
    adapter = draw(lora.form(lora.Lora(3, 6.0, ((r"blocks/.*/kernel", True), (r".*", False))), BASE))
    kept = held.keep(BASE, "int8")
    merged = lora.merge(held.readable(kept, "device"), adapter, 2.0)
    mesh = meshes.make_mesh(dict(data=1, fsdp=1, context=1, tensor=1), jax.devices()[:1])
    there = jax.device_put(kept, held.placed(sharding.shardings(kept, mesh), "pinned_host"))
    expected = velocity(merged)
    np.testing.assert_allclose(
        velocity(there, "pinned_host", adapter=adapter), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_int8_lies_as_its_kernel_does(architecture):
    model = models.architecture(architecture)
    whole = model.abstract(model.Config.tiny())
    kept = paths.flatten(jax.eval_shape(lambda tree: held.keep(tree, "int8"), whole))
    kernels = [path for path in paths.flatten(whole) if path.startswith("blocks/") and path.endswith("/kernel")]
    assert kernels
    for path in kernels:
        own = sharding.partition(sharding.division(path), 3)
        assert sharding.partition(sharding.division(f"{path}/int8"), 3) == own
        assert sharding.partition(sharding.division(f"{path}/scale"), 3) == P(None, None, own[2])
        assert (kept[f"{path}/int8"].shape, kept[f"{path}/int8"].dtype) == (paths.flatten(whole)[path].shape, np.int8)
    mesh = meshes.make_mesh(dict(data=2, fsdp=2, context=1, tensor=1))
    assert sharding.shardings(paths.unflatten(kept), mesh)


def test_memory_is_what_the_bits_are():
    form = qwen_image_21.abstract(CONFIG)

    def size(dtype: str) -> int:
        kept = jax.eval_shape(partial(held.keep, dtype=dtype), form)
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))

    sizes = {dtype: size(dtype) for dtype in ("float32", "bfloat16", "int8")}
    assert sizes["bfloat16"] * 2 == sizes["float32"]
    assert sizes["int8"] < 0.75 * sizes["bfloat16"]
