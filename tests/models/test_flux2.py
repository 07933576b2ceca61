"""The FLUX.2 [klein] denoiser against diffusers' model and pipeline, by the rules of parity.py."""

import functools

import denoisers
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from parity import check_released, close, randomise

from flashjax import convert, flow, host, optim, paths
from flashjax.convert import planning
from flashjax.convert.flux2 import TABLE
from flashjax.errors import UserError
from flashjax.models import flux2
from flashjax.models.flux2 import Condition, Config

CONFIGS = {
    "tiny": {},
    "uneven_axes_scanned": dict(
        in_channels=4, context_dim=20, width=72, double_layers=2, single_layers=2, heads=3, axes_dims=(2, 8, 10, 4),
        theta=500.0, scan_layers=True,
    ),
    "one_head_odd_mlp": dict(
        in_channels=12, context_dim=16, width=24, double_layers=1, single_layers=1, heads=1, axes_dims=(6, 2, 4, 12),
        mlp_ratio=2.3,
    ),
    "more_double_than_single": dict(
        in_channels=16, context_dim=40, width=64, double_layers=3, single_layers=1, heads=4, axes_dims=(2, 6, 6, 2),
        mlp_ratio=1.5, remat="full",
    ),
    "klein_like": dict(
        context_dim=48, in_channels=32, width=64, double_layers=1, single_layers=4, heads=2, axes_dims=(8, 8, 8, 8),
        eps=1e-5, remat="full", scan_layers=True,
    ),
}  # fmt: skip
# text tokens, target size, reference sizes
LAYOUTS = {
    "t2i": (7, (3, 5), ()),
    "one_token_of_text": (1, (1, 2), ()),
    "one_reference": (6, (2, 4), ((5, 3),)),
    "three_references": (5, (3, 4), ((1, 5), (1, 5), (4, 3))),
}
# Flux2Transformer2DModel's config.json in FLUX.2-klein-4B and FLUX.2-klein-base-4B
RELEASED_4B = dict(
    _class_name="Flux2Transformer2DModel", patch_size=1, in_channels=128, out_channels=None, num_layers=5,
    num_single_layers=20, attention_head_dim=128, num_attention_heads=24, joint_attention_dim=7680,
    timestep_guidance_channels=256, mlp_ratio=3.0, axes_dims_rope=[32, 32, 32, 32], rope_theta=2000, eps=1e-6,
    guidance_embeds=False,
)  # fmt: skip


def torch_model(config: Config, seed: int = 0) -> Flux2Transformer2DModel:
    return randomise(Flux2Transformer2DModel.from_config(config.to_diffusers()), seed)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return denoisers.pairs(flux2, CONFIGS, torch_model, tmp_path_factory)


def draw(config: Config, layout, batch: int = 2, seed: int = 0):
    """(condition, z, t) of a layout."""
    text_tokens, size, references = layout
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    cond = Condition(
        3 * normal(batch, text_tokens, config.context_dim),
        references=tuple(normal(batch, *reference, config.in_channels) for reference in references),
    )
    return cond, normal(batch, *size, config.in_channels), rng.uniform(0.05, 1, batch).astype(np.float32)


def torch_velocity(model, cond: Condition, z, t):
    """diffusers' view of the same; positions and packing are those of its pipeline."""
    images = [torch.tensor(np.moveaxis(x, -1, 1)) for x in (z, *cond.references)]
    text, ids = torch.tensor(cond.text), [Flux2KleinPipeline._prepare_latent_ids(images[0][:1])]
    if cond.references:
        ids.append(Flux2KleinPipeline._prepare_image_ids([x[:1] for x in images[1:]]))
    with torch.no_grad():
        out = model(
            hidden_states=torch.cat([Flux2KleinPipeline._pack_latents(x) for x in images], dim=1),
            encoder_hidden_states=text,
            timestep=torch.tensor(t),
            img_ids=torch.cat(ids, dim=1),
            txt_ids=Flux2KleinPipeline._prepare_text_ids(text),
        ).sample
    return out[:, : z.shape[1] * z.shape[2]].reshape(z.shape).numpy()


run = functools.partial(denoisers.run, flux2)


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
    cond, z, t = draw(config, LAYOUTS["three_references"], seed=1)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


def test_agrees_with_diffusers_at_full_text_length_and_at_both_ends_of_time(models):
    """512 words bring rotary positions of some hundreds, t = 0 and 1 the ends of the sinusoids."""
    config, model, params = models("tiny")
    cond, z, _ = draw(config, (512, (4, 4), ((2, 2),)))
    t = np.array([0, 1], np.float32)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


def test_the_pipeline_takes_the_same_steps(models, monkeypatch):
    """Three guided Euler steps of diffusers' own pipeline: the sign of the velocity, what it does with time, whose
    tokens come first and which of them are the result. The autoencoder only has to be there."""
    config, model, params = models("tiny")
    steps, size, references = 3, (4, 6), ((2, 2), (4, 2))
    cond, z, _ = draw(config, (5, size, references), batch=1)
    null = draw(config, (5, size, ()), batch=1, seed=7)[0].replace(references=cond.references)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=2,
        block_out_channels=(4,) * 4, layers_per_block=1, latent_channels=config.in_channels // 4, sample_size=16,
    )  # fmt: skip
    pipe = Flux2KleinPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae, text_encoder=None, tokenizer=None,
        transformer=model,
    )  # fmt: skip
    encoded = iter([torch.tensor(np.moveaxis(r, -1, 1)) for r in cond.references])
    monkeypatch.setattr(pipe, "_encode_vae_image", lambda image, generator: next(encoded))
    pipe.set_progress_bar_config(disable=True)
    path = []
    pipe(
        image=[PIL.Image.new("RGB", (64, 64))] * len(references), prompt_embeds=torch.tensor(cond.text),
        negative_prompt_embeds=torch.tensor(null.text), height=16 * size[0], width=16 * size[1], guidance_scale=4.0,
        num_inference_steps=steps, latents=torch.tensor(np.moveaxis(z, -1, 1)), output_type="latent",
        callback_on_step_end=lambda pipe, i, t, kept: path.append(kept["latents"].numpy()) or {},
    )  # fmt: skip
    grid = pipe.scheduler.sigmas.numpy()
    assert grid[0] == 1 and grid[-1] == 0 and len(path) == steps
    for i, expected in enumerate(path):
        t = grid[i : i + 1]
        v = flow.guide(*(run(config, params, c, z, t) for c in (null, cond)), 4.0)
        z = z + (grid[i + 1] - grid[i]) * v
        close(z.reshape(expected.shape), expected, 1e-4)  # guidance of 4 makes 7 errors of one, steps add them up


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "parameters"), [("klein_4b", 3_875_544_576), ("klein_9b", 9_078_581_248)])
def test_the_released_models_have_diffusers_tensors(preset, parameters):
    """Every name and shape, without a weight in memory."""
    config = getattr(Config, preset)()
    with torch.device("meta"):
        model = Flux2Transformer2DModel.from_config(config.to_diffusers())
    expected = {name: tuple(w.shape) for name, w in model.state_dict().items()}
    _, ours = planning.export(TABLE, flux2.abstract(config))
    assert {name: spec.shape for name, spec in ours.items()} == expected
    check_released(f"flux2:{preset}", expected)
    assert sum(np.prod(s, dtype=np.int64) for s in expected.values()) == parameters


def test_the_released_config_is_the_preset():
    assert Config.from_diffusers(RELEASED_4B) == Config.klein_4b()
    assert Config.klein_4b().to_diffusers() == RELEASED_4B
    for name, sizes in CONFIGS.items():
        overrides = {k: v for k, v in sizes.items() if k in ("scan_layers", "remat")}
        made = Config.tiny(**sizes)
        assert Config.from_diffusers(made.to_diffusers(), **overrides) == made, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_bit_exact(dtype, tmp_path):
    config = Config.tiny(**CONFIGS["uneven_axes_scanned"])
    denoisers.check_round_trip(flux2, config, torch_model(config, seed=3), tmp_path, dtype)


# -- the condition ---------------------------------------------------------------------------------------------------


def test_one_context_serves_every_time_and_every_image(models):
    config, model, params = models("tiny")
    denoiser = flux2.denoiser(config)
    cond, _, _ = draw(config, LAYOUTS["three_references"])
    context, velocity = jax.jit(denoiser.condition)(params, cond), jax.jit(denoiser.velocity)
    for seed, t in enumerate((1.0, 0.9, 0.3)):
        z, t = draw(config, LAYOUTS["three_references"], seed=seed + 10)[1], np.full(2, t, np.float32)
        once = velocity(params, context, z, t)
        close(once, run(config, params, cond, z, t), 1e-6)  # only the compiler's fusions differ
        close(once, torch_velocity(model, cond, z, t))


def test_padding_changes_nothing(models):
    """Samples with 3 and 2 tokens in a batch of 5, loud garbage behind them, against each sample alone; one says its
    length, one leaves it out."""
    config, _, params = models("tiny")
    cond, z, t = draw(config, (5, (3, 3), ((2, 3), (1, 4))))
    lengths = np.array([3, 2], np.int32)
    text = np.where(np.arange(5)[None, :, None] < lengths[:, None, None], cond.text, 1e4)
    batched = run(config, params, cond.replace(text=text, text_length=lengths), z, t)
    for i, said in enumerate((lengths[:1], None)):
        one = slice(i, i + 1)
        alone = Condition(cond.text[one, : lengths[i]], said, tuple(r[one] for r in cond.references))
        close(batched[one], run(config, params, alone, z[one], t[one]), 5e-6)


def test_padding_receives_no_gradient(models):
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["one_reference"])
    cond = cond.replace(text_length=np.array([6, 4], np.int32))
    grads = denoisers.text_gradient(flux2, config, params, cond, z, t)
    assert np.all(grads[1, 4:] == 0)
    assert np.all(np.abs(grads).max(-1)[[0] * 6 + [1] * 4, [*range(6), *range(4)]] > 0)


def test_a_null_context_of_batch_one_serves_a_batch(models):
    """Guidance runs one empty prompt against the whole batch."""
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["one_reference"])
    cond = cond.replace(text_length=np.full(2, 4, np.int32))
    null = jax.tree.map(lambda x: x[:1], cond)
    repeated = jax.tree.map(lambda x: np.repeat(x[:1], 2, axis=0), cond)
    close(run(config, params, null, z, t), run(config, params, repeated, z, t), 5e-6)


def test_every_part_of_the_condition_matters(models):
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["three_references"])
    base = run(config, params, cond, z, t)
    first, second, third = cond.references
    others = [
        cond.replace(text=cond.text[:, ::-1]),
        cond.replace(references=(first, second, third[:, ::-1])),
        cond.replace(references=(second, first, third)),
        cond.replace(text_length=np.full(2, 4, np.int32)),
    ]
    for other in others:
        assert np.abs(run(config, params, other, z, t) - base).max() > 1e-3


def test_positions_count_from_zero_and_references_lie_ten_apart():
    at = flux2.positions(2, ((1, 2), (2, 1), (1, 1)))
    text, target = [[0, 0, 0, 0], [0, 0, 0, 1]], [[0, 0, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(at, [*text, *target, [10, 0, 0, 0], [10, 1, 0, 0], [20, 0, 0, 0]])


# -- ways to compute the same ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unrolled(models):
    config, _, params = models("uneven_axes_scanned")
    inputs = draw(config, LAYOUTS["one_reference"])
    config = Config.tiny(**CONFIGS["uneven_axes_scanned"] | {"scan_layers": False})
    return params, inputs, denoisers.loss_and_grads(flux2, config, params, *inputs)


@pytest.mark.parametrize(("scan", "remat"), [(True, "full"), (False, "full"), (True, "attention")])
def test_scan_and_remat_change_neither_values_nor_gradients(unrolled, scan, remat):
    params, inputs, expected = unrolled
    config = Config.tiny(**CONFIGS["uneven_axes_scanned"] | {"scan_layers": scan, "remat": remat})
    denoisers.check_same(denoisers.loss_and_grads(flux2, config, params, *inputs), expected)


def test_bfloat16_stays_near_float32(models):
    """bfloat16 rounds by 2^-9 = 0.2 %; some thirty roundings in a row, on independent signs, make sqrt(30) of these at
    most, 1 %. Measured: 0.6 %."""
    config, model, params = models("tiny")
    inputs = draw(config, LAYOUTS["three_references"])
    denoisers.check_bfloat16_velocity(flux2, config, params, model, inputs, torch_velocity, 0.015)


def test_time_is_read_in_float32_under_bfloat16(models):
    """In bfloat16 1000 t would be rounded to multiples of 4: 0.7003 and 0.7012 would give one velocity."""
    _, _, params = models("tiny")
    config = Config.tiny(dtype=jnp.bfloat16)
    cond, z, _ = draw(config, LAYOUTS["three_references"])
    a, b = (run(config, params, cond, z, np.full(2, t, np.float32)) for t in (0.7003, 0.7012))
    assert np.abs(a - b).max() > 1e-3


def test_rounded_products_leave_what_follows_from_time_exact(monkeypatch):
    """In the program only time's two products, the three modulations and the last norm's have float32 factors."""
    monkeypatch.setattr(host, "multiplies_bfloat16", lambda: True)
    config = Config.tiny(products="bfloat16")
    inputs = draw(config, LAYOUTS["one_reference"])
    evaluate = functools.partial(denoisers.evaluate, flux2.denoiser(config))
    jaxpr = jax.make_jaxpr(evaluate)(flux2.abstract(config), *inputs)
    dtypes = list(flat_products(jaxpr.jaxpr))
    assert dtypes.count((jnp.float32, jnp.float32)) == 6
    # Text, references and target come in, velocity goes out; 2 double blocks of 2 streams, 2 single blocks.
    assert dtypes.count((jnp.bfloat16, jnp.bfloat16)) == len(dtypes) - 6 == 3 + 1 + 2 * 2 * 4 + 2 * 2


def flat_products(jaxpr):
    """Dtypes of the factors of every product of two matrices."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general" and len(eqn.invars[0].aval.shape) == 2:
            yield tuple(v.aval.dtype for v in eqn.invars)
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from flat_products(inner)


def test_a_fresh_network_predicts_zero_and_has_the_announced_shapes():
    config = Config.tiny()
    params = flux2.init(config, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), flux2.abstract(config)
    )
    assert not np.any(run(config, params, *draw(config, LAYOUTS["t2i"])))


# -- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(guidance_embeds=True), "has guidance_embeds = True; only False is built here."),
        (dict(_class_name="FluxTransformer2DModel"), "only 'Flux2Transformer2DModel' is built here."),
        (dict(out_channels=7), "has out_channels = 7; only 8 is built here."),
        (dict(axes_dims_rope=[4, 6, 6]), "four even numbers that sum to the head width"),
        (dict(num_single_layers=None, guidance_embeds=None), "lacks num_single_layers, guidance_embeds; is it the one"),
    ],
)
def test_another_models_config_is_told(changes, words):
    config = {k: v for k, v in (Config.tiny().to_diffusers() | changes).items() if v is not None}
    with pytest.raises(UserError, match=words):
        Config.from_diffusers(config)


def test_the_guidance_embedder_of_dev_is_named(tmp_path):
    """Weights of FLUX.2 [dev] under a klein config.json: the tensor too many is told, none is read."""
    config = Config.tiny()
    model = Flux2Transformer2DModel.from_config(config.to_diffusers() | dict(guidance_embeds=True))
    model.save_pretrained(tmp_path)
    with pytest.raises(convert.ConversionError, match="guidance_embedder.linear_1.weight: the table has no row"):
        convert.load("flux2", tmp_path, flux2.abstract(config))


@pytest.mark.parametrize("axes", [(4, 4, 4, 6), (4, 6, 6), (3, 5, 4, 4)])
def test_axes_must_fit_the_head(axes):
    with pytest.raises(ValueError, match="must be four even numbers that sum to the head width"):
        Config.tiny(axes_dims=axes)


def test_muon_takes_the_matrices_of_both_stacks():
    chosen = paths.flatten(paths.map_paths(optim.MUON, flux2.abstract(Config.tiny())))
    for stack, matrices in dict(double=2 * 6, single=2).items():
        assert sum(muon for path, muon in chosen.items() if path.startswith(f"blocks/{stack}/")) == matrices
