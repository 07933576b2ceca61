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


@pytest.mark.parametrize("change", [dict(kind="adam"), dict(schedule="linear")])
def test_unknown_names_are_errors_that_list_the_known(change):
    with pytest.raises(UserError, match="choose adamw or muon|choose constant or cosine"):
        optim.make_optimizer(config(**change), 10)
