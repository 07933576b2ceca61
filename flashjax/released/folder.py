"""Reading the folder of a diffusers pipeline: everything is checked, no weight is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashjax import convert
from flashjax.convert import detect
from flashjax.errors import UserError
from flashjax.models import checks, prompts
from flashjax.released.drawing import Released
from flashjax.released.encoding import Encoder, Part, PictureEncoder
from flashjax.released.families import FAMILIES, Family

_DISTILLED = dict(steps=4, guidance_scale=1.0)  # what is_distilled in FLUX.2-klein's model_index.json stands for


def load(folder: str | Path, family: str | None = None, keep: bool = False) -> Released:
    """The model in a diffusers pipeline's folder: transformer/, vae/, text_encoder/, tokenizer/ or processor/,
    scheduler/. ``model_index.json`` names the family, unless ``family`` does. Networks compute in the dtype in which
    their weights are stored (bfloat16, else float32); autoencoders in float32.

    No weight is read, but names and shapes of all are checked. Raises UserError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}; --weights takes the folder of a diffusers pipeline.")
    index = _json(folder / "model_index.json") if family is None or (folder / "model_index.json").is_file() else {}
    name = _family(index, folder) if family is None else family
    if name not in FAMILIES:
        raise UserError(f"There is no family {name!r} of released models; there are {', '.join(FAMILIES)}.")
    about, scheduler, encoder = FAMILIES[name], _scheduler(folder), load_encoder(folder, name)
    denoiser, autoencoder = _part(folder, "transformer", about.denoiser), _part(folder, "vae", about.autoencoder)
    stride, defaults = _check_together(encoder.part, denoiser, autoencoder), _defaults(about, index, scheduler)
    # A student of flashjax that was put into the folder has a grid of its own.
    sigmas = None if "flashjax" in scheduler else index.get("sample_sigmas")
    return Released(name, about, encoder, denoiser, autoencoder, scheduler, defaults, sigmas, stride, keep)


def load_encoder(folder: str | Path, name: str) -> Encoder:
    """The condition encoder of a family, from a pipeline's folder, of which it takes text_encoder/ and tokenizer/ or
    processor/. No weight is read. Raises UserError."""
    folder = Path(folder)
    if name not in prompts.FAMILIES:
        raise UserError(f"There is no family {name!r} of released models; there are {', '.join(prompts.FAMILIES)}.")
    rules, tokenizer = prompts.FAMILIES[name], _tokenizer(folder)
    return Encoder(rules, _part(folder, "text_encoder", rules.encoder, **rules.settings), tokenizer)


def load_picture_encoder(folder: str | Path, name: str) -> PictureEncoder:
    """``load_encoder``, with the autoencoder in vae/."""
    encoder = load_encoder(folder, name)
    return PictureEncoder(encoder, _part(Path(folder), "vae", FAMILIES[name].autoencoder))


def _defaults(family: Family, index: Mapping[str, Any], scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """steps, guidance_scale and mode: the family's, unless the folder holds one of its students."""
    found = dict(steps=family.steps, guidance_scale=family.guidance_scale)
    if index.get("is_distilled"):
        found = _DISTILLED
    own = scheduler.get("flashjax", {}).get("sampling", {})  # what flashjax exported
    mode = "renoise" if scheduler.get("stochastic_sampling") else "euler"
    return {name: own.get(name, value) for name, value in found.items()} | dict(mode=mode)


def _family(index: Mapping[str, Any], folder: Path) -> str:
    known = {family.pipeline: name for name, family in FAMILIES.items()}
    found = detect.class_of(index)
    if found not in known:
        raise UserError(
            f"{folder} holds a {found or 'model without _class_name'}; there are {', '.join(known)}. --model names the "
            "family of another that is built alike."
        )
    return known[found]


def _part(folder: Path, inner: str, name: str, **settings) -> Part:
    """Reads config.json and the weights' names, shapes and dtype."""
    folder = folder / inner
    if not folder.is_dir():
        raise UserError(f"There is no {folder}; a pipeline's folder holds one.")
    found = _json(folder / "config.json")
    dtype = convert.stored_dtype(folder)
    dtype = dtype if dtype.name == "bfloat16" else np.dtype(np.float32)
    own = {} if inner == "vae" else dict(dtype=dtype, param_dtype=dtype)  # an autoencoder computes in float32
    with detect.about(folder / "config.json"):
        part = Part(name, folder, detect.sizes(name, found, **own, **settings), dtype)
    convert.check(name, folder, part.module.abstract(part.config))
    return part


def _check_together(encoder: Part, denoiser: Part, autoencoder: Part) -> int:
    """Pixels a side of a token. Raises UserError unless the three networks take what the others make."""
    states = len(encoder.config.features) * encoder.config.width
    if states != denoiser.config.context_dim:
        raise UserError(
            f"{encoder.folder} makes states of {states} channels, {denoiser.folder} takes "
            f"{denoiser.config.context_dim}."
        )
    channels = autoencoder.config.token_channels
    if channels != denoiser.config.in_channels:
        raise UserError(
            f"{autoencoder.folder} makes latents of {channels} channels, {denoiser.folder} takes "
            f"{denoiser.config.in_channels}."
        )
    return autoencoder.config.stride


def _scheduler(folder: Path) -> dict[str, Any]:
    file = folder / "scheduler" / "scheduler_config.json"
    config = checks.without_nulls(_json(file))
    if config.get("_class_name", "FlowMatchEulerDiscreteScheduler") != "FlowMatchEulerDiscreteScheduler":
        raise UserError(f"{file} is of a {config['_class_name']}; only FlowMatchEulerDiscreteScheduler is built.")
    odd = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas")
    if found := [name for name in odd if config.get(name)]:
        raise UserError(f"{file} has {found[0]}, which is not built.")
    if (shape := config.get("time_shift_type", "exponential")) not in ("exponential", "linear"):
        raise UserError(f"{file} has time_shift_type = {shape!r}, which should be exponential or linear.")
    return config


def _tokenizer(folder: Path) -> prompts.Tokenizer:
    places = [folder / name for name in ("tokenizer", "processor")]
    found = [place for place in places if (place / "tokenizer_config.json").is_file()]
    if not found:
        raise UserError(f"There is no tokenizer_config.json in {places[0]} or {places[1]}; a pipeline has one.")
    from transformers import AutoTokenizer  # slow to import

    with prompts.about_tokenizer(found[0]):
        # False, else whoever draws is asked whether to run the folder's own code
        fast = AutoTokenizer.from_pretrained(found[0], local_files_only=True, trust_remote_code=False)

    def tokenize(texts: list[str]) -> list[list[int]]:
        return fast(texts, truncation=False, add_special_tokens=False, verbose=False)["input_ids"]

    with prompts.about_tokenizer(found[0]):  # some settings are read when it is used
        prompts.token_id(tokenize, prompts.PADDING)
    return tokenize


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"There is no {file}; --weights takes the folder of a diffusers pipeline.")
    config = detect.read_config(file)
    with detect.about(file):
        checks.values(config)
    return config
