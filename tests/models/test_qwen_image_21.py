"""The Qwen-Image-2.1 denoiser against diffusers' model, by the rules of parity.py."""

import dataclasses
import functools

import denoisers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import QwenImage21Transformer2DModel
from flax import nnx
from parity import carry_over, check_released, close, randomise

from flashjax import convert
from flashjax.convert import planning
from flashjax.convert.qwen_image_21 import TABLE
from flashjax.models import qwen_image_21 as qwen
from flashjax.models.qwen_image_21 import Condition, Config

CONFIGS = {
    "tiny": {},
    "wide_heads_scanned": dict(
        in_channels=4, context_dim=20, width=72, layers=2, heads=3, axes_dims=(2, 8, 14), mlp_ratio=2, scan_layers=True
    ),
    "one_head_uneven_axes": dict(in_channels=12, context_dim=16, width=24, layers=1, heads=1, axes_dims=(12, 2, 10)),
    "postcards_like": dict(
        in_channels=48, context_dim=40, width=96, layers=4, heads=3, axes_dims=(8, 12, 12), remat="full"
    ),
    "five_heads_other_constants": dict(
        in_channels=20, context_dim=28, width=60, layers=3, heads=5, axes_dims=(2, 4, 6), mlp_ratio=1, eps=1e-2
    ),
}
# text tokens, target size, reference sizes, text tokens before each reference. diffusers counts image tokens in
# groups of four, so one side may be odd but not both.
LAYOUTS = {
    "t2i": (7, (4, 4), (), ()),
    "t2i_odd_width": (3, (4, 7), (), ()),
    "one_token_of_text": (1, (2, 2), (), ()),
    "one_reference": (6, (2, 4), ((5, 4),), (4,)),
    "reference_first": (4, (4, 2), ((2, 6),), (0,)),
    "two_references": (9, (4, 4), ((2, 2), (4, 5)), (2, 5)),
    "adjacent_references": (6, (3, 4), ((4, 2), (2, 4)), (3, 3)),
    "ten_references": (12, (2, 4), ((2, 2), (2, 4), (4, 2), (2, 2), (4, 3)) * 2, (1, 2, 2, 3, 5, 6, 8, 9, 11, 12)),
    "adjacent_at_both_ends": (2, (2, 4), ((2, 2), (2, 2)), (0, 2)),
}


def torch_model(config: Config, seed: int = 0) -> QwenImage21Transformer2DModel:
    model = QwenImage21Transformer2DModel(
        in_channels=config.in_channels, out_channels=config.in_channels, num_layers=config.layers,
        attention_head_dim=config.head_dim, num_attention_heads=config.heads, context_in_dim=config.context_dim,
        mlp_ratio=config.mlp_ratio, axes_dims_rope=config.axes_dims, eps=config.eps,
    )  # fmt: skip
    return randomise(model, seed, centred=("text_norm",))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return denoisers.pairs(qwen, CONFIGS, torch_model, tmp_path_factory)


def draw(config: Config, layout, batch: int = 2, seed: int = 0):
    """(condition, z, t) of a layout."""
    text_tokens, size, references, at = layout
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    cond = Condition(
        3 * normal(batch, text_tokens, config.context_dim),
        np.full(batch, text_tokens, np.int32),
        tuple(normal(batch, *reference, config.in_channels) for reference in references),
        at,
    )
    return cond, normal(batch, *size, config.in_channels), rng.uniform(0.05, 1, batch).astype(np.float32)


def torch_velocity(model, cond: Condition, z, t):
    """diffusers' view of the same: image slots within the text (their contents must not matter), images packed in front
    of the target."""
    rng, (batch, _, width) = np.random.default_rng(99), cond.text.shape
    real = np.arange(cond.text.shape[1]) < cond.text_length[:, None]
    states, valid, slots, start = [], [], [], 0
    for reference, at in zip((*cond.references, None), (*cond.reference_at, cond.text.shape[1]), strict=True):
        states.append(cond.text[:, start:at])
        valid.append(real[:, start:at])
        slots += [False] * (at - start)
        start = at
        if reference is not None:
            count = reference.shape[1] * reference.shape[2] // 4
            states.append(rng.normal(size=(batch, count, width)).astype(np.float32))
            valid.append(np.ones((batch, count), bool))
            slots += [True] * count
    slots += [True] * (z.shape[1] * z.shape[2] // 4)
    images = (*cond.references, z)
    with torch.no_grad():
        out = model(
            hidden_states=torch.tensor(np.concatenate([x.reshape(batch, -1, x.shape[-1]) for x in images], axis=1)),
            encoder_hidden_states=torch.tensor(np.concatenate(states, axis=1)),
            encoder_hidden_states_mask=None if real.all() else torch.tensor(np.concatenate(valid, axis=1)),
            timestep=torch.tensor(t),
            img_shapes=[[(1, *x.shape[1:3]) for x in images]] * batch,
            img_mask=torch.tensor(slots)[None].expand(batch, -1),
        ).sample
    return out[:, -z.shape[1] * z.shape[2] :].reshape(z.shape).numpy()


run = functools.partial(denoisers.run, qwen)


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_diffusers_on_every_layout(models, layout):
    config, model, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS[layout])
    expected = torch_velocity(model, cond, z, t)
    assert 0.3 < expected.std() < 3  # else the tolerance would mean nothing
    close(run(config, params, cond, z, t), expected)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "tiny"])
def test_agrees_with_diffusers_on_other_sizes(models, name):
    config, model, params = models(name)
    cond, z, t = draw(config, LAYOUTS["two_references"], seed=1)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


def draw_config(rng) -> Config:
    axes = tuple(2 * int(n) for n in rng.integers(1, 7, 3))
    heads = int(rng.integers(1, 6))
    return Config.tiny(
        in_channels=int(rng.integers(1, 49)), context_dim=int(rng.integers(4, 65)), width=heads * sum(axes),
        heads=heads, axes_dims=axes, layers=int(rng.integers(1, 5)), mlp_ratio=int(rng.integers(1, 5)),
        eps=float(10 ** rng.uniform(-6, -2)), scan_layers=bool(rng.integers(2)),
    )  # fmt: skip


def draw_layout(rng, references: int):
    def size():
        return SIZES[rng.integers(len(SIZES))]

    text = int(rng.integers(1, 31))
    at = tuple(sorted(rng.integers(0, text + 1, references).tolist()))
    return text, size(), tuple(size() for _ in range(references)), at


SIZES = [(h, w) for h in range(1, 9) for w in range(1, 9) if h * w % 4 == 0]


@pytest.mark.long  # a dozen networks to compile; the drawn ones differ from the shipped ones in numbers only
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_diffusers_on_drawn_configurations(seed, tmp_path):
    """Sizes, and layouts of text and references, as they come; prompts alone and with pictures; in one program, and
    with the prefix computed first."""
    rng = np.random.default_rng(seed)
    config = draw_config(rng)
    model = torch_model(config, seed)
    params = carry_over("qwen_image_21", model, qwen.abstract(config), tmp_path)
    denoiser = qwen.denoiser(config)
    condition, velocity = jax.jit(denoiser.condition), jax.jit(denoiser.velocity)
    for references in (0, int(rng.integers(1, 4))):
        cond, z, t = draw(config, draw_layout(rng, references), seed=seed)
        expected = torch_velocity(model, cond, z, t)
        close(run(config, params, cond, z, t), expected)
        close(velocity(params, condition(params, cond), z, t), expected)


def test_a_padded_batch_agrees_where_positions_count_the_padding(models):
    """diffusers' target stands behind the padding, which moves it; ours behind the true text, unless it is told to."""
    config, model, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["two_references"])
    lengths = np.array([cond.text.shape[1], cond.text.shape[1] - 2], np.int32)
    text = np.where(np.arange(cond.text.shape[1])[:, None] < lengths[:, None, None], cond.text, 1e3)
    cond = cond.replace(text=text.astype(np.float32), text_length=lengths)
    expected = torch_velocity(model, cond, z, t)
    close(run(dataclasses.replace(config, padded_positions=True), params, cond, z, t), expected)
    moved = np.abs(run(config, params, cond, z, t) - expected).max((1, 2, 3))
    assert moved[0] < 1e-4 < 1e-3 < moved[1]


def test_agrees_with_diffusers_far_from_the_origin_and_at_both_ends_of_time(models):
    """Long text brings rotary positions of some hundreds, t = 0 and 1 the ends of the sinusoids."""
    config, model, params = models("tiny")
    cond, z, _ = draw(config, (400, (4, 4), ((2, 2),), (390,)))
    t = np.array([0, 1], np.float32)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


def test_parameters_written_from_jax_run_in_diffusers(tmp_path):
    config, again = Config.tiny(), QwenImage21Transformer2DModel.from_pretrained
    inputs = draw(config, LAYOUTS["one_reference"])
    denoisers.check_written_from_jax(
        qwen, config, torch_model(config, seed=5), again, tmp_path, inputs, torch_velocity
    )


def test_the_released_model_has_diffusers_tensors():
    """7.115 B parameters in 297 tensors: every name and shape, without a weight in memory."""
    with torch.device("meta"):
        shapes = {name: tuple(w.shape) for name, w in QwenImage21Transformer2DModel().state_dict().items()}
    check_released("qwen_image_21:qwen_image_21", shapes)
    assert sum(np.prod(s, dtype=np.int64) for s in shapes.values()) == 7_115_124_736
    target = qwen.abstract(Config.qwen_image_21())
    assert sum(np.prod(x.shape, dtype=np.int64) for x in jax.tree.leaves(target)) == 7_115_124_736
    source = {name: convert.Spec(shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    planning.plan(TABLE, source, target)  # raises where a name or a shape has no counterpart


# -- the prefix ------------------------------------------------------------------------------------------------------


def test_one_context_serves_every_time_and_every_image(models):
    config, model, params = models("tiny")
    denoiser = qwen.denoiser(config)
    cond, _, _ = draw(config, LAYOUTS["two_references"])
    context, velocity = jax.jit(denoiser.condition)(params, cond), jax.jit(denoiser.velocity)
    for seed, t in enumerate((1.0, 0.9, 0.3)):
        z, t = draw(config, LAYOUTS["two_references"], seed=seed + 10)[1], np.full(2, t, np.float32)
        once = velocity(params, context, z, t)
        close(once, run(config, params, cond, z, t), 1e-6)  # only the compiler's fusions differ
        close(once, torch_velocity(model, cond, z, t))


def test_padding_changes_nothing(models):
    """Samples with 3 and 2 tokens in a batch of 5, loud garbage behind them, against each sample alone."""
    config, _, params = models("tiny")
    at = (1, 2)
    cond, z, t = draw(config, (5, (3, 3), ((2, 3), (1, 4)), at))
    lengths = np.array([3, 2], np.int32)
    text = np.where(np.arange(5)[None, :, None] < lengths[:, None, None], cond.text, 1e4)
    batched = run(config, params, cond.replace(text=text, text_length=lengths), z, t)
    for i, length in enumerate(lengths):
        one = slice(i, i + 1)
        alone = Condition(cond.text[one, :length], lengths[one], tuple(r[one] for r in cond.references), at)
        close(batched[one], run(config, params, alone, z[one], t[one]), 5e-6)


def test_padding_receives_no_gradient(models):
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["one_reference"])
    cond = cond.replace(text_length=np.array([6, 4], np.int32))
    grads = denoisers.text_gradient(qwen, config, params, cond, z, t)
    assert np.all(grads[1, 4:] == 0)
    assert np.all(np.abs(grads).max(-1)[[0] * 6 + [1] * 4, [*range(6), *range(4)]] > 0)


def test_a_null_context_of_batch_one_serves_a_batch(models):
    """Guidance runs one empty prompt against the whole batch."""
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["t2i"])
    null = jax.tree.map(lambda x: x[:1], cond)
    repeated = jax.tree.map(lambda x: np.repeat(x[:1], 2, axis=0), cond)
    expected = run(config, params, repeated, z, t)
    for scan in (False, True):
        close(run(Config.tiny(scan_layers=scan), params, null, z, t), expected, 5e-6)


def test_every_part_of_the_condition_matters(models):
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["two_references"])
    base = run(config, params, cond, z, t)
    others = [
        cond.replace(text=cond.text[:, ::-1]),
        cond.replace(references=(cond.references[0], cond.references[1][:, ::-1])),
        cond.replace(reference_at=(2, 6)),
        cond.replace(text_length=cond.text_length - 1),
    ]
    for other in others:
        assert np.abs(run(config, params, other, z, t) - base).max() > 1e-3


@pytest.mark.parametrize("at", [(3, 1), (1, 8), (1,)])
def test_an_impossible_reference_place_is_named(at):
    with pytest.raises(ValueError, match=r"reference_at .* within the 7 text tokens for each of the 2 references"):
        qwen.prefix_plan(7, ((2, 2), (2, 2)), at)


@pytest.mark.parametrize("axes", [(4, 6, 8), (5, 5, 6), (8, 8)])
def test_axes_must_be_three_even_ones_that_sum_to_the_head_width(axes):
    """Odd ones ended in a traceback, of two none turned with the column."""
    with pytest.raises(ValueError, match="must be even and sum to the head width.*; there are 3 of them"):
        Config.tiny(axes_dims=axes)


def test_a_ratio_of_the_mlp_is_whole_and_may_be_written_with_a_point():
    with pytest.raises(ValueError, match="mlp_ratio is 2.5; it has to be a whole number of 1 or more"):
        Config.tiny(mlp_ratio=2.5)
    whole, written = (jax.tree.map(jnp.shape, qwen.abstract(Config.tiny(mlp_ratio=ratio))) for ratio in (3, 3.0))
    assert whole == written


# -- ways to compute the same ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unrolled(models):
    config, _, params = models("wide_heads_scanned")
    inputs = draw(config, LAYOUTS["one_reference"])
    config = Config.tiny(**CONFIGS["wide_heads_scanned"] | {"scan_layers": False})
    return params, inputs, denoisers.loss_and_grads(qwen, config, params, *inputs)


@pytest.mark.parametrize(("scan", "remat"), [(True, "full"), (False, "full"), (True, "attention")])
def test_scan_and_remat_change_neither_values_nor_gradients(unrolled, scan, remat):
    params, inputs, expected = unrolled
    config = Config.tiny(**CONFIGS["wide_heads_scanned"] | {"scan_layers": scan, "remat": remat})
    denoisers.check_same(denoisers.loss_and_grads(qwen, config, params, *inputs), expected)


def test_bfloat16_stays_near_float32(models):
    """bfloat16 rounds by 2^-9 = 0.2 %; some twenty roundings in a row, on independent signs, stay below 3 %."""
    config, model, params = models("tiny")
    inputs = draw(config, LAYOUTS["two_references"])
    denoisers.check_bfloat16_velocity(qwen, config, params, model, inputs, torch_velocity, 0.03)


def test_time_is_read_in_float32_under_bfloat16(models):
    """In bfloat16 1000 t would be rounded to multiples of 4: 0.7003 and 0.7012 would give one velocity."""
    _, _, params = models("tiny")
    config = Config.tiny(dtype=jnp.bfloat16)
    cond, z, _ = draw(config, LAYOUTS["two_references"])
    a, b = (run(config, params, cond, z, np.full(2, t, np.float32)) for t in (0.7003, 0.7012))
    assert np.abs(a - b).max() > 1e-3


def test_weights_of_less_precision_are_read_as_what_they_are(models):
    """As diffusers does: one plus the weight of the text's norm, which is stored around zero, is not rounded again."""
    config, _, params = models("tiny")
    rough = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params)
    inputs = draw(config, LAYOUTS["two_references"])
    exact = run(config, jax.tree.map(lambda x: x.astype(jnp.float32), rough), *inputs)
    np.testing.assert_allclose(run(config, rough, *inputs), exact, atol=1e-6)


def test_rounded_products_leave_the_modulation_exact(models):
    """What follows from t alone is the same to the last bit; the tokens' products are not."""
    config, _, params = models("tiny")
    rough_config, t = dataclasses.replace(config, products="bfloat16"), np.float32([0.0, 0.3, 0.97])

    def modulation(config):
        def rows(params, t):
            model = nnx.merge(nnx.split(nnx.eval_shape(lambda: qwen.QwenImage21(config, nnx.Rngs(0))))[0], params)
            rows, silu_temb = model._modulation(t)
            return *rows, silu_temb, model.norm_out(silu_temb)

        return jax.jit(rows)(params, t)

    for exact, rough in zip(modulation(config), modulation(rough_config), strict=True):
        np.testing.assert_array_equal(rough, exact)
    inputs = draw(config, LAYOUTS["t2i"])
    assert (run(rough_config, params, *inputs) != run(config, params, *inputs)).any()


def test_a_fresh_network_predicts_zero_and_has_the_announced_shapes():
    config = Config.tiny()
    params = qwen.init(config, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), qwen.abstract(config)
    )
    assert not np.any(run(config, params, *draw(config, LAYOUTS["t2i"])))
