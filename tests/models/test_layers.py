"""Layers that the denoisers share: the product with rounded factors against one written out, stacks of layers."""

import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import print_saved_residuals

from flashjax import host
from flashjax.models import architecture, layers
from flashjax.models.attention import attend

KEYS = jax.random.split(jax.random.key(0), 3)
X, G = jax.random.normal(KEYS[0], (2, 5, 16)), jax.random.normal(KEYS[1], (2, 5, 8))
KERNEL = jax.random.normal(KEYS[2], (16, 8))


def rounded(a):
    return np.asarray(a.astype(jnp.bfloat16), np.float64)


@pytest.mark.parametrize("instruction", [True, False])
def test_rounded_product_and_its_gradients_round_the_factors_and_nothing_else(instruction, monkeypatch):
    """bfloat16 sums would be off by 1e-2, bfloat16 results by 4e-3; float32 sums agree with float64 to rounding."""
    monkeypatch.setattr(host, "multiplies_bfloat16", lambda: instruction)

    @jax.jit  # as a program, where XLA may leave out conversions
    def both(x, k, g):
        y, pullback = jax.vjp(lambda x, k: layers.project(x, k, "bfloat16"), x, k)
        return y, *pullback(g)

    y, dx, dk = both(X, KERNEL, G)
    assert y.dtype == dx.dtype == dk.dtype == jnp.float32
    x, k, g = rounded(X), rounded(KERNEL), rounded(G)
    np.testing.assert_allclose(y, x @ k, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dx, g @ k.T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dk, np.einsum("bsn,bsm->nm", x, g), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_results_and_gradients_have_the_dtypes_of_what_went_in(dtype):
    y, pullback = jax.vjp(lambda x, k: layers.project(x, k, jnp.bfloat16), X.astype(dtype), KERNEL)
    dx, dk = pullback(y)
    assert (y.dtype, dx.dtype, dk.dtype) == (dtype, dtype, jnp.float32)


@pytest.mark.parametrize("name", ["qwen_image_21", "qwen_image"])
def test_every_product_of_the_tokens_is_rounded_where_asked_for(name, monkeypatch):
    """In the program of forward and backward pass only what follows from t, once a sample, has float32 factors."""
    monkeypatch.setattr(host, "multiplies_bfloat16", lambda: True)
    model = architecture(name)
    config = model.Config.tiny(products="bfloat16")
    denoiser, params = model.denoiser(config), model.abstract(config)
    cond = model.Condition(jnp.ones((2, 3, 24)), jnp.array([3, 2]))
    z, t = jnp.ones((2, 2, 2, 8)), jnp.array([0.3, 0.6])

    def loss(params):
        return jnp.square(denoiser.velocity(params, denoiser.condition(params, cond), z, t)).sum()

    products = list(dots(jax.make_jaxpr(jax.grad(loss))(params).jaxpr))
    flat = [p for p in products if len(p[0].shape) == 2]  # attention's products have a batch and heads
    assert len(flat) > 20
    # t has two rows, and one for a prefix, which is as if at t = 0; no other axis is so short.
    of_time = [any(min(v.shape) <= 2 for v in p) for p in flat]
    for per_sample, dtype in ((True, jnp.float32), (False, jnp.bfloat16)):
        chosen = [v.dtype for p, t in zip(flat, of_time, strict=True) if t == per_sample for v in p]
        assert len(chosen) > 8 and set(chosen) == {jnp.dtype(dtype)}


def test_a_bias_is_added_in_the_activations_dtype_and_is_there_only_if_asked_for():
    plain, biased = (layers.Linear(16, 8, nnx.Rngs(0), jnp.float32, bias=bias) for bias in (False, True))
    assert set(nnx.state(plain)) == {"kernel"} and set(nnx.state(biased)) == {"kernel", "bias"}
    biased.bias[...] = jnp.arange(8.0)
    assert biased(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    np.testing.assert_allclose(biased(X), plain(X) + np.arange(8.0), rtol=1e-6)


class Residual(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.out = (layers.Linear(16, 16, rngs, jnp.float32) for _ in range(2))

    def __call__(self, h):
        q = self.linear(h).reshape(*h.shape[:2], 2, 8)
        return h + self.out(attend(q, q, jnp.sin(q)).reshape(h.shape))


def stack_loss(scan, remat):
    """Of three layers' parameters and X, by the name of a policy."""

    def loss(params, x):
        stack, how = nnx.merge(graphdef, params), dict(scan=scan, remat=remat)
        return jnp.sum(layers.run_stack(stack, 3, lambda layer, h, _: (layer(h), None), x, None, **how)[0] ** 2)

    graphdef, params = nnx.split(layers.stack(Residual, 3, nnx.Rngs(params=0)))
    return loss, params


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("remat", layers.REMAT)
def test_no_policy_of_recomputing_changes_values_or_gradients(remat, scan):
    loss, params = stack_loss(scan, remat)
    plain, _ = stack_loss(False, "none")
    computed, expected = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params, X) for f in (loss, plain))
    for a, b in zip(jax.tree.leaves(computed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize(("remat", "kept"), [("full", 0), ("attention", 1), ("offload", 0)])
def test_what_a_policy_keeps_of_a_layer(remat, kept, capsys):
    """Between forward and backward pass: the stream of every layer, attention's result where it is named, and of the
    matrices of scores nothing."""
    loss, params = stack_loss(True, remat)
    print_saved_residuals(loss, params, X)
    saved = re.findall(r"^f32(\S*)\[3,2,([\d,]+)\]", capsys.readouterr().out, re.MULTILINE)
    assert sorted(shape for _, shape in saved) == ["5,16", *["5,2,8"] * kept]
    assert any("host" in place for place, _ in saved) == (remat == "offload")


def test_a_policy_that_there_is_not():
    with pytest.raises(ValueError, match="remat is 'some'; choose none, full, attention, offload."):
        architecture("qwen_image").Config.tiny(remat="some")


def dots(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield [v.aval for v in eqn.invars]
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from dots(inner)


def test_what_follows_from_time_is_not_rounded_by_the_device():
    """TPUs round the factors of a float32 product to bfloat16 unless they are told not to."""
    embed = layers.TimeEmbed(16, nnx.Rngs(0), jnp.bfloat16)
    found = [e for e in jax.make_jaxpr(embed)(jnp.ones(2)).jaxpr.eqns if e.primitive.name == "dot_general"]
    assert len(found) == 2
    for product in found:
        assert product.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
        assert {v.aval.dtype for v in product.invars} == {jnp.dtype("float32")}
