"""LoRA files: read in any of three spellings, merged into weights while they are converted, and written in two.

    PEFT, diffusers   transformer.transformer_blocks.0.attn.to_q.lora_A.weight      or with base_model.model. in front
    kohya             lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight     with .alpha
    ComfyUI           diffusion_model.transformer_blocks.0.attn.to_q.lora_A.weight  with .alpha

A weight W becomes W + scale B A with A (or down) [rank, in] and B (or up) [out, rank]; scale is alpha / rank, or 1
where no alpha is told. Which weights there are is taken from the model: a kohya name says "_" for ".", and nothing else
tells which were dots.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flashjax.convert.arrays import WINDOW, finite
from flashjax.convert.planning import is_float
from flashjax.convert.reader import ConversionError, Reader, Spec
from flashjax.convert.sources import open_weights
from flashjax.convert.writer import write_arrays

PREFIXES = ("base_model.model.", "model.", "diffusion_model.", "transformer.", "unet.")
_FLAT = re.compile(r"(?:lora_unet|lora_transformer|lycoris)_(.+)")
_DOWN, _UP = (
    re.compile(rf"(.+)[.](?:lora_{a}|lora_{b}|lora[.]{b}|lora_linear_layer[.]{b})(?:[.]default\w*)*(?:[.]weight)?")
    for a, b in (("A", "down"), ("B", "up"))
)
_ALPHA = re.compile(r"(.+)[.]alpha")
_METADATA = "lora_adapter_metadata"  # diffusers' key in the header: a LoraConfig in JSON


class Factors(NamedTuple):
    """One weight's change, scale B A: ``a`` float32 [rank, in, ...], ``b`` float32 [out, rank, ...]."""

    a: np.ndarray
    b: np.ndarray
    scale: float


class _Place(NamedTuple):
    down: str
    up: str
    scale: float


class Lora(Mapping[str, Factors]):
    """{PyTorch name of a weight: Factors}; factors are read from the file when they are asked for."""

    def __init__(self, reader: Reader, places: Mapping[str, _Place]):
        self._reader, self._places = reader, places
        self.file = reader.place

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, weight: str) -> Factors:
        down, up, scale = self._places[weight]
        a, b = (self._reader.read(name) for name in (down, up))
        for name, array in ((down, a), (up, b)):
            if not finite(array):
                raise ConversionError(f"{name} in {self.file} holds NaN or infinite values; the LoRA is damaged.")
        return Factors(a.astype(np.float32), b.astype(np.float32), scale)


def read(path: str | Path, weights: Mapping[str, Spec]) -> Lora:
    """Open a LoRA of the model whose PyTorch weights are given.

    Args:
      path: a .safetensors file in one of the three spellings.
      weights: {PyTorch name: (shape, dtype)} of the model, for instance `Reader.shapes`.

    Raises:
      ConversionError: the file is no plain LoRA, is incomplete, or of another model; the first tensors that do not fit
        are named.
    """
    reader = open_weights(path)
    downs, ups, alphas = ({m[1]: name for name in reader if (m := p.fullmatch(name))} for p in (_DOWN, _UP, _ALPHA))
    if other := set(reader) - {name for found in (downs, ups, alphas) for name in found.values()}:
        raise ConversionError(f"{path} is no plain LoRA: it holds {_some(other)}, which cannot be merged here.")
    if odd := set(downs) ^ set(ups) or set(alphas) - set(downs):
        raise ConversionError(f"{path} is incomplete: {_some(odd)} lacks its A (down) or its B (up).")
    if not downs:
        raise ConversionError(f"{path} holds no LoRA.")
    names = {module: _weight_of(module, weights) for module in downs}
    misfits = [
        downs[module]
        for module, name in names.items()
        if name is None or not _fits(weights[name], *(reader.shapes()[part[module]].shape for part in (downs, ups)))
    ]
    if misfits:
        raise ConversionError(
            f"{path} is a LoRA of another model: {len(misfits)} of its {len(downs)} parts do not fit, {_some(misfits)}."
        )
    if len(set(names.values())) < len(names):
        raise ConversionError(f"{path} changes a weight twice, under names of two spellings; keep one.")
    config = _config(reader, Path(path))
    places = {}
    for module, name in names.items():
        rank = reader.shapes()[downs[module]].shape[0]
        alpha = float(reader.read(alphas[module]).reshape(-1)[0]) if module in alphas else None
        scale = alpha / rank if alpha is not None else _scale(config, name.removesuffix(".weight"), rank)
        places[name] = _Place(downs[module], ups[module], scale)
    return Lora(reader, places)


def is_lora(reader: Reader) -> bool:
    """Whether a file holds a LoRA rather than weights."""
    return any(_DOWN.fullmatch(name) for name in reader)


def spelling(reader: Reader) -> str:
    """Whose names a LoRA's file has."""
    if any(_FLAT.fullmatch(name.split(".")[0]) for name in reader):
        return "kohya"
    return "ComfyUI" if any(name.startswith("diffusion_model.") for name in reader) else "PEFT/diffusers"


def ranks(reader: Reader) -> set[int]:
    """All ranks in a LoRA's file."""
    return {spec.shape[0] for name, spec in reader.shapes().items() if _DOWN.fullmatch(name) and spec.shape}


def modules(reader: Reader) -> list[str]:
    """The layers that a LoRA changes, named as in the file."""
    return sorted(found[1] for name in reader if (found := _DOWN.fullmatch(name)))


def _some(names: Any) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _weight_of(module: str, weights: Mapping[str, Spec]) -> str | None:
    if flat := _FLAT.fullmatch(module):
        found = [name for name in weights if name.removesuffix(".weight").replace(".", "_") == flat[1]]
        return found[0] if len(found) == 1 else None
    for prefix in ("", *PREFIXES):
        module = module.removeprefix(prefix)
        if f"{module}.weight" in weights:
            return f"{module}.weight"
    return None


def _fits(weight: Spec, a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """A [rank, in, ...] and B [out, rank, 1, ...] for a weight [out, in, ...]."""
    return (
        is_float(weight.dtype) and len(weight.shape) == len(a) == len(b) >= 2
        and a[0] == b[1] > 0 and (b[0], *a[1:]) == weight.shape and math.prod(b[2:]) == 1
    )  # fmt: skip


def _config(reader: Reader, path: Path) -> dict[str, Any]:
    """The LoraConfig in the header (diffusers) or beside the file (PEFT); empty where there is none."""
    text = reader.metadata.get(_METADATA)
    beside = path.parent / "adapter_config.json"
    if text is None and beside.is_file():
        text = beside.read_text()
    try:
        found = json.loads(text or "{}")
        config = {key.removeprefix("transformer."): value for key, value in found.items()}
        float(config.get("lora_alpha") or 0), dict(config.get("alpha_pattern") or {})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConversionError(f"The LoRA configuration of {path} is no readable JSON; fetch it again.") from error
    return config


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = config.get("lora_alpha")
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if module == pattern or module.endswith(f".{pattern}"):
            alpha = value
    if alpha is None:
        return 1.0
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


class Merged(Reader):
    """A reader whose weights are changed by LoRAs, each with a strength. Products and sums are in float32, and rounded
    once to the weight's own dtype."""

    def __init__(self, reader: Reader, loras: Sequence[tuple[Mapping[str, Factors], float]]):
        super().__init__({name: reader.entry(name) for name in reader}, reader.metadata, reader.place)
        self._loras = loras

    def read(self, name: str, rows: tuple[int, int] | None = None) -> np.ndarray:
        out = super().read(name, rows)
        changes = [(lora[name], strength) for lora, strength in self._loras if name in lora]
        at = rows[0] if rows else 0
        step = max(1, WINDOW // max(4 * out[:1].size, 1)) if changes else 1
        for first in range(0, len(out) if changes else 0, step):
            piece = out[first : first + step].astype(np.float32)
            for (a, b, scale), strength in changes:
                part = b[at + first : at + first + len(piece)].reshape(len(piece), -1) * np.float32(scale * strength)
                piece += (part @ a.reshape(len(a), -1)).reshape(piece.shape)
            out[first : first + step] = piece.astype(out.dtype)
        return out


def write(path: str | Path, factors: Mapping[str, Factors], spelling: str, dtype: Any = ml_dtypes.bfloat16) -> None:
    """Write a LoRA of a denoiser for other tools.

    Args:
      path: the .safetensors file.
      factors: {PyTorch name of a weight, ending in ".weight": Factors}.
      spelling: "diffusers": B takes up the scale, so that alpha is the rank; it stands in the header, where PEFT wants
        it, but tools that do not look there apply the same change. "comfyui": alpha beside every pair.
      dtype: of A and B.
    """
    if spelling not in ("diffusers", "comfyui"):
        raise ValueError(f"A LoRA is spelled 'diffusers' or 'comfyui', not {spelling!r}.")
    arrays: dict[str, np.ndarray] = {}
    for weight, (a, b, scale) in factors.items():
        name = f"{'transformer' if spelling == 'diffusers' else 'diffusion_model'}.{weight.removesuffix('.weight')}"
        arrays[f"{name}.lora_A.weight"] = a.astype(dtype)
        arrays[f"{name}.lora_B.weight"] = (b * np.float32(scale) if spelling == "diffusers" else b).astype(dtype)
        if spelling == "comfyui":
            arrays[f"{name}.alpha"] = np.float32(scale * len(a))
    metadata = {_METADATA: json.dumps(_peft_config(factors))} if spelling == "diffusers" else {}
    write_arrays(path, arrays, {"format": "pt", **metadata})


def _peft_config(factors: Mapping[str, Factors]) -> dict[str, Any]:
    ranks = {weight.removesuffix(".weight"): len(each.a) for weight, each in factors.items()}
    usual = max(ranks.values(), key=list(ranks.values()).count)
    others = {module: rank for module, rank in ranks.items() if rank != usual}
    config = dict(r=usual, lora_alpha=usual, rank_pattern=others, alpha_pattern=others, target_modules=sorted(ranks))
    return {f"transformer.{key}": value for key, value in config.items()}
