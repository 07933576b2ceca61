"""Adapters: merged is applied, their gradient is the chain rule's, and they lie where their kernels do."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from flashjax import flow, models, optim, paths
from flashjax.convert import adapters
from flashjax.errors import UserError
from flashjax.models import lora, qwen_image_21
from flashjax.parallel import mesh as meshes
from flashjax.parallel import sharding

RULES = ((r"blocks/.*/kernel", True), (r".*", False))
LORA = lora.Lora(3, 6.0, RULES)
CONFIG = qwen_image_21.Config.tiny(in_channels=12, scan_layers=True)  # to compile fast
KERNEL = "blocks/mlp/gate/kernel"


def draw(form, seed: int):
    """Weights at which every output is of order 1."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * (x.shape[-2] ** -0.5 if x.ndim > 1 else 0.4)).astype(x.dtype), form
    )


BASE = draw(qwen_image_21.abstract(CONFIG), 0)
ADAPTER = draw(lora.form(LORA, BASE), 1)
INNER = qwen_image_21.denoiser(CONFIG)
RNG = np.random.default_rng(2)
COND = qwen_image_21.Condition(
    RNG.normal(size=(2, 5, CONFIG.context_dim)).astype(np.float32), np.array([5, 3], np.int32)
)
Z, T = RNG.normal(size=(2, 4, 4, 12)).astype(np.float32), np.array([0.3, 0.8], np.float32)


def velocity(denoiser: flow.Denoiser, params):
    return denoiser.velocity(params, denoiser.condition(params, COND), Z, T)


@jax.jit
def adapted(base, params):
    return velocity(lora.denoiser(INNER, base, LORA.scale), params)


@functools.cache
def merged() -> dict:
    """Written out in float64, layer by layer."""
    leaves, factors = dict(paths.flatten(BASE)), paths.flatten(ADAPTER)
    for path in leaves:
        if f"{path}/a" in factors:
            a, b = (factors[f"{path}/{side}"].astype(np.float64) for side in "ab")
            changes = [LORA.alpha / LORA.rank * a[layer] @ b[layer] for layer in range(len(a))]
            leaves[path] = (leaves[path] + np.stack(changes)).astype(np.float32)
    return paths.unflatten(leaves)


def test_merged_is_applied():
    expected, found = jax.jit(velocity, static_argnums=0)(INNER, merged()), adapted(BASE, ADAPTER)
    np.testing.assert_allclose(found, expected, atol=1e-6 * float(jnp.abs(expected).max()))
    assert float(jnp.abs(found - adapted(BASE, BASE)).max()) > 0.1  # a whole tree is taken as it is
    for one, other in zip(*map(jax.tree.leaves, (lora.merge(BASE, ADAPTER, LORA.scale), merged())), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_the_low_rank_product_of_activations_is_the_merged_kernel():
    """x W + (x a) b scale, as papers write it."""
    base, adapter = paths.flatten(BASE), paths.flatten(ADAPTER)
    w, a, b = (leaf[1].astype(np.float64) for leaf in (base[KERNEL], adapter[f"{KERNEL}/a"], adapter[f"{KERNEL}/b"]))
    x = RNG.normal(size=(7, len(w)))
    whole = paths.flatten(lora.merge(BASE, ADAPTER, LORA.scale))[KERNEL][1]
    np.testing.assert_allclose(x @ whole, x @ w + (x @ a) @ b * 2.0, atol=1e-5)


def test_gradients_are_the_chain_rules():
    """dA = scale dW b^T, dB = scale a^T dW."""

    def loss(v):
        return jnp.sum(v * Z)

    by_factors = paths.flatten(jax.jit(jax.grad(lambda p: loss(adapted(BASE, p))))(ADAPTER))
    by_kernel = paths.flatten(jax.jit(jax.grad(lambda p: loss(velocity(INNER, p))))(merged()))
    factors = paths.flatten(ADAPTER)
    for path in {name.rpartition("/")[0] for name in factors}:
        a, b, full = factors[f"{path}/a"], factors[f"{path}/b"], by_kernel[path]
        expected = dict(a=2.0 * full @ np.swapaxes(b, 1, 2), b=2.0 * np.swapaxes(a, 1, 2) @ full)
        for side, value in expected.items():
            size = float(jnp.abs(value).max())
            np.testing.assert_allclose(by_factors[f"{path}/{side}"], value, atol=1e-5 * size, err_msg=f"{path}/{side}")
            assert size > 0


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_every_network_merges_where_it_reads(architecture):
    """All kernels of all denoisers adapted, in scanned stacks as on a pod."""
    model = models.architecture(architecture)
    config = model.Config.tiny(scan_layers=True)
    every = lora.Lora(2, 4.0, ((r".*/kernel", True), (r".*", False)))
    base = draw(model.abstract(config), 3)
    adapter, inner = draw(lora.form(every, base), 4), model.denoiser(config)
    cond = model.Condition(RNG.normal(size=(2, 5, config.context_dim)).astype(np.float32), np.array([5, 3], np.int32))
    z = RNG.normal(size=(2, 4, 4, config.in_channels)).astype(np.float32)

    @partial(jax.jit, static_argnums=0)
    def evaluate(how, base, params):
        used = dict(merged=lora.merge(base, params, every.scale), where_read=params, paired=(base, params))[how]
        denoiser = dict(
            merged=inner, where_read=lora.denoiser(inner, base, every.scale),
            paired=lora.paired(inner, every.scale, lambda tree: tree),
        )[how]  # fmt: skip
        return denoiser.velocity(used, denoiser.condition(used, cond), z, T)

    expected, *others = (evaluate(how, base, adapter) for how in ("merged", "where_read", "paired"))
    for found in others:
        np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_a_stack_is_merged_a_layer_at_a_time():
    """A gradient's temporaries do not grow with the layers as their kernels do."""

    def temporaries(layers: int) -> tuple[int, int]:
        config = qwen_image_21.Config.tiny(in_channels=12, scan_layers=True, remat="full", layers=layers)
        base = qwen_image_21.abstract(config)
        form, inner = lora.form(LORA, base), qwen_image_21.denoiser(config)

        def loss(params, base):
            return jnp.mean(velocity(lora.denoiser(inner, base, LORA.scale), params))

        compiled = jax.jit(jax.grad(loss)).lower(form, base).compile()
        stacks = sum(x.size * 4 for path, x in paths.flatten(base).items() if path.startswith("blocks/"))
        return compiled.memory_analysis().temp_size_in_bytes, stacks

    (few, small), (many, large) = temporaries(2), temporaries(16)
    # The rest of it are streams between layers and the factors' gradients; merged as a whole it is over 2.
    assert many - few < 0.5 * (large - small)


def test_a_first_adapter_changes_nothing():
    first = lora.init(LORA, BASE, jax.random.key(0))
    np.testing.assert_array_equal(adapted(BASE, first), adapted(BASE, BASE))
    a = paths.flatten(first)[f"{KERNEL}/a"]
    assert float(a.std()) == pytest.approx(a.shape[1] ** -0.5, rel=0.2)
    assert len(np.unique(a)) == a.size
    assert not any(np.asarray(leaf).any() for path, leaf in paths.flatten(first).items() if path.endswith("/b"))


def test_the_base_keeps_its_dtype_and_small_changes_are_summed_in_float32():
    base = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), BASE)
    whole = lora.merge(base, ADAPTER, LORA.scale)
    assert {leaf.dtype for leaf in jax.tree.leaves(whole)} == {jnp.dtype(jnp.bfloat16)}
    exact = lora.merge(jax.tree.map(lambda x: np.asarray(x, np.float32), base), ADAPTER, LORA.scale)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(exact), strict=True):
        # Rounded once: half a unit in the last of 8 places.
        np.testing.assert_allclose(np.asarray(one, np.float32), other, rtol=2**-8)


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_factors_are_written_divided_and_decayed_as_their_kernels(architecture, tmp_path):
    """One tree for training, files, meshes and optimizers, with every kernel of every denoiser."""
    model = models.architecture(architecture)
    whole = model.abstract(model.Config.tiny())
    every = lora.Lora(2, 4.0, ((r".*/kernel", True), (r".*", False)))
    tree = jax.tree.map(np.asarray, lora.init(every, whole, jax.random.key(0)))
    kernels = {path for path in paths.flatten(whole) if path.endswith("/kernel")}
    factors = {kernel: {s: paths.flatten(tree)[f"{kernel}/{s}"] for s in "ab"} for kernel in kernels}
    adapters.write(tmp_path / "adapter.safetensors", adapters.Adapter(factors, 2, 4.0), architecture)
    read = adapters.read(tmp_path / "adapter.safetensors", architecture, whole)
    jax.tree.map(np.testing.assert_array_equal, paths.unflatten(read.factors), tree)
    assert all(jax.tree.leaves(paths.map_paths(optim.DECAY, tree)))
    mesh = meshes.make_mesh(dict(data=2, fsdp=2, context=1, tensor=1))
    for kernel in kernels:
        _, inputs, outputs = (None, None, *sharding.partition(sharding.division(kernel), 2))[-3:]
        assert sharding.partition(sharding.division(f"{kernel}/a"), 3) == PartitionSpec(None, inputs, None)
        assert sharding.partition(sharding.division(f"{kernel}/b"), 3) == PartitionSpec(None, None, outputs)
    assert jax.tree.structure(sharding.shardings(tree, mesh)) == jax.tree.structure(tree)


def test_what_is_no_adapter_is_refused():
    assert lora.of(dict(lora=dict(rank=0, alpha=1.0, rules=RULES))) is lora.of({}) is None
    assert lora.of(dict(lora=dict(rank=3, alpha=6.0, rules=[list(rule) for rule in RULES]))) == LORA
    for rank, alpha in ((-1, 1.0), (2, 0.0), (2, float("nan"))):
        with pytest.raises(ValueError, match=r"config\.lora\.(rank|alpha) is"):
            lora.Lora(rank, alpha, RULES)
    for rules in (None, 3, "blocks", ("blocks/.*", True)):
        with pytest.raises(ValueError, match=r"config\.lora\.rules is .*; it has to be pairs"):
            lora.of(dict(lora=dict(rank=3, alpha=6.0, rules=rules)))
    with pytest.raises(UserError, match="choose no kernel"):
        lora.form(lora.Lora(2, 1.0, ((".*", False),)), BASE)
    with pytest.raises(UserError, match="which is no kernel"):
        lora.form(lora.Lora(2, 1.0, ((".*", True),)), BASE)
