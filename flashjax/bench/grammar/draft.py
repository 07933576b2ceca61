"""A prompt while it is being written: sentences, facts, texts, and one source of randomness."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
COLOURS = (
    "crimson", "mustard yellow", "teal", "navy blue", "olive green", "burgundy", "ivory", "turquoise", "burnt orange",
    "lavender", "charcoal grey", "emerald green", "rust red", "pale pink", "cobalt blue", "chocolate brown",
)  # fmt: skip
COLOURS_ZH = ("朱红", "明黄", "墨绿", "藏青", "象牙白", "天蓝", "橙色", "紫罗兰色", "深灰", "翠绿")


def articles(text: str) -> str:
    """ "an olive green coat", whatever colour was put after the article."""
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


class Draft:
    """Collects what a prompt says and what can be checked of it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sentences: list[str] = []
        self.facts: list[str] = []
        self.texts: list[str] = []

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
        self.facts.append(f'{where[0].upper()}{where[1:]} reads exactly "{text}".')
        return f'"{text}"'

    def prompt(self, language: str = "en") -> str:
        return ("" if language == "zh" else " ").join(self.sentences)
