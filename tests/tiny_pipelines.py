"""Whole pipelines of diffusers with random weights: narrow, but with as many layers as the prompts' rules name and as
many levels as the released autoencoders have. Each is written to a folder as the released ones are."""

import dataclasses
import json

import test_qwen3
import test_qwen3_vl
import test_qwen25_vl
from autoencoders import soften
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from parity import randomise
from test_prompts import words
from test_vae_kl import levels
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen3ForCausalLM,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from flashjax.models import flux2, prompts, qwen3, qwen3_vl, qwen25_vl, qwen_image, qwen_image_21, z_image

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "<think>", "</think>",
)  # fmt: skip
TEXTS = ("a red fox", "a very red fox in the snow", "blurred", "0123456789 Picture : <image> ")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if m.content is string else m.content[0].text }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QWEN_SCHEDULER = dict(
    use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=8192, base_shift=0.5, max_shift=0.9,
    shift_terminal=0.02,
)  # fmt: skip
_LATENTS = dict(latents_mean=[0.3, -0.2, 0.1, 0.5], latents_std=[1.5, 0.8, 2.0, 1.1])
VAE_21 = dict(
    base_dim=2, decoder_base_dim=3, z_dim=4, dim_mult=[1, 2, 4, 8, 8], num_res_blocks=1,
    temperal_downsample=[False, True, True, True], **_LATENTS,
)  # fmt: skip
VAE = dict(
    base_dim=4, z_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=1, temperal_downsample=[False, True, True], **_LATENTS
)
VAE_KL = levels(2, 4, 6, 6, layers_per_block=1, norm_num_groups=2, latent_channels=3)
VAE_Z = VAE_KL | dict(scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False, use_post_quant_conv=False)
# pipeline, transformer and its class, channels of its latents, autoencoder's class and settings, scheduler
_QWEN_IMAGE = (qwen_image, QwenImageTransformer2DModel, 16, AutoencoderKLQwenImage, VAE, QWEN_SCHEDULER)
FAMILIES = {
    "qwen_image_21": (
        QwenImage21Pipeline, qwen_image_21, QwenImage21Transformer2DModel, 4, AutoencoderKLQwenImage21, VAE_21,
        QWEN_SCHEDULER,
    ),
    "qwen_image": (QwenImagePipeline, *_QWEN_IMAGE),
    "qwen_image_edit": (QwenImageEditPipeline, *_QWEN_IMAGE),
    "qwen_image_edit_plus": (QwenImageEditPlusPipeline, *_QWEN_IMAGE),
    "z_image": (ZImagePipeline, z_image, ZImageTransformer2DModel, 12, AutoencoderKL, VAE_Z, dict(shift=6.0)),
    "flux2_klein": (
        Flux2KleinPipeline, flux2, Flux2Transformer2DModel, 12, AutoencoderKLFlux2, VAE_KL,
        dict(use_dynamic_shifting=True, shift=3.0),
    ),
}  # fmt: skip
ENCODERS = {
    "qwen3": (qwen3, test_qwen3, Qwen3ForCausalLM, 36, {}),
    "qwen3_vl": (qwen3_vl, test_qwen3_vl, Qwen3VLForConditionalGeneration, 36, dict(patch=16)),
    "qwen25_vl": (qwen25_vl, test_qwen25_vl, Qwen2_5_VLForConditionalGeneration, 28, dict(patch=14, window=112)),
}
PROCESSORS = {"qwen3_vl": Qwen3VLProcessor, "qwen25_vl": Qwen2_5_VLProcessor}


def make(family: str, folder, **sizes):
    """diffusers' pipeline of a family, which is also written to ``folder``; ``sizes`` of its denoiser."""
    pipeline, module, cls, channels, vae_cls, vae, scheduler = FAMILIES[family]
    rules, words_ = prompts.FAMILIES[family], tokenizer()
    encoder = _encoder(rules, words_)
    states = len(rules.features) * _width(encoder)
    config = module.Config.tiny(in_channels=channels, context_dim=states, **sizes)
    parts = dict(
        transformer=randomise(cls.from_config(config.to_diffusers()), 1, centred=("txt_in.text_norm",)),
        vae=soften(randomise(vae_cls(**vae), 2)),
        text_encoder=encoder,
        scheduler=FlowMatchEulerDiscreteScheduler(**scheduler),
    )
    if family != "qwen_image_21":
        parts["tokenizer"] = words_
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    if family in ("qwen_image_21", "qwen_image_edit", "qwen_image_edit_plus"):
        parts["processor"] = _processor(rules, words_)
        words_.save_pretrained(folder / "processor")
    (folder / "model_index.json").write_text(json.dumps(dict(_class_name=pipeline.__name__)))
    made = pipeline(**parts)
    made.set_progress_bar_config(disable=True)
    return made


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of Qwen's own splitting; "Comprehend" is three, as Qwen's vocabulary has it."""
    rules = prompts.FAMILIES.values()
    known = [word for text in (*TEXTS, *(rule.template + rule.image for rule in rules)) for word in words(text)]
    pieces = dict.fromkeys([*SPECIAL, "?", "Com", "pre", "hend", *known])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.Split(Regex("Com(?=prehend)|pre(?=hend)"), behavior="isolated"),
        ]
    )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=SPECIAL[0], chat_template=CHAT)


def _encoder(rules: prompts.Family, words_):
    module, test, cls, layers, vision = ENCODERS[rules.encoder]
    own = dict(vision=dataclasses.replace(module.Config.tiny().vision, **vision)) if vision else {}
    config = module.Config.tiny(layers=layers, vocab=len(words_), **rules.settings, **own)
    settings = test.torch_config(config)
    settings.image_token_id, settings.video_token_id = words_.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    model = randomise(cls(settings))
    if vision:
        model.register_forward_pre_hook(_say_where_images_are, with_kwargs=True)
    return model


def _say_where_images_are(model, inputs, named):
    """Qwen-Image's edit pipelines forget to, and under transformers 5 the encoder then gives all tokens of an image
    positions as if they were words (https://github.com/huggingface/diffusers/issues/14194)."""
    return inputs, named | dict(mm_token_type_ids=(named["input_ids"] == model.config.image_token_id).int())


def _width(encoder) -> int:
    config = encoder.config
    return getattr(config, "text_config", config).hidden_size


def _processor(rules: prompts.Family, words_):
    class Processor(PROCESSORS[rules.encoder]):
        """Without the part for videos, which needs torchvision."""

        def check_argument_for_proper_class(self, name, argument):
            return type(argument)

    module = ENCODERS[rules.encoder][0]
    images = Qwen2VLImageProcessorPil(
        patch_size=rules.multiple // 2, merge_size=2, temporal_patch_size=2, image_mean=module.MEAN,
        image_std=module.STD, size=dict(shortest_edge=rules.multiple**2, longest_edge=2**24),
    )  # fmt: skip
    return Processor(image_processor=images, tokenizer=words_, video_processor=None, chat_template=CHAT)
