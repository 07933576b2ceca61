"""The user's two small files: judges.json (who judges, never a key) and prices.json (what a token costs)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flashjax.bench.calls import Judge, Prices
from flashjax.bench.secret import read_secret
from flashjax.errors import UserError
from flashjax.files import read_object

__all__ = ["read_judges"]

_FORMATS = ("json_schema", "json_object", "text")
# field -> (its types, lowest value)
_NUMBERS = {"concurrency": (int, 1), "per_minute": (int, 0), "timeout": ((int, float), 0.001), "tries": (int, 1)}
_TEXTS = ("name", "url", "model", "key_env", "key_file", "reply_format")
_LIKE = "README.md shows what it holds"
_IDENTITY = ("address", "model", "params", "reply_format")  # what a call's key holds of its judge


def read_judges(path: str | Path, prices: str | Path | None = None, most_tokens: int = 1024) -> list[Judge]:
    """The judges of ``path``: {"judges": [{"name", "url", "model", "key_env" or "key_file", ...fields of Judge}]}.

    ``prices``: {model: {"input", "output", "image_tokens"}} in US dollars for a million tokens, of every judge's model.
    ``most_tokens``: of a reply, where an entry has no params of its own.

    Raises:
        UserError: names the file, the judge and the field. A key itself has no place in either file.
    """
    entries = read_object(path, _LIKE).get("judges")
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise UserError(f'{path} has to be {{"judges": [...]}} with one object for each judge.')
    table = _prices(prices)
    entries = [dict(params=dict(max_tokens=most_tokens)) | entry for entry in entries]
    judges = [_priced(_judge(e, f"Judge {i} of {path}"), table, prices) for i, e in enumerate(entries, 1)]
    if len({j.name for j in judges}) < len(judges):
        raise UserError(f"Two judges of {path} have one name; the report could not tell them apart.")
    for one, other in itertools.combinations(judges, 2):
        if all(getattr(one, field) == getattr(other, field) for field in _IDENTITY):
            raise UserError(
                f"{one.name} and {other.name} of {path} are one judge with two names: url, model, params and "
                "reply_format are equal, so that each question is asked once. Take one of them out."
            )
    return judges


def _judge(entry: Mapping[str, Any], where: str) -> Judge:
    if unknown := sorted(set(entry) - {*_TEXTS, *_NUMBERS, "params"}):
        raise UserError(f"{where} has unknown fields: {', '.join(unknown)}. Keys go into key_env or key_file.")
    if missing := [name for name in ("name", "url", "model") if not entry.get(name)]:
        raise UserError(f"{where} has no {' and no '.join(missing)}.")
    if wrong := [name for name in _TEXTS if not isinstance(entry.get(name, ""), str)]:
        raise UserError(f"{where}: {wrong[0]} has to be text.")
    for name, (kind, least) in _NUMBERS.items():
        value = entry.get(name, least)
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < 1e6:
            raise UserError(f"{where}: {name} has to be a number of {least} or more.")
    if entry.get("reply_format", "json_schema") not in _FORMATS:
        raise UserError(f"{where}: reply_format is one of {', '.join(_FORMATS)}.")
    params = entry["params"]
    if not isinstance(params, dict) or {"model", "messages", "response_format", "stream", "n"} & set(params):
        raise UserError(f"{where}: params are further fields of the request, without model, messages, a format or n.")
    for name in {"max_tokens", "max_completion_tokens"} & set(params):
        if type(params[name]) is not int or params[name] < 1:
            raise UserError(f"{where}: {name} has to be a whole number of 1 or more.")
    key = read_secret(entry.get("key_env"), entry.get("key_file"))
    _check_url(entry["url"], bool(key), where)
    fields = {name: entry[name] for name in ("name", "url", "model", *_NUMBERS, "reply_format") if name in entry}
    return Judge(**fields, key=key, params=params)


def _check_url(url: str, has_key: bool, where: str) -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets of an IPv6 address, or a port that is none
        fine = False
    if not fine:
        raise UserError(f"{where}: url has to begin with http:// or https://, as in https://api.openai.com/v1.")
    if parts.username or parts.password or parts.query:
        raise UserError(f"{where}: url holds more than an address; a key goes into key_env or key_file.")
    if has_key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(f"{where}: the key would go unencrypted to {parts.hostname}; use https.")


def _prices(path: str | Path | None) -> dict[str, Prices] | None:
    """Model to its prices, all entries checked; None without a file."""
    if path is None:
        return None
    table, wanted = read_object(path, _LIKE), ["image_tokens", "input", "output"]
    for model, entry in table.items():
        good = isinstance(entry, dict) and sorted(entry) == wanted
        if not good or any(type(v) not in (int, float) or not 0 <= v < 1e9 for v in entry.values()):
            raise UserError(
                f"{path}: the prices of {model} have to be input and output in US dollars for a million tokens, and "
                "image_tokens, the tokens that an image counts as: three numbers of 0 or more."
            )
    return {m: Prices(float(e["input"]), float(e["output"]), math.ceil(e["image_tokens"])) for m, e in table.items()}


def _priced(judge: Judge, table: Mapping[str, Prices] | None, path: str | Path | None) -> Judge:
    if table is None:
        return judge
    if judge.model not in table:
        raise UserError(
            f"{path} has no prices of {judge.model}, the model of judge {judge.name}; it has "
            f"{', '.join(table) or 'none at all'}. A model that costs nothing is written with zeros."
        )
    return dataclasses.replace(judge, prices=table[judge.model])
