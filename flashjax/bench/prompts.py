"""A bench is a file of prompts, one JSON object a line, each with the facts that can be checked in its picture."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flashjax.bench.rubrics import EDITS
from flashjax.errors import UserError
from flashjax.files import json_lines

__all__ = ["Prompt", "difficulty", "make_prompt", "named", "read_bench", "spread", "words", "write_bench"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LONGEST = 20_000  # characters of a prompt
_HANZI = re.compile("[\u3400-\u9fff]")
_HALF = re.compile("[\ud800-\udfff]")
_WORDS_A_POINT = 20  # words that make a prompt as much harder as one more fact does
_MEDIUM, _HARD = {False: 18, True: 5.5}, {False: 25, True: 10}  # points from which on; keys: is it an edit


@dataclass(frozen=True)
class Prompt:
    """One item of a bench.

    Attributes:
        id: unique in its file, fit for a file's name.
        category: of the table's columns; for an edit one of ``rubrics.EDITS``.
        prompt: what to draw, or the instruction of an edit.
        facts: sentences, each true or false of the picture.
        language: of the prompt, "en" or "zh"; texts to render may be in another.
        texts: what has to be rendered letter by letter.
        source_prompt: of an edit, what its source shows; "" for text to image.
        source: of an edit, a picture's path, relative to the bench's file; "" if the source is drawn.
        region: of an edit, the box that it may change: left, top, right, bottom as shares of width and height; () if
            nothing is said of it.
        changed_texts: of an edit, texts of its source in whose place alone it may change the picture; () if elsewhere
            too, or if nothing is said of it. Where they stand is read in the source.
    """

    id: str
    category: str
    prompt: str
    facts: tuple[str, ...] = ()
    language: str = "en"
    texts: tuple[str, ...] = ()
    source_prompt: str = ""
    source: str = ""
    region: tuple[float, ...] = ()
    changed_texts: tuple[str, ...] = ()

    @property
    def is_edit(self) -> bool:
        return bool(self.source_prompt or self.source)


def words(text: str) -> float:
    """The length of a text in words; a Chinese character counts as half a word."""
    return len(_HANZI.sub(" ", text).split()) + len(_HANZI.findall(text)) / 2


def difficulty(prompt: Prompt) -> str:
    """ "easy", "medium" or "hard", by points: one for each fact, one more for each text to render, one for every 20
    words. Text to image is medium from 18 points and hard from 25, an edit from 5.5 and 10, whatever else its bench
    holds; of ours a third to a half is easy, and a fifth to a quarter hard."""
    points = len(prompt.facts) + len(prompt.texts) + words(prompt.prompt) / _WORDS_A_POINT
    return "hard" if points >= _HARD[prompt.is_edit] else "medium" if points >= _MEDIUM[prompt.is_edit] else "easy"


def named(prompt: Prompt) -> Prompt:
    """The prompt with eight digits of its content's sha256 behind its id: pictures are found by the id, and those of
    one bench must not pass for those of another."""
    told = json.dumps([prompt.prompt, prompt.source_prompt, prompt.source])
    return replace(prompt, id=f"{prompt.id}-{hashlib.sha256(told.encode()).hexdigest()[:8]}")


def is_id(text: str) -> bool:
    """Whether a text can name a prompt or a system, and with it a file."""
    return bool(_ID.fullmatch(text))


def make_prompt(row: Mapping[str, Any]) -> Prompt:
    """A prompt from a row of a file. Raises ValueError that says what is wrong with it."""
    if not isinstance(row, Mapping):
        raise ValueError("it is no object")
    if unknown := sorted(set(row) - set(Prompt.__dataclass_fields__)):
        raise ValueError(f"it has unknown fields: {', '.join(map(str, unknown))[:200]}")
    for name in ("id", "category", "prompt", "language", "source_prompt", "source"):
        if not isinstance(row.get(name, ""), str):
            raise ValueError(f"{name} is no text")
    for name in ("facts", "texts", "changed_texts"):
        if not isinstance(row.get(name, []), list | tuple) or not all(isinstance(t, str) for t in row.get(name, [])):
            raise ValueError(f"{name} is no list of texts")
    texts = [value for held in row.values() for value in (held if isinstance(held, list | tuple) else [held])]
    if any(isinstance(text, str) and _HALF.search(text) for text in texts):
        raise ValueError("it holds half a character, as texts that were cut do")  # no file in UTF-8 can
    if row.get("region", []) != [] and not _is_box(row["region"]):
        raise ValueError("region is no box: left, top, right, bottom from 0 to 1")
    if not is_id(row.get("id", "")):
        raise ValueError("its id is missing, or is more than letters, digits, dots, dashes and underscores")
    if not row.get("prompt", "").strip() or len(row["prompt"]) > _LONGEST:
        raise ValueError(f"its prompt is empty or longer than {_LONGEST} characters")
    made = Prompt(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
    if not made.category:
        raise ValueError("it has no category")
    if made.is_edit and made.category not in EDITS:
        raise ValueError(f"{made.category} is no category of edits ({', '.join(EDITS)})")
    return made


def _is_box(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 4 or any(type(v) not in (int, float) for v in value):
        return False
    left, top, right, bottom = value
    return 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def read_bench(path: str | Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a JSONL file; ``limit`` of them are `spread` over its categories. Raises UserError that names the
    line and the reason."""
    found: dict[str, Prompt] = {}
    for number, row in json_lines(path):
        try:
            made = make_prompt(row)
            if made.id in found:
                raise ValueError(f"its id {made.id} was there before")
        except ValueError as error:
            raise UserError(f"Line {number} of {path} is no prompt: {error}.") from error
        found[made.id] = made
    if not found:
        raise UserError(f"{path} holds no prompts.")
    if len({p.is_edit for p in found.values()}) > 1:
        raise UserError(f"{path} mixes edits with text to image; make two benches of them.")
    return list(found.values()) if limit is None else spread(list(found.values()), limit)


def spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """``count`` prompts in their order, from each category in turn and from all over it. Those of a smaller count are
    among them, so that a larger one adds to what was drawn and judged."""
    turns = []
    for category in dict.fromkeys(p.category for p in prompts):
        mine = [i for i, p in enumerate(prompts) if p.category == category]
        bits = len(mine).bit_length()
        # Bit-reversed numbers: the first, the middle, the quarters, the eighths.
        order = sorted(range(len(mine)), key=lambda i, bits=bits: f"{i:0{bits}b}"[::-1])
        turns += [(turn, mine[i]) for turn, i in enumerate(order)]
    return [prompts[i] for i in sorted(i for _, i in sorted(turns)[:count])]


def write_bench(path: str | Path, prompts: Sequence[Prompt]) -> None:
    """The file that ``read_bench`` reads; fields that hold nothing are left out."""
    from flashjax.bench.judging import write_rows

    write_rows(Path(path), [{k: v for k, v in asdict(p).items() if v} for p in prompts])
