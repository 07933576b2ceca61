"""What is said of the gap between teachers, and which of the few-step sets it is measured from."""

import numpy as np
import pytest

from flashjax.evaluate import suite

LABELS = {"student4": "student, 2 NFE", "teacher4": "teacher, 2 NFE", "teacher4_guided": "teacher, guided",
          "teacher80": "teacher, 6 NFE"}  # fmt: skip
GAP = dict(student=0.8, few_step=0.7, many_step=0.9, gap=0.2, closed=0.5, low=0.3, high=0.7, resolved=True,
           ahead=-0.1, ahead_low=-0.15, ahead_high=0.05, few_step_set="teacher4")  # fmt: skip
NONE = "The gap between the teachers lies within its own uncertainty, or is none to close"
POINTS, SHIFT = "-10.0 points (95 % interval -15.0 points to +5.0 points)", "-0.10 (95 % interval -0.15 to +0.05)"
NONE_TO_CLOSE, NONE_OF_DISTANCE = (
    f"{NONE}; against the teacher, 6 NFE, the student has {ahead}." for ahead in (POINTS, SHIFT)
)


@pytest.mark.parametrize(
    ("changes", "distance", "end"),
    [
        ({}, False, "50% of the gap is closed (95 % interval 30% to 70%)."),
        (dict(gap=-0.2), True, "50% of the gap is closed (95 % interval 30% to 70%)."),
        (dict(gap=-0.2), False, NONE_TO_CLOSE),
        (dict(gap=0.2), True, NONE_OF_DISTANCE),
        (dict(resolved=False), False, NONE_TO_CLOSE),
        (dict(gap=0.0, closed=None), False, NONE_TO_CLOSE),
        (dict(resolved=False, ahead_low=None), False, f"{NONE}."),
        (dict(low=None, high=None), False, "50% of the gap is closed; its interval cannot be stated."),
    ],
    ids=str,
)
def test_a_gap_is_told_for_what_it_is(changes, distance, end):
    said = suite._gap_line("Words", GAP | changes, distance, LABELS)
    figures = ("0.80", "0.70", "0.90") if distance else ("80.0%", "70.0%", "90.0%")
    assert said == "Words: student, 2 NFE {}; teacher, 2 NFE {}; teacher, 6 NFE {}. ".format(*figures) + end


def judged(rng, score: float, shift: float, words: bool = True):
    hits = (np.arange(40) < 40 * score).astype(float)
    features = np.random.default_rng(5).normal(size=(40, 3)) + shift + rng.normal(0, 0.01, (40, 3))
    return dict(scores=np.append(hits, np.nan), words=hits if words else None, features=features)


@pytest.mark.parametrize("better", ["teacher4", "teacher4_guided"])
def test_the_gap_is_measured_from_the_better_few_step_set(better, monkeypatch):
    monkeypatch.setattr(suite, "_FRECHET_SPLITS", 10)
    rng = np.random.default_rng(0)
    sets = {name: judged(rng, 0.2, 3.0) for name in ("teacher4", "teacher4_guided")}
    sets |= {better: judged(rng, 0.4, 2.0), "student4": judged(rng, 0.7, 1.0), "teacher80": judged(rng, 0.9, 0.0)}
    gaps = suite._gaps(sets | {"reference": judged(rng, 0.9, 0.0)}, seed=0)
    assert {name: gap["few_step_set"] for name, gap in gaps.items()} == dict.fromkeys(gaps, better)
    assert list(gaps) == ["adherence", "word_accuracy", "frechet_to_teacher"]
    assert gaps["adherence"]["closed"] == pytest.approx(0.6)
    assert gaps["adherence"]["few_step"] == pytest.approx(0.4)
    guided = better == "teacher4_guided"
    assert [name for name, gap in gaps.items() if "equal_cost" in gap] == ["adherence", "word_accuracy"] * guided
    if guided:
        other = gaps["adherence"]["equal_cost"]
        assert (other["few_step_set"], other["few_step"]) == ("teacher4", pytest.approx(0.2))
        assert other["closed"] == pytest.approx(5 / 7)


def test_gaps_that_cannot_be_measured_are_left_out():
    rng = np.random.default_rng(0)
    sets = {name: judged(rng, 0.5, 0.0, words=False) for name in ("teacher4", "student4", "teacher80")}
    assert list(suite._gaps(sets, seed=0)) == ["adherence"]
    sets.pop("teacher4")
    assert suite._gaps(sets, seed=0) == {}


def test_the_worst_miss_the_most_and_say_what():
    cards = [dict(named=named) for named in ({"a": "x", "b": "y"}, {"a": "x"}, {}, {"a": "x", "word": "GO"})]
    seen = [{"a": "x", "b": "z"}, {"a": "x"}, {"a": "q"}, {"a": "w", "word": "NO", "c": "1"}]
    assert suite._worst(seen, cards) == [
        dict(prompt=3, missed={"a": ["x", "w"], "word": ["GO", "NO"]}), dict(prompt=0, missed={"b": ["y", "z"]}),
    ]  # fmt: skip
    assert suite._worst(seen, cards, 1) == suite._worst(seen, cards)[:1]
