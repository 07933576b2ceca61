"""The rows of ``scores.jsonl``, checked: of a damaged one a report would be wrong, or none at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashjax.bench.rubrics import HIGH, LOW
from flashjax.errors import UserError
from flashjax.files import json_lines

__all__ = ["read_scores"]

_TEXTS = ("kind", "judge", "system", "prompt", "category", "outcome", "key")


def read_scores(path: str | Path) -> list[dict[str, Any]]:
    """The rows that ``flashjax bench judge`` wrote. Raises UserError that names the line and what is wrong with it."""
    rows = []
    for number, row in json_lines(path):
        if wrong := _wrong(row):
            raise UserError(
                f"Line {number} of {path} is no judgement: {wrong}. Run flashjax bench judge again, which writes the "
                "file anew and asks nothing twice."
            )
        rows.append(row)
    return rows


def _wrong(row: Any) -> str:
    """What is wrong with a row; nothing is the empty string."""
    if not isinstance(row, dict):
        return "it is no object"
    if missing := [name for name in _TEXTS if not isinstance(row.get(name), str)]:
        return f"its {missing[0]} is missing, or no text"
    if type(row.get("seed")) is not int:
        return "its seed is no whole number"
    if row["kind"] == "pair" and (row.get("order") not in (0, 1) or not isinstance(row.get("reference"), str)):
        return "its order is not 0 or 1, or its reference is missing"
    if row["kind"] == "drift" and not isinstance(row.get("day"), str):
        return "its day is missing, or no text"
    if row.get("before") is not None and not _is_number(row["before"]):
        return "its earlier value is no number"
    if not _is_number(row.get("dollars", 0.0)):
        return "its dollars are no number"
    return _wrong_value(row) or _wrong_details(row)


def _wrong_value(row: Mapping[str, Any]) -> str:
    value = row.get("value")
    if row["outcome"] != "scored":
        return ""
    if row["kind"] == "pair":
        return "" if value in ("A", "B", "tie") else "its value is not A, B or tie"
    fine = _is_number(value) and LOW <= value <= HIGH
    return "" if fine else f"its value is no number from {LOW:g} to {HIGH:g}"


def _wrong_details(row: Mapping[str, Any]) -> str:
    """Of what is shown beside a value, where there is any."""
    parts, failures = row.get("subscores") or {}, row.get("failures") or []
    if not isinstance(parts, dict) or not all(map(_is_number, parts.values())):
        return "its subscores are no numbers"
    if not isinstance(failures, list) or not all(isinstance(name, str) for name in failures):
        return "its failures are no list of texts"
    if not isinstance(shown := row.get("pictures") or [], list) or not all(isinstance(each, str) for each in shown):
        return "its pictures are no list of digests"
    texts = [row.get(name) or "" for name in ("reason", "served")]
    return "" if all(isinstance(text, str) for text in texts) else "its reason or its model is no text"


def _is_number(value: Any) -> bool:
    """True is a number in Python and none in JSON, and NaN is none in either."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
