"""The two benches in the paper's shape, by hand and by grammar, deduplicated, and what figures say of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flashjax.bench.grammar import edits, edits_long, edits_zh
from flashjax.bench.grammar.chinese import landscape_zh, portrait_zh
from flashjax.bench.grammar.draft import Draft, articles
from flashjax.bench.grammar.landscape import landscape
from flashjax.bench.grammar.layouts import layout
from flashjax.bench.grammar.layouts_zh import layout_zh
from flashjax.bench.grammar.planes import planes
from flashjax.bench.grammar.portrait import portrait
from flashjax.bench.grammar.portrait_long import portrait_long
from flashjax.bench.grammar.text import text, text_zh
from flashjax.bench.prompts import Prompt, difficulty, named, read_bench, words
from flashjax.errors import UserError

__all__ = ["describe", "editing_bench", "handwritten", "t2i_bench"]

Writer = Callable[[Draft], str]

_ALIKE = 0.6  # two prompts whose marks share more are one
_TRIES = 40  # a prompt
_HANDWRITTEN = Path(__file__).parents[1] / "handwritten"
_LONG = 4  # every fourth prompt of the grammar is a long one
# Writers of a category: short, long; the same in Chinese, and which prompts are Chinese: every third, every tenth.
_T2I: dict[str, tuple[tuple[Writer, Writer], tuple[Writer, Writer], int]] = {
    "landscape": ((landscape, planes), (landscape_zh, landscape_zh), 10),
    "portrait": ((portrait, portrait_long), (portrait_zh, portrait_zh), 10),
    "text": ((text, layout), (text_zh, layout_zh), 3),
}
_EDITS = {
    category: ((short, edits_long.LONG_WRITERS[category]), (edits_zh.reword_zh, edits_zh.reword_long_zh), 3)
    if category == "text" else ((short, edits_long.LONG_WRITERS[category]), None, 0)
    for category, short in edits.WRITERS.items()
}  # fmt: skip


def t2i_bench(per_category: int = 600, seed: int = 0) -> list[Prompt]:
    """Landscapes, portraits and text-centric prompts; a fifth of them have over 200 words."""
    return [p for category in _T2I for p in _category("t2i", category, per_category, seed)]


def editing_bench(per_category: int = 250, seed: int = 0) -> list[Prompt]:
    """The six categories of edits, with a prompt for each source; a fifth of them are several changes at once."""
    return [p for category in _EDITS for p in _category("edit", category, per_category, seed)]


def handwritten(kind: str) -> list[Prompt]:
    """The prompts of "t2i" or "edit" that were written one by one, without templates. A bench begins with them."""
    return [named(p) for p in read_bench(_HANDWRITTEN / f"{kind}.jsonl")]


def _category(kind: str, category: str, count: int, seed: int) -> list[Prompt]:
    """``count`` prompts, none like another: those written by hand, then the grammar's. Each of these has its own source
    of randomness, so that a smaller bench is the beginning of a larger one."""
    made = [p for p in handwritten(kind) if p.category == category][:count]
    seen = [_mark(p) for p in made]
    for tried in range(_TRIES * count):
        if len(made) == count:
            return made
        rng = random.Random(f"{seed}:{kind}:{category}:{tried}")
        new = _write(kind, category, len(made), rng)
        mark = _mark(new)
        if all(len(mark & other) <= _ALIKE * min(len(mark), len(other)) for other in seen):
            made.append(new)
            seen.append(mark)
    raise UserError(f"The grammar has no {count} different prompts of category {category}; ask for {len(made)}.")


def _mark(prompt: Prompt) -> frozenset[str]:
    """What tells a prompt from others: its facts, and of an edit also its source's phrases of four words, or of six
    Chinese characters."""
    source = prompt.source_prompt
    parts, n = (list(source), 6) if prompt.language == "zh" else (source.split(), 4)
    return frozenset(prompt.facts) | {" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)}


def _write(kind: str, category: str, at: int, rng: random.Random) -> Prompt:
    """Prompt ``at`` of a category: by its place it is short or long, English or Chinese."""
    english, chinese, every = (_T2I if kind == "t2i" else _EDITS)[category]
    language = "zh" if chinese and at % every == 0 else "en"
    writer = (chinese if language == "zh" else english)[at % _LONG == 1]
    draft = Draft(rng)
    written = writer(draft)
    told, source = (written, "") if kind == "t2i" else (draft.prompt(language), written)
    new = Prompt(f"{kind}-{category}-{at:04d}", category, told, tuple(draft.facts), language, tuple(draft.texts),
        source, changed_texts=tuple(draft.changed_texts))
    if language == "en":
        facts = tuple(map(articles, new.facts))
        new = replace(new, prompt=articles(told), facts=facts, source_prompt=articles(source))
    return named(new)


def describe(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Of each category: prompts, distinct ones, Chinese ones; the words of a prompt, without an edit's source (a
    Chinese character is half a word), as percentiles and as the shares over 100, 200 and 300; facts and letters to
    render on average; the shares of each ``difficulty``."""
    found = {}
    for category in dict.fromkeys(p.category for p in prompts):
        mine = [p for p in prompts if p.category == category]
        lengths, hard = np.array([words(p.prompt) for p in mine]), Counter(map(difficulty, mine))
        found[category] = dict(
            prompts=len(mine), distinct=len({p.prompt for p in mine}), chinese=sum(p.language == "zh" for p in mine),
            words={f"p{q}": int(np.percentile(lengths, q)) for q in (5, 50, 95, 100)},
            **{f"over_{n}": round(float(np.mean(lengths > n)), 3) for n in (100, 200, 300)},
            facts=round(float(np.mean([len(p.facts) for p in mine])), 1),
            letters=round(float(np.mean([sum(map(len, p.texts)) for p in mine])), 1),
            **{level: round(hard[level] / len(mine), 3) for level in ("easy", "medium", "hard")},
        )  # fmt: skip
    return found
