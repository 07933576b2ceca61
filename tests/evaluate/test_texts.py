"""Texts against what was read: edit distances by definition, spans by trying all, and the rules of folding by hand."""

import functools
import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from flashjax.evaluate import texts
from flashjax.evaluate.texts import Line


@functools.cache
def by_definition(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(by_definition(a[1:], b) + 1, by_definition(a, b[1:]) + 1, by_definition(a[1:], b[1:]) + (a[0] != b[0]))


@hypothesis.given(st.text("ABC", max_size=7), st.text("ABC", max_size=7))
@hypothesis.settings(max_examples=200)
def test_the_edit_distance_is_that_of_its_definition(a, b):
    assert texts.edit_distance(a, b) == by_definition(a, b)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Café NOIR!", "cafénoir"),
        ("\uff2f\uff30\uff25\uff2e\u3000\uff12\uff14", "open24"),  # full width
        ("“茉莉奶绿” 9.9元", "茉莉奶绿9.9元"),
        ("7:30 \u2013 18:00.", "7:3018:00"),
        ("50% off, $4.50", "50%off$4.50"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
    ],
)
def test_what_counts_of_a_text(text, folded):
    assert texts.fold(text) == folded


def test_words_are_parted_by_spaces_and_chinese_by_character():
    assert texts.words("Fresh  bread,\n7:30 \u2013 noon") == ["fresh", "bread", "7:30", "noon"]
    assert texts.words("大柴旦 118km。") == ["大", "柴", "旦", "118km"]


@hypothesis.given(st.text(st.sampled_from("aB9.,:$ 茉か“-\u0301\u200b\nÉ½"), max_size=12))
def test_parts_lose_and_add_nothing(text):
    assert "".join(texts.words(text)) == "".join(texts.pieces(text)) == texts.fold(text)


def lines(*read: str) -> list[Line]:
    """Under each other."""
    return [Line(text, (0, 20 * i, 100, 20 * i + 18)) for i, text in enumerate(read)]


def one(wanted: str, *read: str) -> texts.Spelled:
    (found,) = texts.spelled([wanted], lines(*read))
    return found


@hypothesis.given(st.text("ab", min_size=1, max_size=4), st.lists(st.text("abc", min_size=1, max_size=2), max_size=4))
def test_the_span_is_the_best_of_all(wanted, read):
    spans = ["".join(read[i:j]) for i, j in itertools.combinations(range(len(read) + 1), 2)]
    fewest = min([len(wanted), *(by_definition(wanted, span) for span in spans)])
    found = one(wanted, " ".join(read))
    assert found.distance == fewest / len(wanted)
    assert by_definition(wanted, found.read) == fewest


def test_a_text_over_several_lines_and_among_others():
    assert one("Fresh Bread Daily", "Since 1920", "FRESH", "BREAD DAILY", "open") == (0, 3, 3, "freshbreaddaily")
    assert one("小草在睡觉", "公园", "小草在", "睡觉") == (0, 5, 5, "小草在睡觉")
    assert one("Bread", "FreshBreadDaily") == (0, 1, 1, "bread")  # the recogniser lost the spaces
    assert one("Latte", "Latte4.50").distance == 0


def test_words_that_are_right_stand_whole_and_in_order():
    found = one("fresh warm bread", "fresh worm bread")
    assert (found.right, found.words, found.distance) == (2, 3, pytest.approx(1 / 14))
    assert one("bread fresh", "fresh", "bread").right == 1
    assert one("cat", "category") == (1, 0, 1, "")  # no part of another word
    assert one("茉莉", "茉 里")[:3] == (0.5, 1, 2)


def test_columns_are_read_down_too():
    shown = ("good", "cheap", "bread", "wine")
    boxes = [(0, 0), (60, 0), (0, 20), (60, 20)]
    read = [Line(text, (x, y, x + 50, y + 18)) for text, (x, y) in zip(shown, boxes, strict=True)]
    found = texts.spelled(["cheap wine", "good bread"], read)
    assert [f.distance for f in found] == [0, 0]
    assert texts.spelled(["good cheap"], read)[0].distance == 0


def test_nothing_counts_twice():
    both = texts.spelled(["OPEN", "OPEN"], lines("open"))
    assert sorted(f.distance for f in both) == [0, 1]
    assert [f.distance for f in texts.spelled(["GAS STATION", "GAS"], lines("gas station", "gas"))] == [0, 0]
    # A longer text that is not there leaves the shorter one what is its own.
    missing, there = texts.spelled(["opening hours", "open"], lines("open"))
    assert (missing.distance, there.distance) == (1, 0)


def test_a_text_is_found_on_its_lines():
    read = lines("Since 1920", "FRESH", "BREAD DALY", "open daily")
    assert texts.located("Fresh Bread Daily", read) == read[1:3]
    assert texts.located("open", read) == read[3:]
    assert texts.located("closed", read) == []  # its best span is further than a third from it
    assert texts.located("open", []) == []


def test_nothing_was_read():
    assert texts.spelled(["two words"], []) == [(1, 0, 2, "")]
    assert texts.spelled([], lines("x")) == []
