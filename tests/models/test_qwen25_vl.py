"""The Qwen2.5-VL encoder against transformers' model, by the rules of parity.py."""

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
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from flashjax import convert
from flashjax.errors import UserError
from flashjax.models import qwen25_vl
from flashjax.models.qwen25_vl import Config, Vision

TINY = Config.tiny().vision
CONFIGS = {  # scanned where nothing speaks against it: smaller programs compile faster
    "tiny": dict(scan_layers=True),
    "wide_windows_unrolled": dict(vision=dataclasses.replace(TINY, depth=4, window=12, full=(0, 3))),
    "windows_of_one_slot": dict(
        layers=3, features=(3,), heads=4, kv_heads=2, head_dim=8, mrope_section=(1, 1, 2), scan_layers=True,
        vision=dataclasses.replace(TINY, window=4, patch=2, full=(2,)),
    ),
    "never_full": dict(
        width=24, heads=2, head_dim=12, mrope_section=(4, 1, 1), scan_layers=True,
        vision=dataclasses.replace(TINY, patch=4, window=16, full=(), heads=1),
    ),
    "before_the_norm": dict(layers=3, features=(1, 3), final_norm=False, theta=1e4, scan_layers=True),
}  # fmt: skip
# rows and columns of slots and the text in front of each image; total and real lengths of the tokens
LAYOUTS = {
    "text": ((), 7, (7, 4)),
    "one_window": (((2, 2, 2),), 9, (9, 8)),
    "cut_windows": (((3, 5, 1),), 19, (19, 18)),
    "image_first": (((1, 3, 0),), 6, (4, 6)),
    "two_images": (((1, 4, 3), (3, 2, 1)), 18, (18, 15)),
    "three_images": (((2, 2, 1), (1, 5, 2), (5, 1, 1)), 22, (20, 22, 19)),
}


def torch_config(c: Config) -> Qwen2_5_VLConfig:
    v = c.vision
    text = dict(
        vocab_size=c.vocab, hidden_size=c.width, intermediate_size=c.intermediate, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, rms_norm_eps=c.eps, bos_token_id=None,
        eos_token_id=None, rope_parameters=dict(
            rope_type="default", rope_theta=c.theta, mrope_section=list(c.mrope_section)
        ),
    )  # fmt: skip
    vision = dict(
        depth=v.depth, hidden_size=v.width, num_heads=v.heads, intermediate_size=v.intermediate, patch_size=v.patch,
        spatial_merge_size=v.merge, window_size=v.window, fullatt_block_indexes=list(v.full), out_hidden_size=c.width,
    )  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=c.vocab - 1, video_token_id=c.vocab - 2,
        tie_word_embeddings=False,
    )  # fmt: skip


def torch_model(config: Config) -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration(torch_config(config))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return pairs(qwen25_vl, CONFIGS, torch_model, tmp_path_factory)


run = functools.partial(run_encoder, qwen25_vl)


def draw(config: Config, layout: str, seed: int = 0):
    images, total, lengths = LAYOUTS[layout]
    return draw_batch(config, lengths, total, images, config.vision.patch, config.vision.merge, seed)


def expected(config: Config, model, batch) -> np.ndarray:
    """transformers' states of a batch padded on the left, turned back."""
    v = config.vision
    processor = Qwen2VLImageProcessorPil(patch_size=v.patch, merge_size=v.merge, temporal_patch_size=2)
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


def test_windows_matter(models):
    """The same weights without windows give other states: else the tests above would not see a missing mask."""
    config, _, params = models("tiny")
    everywhere = dataclasses.replace(config, vision=dataclasses.replace(config.vision, full=(0, 1, 2)))
    batch = draw(config, "cut_windows")
    assert np.abs(run(everywhere, params, batch) - run(config, params, batch)).max() > 1e-2


def test_a_padded_batch_equals_the_batch_of_one(models):
    config, _, params = models("tiny")
    tokens, lengths, at, pixels = batch = draw(config, "two_images")
    batched = run(config, params, batch)
    for i, n in enumerate(lengths):
        one = slice(i, i + 1)
        alone = run(config, params, (tokens[one, :n], lengths[one], at, tuple(x[one] for x in pixels)))
        close(batched[one, :n], alone, 5e-6)


def test_scanned_equals_unrolled(models):
    config, _, params = models("wide_windows_unrolled")
    batch = draw(config, "two_images")
    scanned = dataclasses.replace(config, scan_layers=True)
    close(run(scanned, params, batch), run(config, params, batch), 5e-6)


def test_bfloat16_stays_near_float32(models):
    """bfloat16 rounds by 2^-9 = 0.2 %; an image's state passes some thirty roundings in tower, merger and language."""
    config, model, params = models("tiny")
    batch = draw(config, "two_images")
    rough, exact = (run(c, params, batch) for c in (dataclasses.replace(config, dtype=jnp.bfloat16), config))
    theirs = expected(config, rounded(model), batch)
    check_bfloat16(*(valid(states, batch[1]) for states in (rough, exact, theirs)), bound=0.03)


# -- weights ---------------------------------------------------------------------------------------------------------


def test_the_released_model_has_transformers_names_and_shapes():
    """Without a weight in memory."""
    config = Config.qwen_image()
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(torch_config(config))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(8.292e9, rel=1e-3)
    assert set(check_names("qwen25_vl", model, qwen25_vl.abstract(config))) == {"lm_head.weight"}


@pytest.mark.parametrize("name", ["windows_of_one_slot", "before_the_norm"])
def test_round_trip_is_bit_exact(models, name, tmp_path):
    config, model, _ = models(name)
    check_round_trip("qwen25_vl", model, qwen25_vl.abstract(config), tmp_path)


def test_prefixes_of_older_checkpoints_are_read(models, tmp_path):
    """Those of Qwen-Image's text_encoder folder: before transformers 4.52 the language model had no name."""
    config, model, params = models("tiny")
    names = {n: n.replace("model.visual.", "visual.").replace("language_model.", "") for n in model.state_dict()}
    save_file({names[n]: w.detach().contiguous() for n, w in model.state_dict().items()}, tmp_path / "old.safetensors")
    again = convert.load("qwen25_vl", tmp_path, qwen25_vl.abstract(config))
    jax.tree.map(np.testing.assert_array_equal, again, params)


# -- configuration and bad input -------------------------------------------------------------------------------------


def test_config_json_of_all_generations_of_transformers_is_read():
    config = Config.qwen_image()
    new = torch_config(config).to_dict()
    text = dict(new["text_config"])
    rotary = dict(text.pop("rope_parameters"))
    old = text | {"rope_theta": rotary["rope_theta"]}
    old["rope_scaling"] = {"type": "mrope", "mrope_section": rotary["mrope_section"]}
    nested = new | {"text_config": old}
    flat = old | {"model_type": "qwen2_5_vl", "vision_config": new["vision_config"]}
    for each in (new, nested, flat):
        assert Config.from_transformers(each) == config


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        (None, {"model_type": "qwen3_vl"}, "model_type = 'qwen3_vl'; a Qwen2.5-VL model's has 'qwen2_5_vl'"),
        ("text_config", {"use_sliding_window": True}, "use_sliding_window = True; only False is built"),
        ("vision_config", {"hidden_act": "gelu"}, "hidden_act = 'gelu'; only 'silu' is built"),
        ("vision_config", {"temporal_patch_size": 1}, "temporal_patch_size = 1; only 2 is built"),
        ("vision_config", {"window_size": 10}, "window 10 must be a multiple of 4 pixels"),
    ],
)
def test_other_models_are_refused_in_words(part, change, sentence):
    config = torch_config(Config.tiny()).to_dict()
    config |= change if part is None else {part: config[part] | change}
    with pytest.raises(UserError, match=sentence):
        Config.from_transformers(config)


@pytest.mark.parametrize(("part", "size"), [("text_config", "vocab_size"), ("vision_config", "window_size")])
def test_a_missing_size_is_named(part, size):
    config = torch_config(Config.tiny()).to_dict()
    del config[part][size]
    with pytest.raises(UserError, match=f"lacks {size}"):
        Config.from_transformers(config)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"mrope_section \(4, 2, 1\) must sum to half of head_dim 16"):
        Config.tiny(mrope_section=(4, 2, 1))
    with pytest.raises(ValueError, match="head width must be a multiple of 4, not 24 / 4"):
        Vision(width=24, heads=4)
