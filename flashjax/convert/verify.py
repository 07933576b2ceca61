"""A converted model against PyTorch: the same random inputs through both frameworks. Needs the test extra (torch).

PyTorch's weights are the converted ones, named by the table backwards: a table that swaps two weights would give them
their own names back, but not flashjax's function. Of a large model the first layers are compared, with everything
around them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flashjax import paths
from flashjax.convert import detect, manifest, table_of
from flashjax.convert.oracles import ORACLES
from flashjax.convert.planning import export, is_float
from flashjax.convert.reader import ConversionError

LIMIT = 400_000_000  # parameters that are compared in float32; a larger model is cut to the first layers of every kind
TOLERANCE = 1e-4  # several times what either framework's order of summation makes
BLOCKS = 2
WORDS = 1000  # of the vocabulary of an encoder that is cut


def verify(folder: Path) -> str:
    """Compare a converted folder with PyTorch; returns what to tell the reader.

    Raises:
      ConversionError: the two differ by more than `TOLERANCE` of the largest value of PyTorch's result.
    """
    import torch

    if (model := manifest.read(folder)["model"]) not in ORACLES:
        raise ConversionError(f"{folder / manifest.NAME} is of {model!r}, no model of flashjax's; convert it again.")
    whole = detect.read_config(folder / "config.json")
    config = _cut(model, whole)
    oracle = ORACLES[model](config)
    params = _read(folder, oracle.form)
    _give(oracle.theirs, model, params)
    errors = []
    with torch.no_grad():
        for ours, theirs in oracle.compare(params):
            if not np.isfinite(theirs).all():
                why = "PyTorch's own result is not finite, as weights are NaN, infinite or too large"
                raise ConversionError(f"{folder}: {why}, so that nothing can be compared.")
            errors.append(_error(ours, theirs))
    worst = float(np.max(errors))  # Python's max passes over a NaN
    told = f"the largest error against PyTorch is {worst:.1e} of the largest value"
    told += f" ({len(errors)} random inputs, {', '.join(_changes(whole, config)) or 'all layers'})"
    if not worst <= TOLERANCE:
        raise ConversionError(f"{folder}: {told}; at most {TOLERANCE:.0e} is right, so the conversion is not.")
    return told


# What a config.json calls what is cut: layers of the denoisers, and of the encoders.
_LAYERS = {
    "flux2": ("num_layers", "num_single_layers"),
    "qwen_image": ("num_layers",),
    "qwen_image_21": ("num_layers",),
    "z_image": ("n_layers", "n_refiner_layers"),
}
_ENCODERS = ("qwen3", "qwen3_vl", "qwen25_vl")
_CUT = {name for names in _LAYERS.values() for name in names} | {"num_hidden_layers", "depth", "vocab_size"}


def _cut(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of what is compared of a model: itself, unless the model is large."""
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(detect.form(model, config)))
    if model in _ENCODERS:
        return _cut_encoder(model, config, large=size > LIMIT)
    short = {name: min(config[name], BLOCKS) for name in _LAYERS.get(model, ())} if size > LIMIT else {}
    return {**config, **short}


def _cut_encoder(model: str, config: Mapping[str, Any], large: bool) -> dict[str, Any]:
    """Also free of tokens that have a meaning: the last word of the vocabulary stands for a slot of an image."""
    text, vision = dict(config.get("text_config") or config), dict(config.get("vision_config") or {})
    if large:
        text["vocab_size"] = min(text["vocab_size"], WORDS)
        vision, layers = _cut_vision(model, vision)
        text["num_hidden_layers"] = min(text["num_hidden_layers"], max(BLOCKS, layers))
        text.pop("layer_types", None)
    text |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    slots = dict(image_token_id=text["vocab_size"] - 1, video_token_id=text["vocab_size"] - 2)
    if model == "qwen3":
        return text
    return {**config, **(dict(text_config=text) if "text_config" in config else text), "vision_config": vision, **slots}


def _cut_vision(model: str, vision: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The tower up to its first layer of the rare kind, and how many layers of the language model that takes."""
    rare = {"qwen3_vl": "deepstack_visual_indexes", "qwen25_vl": "fullatt_block_indexes"}.get(model)
    if rare is None or not vision.get(rare):
        return vision, 1
    first = vision[rare][0]
    return {**vision, "depth": first + 1, rare: [first]}, 2 if model == "qwen3_vl" else 1


def _changes(whole: Mapping[str, Any], cut: Mapping[str, Any]) -> Iterator[str]:
    """What was cut, in the words of config.json."""
    for name, value in cut.items():
        if isinstance(value, Mapping):
            yield from _changes(whole[name], value)
        elif name in _CUT and value != whole[name]:
            yield f"{name} {value} of {whole[name]}"


def _read(folder: Path, form: Mapping[str, Any]) -> dict[str, Any]:
    """Float32 parameters of this form; of a stack with more layers, the first, and of a vocabulary likewise."""
    reader = manifest.weights(folder)
    read = {name: reader.read(name, (0, leaf.shape[0])) for name, leaf in paths.flatten(form).items()}
    return paths.unflatten({n: a.astype(np.float32) if is_float(a.dtype) else a for n, a in read.items()})


def _give(model: Any, name: str, params: Mapping[str, Any]) -> None:
    """PyTorch's model gets the parameters under its own names, and is ready to be asked."""
    import torch

    table, known = table_of(name), model.state_dict().keys()
    makers: dict[str, Callable[[], np.ndarray]] = export(table, params)[0]
    # a transformers model without its head has no "model." in front
    tensors = {key if key in known else key.removeprefix("model."): make for key, make in makers.items()}
    told = model.load_state_dict(
        {key: torch.from_numpy(make()) for key, make in tensors.items()}, strict=False, assign=True
    )
    dropped = [drop.source for drop in table.drops]
    missing = [key for key in told.missing_keys if not any(re.fullmatch(pattern, key) for pattern in dropped)]
    if odd := [*told.unexpected_keys, *missing]:
        raise ConversionError(f"The table of {name} and PyTorch's model disagree about {', '.join(odd[:5])}.")
    model.eval()


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, of the largest value; of nothing but zeros (a new network's output) as it is."""
    apart, largest = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    return apart / largest if largest else apart
