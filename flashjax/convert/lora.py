"""LoRA files: read in any of three spellings, merged into weights while they are converted, and written in two.

    PEFT, diffusers   transformer.transformer_blocks.0.attn.to_q.lora_A.weight      or with base_model.model. in front
    kohya             lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight     with .alpha
    ComfyUI           diffusion_model.transformer_blocks.0.attn.to_q.lora_A.weight  with .alpha, or nothing in front

The latter two may also have the names of the authors' own implementation (``Table.native``), where one layer can be
several weights: ``diffusion_model.double_blocks.0.img_attn.qkv``.

A weight W becomes W + scale B A with A (or down) [rank, in] and B (or up) [out, rank]; scale is alpha / rank, or 1
where no alpha is told. Which weights there are is taken from the model: a kohya name says "_" for ".", and nothing else
tells which were dots.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from flashjax.convert.arrays import WINDOW, finite
from flashjax.convert.planning import is_float
from flashjax.convert.reader import ConversionError, Reader, Spec
from flashjax.convert.sources import open_weights
from flashjax.convert.table import Rule, Table
from flashjax.convert.writer import write_arrays

PREFIXES = ("base_model.model.", "model.", "diffusion_model.", "transformer.", "unet.")
_FLAT = re.compile(r"(?:lora_unet|lora_transformer|lycoris)_(.+)")
_DOWN, _UP = (
    re.compile(rf"(.+)[.](?:lora_{a}|lora_{b}|lora[.]{b}|lora_linear_layer[.]{b})(?:[.]default\w*)*(?:[.]weight)?")
    for a, b in (("A", "down"), ("B", "up"))
)
_OF_TEXT_ENCODER = re.compile(r"(?:base_model[.]model[.])?(?:lora_te\d*_|text_encoders?(?:_\d+)?[._])")
_ALPHA = re.compile(r"(.+)[.]alpha")
_METADATA = "lora_adapter_metadata"  # diffusers' key in the header: a LoraConfig in JSON


class Factors(NamedTuple):
    """One weight's change, scale B A: ``a`` float32 [rank, in, ...], ``b`` float32 [out, rank, ...]."""

    a: np.ndarray
    b: np.ndarray
    scale: float


class _Place(NamedTuple):
    """``rows``: [first, end) of B, which may be several weights' one after the other."""

    down: str
    up: str
    rows: tuple[int, int]
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
        down, up, rows, scale = self._places[weight]
        a, b = self._reader.read(down), self._reader.read(up, rows)
        for name, array in ((down, a), (up, b)):
            if not finite(array):
                raise ConversionError(f"{name} in {self.file} holds NaN or infinite values; the LoRA is damaged.")
        return Factors(a.astype(np.float32), b.astype(np.float32), scale)


def read(
    path: str | Path, weights: Mapping[str, Spec], native: Sequence[Rule] = (), today: Callable[[str], str] = str
) -> Lora:
    """Open a LoRA of the model whose PyTorch weights are given.

    Args:
      path: a .safetensors file in one of the three spellings, or a folder with one.
      weights: {PyTorch name: (shape, dtype)} of the model, for instance `Reader.shapes`.
      native, today: of the model's `Table`.

    Raises:
      ConversionError: the file is no plain LoRA, is incomplete, of another model, or of a text encoder too; the first
        tensors that do not fit are named.
    """
    downs, ups, alphas = pairs(reader := open_weights(path))
    known, shapes = _layers(weights, native), reader.shapes()
    layers = {module: _layer_of(module, known, today) for module in downs}

    def fits(module: str) -> bool:
        changed = [weights[name] for name in known.get(layers[module], ())]
        return _fits(changed, shapes[downs[module]], shapes[ups[module]])

    if others := of_text_encoder([module for module, layer in layers.items() if layer is None]):
        kept = "save the others as a file of their own (docs/convert.md), and give that"
        raise ConversionError(
            f"{path} is a LoRA of a text encoder {'too' if len(others) < len(downs) else 'alone'}: {len(others)} of "
            f"its {len(downs)} parts change one ({_some(others)}), which is not merged here; "
            f"{kept if len(others) < len(downs) else 'leave it out'}."
        )
    if misfits := [downs[module] for module in downs if not fits(module)]:
        raise ConversionError(
            f"{path} is a LoRA of another model: {len(misfits)} of its {len(downs)} parts do not fit, {_some(misfits)}."
        )
    config, places = _config(reader), {}
    for module, layer in layers.items():
        rank, first = shapes[downs[module]].shape[0], 0
        alpha = _alpha(reader, alphas[module]) if module in alphas else None
        scale = alpha / rank if alpha is not None else _scale(config, layer, rank)
        for name in known[layer]:
            if name in places:
                raise ConversionError(f"{path} changes {name} twice, under names of two spellings; keep one.")
            rows = first, first + weights[name].shape[0]
            places[name], first = _Place(downs[module], ups[module], rows, scale), rows[1]
    return Lora(reader, places)


def pairs(reader: Reader) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """{layer as the file names it: tensor} of A (down), B (up) and alpha.

    Raises:
      ConversionError: the file is no plain LoRA, whatever its model: it holds something else, or factors that are not
        in pairs of one rank.
    """
    downs, ups, alphas = ({m[1]: name for name in reader if (m := p.fullmatch(name))} for p in (_DOWN, _UP, _ALPHA))
    if other := set(reader) - {name for found in (downs, ups, alphas) for name in found.values()}:
        raise ConversionError(f"{reader.place} is no plain LoRA: it holds {_some(other)}, which cannot be merged here.")
    if odd := set(downs) ^ set(ups) or set(alphas) - set(downs):
        raise ConversionError(f"{reader.place} is incomplete: {_some(odd)} lacks its A (down) or its B (up).")
    if not downs:
        raise ConversionError(f"{reader.place} holds no LoRA.")
    shapes = reader.shapes()
    if odd := [name for module, name in downs.items() if not _pair(shapes[name], shapes[ups[module]])]:
        raise ConversionError(f"{reader.place} is damaged: {_some(odd)} and its B (up) are no factors of one rank.")
    return downs, ups, alphas


def is_lora(reader: Reader) -> bool:
    """Whether a file holds a LoRA rather than weights."""
    return any(_DOWN.fullmatch(name) for name in reader)


def spelling(reader: Reader) -> str:
    """Whose names a LoRA's file has."""
    if any(_FLAT.fullmatch(name.split(".")[0]) for name in reader):
        return "kohya"
    comfyui = any(name.startswith("diffusion_model.") or _ALPHA.fullmatch(name) for name in reader)
    return "ComfyUI" if comfyui else "PEFT/diffusers"


def ranks(reader: Reader) -> set[int]:
    """All ranks in a LoRA's file."""
    return {spec.shape[0] for name, spec in reader.shapes().items() if _DOWN.fullmatch(name) and spec.shape}


def modules(reader: Reader) -> list[str]:
    """The layers that a LoRA changes, named as in the file."""
    return sorted(found[1] for name in reader if (found := _DOWN.fullmatch(name)))


def of_text_encoder(modules: Sequence[str]) -> list[str]:
    """Those of a LoRA's layers (`modules`) that are of the text encoder beside the denoiser, by whose names kohya and
    diffusers have them in one file."""
    return [name for name in modules if _OF_TEXT_ENCODER.match(name)]


def _some(names: Any) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")


def _layers(weights: Mapping[str, Spec], native: Sequence[Rule]) -> dict[str, tuple[str, ...]]:
    """{layer: the weights that are its rows}, by PyTorch's names and by ``native`` ones."""
    found = {name.removesuffix(".weight"): (name,) for name in weights if name.endswith(".weight")}
    for rule in native:
        for name in weights:
            if place := rule.place(name):
                found[place[0]] = (*found.get(place[0], ()), name)
    return found


def _layer_of(module: str, layers: Collection[str], today: Callable[[str], str]) -> str | None:
    """The layer that a LoRA calls ``module``, by its name of today or an older one; None where there is none, or more
    than one."""
    if flat := _FLAT.fullmatch(module):
        found = [layer for layer in layers if layer.replace(".", "_") == flat[1]]
        return found[0] if len(found) == 1 else None
    for prefix in ("", *PREFIXES):
        module = module.removeprefix(prefix)
        for name in (module, today(module)):
            if name in layers:
                return name
    return None


def _fits(weights: Sequence[Spec], a: Spec, b: Spec) -> bool:
    """A [rank, in, ...] and B [out, rank, ...], a `_pair`, for weights [out_i, in, ...] whose out_i sum to out."""
    widths = {weight.shape[1:] for weight in weights}
    return (
        all(is_float(weight.dtype) for weight in weights)
        and widths == {a.shape[1:]}
        and sum(weight.shape[0] for weight in weights) == b.shape[0]
    )


def _pair(a: Spec, b: Spec) -> bool:
    """A [rank, in, ...] and B [out, rank, 1, ...], in floating numbers."""
    return (
        all(is_float(spec.dtype) for spec in (a, b)) and len(a.shape) == len(b.shape) >= 2
        and a.shape[0] == b.shape[1] > 0 and math.prod(b.shape[2:]) == 1
    )  # fmt: skip


def _alpha(reader: Reader, name: str) -> float:
    array = reader.read(name)
    if array.size != 1 or not math.isfinite(alpha := float(array.reshape(-1)[0])):
        raise ConversionError(f"{name} in {reader.place} is not one finite number; the LoRA is damaged.")
    return alpha


def files(reader: Reader) -> list[Path]:
    """All files that say what a LoRA does: PEFT's has its scales beside it."""
    beside = reader.files()[0].with_name("adapter_config.json")
    return [*reader.files(), *([beside] if beside.is_file() else [])]


def _config(reader: Reader) -> dict[str, Any]:
    """The LoraConfig in the header (diffusers) or beside the file (PEFT); empty where there is none."""
    *_, last = files(reader)
    try:
        text = reader.metadata.get(_METADATA) or (last.read_text() if last.suffix == ".json" else "{}")
        config = {key.removeprefix("transformer."): value for key, value in json.loads(text).items()}
        alphas = config.get("lora_alpha"), *(config.get("alpha_pattern") or {}).values()
        if not all(math.isfinite(alpha) for alpha in alphas if alpha is not None):
            raise ValueError("an alpha is not finite")
        for pattern in config.get("alpha_pattern") or {}:
            re.compile(pattern)
    except (ValueError, OverflowError, TypeError, AttributeError, RecursionError, re.error) as error:
        raise ConversionError(
            f"The LoRA configuration of {reader.place} is no readable JSON with finite alphas and regular expressions "
            f"({error}); fetch it again."
        ) from error
    return config


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    patterns = config.get("alpha_pattern") or {}  # regular expressions, of which the first counts, as in PEFT
    found = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer))
    if (alpha := next(found, config.get("lora_alpha"))) is None:
        return 1.0
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


class Merged(Reader):
    """A reader whose weights are changed by LoRAs, each with a strength. Products and sums are in float32, and rounded
    once to the weight's own dtype. LoRAs know weights by their names of ``today`` (of the model's `Table`), the file
    may by older ones."""

    def __init__(
        self, reader: Reader, loras: Sequence[tuple[Mapping[str, Factors], float]], today: Callable[[str], str] = str
    ):
        super().__init__({name: reader.entry(name) for name in reader}, reader.metadata, reader.place)
        self._loras, self._today = loras, today

    def read(self, name: str, rows: tuple[int, int] | None = None) -> np.ndarray:
        out = super().read(name, rows)
        today = self._today(name)
        changes = [(lora[today], strength) for lora, strength in self._loras if today in lora]
        at = rows[0] if rows else 0
        step = max(1, WINDOW // max(4 * out[:1].size, 1)) if changes else 1
        for first in range(0, len(out) if changes else 0, step):
            before = out[first : first + step]
            with np.errstate(over="ignore", invalid="ignore"):  # what is too large is told of below
                after = _changed(before.astype(np.float32), changes, at + first).astype(out.dtype)
            if finite(before) and not finite(after):
                raise ConversionError(
                    f"{name} in {self.file(name)} becomes too large for {out.dtype} with the LoRA; merge it with a "
                    "smaller strength (--lora FILE:SCALE), or look whether its alpha is right."
                )
            out[first : first + step] = after
        return out


def _changed(piece: np.ndarray, changes: Sequence[tuple[Factors, float]], first: int) -> np.ndarray:
    """Rows of a weight, float32, from row ``first`` on, and what LoRAs add to them (in place)."""
    for (a, b, scale), strength in changes:
        part = b[first : first + len(piece)].reshape(len(piece), -1) * np.float32(scale * strength)
        piece += (part @ a.reshape(len(a), -1)).reshape(piece.shape)
    return piece


def write(
    path: str | Path, factors: Mapping[str, Factors], spelling: str, dtype: Any = ml_dtypes.bfloat16,
    comfyui: str = Table.comfyui,
) -> None:  # fmt: skip
    """Write a LoRA of a denoiser for other tools.

    Args:
      path: the .safetensors file.
      factors: {PyTorch name of a weight, ending in ".weight": Factors}.
      spelling: "diffusers": B takes up the scale, so that alpha is the rank; it stands in the header, where PEFT wants
        it, but tools that do not look there apply the same change. "comfyui": alpha beside every pair.
      dtype: of A and B.
      comfyui: of the model's `Table`.
    """
    if spelling not in ("diffusers", "comfyui"):
        raise ValueError(f"A LoRA is spelled 'diffusers' or 'comfyui', not {spelling!r}.")
    arrays: dict[str, np.ndarray] = {}
    for weight, (a, b, scale) in factors.items():
        name = ("transformer." if spelling == "diffusers" else comfyui) + weight.removesuffix(".weight")
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
