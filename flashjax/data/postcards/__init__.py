"""Postcards: an offline set of captioned pictures whose every detail is known.

Three categories (landscapes, portraits, signs with a word) are drawn from exact
descriptions. A caption names some attributes of the description and leaves the others
open. A fixed tenth of all descriptions, and of all combinations that a caption can name,
is held out: training never shows the former and never says the latter.
"""

from __future__ import annotations

import dataclasses
import hashlib
from types import ModuleType

import numpy as np

from flashjax.data.manifest import CLASSES
from flashjax.data.postcards import landscape, lettering, portrait
from flashjax.data.postcards.lettering import HELDOUT_WORDS, TRAINING_WORDS

__all__ = [
    "CATEGORIES",
    "GENERATOR_VERSION",
    "HELDOUT_WORDS",
    "SPLITS",
    "TRAINING_WORDS",
    "Postcard",
    "is_heldout",
    "make",
    "render",
    "render_edit",
]

# Raise it whenever the same arguments give another picture, caption or split.
GENERATOR_VERSION = 1
CATEGORIES: dict[str, ModuleType] = dict(zip(CLASSES, (landscape, portrait, lettering), strict=True))
SPLITS: tuple[str, ...] = ("train", "teacher", "heldout", "heldout_words")
_TRAINING = ("train", "teacher")

# How many attributes a caption names (the word of a sign comes on top), in shares. A teacher's captions say more: it
# learns what a phrase means several times faster where more phrases meet a picture.
_NAMED_SHARES = np.cumsum([0.15, 0.25, 0.25, 0.20, 0.10, 0.05])
_TEACHER_SHARES = np.cumsum([1 / 7] * 7)
_WORD_SHARE = 0.85


@dataclasses.dataclass(frozen=True)
class Postcard:
    """One picture, described: everything needed to draw it and to judge a drawing of it."""

    category: str
    spec: dict[str, str]
    named: dict[str, str]
    caption: str
    render_seed: int
    edit_spec: dict[str, str]
    instruction: str
    changed: str


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def is_heldout(category: str, spec_or_named: dict[str, str]) -> bool:
    """Whether a full description, or what a caption names, is kept out of training.

    Args:
        category: a key of `CATEGORIES`.
        spec_or_named: attribute to value; all attributes, or the named ones.

    Returns:
        True for a fixed tenth of all combinations and for any held-out word; False for an
        empty one, because a caption that names nothing cannot be held out.
    """
    if not spec_or_named:
        return False
    if spec_or_named.get("word") in HELDOUT_WORDS:
        return True
    parts = [category, *(f"{k}={v}" for k, v in sorted(spec_or_named.items()))]
    return _digest("|".join(parts)) % 10 == 0


def make(category: str, split: str, index: int, seed: int) -> Postcard:
    """The postcard that these four arguments name, always the same one.

    Args:
        category: a key of `CATEGORIES`.
        split: "train" (prompts as people write them, which leave most things open); "teacher" (the same rules with
            captions that name up to six attributes); "heldout" (description and named combination both held out, words
            of the training list); "heldout_words" (signs only, with a held-out word).
        index: position in the split, without an upper end.
        seed: another seed gives another set.

    Raises:
        ValueError: for an unknown category or split.
    """
    _check(category, split)
    rng = np.random.default_rng([_digest(f"{category}|{split}") >> 32, index, seed])
    spec, named = _draw(category, split, rng)
    module = CATEGORIES[category]
    caption = module.caption(spec, tuple(named), rng)
    while True:
        edit_spec, instruction, changed = module.edit(spec, rng)
        if split == "heldout_words" or _allowed_target(category, split, edit_spec):
            break
    seed_of_picture = int(rng.integers(2**31))
    return Postcard(category, spec, named, caption, seed_of_picture, edit_spec, instruction, changed)


def _check(category: str, split: str) -> None:
    if category not in CATEGORIES:
        raise ValueError(f"There is no category '{category}' of postcards; take one of {', '.join(CATEGORIES)}.")
    if split not in SPLITS:
        raise ValueError(f"There is no split '{split}' of postcards; take one of {SPLITS}.")
    if split == "heldout_words" and category != "text":
        raise ValueError(f"Only the category 'text' has the split 'heldout_words', not '{category}'.")


def _allowed_target(category: str, split: str, spec: dict[str, str]) -> bool:
    if split in _TRAINING:
        return not is_heldout(category, spec)
    return spec.get("word") not in HELDOUT_WORDS


def _draw(category: str, split: str, rng: np.random.Generator) -> tuple[dict[str, str], dict[str, str]]:
    """A description and its named part that both belong to the split."""
    count = _named_count(category, split, rng)
    while True:
        spec = CATEGORIES[category].sample(rng)
        new_word = spec.get("word") in HELDOUT_WORDS
        if new_word != (split == "heldout_words"):
            continue
        if is_heldout(category, spec) != (split not in _TRAINING):
            continue
        named = _named(spec, count, split, rng)
        if is_heldout(category, named) == (split not in _TRAINING):
            return spec, named
        # Few single values are held out, perhaps none, so the count is drawn anew too.
        if split not in _TRAINING:
            count = _named_count(category, split, rng)


def _named_count(category: str, split: str, rng: np.random.Generator) -> int:
    shares = _TEACHER_SHARES if split == "teacher" else _NAMED_SHARES
    count = min(int(np.searchsorted(shares, rng.random(), side="right")), len(shares) - 1)
    return count if split in _TRAINING or category == "text" else max(count, 1)


def _named(spec: dict[str, str], count: int, split: str, rng: np.random.Generator) -> dict[str, str]:
    others = [k for k in spec if k != "word"]
    chosen = {others[int(i)] for i in rng.permutation(len(others))[:count]}
    if "word" in spec and (split not in _TRAINING or rng.random() < _WORD_SHARE):
        chosen.add("word")
    return {k: v for k, v in spec.items() if k in chosen}


def render(card: Postcard, size: int) -> np.ndarray:
    """The picture of a postcard, uint8 [size, size, 3]."""
    return CATEGORIES[card.category].render(card.spec, size, card.render_seed)


def render_edit(card: Postcard, size: int) -> np.ndarray:
    """The picture after the postcard's edit, from the same seed, uint8 [size, size, 3]."""
    return CATEGORIES[card.category].render(card.edit_spec, size, card.render_seed)
