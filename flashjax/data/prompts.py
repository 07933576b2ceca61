"""Prompts of one's own, from JSON lines or Parquet, to a set that training reads; with pictures to edit, one of edits.
Pictures are stored as pixels, or as the latents of a released family's autoencoder.

A row has ``prompt`` and ``category``, and may have ``source``, the path of a picture to edit or a list of several, and
``image``, that of the picture that the prompt asks for; paths are relative to the file that names them.
"""

from __future__ import annotations

import functools
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
from flashjax.data.manifest import read_manifest
from flashjax.data.parquet import read_parquet
from flashjax.data.writing import CHUNK, Encode, PrepareError, already_there, encode_all, write_manifest
from flashjax.errors import UserError
from flashjax.files import json_lines, sha256_of
from flashjax.upright import UNREADABLE, upright

__all__ = ["prepare_prompts", "read_rows", "read_square"]

See = Callable[[str, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Latents = Callable[[np.ndarray], np.ndarray]


def prepare_prompts(
    out_dir: str | Path, files: Sequence[str | Path], *, name: str, size: int, encode: Encode, encoder_name: str,
    skip_limit: int = 0, progress: bool = True, said: Mapping[str, str] | None = None,
    see: See | None = None, latents: Latents | None = None, autoencoder: str | None = None,
    source_size: int | None = None,
) -> Path:  # fmt: skip
    """Writes `<name>.arrayrecord` and its manifest, unless the folder holds exactly that set; returns the record file.

    Pictures are cut square about their middle and resized to ``size``, those to edit to ``source_size`` (None: too);
    of these every row of a set has as many. Rows whose pictures cannot be read are left out and listed in the manifest
    as ``skipped``, ``skip_limit`` of them at the most. ``said``: texts that training says itself (data.said), by what
    it calls them; they stand behind the rows. ``see``: an encoder of edits (released.PictureEncoder.record), which
    gives latents of ``autoencoder``, as ``latents`` does of the pictures that prompts ask for. Raises PrepareError.
    """
    rows = sorted((row for file in files for row in read_rows(Path(file))), key=lambda row: row["category"])
    if not rows:
        raise PrepareError(f"There are no prompts in {', '.join(map(str, files))}.")
    _check_together(rows)
    edits, pictured = bool(_sources(rows[0])), "image" in rows[0]["pictures"]
    if edits and said is not None:
        raise PrepareError(f"{encoder_name} is for prompts alone, and {rows[0]['where']} has a picture to edit.")
    if source_size and not edits:
        raise PrepareError(f"--source-size is for edits, and {rows[0]['where']} has no 'source'.")
    if see and not edits:
        raise PrepareError(f"{encoder_name} is for edits, and {rows[0]['where']} has no 'source'.")
    request = {
        "what": "prompts", "split": name, "task": "edit" if edits else "t2i", "encoder": encoder_name,
        "files": _hashes(files), "size": size if pictured else None,
    }  # fmt: skip
    request |= dict(source_size=source_size or size, sources=len(_sources(rows[0]))) if edits else {}
    paths = sorted({path for row in rows for path in row["pictures"].values()})
    request |= dict(pictures=_looks(paths)) if paths else {}
    request |= dict(said=dict(said)) if said is not None else {}
    request |= dict(autoencoder=autoencoder) if see or latents else {}
    request |= dict(own_nulls=True) if see else {}
    folder, skipped = Path(out_dir), []
    path, manifest = folder / f"{name}.arrayrecord", folder / f"{name}.json"
    if already_there(path, manifest, request):
        _check_skipped(read_manifest(path).get("skipped", []), skip_limit)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    kept = [row for row in rows if _readable(row, skipped, skip_limit)]
    if not kept:
        raise PrepareError(f"None of the {len(rows)} rows has pictures that can be read; the first: {skipped[0]}")
    names, stats = [row["category"] for row in kept], {"max_text_tokens": 0, "text_width": None}
    stats["categories"] = list(dict.fromkeys(names))
    stats["ranges"] = {c: [names.index(c), names.index(c) + names.count(c)] for c in stats["categories"]}
    read = functools.partial(_pictures, size=size, source_size=source_size or size, latents=latents)
    made = _seen(kept, read, see, stats) if see else _records(kept, read, encode, stats)
    behind = _said(said or {}, len(kept), encode, stats)
    bar = tqdm.tqdm(itertools.chain(made, behind), total=len(kept), disable=not progress, unit="prompt")
    records.write_records(path, bar)
    write_manifest(manifest, request, len(kept), path, stats | dict(skipped=skipped))
    return path


def _check_together(rows: Sequence[Mapping]) -> None:
    """Raises PrepareError for rows that cannot stand in one set: all have as many pictures to edit, and all or none one
    that the prompt asks for."""
    edits = [row for row in rows if _sources(row)]
    if edits and len(edits) < len(rows):
        missing = next(row for row in rows if not _sources(row))
        raise PrepareError(f"{missing['where']} is an edit record without its image, while others have a 'source'.")
    if other := next((row for row in edits if len(_sources(row)) != len(_sources(edits[0]))), None):
        counts = [len(_sources(row)) for row in (other, edits[0])]
        raise PrepareError(f"{other['where']} has {counts[0]} pictures to edit and {edits[0]['where']} {counts[1]}; "
                           "all rows of a set need as many: make two sets.")
    pictured = sum("image" in row["pictures"] for row in rows)
    if 0 < pictured < len(rows):
        missing = next(row for row in rows if "image" not in row["pictures"])
        raise PrepareError(f"{missing['where']} has no 'image', while others have one; make two sets.")


def _hashes(files: Sequence[str | Path]) -> dict[str, str]:
    """What each file is called, by its name where no other has it, and its sha256."""
    names = [Path(file).name for file in files]
    called = [name if names.count(name) == 1 else str(file) for name, file in zip(names, files, strict=True)]
    return dict(zip(called, (sha256_of(Path(file)) for file in files), strict=True))


def _looks(paths: Sequence[str]) -> str:
    """A hash of the lengths and times of files: one that was replaced or mended makes another set."""
    found = [(path, Path(path).stat()) for path in paths if Path(path).is_file()]
    told = [(path, at.st_size, at.st_mtime_ns) for path, at in found]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _sources(row: Mapping[str, Any]) -> list[str]:
    return records.sources(row["pictures"])


def _pictures(
    row: Mapping[str, Any], size: int, source_size: int, latents: Latents | None
) -> dict[str, np.ndarray]:
    found = row["pictures"]
    made = {key: read_square(path, size if key == "image" else source_size) for key, path in found.items()}
    return {key: latents(picture) for key, picture in made.items()} if latents else made


def _seen(rows: Sequence[Mapping], read: Callable, see: See, stats: dict) -> Iterator[dict[str, Any]]:
    for i, row in enumerate(rows):
        made = dict(see(row["prompt"], read(row)))
        if stats.setdefault("reference_at", at := made.pop("reference_at", [])) != at:
            raise PrepareError(f"{row['where']} mentions its pictures elsewhere than the rows before; make two sets.")
        encode_all(lambda _, given=made: [given["text"], given["null"]], [row["prompt"], "the null"], stats)  # checked
        yield dict(index=i, category=row["category"], caption=row["prompt"]) | made


def _said(said: Mapping[str, str], first: int, encode: Encode, stats: dict) -> Iterator[dict[str, Any]]:
    if said:
        for i, (name, text) in enumerate(zip(said, encode_all(encode, list(said.values()), stats), strict=True), first):
            yield dict(index=i, caption=name, text=text)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .jsonl or .parquet file: prompt, category, ``where`` it stands, and ``pictures``, paths by the
    names that they have in a record. Raises UserError."""
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
        given = row.get("source") or []
        several = given if isinstance(given, list) else [given]
        given = {records.source_key(n): each for n, each in enumerate(several, 1)}
        given |= {"image": row["image"]} if row.get("image") else {}
        if not all(isinstance(each, str) and each for each in given.values()):
            raise PrepareError(f"{where} has a 'source' or 'image' that is no path; a 'source' may be a list of them.")
        if records.sources(given) and not row["prompt"].strip():
            raise PrepareError(f"{where} is an edit record without an instruction; its 'prompt' is empty.")
        pictures = {key: str(path.parent / each) for key, each in given.items()}
        yield dict(prompt=row["prompt"], category=row["category"], where=where, pictures=pictures)


def _json_lines(path: Path) -> Iterator[Any]:
    try:
        yield from (row for _, row in json_lines(path))
    except UserError as error:
        raise PrepareError(str(error)) from error


def _readable(row: Mapping[str, Any], skipped: list[str], limit: int) -> bool:
    """Whether the pictures of a row can be read; if not, ``skipped`` grows. Raises PrepareError beyond ``limit``."""
    try:
        for picture in row["pictures"].values():
            read_square(picture, 8)
    except PrepareError as error:
        skipped.append(f"{row['where']}: {error}")
        _check_skipped(skipped, limit)
        return False
    return True


def _check_skipped(skipped: Sequence[str], limit: int) -> None:
    if len(skipped) > limit:
        raise PrepareError(
            f"Pictures of {len(skipped)} rows cannot be read, and --skip-limit is {limit}: {'; '.join(skipped[:5])}"
        )


def read_square(path: str, size: int) -> np.ndarray:
    """uint8 [size, size, 3] of the middle of a picture, upright and on white. Raises PrepareError for a file that is
    none."""
    try:
        with Image.open(path) as opened:
            image = upright(opened)
            side = min(image.size)
            left, top = ((extent - side) / 2 for extent in image.size)
            box = (left, top, left + side, top + side)
            return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))
    except UNREADABLE as error:
        raise PrepareError(f"The picture {path} cannot be read: {error}.") from error


def _records(rows: Sequence[Mapping], read: Callable, encode: Encode, stats: dict) -> Iterator[dict[str, Any]]:
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        texts = encode_all(encode, [row["prompt"] for row in some], stats)
        for i, (row, text) in enumerate(zip(some, texts, strict=True), start):
            yield dict(index=i, category=row["category"], caption=row["prompt"], text=text) | read(row)
