"""A converted model against PyTorch: the same random inputs through both frameworks. Needs the test extra (torch).

`CHECKS` has one function a model, ``check(config.json, parameters) -> largest error``, relative to the largest value of
PyTorch's result. PyTorch's weights are the converted ones, named by the table backwards: a table that swaps two weights
would give them their own names back, but not flashjax's function. Of a large model the first blocks are compared, with
everything around them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashjax import paths
from flashjax.convert import detect, manifest, open_weights, table_of
from flashjax.convert.planning import export, is_float
from flashjax.convert.reader import ConversionError
from flashjax.models import minilm, qwen_image_21

LIMIT = 400_000_000  # parameters that are compared in float32; a larger model is cut to its first two blocks
TOLERANCE = 1e-4  # several times what either framework's order of summation makes
BLOCKS = 2


def verify(folder: Path) -> str:
    """Compare a converted folder with PyTorch; returns what to tell the reader.

    Raises:
      ConversionError: the two differ by more than `TOLERANCE`.
    """
    model = manifest.read(folder)["model"]
    if model not in CHECKS:
        return f"{model} has no comparison with PyTorch (there is one for {', '.join(CHECKS)})"
    config = detect.read_config(folder / "config.json")
    error, compared = CHECKS[model](config, folder)
    told = f"the largest error against PyTorch is {error:.1e} of the largest value ({compared})"
    if not error <= TOLERANCE:
        raise ConversionError(f"{folder}: {told}; at most {TOLERANCE:.0e} is right, so the conversion is not.")
    return told


def _qwen_image_21(config: Mapping[str, Any], folder: Path) -> tuple[float, str]:
    import torch
    from diffusers import QwenImage21Transformer2DModel

    ours = qwen_image_21.Config.from_diffusers(
        config, dtype=jnp.float32, products=None, scan_layers=False, remat="none"
    )
    blocks, ours = _cut(ours, qwen_image_21.abstract)
    params = _read(folder, qwen_image_21.abstract(ours))
    theirs = QwenImage21Transformer2DModel.from_config({**config, "num_layers": ours.layers})
    _give(theirs, "qwen_image_21", params)
    rng = np.random.default_rng(0)
    text, z = (rng.normal(size=(2, *s)).astype(np.float32) for s in ((5, ours.context_dim), (4, 6, ours.in_channels)))
    t = rng.uniform(0.1, 1, 2).astype(np.float32)
    with torch.no_grad():
        expected = theirs(
            hidden_states=torch.tensor(z.reshape(2, 24, -1)),
            encoder_hidden_states=torch.tensor(text),
            timestep=torch.tensor(t),
            img_shapes=[[(1, 4, 6)]] * 2,
            img_mask=torch.tensor([False] * 5 + [True] * 6)[None].expand(2, -1),
        ).sample[:, -24:].numpy().reshape(z.shape)  # fmt: skip
    model = qwen_image_21.denoiser(ours)
    condition = qwen_image_21.Condition(text, np.full(2, 5, np.int32))
    found = _exactly(lambda p: model.velocity(p, model.condition(p, condition), z, t), params)
    return _error(found, expected), blocks


def _minilm(config: Mapping[str, Any], folder: Path) -> tuple[float, str]:
    import torch
    from transformers import BertConfig, BertModel

    ours = minilm.Config.from_transformers(config)
    params = _read(folder, minilm.abstract(ours))
    theirs = BertModel(BertConfig(**config), add_pooling_layer=False)
    _give(theirs, "minilm", params)
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, ours.vocab, (3, 12)).astype(np.int32), np.arange(12) < np.array([[12], [5], [1]])
    with torch.no_grad():
        inputs = dict(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
        expected = theirs(**inputs).last_hidden_state.numpy()
    found = _exactly(lambda p: minilm.encoder(ours)(p, ids, mask), params)
    return _error(found[mask], expected[mask]), "all blocks"


CHECKS: dict[str, Callable[[Mapping[str, Any], Path], tuple[float, str]]] = {
    "minilm": _minilm,
    "qwen_image_21": _qwen_image_21,
}


def _cut(config: Any, abstract: Callable[[Any], Any]) -> tuple[str, Any]:
    """What is compared, and the configuration of it."""
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(abstract(config)))
    if size <= LIMIT or config.layers <= BLOCKS:
        return "all blocks", config
    return f"the first {BLOCKS} of {config.layers} blocks", dataclasses.replace(config, layers=BLOCKS)


def _read(folder: Path, form: Mapping[str, Any]) -> dict[str, Any]:
    """Float32 parameters of this form; of a stack with more layers, the first."""
    reader = open_weights(folder)
    read = {name: reader.read(name, (0, leaf.shape[0])) for name, leaf in paths.flatten(form).items()}
    return paths.unflatten({n: a.astype(np.float32) if is_float(a.dtype) else a for n, a in read.items()})


def _give(model: Any, name: str, params: Mapping[str, Any]) -> None:
    """PyTorch's model gets the parameters under its own names, and is ready to be asked."""
    import torch

    tensors = {key: torch.tensor(make()) for key, make in export(table_of(name), params)[0].items()}
    missing = model.load_state_dict(tensors, strict=False, assign=True)
    if missing.unexpected_keys or missing.missing_keys:
        odd = [*missing.unexpected_keys, *missing.missing_keys]
        raise ConversionError(f"The table of {name} and PyTorch's model disagree about {', '.join(odd[:5])}.")
    model.eval()


def _exactly(function: Callable[[Any], jax.Array], params: Any) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(function)(params))


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())
