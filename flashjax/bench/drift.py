"""Does a judge still judge as it did? A frozen set of pictures that every run has scored anew.

A frozen set is a folder: a bench with its pictures, never changed once it is there, and ``scores.jsonl``, to which the
runs of all folders add a line for each judge, day and picture. Judges are the same where name, model and terms are
(what they are asked, where and how); the first day of a judge is what its later days are compared with.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flashjax.bench.calls import Call, Judge
from flashjax.bench.journal import whole_length
from flashjax.bench.judging import as_lines, write_rows
from flashjax.bench.plan import Pictures, find_pictures, find_sources, points, source
from flashjax.bench.prompts import Prompt, read_bench, spread, write_bench
from flashjax.errors import UserError
from flashjax.files import json_lines

__all__ = ["Frozen", "calls", "chosen", "compared", "freeze", "pick", "read", "remember", "today"]

Row = dict[str, Any]
_FIELDS = ("day", "judge", "model", "terms", "served", "prompt", "seed", "value")
_BENCH, _SCORES, _SETTINGS = "bench.jsonl", "scores.jsonl", "settings.json"


class Frozen(NamedTuple):
    """Prompts, a picture of each, and the sources of edits."""

    prompts: Sequence[Prompt]
    pictures: Pictures
    sources: Pictures


def today() -> str:
    """The date in UTC, as in 2026-01-31."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def chosen(out: str | Path, given: str | None) -> Path | None:
    """The frozen set of a folder of judgements: what is given, or else what was given there before; None for none."""
    settings = Path(out) / _SETTINGS
    if given is None and not settings.exists():
        return None
    folder = Path(given or _setting(settings)).resolve()
    if given is None and not folder.exists():
        raise UserError(f"The frozen set {folder} that {out} was judged with is gone; restore it, or give --drift.")
    if folder.exists() and not (folder / _BENCH).is_file():
        raise UserError(f"{folder} is there and is no frozen set; give --drift a new folder, or one that it made.")
    return folder


def _setting(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["drift"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged and names no frozen set; remove it, and give --drift again.") from error


def remember(out: str | Path, folder: Path) -> None:
    """Notes the frozen set for later runs into ``out``."""
    Path(out).mkdir(parents=True, exist_ok=True)
    write_rows(Path(out) / _SETTINGS, [dict(drift=str(folder))])


def pick(prompts: Sequence[Prompt], pictures: Pictures, sources: Pictures, count: int) -> Frozen:
    """``count`` prompts, spread over the categories, with the first seed of each."""
    if not count:
        raise UserError("A frozen set needs pictures; give --probes 1 or more.")
    some = spread(prompts, count)
    shots = {p.id: {seed: pictures[p.id][seed]} for p in some for seed in [min(pictures[p.id])]}
    return Frozen(some, shots, {p.id: {0: source(p, sources)} for p in some if p.is_edit})


def freeze(frozen: Frozen, folder: Path) -> None:
    """Copies a set to ``folder``, which appears when it is complete."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    kept = []
    for p in frozen.prompts:
        for seed, picture in frozen.pictures[p.id].items():
            (partial / f"{p.id}_{seed}.png").write_bytes(picture.png())
        if p.is_edit:
            p = dataclasses.replace(p, source=f"sources/{p.id}.png")
            (partial / p.source).parent.mkdir(exist_ok=True)
            (partial / p.source).write_bytes(source(p, frozen.sources).png())
        kept.append(p)
    write_bench(partial / _BENCH, kept)
    os.rename(partial, folder)


def read(folder: Path) -> Frozen:
    """What ``freeze`` wrote. Raises UserError where something is missing or damaged."""
    prompts = read_bench(folder / _BENCH)
    return Frozen(prompts, find_pictures(folder, prompts), find_sources(prompts, folder / _BENCH, None))


def calls(frozen: Frozen, judges: Sequence[Judge], day: str) -> list[Call]:
    """The set to every judge. The day keeps the cache from answering; on one day, a resumed run asks nothing twice."""
    asked = points(frozen.prompts, "frozen", frozen.pictures, judges, frozen.sources)
    return [
        dataclasses.replace(
            call, salt=f"drift {day}",
            # Its prompts may be called like those of the bench that is judged, and be others.
            subject={**call.subject, "kind": "drift", "prompt": f"frozen/{call.subject['prompt']}"}
            | dict(day=day, model=call.judge.model, terms=_terms(call)),
        )
        for call in asked
    ]  # fmt: skip


def compared(rows: Sequence[Row], folder: Path) -> list[Row]:
    """The rows of a run, those of the frozen set with ``since``, the judge's first day, and ``before``, the picture's
    first score, None if that is today's; without both on the first day itself. Their scores are added to the set's."""
    known = _recorded(folder / _SCORES, [r for r in rows if r["kind"] == "drift" and r["outcome"] == "scored"])
    days, first = {}, {}
    for r in sorted(known, key=lambda r: r["day"]):
        days.setdefault(_judge(r), r["day"])
        # A budget may end within the first day: its pictures without a score begin on a later one.
        first.setdefault((*_judge(r), r["prompt"]), r)

    def told(r: Row) -> Row:
        if r["kind"] != "drift" or days.get(_judge(r), r["day"]) == r["day"]:
            return r
        begun = first.get((*_judge(r), r["prompt"]), r)
        return r | dict(since=days[_judge(r)], before=begun["value"] if begun["day"] < r["day"] else None)

    return list(map(told, rows))


def _judge(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["judge"], row["model"], row["terms"]


def _terms(call: Call) -> str:
    """A hash of all that is asked beside the pictures: another address, another rubric, are no drift of the judge."""
    told = [call.judge.address, dict(call.judge.params), call.judge.reply_format, call.rubric.name, call.rubric.system]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _recorded(path: Path, rows: Sequence[Row]) -> list[Row]:
    """All scores of the set, those of ``rows`` among them: the first of a judge, day and picture."""
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # runs of several folders may end at once
        file.truncate(whole_length(path))  # half a line of a killed process
        known = {(*_judge(r), r["day"], r["prompt"]): r for r in _whole(path)}
        new = {(*_judge(r), r["day"], r["prompt"]): _kept(r) for r in rows}
        file.write(as_lines([r for key, r in new.items() if key not in known]))
    return list((new | known).values())


def _whole(path: Path) -> Iterator[Row]:
    """All rows of the file. Raises UserError for one that is none."""
    for number, row in json_lines(path):
        if not isinstance(row, dict) or set(_FIELDS) - set(row) or type(row["value"]) not in (int, float):
            raise UserError(f"Line {number} of {path} is no score of a frozen set; restore the file, or take it out.")
        yield row


def _kept(row: Row) -> Row:
    return {name: row.get(name) for name in _FIELDS}
