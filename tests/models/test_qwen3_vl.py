"""The Qwen3-VL encoder against transformers' model, by the rules of parity.py."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from encoders import (
    check_names,
    check_round_trip,
    draw_batch,
    expected_states,
    pairs,
    valid,
)
from encoders import run as run_encoder
from parity import check_bfloat16, close, rounded
from safetensors.torch import save_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from flashjax import convert
from flashjax.errors import UserError
from flashjax.models import qwen3_vl, qwen_vision
from flashjax.models.qwen3_vl import Config, Vision

TINY = Config.tiny().vision
CONFIGS = {  # scanned where nothing speaks against it: smaller programs compile faster
    "tiny": dict(scan_layers=True),
    "more_deepstack": dict(
        layers=4, features=(4,), scan_layers=True, vision=dataclasses.replace(TINY, depth=5, deepstack=(1, 2, 4))
    ),
    "after_the_norm": dict(
        final_norm=True, scan_layers=True, vision=dataclasses.replace(TINY, patch=2, side=7, deepstack=(2,))
    ),
    "chosen_layers_unrolled": dict(
        layers=5, features=(3, 4), head_dim=20, mrope_section=(4, 4, 2), heads=6, kv_heads=3
    ),
    "uneven_sections": dict(mrope_section=(3, 3, 2), width=20, heads=3, kv_heads=1, scan_layers=True),
}
# rows and columns of slots and the text in front of each image; total and real lengths of the tokens
LAYOUTS = {
    "text": ((), 7, (7, 4)),
    "one_image": (((2, 3, 2),), 12, (12, 10)),
    "image_first": (((3, 1, 0),), 6, (4, 6)),
    "one_slot": (((1, 1, 1),), 4, (4, 3)),
    "two_images": (((1, 4, 3), (3, 2, 1)), 18, (18, 15)),
    "three_images": (((2, 2, 1), (1, 5, 2), (5, 1, 1)), 22, (20, 22, 19)),
}


def torch_config(c: Config) -> Qwen3VLConfig:
    v = c.vision
    text = dict(
        vocab_size=c.vocab, hidden_size=c.width, intermediate_size=c.intermediate, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim, rms_norm_eps=c.eps,
        rope_parameters=dict(
            rope_type="default", rope_theta=c.theta, mrope_section=list(c.mrope_section), mrope_interleaved=True
        ),
    )  # fmt: skip
    vision = dict(
        depth=v.depth, hidden_size=v.width, num_heads=v.heads, intermediate_size=v.intermediate, patch_size=v.patch,
        spatial_merge_size=v.merge, num_position_embeddings=v.side**2, deepstack_visual_indexes=list(v.deepstack),
        out_hidden_size=c.width,
    )  # fmt: skip
    return Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=c.vocab - 1, video_token_id=c.vocab - 2,
        tie_word_embeddings=False,
    )  # fmt: skip


def torch_model(config: Config) -> Qwen3VLForConditionalGeneration:
    return Qwen3VLForConditionalGeneration(torch_config(config))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return pairs(qwen3_vl, CONFIGS, torch_model, tmp_path_factory)


run = functools.partial(run_encoder, qwen3_vl)


def draw(config: Config, layout: str, seed: int = 0):
    images, total, lengths = LAYOUTS[layout]
    return draw_batch(config, lengths, total, images, config.vision.patch, config.vision.merge, seed)


def expected(config: Config, model, batch) -> np.ndarray:
    """transformers' states of a batch padded on the left, turned back."""
    v = config.vision
    processor = Qwen2VLImageProcessorPil(
        patch_size=v.patch, merge_size=v.merge, temporal_patch_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return expected_states(config, model, batch, processor)


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_transformers_on_every_layout(models, layout):
    config, model, params = models("tiny")
    batch = draw(config, layout)
    wanted = valid(expected(config, model, batch), batch[1])
    assert 0.3 < wanted.std() < 5  # else the tolerance would mean nothing
    close(valid(run(config, params, batch), batch[1]), wanted)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "tiny"])
def test_agrees_with_transformers_on_other_sizes(models, name):
    config, model, params = models(name)
    batch = draw(config, "two_images", seed=3)
    close(valid(run(config, params, batch), batch[1]), valid(expected(config, model, batch), batch[1]))


def test_a_padded_batch_equals_the_batch_of_one(models):
    config, _, params = models("tiny")
    tokens, lengths, at, pixels = batch = draw(config, "two_images")
    batched = run(config, params, batch)
    for i, n in enumerate(lengths):
        one = slice(i, i + 1)
        alone = run(config, params, (tokens[one, :n], lengths[one], at, tuple(x[one] for x in pixels)))
        close(batched[one, :n], alone, 5e-6)


def test_pixels_may_be_bytes_or_numbers_from_minus_one_to_one(models):
    config, _, params = models("tiny")
    tokens, lengths, at, pixels = batch = draw(config, "one_image")
    real = tuple(x.astype(np.float32) / 127.5 - 1 for x in pixels)
    close(run(config, params, (tokens, lengths, at, real)), run(config, params, batch), 5e-6)


def test_every_image_matters_at_its_place(models):
    config, _, params = models("tiny")
    tokens, lengths, at, pixels = batch = draw(config, "two_images")
    base = run(config, params, batch)
    others = [
        (tokens, lengths, at, (pixels[0], 255 - pixels[1])),
        (tokens, lengths, at, (pixels[0][:, ::-1], pixels[1])),
        (tokens, lengths, (2, 8), pixels),
    ]
    for other in others:
        assert np.abs(valid(run(config, params, other), lengths) - valid(base, lengths)).max() > 1e-3
    other = np.where(tokens == config.vocab - 1, 5, tokens)
    np.testing.assert_array_equal(run(config, params, (other, lengths, at, pixels)), base)


def test_scanned_equals_unrolled(models):
    config, _, params = models("more_deepstack")
    batch = draw(config, "one_image")
    unrolled = Config.tiny(**CONFIGS["more_deepstack"] | {"scan_layers": False})
    close(run(config, params, batch), run(unrolled, params, batch), 5e-6)


def test_bfloat16_stays_near_float32(models):
    """bfloat16 rounds by 2^-9 = 0.2 %; an image's state passes some thirty roundings in tower, merger and language."""
    config, model, params = models("tiny")
    batch = draw(config, "two_images")
    rough, exact = (run(c, params, batch) for c in (dataclasses.replace(config, dtype=jnp.bfloat16), config))
    theirs = expected(config, rounded(model), batch)
    check_bfloat16(*(valid(states, batch[1]) for states in (rough, exact, theirs)), bound=0.03)


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "parameters"), [("qwen_image_21", 8.145e9), ("qwen3_vl_4b", 4.438e9)])
def test_released_models_have_transformers_names_and_shapes(preset, parameters):
    """Without a weight in memory; ``parameters`` without the head."""
    config = getattr(Config, preset)()
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(torch_config(config))
    assert sum(p.numel() for p in model.model.parameters()) == pytest.approx(parameters, rel=1e-3)
    dropped = check_names("qwen3_vl", model, qwen3_vl.abstract(config))
    assert set(dropped) == {"lm_head.weight", "model.language_model.norm.weight"}


@pytest.mark.parametrize("name", ["more_deepstack", "after_the_norm", "chosen_layers_unrolled"])
def test_round_trip_is_bit_exact(models, name, tmp_path):
    config, model, _ = models(name)
    check_round_trip("qwen3_vl", model, qwen3_vl.abstract(config), tmp_path)


@pytest.mark.parametrize(
    ("today", "older"),
    [
        ({"model.visual.": "visual.", "model.language_model.": "model."}, "before transformers 4.52"),
        ({"model.visual.": "visual.", "model.language_model.": "language_model."}, "saved without the head"),
    ],
)
def test_other_prefixes_are_read(models, tmp_path, today, older):
    config, model, params = models("after_the_norm")
    state = {}
    for name, weight in model.state_dict().items():
        for new, old in today.items():
            name = name.replace(new, old)
        state[name] = weight.detach().contiguous()
    save_file(state, tmp_path / "model.safetensors")
    again = convert.load("qwen3_vl", tmp_path, qwen3_vl.abstract(config))
    jax.tree.map(np.testing.assert_array_equal, again, params)


# -- configuration and bad input -------------------------------------------------------------------------------------


def test_config_json_of_both_generations_of_transformers_is_read():
    for config in (Config.qwen_image_21(), Config.qwen3_vl_4b()):
        new = torch_config(config).to_dict()
        text = dict(new["text_config"])
        rotary = dict(text.pop("rope_parameters"))
        old = text | {"rope_theta": rotary.pop("rope_theta"), "rope_scaling": rotary}
        assert Config.from_transformers(new) == Config.from_transformers(new | {"text_config": old}) == config


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        (None, {"model_type": "qwen2_5_vl"}, "model_type = 'qwen2_5_vl'; a Qwen3-VL model's has 'qwen3_vl'"),
        ("text_config", {"hidden_act": "gelu"}, "hidden_act = 'gelu'; only 'silu' is built"),
        ("vision_config", {"hidden_act": "gelu"}, "hidden_act = 'gelu'; only 'gelu_pytorch_tanh' is built"),
        ("vision_config", {"out_hidden_size": 31}, "out_hidden_size = 31; only 32 is built"),
        ("vision_config", {"deepstack_visual_indexes": [3]}, r"deepstack \(3,\) must be layers from 0 to 2"),
    ],
)
def test_other_models_are_refused_in_words(part, change, sentence):
    config = torch_config(Config.tiny()).to_dict()
    config |= change if part is None else {part: config[part] | change}
    with pytest.raises(UserError, match=sentence):
        Config.from_transformers(config)


@pytest.mark.parametrize(("part", "size"), [("text_config", "vocab_size"), ("vision_config", "num_heads")])
def test_a_missing_size_is_named(part, size):
    config = torch_config(Config.tiny()).to_dict()
    del config[part][size]
    with pytest.raises(UserError, match=f"lacks {size}"):
        Config.from_transformers(config)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"mrope_section \(4, 2, 1\) must sum to half of head_dim 16"):
        Config.tiny(mrope_section=(4, 2, 1))
    with pytest.raises(ValueError, match=r"features \(2, 3\) must lie behind the first 2 layers"):
        Config.tiny(features=(2, 3))
    with pytest.raises(ValueError, match="head width must be a multiple of 4, not 24 / 4"):
        Vision(width=24, heads=4)


def test_images_that_do_not_fit_are_refused(models):
    config, _, params = models("tiny")
    tokens, lengths, at, pixels = draw(config, "two_images")
    with pytest.raises(ValueError, match="An image is 8 x 30 pixels; its sides must be multiples of 8"):
        run(config, params, (tokens, lengths, at, (pixels[0][:, :, :30], pixels[1])))
    with pytest.raises(ValueError, match="must give a place for each of the 2 images"):
        run(config, params, (tokens, lengths, (3,), pixels))
    for bad in ((3, 6), (8, 3), (3, 13)):
        with pytest.raises(ValueError, match="images must stand in order"):
            qwen_vision.layout(18, bad, ((1, 4), (3, 2)))
