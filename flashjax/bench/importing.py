"""Public benches, from the user's own copy of their files, as prompts of ours.

Their own scores are not comparable with ours: the rubrics and the judges differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flashjax.bench.prompts import Prompt, json_lines, make_prompt
from flashjax.errors import UserError

__all__ = ["FORMATS", "take"]

# ImgEdit's types of edits -> ours; an action is one of a person or an animal, who has to stay the same.
_IMGEDIT = {
    "background": "scene", "style": "style", "action": "identity", "add": "object", "remove": "object",
    "replace": "object", "extract": "object", "adjust": "object", "compose": "object", "hybrid": "object",
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


def _field(row: Any, name: str, default: Any = None) -> Any:
    return row.get(name, default) if isinstance(row, dict) else None


FORMATS: dict[str, Callable[[Path, Path | None, Path], Iterator[tuple[str, dict[str, Any]]]]] = {
    "dpg": _dpg, "longtext": _longtext, "imgedit": _imgedit,
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
