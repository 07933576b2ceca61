"""Public benches, from the user's own copy of their files, and prompts in JSONL and Parquet, as prompts of ours.

Their own scores are not comparable with ours: the rubrics and the judges differ.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from flashjax.bench.prompts import Prompt, make_prompt
from flashjax.data.parquet import read_parquet
from flashjax.errors import UserError
from flashjax.files import json_lines

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
        yield str(file), dict(id=file.stem, category="dense", prompt=_text(file).strip())


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
        table = json.loads(_text(path))
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
    source's bytes in input_image. One key has an edit in each language. The sources go to ``out``/sources."""
    for file in _parquet_files(path):
        for number, row in enumerate(read_parquet(file), 1):
            kind, language = str(_field(row, "task_type")), "en"
            if _field(row, "instruction_language") in ("cn", "zh"):
                language = "zh"
            made = dict(id=f"gedit-{_field(row, 'key')}-{language}", category=_GEDIT.get(kind, kind), language=language)
            made |= dict(prompt=_field(row, "instruction"), source=f"sources/{made['id']}.png")
            yield f"Row {number} of {file}", made | {_BYTES: _field(_field(row, "input_image"), "bytes")}


def _jsonl(path: Path, images: Path | None, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """JSON lines of one's own: a prompt, and what else a prompt has."""
    for number, row in json_lines(path):
        yield f"Line {number} of {path}", _own(row, number, path.parent, out)


def _parquet(path: Path, images: Path | None, out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Parquet of one's own, one file or a folder: a column for the prompt, and for what else a prompt has."""
    at = 0
    for file in _parquet_files(path):
        for number, row in enumerate(read_parquet(file), 1):
            at += 1
            yield f"Row {number} of {file}", _own(row, at, file.parent, out)


def _own(row: Any, number: int, folder: Path, out: Path) -> Any:
    """A row whose id and category may be missing, and whose source is a path relative to its file."""
    if not isinstance(row, dict):
        return row  # told by make_prompt
    made = dict(id=f"own-{number:04d}", category="own") | {k: v for k, v in row.items() if v is not None}
    if isinstance(made.get("source"), str) and made["source"]:
        made["source"] = os.path.relpath(folder / made["source"], out)
    return made


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error}).") from error


def _parquet_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.parquet")) if path.is_dir() else [path]


def _field(row: Any, name: str, default: Any = None) -> Any:
    return row.get(name, default) if isinstance(row, dict) else None


_BYTES = "bytes of the source"  # beside the fields of a prompt: a picture that the bench has no file for
FORMATS: dict[str, Callable[[Path, Path | None, Path], Iterator[tuple[str, dict[str, Any]]]]] = {
    "dpg": _dpg, "longtext": _longtext, "imgedit": _imgedit, "gedit": _gedit, "jsonl": _jsonl,
    "parquet": _parquet,
}  # fmt: skip


def take(kind: str, path: str | Path, out: str | Path, images: str | Path | None = None) -> list[Prompt]:
    """The prompts of a bench in one of ``FORMATS``, for a file in the folder ``out``; all their sources open.

    Raises:
        UserError: names each line, file or edit that is no prompt or whose source is no picture, and why; ten at most.
    """
    found, wrong = {}, []
    if not Path(path).exists():
        raise UserError(f"There is no {path}.")
    for where, row in FORMATS[kind](Path(path), Path(images) if images else None, Path(out)):
        try:
            made = _taken(row, Path(out), found)
            found[made.id] = made
        except ValueError as error:
            wrong.append(f"{where} is no prompt: {error}.")
    if wrong:
        more = f" And {len(wrong) - 10} more." if len(wrong) > 10 else ""
        raise UserError(" ".join(wrong[:10]) + more)
    if not found:
        raise UserError(f"{path} holds no prompts in the format {kind}.")
    return list(found.values())


def _taken(row: Any, out: Path, found: dict[str, Prompt]) -> Prompt:
    """The prompt of a row, its source looked at, and written where it came as bytes. Raises ValueError."""
    bare = isinstance(row, dict) and _BYTES in row
    made = make_prompt({k: v for k, v in row.items() if k != _BYTES} if bare else row)
    if made.id in found:
        raise ValueError(f"its id {made.id} was there before")
    if bare:
        if not isinstance(row[_BYTES], bytes):
            raise ValueError("it has no source picture")
        _look(io.BytesIO(row[_BYTES]), "its source")
        (out / made.source).parent.mkdir(parents=True, exist_ok=True)
        (out / made.source).write_bytes(row[_BYTES])
    elif made.source:
        source = os.path.normpath(out / made.source)  # through a folder that may not be there yet
        _look(source, f"its source {source}")
    return made


def _look(picture: str | io.BytesIO, name: str) -> None:
    """Raises ValueError where a picture is missing, none, damaged, or larger than Pillow dares to open."""
    try:
        with Image.open(picture) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            image.load()
    except FileNotFoundError as error:
        raise ValueError(f"{name} does not exist") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is larger than {Image.MAX_IMAGE_PIXELS} pixels") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{name} is not an image, or is damaged") from error
