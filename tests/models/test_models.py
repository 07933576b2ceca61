"""All architectures: presets, sizes that there are not, what stays in float32."""

import dataclasses
import importlib

import jax.numpy as jnp
import pytest
from parity import check_angles

from flashjax import models
from flashjax.errors import UserError

ARCHITECTURE = models.ARCHITECTURES[0]


def make(**settings):
    return models.make_config(
        models.architecture(ARCHITECTURE), dict(architecture=ARCHITECTURE, preset="tiny") | settings
    )


def test_every_preset_takes_overrides():
    for preset in models.architecture(ARCHITECTURE).PRESETS:
        made = make(preset=preset, mlp_ratio=2)
        assert made.mlp_ratio == 2
        assert dataclasses.replace(made, mlp_ratio=3) == make(preset=preset)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (dict(preset="heads"), "has no preset 'heads'; choose one of qwen_image_21, postcards, tiny."),
        (dict(preset="from_diffusers"), "has no preset 'from_diffusers'; choose one of"),
        (dict(layerss=1), r"has no setting 'layerss' \(config.model.layerss\); did you mean layers\?"),
        (dict(zzz=1), r"has no setting 'zzz' \(config.model.zzz\); it has in_channels, context_dim, width,"),
        (dict(products="bfloat17"), "products is 'bfloat17', no dtype; write float32 or bfloat16."),
    ],
)
def test_a_model_that_cannot_be(settings, expected):
    with pytest.raises(UserError, match=expected):
        make(**settings)


HALF = dict(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_angles_of_a_bfloat16_denoiser_are_float32(name):
    model = models.architecture(name)
    config = model.Config.tiny(**HALF)
    denoiser, cond = model.denoiser(config), (jnp.zeros((1, 3, config.context_dim)), jnp.full((1,), 3))

    def evaluate(params, z, t):
        return denoiser.velocity(params, denoiser.condition(params, model.Condition(*cond)), z, t)

    check_angles(evaluate, model.abstract(config), jnp.zeros((1, 2, 4, config.in_channels)), jnp.zeros(1))


@pytest.mark.parametrize("name", ["qwen3", "qwen3_vl", "qwen25_vl"])
def test_angles_of_a_bfloat16_encoder_are_float32(name):
    model = importlib.import_module(f"flashjax.models.{name}")
    config = model.Config.tiny(**HALF)
    given = [jnp.ones((1, 6), jnp.int32), jnp.full((1,), 6)]
    if name != "qwen3":
        side = 2 * config.vision.patch * config.vision.merge
        given += [(jnp.zeros((1, side, side, 3)),), (1,)]

    def encode(params):
        return model.encoder(config)(params, *given)

    check_angles(encode, model.abstract(config))
