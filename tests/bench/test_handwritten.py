"""The prompts written by hand: every entry is read, checkable, its own, and leads the bench."""

import itertools
import re

import pytest

from flashjax.bench import grammar
from flashjax.bench.prompts import Prompt, difficulty, words
from flashjax.bench.rubrics import EDITS

NUMBERS, NUMBERS_ZH = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve", "两|三|四|五|六|七|八"


@pytest.fixture(scope="module")
def t2i():
    return grammar.handwritten("t2i")


@pytest.fixture(scope="module")
def edits():
    return grammar.handwritten("edit")


def quote(p: Prompt, text: str) -> str:
    return f"“{text}”" if p.language == "zh" else f'"{text}"'


def quoted(p: Prompt, text: str) -> list[str]:
    return re.findall("“([^”]+)”" if p.language == "zh" else '"([^"]+)"', text)


def test_shape_length_and_difficulty(t2i, edits):
    told = grammar.describe(t2i)
    assert {k: (v["prompts"], v["chinese"]) for k, v in told.items()} == dict(
        landscape=(55, 5), portrait=(57, 5), text=(95, 29)
    )
    assert min(v["words"]["p5"] for v in told.values()) >= 50
    assert sum(words(p.prompt) > 150 for p in t2i) >= 30
    assert all(len(p.facts) >= 7 for p in t2i)
    assert told["text"]["letters"] > 40
    assert 0.1 < sum(difficulty(p) == "hard" for p in t2i) / len(t2i) < 0.5
    assert {k: v["prompts"] for k, v in grammar.describe(edits).items()} == dict.fromkeys(EDITS, 15)
    assert all(len(p.facts) >= 4 and len(p.source_prompt) > 30 for p in edits)
    assert all(len(p.texts) >= 1 for p in edits if p.category == "text")


def test_what_is_quoted_is_what_has_to_be_rendered(t2i, edits):
    """A text is in the prompt and in a fact; a fact quotes nothing that neither prompt nor source shows."""
    for p in t2i + edits:
        assert len(set(p.texts)) == len(p.texts), p.id
        for text in p.texts:
            assert quote(p, text) in p.prompt, (p.id, text)
            assert any(quote(p, text) in fact for fact in p.facts), (p.id, text)
        shown = " ".join([p.source_prompt, p.prompt])
        assert not [t for f in p.facts for t in quoted(p, f) if t not in shown], p.id
    assert all(set(quoted(p, p.prompt)) == set(p.texts) for p in t2i)


def test_counts_of_the_facts_are_those_of_the_prompt(t2i):
    for p in t2i:
        pattern = f"恰好有({NUMBERS_ZH})" if p.language == "zh" else rf"[Ee]xactly ({NUMBERS})\b"
        for fact in p.facts:
            for number in re.findall(pattern, fact):
                assert number in p.prompt.lower(), (p.id, fact)


def test_no_two_are_alike(t2i, edits):
    """Under a tenth of the runs of four words (Chinese: six characters) are shared; no fact of substance is twice."""

    def runs(p):
        text = p.prompt + " " + p.source_prompt
        parts, n = (text, 6) if p.language == "zh" else (re.findall(r"\w+", text.lower()), 4)
        return {tuple(parts[i : i + n]) for i in range(len(parts) - n)}

    marks = {p.id: runs(p) for p in t2i + edits}
    assert len(marks) == len(t2i + edits)
    for (a, x), (b, y) in itertools.combinations(marks.items(), 2):
        assert len(x & y) <= 0.1 * min(len(x), len(y)), (a, b, x & y)


def test_they_lead_the_bench_and_the_grammar_writes_none_again(t2i, edits):
    for hand, bench in ((t2i, grammar.t2i_bench(110)), (edits, grammar.editing_bench(20))):
        assert [p for p in bench if "hand" in p.id] == hand
        facts = {f for p in hand for f in p.facts}
        # Sentences that any edit needs, such as "the same person", are the exception.
        assert all(len(facts & set(p.facts)) <= 1 for p in bench if "hand" not in p.id)
