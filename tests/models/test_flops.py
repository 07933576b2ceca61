"""The count of operations against XLA's of the unrolled networks, and against figures of the literature."""

import jax
import jax.numpy as jnp
import pytest

from flashjax import models
from flashjax.models import flops

SIDE, REFERENCE, TEXT = 16, 8, 32  # tokens on an image's and a reference's side, of text: all lengths unlike
# Wide enough that products are almost everything: norms and activations are what XLA counts and the formula does not.
WIDE = dict(context_dim=640, width=768, heads=6, in_channels=64)
SIZES = dict(
    qwen_image_21=dict(axes_dims=(16, 56, 56), layers=3), qwen_image=dict(axes_dims=(16, 56, 56), layers=3),
    flux2=dict(axes_dims=(32, 32, 32, 32), double_layers=2, single_layers=1),
    z_image=dict(axes_dims=(32, 48, 48), layers=3, refiner_layers=1),
)  # fmt: skip


def counted(f, *args) -> float:
    """XLA's count of the program before it optimises, which would drop what nobody reads."""
    return jax.jit(f).lower(*args).cost_analysis()["flops"]


@pytest.mark.parametrize("references", [0, 1, 2])
@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_formula_is_what_xla_counts(architecture, references):
    if architecture == "z_image" and references:
        return  # text to image only
    model = models.architecture(architecture)
    config = model.Config.tiny(**(WIDE | SIZES[architecture]))
    params, denoiser = model.abstract(config), model.denoiser(config)
    pictures = tuple(jnp.zeros((1, REFERENCE, REFERENCE, 64)) for _ in range(references))
    text = jnp.zeros((1, TEXT, 640)), jnp.full((1,), TEXT, jnp.int32)
    more = dict(reference_at=(0,) * references) if architecture == "qwen_image_21" else {}
    cond = model.Condition(*text, pictures, **more) if references else model.Condition(*text)
    context = jax.eval_shape(denoiser.condition, params, cond)
    found = flops.evaluation(architecture, config, flops.Sizes(SIDE**2, TEXT, references * REFERENCE**2))
    z, t = jnp.zeros((1, SIDE, SIDE, 64)), jnp.zeros((1,))
    assert found.velocity == pytest.approx(counted(denoiser.velocity, params, context, z, t), rel=0.02)
    assert found.condition == pytest.approx(counted(denoiser.condition, params, cond), rel=0.02)


@pytest.mark.parametrize(
    "sizes, teraflops",
    [
        (flops.Sizes(4096, 256), 73.1), (flops.Sizes(6889, 256), 134.7), (flops.Sizes(4096, 512, 4096), 174),
        (flops.Sizes(4096, 512, 8192), 295),
    ],
)  # fmt: skip
def test_qwen_image_costs_what_is_known(sizes, teraflops):
    """Forward passes at 1024 and 1328 px, and of edits with one and two references."""
    found = flops.evaluation("qwen_image", models.architecture("qwen_image").Config(), sizes)
    assert found.both / 1e12 == pytest.approx(teraflops, rel=0.01)
