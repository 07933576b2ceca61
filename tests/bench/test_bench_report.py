"""The report: strangers' texts stay texts, the page works in a browser from a file, and 1,800 prompts fit."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from fake_judge import FakeJudge, Running, completion
from PIL import Image

from flashjax import cli
from flashjax.bench import report, rubrics, thumbnails
from flashjax.bench.calls import Picture
from flashjax.bench.prompts import Prompt
from flashjax.errors import UserError

EVIL = '</script><img src=x onerror="document.title=\'owned\'">'


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Two systems judged by a server whose every text is hostile: the page, in a folder beside theirs."""
    rng, prompts, tmp_path = np.random.default_rng(0), [], tmp_path_factory.mktemp("judged")
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
    page = tmp_path / "out" / "report.html"
    assert cli.main(["bench", "report", *common, f"--judged={tmp_path}/judged", f"--out={page}"]) == 0
    return page


def test_hostile_texts_stay_texts(judged, opened):
    source = judged.read_text()
    assert "<img src=x" not in source
    assert "onerror=\"" not in source
    seen = opened(judged)
    assert "<title>Judged pictures</title>" in seen
    assert "&lt;/script&gt;&lt;img src=x" in seen  # shown as text
    assert len(re.findall("<article ", seen)) == 12
    assert "1 to 12 of 14" in seen
    assert not re.search(r"(src|href)=\"(http|//|file)", seen)


def test_on_a_phone_only_tables_scroll_sideways(judged, width):
    assert width(judged, 400) == 400


def test_in_the_dark(judged, scripted):
    """Paper, cards and links have the colours of both themes, and ink is never as dark as its paper."""
    script = """const of = (name, key) => getComputedStyle(document.querySelector(name))[key];
        document.title = [of("body", "backgroundColor"), of("body", "color"), of("article", "backgroundColor"),
                          of("article a", "color"), of("select", "color")].join(" ")"""
    light = scripted(judged, script)
    dark = scripted(judged, script, "--force-dark-mode")
    assert light.startswith("rgb(251, 251, 250) rgb(28, 29, 33) rgb(255, 255, 255)")
    assert dark.startswith("rgb(21, 22, 26) rgb(233, 233, 236) rgb(29, 31, 37)")
    assert all(a != b for a, b in zip(light.split("rgb"), dark.split("rgb"), strict=True) if a)


ZOOM = """document.querySelector(".shots img").click();
    setTimeout(() => {
      const img = zoom.querySelector("img"), link = zoom.querySelector("a"), open = zoom.open;
      const shown = `${img.naturalWidth} ${img.src.slice(0, 5)} ${link ? link.getAttribute("href") : "no link"}`;
      img.click();
      document.title = `${open} ${shown} ${zoom.open}`;
    }, 500)"""


def test_zoom_shows_the_file_where_it_is(judged, scripted, tmp_path):
    """And the thumbnail where the page lies alone. The first prompt is p5."""
    alone = tmp_path / "report.html"
    shutil.copy(judged, alone)
    assert scripted(alone, ZOOM) == "true 60 data: no link false"
    moved = tmp_path / "moved"
    shutil.copytree(judged.parents[1], moved)
    Image.new("RGB", (600, 400)).save(moved / "teacher" / "p5_0.png")  # larger than its thumbnail was made
    assert scripted(moved / "out" / "report.html", ZOOM) == "true 600 file: ../teacher/p5_0.png false"


def test_pages_and_filter(judged, scripted):
    script = """const said = [], told = () => said.push(document.getElementById("place").textContent + ": " +
          document.querySelectorAll("article").length);
        const press = id => { document.getElementById(id).click(); told(); };
        press("back"); press("on"); press("on"); press("back"); press("on");
        filter.value = "b"; filter.onchange(); told();
        said.push([...new Set([...document.querySelectorAll("article > p:first-child")].map(
          e => e.textContent.slice(-1)))].join());
        press("on");
        document.title = said.join("; ")"""
    first, second, some = "1 to 12 of 14: 12", "13 to 14 of 14: 2", "1 to 7 of 7: 7"
    assert scripted(judged, script) == "; ".join([first, second, second, first, second, some, "b", some])


def test_a_link_to_one_prompt(judged, scripted):
    """To one of the second page, which a filter hides: it is there after all, and at the top of the window."""
    ids = re.findall(r'class="prompt" data-id="(\w+)"', judged.read_text())
    script = f"""filter.value = all[13].dataset.category === "a" ? "b" : "a"; show(0);
        location.hash = "#prompt-{ids[13]}";
        addEventListener("hashchange", () => {{
          const card = document.querySelector(".linked"), link = card.querySelector("a");
          document.title = [card.id, link.getAttribute("href"), filter.value, scrollY > 0].join(" ");
        }})"""
    assert scripted(judged, script) == f"prompt-{ids[13]} #prompt-{ids[13]}  true"


def test_what_was_lost_is_told_by_system(judged):
    page = judged.read_text()
    lost = re.findall(r'<td class="name bad">(\w+)</td><td>(.*?)</td>', page)
    assert lost == [("unparsable", "1 of 14")] * 4
    assert "The models differ" not in page
    told = json.loads(judged.with_suffix(".json").read_text())
    assert list(told["dollars_by_judge"]) == ["one", "two"]
    assert "<small>" in page


def judgement(system, prompt, outcome="scored", **more):
    told = dict(kind="point", judge="j", system=system, prompt=prompt, category="c", seed=0, outcome=outcome)
    return told | dict(key=system + prompt, dollars=0.25) | (dict(value=3.0) if outcome == "scored" else {}) | more


def test_systems_that_lost_unlike_shares_are_named():
    rows = [judgement(s, p) for s in "ab" for p in "xy"] + [judgement("a", "z"), judgement("b", "z", "refused")]
    lines, sentences = report._lost(rows)
    assert lines == [dict(judge="j", kind="point", system="b", outcome="refused", count=1, asked=3)]
    assert sentences == [
        "The models differ: of the point questions to j, 0 of 3 about a, 1 of 3 about b have no score."
    ]
    assert report._dollars([*rows, *rows], ["j"]) == {"j": 1.5}  # one answer is paid for once


def test_what_cannot_be_compared_is_among_the_worst():
    """A student's refusal, and a reference's: neither hides behind what was scored."""
    fine = [judgement("t", "p"), judgement("s", "p", value=1.0)]
    assert report._badness(fine, "t") == -2.0
    assert report._badness(fine, None) == 1.0
    milder = [judgement("t", "p", judge="mild", value=4.5), judgement("s", "p", "refused", judge="mild")]
    assert report._badness([*fine, *milder], "t") == -2.0  # by the judge who scored both
    for lost in ("s", "t"):
        rows = [judgement(name, "q", "refused" if name == lost else "scored") for name in ("s", "t")]
        assert report._badness(rows, "t") < -4.0


def test_an_edit_stands_beside_its_source(tmp_path):
    """The source comes first, from a folder whose name a link has to escape."""
    (tmp_path / "a b").mkdir()
    for name in ("a b/e_0.png", "e_0.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    (tmp_path / "judged").mkdir()
    row = judgement("s", "e") | dict(category="object")
    (tmp_path / "judged" / "scores.jsonl").write_text(json.dumps(row))
    edit = dict(id="e", category="object", prompt="remove it", source_prompt="a cup")
    (tmp_path / "bench.jsonl").write_text(json.dumps(edit))
    argv = ["bench", "report", f"--bench={tmp_path}/bench.jsonl", "--pictures", f"s={tmp_path}"]
    argv += [f"--judged={tmp_path}/judged", f"--out={tmp_path}/r/report.html", f"--sources={tmp_path}/a b"]
    assert cli.main(argv) == 0
    page = (tmp_path / "r" / "report.html").read_text()
    (block,) = re.findall(r'class="prompt"[^>]*>(.*?)</script>', page, re.DOTALL)
    shots = [(s["system"], s["seed"], s["file"]) for s in json.loads(block)["shots"]]
    assert shots == [("source", None, "../a%20b/e_0.png"), ("s", 0, "../e_0.png")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(judge=None), "its judge is missing, or no text"),
        (dict(seed=True), "its seed is no whole number"),
        (dict(value="4"), "its value is no number from 1 to 5"),
        (dict(value=float("nan")), "its value is no number from 1 to 5"),
        (dict(value=rubrics.HIGH + 1), "its value is no number from 1 to 5"),
        (dict(kind="pair", value="A"), "its order is not 0 or 1, or its reference is missing"),
        (dict(kind="pair", value=3, order=1, reference="t"), "its value is not A, B or tie"),
        (dict(kind="drift"), "its day is missing, or no text"),
        (dict(kind="drift", day="2026-01-31", before="4"), "its earlier value is no number"),
        (dict(subscores=dict(a=None)), "its subscores are no numbers"),
        (dict(failures="seam"), "its failures are no list of texts"),
        (dict(reason=[1]), "its reason or its model is no text"),
        (dict(dollars="1"), "its dollars are no number"),
        (None, "it is no object"),
    ],
)  # fmt: skip
def test_damaged_scores_are_one_sentence(tmp_path, capsys, change, reason):
    rows = [judgement("s", "p"), change and judgement("s", "q") | change]
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, rows)))
    argv = ["bench", "report", "--bench=b", "--pictures", "s=x", f"--judged={tmp_path}", f"--out={tmp_path}/r.html"]
    assert cli.main(argv) == 2
    assert f"Line 2 of {tmp_path}/scores.jsonl is no judgement: {reason}. Run" in capsys.readouterr().err


def test_a_reference_and_prompts_that_are_not_there(tmp_path, capsys):
    frozen = judgement("frozen", "frozen/x", kind="drift", day="2026-01-31")
    rows = [judgement("b", "p"), judgement("a", "p"), frozen]
    (tmp_path / "scores.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "bench.jsonl").write_text('{"id": "q", "category": "c", "prompt": "x"}')
    argv = ["bench", "report", f"--bench={tmp_path}/bench.jsonl", "--pictures", "s=x", f"--judged={tmp_path}"]
    argv += [f"--out={tmp_path}/r.html"]
    assert cli.main([*argv, "--reference=zzz"]) == 2
    assert "--reference zzz is none of the judged systems a, b." in capsys.readouterr().err
    assert cli.main(argv) == 2
    assert f"scores.jsonl judges p, which is not in {tmp_path}/bench.jsonl" in capsys.readouterr().err
    (tmp_path / "bench.jsonl").write_text('{"id": "p", "category": "c", "prompt": "x"}')
    Image.new("RGB", (8, 8)).save(tmp_path / "p_0.png")
    assert cli.main([a.replace("s=x", f"a={tmp_path}") for a in argv]) == 2
    assert f"--pictures has no folder of b, which {tmp_path}/scores.jsonl judges" in capsys.readouterr().err


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"The picture .*/a\.png cannot be shown \(.*\); draw it anew"):
        thumbnails.thumbnail(tmp_path / "a.png", 96, 50)


def test_the_worst_is_first_and_figures_are_beside_the_page(judged):
    first = json.loads(re.search(r'class="prompt"[^>]*>(.*?)</script>', judged.read_text(), re.DOTALL).group(1))
    assert first["id"] == "p5"  # never scored
    told = json.loads(judged.with_suffix(".json").read_text())
    assert told["systems"] == ["teacher", "student"]
    assert {p["flips"] for p in told["pairs"]} == {14}  # whatever is shown first wins
    rows = list(csv.DictReader(judged.with_suffix(".csv").open()))
    assert len(rows) == 2 * (28 + 28 + 3 + 3)
    unscored = [r for r in rows if r["outcome"] != "scored"]
    assert {(r["prompt"], r["value"]) for r in unscored} == {("p5", "")}


def test_pairs_that_were_paid_for_are_in_every_report(judged, tmp_path, capsys):
    folder = judged.parents[1]
    systems = [f"{s}={folder / s}" for s in ("teacher", "student")]
    asked = [f"--bench={folder}/bench.jsonl", "--pictures", *systems, f"--judged={folder}/judged"]
    assert cli.main(["bench", "report", *asked, f"--out={tmp_path}/r.html"]) == 0
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(judged.with_suffix(".json").read_text())
    assert cli.main(["bench", "report", *asked, f"--out={tmp_path}/s.html", "--reference=student"]) == 2
    assert "The pairs were judged against teacher" in capsys.readouterr().err
    assert not (tmp_path / "s.html").exists()


@pytest.mark.parametrize("words", [100, 600])
def test_eighteen_hundred_prompts_fit(tmp_path, monkeypatch, words):
    """Noise is the worst that can be compressed: thumbnails get smaller until all fit beside what judges said of them.
    A page of two prompts, in their share of the bytes of 1,800."""
    prompts, found = [Prompt(f"p{i}", "c", "x") for i in range(2)], {}
    for p in prompts:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
        image.save(tmp_path / f"{p.id}.png")
        found[p.id] = {0: Picture(tmp_path / f"{p.id}.png", "")}
    rows = [judgement(s, p.id, reason="w" * words) for s in "abc" for p in prompts for _ in range(5)]
    monkeypatch.setattr(report, "_PAGE", report._PAGE * 2 // 1800)
    report.write_report(tmp_path / "r.html", rows, prompts, dict.fromkeys("abc", found), title="", command="")
    blocks = re.findall(r'class="prompt"[^>]*>(.*?)</script>', (tmp_path / "r.html").read_text(), re.DOTALL)
    assert 0.5 * 60e6 < sum(map(len, blocks)) * 900 < 60e6


def test_a_formula_is_no_formula():
    row = dict(kind="point", system="=1+1", judge="j", category="@x", prompt="p", seed=0, outcome="scored", value=-1.5)
    assert "'=1+1" in report._as_csv([row])
    assert ",-1.5," in report._as_csv([row])
    assert Prompt("p", "c", "x").facts == ()


def test_scores_stand_beside_the_pictures_that_were_judged(judged, tmp_path, capsys):
    """A student that was drawn anew, or another one's folder, would have the scores of the pictures before."""
    folder = tmp_path / "judged"
    shutil.copytree(judged.parents[1], folder)
    picture = folder / "student" / "p3_0.png"
    Image.new("RGB", (60, 40), (1, 2, 3)).save(picture)
    systems = [f"{s}={folder / s}" for s in ("teacher", "student")]
    asked = [f"--bench={folder}/bench.jsonl", "--pictures", *systems, f"--judged={folder}/judged"]
    assert cli.main(["bench", "report", *asked, f"--out={tmp_path}/r.html"]) == 2
    assert "p3_0.png of student is not the picture that" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
