"""The two benches in the paper's shape, by hand and by grammar, deduplicated, and what figures say of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.bench.grammar.draft import Draft, articles
from flashjax.bench.grammar.edits import WRITERS
from flashjax.bench.grammar.landscape import landscape
from flashjax.bench.grammar.portrait import portrait
from flashjax.bench.grammar.text import text, text_zh
from flashjax.bench.prompts import Prompt, read_bench
from flashjax.errors import UserError

__all__ = ["describe", "editing_bench", "handwritten", "t2i_bench"]

_ALIKE = 0.6  # two prompts whose marks share more are one
_TRIES = 40  # a prompt
_CHINESE = 3  # every third text-centric prompt
_HANDWRITTEN = Path(__file__).parents[1] / "handwritten"


def t2i_bench(per_category: int = 600, seed: int = 0) -> list[Prompt]:
    """Landscapes, portraits and text-centric prompts."""
    return [
        p
        for category, writer in (("landscape", landscape), ("portrait", portrait), ("text", text))
        for p in _category(category, writer, per_category, seed)
    ]


def editing_bench(per_category: int = 250, seed: int = 0) -> list[Prompt]:
    """The six categories of edits, with a prompt for each source."""
    return [p for category in WRITERS for p in _category(category, None, per_category, seed)]


def handwritten(kind: str) -> list[Prompt]:
    """The prompts that were written one by one, without templates: 158 of "t2i", 60 of "edit". A bench begins with
    them."""
    return read_bench(_HANDWRITTEN / f"{kind}.jsonl")


def _category(category: str, writer: Callable[[Draft], str] | None, count: int, seed: int) -> list[Prompt]:
    """``count`` prompts, none like another: those written by hand, then the grammar's. Each of these has its own source
    of randomness, so that a smaller bench is the beginning of a larger one."""
    kind = "t2i" if writer else "edit"
    made = [p for p in handwritten(kind) if p.category == category][:count]
    seen = [_mark(p) for p in made]
    for tried in range(_TRIES * count):
        if len(made) == count:
            return made
        rng = random.Random(f"{seed}:{kind}:{category}:{tried}")
        new = _write(f"{kind}-{category}-{len(made):04d}", category, writer, rng, len(made))
        mark = _mark(new)
        if all(len(mark & other) <= _ALIKE * min(len(mark), len(other)) for other in seen):
            made.append(new)
            seen.append(mark)
    raise UserError(f"The grammar has no {count} different prompts of category {category}; ask for {len(made)}.")


def _mark(prompt: Prompt) -> frozenset[str]:
    """What tells a prompt from others: its facts, and of an edit also its phrases of four words."""
    words = prompt.source_prompt.split()
    return frozenset(prompt.facts) | {" ".join(words[i : i + 4]) for i in range(len(words) - 3)}


def _write(name: str, category: str, writer: Callable[[Draft], str] | None, rng: random.Random, at: int) -> Prompt:
    draft = Draft(rng)
    if writer is None:
        source = WRITERS[category](draft)
        facts = tuple(map(articles, draft.facts))
        return Prompt(name, category, articles(draft.prompt()), facts, "en", tuple(draft.texts), articles(source))
    language = "zh" if category == "text" and at % _CHINESE == 0 else "en"
    prompt = (text_zh if language == "zh" else writer)(draft)
    return Prompt(name, category, articles(prompt), tuple(map(articles, draft.facts)), language, tuple(draft.texts))


def describe(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Of each category: prompts, distinct ones, length in words (Chinese: characters), facts, letters to render, and
    the share of hard ones, with ten or more things to check or forty or more letters to render."""
    found = {}
    for category in dict.fromkeys(p.category for p in prompts):
        mine = [p for p in prompts if p.category == category]
        lengths = [length(p) for p in mine]
        letters = [sum(map(len, p.texts)) for p in mine]
        found[category] = dict(
            prompts=len(mine), distinct=len({p.prompt for p in mine}), chinese=sum(p.language == "zh" for p in mine),
            length={f"p{q}": int(np.percentile(lengths, q)) for q in (5, 50, 95)},
            facts=round(float(np.mean([len(p.facts) for p in mine])), 1), letters=round(float(np.mean(letters)), 1),
            hard=round(float(np.mean([len(p.facts) >= 10 or n >= 40 for p, n in zip(mine, letters, strict=True)])), 2),
        )  # fmt: skip
    return found


def length(prompt: Prompt) -> int:
    """Words of an English prompt, characters of a Chinese one."""
    return len(prompt.prompt) if prompt.language == "zh" else len(prompt.prompt.split())
