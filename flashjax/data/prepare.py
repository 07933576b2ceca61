"""Write a split of the postcards to a folder: pictures, captions and encoded captions.

A folder holds `<split>.arrayrecord` and, written last, `<split>.json`, which says exactly
what the records are. A second call with the same request finds it and does nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from flashjax.data import postcards, records
from flashjax.data.manifest import read_manifest
from flashjax.errors import UserError

__all__ = ["Encode", "PrepareError", "prepare"]

# Takes captions, gives one float32 array [tokens, width] for each.
Encode = Callable[[list[str]], Sequence[np.ndarray]]

_ENCODE_BATCH = 64
# Captions are sorted by length within a chunk, so that a batch holds little padding.
_CHUNK = 2048


class PrepareError(UserError):
    """A request that cannot be met, or a folder that holds something else."""


def prepare(
    out_dir: str | os.PathLike[str],
    *,
    split: str,
    count_per_category: int,
    size: int | None,
    seed: int,
    categories: Sequence[str] | None = None,
    encode: Encode | None = None,
    encoder_name: str | None = None,
    progress: bool = True,
) -> Path:
    """Write one split, unless the folder already holds exactly it.

    Each record is a dict: index, category, category_id, spec, named, caption, instruction,
    edit_spec, changed, render_seed, image (uint8 [size, size, 3]) and text (float16
    [tokens, width]).

    Args:
        out_dir: the folder, made if absent.
        split: one of `postcards.SPLITS`.
        count_per_category: how many postcards for each entry of `categories`.
        size: side of the pictures in pixels; None leaves the pictures out (a set of prompts).
        seed: chooses the set.
        categories: which to write, in turn; all that the split has where None. One that is named
            twice gets twice as many postcards.
        encode: the text encoder; None leaves `text` out.
        encoder_name: written to the manifest, so that another encoder makes another set.
        progress: show a bar with the time left.

    Returns:
        The path of the record file.

    Raises:
        PrepareError: bad counts, another set in the folder, or an encoder whose answer does
            not fit.
    """
    if count_per_category < 1 or (size is not None and size < 8):
        raise PrepareError(
            f"A set needs at least one postcard a category and pictures of 8 pixels or more; "
            f"count_per_category is {count_per_category} and size is {size}."
        )
    if categories is None:
        categories = ("text",) if split == "heldout_words" else tuple(postcards.CATEGORIES)
    request = {
        "what": "postcards",
        "generator_version": postcards.GENERATOR_VERSION,
        "split": split,
        "categories": list(categories),
        "count_per_category": count_per_category,
        "size": size,
        "seed": seed,
        "encoder": (encoder_name or "unnamed") if encode else None,
    }
    folder = Path(out_dir)
    path, manifest = folder / f"{split}.arrayrecord", folder / f"{split}.json"
    if _already_there(path, manifest, request):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    total = count_per_category * len(categories)
    stats = {"max_text_tokens": 0, "text_width": None}
    made = _records(request, total, encode, stats)
    bar = tqdm.tqdm(made, total=total, disable=not progress, unit="card", desc=f"{split} postcards")
    count = records.write_records(path, bar)
    _write_manifest(manifest, request, count, path, stats)
    return path


def _already_there(path: Path, manifest: Path, request: dict[str, Any]) -> bool:
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


def _records(
    request: dict[str, Any], total: int, encode: Encode | None, stats: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    kinds = list(postcards.CATEGORIES)
    for start in range(0, total, _CHUNK):
        indices = range(start, min(start + _CHUNK, total))
        cards = [_card(request, i) for i in indices]
        texts = _encode_all(encode, [card.caption for card in cards], stats) if encode else None
        for n, (index, card) in enumerate(zip(indices, cards, strict=True)):
            record = {"index": index, "category_id": kinds.index(card.category)}
            record |= dataclasses.asdict(card)
            if request["size"] is not None:
                record["image"] = postcards.render(card, request["size"])
            if texts is not None:
                record["text"] = texts[n]
            yield record


def _card(request: dict[str, Any], i: int) -> postcards.Postcard:
    """The set's i-th postcard: the entries of `categories` take turns, and no postcard comes twice."""
    names = request["categories"]
    turn, place = divmod(i, len(names))
    category = names[place]
    index = turn * names.count(category) + names[:place].count(category)
    return postcards.make(category, request["split"], index, request["seed"])


def _encode_all(encode: Encode, captions: list[str], stats: dict[str, Any]) -> list[np.ndarray]:
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    texts: list[np.ndarray] = [np.empty(0)] * len(captions)
    for start in range(0, len(order), _ENCODE_BATCH):
        chosen = order[start : start + _ENCODE_BATCH]
        answers = encode([captions[i] for i in chosen])
        if len(answers) != len(chosen):
            raise PrepareError(
                f"The text encoder was given {len(chosen)} captions and gave back "
                f"{len(answers)} arrays; it has to give one for each."
            )
        for i, answer in zip(chosen, answers, strict=True):
            texts[i] = _checked(np.asarray(answer), captions[i], stats)
    return texts


def _checked(text: np.ndarray, caption: str, stats: dict[str, Any]) -> np.ndarray:
    """The encoded caption as float16, or a sentence on why it cannot be stored."""
    if text.ndim != 2 or len(text) == 0 or stats["text_width"] not in (None, text.shape[1]):
        raise PrepareError(
            f"The text encoder gave an array of shape {text.shape} for '{caption}'; it has to "
            f"be [tokens, width] with at least one token and the same width for all."
        )
    with np.errstate(over="ignore"):
        half = text.astype(np.float16)
    if not np.isfinite(half).all():
        raise PrepareError(
            f"The text encoder gave values for '{caption}' that are not finite in float16; "
            "scale its output to within 65504."
        )
    stats["max_text_tokens"] = max(stats["max_text_tokens"], len(text))
    stats["text_width"] = text.shape[1]
    return half


def _write_manifest(manifest: Path, request: dict[str, Any], count: int, path: Path, stats: dict[str, Any]) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    told = {**request, **stats, "count": count, "bytes": path.stat().st_size, "sha256": digest}
    partial = manifest.with_name(f".{manifest.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, manifest)
