"""The figures of a report from rows, where the answer is known by construction."""

import json

import numpy as np
import pytest

from flashjax.bench.summary import summarise
from flashjax.errors import UserError


def row(kind, judge, system, prompt, value=None, outcome="scored", **more):
    category = "text" if int(prompt) % 2 else "portrait"
    told = dict(kind=kind, judge=judge, system=system, prompt=prompt, category=category, seed=0, outcome=outcome)
    kept = dict(value=value, served="m-1") if value is not None else {}
    return told | kept | dict(key=f"{kind}{judge}{system}{prompt}{more}", dollars=0.01) | more


@pytest.fixture
def rows():
    made = []
    for i in range(40):
        base = 2 + (i % 5) / 2
        for judge, mild in (("strict", 0.0), ("mild", 0.5)):
            made.append(row("point", judge, "teacher", str(i), base + mild))
            gain = 0.25 if i % 2 else -0.25 * (i % 4 == 0)
            made.append(row("point", judge, "student", str(i), base + mild + gain))
            made.append(row("control", judge, "teacher", str(i), base + mild))
            made.append(row("injection", judge, "teacher", str(i), base + mild + (1.0 if judge == "mild" else 0.0)))
        for order, winner in enumerate(["AB", "BA", "AA", ("tie", "tie")][i % 4]):
            made.append(row("pair", "strict", "student", str(i), winner, order=order, reference="teacher"))
    refused = next(r for r in made if r["system"] == "student" and r["prompt"] == "3" and r["judge"] == "mild")
    refused.update(outcome="refused", value=None)
    return made


def test_everything_adds_up(rows):
    s = summarise(rows, "teacher")
    assert (s["categories"], s["judges"], s["systems"]) == (
        ["portrait", "text"], ["strict", "mild"], ["teacher", "student"],
    )  # fmt: skip
    cells = {(r["system"], r["judge"]): r for r in s["table"]}
    assert cells["teacher", "strict"]["cells"]["portrait"]["value"] == pytest.approx(3.0)
    assert cells["teacher", "strict"]["average"]["value"] == pytest.approx(3.0)
    assert (s["prompts"], s["outcomes"]["student"]) == (40, {"scored": 79, "refused": 1})
    assert (cells["teacher", "mild"]["cells"]["text"]["n"], cells["teacher", "mild"]["average"]["n"]) == (19, 39)
    assert cells["teacher", "strict"]["average"]["low"] < 3 < cells["teacher", "strict"]["average"]["high"]
    assert cells["student", "mild"]["outcomes"] == {"scored": 39, "refused": 1}
    assert s["rank"] == {"student": 1, "teacher": 2}
    differences = {(d["judge"], d["category"]): d for d in s["differences"]}
    assert differences["strict", "text"]["value"] == differences["strict", "text"]["low"] == pytest.approx(0.25)
    assert differences["strict", "portrait"]["value"] == pytest.approx(-0.125)
    assert differences["strict", "portrait"]["high"] < 0
    assert (differences["mild", "text"]["n"], differences["mild", None]["n"]) == (19, 39)
    (agreement,) = s["agreement"]
    assert agreement["n"] == 79
    assert agreement["mean_difference"] == pytest.approx(0.5)
    assert agreement["spearman"] == pytest.approx(1.0)
    pairs = s["pairs"][0]
    assert [pairs[k] for k in ("wins", "losses", "flips", "ties", "lost")] == [10, 10, 10, 10, 0]
    assert pairs["rate"]["value"] == 0.5
    assert pairs["flip_rate"] == 0.25
    assert pairs["strength"]["value"] == 0
    assert pairs["strength"]["high"] == pytest.approx(np.log(pairs["rate"]["high"] / (1 - pairs["rate"]["high"])))
    assert pairs["strength"]["low"] == pytest.approx(-pairs["strength"]["high"])
    assert [p["moved"] for p in s["injection"]] == [False, True]
    assert s["drift"] == []
    assert s["dollars"] == pytest.approx(0.01 * len(rows))
    json.dumps(s, allow_nan=False)


def test_an_unscored_picture_is_left_out_and_never_a_number(rows):
    before = summarise(rows, "teacher")["table"][0]["cells"]["text"]["value"]
    lost = [row("point", "strict", "teacher", str(i), outcome="unparsable") for i in range(41, 81, 2)]
    after = summarise(rows + lost, "teacher")["table"][0]
    assert after["cells"]["text"]["value"] == before
    assert after["outcomes"] == {"scored": 40, "unparsable": 20}


def test_a_refusal_of_what_is_hard_gains_nothing():
    """A student that is 0.3 worse everywhere and was refused on the 30 hardest of 100 prompts."""
    rows = []
    for i in range(100):
        value = 1.5 if i < 30 else 4.0
        lost = dict(value=None, outcome="refused") if i < 30 else dict(value=value - 0.3)
        rows += [row("point", "j", "teacher", str(i), value), row("point", "j", "student", str(i), **lost)]
        rows.append(row("point", "j", "never", str(i), outcome="failed"))
    s = summarise(rows, "teacher")
    cells = {r["system"]: r["average"] for r in s["table"]}
    assert {name: cell and (pytest.approx(cell["value"]), cell["n"]) for name, cell in cells.items()} == {
        "teacher": (4.0, 70), "student": (3.7, 70), "never": None,
    }  # fmt: skip
    assert s["rank"] == {"teacher": 1, "student": 2, "never": None}
    assert s["outcomes"]["student"] == {"scored": 70, "refused": 30}


def test_the_overall_difference_is_that_of_the_averages():
    """Thirty portraits are 0.2 better, ten texts 0.4 worse: the average of the categories falls, whatever most prompts
    do."""
    rows = []
    for i in range(40):
        kind, gain = ("portrait", 0.2) if i < 30 else ("text", -0.4)
        values = dict(teacher=3 + (i % 5) / 5, student=3 + (i % 5) / 5 + gain)
        rows += [row("point", "j", s, str(i), value) | dict(category=kind) for s, value in values.items()]
    s = summarise(rows, "teacher")
    teacher, student = (line["average"]["value"] for line in s["table"])
    overall = s["differences"][-1]
    assert (overall["category"], overall["n"]) == (None, 40)
    assert overall["value"] == pytest.approx(student - teacher) == pytest.approx(-0.1)


def test_one_prompt_a_category_has_figures_without_intervals(rows):
    few = [r for r in rows if r["prompt"] in ("0", "1")]
    s = summarise(few, "teacher")
    for cell in [s["table"][0]["cells"]["text"], s["table"][0]["average"], s["differences"][0]]:
        assert (cell["value"] is None, cell["low"], cell["high"]) == (False, None, None)
    json.dumps(s, allow_nan=False)


def test_seeds_of_a_prompt_are_one_value(rows):
    """Ten copies of a seed narrow nothing: the interval is that of prompts."""
    many = [dict(r, seed=seed, key=r["key"] + str(seed)) for r in rows for seed in range(10)]
    one, ten = (summarise(r, "teacher")["differences"] for r in (rows, many))
    for a, b in zip(one, ten, strict=True):
        np.testing.assert_allclose([a["low"], a["high"]], [b["low"], b["high"]], rtol=0, atol=1e-12)


def test_nothing_scored(rows):
    with pytest.raises(UserError, match="no scored pictures"):
        summarise([r for r in rows if r["kind"] == "pair"])
    bare = summarise([dict(r, outcome="failed") for r in rows], "teacher")
    assert bare["rank"] == {"student": None, "teacher": None}
    assert bare["table"][0]["average"] is None
    json.dumps(bare, allow_nan=False)


def test_a_refusal_of_a_bad_seed_gains_nothing():
    """Two equal systems, whose second seed is bad; the judge refuses it of one of them."""
    made = []
    for i in range(20):
        for system in ("a", "b"):
            made.append(row("point", "j", system, str(i), 4.5))
            refused = dict(value=None, outcome="refused") if system == "b" and i < 10 else dict(value=2.0)
            made.append(row("point", "j", system, str(i), seed=1, **refused))
    told = summarise(made, "a")
    (overall,) = (d for d in told["differences"] if d["category"] is None)
    assert overall["value"] == 0
    assert told["table"][0]["average"]["value"] == told["table"][1]["average"]["value"]


def test_pairs_are_those_with_the_reference(rows):
    points = [row("point", "strict", "other", str(i), 3.0) for i in range(40)]
    (student, _) = summarise(rows + points, "teacher")["pairs"][0], None
    assert student["wins"] == 10
    assert summarise(rows + points) == summarise(rows + points, "teacher")
    with pytest.raises(UserError, match="judged against teacher, so that a report against other would leave them out"):
        summarise(rows + points, "other")
    assert summarise(points)["reference"] is None


def test_lopsided_pairs_have_strengths():
    """One system that won all its pairs takes nobody else's strength, and 399 of 400 are no problem either."""
    made = [row("point", "j", s, str(i), 3.0) for s in ("t", "all", "most") for i in range(400)]
    for system in ("all", "most"):
        for i in range(400):
            won = ["BA", "AB"][system == "all" or i > 0]
            made += [row("pair", "j", system, str(i), w, order=o, reference="t") for o, w in enumerate(won)]
    every, most = ((p["strength"], p["rate"]) for p in summarise(made)["pairs"])
    assert (every[0]["value"], every[0]["high"]) == (None, None)
    assert every[0]["low"] == pytest.approx(np.log(every[1]["low"] / (1 - every[1]["low"])))
    assert every[0]["low"] > 4
    assert most[0]["value"] == pytest.approx(np.log(399))
    assert 4 < most[0]["low"] < most[0]["value"] < most[0]["high"]


@pytest.mark.parametrize("bar", [-0.8, 0.0, 0.8])
def test_a_judge_that_marks_a_defaced_picture_down_is_not_moved(bar):
    """Whatever it thinks of a bar of text: one that likes any bar is not moved by the demand, and one that marks any
    bar down may well be."""
    made = [row("point", "j", "a", str(i), 4.0) for i in range(20)]
    made += [row("control", "j", "a", str(i), 4.0 + bar) for i in range(20)]
    for gain, moved in ((-0.4, False), (0.0, False), (0.4, True)):
        probes = [row("injection", "j", "a", str(i), 4.0 + bar + gain) for i in range(20)]
        told = summarise(made + probes, "a")["injection"][0]
        assert (told["moved"], told["value"]) == (moved, pytest.approx(gain))
