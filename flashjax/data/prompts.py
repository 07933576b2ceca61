"""Prompts of one's own, from JSON lines or Parquet, to a set that training reads; with pictures to edit, one of edits.

A row has ``prompt`` and ``category``, and may have ``source``, the path of a picture to edit, and ``image``, that of
the picture that the prompt asks for; paths are relative to the file that names them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm
from PIL import Image

from flashjax.data import records
from flashjax.data.parquet import read_parquet
from flashjax.data.writing import CHUNK, Encode, PrepareError, already_there, encode_all, write_manifest

__all__ = ["prepare_prompts", "read_rows", "read_square"]

PICTURES = ("source", "image")
See = Callable[[str, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
# What Pillow raises for a file that is missing, is no picture, or is damaged.
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def prepare_prompts(
    out_dir: str | Path, files: Sequence[str | Path], *, name: str, size: int, encode: Encode, encoder_name: str,
    skip_limit: int = 0, progress: bool = True, said: Mapping[str, str] | None = None,
    see: See | None = None, autoencoder: str | None = None,
) -> Path:  # fmt: skip
    """Writes `<name>.arrayrecord` and its manifest, unless the folder holds exactly that set; returns the record file.

    Pictures are cut square about their middle and resized to ``size``. Rows whose pictures cannot be read are left out
    and listed in the manifest as ``skipped``, ``skip_limit`` of them at the most. ``said``: texts that training says
    itself (data.said), by what it calls them; they stand behind the rows. ``see``: an encoder that reads a prompt with
    its picture to edit (released.EditEncoder.record), and gives latents of ``autoencoder``. Raises PrepareError.
    """
    rows = sorted((row for file in files for row in read_rows(Path(file))), key=lambda row: row["category"])
    if not rows:
        raise PrepareError(f"There are no prompts in {', '.join(map(str, files))}.")
    edits = [row for row in rows if row.get("source")]
    if edits and len(edits) < len(rows):
        missing = next(row for row in rows if not row.get("source"))
        raise PrepareError(f"{missing['where']} is an edit record without its image, while others have a 'source'.")
    if edits and said is not None:
        raise PrepareError(f"{encoder_name} reads no picture to edit; take one that does: qwen_image_edit_plus.")
    if see and not edits:
        raise PrepareError(f"{encoder_name} is for edits, and {rows[0]['where']} has no 'source'.")
    request = {
        "what": "prompts", "split": name, "task": "edit" if edits else "t2i", "encoder": encoder_name,
        "files": {Path(file).name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files},
        "size": size if any(row.get(key) for row in rows for key in PICTURES) else None,
    }  # fmt: skip
    request |= dict(said=dict(said)) if said is not None else {}
    request |= dict(autoencoder=autoencoder, own_nulls=True) if see else {}
    folder, skipped = Path(out_dir), []
    path, manifest = folder / f"{name}.arrayrecord", folder / f"{name}.json"
    if already_there(path, manifest, request):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    kept = [row for row in rows if _readable(row, skipped, skip_limit)] if request["size"] else rows
    if not kept:
        raise PrepareError(f"None of the {len(rows)} rows has pictures that can be read; the first: {skipped[0]}.")
    names, stats = [row["category"] for row in kept], {"max_text_tokens": 0, "text_width": None}
    stats["categories"] = list(dict.fromkeys(names))
    stats["ranges"] = {c: [names.index(c), names.index(c) + names.count(c)] for c in stats["categories"]}
    made = _seen(kept, size, see, stats) if see else _records(kept, request["size"], encode, stats)
    behind = _said(said or {}, len(kept), encode, stats)
    bar = tqdm.tqdm(itertools.chain(made, behind), total=len(kept), disable=not progress, unit="prompt")
    records.write_records(path, bar)
    write_manifest(manifest, request, len(kept), path, stats | dict(skipped=skipped))
    return path


def _seen(rows: Sequence[Mapping], size: int, see: See, stats: dict) -> Iterator[dict[str, Any]]:
    for i, row in enumerate(rows):
        made = see(row["prompt"], {key: read_square(row[key], size) for key in PICTURES if key in row})
        encode_all(lambda _, given=made: [given["text"], given["null"]], [row["prompt"], "the null"], stats)  # checked
        yield dict(index=i, category=row["category"], caption=row["prompt"]) | made


def _said(said: Mapping[str, str], first: int, encode: Encode, stats: dict) -> Iterator[dict[str, Any]]:
    if said:
        for i, (name, text) in enumerate(zip(said, encode_all(encode, list(said.values()), stats), strict=True), first):
            yield dict(index=i, caption=name, text=text)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .jsonl or .parquet file, each with ``where`` it stands and absolute paths. Raises UserError."""
    if not path.is_file():
        raise PrepareError(f"There is no file of prompts at {path}.")
    readers = {".jsonl": _json_lines, ".parquet": read_parquet}
    if path.suffix not in readers:
        raise PrepareError(f"{path} is neither .jsonl nor .parquet; prompts are read from these.")
    for number, row in enumerate(readers[path.suffix](path), 1):
        where = f"row {number} of {path}"
        for key in ("prompt", "category"):
            if not isinstance(row, Mapping) or not isinstance(row.get(key), str) or not (row[key] or key == "prompt"):
                raise PrepareError(f"{where} has no text {key!r}; every row needs 'prompt' and 'category'.")
        pictures = {key: str(path.parent / row[key]) for key in PICTURES if row.get(key)}
        yield dict(prompt=row["prompt"], category=row["category"], where=where) | pictures


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise PrepareError(f"Line {number} of {path} is not JSON ({error}).") from error


def _readable(row: Mapping[str, Any], skipped: list[str], limit: int) -> bool:
    """Whether the pictures of a row can be read; if not, ``skipped`` grows. Raises PrepareError beyond ``limit``."""
    try:
        for key in PICTURES:
            if key in row:
                read_square(row[key], 8)
    except PrepareError as error:
        skipped.append(f"{row['where']}: {error}")
        if len(skipped) > limit:
            raise PrepareError(
                f"A picture cannot be read, {skipped[-1]}. That makes {len(skipped)} such rows; --skip-limit is "
                f"{limit}."
            ) from error
        return False
    return True


def read_square(path: str, size: int) -> np.ndarray:
    """uint8 [size, size, 3] of the middle of a picture. Raises PrepareError for a file that is none."""
    try:
        with Image.open(path) as image:
            side = min(image.size)
            left, top = ((extent - side) / 2 for extent in image.size)
            box = (left, top, left + side, top + side)
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box))
    except _UNREADABLE as error:
        raise PrepareError(f"The picture {path} cannot be read: {error}.") from error


def _records(rows: Sequence[Mapping], size: int | None, encode: Encode, stats: dict) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        texts = encode_all(encode, [row["prompt"] for row in some], stats)
        for i, (row, text) in enumerate(zip(some, texts, strict=True), start):
            record = dict(index=i, category=row["category"], caption=row["prompt"], text=text)
            yield record | {key: read_square(row[key], size) for key in PICTURES if key in row}
