"""A prompt while it is being written: sentences, facts, texts, and one source of randomness."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
NUMBERS_ZH = "零一两三四五六七八九十"
COLOURS = (
    "crimson", "mustard yellow", "teal", "navy blue", "olive green", "burgundy", "ivory", "turquoise", "burnt orange",
    "lavender", "charcoal grey", "emerald green", "rust red", "pale pink", "cobalt blue", "chocolate brown",
)  # fmt: skip
DARK = tuple(c for c in COLOURS if c not in ("ivory", "pale pink", "lavender", "mustard yellow"))  # under white letters
COLOURS_ZH = ("朱红", "明黄", "墨绿", "藏青", "象牙白", "天蓝", "橙色", "紫罗兰色", "深灰", "翠绿")


def articles(text: str) -> str:
    """ "an olive green coat", "a unicorn", "an hour", whatever was put after the article."""
    return re.sub(r"\b([Aa]) (?=(?!uni|use|one\b|eu)[aeiou]|hour|8|11\b|18\b)", r"\1n ", text)


def ended(sentence: str) -> str:
    """With a full stop, unless the text that it ends with has brought its own."""
    return sentence if sentence.endswith(('."', '!"', '?"')) else f"{sentence}."


def apart(kind: str) -> str:
    """Ready for " of a fjord": with a second comma where there is one."""
    return f"{kind}," if "," in kind else kind


def listed(items: Sequence[str], language: str = "en") -> str:
    """ "a, b and c"."""
    *most, last = items
    if language == "zh":
        return "、".join(items)
    return f"{', '.join(most)} and {last}" if most else last


def the(thing: str) -> str:
    """ "the windmill" of "a windmill with teal sails"; a colour before the noun goes with it."""
    for words in (" hung ", " with ", " painted ", " limewashed ", " on "):
        thing = thing.split(words)[0]
    return "the " + thing.removeprefix("a ").removeprefix("an ")


def own(thing: str) -> str:
    """ "the shaved head" of "a shaved head": what somebody is known to have."""
    return re.sub("^an? ", "the ", thing)


class Draft:
    """Collects what a prompt says and what can be checked of it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sentences: list[str] = []
        self.facts: list[str] = []
        self.texts: list[str] = []
        self.changed_texts: list[str] = []

    def one(self, items: Sequence):
        return self.rng.choice(items)

    def some(self, items: Sequence, count: int) -> list:
        return self.rng.sample(items, count)

    def say(self, sentence: str, *facts: str) -> None:
        self.sentences.append(sentence[0].upper() + sentence[1:])
        self.facts += facts

    def render(self, text: str, where: str, language: str = "en") -> str:
        """Notes a text that has to be in the picture, and gives it in quotes."""
        self.texts.append(text)
        if language == "zh":
            self.facts.append(f"{where}的文字准确为“{text}”。")
            return f"“{text}”"
        self.facts.append(ended(f'{where[0].upper()}{where[1:]} reads exactly "{text}"'))
        return f'"{text}"'

    def quote(self, *texts: str, language: str = "en") -> list[str]:
        """Notes texts that have to be in the picture, and gives them in quotes; the facts are the caller's."""
        self.texts += [text for text in texts if text not in self.texts]
        return [f"“{text}”" if language == "zh" else f'"{text}"' for text in texts]

    def changes(self, *texts: str) -> None:
        """Notes texts of an edit's source in whose place alone it may change the picture."""
        self.changed_texts += texts

    def prompt(self, language: str = "en") -> str:
        return ("" if language == "zh" else " ").join(self.sentences)
