"""What a run reads in place of pixels: its shapes, and what does not go together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from flashjax import models, paths, weights, workdir
from flashjax.errors import UserError
from flashjax.models import latents, pixels, qwen_image_21, vae_kl, vae_qwen_image, vae_qwen_image_21
from flashjax.models.autoencoder import Autoencoder

TINY = dict(vae_qwen_image_21=vae_qwen_image_21, vae_qwen_image=vae_qwen_image, vae_kl=vae_kl)
RELEASED = {  # the tokens of 1024 px, from the families' own documentation
    ("vae_qwen_image_21", "qwen_image_21"): (64, 64, 64), ("vae_qwen_image", "qwen_image"): (64, 64, 64),
    ("vae_kl", "flux2"): (64, 64, 128), ("vae_kl", "z_image"): (64, 64, 64),
}  # fmt: skip


def config(architecture="pixels", preset="", **more):
    return ConfigDict(dict(autoencoder=dict(architecture=architecture, preset=preset, weights="", **more)))


@pytest.mark.parametrize("name", TINY)
def test_the_shape_is_what_the_encoder_makes(name):
    made = latents.of(config(name, "tiny"))
    module, sizes = TINY[name], TINY[name].Config.tiny()
    picture = jax.ShapeDtypeStruct((2, 48, 48, sizes.channels), jnp.float32)
    found = jax.eval_shape(module.autoencoder(sizes).encode, module.abstract(sizes), picture)
    assert found.shape == (2, *made.shape(48)) == (2, *made.record_shape(48))
    assert made.tokens(48) == found.shape[1] * found.shape[2]


@pytest.mark.parametrize("which", RELEASED)
def test_released_models_at_1024_px(which):
    assert latents.of(config(*which)).shape(1024) == RELEASED[which]


def test_patches_are_the_default_and_no_other_run():
    assert latents.of(ConfigDict()) is latents.PIXELS is latents.of(config())
    images = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(latents.PIXELS.encode(images), pixels.encode(images))
    assert latents.PIXELS.shape(8) == pixels.encode(images).shape[1:]
    assert workdir.identity(config()) == workdir.identity(ConfigDict())
    assert workdir.identity(config("vae_kl", "tiny")) != workdir.identity(ConfigDict())


def test_what_does_not_go_together():
    with pytest.raises(UserError, match="There is no autoencoder 'vae_kk'"):
        latents.of(config("vae_kk"))
    with pytest.raises(UserError, match="vae_kl has no preset 'flux'; choose one of flux2, z_image, tiny"):
        latents.of(config("vae_kl", "flux"))
    with pytest.raises(UserError, match=r"no setting 'block' \(config.autoencoder.block\); did you mean blocks"):
        latents.of(config("vae_kl", "tiny", block=1))
    with pytest.raises(UserError, match="vae_kl makes tokens of 16 channels"):
        latents.check(config("vae_kl", "tiny"), 48)


def test_random_weights_say_something_and_always_the_same():
    given = ConfigDict(dict(model=dict(architecture="qwen_image_21", preset="tiny", layers=1)))
    sizes = models.make_config(qwen_image_21, given.model)
    first, again = (weights.load_weights(given, qwen_image_21.abstract(sizes), "random") for _ in range(2))
    flat = paths.flatten(first)
    assert all(np.array_equal(x, y) for x, y in zip(flat.values(), paths.flatten(again).values(), strict=True))
    denoiser = qwen_image_21.denoiser(sizes)
    cond = qwen_image_21.Condition(jnp.ones((1, 3, 24)), jnp.full((1,), 3, jnp.int32))
    z = jax.random.normal(jax.random.key(1), (1, 2, 2, 8))
    velocity = jax.jit(lambda p: denoiser.velocity(p, denoiser.condition(p, cond), z, jnp.full((1,), 0.5)))
    v = velocity(first)
    assert 0.3 < float(v.std()) < 3


def test_a_transparent_picture_is_drawn_on_white(monkeypatch):
    made = latents.of(config("vae_qwen_image_21", "tiny"))
    assert weights.load_decoder(made, config("vae_qwen_image_21", "tiny")) is None
    given = config("vae_qwen_image_21", "tiny")
    given.autoencoder.weights = "random"
    clear = Autoencoder(None, lambda params, z: jnp.full((1, 8, 8, 4), -1.0))
    monkeypatch.setattr(vae_qwen_image_21, "autoencoder", lambda sizes: clear)
    drawn = weights.load_decoder(made, given)(jnp.zeros((2, *made.shape(8))))
    assert drawn.shape == (2, 8, 8, 3) and drawn.dtype == np.uint8
    assert (drawn == 255).all()
