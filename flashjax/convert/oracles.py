"""PyTorch's models, built from a config.json and asked what ours are asked. Needs torch, diffusers and transformers.

``ORACLES`` has one function a model. Its PyTorch model has random weights until somebody gives it others.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flashjax.convert import MODELS, detect
from flashjax.models import pixels

_EXACT = dict(dtype=jnp.float32, param_dtype=jnp.float32, scan_layers=True)  # scanned: soon compiled
Answers = Iterator[tuple[np.ndarray, np.ndarray]]


class Oracle(NamedTuple):
    """``theirs``: a torch.nn.Module; ``form``: our parameters of the same model, abstract; ``compare(params)`` yields
    (our result, theirs) for every random input."""

    theirs: Any
    form: Any
    compare: Callable[[Any], Answers]


def _denoiser(
    name: str, ask: Callable, pictures: tuple[int, ...], config: Mapping[str, Any], *, late: bool = False
) -> Oracle:
    """``ask(theirs, condition, z, t)`` is PyTorch's velocity; ``pictures``: how many references there are. Times are
    those of small angles, which are t near 0 or (``late``) near 1: PyTorch's exponential misses the last bit of some
    frequencies, of others on other processors, and at 1000 radians large random weights made 2.4e-4 of it."""
    module, sizes = _module(name), detect.sizes(name, config, remat="none", **_EXACT)
    theirs, ours = _torch_class(name, config).from_config(dict(config)), module.denoiser(sizes)
    velocity = jax.jit(lambda params, cond, z, t: ours.velocity(params, ours.condition(params, cond), z, t))

    def compare(params: Any) -> Answers:
        for count in pictures:
            cond, z, t = _draw(module, sizes, count)
            t = 1 - t if late else t
            yield _exactly(velocity, params, cond, z, t), ask(theirs, cond, z, t)

    return Oracle(theirs, module.abstract(sizes), compare)


def _draw(module: Any, sizes: Any, references: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """(condition, z, t) of two samples: five words, pictures of 4 x 6 tokens, references of 2 x 4 after the third."""
    rng = np.random.default_rng(references)
    shapes = ((5, sizes.context_dim), (4, 6, sizes.in_channels), *[(2, 4, sizes.in_channels)] * references)
    text, z, *references = (rng.normal(size=(2, *shape)).astype(np.float32) for shape in shapes)
    given = dict(
        text=text, text_length=np.full(2, 5, np.int32), references=tuple(references),
        reference_at=(3,) * len(references),
    )  # fmt: skip
    cond = module.Condition(**{field.name: given[field.name] for field in dataclasses.fields(module.Condition)})
    return cond, z, rng.uniform(0.005, 0.02, 2).astype(np.float32)


def _qwen_image_21(theirs: Any, cond: Any, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    import torch

    # the encoder's image slots, a quarter of an image's tokens, stand within the text; what they hold does not matter
    states, slots, start = [], [], 0
    for image, at in zip((*cond.references, z), (*cond.reference_at, cond.text.shape[1]), strict=True):
        count = image.shape[1] * image.shape[2] // 4
        states += [cond.text[:, start:at], np.zeros((len(z), count if image is not z else 0, cond.text.shape[2]))]
        slots += [False] * (at - start) + [True] * count
        start = at
    images = (*cond.references, z)
    out = theirs(
        hidden_states=_tokens(images),
        encoder_hidden_states=torch.tensor(np.concatenate(states, axis=1, dtype=np.float32)),
        timestep=torch.tensor(t),
        img_shapes=[[(1, *x.shape[1:3]) for x in images]] * len(z),
        img_mask=torch.tensor(slots)[None].expand(len(z), -1),
    ).sample
    return out[:, -z.shape[1] * z.shape[2] :].reshape(z.shape).numpy()


def _qwen_image(theirs: Any, cond: Any, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    import torch

    images = (z, *cond.references)
    out = theirs(
        hidden_states=_tokens(images),
        encoder_hidden_states=torch.tensor(cond.text),
        timestep=torch.tensor(t),
        img_shapes=[[(1, *x.shape[1:3]) for x in images]] * len(z),
    ).sample
    return out[:, : z.shape[1] * z.shape[2]].reshape(z.shape).numpy()


def _flux2(theirs: Any, cond: Any, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    import torch
    from diffusers import Flux2KleinPipeline as Pipeline

    text, images = torch.tensor(cond.text), [_nchw(x) for x in (z, *cond.references)]
    ids = [Pipeline._prepare_latent_ids(images[0][:1])]
    if cond.references:
        ids.append(Pipeline._prepare_image_ids([x[:1] for x in images[1:]]))
    out = theirs(
        hidden_states=torch.cat([Pipeline._pack_latents(x) for x in images], dim=1),
        encoder_hidden_states=text,
        timestep=torch.tensor(t),
        img_ids=torch.cat(ids, dim=1),
        txt_ids=Pipeline._prepare_text_ids(text),
    ).sample
    return out[:, : z.shape[1] * z.shape[2]].reshape(z.shape).numpy()


def _z_image(theirs: Any, cond: Any, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    import torch

    latents = _nchw(pixels.decode(z, 2))[:, :, None]
    out = theirs(list(latents), torch.tensor(1 - t), list(torch.tensor(cond.text))).sample
    return -np.asarray(pixels.encode(_nhwc(torch.stack(out)[:, :, 0]), 2))


def _autoencoder(name: str, encode: Callable, decode: Callable, config: Mapping[str, Any]) -> Oracle:
    """``encode(theirs, pictures)`` and ``decode(theirs, latents)`` are PyTorch's, pictures NHWC and latents packed."""
    module, sizes = _module(name), detect.sizes(name, config)
    theirs = _torch_class(name, config).from_config(dict(config))
    ours_encode, ours_decode = (jax.jit(function) for function in module.autoencoder(sizes))

    def compare(params: Any) -> Answers:
        images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 96, sizes.channels)).astype(np.float32)
        latents = _exactly(ours_encode, params, images)
        yield latents, encode(theirs, images)
        yield _exactly(ours_decode, params, latents), np.clip(decode(theirs, latents), -1, 1)

    return Oracle(theirs, module.abstract(sizes), compare)


def _encode_21(theirs: Any, images: np.ndarray) -> np.ndarray:
    mean, std = _statistics(theirs)
    return _nhwc(((theirs.encode(_nchw(images)[:, :, None]).latent_dist.mode() - mean) / std)[:, :, 0])


def _decode_21(theirs: Any, latents: np.ndarray) -> np.ndarray:
    mean, std = _statistics(theirs)
    return _nhwc(theirs.decode(_nchw(latents)[:, :, None] * std + mean).sample[:, :, 0])


def _encode_qwen(theirs: Any, images: np.ndarray) -> np.ndarray:
    from diffusers import QwenImagePipeline

    mean, std = _statistics(theirs)
    z = (theirs.encode(_nchw(images)[:, :, None]).latent_dist.mode() - mean) / std
    b, c, _, h, w = z.shape
    return QwenImagePipeline._pack_latents(z, b, c, h, w).reshape(b, h // 2, w // 2, -1).numpy()


def _decode_qwen(theirs: Any, latents: np.ndarray) -> np.ndarray:
    from diffusers import QwenImagePipeline

    mean, std = _statistics(theirs)
    _, h, w, _ = latents.shape
    z = QwenImagePipeline._unpack_latents(_tokens([latents]), 2 * h, 2 * w, 1)
    return _nhwc(theirs.decode(z * std + mean).sample[:, :, 0])


def _statistics(theirs: Any) -> list[Any]:
    import torch

    return [torch.tensor(x).view(1, -1, 1, 1, 1) for x in (theirs.config.latents_mean, theirs.config.latents_std)]


def _encode_kl(theirs: Any, images: np.ndarray) -> np.ndarray:
    from diffusers import Flux2KleinPipeline

    z = theirs.encode(_nchw(images)).latent_dist.mode()
    if hasattr(theirs, "bn"):
        mean, std = _batch_norm(theirs)
        return _nhwc((Flux2KleinPipeline._patchify_latents(z) - mean) / std)
    z = (z - theirs.config.shift_factor) * theirs.config.scaling_factor
    return np.asarray(pixels.encode(_nhwc(z), 2))


def _decode_kl(theirs: Any, latents: np.ndarray) -> np.ndarray:
    from diffusers import Flux2KleinPipeline

    if hasattr(theirs, "bn"):
        mean, std = _batch_norm(theirs)
        return _nhwc(theirs.decode(Flux2KleinPipeline._unpatchify_latents(_nchw(latents) * std + mean)).sample)
    z = _nchw(pixels.decode(latents, 2)) / theirs.config.scaling_factor + theirs.config.shift_factor
    return _nhwc(theirs.decode(z).sample)


def _batch_norm(theirs: Any) -> tuple[Any, Any]:
    std = (theirs.bn.running_var + theirs.config.batch_norm_eps) ** 0.5
    return theirs.bn.running_mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)


def _encoder(name: str, images: tuple[int, ...], config: Mapping[str, Any]) -> Oracle:
    """``images``: how many stand among the tokens; each is 2 x 3 slots."""
    import torch
    import transformers

    module, sizes = _module(name), detect.sizes(name, config, **_EXACT)
    # without the head that predicts tokens, which flashjax does not convert
    cls = getattr(transformers, next(c for c in MODELS[name].CLASSES if c.endswith("Model")))
    theirs = cls(cls.config_class.from_dict(dict(config)))
    if not sizes.final_norm:
        getattr(theirs, "language_model", theirs).norm = torch.nn.Identity()
    states = jax.jit(module.encoder(sizes), static_argnames=("image_at",) if max(images) else ())

    def compare(params: Any) -> Answers:
        for count in images:
            rng, at = np.random.default_rng(count), tuple(3 + 9 * i for i in range(count))
            tokens = rng.integers(1, sizes.vocab - 2, (2, 5 + 9 * count))
            for start in at:
                tokens[:, start : start + 6] = sizes.vocab - 1
            pictures = _draw_pictures(sizes, rng, count)
            given = dict(images=pictures, image_at=at) if count else {}
            found = _exactly(states, params, tokens, np.full(2, tokens.shape[1]), **given)
            given = _patches(module, sizes, pictures, tokens) if count else {}
            yield found, theirs(input_ids=torch.tensor(tokens), **given).last_hidden_state.numpy()

    return Oracle(theirs, module.abstract(sizes), compare)


def _draw_pictures(sizes: Any, rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    side = sizes.vision.patch * sizes.vision.merge if count else 0
    return tuple(rng.integers(0, 256, (2, 2 * side, 3 * side, 3), dtype=np.uint8) for _ in range(count))


def _patches(module: Any, sizes: Any, images: tuple[np.ndarray, ...], tokens: np.ndarray) -> dict[str, Any]:
    """What transformers is given of images, as its own processor cuts them; the last word of the vocabulary stands for
    a slot."""
    import torch
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    cut = Qwen2VLImageProcessorPil(
        patch_size=sizes.vision.patch, merge_size=sizes.vision.merge, temporal_patch_size=2,
        image_mean=module.MEAN, image_std=module.STD,
    )  # fmt: skip
    rows = [image[i] for i in range(len(tokens)) for image in images]
    given = cut(images=rows, do_resize=False, input_data_format="channels_last", return_tensors="pt")
    return {**given, "mm_token_type_ids": torch.tensor(tokens == sizes.vocab - 1).int()}


def _minilm(config: Mapping[str, Any]) -> Oracle:
    import torch
    from transformers import BertConfig, BertModel

    sizes, module = detect.sizes("minilm", config), _module("minilm")
    states = jax.jit(module.encoder(sizes))
    theirs = BertModel(BertConfig(**config), add_pooling_layer=False)

    def compare(params: Any) -> Answers:
        ids = np.random.default_rng(0).integers(0, sizes.vocab, (3, 12)).astype(np.int32)
        mask = np.arange(12) < np.array([[12], [5], [1]])
        inputs = dict(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
        yield _exactly(states, params, ids, mask)[mask], theirs(**inputs).last_hidden_state.numpy()[mask]

    return Oracle(theirs, module.abstract(sizes), compare)


ORACLES: dict[str, Callable[[Mapping[str, Any]], Oracle]] = {
    "flux2": partial(_denoiser, "flux2", _flux2, (0, 2)),
    "minilm": _minilm,
    "qwen25_vl": partial(_encoder, "qwen25_vl", (0, 2)),
    "qwen3": partial(_encoder, "qwen3", (0,)),
    "qwen3_vl": partial(_encoder, "qwen3_vl", (0, 2)),
    "qwen_image": partial(_denoiser, "qwen_image", _qwen_image, (0, 2)),
    "qwen_image_21": partial(_denoiser, "qwen_image_21", _qwen_image_21, (0, 2)),
    "vae_kl": partial(_autoencoder, "vae_kl", _encode_kl, _decode_kl),
    "vae_qwen_image": partial(_autoencoder, "vae_qwen_image", _encode_qwen, _decode_qwen),
    "vae_qwen_image_21": partial(_autoencoder, "vae_qwen_image_21", _encode_21, _decode_21),
    "z_image": partial(_denoiser, "z_image", _z_image, (0,), late=True),
}


def _module(name: str) -> Any:
    return importlib.import_module(f"flashjax.models.{name}")


def _torch_class(name: str, config: Mapping[str, Any]) -> Any:
    import diffusers

    known = MODELS[name].CLASSES
    found = detect.class_of(config)  # none where --model named the model
    return getattr(diffusers, found if found in known else known["batch_norm_eps" in config])


def _exactly(function: Callable, *arguments: Any, **named: Any) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
        return np.asarray(function(*arguments, **named))


def _tokens(images: Any) -> Any:
    """Images [B, h, w, C] one after the other, [B, tokens, C]."""
    import torch

    return torch.tensor(np.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in images], axis=1))


def _nchw(x: Any) -> Any:
    import torch

    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2).contiguous()


def _nhwc(x: Any) -> np.ndarray:
    return x.permute(0, 2, 3, 1).contiguous().numpy()
