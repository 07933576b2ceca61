"""LoRAs in diffusers' pipelines: loaded by its own loader, with peft, they compute what ours compute."""

import functools

import denoisers
import numpy as np
import pytest
import test_flux2
import test_qwen_image
import test_qwen_image_21
import test_z_image
import tiny_pipelines
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    QwenImage21Pipeline,
    QwenImagePipeline,
    ZImagePipeline,
)
from parity import close

from flashjax import convert, paths
from flashjax.convert import adapters, lora
from flashjax.models import prompts

# pipeline, the denoiser's test, layout, and the kernels with a LoRA
FAMILIES = {
    "qwen_image_21": (
        QwenImage21Pipeline, test_qwen_image_21, "one_reference",
        ("blocks/attn/to_q/kernel", "blocks/attn/to_out/kernel", "blocks/mlp/gate/kernel", "img_in/kernel"),
    ),
    "qwen_image": (
        QwenImagePipeline, test_qwen_image, "one_smaller_reference",
        ("blocks/img/attn/to_v/kernel", "blocks/txt/attn/to_out/kernel", "blocks/img/mlp/out/kernel"),
    ),
    "z_image": (
        ZImagePipeline, test_z_image, "around_a_multiple",
        ("blocks/attn/to_k/kernel", "noise_refiner/attn/to_out/kernel", "blocks/mlp/w2/kernel"),
    ),
    "flux2": (
        Flux2KleinPipeline, test_flux2, "one_reference",
        ("blocks/double/img/to_q/kernel", "blocks/double/txt/mlp_out/kernel", "blocks/single/proj_in/kernel"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """family -> (configuration, diffusers' model, the same weights as parameters)."""

    @functools.cache
    def make(family):
        test = FAMILIES[family][1]
        module = test.run.args[0]
        return module, *denoisers.pairs(module, {"tiny": {}}, test.torch_model, tmp_path_factory)("tiny")

    return make


def pipeline(cls, transformer):
    """With little but its transformer."""
    parts = dict(scheduler=FlowMatchEulerDiscreteScheduler(), transformer=transformer)
    if cls is QwenImage21Pipeline:  # it asks its processor at once
        parts["processor"] = tiny_pipelines._processor(prompts.FAMILIES["qwen_image_21"], tiny_pipelines.tokenizer())
    return cls(**{name: parts.get(name) for name in cls._get_signature_keys(cls)[0] if name != "self"})


# diffusers refuses a LoRA of FLUX.2 with alphas beside its factors, as ComfyUI wants them
CASES = [(family, spelling) for family in FAMILIES for spelling in ("diffusers", "comfyui")][:-1]


@pytest.mark.parametrize(("family", "spelling"), CASES)
def test_diffusers_loads_what_is_exported(models, tmp_path, family, spelling):
    cls, test, layout, kernels = FAMILIES[family]
    module, config, model, params = models(family)
    flat, rng = paths.flatten(params), np.random.default_rng(1)
    factors, merged = {}, dict(flat)
    for path in kernels:
        *layers, width, out = flat[path].shape
        a, b = (0.3 * rng.normal(size=(*layers, *shape)).astype(np.float32) for shape in ((width, 3), (3, out)))
        factors[path] = {"a": a, "b": b}
        merged[path] = flat[path] + 0.5 * (a @ b)
    table = convert.table_of(denoisers.name_of(module))
    changes = adapters.to_pytorch(adapters.Adapter(factors, rank=3, alpha=1.5), table)
    lora.write(tmp_path / adapters.FILES[spelling], changes, spelling, np.float32)
    inputs = test.draw(config, test.LAYOUTS[layout])
    plain = test.torch_velocity(model, *inputs)
    pipe = pipeline(cls, model)
    pipe.load_lora_weights(tmp_path, weight_name=adapters.FILES[spelling])
    found = test.torch_velocity(model, *inputs)
    pipe.unload_lora_weights()
    assert np.abs(found - plain).max() > 0.1
    close(test.run(config, paths.unflatten(merged), *inputs), found)
