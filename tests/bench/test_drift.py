"""The frozen set: made once, scored on every day in every folder, and compared with its first day."""

import json

import pytest
from fake_judge import FakeJudge, Running, completion
from PIL import Image
from test_bench_judge import bench, report

from flashjax import cli
from flashjax.bench import drift, plan
from flashjax.bench.calls import read_picture
from flashjax.bench.prompts import Prompt
from flashjax.errors import UserError


def test_a_judge_that_changed_is_seen_from_any_folder(tmp_path, monkeypatch, capsys):
    days = ["2026-01-01", "2026-01-01", "2026-02-01", "2026-02-01"]
    monkeypatch.setattr(drift, "today", lambda: days[0])
    harsh = completion(json.dumps(dict(score=3.0, reasoning="")))
    with Running(FakeJudge()) as server:
        argv = [*bench(tmp_path, server, key=False), "--probes=3", "--limit=3"]
        frozen = f"--drift={tmp_path}/frozen"
        cli.main([*argv, frozen, "--dry-run"])
        assert not (tmp_path / "frozen").exists()
        cli.main([*argv, frozen])
        assert "j, frozen set: 3 of 3 pictures scored for the first time on 2026-01-01" in capsys.readouterr().out
        asked = sum(server.seen.values())
        days.pop(0)
        cli.main(argv)  # the same day: all is answered, the folder knows its set
        assert sum(server.seen.values()) == asked
        server.script = lambda request, nth: (200, harsh)
        days.pop(0)
        cli.main(argv)
        assert sum(server.seen.values()) == asked + 3
        other = [a if not a.startswith("--out") else f"--out={tmp_path}/elsewhere" for a in argv]
        cli.main([*other, frozen])
    said = capsys.readouterr().out
    assert said.count("j, frozen set: -0.50 (-0.50 to -0.50) since 2026-01-01, n = 3; this judge moves") == 2
    kept = [json.loads(line) for line in (tmp_path / "frozen" / "scores.jsonl").read_text().splitlines()]
    assert [(r["day"], r["value"]) for r in kept] == [("2026-01-01", 3.5)] * 3 + [("2026-02-01", 3.0)] * 3
    assert cli.main(report(argv[:-1], tmp_path)) == 0
    (told,) = json.loads((tmp_path / "report" / "r.json").read_text())["drift"]
    assert (told["day"], told["since"], told["value"], told["moved"]) == ("2026-02-01", "2026-01-01", -0.5, True)
    assert "The frozen set on 2026-02-01, j: against 2026-01-01, -0.50" in (tmp_path / "report" / "r.html").read_text()


def row(day, value, prompt="frozen/a", **more):
    asked = dict(kind="drift", judge="j", model="m", terms="t", day=day, prompt=prompt, seed=0)
    return asked | dict(outcome="scored", value=value) | more


def test_what_is_compared(tmp_path):
    """Another model under one name is another judge; a refusal is no score; half a line of a killed run is no row."""
    drift.compared([row("2026-01-02", 3.0), row("2026-01-02", 4.0, "frozen/b")], tmp_path)
    drift.compared([row("2026-01-02", 1.0)], tmp_path)  # that day has its score
    with (tmp_path / "scores.jsonl").open("a") as file:
        file.write('{"day": "2026-')
    day, refused = "2026-03-01", dict(value=None, prompt="frozen/b", outcome="refused")
    later = [row(day, 3.5), row(day, **refused), row(day, 2.0, "c"), row(day, 5.0, model="other")]
    later.append(row(day, 5.0, terms="another rubric"))
    told = drift.compared(later, tmp_path)
    since = "2026-01-02"
    assert [r.get("before") for r in told] == [3.0, 4.0, None, None, None]
    assert [r.get("since") for r in told] == [since, since, since, None, None]
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 6
    # "c" was without a score on the judge's first day, whose budget ended before it.
    (told,) = drift.compared([row("2026-04-01", 2.5, "c")], tmp_path)
    assert (told["since"], told["before"]) == (since, 2.0)
    with (tmp_path / "scores.jsonl").open("a") as file:
        file.write('{"day": "2026-04-01"}\n')
    with pytest.raises(UserError, match=r"Line 8 of .*scores\.jsonl is no score of a frozen set"):
        drift.compared([], tmp_path)


def test_edits_are_frozen_with_their_sources(tmp_path):
    for name, colour in (("e_3.png", "red"), ("source.jpg", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    edits = [Prompt("e", "scene", "Make it night.", ("It is night.",), source="source.jpg")]
    sources = plan.find_sources(edits, tmp_path / "bench.jsonl", None)
    made = drift.pick(edits, {"e": {3: read_picture(tmp_path / "e_3.png")}}, sources, 5)
    drift.freeze(made, tmp_path / "set")
    again = drift.read(tmp_path / "set")
    assert again.pictures["e"][3].digest == made.pictures["e"][3].digest
    assert again.sources["e"][0].digest == made.sources["e"][0].digest
    assert again.prompts[0].facts == ("It is night.",)


def test_a_folder_that_is_no_frozen_set_or_is_gone(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="is there and is no frozen set"):
        drift.chosen(tmp_path / "out", str(tmp_path / "other"))
    assert drift.chosen(tmp_path / "out", None) is None
    drift.remember(tmp_path / "out", tmp_path / "gone")
    with pytest.raises(UserError, match="that .*out was judged with is gone"):
        drift.chosen(tmp_path / "out", None)
    with pytest.raises(UserError, match="A frozen set needs pictures"):
        drift.pick([], {}, {}, 0)
