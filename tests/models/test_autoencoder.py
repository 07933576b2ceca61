"""Decoding in tiles, and the two orders of packing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashjax.models import vae_kl, vae_qwen_image, vae_qwen_image_21
from flashjax.models.autoencoder import Autoencoder, _tiles, decode_tiled, encode_tiled, pack, unpack

MODULES = {"v1": vae_qwen_image, "v2.1": vae_qwen_image_21, "kl": vae_kl}


def draw(*shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def enlarge(params, z):
    """A decoder that sees single latents: 2 x 2 pixels each, of 3 channels; tiles change nothing."""
    return jnp.sin(params * z).repeat(2, axis=1).repeat(2, axis=2)[..., :3]


@functools.cache
def model(name: str):
    """(autoencoder, parameters) of a tiny model; all weights are drawn but for a batch norm's variance."""
    module = MODULES[name]
    config = module.Config.tiny()
    rng = np.random.default_rng(1)

    def leaf(x):
        kernel = x.ndim > 1
        return rng.normal(0, np.prod(x.shape[:-1]) ** -0.5 if kernel else 0.3, x.shape).astype(np.float32)

    params = jax.tree.map_with_path(lambda path, x: leaf(x) + (path[-1].key == "scale"), module.abstract(config))
    if "bn" in params:
        params["bn"]["var"] = np.ones_like(params["bn"]["var"])
    return module.autoencoder(config), params


def channels(name: str) -> int:
    return 8 if name == "v2.1" else 16


def picture_channels(name: str) -> int:
    return MODULES[name].Config.tiny().channels


@settings(max_examples=300)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 39), st.integers(1, 3))
def test_weights_add_up_to_one_at_every_pixel(size, tile, overlap, pixels):
    overlap = min(overlap, tile - 1)
    starts, weights = _tiles(size, tile, overlap, pixels)
    tile = min(tile, size)
    assert starts[0] == 0 and starts[-1] + tile == size
    assert np.all(starts[:-1] + tile - starts[1:] >= overlap) and np.all(np.diff(starts) > 0)
    total = np.zeros(size * pixels)
    np.add.at(total, starts[:, None] * pixels + np.arange(tile * pixels), weights)
    np.testing.assert_allclose(total, 1, rtol=0, atol=2e-7)
    assert np.all(weights >= 0)


# height, width, tile, overlap; in the last two cases three tiles and more lie over each other
@pytest.mark.parametrize(
    "layout", [(5, 9, 4, 1), (7, 3, 4, 0), (8, 8, 9, 8), (1, 12, 5, 2), (13, 4, 6, 5), (11, 12, 8, 7)], ids=str
)
def test_tiles_of_a_local_decoder_are_the_picture(layout):
    height, width, tile, overlap = layout
    z = draw(2, height, width, 4)
    tiled = decode_tiled(Autoencoder(None, enlarge), 0.7, z, tile, overlap)
    np.testing.assert_allclose(tiled, enlarge(0.7, z), rtol=0, atol=2e-7)


def shrink(params, x):
    """An encoder of single blocks of 2 x 2 pixels; tiles change nothing."""
    return jnp.sin(params * x).reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))


@pytest.mark.parametrize("layout", [(5, 9, 4, 1), (7, 3, 4, 0), (8, 8, 9, 8), (13, 4, 6, 5)], ids=str)
def test_tiles_of_a_local_encoder_are_the_latents(layout):
    height, width, tile, overlap = layout
    x = draw(2, 2 * height, 2 * width, 3)
    tiled = encode_tiled(Autoencoder(shrink, None), 0.7, x, tile, overlap)
    np.testing.assert_allclose(tiled, shrink(0.7, x), rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", MODULES)
def test_tiles_stay_near_the_latents(name):
    """As below, of the latents' standard deviation; one tile is encode exactly."""
    autoencoder, params = model(name)
    side = 4 if name == "v2.1" else 8
    x = np.clip(draw(1, 20 * side, 26 * side, picture_channels(name)) / 2, -1, 1)
    exact = np.asarray(jax.jit(autoencoder.encode)(params, x))
    whole, tiled = (
        jax.jit(functools.partial(encode_tiled, autoencoder, tile=tile, overlap=8))(params, x) for tile in (26, 16)
    )
    np.testing.assert_array_equal(whole, exact)
    error = np.sqrt(np.mean((tiled - exact) ** 2)) / exact.std((0, 1, 2)).mean()
    assert 1e-4 < error < 0.08


@pytest.mark.parametrize("name", MODULES)
def test_tiles_take_the_memory_of_one(name):
    """Of 49 tiles: what one takes, and the result a few times. The whole picture takes more."""
    autoencoder, params = model(name)
    side = 4 if name == "v2.1" else 8

    def memory(function, *shape):
        compiled = jax.jit(function).lower(params, jax.ShapeDtypeStruct(shape, np.float32)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    for whole, tiled, each, width in (
        (autoencoder.encode, encode_tiled, side, picture_channels(name)),
        (autoencoder.decode, decode_tiled, 1, channels(name)),
    ):
        one = memory(whole, 1, 16 * each, 16 * each, width)
        all_of = memory(functools.partial(tiled, autoencoder, tile=16, overlap=4), 1, 80 * each, 80 * each, width)
        canvas = 4 * 80**2 * max(side**2 * picture_channels(name), channels(name))
        assert all_of < 1.2 * one + 4 * canvas
        assert all_of < memory(whole, 1, 80 * each, 80 * each, width)


@pytest.mark.parametrize("tile", [5, 50])
@pytest.mark.parametrize("name", MODULES)
def test_a_tile_as_big_as_the_picture_is_decode(name, tile):
    autoencoder, params = model(name)
    z = draw(1, 3, 5, channels(name))
    tiled = jax.jit(functools.partial(decode_tiled, autoencoder, tile=tile, overlap=4))(params, z)
    np.testing.assert_array_equal(tiled, jax.jit(autoencoder.decode)(params, z))


@pytest.mark.parametrize("axis", [1, 2])
def test_cuts_leave_no_trace_but_for_the_attention(axis):
    """Without its attention the decoder sees 12 latents in every direction, and of an overlap of 48 the 12 at a cut are
    not used."""
    config = vae_qwen_image_21.Config.tiny(widths=(4, 4), decoder_widths=(4, 4), halves_time=(True,))
    params = jax.jit(vae_qwen_image_21.init, static_argnums=0)(config, jax.random.key(0))
    mid = params["decoder"]["mid"]
    mid["attention"]["to_out"] = jax.tree.map(jnp.zeros_like, mid["attention"]["to_out"])
    z, autoencoder = np.moveaxis(draw(1, 110, 2, 8), 1, axis), vae_qwen_image_21.autoencoder(config)
    exact = jax.jit(autoencoder.decode)(params, z)
    tiled = jax.jit(functools.partial(decode_tiled, autoencoder, tile=60, overlap=48))(params, z)
    np.testing.assert_allclose(tiled, exact, rtol=0, atol=2e-6)
    short = jax.jit(functools.partial(decode_tiled, autoencoder, tile=60, overlap=0))(params, z)
    assert np.abs(short - exact).max() > 1e-2  # the cut is there


@pytest.mark.parametrize("name", MODULES)
def test_tiles_stay_near_the_picture(name):
    """Attention over 16 x 16 of 20 x 26 latents, and for kl the group norms' statistics, differ from the whole
    picture's: by 4, 7 and 7 % of the picture's standard deviation here, on latents of pure noise."""
    autoencoder, params = model(name)
    z = draw(1, 20, 26, channels(name))
    exact = np.asarray(jax.jit(autoencoder.decode)(params, z))
    tiled = jax.jit(functools.partial(decode_tiled, autoencoder, tile=16, overlap=8))(params, z)
    assert tiled.dtype == np.float32 and np.abs(tiled).max() <= 1
    error = np.sqrt(np.mean((tiled - exact) ** 2)) / exact.std((0, 1, 2)).mean()
    assert 1e-4 < error < 0.08


def test_the_program_holds_one_decoder_for_all_tiles():
    trace = jax.make_jaxpr(functools.partial(decode_tiled, Autoencoder(None, enlarge), tile=3, overlap=1))
    assert str(trace(0.7, draw(1, 20, 20, 4))).count(" sin ") == 1


@pytest.mark.parametrize(("tile", "overlap"), [(4, 4), (4, -1), (0, 0)])
def test_impossible_tiles_are_named(tile, overlap):
    with pytest.raises(ValueError, match=f"Tiles of {tile} latents cannot overlap by {overlap}; it takes 0 <= overlap"):
        decode_tiled(Autoencoder(None, enlarge), 0.7, draw(1, 9, 9, 4), tile, overlap)


def test_packing_is_exactly_invertible():
    z = draw(2, 4, 6, 3)
    packed = pack(z)
    assert packed.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(unpack(packed), z)
    np.testing.assert_array_equal(packed[1, 1, 2, 4:8], z[1, 2:4, 4:6, 1].reshape(-1))
