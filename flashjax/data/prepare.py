"""Write a split of the postcards to a folder: pictures, captions and encoded captions.

A folder holds `<split>.arrayrecord` and, written last, `<split>.json`, which says exactly
what the records are. A second call with the same request finds it and does nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tqdm

from flashjax.data import postcards, records
from flashjax.data.writing import CHUNK, Encode, PrepareError, already_there, encode_all, write_manifest

__all__ = ["Encode", "PrepareError", "prepare"]

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
    edits: bool = False,
    progress: bool = True,
) -> Path:
    """Write one split, unless the folder already holds exactly it.

    Each record is a dict: index, category, category_id, spec, named, caption, instruction,
    edit_spec, changed, render_seed, image (uint8 [size, size, 3]) and text (float16
    [tokens, width]). A set of edits has source, the picture before the edit, image, the one
    after it, and as text the instruction.

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
        edits: a set of edits, `<split>_edits`; it needs pictures.
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
    if edits and size is None:
        raise PrepareError("A set of edits needs the pictures to edit; prepare it without --prompts-only.")
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
    if edits:
        request["task"] = "edit"
    folder, stem = Path(out_dir), f"{split}_edits" if edits else split
    path, manifest = folder / f"{stem}.arrayrecord", folder / f"{stem}.json"
    if already_there(path, manifest, request):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    total = count_per_category * len(categories)
    stats = {"max_text_tokens": 0, "text_width": None}
    made = _records(request, total, encode, stats)
    bar = tqdm.tqdm(made, total=total, disable=not progress, unit="card", desc=f"{split} postcards")
    count = records.write_records(path, bar)
    write_manifest(manifest, request, count, path, stats)
    return path


def _records(
    request: dict[str, Any], total: int, encode: Encode | None, stats: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    kinds = list(postcards.CATEGORIES)
    for start in range(0, total, CHUNK):
        indices = range(start, min(start + CHUNK, total))
        cards = [_card(request, i) for i in indices]
        edits = request.get("task") == "edit"
        said = [card.instruction if edits else card.caption for card in cards]
        texts = encode_all(encode, said, stats) if encode else None
        for n, (index, card) in enumerate(zip(indices, cards, strict=True)):
            record = {"index": index, "category_id": kinds.index(card.category)}
            record |= dataclasses.asdict(card)
            if request["size"] is not None:
                record["image"] = (postcards.render_edit if edits else postcards.render)(card, request["size"])
            if edits:
                record["source"] = postcards.render(card, request["size"])
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
