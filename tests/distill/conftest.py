"""A real network for tests of the steps, small enough to compile in seconds."""

import jax
import jax.numpy as jnp
import pytest

from flashjax.models import qwen_image_21 as qwen


@pytest.fixture(scope="module")
def tiny():
    """(denoiser, parameters of student, critic and teacher, condition, null): Qwen-Image-2.1 with a reference."""
    config = qwen.Config.tiny(layers=1)
    leaves, tree = jax.tree.flatten(qwen.abstract(config))

    @jax.jit
    def randomise(key):
        keys = jax.random.split(key, len(leaves))
        return tree.unflatten([0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])

    text, reference = (jax.random.normal(jax.random.key(0), shape) for shape in ((2, 3, 24), (2, 2, 1, 8)))
    cond = qwen.Condition(text, jnp.array([3, 2]), (reference,), (1,))
    trees = [randomise(jax.random.key(i)) for i in range(3)]
    return qwen.denoiser(config), trees, cond, jax.tree.map(lambda x: x[:1], cond)
