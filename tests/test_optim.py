"""Optimizers: which rule gets which parameter, and that a step has the size that the learning rate says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from flashjax import optim, paths
from flashjax.errors import UserError
from flashjax.models import qwen_image_21 as qwen

PARAMS = qwen.init(qwen.Config.tiny(), jax.random.key(0))
LR = 1e-2


def config(**changes):
    base = dict(kind="muon", lr=LR, warmup=0, schedule="constant", b1=0.9, b2=0.99, weight_decay=0.0, clip=1e9)
    base["mu_dtype"] = "float32"
    return ConfigDict(base | changes)


def first_update(settings, grads):
    rule = optim.make_optimizer(settings, 10)
    return paths.flatten(jax.jit(rule.update)(grads, rule.init(PARAMS), PARAMS)[0])


def random_like(params, seed=1):
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(tree, [jax.random.normal(k, p.shape) for k, p in zip(keys, leaves, strict=True)])


def test_muon_orthogonalises_the_matrices_of_the_blocks_and_leaves_the_rest_to_adam():
    """The nearest orthogonal matrix to U S V^T is U V^T; Newton-Schulz stops within 0.68 to 1.2 of its singular values,
    which is a cosine above 0.97 (a random gradient's own is 0.85 for square matrices). Adam has Nesterov's
    momentum there."""
    grads = random_like(PARAMS)
    updates = first_update(config(), grads)
    flat = paths.flatten(grads)
    muon = [name for name in updates if name.startswith("blocks/") and name.endswith("/kernel")]
    assert len(muon) == 7
    for name in muon:
        for matrix, grad in zip(np.asarray(updates[name]), np.asarray(flat[name]), strict=True):
            u, _, vh = np.linalg.svd(grad, full_matrices=False)
            assert -(matrix * (u @ vh)).sum() / np.linalg.norm(matrix) / np.linalg.norm(u @ vh) > 0.97, name
            assert np.sqrt(np.square(matrix).mean()) == pytest.approx(0.2 * LR, rel=0.2), name
    adam = optax.nadam(LR, b1=0.9, b2=0.99)
    expected = paths.flatten(adam.update(grads, adam.init(PARAMS))[0])
    for name in set(updates) - set(muon):
        np.testing.assert_allclose(updates[name], expected[name], rtol=1e-5, err_msg=name)


def test_layers_are_separate_matrices_for_muon():
    """A layer's update does not depend on the gradients of another, though both lie in one array."""
    grads = random_like(PARAMS)
    other = jax.tree.map(lambda g: g.at[1].set(3.0 * g[1] + 1.0), grads["blocks"])
    one, two = first_update(config(), grads), first_update(config(), {**grads, "blocks": other})
    for name in one:
        if name.startswith("blocks/"):
            np.testing.assert_allclose(one[name][0], two[name][0], rtol=1e-5, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_matrices_decay_and_norms_do_not(kind):
    """Without a gradient a parameter moves by its decay alone."""
    updates = first_update(config(kind=kind, weight_decay=0.5), jax.tree.map(jnp.zeros_like, PARAMS))
    flat = paths.flatten(PARAMS)
    for name, update in updates.items():
        if name.endswith("/scale"):
            np.testing.assert_array_equal(update, 0, err_msg=name)
        elif kind == "adamw" or name.startswith("blocks/"):
            np.testing.assert_allclose(update, -LR * 0.5 * flat[name], rtol=1e-5, err_msg=name)


def moments(state) -> dict[str, list]:
    """The leaves of an optimizer's state that belong to parameters, by moment."""
    found = {"mu": [], "nu": []}
    for path, leaf in jax.tree.leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        for moment, leaves in found.items():
            if f".{moment}" in name and leaf.ndim:
                leaves.append(leaf)
    return found


def gradient(seed: int):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: (1 + rng.normal(size=p.shape)).astype(np.float32), PARAMS)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_first_moment_in_bfloat16_takes_half_of_the_bytes_and_leads_close_by(kind):
    """Ten updates with gradients that keep a direction. A moment is rounded by 2^-9 of itself at each update, and
    forgets with b1 = 0.9: the ways differ by some parts in a thousand of their length, and not by nothing."""
    ways, sizes = [], []
    for dtype in ("float32", "bfloat16"):
        rule = optim.make_optimizer(config(kind=kind, mu_dtype=dtype), 10)
        update, state, params = jax.jit(rule.update), rule.init(PARAMS), PARAMS
        for seed in range(10):
            updates, state = update(gradient(seed), state, params)
            params = optax.apply_updates(params, updates)
        kept = moments(state)
        sizes.append({name: sum(x.nbytes for x in leaves) for name, leaves in kept.items()})
        assert {x.dtype for x in kept["mu"]} == {jnp.dtype(dtype)}
        assert {x.dtype for x in kept["nu"]} == {jnp.dtype("float32")}
        ways.append(jax.tree.map(lambda a, b: a - b, params, PARAMS))
    assert sizes[1] == dict(mu=sizes[0]["mu"] / 2, nu=sizes[0]["nu"])
    assert sizes[0]["mu"] == 4 * optim.parameter_count(PARAMS)
    between = jax.tree.map(lambda a, b: a - b, *ways)
    assert 1e-5 < optax.tree.norm(between) / optax.tree.norm(ways[0]) < 5e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(kind="adam"), "config.optim.kind is 'adam'; choose adamw or muon."),
        (dict(schedule="linear"), "config.optim.schedule is 'linear'; choose constant or cosine."),
        (dict(mu_dtype="float16"), "config.optim.mu_dtype is 'float16'; choose float32 or bfloat16."),
        (dict(lr=-1e-4), "config.optim.lr is -0.0001; it has to be 0 or more."), (dict(lr=np.nan), "lr is nan; it"),
        (dict(lr="1e-4"), "lr is '1e-4'; it has to be 0 or more."), (dict(warmup=-1), "warmup is -1; it has to be 0"),
        (dict(b1=-0.1), "b1 is -0.1; it has to be 0 or more, and below 1."), (dict(b2=1.0), "b2 is 1.0; it has"),
        (dict(weight_decay=-1.0), "config.optim.weight_decay is -1.0; it has to be 0 or more."),
        (dict(clip=0.0), "config.optim.clip is 0.0, the norm that gradients are cut to; it has to be above 0 (inf"),
        (dict(clip=np.nan), "config.optim.clip is nan, the norm"),
    ],
)  # fmt: skip
def test_settings_that_no_optimizer_can_have(change, said):
    with pytest.raises(UserError) as raised:
        optim.check(config(**change), "config.optim")
    assert said in str(raised.value)
    optim.check(config(lr=0.0, clip=np.inf, b1=0.0), "config.optim")
