"""The Z-Image denoiser against diffusers' model, by the rules of parity.py."""

import functools

import denoisers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import ZImageTransformer2DModel
from parity import check_released, close, randomise

from flashjax import convert, optim, paths
from flashjax.convert import planning
from flashjax.convert.z_image import TABLE
from flashjax.errors import UserError
from flashjax.models import editing, layers, pixels, z_image
from flashjax.models.z_image import Condition, Config

CONFIGS = {
    "tiny": {},
    # 40 / 3 * 8 is no whole number
    "uneven_mlp_scanned": dict(width=40, layers=3, refiner_layers=2, axes_dims=(8, 10, 2), scan_layers=True),
    "one_head": dict(in_channels=20, context_dim=17, width=24, heads=1, axes_dims=(2, 4, 18), refiner_layers=2),
    # more than 256 wide: the time embedding stays at 256
    "wide": dict(width=264, layers=1, heads=3, axes_dims=(24, 32, 32), remat="full"),
    # the norms of queries and keys, and the last one, do not follow eps
    "other_constants": dict(eps=0.3, theta=10_000.0, layers=1),
}
# lengths of the captions, length of their bucket, size of the image in tokens
LAYOUTS = {
    "equal_captions": ((7, 7), 7, (4, 4)),
    "nothing_to_fill": ((32, 64), 64, (4, 8)),
    "one_token_each": ((1, 1), 1, (1, 1)),
    "around_a_multiple": ((31, 32, 33), 40, (5, 7)),
    "bucket_beyond_the_filling": ((5, 33), 97, (3, 11)),
}


def torch_model(config: Config, seed: int = 0) -> ZImageTransformer2DModel:
    settings = {k: v for k, v in config.to_diffusers().items() if k != "_class_name"}
    model = randomise(ZImageTransformer2DModel(**settings), seed)
    with torch.no_grad():  # as large as the embedded tokens among which they stand
        for token in (model.x_pad_token, model.cap_pad_token):
            token.normal_(0, 1)
    return with_our_features(model)


def with_our_features(model: ZImageTransformer2DModel) -> ZImageTransformer2DModel:
    """The same model on the time features of flashjax, which have a test of their own: the last bit of two frequencies
    depends on PyTorch's exponential, and 1000 radians make 2.5e-5 of one, more than all the network's roundings."""
    model.t_embedder.timestep_embedding = lambda t, dim: torch.tensor(
        np.asarray(layers.sinusoid(jnp.asarray(t.float().numpy()), dim, time_scale=1.0))
    )
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return denoisers.pairs(z_image, CONFIGS, torch_model, tmp_path_factory)


def draw(config: Config, layout, seed: int = 0):
    """(condition with loud garbage behind the captions, z, t) of a layout."""
    lengths, bucket, size = layout
    rng, lengths = np.random.default_rng(seed), np.array(lengths, np.int32)
    text = 3 * rng.normal(size=(len(lengths), bucket, config.context_dim))
    text = np.where(np.arange(bucket)[None, :, None] < lengths[:, None, None], text, 1e4)
    z = rng.normal(size=(len(lengths), *size, config.in_channels))
    t = rng.uniform(0.05, 1, len(lengths))
    return Condition(text.astype(np.float32), lengths), z.astype(np.float32), t.astype(np.float32)


def torch_velocity(model, cond: Condition, z, t):
    """diffusers' view of the same: unpacked latents [C, 1, H, W], captions at their own lengths, time 1 - t, -v."""
    latents = np.asarray(pixels.decode(z, 2)).transpose(0, 3, 1, 2)[:, :, None]
    captions = [torch.tensor(text[:n]) for text, n in zip(cond.text, cond.text_length, strict=True)]
    with torch.no_grad():
        out = model(list(torch.tensor(latents)), torch.tensor(1 - t), captions).sample
    return -np.asarray(pixels.encode(torch.stack(out)[:, :, 0].permute(0, 2, 3, 1).numpy(), 2))


def one(cond: Condition, z, t, i):
    """Sample i of a batch on its own, its caption without padding."""
    alone = slice(i, i + 1)
    return Condition(cond.text[alone, : cond.text_length[i]], cond.text_length[alone]), z[alone], t[alone]


run = functools.partial(denoisers.run, z_image)


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_diffusers_on_every_layout(models, layout):
    """Both with diffusers' batch of the captions and with each caption on its own."""
    config, model, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS[layout])
    expected = torch_velocity(model, cond, z, t)
    assert 0.3 < expected.std() < 3  # else the tolerance would mean nothing
    actual = run(config, params, cond, z, t)
    close(actual, expected)
    for i in range(len(z)):
        close(actual[i : i + 1], torch_velocity(model, *one(cond, z, t, i)))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "tiny"])
def test_agrees_with_diffusers_on_other_sizes(models, name):
    config, model, params = models(name)
    cond, z, t = draw(config, LAYOUTS["bucket_beyond_the_filling"], seed=1)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


def test_agrees_with_diffusers_far_from_the_origin_and_at_both_ends_of_time(models):
    """Long captions bring rotary positions of some hundreds, t = 0 and 1 the ends of the sinusoids."""
    config, model, params = models("tiny")
    cond, z, _ = draw(config, ((500, 470), 512, (2, 17)))
    t = np.array([0, 1], np.float32)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


def test_agrees_with_diffusers_own_time_features(models, monkeypatch):
    """Features to the last bit of one frequency (0.42) times 1000 radians, 2^-25 * 1000, most of them to a rounding;
    velocities to the usual tolerance near noise, where that bit does not matter: the angles are below 100 there."""
    config, model, params = models("tiny")
    monkeypatch.delattr(model.t_embedder, "timestep_embedding")
    t = np.linspace(0, 1, 101, dtype=np.float32)
    expected = model.t_embedder.timestep_embedding(torch.tensor(1 - t) * 1000, 256)
    found = np.asarray(jax.jit(layers.sinusoid)(1 - t))
    np.testing.assert_allclose(found, expected, rtol=0, atol=3.1e-5)
    assert (np.abs(found - expected.numpy()).max(0) < 1e-6).sum() >= 256 - 2 * 2
    cond, z, _ = draw(config, LAYOUTS["around_a_multiple"])
    t = np.array([0.9, 0.97, 1], np.float32)
    close(run(config, params, cond, z, t), torch_velocity(model, cond, z, t))


# -- conversion ------------------------------------------------------------------------------------------------------


def test_parameters_written_from_jax_run_in_diffusers(tmp_path):
    config, again = Config.tiny(), lambda folder: with_our_features(ZImageTransformer2DModel.from_pretrained(folder))
    inputs = draw(config, LAYOUTS["around_a_multiple"])
    denoisers.check_written_from_jax(
        z_image, config, torch_model(config, seed=5), again, tmp_path, inputs, torch_velocity
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_bit_exact(dtype, tmp_path):
    config = Config.tiny(**CONFIGS["uneven_mlp_scanned"])
    denoisers.check_round_trip(z_image, config, torch_model(config), tmp_path, dtype)


@pytest.fixture(scope="module")
def released():
    """The model of diffusers' defaults, which are the released configuration, without memory."""
    with torch.device("meta"):
        return ZImageTransformer2DModel()


def test_the_released_model_has_diffusers_tensors(released):
    """6.155 B parameters in 521 tensors: every name and shape, both ways, without a weight in memory."""
    shapes = {name: tuple(w.shape) for name, w in released.state_dict().items()}
    check_released("z_image:z_image", shapes)
    assert sum(np.prod(s, dtype=np.int64) for s in shapes.values()) == 6_154_908_736
    target = z_image.abstract(Config.z_image())
    source = {name: convert.Spec(shape, np.dtype(np.float32)) for name, shape in shapes.items()}
    planning.plan(TABLE, source, target)  # raises where a name or a shape has no counterpart
    assert planning.export(TABLE, target)[1] == source


def test_the_released_configuration(released):
    ours = Config.z_image().to_diffusers()
    theirs = {k: list(v) if isinstance(v, tuple) else v for k, v in released.config.items()}
    assert ours == {k: v for k, v in theirs.items() if k in ours} | {"_class_name": "ZImageTransformer2DModel"}
    assert Config.from_diffusers(released.config) == Config.z_image()


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_survive_diffusers(name):
    config = Config.tiny(**CONFIGS[name])
    ways = dict(scan_layers=config.scan_layers, remat=config.remat)
    assert Config.from_diffusers(config.to_diffusers(), **ways) == config


def test_pictures_to_edit_are_told():
    with pytest.raises(UserError, match="Models of z_image draw from text alone; leave the pictures out"):
        editing.condition(z_image, np.zeros((1, 2, 24)), np.ones(1, int), [np.zeros((1, 8, 8, 3))])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(siglip_feat_dim=1152), r"siglip_feat_dim = 1152: this is the omni variant.* use the weights of Z-Image"),
        (dict(all_patch_size=[2, 4]), r"has all_patch_size = \[2, 4\]; only \[2\] is built here."),
        (dict(all_f_patch_size=(2,)), r"has all_f_patch_size = \(2,\); only \[1\] is built here."),
        (dict(n_kv_heads=1), "has n_kv_heads = 1; only 2 is built here."),
        (dict(_class_name="Other"), "has _class_name = 'Other'; only 'ZImageTransformer2DModel' is built here."),
        (dict(qk_norm=False), "has qk_norm = False; only True is built here."),
        (dict(t_scale=1.0), "has t_scale = 1.0; only 1000.0 is built here."),
        (dict(axes_dims=[4, 6, 8]), "must be even and sum to the head width, which is width / heads = 32 / 2"),
        (dict(dim=None, n_heads=None), "lacks dim, n_heads; is it the one of a ZImageTransformer2DModel?"),
    ],
)
def test_another_models_config_is_told(changes, words):
    config = {k: v for k, v in {**Config.tiny().to_diffusers(), **changes}.items() if v is not None}
    with pytest.raises(UserError, match=words):
        Config.from_diffusers(config)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (dict(axes_dims=(5, 5, 6)), r"axes_dims \(5, 5, 6\) must be even"),
        (dict(heads=3), "width / heads = 32 / 3"),
        (dict(in_channels=6), "in_channels is 6; packed latents have a multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_told(sizes, words):
    with pytest.raises(ValueError, match=words):
        Config.tiny(**sizes)


# -- the caption -----------------------------------------------------------------------------------------------------


def test_one_context_serves_every_time_and_every_image(models):
    config, model, params = models("tiny")
    denoiser = z_image.denoiser(config)
    cond, _, _ = draw(config, LAYOUTS["around_a_multiple"])
    context, velocity = jax.jit(denoiser.condition)(params, cond), jax.jit(denoiser.velocity)
    for seed, t in enumerate((1.0, 0.9, 0.3)):
        z, t = draw(config, LAYOUTS["around_a_multiple"], seed=seed + 10)[1], np.full(3, t, np.float32)
        once = velocity(params, context, z, t)
        close(once, run(config, params, cond, z, t), 1e-6)  # only the compiler's fusions differ
        close(once, torch_velocity(model, cond, z, t))


def test_padding_changes_nothing(models):
    """Captions that fill up to 32 and 64 tokens in a bucket of 128, garbage behind them, against each alone."""
    config, _, params = models("tiny")
    batch = draw(config, LAYOUTS["bucket_beyond_the_filling"])
    batched = run(config, params, *batch)
    for i in range(len(batched)):
        close(batched[i : i + 1], run(config, params, *one(*batch, i)), 5e-6)


def test_padding_receives_no_gradient(models):
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["bucket_beyond_the_filling"])
    grads = denoisers.text_gradient(z_image, config, params, cond, z, t)
    for length, grad in zip(cond.text_length, grads, strict=True):
        assert np.all(grad[length:] == 0)
        assert np.all(np.abs(grad[:length]).max(-1) > 0)


def test_a_null_context_of_batch_one_serves_a_batch(models):
    """Guidance runs one empty prompt against the whole batch; a scan is strict about the shapes of what it carries."""
    config, _, params = models("tiny")
    cond, z, t = draw(config, LAYOUTS["bucket_beyond_the_filling"])
    null = jax.tree.map(lambda x: x[:1], cond)
    repeated = jax.tree.map(lambda x: np.repeat(x[:1], 2, axis=0), cond)
    expected = run(config, params, repeated, z, t)
    close(run(Config.tiny(scan_layers=True), params, null, z, t), expected, 5e-6)


# -- ways to compute the same ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unrolled(models):
    config, _, params = models("tiny")
    inputs = draw(config, LAYOUTS["equal_captions"])
    return params, inputs, denoisers.loss_and_grads(z_image, config, params, *inputs)


@pytest.mark.parametrize(("scan", "remat"), [(True, "full"), (False, "full"), (True, "attention")])
def test_scan_and_remat_change_neither_values_nor_gradients(unrolled, scan, remat):
    params, inputs, expected = unrolled
    config = Config.tiny(scan_layers=scan, remat=remat)
    denoisers.check_same(denoisers.loss_and_grads(z_image, config, params, *inputs), expected)


def test_bfloat16_stays_near_float32(models):
    """bfloat16 rounds by 2^-9 = 0.2 %; some thirty roundings in a row, on independent signs, make 1 % of it."""
    config, model, params = models("tiny")
    inputs = draw(config, LAYOUTS["around_a_multiple"])
    denoisers.check_bfloat16_velocity(z_image, config, params, model, inputs, torch_velocity, 0.02)


def test_time_is_read_in_float32_under_bfloat16(models):
    """In bfloat16 1000 (1 - t) would be rounded to multiples of 2: 0.7003 and 0.7006 would give one velocity."""
    _, _, params = models("tiny")
    config = Config.tiny(dtype=jnp.bfloat16)
    cond, z, _ = draw(config, LAYOUTS["equal_captions"])
    a, b = (run(config, params, cond, z, np.full(2, t, np.float32)) for t in (0.7003, 0.7006))
    assert np.abs(a - b).max() > 1e-3


def test_a_fresh_network_predicts_zero_and_has_the_announced_shapes():
    config = Config.tiny()
    params = jax.jit(functools.partial(z_image.init, config))(jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), z_image.abstract(config)
    )
    assert not np.any(run(config, params, *draw(config, LAYOUTS["equal_captions"])))


def test_matrices_decay_and_nothing_else():
    flat = paths.flatten(paths.map_paths(optim.DECAY, z_image.abstract(Config.tiny())))
    assert {path for path, decays in flat.items() if decays} == {path for path in flat if path.endswith("/kernel")}
