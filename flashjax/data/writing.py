"""What every writer of a set does: encode the texts, find a set that is there already, write the manifest last."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from flashjax.data.manifest import read_manifest
from flashjax.errors import UserError
from flashjax.files import sha256_of, write_whole

__all__ = ["CHUNK", "Encode", "PrepareError", "already_there", "encode_all", "write_manifest"]

# Takes captions, gives one array [tokens, width] for each: float32, or bfloat16 of an encoder that computes in it.
Encode = Callable[[list[str]], Sequence[np.ndarray]]

CHUNK = 2048  # captions that are encoded, and held in memory, at a time


class PrepareError(UserError):
    """A request that cannot be met, or a folder that holds something else."""


def already_there(path: Path, manifest: Path, request: dict[str, Any]) -> bool:
    if not manifest.is_file():
        if path.exists():
            raise PrepareError(
                f"{path} exists without its manifest, so what it holds is unknown; delete it or choose another folder."
            )
        return False
    found = read_manifest(manifest)
    different = [k for k, v in request.items() if found.get(k) != v]
    if different:
        told = "; ".join(f"{k} is {found.get(k)}, asked for {request[k]}" for k in different)
        raise PrepareError(
            f"{path.parent} already holds another set of the split '{request['split']}' "
            f"({told}). Choose another folder, or delete both files of the split."
        )
    if not path.is_file() or path.stat().st_size != found.get("bytes"):
        raise PrepareError(
            f"{path} is missing or not as long as its manifest says; delete {manifest} and "
            f"{path.name}, then prepare the set again."
        )
    return True


def encode_all(encode: Encode, captions: list[str], stats: dict[str, Any]) -> list[np.ndarray]:
    answers = encode(captions)
    if len(answers) != len(captions):
        raise PrepareError(
            f"The text encoder was given {len(captions)} captions and gave back {len(answers)} arrays; it has to give "
            "one for each."
        )
    return [_checked(np.asarray(answer), caption, stats) for answer, caption in zip(answers, captions, strict=True)]


def _checked(text: np.ndarray, caption: str, stats: dict[str, Any]) -> np.ndarray:
    """The encoded caption as float16, or as it is in bfloat16, or a sentence on why it cannot be stored."""
    if text.ndim != 2 or len(text) == 0 or stats["text_width"] not in (None, text.shape[1]):
        raise PrepareError(
            f"The text encoder gave an array of shape {text.shape} for '{caption}'; it has to "
            f"be [tokens, width] with at least one token and the same width for all."
        )
    with np.errstate(over="ignore"):
        half = text if text.dtype == ml_dtypes.bfloat16 else text.astype(np.float16)
    if not np.isfinite(half).all():
        raise PrepareError(
            f"The text encoder gave values for '{caption}' that are not finite in {half.dtype}; "
            "scale its output to within 65504."
        )
    stats["max_text_tokens"] = max(stats["max_text_tokens"], len(text))
    stats["text_width"] = text.shape[1]
    return half


def write_manifest(manifest: Path, request: dict[str, Any], count: int, path: Path, stats: dict[str, Any]) -> None:
    told = {**request, **stats, "count": count, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    write_whole(manifest, (json.dumps(told, indent=2) + "\n").encode())
