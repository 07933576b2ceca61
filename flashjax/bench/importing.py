"""Public benches, from the user's own copy of their files, and prompts in Parquet, as prompts of ours.

Their own scores are not comparable with ours: the rubrics and the judges differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flashjax.bench.prompts import Prompt, is_id, json_lines, make_prompt
from flashjax.data.parquet import read_parquet
from flashjax.errors import UserError

__all__ = ["FORMATS", "take"]

# ImgEdit's types of edits -> ours; an action is one of a person or an animal, who has to stay the same.
_IMGEDIT = {
    "background": "scene", "style": "style", "action": "identity", "add": "object", "remove": "object",
    "replace": "object", "extract": "object", "adjust": "object", "compose": "object", "hybrid": "object",
}  # fmt: skip

_GEDIT = {
    "background_change": "scene", "tone_transfer": "scene", "style_change": "style", "text_change": "text",
    "motion_change": "identity", "ps_human": "identity", "color_alter": "object", "material_alter": "object",
    "subject-add": "object", "subject-remove": "object", "subject-replace": "object",
}  # fmt: skip


def _dpg(path: Path, images: Path | None, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """DPG-Bench: a folder of text files, one prompt each, named by its id."""
    for file in sorted(path.glob("*.txt")):
        yield str(file), dict(id=file.stem, category="dense", prompt=file.read_text(encoding="utf-8").strip())


def _longtext(path: Path, images: Path | None, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """LongText-Bench: JSON lines with prompt_id, prompt, and text (what has to be rendered)."""
    for number, row in json_lines(path):
        text = _field(row, "text", "")
        texts = [text] if isinstance(text, str) and text else text or []
        made = dict(id=f"longtext-{_field(row, 'prompt_id')}", category="text", prompt=_field(row, "prompt"))
        chinese = any("\u4e00" <= c <= "\u9fff" for c in str(made["prompt"]))
        yield f"Line {number} of {path}", made | dict(texts=texts, language="zh" if chinese else "en")


def _imgedit(path: Path, images: Path | None, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """ImgEdit's basic_edit.json: key to id (the source's path under ``images``), prompt and edit_type."""
    if images is None:
        raise UserError("ImgEdit's edits need --images, the folder of its source pictures.")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}).") from error
    if not isinstance(table, dict):
        raise UserError(f"{path} is not ImgEdit's basic_edit.json, an object of edits by their key.")
    for key, row in table.items():
        kind, source = _field(row, "edit_type"), str(_field(row, "id"))
        if Path(source).is_absolute() or ".." in Path(source).parts:
            source = None  # told as a field that is no text
        made = dict(id=f"imgedit-{key}", category=_IMGEDIT.get(str(kind), str(kind)), prompt=_field(row, "prompt"))
        made["source"] = source and os.path.relpath(images / source, out)
        yield f"Edit {key} of {path}", made


def _gedit(path: Path, images: Path | None, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """GEdit-Bench: Parquet, one file or a folder, with key, task_type, instruction, instruction_language and the
    source's bytes in input_image. The sources are written to ``out``/sources."""
    for file in _parquet_files(path):
        for number, row in enumerate(read_parquet(file), 1):
            kind, key = str(_field(row, "task_type")), str(_field(row, "key"))
            made = dict(id=f"gedit-{key}", category=_GEDIT.get(kind, kind), prompt=_field(row, "instruction"))
            made["language"] = "zh" if _field(row, "instruction_language") in ("cn", "zh") else "en"
            picture = _field(_field(row, "input_image"), "bytes")
            if is_id(made["id"]) and isinstance(picture, bytes):
                made["source"] = f"sources/{made['id']}.png"
                (out / "sources").mkdir(parents=True, exist_ok=True)
                (out / made["source"]).write_bytes(picture)
            yield f"Row {number} of {file}", made | dict(source=made.get("source"))  # None: a field that is no text


def _parquet(path: Path, images: Path | None, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parquet, one file or a folder, whose columns are the fields of a prompt; sources are paths in it, relative to
    the file."""
    for file in _parquet_files(path):
        for number, row in enumerate(read_parquet(file), 1):
            made = {name: value for name, value in row.items() if value is not None}
            if isinstance(made.get("source"), str):
                made["source"] = os.path.relpath(file.parent / made["source"], out)
            yield f"Row {number} of {file}", made


def _parquet_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.parquet")) if path.is_dir() else [path]


def _field(row: Any, name: str, default: Any = None) -> Any:
    return row.get(name, default) if isinstance(row, dict) else None


FORMATS: dict[str, Callable[[Path, Path | None, Path], Iterator[tuple[str, dict[str, Any]]]]] = {
    "dpg": _dpg, "longtext": _longtext, "imgedit": _imgedit, "gedit": _gedit, "parquet": _parquet,
}  # fmt: skip


def take(kind: str, path: str | Path, out: str | Path, images: str | Path | None = None) -> list[Prompt]:
    """The prompts of a bench in one of ``FORMATS``, for a file in the folder ``out``.

    Raises:
        UserError: names each line, file or edit that is no prompt, and why; ten at most.
    """
    found, wrong = {}, []
    if not Path(path).exists():
        raise UserError(f"There is no {path}.")
    for where, row in FORMATS[kind](Path(path), Path(images) if images else None, Path(out)):
        try:
            made = make_prompt(row)
            if made.id in found:
                raise ValueError(f"its id {made.id} was there before")
            found[made.id] = made
        except ValueError as error:
            wrong.append(f"{where} is no prompt: {error}.")
    if wrong:
        more = f" And {len(wrong) - 10} more." if len(wrong) > 10 else ""
        raise UserError(" ".join(wrong[:10]) + more)
    if not found:
        raise UserError(f"{path} holds no prompts in the format {kind}.")
    return list(found.values())
