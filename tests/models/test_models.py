"""Architectures by name: presets and sizes that there are not."""

import dataclasses

import pytest

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
