"""The report: strangers' texts stay texts, the page works in a browser from a file, and 1,800 prompts fit."""

import csv
import json
import re

import numpy as np
import pytest
from fake_judge import FakeJudge, Running, completion
from PIL import Image

from flashjax import cli
from flashjax.bench import report
from flashjax.bench.calls import Picture
from flashjax.bench.prompts import Prompt

EVIL = '</script><img src=x onerror="document.title=\'owned\'">'


@pytest.fixture
def judged(tmp_path):
    """Two systems judged by a server whose every text is hostile."""
    rng, prompts = np.random.default_rng(0), []
    for i in range(14):
        prompts.append(dict(id=f"p{i}", category=("a", "b")[i % 2], prompt=f"prompt {i} {EVIL}", facts=[EVIL]))
        for system in ("teacher", "student"):
            (tmp_path / system).mkdir(exist_ok=True)
            image = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8))
            image.save(tmp_path / system / f"p{i}_0.png")
    (tmp_path / "bench.jsonl").write_text("\n".join(map(json.dumps, prompts)))

    def script(request, nth):
        if "winner" in json.dumps(request["response_format"]):
            return 200, completion(json.dumps(dict(winner="A", reasoning=EVIL)))
        if "prompt 5 " in request["messages"][1]["content"][0]["text"]:
            return 200, completion(EVIL)
        return 200, completion(json.dumps(dict(score=2.5 + rng.integers(0, 5) / 4, reasoning=EVIL)))

    with Running(FakeJudge(script)) as server:
        judges = dict(judges=[dict(name=n, url=server.url, model=n) for n in ("one", "two")])
        (tmp_path / "judges.json").write_text(json.dumps(judges))
        systems = [f"{s}={tmp_path / s}" for s in ("teacher", "student")]
        common = [f"--bench={tmp_path}/bench.jsonl", "--pictures", *systems, "--reference=teacher"]
        out = f"--out={tmp_path}/judged"
        assert cli.main(["bench", "judge", *common, f"--judges={tmp_path}/judges.json", out, "--probes=3"]) == 0
    page = tmp_path / "report.html"
    assert cli.main(["bench", "report", *common, f"--judged={tmp_path}/judged", f"--out={page}"]) == 0
    return page


def test_hostile_texts_stay_texts(judged, opened):
    source = judged.read_text()
    assert "<img src=x" not in source
    assert "onerror=\"" not in source
    seen = opened(judged)
    assert "<title>Judged pictures</title>" in seen
    assert "&lt;/script&gt;&lt;img src=x" in seen  # shown as text
    assert len(re.findall("<article>", seen)) == 12
    assert "1 to 12 of 14" in seen
    assert not re.search(r"(src|href)=\"(http|//|file)", seen)


def test_on_a_phone_only_tables_scroll_sideways(judged, width):
    assert width(judged, 400) == 400


def test_the_worst_is_first_and_figures_are_beside_the_page(judged):
    first = json.loads(re.search(r'class="prompt"[^>]*>(.*?)</script>', judged.read_text()).group(1))
    assert first["id"] == "p5"  # never scored
    told = json.loads(judged.with_suffix(".json").read_text())
    assert told["systems"] == ["teacher", "student"]
    assert {p["flips"] for p in told["pairs"]} == {14}  # whatever is shown first wins
    rows = list(csv.DictReader(judged.with_suffix(".csv").open()))
    assert len(rows) == 2 * (28 + 28 + 3)
    unscored = [r for r in rows if r["outcome"] != "scored"]
    assert {(r["prompt"], r["value"]) for r in unscored} == {("p5", "")}


def test_eighteen_hundred_prompts_fit(tmp_path):
    """Noise is the worst that can be compressed: thumbnails get smaller until all fit."""
    rng, shots = np.random.default_rng(0), []
    for i in range(4):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (512, 512, 3), np.uint8)).save(path)
        shots.append(Picture(path, ""))
    ids = [f"p{i}" for i in range(1800)]
    pictures = {s: {name: {0: shots[i % 4]} for i, name in enumerate(ids)} for s in ("base", "teacher", "student")}
    side, quality = report._thumbnail_size(pictures, 5400)
    total = sum(len(report._thumbnail(shots[i % 4].path, side, quality)) for i in range(4)) / 4 * 5400
    assert total < 55 << 20
    assert side >= 96


def test_a_formula_is_no_formula():
    row = dict(kind="point", system="=1+1", judge="j", category="@x", prompt="p", seed=0, outcome="scored", value=-1.5)
    assert "'=1+1" in report._as_csv([row])
    assert ",-1.5," in report._as_csv([row])
    assert Prompt("p", "c", "x").facts == ()
