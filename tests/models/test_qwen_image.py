"""The first Qwen-Image generation's denoiser against diffusers' model, by the rules of parity.py."""

import functools

import denoisers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline, QwenImageTransformer2DModel
from parity import carry_over, check_released, close, randomise

from flashjax import cli, convert
from flashjax.convert import planning
from flashjax.errors import UserError
from flashjax.models import qwen_image as qwen
from flashjax.models.qwen_image import Condition, Config

CONFIGS = {
    "tiny": {},
    "tiny_2511": dict(zero_cond_t=True),
    "three_heads_scanned": dict(
        in_channels=4, context_dim=20, width=72, heads=3, axes_dims=(2, 8, 14), scan_layers=True
    ),
    "one_head_uneven_axes": dict(in_channels=12, context_dim=16, width=24, layers=1, heads=1, axes_dims=(12, 2, 10)),
    "deep_2511": dict(
        in_channels=16, context_dim=40, width=80, layers=5, heads=5, axes_dims=(4, 6, 6), zero_cond_t=True, remat="full"
    ),
}
# text lengths of two samples, target size, reference sizes; in tokens
LAYOUTS = {
    "t2i": ((7, 7), (4, 4), ()),
    "t2i_odd_sides_padded": ((6, 3), (5, 3), ()),
    "one_token_of_text": ((1, 1), (2, 1), ()),
    "one_smaller_reference": ((4, 4), (4, 6), ((3, 2),)),
    "one_larger_reference_padded": ((2, 5), (2, 3), ((4, 9),)),
    "two_references_padded": ((8, 5), (3, 4), ((5, 2), (1, 7))),
    "three_references": ((3, 3), (2, 2), ((2, 2), (3, 1), (2, 3))),
}


def torch_model(config: Config, seed: int = 0) -> QwenImageTransformer2DModel:
    return randomise(QwenImageTransformer2DModel.from_config(config.to_diffusers()), seed)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return denoisers.pairs(qwen, CONFIGS, torch_model, tmp_path_factory)


def draw(config: Config, layout, seed: int = 0):
    """(condition, z, t) of a layout for two samples; loud numbers stand behind the shorter text."""
    lengths, size, references = layout
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    text = 3 * normal(2, max(lengths), config.context_dim)
    for row, length in zip(text, lengths, strict=True):
        row[length:] = 1e3
    references = tuple(normal(2, *reference, config.in_channels) for reference in references)
    cond = Condition(text, np.array(lengths, np.int32), references)
    return cond, normal(2, *size, config.in_channels), rng.uniform(0.05, 1, 2).astype(np.float32)


def torch_velocity(model, cond: Condition, z, t):
    images = (z, *cond.references)
    valid = np.arange(cond.text.shape[1]) < cond.text_length[:, None]
    with torch.no_grad():
        out = model(
            hidden_states=torch.tensor(np.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in images], axis=1)),
            encoder_hidden_states=torch.tensor(cond.text),
            encoder_hidden_states_mask=None if valid.all() else torch.tensor(valid),
            timestep=torch.tensor(t),
            img_shapes=[[(1, *x.shape[1:3]) for x in images]] * len(z),
        ).sample
    return out[:, : z.shape[1] * z.shape[2]].reshape(z.shape).numpy()


run = functools.partial(denoisers.run, qwen)


def sample(cond: Condition, i: int) -> Condition:
    """One sample of a batch, without its padding."""
    one = slice(i, i + 1)
    text = cond.text[one, : cond.text_length[i]]
    return Condition(text, cond.text_length[one], tuple(r[one] for r in cond.references))


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layout"),
    [("tiny", layout) for layout in LAYOUTS] + [("tiny_2511", layout) for layout in LAYOUTS if "reference" in layout],
)
def test_agrees_with_diffusers_on_every_layout(models, name, layout):
    config, model, params = models(name)
    inputs = draw(config, LAYOUTS[layout])
    expected = torch_velocity(model, *inputs)
    assert 0.3 < expected.std() < 3  # else the tolerance would mean nothing
    close(run(config, params, *inputs), expected)


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("tiny")])
def test_agrees_with_diffusers_on_other_sizes(models, name):
    config, model, params = models(name)
    inputs = draw(config, LAYOUTS["two_references_padded"], seed=1)
    close(run(config, params, *inputs), torch_velocity(model, *inputs))


def test_agrees_with_diffusers_far_from_the_origin_and_at_both_ends_of_time(models):
    """Long text brings rotary positions of some hundreds, t = 0 and 1 the ends of the sinusoids."""
    config, model, params = models("tiny_2511")
    cond, z, _ = draw(config, ((400, 390), (4, 4), ((2, 41),)))
    t = np.array([0, 1], np.float32)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


def test_references_are_clean_images_in_edit_2511_alone(models):
    """Same weights: with references the two presets differ, without they do not."""
    (plain, _, params), (edit, _, _) = models("tiny"), models("tiny_2511")
    for layout, same in (("t2i", True), ("one_smaller_reference", False)):
        inputs = draw(plain, LAYOUTS[layout])
        difference = np.abs(run(plain, params, *inputs) - run(edit, params, *inputs)).max()
        assert difference == 0 if same else difference > 1e-2


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [p for p in qwen.PRESETS if p != "tiny"])
def test_released_models_have_diffusers_tensors(preset):
    """20.43 B parameters in 1933 tensors: every name and shape of the table read backwards, without a weight in
    memory."""
    config = getattr(Config, preset)()
    with torch.device("meta"):
        model = QwenImageTransformer2DModel.from_config(config.to_diffusers())
    expected = {name: tuple(w.shape) for name, w in model.state_dict().items()}
    _, specs = planning.export(convert.table_of("qwen_image"), qwen.abstract(config))
    assert {name: spec.shape for name, spec in specs.items()} == expected
    check_released("qwen_image:qwen_image", expected)
    assert sum(np.prod(s, dtype=np.int64) for s in expected.values()) == 20_430_401_088


def test_the_released_model_traces_at_its_size():
    """bfloat16 under scan: a carry that changed its dtype on the way would stop here. 1024 x 1024 and a reference."""
    config = Config.qwen_image_edit_2511(param_dtype=jnp.bfloat16)
    cond = Condition(np.zeros((2, 9, 3584), np.float16), np.array([9, 4]), (np.zeros((2, 64, 48, 64), np.float32),))
    z, t = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 64, 64, 64), (2,)))
    v = jax.eval_shape(functools.partial(denoisers.evaluate, qwen.denoiser(config)), qwen.abstract(config), cond, z, t)
    assert (v.shape, v.dtype) == (z.shape, jnp.float32)


def test_default_settings_are_those_of_the_released_models():
    """diffusers' defaults are the configuration of Qwen-Image; only zero_cond_t differs in Edit-2511."""
    with torch.device("meta"):
        defaults = QwenImageTransformer2DModel(num_layers=1).config
    ours = Config.qwen_image(layers=1).to_diffusers()
    assert ours == {"_class_name": "QwenImageTransformer2DModel"} | {
        name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items() if name[0] != "_"
    }
    assert Config.qwen_image().layers == 60
    assert Config.qwen_image_edit_2511() == Config.qwen_image(zero_cond_t=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_round_trip_is_bit_exact(tmp_path, dtype):
    config = Config.tiny()
    denoisers.check_round_trip(qwen, config, torch_model(config, seed=3), tmp_path, dtype)


def test_parameters_written_from_jax_run_in_diffusers(tmp_path):
    config, again = Config.tiny(zero_cond_t=True), QwenImageTransformer2DModel.from_pretrained
    inputs = draw(config, LAYOUTS["one_smaller_reference"])
    denoisers.check_written_from_jax(qwen, config, torch_model(config), again, tmp_path, inputs, torch_velocity)


def test_the_command_converts_a_folder(tmp_path):
    config = Config.tiny()
    params = carry_over("qwen_image", torch_model(config), qwen.abstract(config), tmp_path / "transformer")
    options = ["--model", "qwen_image", "--source", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(["convert", *options]) == 0
    jax.tree.map(np.testing.assert_array_equal, convert.load_flax(tmp_path / "out", qwen.abstract(config)), params)


# -- the condition ---------------------------------------------------------------------------------------------------


def test_one_context_serves_every_time_every_image_and_every_size(models):
    config, model, params = models("tiny")
    denoiser = qwen.denoiser(config)
    cond, _, _ = draw(config, LAYOUTS["two_references_padded"])
    context, velocity = jax.jit(denoiser.condition)(params, cond), jax.jit(denoiser.velocity)
    for seed, (t, size) in enumerate([(1.0, (3, 4)), (0.9, (3, 4)), (0.3, (8, 10))]):
        z = np.random.default_rng(seed).normal(size=(2, *size, config.in_channels)).astype(np.float32)
        t = np.full(2, t, np.float32)
        once = velocity(params, context, z, t)
        close(once, run(config, params, cond, z, t), 1e-6)  # only the compiler's fusions differ
        close(once, torch_velocity(model, cond, z, t))


@pytest.mark.parametrize("name", ["tiny", "tiny_2511"])
def test_a_padded_batch_equals_its_samples_alone(models, name):
    config, _, params = models(name)
    cond, z, t = draw(config, LAYOUTS["two_references_padded"])
    batched = run(config, params, cond, z, t)
    for i in range(2):
        one = slice(i, i + 1)
        close(batched[one], run(config, params, sample(cond, i), z[one], t[one]), 5e-6)


def test_padding_receives_no_gradient(models):
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["t2i_odd_sides_padded"])
    grads = denoisers.text_gradient(qwen, config, params, cond, z, t)
    assert np.all(grads[1, 3:] == 0)
    assert np.all(np.abs(grads).max(-1)[[0] * 6 + [1] * 3, [*range(6), *range(3)]] > 0)


@pytest.mark.parametrize("name", ["tiny", "three_heads_scanned"])
def test_a_null_context_of_batch_one_serves_a_batch(models, name):
    """Guidance runs one empty prompt against the whole batch."""
    config, _, params = models(name)
    cond, z, t = draw(config, LAYOUTS["one_smaller_reference"])
    null = jax.tree.map(lambda x: x[:1], cond)
    repeated = jax.tree.map(lambda x: np.repeat(x[:1], 2, axis=0), cond)
    close(run(config, params, null, z, t), run(config, params, repeated, z, t), 5e-6)


def test_every_part_of_the_condition_matters(models):
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["three_references"])
    base, (first, second, third) = run(config, params, cond, z, t), cond.references
    others = [
        cond.replace(text=cond.text[:, ::-1]),
        cond.replace(text_length=cond.text_length - 1),
        cond.replace(references=(first[:, ::-1], second, third)),
        cond.replace(references=(second, first, third)),
    ]
    for other in others:
        assert np.abs(run(config, params, other, z, t) - base).max() > 1e-3


def test_positions_of_text_depend_on_the_largest_image():
    found = qwen.positions(2, ((2, 3), (7, 1)))
    assert found[:2].tolist() == [[3, 3, 3], [4, 4, 4]]
    assert found[2:8].tolist() == [[0, y, x] for y in (-1, 0) for x in (-2, -1, 0)]
    assert found[8:].tolist() == [[1, y, -1] for y in range(-4, 3)]


def test_tokens_are_packed_as_the_module_says():
    """Channel 4 c + 2 y + x of a token, against diffusers' pipeline."""
    latents = torch.arange(2 * 16 * 4 * 6).reshape(2, 16, 4, 6)
    packed = QwenImagePipeline._pack_latents(latents, 2, 16, 4, 6).reshape(2, 2, 3, 64)
    for c, y, x in ((0, 0, 0), (3, 0, 1), (7, 1, 0), (15, 1, 1)):
        assert torch.equal(packed[..., 4 * c + 2 * y + x], latents[:, c, y::2, x::2])


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (dict(axes_dims=(4, 6, 8)), "must be even and sum to the head width"),
        (dict(axes_dims=(5, 5, 6)), "must be even and sum to the head width"),
        (dict(in_channels=6), "in_channels is 6; a token is 2 x 2 latents of equal size"),
        (dict(products="bfloat17"), "products is 'bfloat17', no dtype"),
    ],
)
def test_sizes_that_do_not_fit(settings, expected):
    with pytest.raises(ValueError, match=expected):
        Config.tiny(**settings)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(joint_attention_dim=None), "lacks joint_attention_dim; is it the one of a QwenImageTransformer2DModel"),
        (dict(_class_name="FluxTransformer2DModel"), "only 'QwenImageTransformer2DModel' is built here"),
        (
            dict(use_additional_t_cond=True, use_layer3d_rope=True),
            "sets use_additional_t_cond and use_layer3d_rope, as Qwen-Image-Layered does; it is not built here",
        ),
        (dict(guidance_embeds=True), "guidance_embeds = True; only False is built here"),
        (dict(patch_size=1), "patch_size = 1; only 2 is built here"),
        (dict(out_channels=3), "out_channels = 3; only 2 is built here"),
        (dict(axes_dims_rope=[4, 6, 8]), "must be even and sum to the head width"),
    ],
)
def test_a_configuration_that_is_not_built_is_named(changes, expected):
    config = {k: v for k, v in (Config.tiny().to_diffusers() | changes).items() if v is not None}
    with pytest.raises(UserError, match=expected):
        Config.from_diffusers(config)


@pytest.mark.parametrize("preset", qwen.PRESETS)
def test_every_preset_survives_diffusers_configuration(preset):
    config = getattr(Config, preset)()
    assert Config.from_diffusers(config.to_diffusers()) == config
    assert Config.from_diffusers(config.to_diffusers(), remat="attention").remat == "attention"


# -- ways to compute the same ----------------------------------------------------------------------------------------


def test_scan_and_remat_change_neither_values_nor_gradients(models):
    _, _, params = models("tiny_2511")
    ways = dict(scan_layers=False, remat="none"), dict(scan_layers=True, remat="full")
    plain, scanned = (Config.tiny(zero_cond_t=True, **way) for way in ways)
    inputs = draw(plain, LAYOUTS["one_larger_reference_padded"])
    computed = denoisers.loss_and_grads(qwen, scanned, params, *inputs)
    expected = denoisers.loss_and_grads(qwen, plain, params, *inputs)
    denoisers.check_same(computed, expected, every_gradient=False)  # the last block's text goes nowhere


def test_bfloat16_stays_near_float32(models):
    """bfloat16 rounds by 2^-9 = 0.2 %; some ten roundings in a row, on independent signs, give 0.5 to 0.9 %."""
    config, model, params = models("tiny_2511")
    inputs = draw(config, LAYOUTS["two_references_padded"])
    denoisers.check_bfloat16_velocity(qwen, config, params, model, inputs, torch_velocity, 0.015)


def test_time_is_read_in_float32_under_bfloat16(models):
    """In bfloat16 1000 t would be rounded to multiples of 4: 0.7003 and 0.7012 would give one velocity."""
    _, _, params = models("tiny")
    config = Config.tiny(dtype=jnp.bfloat16)
    cond, z, _ = draw(config, LAYOUTS["t2i"])
    a, b = (run(config, params, cond, z, np.full(2, t, np.float32)) for t in (0.7003, 0.7012))
    assert np.abs(a - b).max() > 1e-3


def test_a_fresh_network_predicts_zero_and_has_the_announced_shapes():
    config = Config.tiny()
    params = jax.jit(qwen.init, static_argnums=0)(config, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), qwen.abstract(config)
    )
    assert not np.any(run(config, params, *draw(config, LAYOUTS["t2i"])))
