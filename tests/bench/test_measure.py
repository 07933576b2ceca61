"""From pictures on the disk to measures.json and the report's table, and every picture that does not fit."""

import csv
import hashlib
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from tiny_onnx import network

from flashjax import cli
from flashjax.bench import _measures, measuring, report
from flashjax.bench.calls import read_picture
from flashjax.bench.prompts import Prompt, make_prompt
from flashjax.data.postcards import lettering
from flashjax.errors import UserError
from flashjax.evaluate import ocr
from flashjax.evaluate.texts import Line

RNG = np.random.default_rng(0)
SIGNS = ("HELLO", "NEWS", "GO")


def save(path, pixels, **told):
    path.parent.mkdir(exist_ok=True)
    info = PngImagePlugin.PngInfo()
    for name, value in told.items():
        info.add_itxt(name, value)
    Image.fromarray(np.uint8(pixels)).save(path, pnginfo=info)
    return read_picture(path)


def sign(word: str) -> np.ndarray:
    values = (word, "black", "white", "center", "none", "plain")
    return lettering.render(dict(zip(lettering.ATTRIBUTES, values, strict=True)), 32, 3)


@pytest.fixture
def bench(tmp_path):
    """Three landscapes and three signs, two seeds of each; the student writes PIZZA for GO. An extractor."""
    prompts = [dict(id=f"a{i}", category="landscape", prompt=f"hills {i}") for i in range(3)]
    prompts += [dict(id=f"b{i}", category="text", prompt="a sign", texts=[w.title()]) for i, w in enumerate(SIGNS)]
    (tmp_path / "bench.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    for system in ("teacher", "student"):
        for seed in (0, 1):
            for i, word in enumerate(SIGNS):
                save(tmp_path / system / f"a{i}_{seed}.png", RNG.integers(0, 255, (32, 32, 3)))
                wrong = system == "student" and word == "GO"
                save(tmp_path / system / f"b{i}_{seed}.png", sign("PIZZA" if wrong else word))
    (tmp_path / "net.onnx").write_bytes(network())
    told = dict(size=8, fit="crop", resample="bicubic", mean=[0, 0, 0], std=[1, 1, 1], layout="nchw")
    (tmp_path / "net.json").write_text(json.dumps(told))
    return tmp_path


def measure(folder, *more: str) -> int:
    systems = [f"{name}={folder / name}" for name in ("teacher", "student")]
    common = [f"--bench={folder}/bench.jsonl", "--reference=teacher", f"--out={folder}/out", "--pictures", *systems]
    return cli.main(["bench", "measure", *common, *more])


def test_from_the_command_to_the_report(bench, capsys, monkeypatch, tmp_path):
    pytest.importorskip("rapidocr_onnxruntime")
    monkeypatch.chdir(tmp_path)  # the classifier is found from anywhere
    sha256 = hashlib.sha256(network()).hexdigest()
    assert measure(bench, "--extractor=onnx", f"--weights={bench}/net.onnx", f"--sha256={sha256}") == 0
    told = json.loads((bench / "out" / "measures.json").read_text())
    assert [(e["name"], e["dimensions"]) for e in told["extractors"]] == [("postcards", 128), ("onnx", 12)]
    assert (told["extractors"][1]["sha256"], told["texts"], told["texts_left_out"]) == (sha256, 3, 0)
    rows = {(r["system"], r["category"], r["metric"], r["extractor"]): r for r in told["rows"]}
    assert rows["teacher", "text", "word_accuracy", ""]["value"] == 1
    assert rows["student", "", "word_accuracy", ""]["value"] == pytest.approx(2 / 3)
    assert rows["student", "text", "text_distance_change", ""]["value"] == pytest.approx(1 / 3)
    assert rows["student", "text", "precision", "postcards"]["n"] == 6
    assert rows["student", "", "frechet", "onnx"]["n"] == 12
    assert ("student", "landscape", "word_accuracy", "") not in rows
    assert "NOTE: The Fréchet distances in the features of postcards (128 dimensions)" in capsys.readouterr().out
    lines = list(csv.DictReader((bench / "out" / "measures.csv").open()))
    assert len(lines) == len(rows)
    assert {line["rough"] for line in lines} == {"True", "False"}

    scores = dict(kind="point", judge="j", outcome="scored", value=3.0, key="k", seed=0, reason="")
    shown = [(s, f"a{i}") for s in ("teacher", "student") for i in (0, 1)]
    scores = [dict(scores, system=s, prompt=p, category="landscape") for s, p in shown]
    (bench / "out" / "scores.jsonl").write_text("\n".join(map(json.dumps, scores)))
    systems = [f"{name}={bench / name}" for name in ("teacher", "student")]
    argv = ["bench", "report", f"--bench={bench}/bench.jsonl", f"--judged={bench}/out", f"--out={bench}/r.html"]
    assert cli.main([*argv, f"--measures={bench}/out/measures.json", "--pictures", *systems]) == 0
    page = (bench / "r.html").read_text()
    assert "Measured, against teacher" in page
    assert f"onnx, sha256 {sha256}" in page
    assert "Words rendered right (OCR)" in page
    assert cli.main([*argv, f"--measures={bench}/bench.jsonl", "--pictures", *systems]) == 2
    assert "is not valid JSON" in capsys.readouterr().err


@pytest.fixture
def reported(bench):
    """What runs a report of the systems and prompts that were judged with measures, and the measures of all."""
    assert measure(bench, "--no-ocr", "--extractor=postcards") == 0
    told = json.loads((bench / "out" / "measures.json").read_text())
    score = dict(kind="point", judge="j", outcome="scored", value=3.0, key="k", seed=0, reason="")

    def report_of(measures, names=("teacher", "student"), prompts=("a0", "a1", "a2", "b0", "b1", "b2")) -> int:
        scores = [dict(score, system=s, prompt=p, category="landscape") for s in names for p in prompts]
        (bench / "out" / "scores.jsonl").write_text("\n".join(map(json.dumps, scores)))
        (bench / "measures.json").write_text(json.dumps(measures))
        argv = ["bench", "report", f"--bench={bench}/bench.jsonl", f"--judged={bench}/out", f"--out={bench}/r.html"]
        pictures = [f"{name}={bench}/{'student' if name == 'other' else name}" for name in names]
        return cli.main([*argv, f"--measures={bench}/measures.json", "--pictures", *pictures])

    return report_of, told


def test_measures_stand_beside_the_pictures_that_were_measured(reported, bench, capsys):
    report_of, told = reported
    assert report_of(told) == report_of(told, ("student",)) == 0
    assert report_of(told, ("other",)) == 2
    assert "measures teacher, student, and none of other." in capsys.readouterr().err
    save(bench / "student" / "b1_1.png", sign("OLD"))
    assert report_of(told, ("teacher",)) == 0
    assert report_of(told, prompts=("a0", "a1")) == 0  # of which not all is seen that was measured
    assert report_of(told) == 2
    assert "measures other pictures of student than these; run" in capsys.readouterr().err
    with (bench / "bench.jsonl").open("a") as file:
        file.write("\n")
    assert report_of(told, ("teacher",)) == 2
    assert f"measures.json is of another bench than {bench}/bench.jsonl" in capsys.readouterr().err


def test_measures_of_some_prompts_are_compared_over_these(reported, bench, capsys):
    """``--limit`` of both commands takes the same prompts, from all categories."""
    report_of, _ = reported
    assert measure(bench, "--no-ocr", "--extractor=postcards", "--limit=2") == 0
    told = json.loads((bench / "out" / "measures.json").read_text())
    save(bench / "student" / "a2_0.png", RNG.integers(0, 255, (32, 32, 3)))
    assert report_of(told) == 0  # not among them
    save(bench / "student" / "b0_0.png", sign("OLD"))
    assert report_of(told) == 2
    assert "measures other pictures of student" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(rows=3), "its rows is missing, or of another kind"),
        (dict(bench_sha256=None), "its bench_sha256 is missing, or of another kind"),
        (dict(extractors=["net"]), "an extractor has no name or no sha256"),
        (dict(rows=["x"]), "a row has other fields"),
        (dict(metric="loveliness"), "it has the measure loveliness, which is not known"),
        (dict(metric=["cmmd"]), "a row has a name that is no text"),
        (dict(system="x"), "it has a row of x, which is none of its systems"),
        (dict(value="1"), "a row has a figure that is no number"),
    ],
)  # fmt: skip
def test_damaged_measures_are_one_sentence(tmp_path, change, sentence):
    row = dict(system="s", category="", metric="cmmd", extractor="net", value=1.0, low=None, high=None, n=2)
    row |= dict(unit="pictures", rough=False)
    told = dict(reference="s", systems=["s"], categories=[""], warnings=[], extractors=[], reader=None, prompts=1)
    told |= dict(bench_sha256="", pictures={}, rows=[row | {k: v for k, v in change.items() if k in row}])
    told |= {k: v for k, v in change.items() if k not in row}
    (tmp_path / "m.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=f"m.json is no measures.json of this flashjax bench measure: {sentence}."):
        _measures.read_measures(tmp_path / "m.json", tmp_path, [], {})


def test_what_does_not_fit_is_said_before_anything_is_measured(bench, capsys):
    def said(*more: str) -> str:
        assert measure(bench, *more) == 2
        assert not (bench / "out").exists()
        return capsys.readouterr().err

    assert "has the sha256" in said("--extractor=onnx", f"--weights={bench}/net.onnx", "--sha256=00")
    assert "belong to an --extractor" in said(f"--weights={bench}/net.onnx")
    assert "has weights of its own; leave" in said("--extractor=postcards", f"--weights={bench}/net.onnx")
    assert "--reference x is none of the systems" in said("--reference=x")
    (bench / "student" / "a1_0.png").unlink()
    (bench / "student" / "a1_1.png").unlink()
    assert "1 prompts have no picture in" in said()


def of(prompt: Prompt, picture, sources=None, read=None) -> measuring.Measured:
    return measuring.measure([prompt], {prompt.id: {0: picture}}, [], sources or {}, read, {})


def test_errors_outside_of_a_region():
    source = np.zeros((10, 20, 3), np.uint8)
    image = source.copy()
    image[2:5, 4:10] = 255  # what the edit was to change
    image[9, 19] = 51
    for region in (0.2, 0.2, 0.5, 0.5), (0.24, 0.25, 0.46, 0.41):  # the second touches the same pixels
        assert measuring.outside_error(image, source, [region]) == pytest.approx(0.2 / (200 - 18))
    halves = [(0, 0, 0.5, 1), (0.5, 0, 1, 0.9)]
    assert measuring.outside_error(image, source, halves) == pytest.approx(0.2 / 10)
    assert np.isnan(measuring.outside_error(image, source, [(0, 0, 1, 1)]))
    assert measuring.source_difference(image, source) == pytest.approx((18 + 0.2) / 200)


def test_the_error_outside_is_that_of_its_definition():
    """Pixel by pixel, in exact fractions: outside is what no box has a part of."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        height, width = map(int, rng.integers(3, 12, 2))
        image, source = rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8)
        boxes = [(*np.minimum(a, b), *np.maximum(a, b)) for a, b in rng.random((2, 2, 2))]
        errors = []
        for row, column in itertools.product(range(height), range(width)):
            across = (left * width < column + 1 and column < right * width for left, _, right, _ in boxes)
            down = (top * height < row + 1 and row < bottom * height for _, top, _, bottom in boxes)
            if not any(map(all, zip(across, down, strict=True))):
                pair = zip(image[row, column], source[row, column], strict=True)
                errors += [Fraction(abs(int(x) - int(y)), 255) for x, y in pair]
        found = measuring.outside_error(image, source, boxes)
        assert found == pytest.approx(float(sum(errors) / len(errors)) if errors else np.nan, abs=1e-12, nan_ok=True)


def test_edits_are_laid_over_their_sources(tmp_path):
    edit = make_prompt(dict(id="e", category="object", prompt="x", source="s.png", region=[0, 0, 0.5, 1]))
    plain = Prompt("e", "object", "x", source="s.png")
    source = {"e": {0: save(tmp_path / "s.png", np.full((64, 64, 3), 100))}}
    half = np.full((32, 32, 3), 100)
    half[:, :16] = 151
    picture = save(tmp_path / "e_0.png", half)
    found = of(edit, picture, source).values
    assert (found["source_difference"], found["outside_error"]) == (pytest.approx(0.1), 0)
    assert "outside_error" not in of(plain, picture, source).values
    assert "source_difference" not in of(plain, picture).values
    wide = of(edit, save(tmp_path / "e_1.png", np.full((32, 48, 3), 100)), source).values
    assert wide["other_shape"] == 1
    assert "outside_error" not in wide
    for wrong in ([0, 0, 1], [0, 0, 0, 1], [0, 0, 2, 1], "left", None):
        with pytest.raises(ValueError, match="region is no box"):
            make_prompt(dict(id="e", category="object", prompt="x", source="s.png", region=wrong))


def poster(path, title: str, slogan: str):
    """A title in large letters and a slogan far below it, 256 px."""
    image = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(image)
    draw.text((50, 30), title, "black", font=ImageFont.load_default(30))
    draw.text((50, 190), slogan, "black", font=ImageFont.load_default(22))
    return save(path, np.asarray(image))


def test_the_place_of_texts_to_change_is_read_in_the_source(tmp_path):
    told = dict(id="e", category="text", prompt="x", source_prompt="a poster", changed_texts=["Jazz Night"])
    edit, lost = make_prompt(told), make_prompt(told | dict(changed_texts=["Jazz Night", "Flea Market"]))
    source = {"e": {0: poster(tmp_path / "s.png", "JAZZ NIGHT", "bring a friend")}}
    with measuring.Readings(tmp_path) as read:
        right = of(edit, poster(tmp_path / "a.png", "FOLK DANCES", "bring a friend"), source, read).values
        wrong = of(edit, poster(tmp_path / "b.png", "FOLK DANCES", "come alone"), source, read).values
        other = of(lost, poster(tmp_path / "c.png", "FOLK DANCES", "bring a friend"), source, read).values
    assert right["outside_error"] == 0
    assert wrong["outside_error"] > 0.005
    assert (right["texts_lost"], other["texts_lost"]) == (0, 1)
    assert "outside_error" not in other
    assert "outside_error" not in of(edit, source["e"][0], source).values  # nobody reads


def test_the_room_around_texts_ends_with_the_picture():
    lines = [Line("OLD", (10, 20, 30, 30)), Line("TITLE", (100, 0, 200, 40))]
    assert measuring.boxes(["old"], lines, (200, 100)) == [(0, 0.1, 0.2, 0.4)]
    assert measuring.boxes(["title"], lines, (200, 100)) == [(0.25, 0, 1, 0.8)]
    assert len(measuring.boxes(["old title"], lines, (200, 100))) == 2
    assert measuring.boxes(["old", "slogan"], lines, (200, 100)) == []


def test_texts_that_cannot_be_read_are_left_out():
    prompts = [Prompt("a", "c", "x", texts=("Café", "OPEN", "!")), Prompt("b", "c", "x", texts=("永安桥",))]
    known, left_out = measuring.readable_texts(prompts, frozenset("cafeopn永安"))
    assert (known, left_out) == ({"a": ["OPEN"]}, 3)


def test_nothing_is_read_twice(tmp_path, monkeypatch):
    """What a killed run left, half a line at its end, is taken; what another reader read is not."""
    pytest.importorskip("rapidocr_onnxruntime")
    known, other, new = (save(tmp_path / f"{i}.png", np.full((20, 20, 3), i)) for i in range(3))
    line = Line("HI", (0.0, 0.0, 5.0, 5.0))
    rows = [
        dict(reader=reader, digest=picture.digest, lines=[[line.text, line.box]])
        for reader, picture in ((ocr.reader(), known), ("another 1.0", other))
    ]
    (tmp_path / "readings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"reader": "r')
    asked = []
    monkeypatch.setattr(ocr, "read", lambda images: [asked.append(images) or (line,)])
    for _ in range(2):
        with measuring.Readings(tmp_path) as read:
            assert [read(p, np.zeros((20, 20, 3), np.uint8)) for p in (known, other, new)] == [(line,)] * 3
            with pytest.raises(UserError, match="Another run is writing"):
                measuring.Readings(tmp_path).__enter__()
    assert len(asked) == 2
    (tmp_path / "readings.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="Line 1 of .*readings.jsonl is damaged"):
        measuring.Readings(tmp_path).__enter__()


@pytest.fixture
def hostile(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    row = dict(system="s", category=evil, metric="cmmd", extractor="net", value=1.0, low=None, high=None, n=2)
    told = dict(reference=evil, systems=["s"], rows=[row | dict(unit="pictures", rough=False)], warnings=[evil])
    told |= dict(extractors=[dict(name=evil, sha256="0" * 64)], reader=evil, categories=[evil])
    score = dict(kind="point", judge="j", outcome="scored", value=3.0, key="k", seed=0, reason="")
    scores = [dict(score, system="s", prompt=p, category="c") for p in ("p", "q")]
    about = dict(title="t", command="c", measures=told)
    report.write_report(tmp_path / "r.html", scores, [Prompt("p", "c", "x")], {}, **about)
    return tmp_path / "r.html"


def test_hostile_texts_stay_texts(hostile):
    page = hostile.read_text()
    assert "<img" not in page
    assert page.count("&lt;img") == 5


def test_on_a_phone_the_page_is_no_wider(hostile, width):
    assert width(hostile, 400) == 400
