"""Where parameters lie: one rule set for every denoiser, and for everything that follows a parameter."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from optax import contrib
from tiny_runs import ONE, tiny

from flashjax import models, paths
from flashjax.distill.state import TrainState
from flashjax.errors import UserError
from flashjax.parallel import mesh as meshes
from flashjax.parallel import sharding

SMALL = 200_000  # parameters: a layer's bias or norm; an axis of such may be whole


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh(ONE | dict(fsdp=4, tensor=2))


def local(leaf, where) -> tuple[int, ...]:
    return where.shard_shape(leaf.shape)


def test_arrays_that_all_hosts_have_are_not_gathered(monkeypatch):
    """Several hosts: jax.device_put made as many copies of the largest kernel on every device as there are hosts."""
    mesh = meshes.make_mesh(dict(data=1, fsdp=8, context=1, tensor=1))
    where = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    tree = dict(a=np.arange(32.0).reshape(2, 16), b=jnp.ones((2, 8)))
    expected, asked = jax.device_put(tree, where), []
    device_put = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda x, to: asked.append(type(x)) or device_put(x, to))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    found = sharding.put(tree, dict(a=where, b=where))
    assert np.ndarray not in asked and len(asked) == 1
    for name, x in found.items():
        np.testing.assert_array_equal(x, expected[name])
        assert x.sharding == where


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_every_released_parameter_has_its_place(architecture, mesh):
    """Eight devices hold an eighth of the network each, but for what is small, and no layer axis is cut."""
    model = models.architecture(architecture)
    params = model.abstract(getattr(model.Config, model.PRESETS[0])())
    placed = paths.flatten(sharding.shardings(params, mesh))
    whole = total = 0
    for path, leaf in paths.flatten(params).items():
        part = local(leaf, placed[path])
        if leaf.ndim == 3:
            assert part[0] == leaf.shape[0], path
        parts = leaf.size // math.prod(part)
        assert parts == 8 or leaf.size < SMALL * max(1, leaf.shape[0] if leaf.ndim > 1 else 1), path
        whole, total = whole + (leaf.size if parts == 1 else 0), total + leaf.size
    assert whole < 1e-3 * total


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_every_rule_is_somebodys(architecture):
    """Rules that no denoiser uses would be misspelt; the table that people read names every parameter once."""
    trees = [m.abstract(m.Config.tiny()) for m in map(models.architecture, models.ARCHITECTURES)]
    used = {regex for tree in trees for regex, _ in sharding.RULES for path in paths.flatten(tree)
            if paths.match([*((r, r) for r, _ in sharding.RULES)], path) == regex}  # fmt: skip
    assert used == {regex for regex, _ in sharding.RULES}
    params = models.architecture(architecture).abstract(models.architecture(architecture).Config.tiny())
    table = sharding.explain(params)
    assert "(no rule)" not in table
    assert all(sum(line.split()[0] == path for line in table.splitlines()) == 1 for path in paths.flatten(params))


def test_modulation_is_divided_by_its_outputs(mesh):
    model = models.architecture("qwen_image")
    params = paths.flatten(model.abstract(model.Config.qwen_image()))
    placed = paths.flatten(sharding.shardings(paths.unflatten(params), mesh))
    for path in ("blocks/img/mod/kernel", "norm_out/kernel"):
        *front, last = local(params[path], placed[path])
        assert (*front, 8 * last) == params[path].shape


@pytest.mark.parametrize(
    "optimizer",
    [optax.adamw(1e-3), optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
     contrib.muon(1e-3), optax.ema(0.9)],
)  # fmt: skip
def test_states_of_optimizers_follow_their_parameters(mesh, optimizer):
    model, config = tiny("qwen_image")
    params = model.abstract(config)
    state = jax.eval_shape(lambda p: TrainState.create(p, optimizer, optimizer), params)
    placed, expected = sharding.shardings(state, mesh), paths.flatten(sharding.shardings(params, mesh))
    assert paths.flatten(placed.ema) == paths.flatten(placed.student.params) == expected
    found = dict.fromkeys(expected, 0)
    leaves = jax.tree_util.tree_leaves_with_path(state.critic.opt_state)
    for (place, leaf), where in zip(leaves, jax.tree.leaves(placed.critic.opt_state), strict=True):
        path = sharding.parameter_path(place)
        if leaf.ndim > 1:
            assert where == expected[path]
            found[path] += 1
    assert all(found[path] for path, leaf in paths.flatten(params).items() if leaf.ndim > 1)


def test_a_parameter_without_a_rule_is_named(mesh):
    with pytest.raises(paths.PathError, match="No rule matches adapter/strange"):
        sharding.shardings(dict(adapter=dict(strange=jax.ShapeDtypeStruct((8, 8), np.float32))), mesh)
    with pytest.raises(paths.PathError, match="belongs to no parameter"):
        sharding.shardings((jax.ShapeDtypeStruct((8, 8), np.float32),), mesh)


def test_a_parameter_that_does_not_divide_is_named():
    model, config = tiny("qwen_image_21", width=36, heads=2, axes_dims=(6, 6, 6))
    with pytest.raises(UserError, match=r"The parameter .* has an axis of 36, which does not divide over 8") as error:
        sharding.shardings(model.abstract(config), meshes.make_mesh(ONE | dict(fsdp=8)))
    assert "\n" not in str(error.value)
