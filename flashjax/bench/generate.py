"""The pictures of a bench: one a prompt and seed, each written when it is drawn, so that a stopped run goes on."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from flashjax.bench.prompts import Prompt
from flashjax.errors import UserError
from flashjax.files import whole, write_first
from flashjax.upright import upright

__all__ = ["check_sources", "generate", "pending", "settle"]

# prompts and their seeds to pictures uint8 [N, H, W, 3 or 4]
Drawer = Callable[[Sequence[Prompt], Sequence[int]], np.ndarray]


def settle(folder: Path, facts: Mapping[str, Any]) -> None:
    """Makes the folder of a system and writes down what draws its pictures, or checks that it is the same as before.

    Raises:
        UserError: the folder holds pictures of other settings, or files of something else.
    """
    # Listed first: a process of the same run may write the record, and begin to draw, at any moment from here on.
    there = folder.exists() and any(not path.name.endswith(".partial") for path in folder.iterdir())
    record, told = folder / "drawn.json", json.dumps(facts, indent=1, sort_keys=True)
    if not record.exists():
        if there:
            raise UserError(f"{folder} holds files, but no pictures of flashjax bench generate; give an empty folder.")
        folder.mkdir(parents=True, exist_ok=True)
        write_first(record, told.encode())
    before, now = _read(record), json.loads(told)
    differ = [k for k in sorted({*before, *now}) if before.get(k) != now.get(k)]
    if differ:
        named = "; ".join(f"{k} is {before.get(k)!r} there and {now.get(k)!r} here" for k in differ)
        raise UserError(f"{folder} has pictures of other settings: {named}; give another --out.")


def _read(record: Path) -> dict[str, Any]:
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{record} is damaged ({error}), so that nobody knows what drew its folder.") from error
    if not isinstance(before, dict):
        raise UserError(f"{record} is no object, so that nobody knows what drew its folder.")
    return before


def pending(
    prompts: Sequence[Prompt], seeds: Sequence[int], folder: Path, share: tuple[int, int] = (0, 1)
) -> list[tuple[Prompt, int]]:
    """What is still to be drawn by this process, of ``share`` (its number, how many there are): every so many-th."""
    every = [(p, seed) for p in prompts for seed in dict.fromkeys(seeds)][share[0] :: share[1]]
    return [(p, seed) for p, seed in every if not (folder / f"{p.id}_{seed}.png").exists()]


def check_sources(prompts: Sequence[Prompt], seeds: Sequence[int], folder: Path, sources: Mapping[str, str]) -> None:
    """Raises UserError for an edit in the folder that was drawn from another picture. ``sources``: id to digest."""
    for prompt, seed in ((p, seed) for p in prompts if p.id in sources for seed in seeds):
        path = folder / f"{prompt.id}_{seed}.png"
        if not path.exists():
            continue
        with Image.open(path) as picture:
            drawn_from = picture.info.get("source_sha256")
        if drawn_from != sources[prompt.id]:
            raise UserError(f"{path} was drawn from another picture to edit than there is now; give another --out.")


def generate(
    todo: Sequence[tuple[Prompt, int]], folder: Path, draw: Drawer, facts: Mapping[str, Any], batch: int,
    sources: Mapping[str, str] = types.MappingProxyType({}),
) -> Iterator[int]:  # fmt: skip
    """Draws and writes ``<id>_<seed>.png``, and yields how many were added after every batch.

    Each PNG says in its text chunks what made it: ``facts``, its prompt and its seed, and the digest of the picture
    that it edits (``sources``, by id).
    """
    for start in range(0, len(todo), batch):
        some = todo[start : start + batch]
        images = draw([p for p, _ in some], [seed for _, seed in some])
        for (prompt, seed), image in zip(some, images, strict=True):
            told = {**facts, "prompt": prompt.prompt, "seed": seed, "id": prompt.id}
            told |= {"source_sha256": sources[prompt.id]} if prompt.id in sources else {}
            with whole(folder / f"{prompt.id}_{seed}.png") as partial:
                _save(partial, image, told)
        yield len(some)


def _save(path: Path, image: np.ndarray, facts: Mapping[str, Any]) -> None:
    info = PngImagePlugin.PngInfo()
    for name, value in facts.items():
        info.add_itxt(name, str(value))  # UTF-8: prompts may be Chinese
    upright(Image.fromarray(image)).save(path, "PNG", pnginfo=info)  # judges and reports know no transparency
