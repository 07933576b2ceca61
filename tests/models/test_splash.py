"""Splash attention, interpreted on CPU, against XLA's: the same function, forwards and backwards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashjax import axes
from flashjax.models import attention, splash
from flashjax.models import qwen_image_21 as qwen
from flashjax.parallel import mesh as meshes

B, H, D = 2, 2, 8
ALL = dict(data=1, fsdp=2, context=2, tensor=2)


def inputs(queries: int, keys: int, batch: int = B):
    drawn = jax.random.split(jax.random.key(0), 4)
    sizes = queries, keys, keys, queries
    return [jax.random.normal(key, (batch, n, H, D)) for key, n in zip(drawn, sizes, strict=True)]


def both(kind: str, q, k, v, weights, **masks):
    """The output, and the gradients of a sum of it weighted by another random array."""

    def loss(q, k, v):
        out = attention.attend(q, k, v, kind=kind, **masks)
        return jnp.sum(weights * out), out

    (_, out), grads = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)
    return out, *grads


def agree(given, mesh=None, **masks):
    """Scores are sums of D products, outputs of as many keys: 1e-6 of float32 is rounding. ``mesh``: of splash."""
    expected = jax.jit(functools.partial(both, "xla", **masks))(*given)
    found = jax.jit(functools.partial(both, "splash", **masks))
    if mesh is None:
        found = found(*given)
    else:
        with jax.set_mesh(mesh):
            found = found(*given)
    for name, a, b in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6, err_msg=name)


def block_causal():
    """Text of 30, an image of 8 x 12 tokens, text: 140 tokens, which fill no block."""
    return qwen.prefix_plan(44, ((8, 12),), (30,)).allowed


def of_lengths(keys: int, *lengths: int) -> np.ndarray:
    return (np.arange(keys) < np.array(lengths)[:, None])[:, None, None, :]


def test_a_target_looks_at_all_keys_but_padding():
    """A prefix with padding behind it, then the target, which fill no block; and one prefix for two samples."""
    prefix = of_lengths(40, 25, 40)
    mask = np.pad(prefix, ((0, 0),) * 3 + ((0, 130),), constant_values=True)
    agree(inputs(130, 170), mask=mask)
    agree(inputs(130, 170), mask=mask[:1])


def test_a_prefix_is_causal_but_within_its_images():
    allowed = block_causal()
    assert not allowed.all()
    agree(inputs(140, 140), mask=of_lengths(140, 133, 140), allowed=allowed)


def test_whole_blocks_need_no_mask():
    agree(inputs(128, 256))


@pytest.mark.parametrize(("batch", "allowed"), [(2, block_causal()), (1, None), (2, np.ones((140, 140), bool))])
def test_on_all_axes_of_a_mesh(batch, allowed):
    """Every device has its own samples, queries and heads; a batch of one (the null condition) is whole on each. Half
    of the queries, 70, have their own part of the static mask."""
    masks = dict(mask=of_lengths(140, 133, 140)[:batch], allowed=allowed)
    agree(inputs(140, 140, batch), meshes.make_mesh(ALL), **masks)


def test_a_masked_key_has_no_influence():
    q, k, v, _ = inputs(128, 256)
    mask = of_lengths(256, 200, 200)
    loud = [x.at[:, 200:].set(1e4) for x in (k, v)]
    np.testing.assert_array_equal(*(attention.attend(q, *kv, mask, kind="splash") for kv in ((k, v), loud)))


@pytest.mark.parametrize(
    ("platform", "keys", "width", "mask", "allowed", "chosen"),
    [
        ("tpu", 4096, 128, None, None, "splash"),
        ("tpu", 4096, 128, (2, 1, 1, 4096), np.ones(1), "splash"),
        ("tpu", 4096, 128, (2, 1, 4096, 4096), None, "xla"),
        ("tpu", 77, 128, None, None, "xla"),
        ("tpu", 4096, 64, None, None, "xla"),
        ("cpu", 4096, 128, None, None, "xla"),
        ("gpu", 77, 64, (1, 1, 1, 77), None, "cudnn"),
        ("gpu", 77, 64, (1, 1, 1, 77), np.ones(1), "xla"),
    ],
)
def test_what_auto_is(monkeypatch, platform, keys, width, mask, allowed, chosen):
    monkeypatch.setattr(axes, "platform", lambda: platform)
    k = jax.ShapeDtypeStruct((2, keys, H, width), jnp.bfloat16)
    mask = None if mask is None else jax.ShapeDtypeStruct(mask, bool)
    assert attention.chosen("auto", k, mask, allowed) == chosen
    assert attention.chosen("xla", k, mask, allowed) == "xla"
    if platform == "gpu":  # cuDNN has no float32
        assert attention.chosen("auto", jax.ShapeDtypeStruct(k.shape, jnp.float32), mask, allowed) == "xla"


def test_a_program_for_a_described_pod_is_for_its_devices():
    described = jax.sharding.AbstractMesh(
        (1, 4, 1, 1), axes.AXES, abstract_device=jax.sharding.AbstractDevice("TPU v6 lite", 1, "tpu")
    )
    assert axes.platform() == "cpu"
    with jax.sharding.use_abstract_mesh(described):
        assert axes.platform() == "tpu"


@pytest.mark.parametrize("length", [1, 128, 129, 513, 1100, 4096, 4173])
def test_blocks_fill_up_little(length):
    assert splash.filled(length) % splash.block(length) == 0
    assert length <= splash.filled(length) < length + 128 + length // 50


def test_what_splash_does_not_take_is_told():
    q, k, v, _ = inputs(128, 128)
    with pytest.raises(ValueError, match="by splash takes masks of keys"):
        attention.attend(q, k, v, jnp.ones((B, 1, 128, 128), bool), kind="splash")
    with pytest.raises(ValueError, match="attention is 'flash'; choose auto, xla, splash, cudnn"):
        qwen.Config.tiny(attention="flash")


def test_the_network_is_the_same():
    """Qwen-Image-2.1 with a reference and padded text: velocity and gradients of every parameter."""
    results = []
    for kind in ("xla", "splash"):
        config = qwen.Config.tiny(layers=1, attention=kind)
        leaves, tree = jax.tree.flatten(qwen.abstract(config))
        keys = jax.random.split(jax.random.key(0), len(leaves) + 3)
        params = jax.tree.unflatten(
            tree, [0.3 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=False)]
        )
        reference = jax.random.normal(keys[-1], (B, 3, 4, config.in_channels))
        text = jax.random.normal(keys[-2], (B, 6, config.context_dim))
        cond = qwen.Condition(text, jnp.array([4, 6]), (reference,), (2,))
        z, denoiser = jax.random.normal(keys[-3], (B, 5, 4, config.in_channels)), qwen.denoiser(config)

        @jax.jit
        def velocity(params, denoiser=denoiser, cond=cond, z=z):
            v = denoiser.velocity(params, denoiser.condition(params, cond), z, jnp.array([0.3, 0.8]))
            return jnp.mean(v**2), v

        results.append(jax.value_and_grad(velocity, has_aux=True)(params))
    for (path, a), b in zip(jax.tree.leaves_with_path(results[1]), jax.tree.leaves(results[0]), strict=True):
        scale = max(np.abs(b).max(), 1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale, err_msg=jax.tree_util.keystr(path))
