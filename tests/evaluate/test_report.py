"""The report: complete, self-contained, and safe against what stands in captions."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from flashjax import config as configs
from flashjax.errors import UserError
from flashjax.evaluate import charts, report, study


def _write(path, **changes):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    arguments = {
        "title": "A run & more",
        "command": "flashjax train --steps=3",
        "metrics": {
            "verdict": ["The gap is closed."],
            "counts": {"prompts": 2},
            "entries": {
                "student4": {
                    "label": "student, 4 NFE",
                    "adherence": 0.9,
                    "word_accuracy": None,
                    "adherence_per_category": {"text": 0.9},
                }
            },
        },
        "grids": {
            "Signs": {
                "captions": ['a sign that says "GO"', "<script>alert(1)</script>"],
                "columns": {"teacher 80 NFE": pictures, "student 4 NFE": list(pictures)},
            }
        },
        "curves": {"loss": (np.arange(5000), np.linspace(2, 1, 5000)), "nothing": ([], [])},
        "step_table": "step <0>",
        "config_text": "steps = 3",
        "facts": {"device": "CPU"},
    }
    return report.write_report(path, **(arguments | changes)).read_text(encoding="utf-8"), pictures


def test_page_escapes_captions_and_refers_to_nothing_outside(tmp_path):
    page, _ = _write(tmp_path / "deep" / "report.html")
    assert page.count("<script") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "step &lt;0&gt;" in page
    assert "A run &amp; more" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'; img-src data:" in page
    assert "prefers-color-scheme: dark" in page
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_pictures_are_embedded_exactly_and_shown_four_times_as_large(tmp_path):
    page, pictures = _write(tmp_path / "report.html")
    found = re.findall(r'src="data:image/png;base64,([^"]+)" width="(\d+)" height="(\d+)"', page)
    assert len(found) == 4
    assert {(w, h) for _, w, h in found} == {("128", "128")}
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[0][0]))))
    np.testing.assert_array_equal(decoded, pictures[0])


ZOOM = """const imgs = [...document.querySelectorAll(".samples img")];
    const press = (e, key) => e.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
    const seen = () => {
      const img = zoom.querySelector("img"), look = getComputedStyle(img);
      return [zoom.open, img.src === imgs[3].src, zoom.querySelector("p").textContent, look.imageRendering,
              look.objectFit, img.offsetWidth / Math.min(innerWidth * 0.96, 640),
              zoom.offsetHeight <= innerHeight && zoom.scrollHeight === zoom.clientHeight];
    };
    const said = [];
    imgs[3].click(); said.push(seen()); zoom.querySelector("img").click(); said.push(zoom.open);
    imgs[3].focus(); press(document.activeElement, "Enter"); said.push(seen());
    press(document.activeElement, " "); said.push(zoom.open, document.activeElement === imgs[3]);
    press(imgs[0], "x"); said.push(zoom.open);
    document.title = JSON.stringify(said)"""


@pytest.mark.parametrize("window", ["1200,900", "500,900", "800,400"])
def test_zoom_by_finger_and_by_keyboard(tmp_path, scripted, window):
    """The picture fills the window but for its caption, which stays a text; focus comes back to where it was."""
    _write(tmp_path / "report.html")
    told = json.loads(html.unescape(scripted(tmp_path / "report.html", ZOOM, f"--window-size={window}")))
    caption = "student 4 NFE: <script>alert(1)</script>"
    shown = [True, True, caption, "pixelated", "contain", pytest.approx(1, abs=0.01), True]
    assert told == [shown, False, shown, False, True, False]


def test_figures_that_nobody_has_are_left_out(tmp_path):
    page, _ = _write(tmp_path / "report.html")
    assert "90.0%" in page
    assert "Words (OCR)" not in page
    empty, _ = _write(tmp_path / "empty.html", metrics={})
    assert "held-out" not in empty


def test_curve_keeps_peaks_leaves_out_what_is_not_finite_and_draws_constants(tmp_path):
    values = np.ones(5000)
    values[1234], values[7] = 9.0, np.nan
    page, _ = _write(tmp_path / "report.html", curves={"loss": (np.arange(5000), values)})
    assert "1 values not finite" in page
    points = re.search(r'points="([^"]+)"', page)[1].split()
    assert 300 <= len(points) <= 600
    assert min(float(p.split(",")[1]) for p in points) < 40
    assert "nan" not in charts.lines_svg([(np.array([3.0]), np.array([0.0]))])


def test_intervals_are_drawn_where_they_are_and_labels_escaped():
    made = charts.intervals_svg([("a <b>", 0.5, 0.25, 0.75, True), ("c", -0.5, -1.0, 0.5, False)])
    assert "a &lt;b&gt;" in made
    assert made.count('class="span clear"') == made.count('class="mean clear"') == 1
    spans = [(float(a), float(b)) for a, b in re.findall(r'class="span[^"]*" x1="([\d.]+)" x2="([\d.]+)"', made)]
    zero = float(re.search(r'class="axis" x1="([\d.]+)"', made)[1])
    assert zero < spans[0][0] < spans[0][1] and spans[1][0] < zero < spans[1][1]
    lengths = [b - a for a, b in spans]
    assert lengths[1] == pytest.approx(3 * lengths[0], abs=0.3)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 5999), (-3e-6, 2e-5), (0.4, 0.4), (0, 0), (1e7, 3e9)])
def test_ticks_span_the_data_and_have_different_labels(low, high):
    ticks = charts._ticks(low, high)
    labels = charts._labels(ticks)
    assert ticks[0] <= low <= high <= ticks[-1] + 1e-9 * abs(high)
    assert 3 <= len(ticks) <= 7
    assert len(set(labels)) == len(labels)


def test_mistakes_are_told(tmp_path):
    picture = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(UserError, match=r"student \(1\)"):
        _write(tmp_path / "a.html", grids={"x": {"captions": ["a", "b"], "columns": {"student": [picture]}}})
    with pytest.raises(UserError, match="uint8"):
        _write(tmp_path / "a.html", grids={"x": {"captions": ["a"], "columns": {"s": [picture / 2]}}})
    with pytest.raises(UserError, match="2 steps and 1 values"):
        _write(tmp_path / "a.html", curves={"x": ([1, 2], [1])})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("window", [400, 1200])
def test_no_page_is_wider_than_its_window(tmp_path, window, width):
    """Five columns of pictures, long captions and all figures: on a phone too only tables scroll sideways."""
    figures = {c[0]: 0.5 for c in report._COLUMNS + report._TONE}
    entries = {"student4": {"label": "student, 4 NFE", "adherence_per_category": dict(landscape=0.5, text=1)} | figures}
    picture = np.zeros((32, 32, 3), np.uint8)
    columns = {f"teacher, {i} steps guided (8 NFE)": [picture] for i in range(5)}
    grids = {"landscape": dict(captions=["a landscape with no rainbow, desert dunes, a lake " * 3], columns=columns)}
    path = tmp_path / "report.html"
    _write(path, metrics=dict(entries=entries, verdict=["word " * 60]), grids=grids, command="flashjax " + "x" * 300)
    assert width(path, window) == window


def test_on_a_phone_long_names_leave_room_for_figures(tmp_path, scripted):
    """The column of names stays in place while the rest scrolls."""
    entry = {"label": "weights/postcards_editor, 4 steps (4 NFE)", "adherence_per_category": dict(a=0.5, b=1)}
    _write(tmp_path / "report.html", metrics=dict(entries=dict(student4=entry)))
    script = """const cells = [...document.querySelectorAll(".figures td:first-child")];
        document.title = Math.max(...cells.map(c => c.offsetWidth)) / innerWidth"""
    assert float(scripted(tmp_path / "report.html", script, "--window-size=500,900")) < 0.45


def test_the_average_is_that_of_the_categories_where_all_are_there_and_ranks_models():
    found = dict(
        a=dict(text=0.5, portrait=0.7), b=dict(text=1), c=dict(text=0.7, portrait=0.5), real=dict(text=1, portrait=1),
        d=dict(text=0.1, portrait=0.2), e=dict(text=0.6, portrait=0.7),
    )  # fmt: skip
    told = report._categories({name: {"adherence_per_category": row} for name, row in found.items()})
    assert told["heads"] == ["text", "portrait", "average", "rank"]
    assert [row["cells"][2:] for row in told["rows"]] == [
        ["60.0%", "2"], ["–", "–"], ["60.0%", "2"], ["100.0%", "–"], ["15.0%", "4"], ["65.0%", "1"],  # noqa: RUF001
    ]  # fmt: skip
    assert told["rows"][1]["cells"][:2] == ["100.0%", "–"]  # noqa: RUF001
    assert report._categories({"a": {}})["heads"] == []


def test_who_guides_which_step_is_drawn(tmp_path):
    config = configs.load(["--config=configs/postcards_joint.py"])
    config.distill.guidance_table.portrait.pictures = "base_then_specialist"
    tables = study.guidance_tables(config)
    page, _ = _write(tmp_path / "report.html", guidance=tables)
    rows = re.findall(r"<tr><td>(\w+)</td>(.*?)</tr>", page[page.index("Who guides") :], flags=re.S)
    heard = {
        label: [re.findall(r'width: (\d+)%" title="(\w+)', cell) for cell in cells.split("<td>")[1:]]
        for label, cells in rows[:4]
    }
    alone, base, both = [("100", "pictures")], [("100", "base")], [("50", "base"), ("50", "pictures")]
    portrait = [base, base, both, alone]
    assert heard == dict(landscape=[alone] * 4, portrait=portrait, text=[alone] * 4, edit=[base] * 4)
    config.edit_share = 0.0
    assert study.guidance_tables(config)["All through the run"][0] == ("landscape", "portrait", "text")
    config.distill.guidance_table = ((0, {}), (0.004, {"text": {"pictures": "linear"}}), (0.07, {}))
    assert list(study.guidance_tables(config)) == [f"From {x}% of the run on" for x in ("0", "0.4", "7")]  # none lost
    assert study.guidance_tables(configs.load(["--config=configs/postcards.py"])) == {}
    assert study.guidance_tables(configs.load(["--config=configs/postcards_teacher.py"])) == {}
    plain, _ = _write(tmp_path / "plain.html")
    assert "Who guides" not in plain
