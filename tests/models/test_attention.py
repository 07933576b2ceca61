"""Attention against jax.nn.dot_product_attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashjax.models import attention
from flashjax.models.attention import attend
from flashjax.parallel import mesh as meshes

B, Q, K, H, D = 2, 5, 7, 3, 8
RNG = np.random.default_rng(0)
MASKS = {
    "none": None,
    "keys": RNG.random((B, 1, 1, K)) < 0.6,
    "queries_and_keys": RNG.random((Q, K)) < 0.6,
    "heads": RNG.random((1, H, Q, K)) < 0.6,
}
for _mask in MASKS.values():
    if _mask is not None:
        _mask[..., 0] = True  # fully masked rows have a test of their own


def inputs(scale=1.0, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    return tuple(
        (scale * jax.random.normal(k, (B, n, H, D))).astype(dtype) for k, n in zip(keys, (Q, K, K), strict=True)
    )


def reference(q, k, v, mask):
    mask = None if mask is None else jnp.broadcast_to(mask, (B, H, Q, K))
    return jax.nn.dot_product_attention(q, k, v, mask=mask)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_agrees_with_jax(mask, scale):
    """At scale 30 scores reach thousands, where a softmax without its maximum overflows. Outputs grow with the scale,
    and a score of 1,000 carries a rounding of 1e-4 into its exponential."""
    q, k, v = inputs(scale)
    atol = 1e-6 if scale == 1 else 5e-3
    np.testing.assert_allclose(attend(q, k, v, MASKS[mask]), reference(q, k, v, MASKS[mask]), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("mask", MASKS)
def test_gradients_agree_with_jax(mask):
    def loss(attention, q, k, v):
        return jnp.sum(jnp.sin(attention(q, k, v, MASKS[mask])))

    actual, expected = (
        jax.jit(jax.grad(lambda *x, f=f: loss(f, *x), argnums=(0, 1, 2)))(*inputs()) for f in (attend, reference)
    )
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=2e-6)


def test_a_fully_masked_row_gives_the_mean_and_no_nan():
    q, k, v = inputs()
    mask = np.ones((B, 1, Q, K), bool)
    mask[0, :, 2] = False
    out = attend(q, k, v, mask)
    np.testing.assert_allclose(out[0, 2], v[0].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[1], reference(q, k, v, None)[1], rtol=1e-5, atol=1e-6)
    grads = jax.grad(lambda *x: attend(*x, mask).sum(), argnums=(0, 1, 2))(q, k, v)
    assert all(np.isfinite(g).all() for g in grads)


def test_masked_keys_have_no_influence_at_all():
    q, k, v = inputs()
    mask = np.arange(K) < 4
    loud_k, loud_v = (x.at[:, 4:].set(1e4) for x in (k, v))
    np.testing.assert_array_equal(attend(q, loud_k, loud_v, mask), attend(q, k, v, mask))
    gk, gv = jax.grad(lambda k, v: attend(q, k, v, mask).sum(), argnums=(0, 1))(k, v)
    assert not np.any(gk[:, 4:])
    assert not np.any(gv[:, 4:])


def test_bfloat16_inputs_are_normalised_in_float32():
    """The result is bfloat16 (2^-9 relative); its error is that of rounding inputs, weights and output, not of a sum of
    bfloat16 exponentials: of 4,096 equal ones a bfloat16 sum would stop at 256."""
    q, k, v = (jnp.ones((1, n, 1, 8), jnp.bfloat16) for n in (1, 4096, 4096))
    out = attend(q, k, v)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, jnp.ones_like(out))
    q, k, v = inputs(dtype=jnp.bfloat16)
    exact = attend(*(x.astype(jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(attend(q, k, v).astype(jnp.float32), exact, atol=0.02)


def test_valid_keys_in_front_are_all_that_their_number_has_to_say():
    """What cuDNN is given, computed by XLA: masks with holes, of each sample or of all."""
    weights = jax.random.normal(jax.random.key(1), (B, Q, H, D))

    def both(f):
        return jax.jit(jax.value_and_grad(lambda *x: jnp.sum(weights * f(*x)), argnums=(0, 1, 2)))(*inputs())

    for mask in (MASKS["keys"], MASKS["keys"][:1], None):
        valid = None if mask is None else mask[:, 0, 0]
        found = both(lambda q, k, v, valid=valid: attention._by_lengths(q, k, v, valid, "xla"))
        for a, e in zip(*map(jax.tree.leaves, (found, both(lambda *x, m=mask: attend(*x, m)))), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("batch", [8, 6])  # 6 do not divide over the mesh
@pytest.mark.parametrize("axes", [dict(fsdp=4, context=2), dict(data=2, context=2, tensor=2), dict(fsdp=2, tensor=4)])
def test_each_device_gives_cudnn_its_own_part(axes, batch):
    """Its samples, queries and heads, with their own numbers of keys: computed by XLA, it is what one device has."""
    mesh = meshes.make_mesh(dict(data=1, fsdp=1, context=1, tensor=1) | axes)
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, weights = (jax.random.normal(key, (batch, n, 4, 8)) for key, n in zip(keys, (6, 9, 9, 6), strict=True))
    for valid in (jnp.arange(9) < jnp.arange(1, batch + 1)[:, None], jnp.arange(9)[None] < 7, None):

        def both(compute, valid=valid):
            return jax.value_and_grad(lambda *x: jnp.sum(weights * compute(*x, valid, "xla")), argnums=(0, 1, 2))

        expected = jax.jit(both(attention._by_lengths))(q, k, v)
        with jax.set_mesh(mesh):
            found = jax.jit(both(attention._apart))(q, k, v)
        for a, e in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("queries", "context"), [(95, 1), (96, 2)])
def test_a_gpu_gets_cudnns_kernels(monkeypatch, queries, context):
    """Programs for a GPU that is not here: forwards and backwards are calls of cuDNN, without an array of scores. On a
    mesh that divides queries JAX's own division of the kernel refused the program."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda _: False)
    q, k = (jax.ShapeDtypeStruct((2, n, 4, 64), jnp.bfloat16) for n in (queries, 173))

    def loss(q, k, v, valid):
        return attend(q, k, v, valid[:, None, None], kind="cudnn").astype(jnp.float32).sum()

    mesh = meshes.make_mesh(dict(data=1, fsdp=1, context=context, tensor=1))
    with jax.set_mesh(mesh):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, jax.ShapeDtypeStruct((2, 173), bool))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax(" in text
    assert "__cudnn$fmhaSoftmaxBackward(" in text
    assert not any(scores in text for scores in ("95x173", "96x174", "48x174"))
