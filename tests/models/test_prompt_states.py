"""From a prompt to what the denoiser is given: the families' rules, the encoders and ``kept`` together against
diffusers' pipelines, on encoders that are narrow but have all their layers."""

import dataclasses
import re
from functools import partial

import jax
import numpy as np
import pytest
import test_qwen3
import test_qwen3_vl
import test_qwen25_vl
import torch
from diffusers import Flux2KleinPipeline, QwenImage21Pipeline, QwenImagePipeline, ZImagePipeline
from encoders import to_the_right
from parity import carry_over, close, randomise
from PIL import Image
from test_prompts import Recorder, Tokenizer, bare_pipeline
from transformers import (
    BatchFeature,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3ForCausalLM,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from flashjax.models import prompts, qwen3, qwen3_vl, qwen25_vl

PROMPTS = ["a red fox", "a very red fox in the snow"]
SIZES = [(8, 16), (24, 8)]  # pixels
PATCHES = Qwen2VLImageProcessorPil(
    patch_size=4, merge_size=2, temporal_patch_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
)
ENCODERS = {
    "qwen3": (qwen3, test_qwen3, Qwen3ForCausalLM),
    "qwen3_vl": (qwen3_vl, test_qwen3_vl, Qwen3VLForConditionalGeneration),
    "qwen25_vl": (qwen25_vl, test_qwen25_vl, Qwen2_5_VLForConditionalGeneration),
}


class Processor(Recorder):
    """Tokenizer and processor of a pipeline: ids of ``words``, 0 for an image's slots and 1 for padding."""

    def __init__(self, words):
        self.words = words

    def __call__(self, text, images=(), padding=True, padding_side="right", max_length=None, **settings):
        counts = iter([image.size[0] * image.size[1] // 64 for image in images])
        texts = [text] if isinstance(text, str) else text
        ids = self.words([re.sub(r"<\|image_pad\|>", lambda pad: pad[0] * next(counts), each) for each in texts])
        lengths = np.array([len(row) for row in ids])
        total = max_length if padding == "max_length" else max(lengths)
        tokens = np.array([row + [1] * (total - len(row)) for row in ids])
        mask = (np.arange(total) < lengths[:, None]).astype(int)
        if padding_side == "left":
            tokens, mask = to_the_right(tokens, lengths), to_the_right(mask, lengths)
        found = dict(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask))
        if images:
            found |= PATCHES(images=list(images), do_resize=False, return_tensors="pt")
        return BatchFeature(found | {"mm_token_type_ids": (found["input_ids"] == 0).int()})


def make(family: str, folder):
    """(configuration, transformers' encoder, the same weights as parameters) of a family."""
    rules = prompts.FAMILIES[family]
    module, test, cls = ENCODERS[rules.encoder]
    layers = {"qwen25_vl": 28}.get(rules.encoder, 36)
    config = module.Config.tiny(layers=layers, scan_layers=True, vocab=60, **rules.settings)
    settings = test.torch_config(config)
    settings.image_token_id = 0
    model = randomise(cls(settings))
    return module, config, model, carry_over(rules.encoder, model, module.abstract(config), folder)


def diffusers_states(family: str, model, processor, pictures):
    """A list of [n, d], and the slots of images where the pipeline tells them."""
    own, cpu = {"tokenizer": processor, "processor": processor, "text_encoder": model}, torch.device("cpu")
    with torch.no_grad():
        if family == "flux2_klein":
            return list(Flux2KleinPipeline._get_qwen3_prompt_embeds(model, processor, PROMPTS)), None
        if family == "z_image":
            return bare_pipeline(ZImagePipeline, own)._encode_prompt(list(PROMPTS), cpu), None
        if family == "qwen_image":
            states, mask = bare_pipeline(QwenImagePipeline, own)._get_qwen_prompt_embeds(PROMPTS, cpu, torch.float32)
            return [row[m.bool()] for row, m in zip(states, mask, strict=True)], None
        states, mask, slots = bare_pipeline(QwenImage21Pipeline, own)._get_qwen_prompt_embeds(PROMPTS, pictures, cpu)
    kept = mask.bool() & ~slots
    return [row[m] for row, m in zip(states, kept, strict=True)], slots[0].numpy()


@pytest.mark.parametrize(
    ("family", "sizes"),
    [("qwen_image_21", ()), ("qwen_image_21", SIZES), ("qwen_image", ()), ("z_image", ()), ("flux2_klein", ())],
)
def test_the_denoiser_is_given_what_diffusers_gives(family, sizes, tmp_path):
    module, config, model, params = make(family, tmp_path)
    rules, words = prompts.FAMILIES[family], Tokenizer("<|image_pad|>", prompts.PADDING)
    rules = dataclasses.replace(rules, multiple=8)  # the narrow tower's
    pixels = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    wanted, slots = diffusers_states(family, model, Processor(words), [Image.fromarray(x) for x in pixels] or None)

    rows = [prompts.read(rules, words, prompt, sizes) for prompt in PROMPTS]
    tokens, lengths, image_at = prompts.pack(rules, rows, pad=1)
    encode, images = module.encoder(config), {}
    if sizes:
        encode, images = partial(encode, image_at=image_at), {"images": tuple(x[None].repeat(2, 0) for x in pixels)}
    kept = prompts.kept(rules, rows[0], tokens.shape[1])
    states = np.asarray(jax.jit(encode)(params, tokens, lengths, **images))[:, kept]
    real = [len(kept)] * 2 if rules.padded else lengths - (tokens.shape[1] - len(kept))
    scale = max(float(w.std()) for w in wanted)  # dozens of random layers add up
    for ours, n, theirs in zip(states, real, wanted, strict=True):
        close(ours[:n] / scale, theirs.numpy() / scale)
    if sizes:
        assert prompts.reference_at(rules, rows[0]) == tuple(
            int((~slots[: at - rules.drop]).sum()) for at in rows[0].image_at
        )
