"""A whole evaluation in small; and the pictures that are kept between evaluations, found again only where everything
that decides them is the same."""

import csv
import importlib.metadata
import json
import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from flashjax import checkpoint, cli, export, models, pipeline, workdir
from flashjax import config as configs
from flashjax import metrics as run_metrics
from flashjax.data import prepare
from flashjax.data.prompts import prepare_prompts
from flashjax.data.records import write_records
from flashjax.distill.state import TrainState
from flashjax.errors import UserError
from flashjax.evaluate import study, suite
from flashjax.models import text

ENCODER = SimpleNamespace(identity="an encoder")


# -- a whole evaluation ----------------------------------------------------------------------------------------------


class Encoder:
    """Stands for the text encoder: every caption has its own states."""

    identity = "a stand-in"

    def encode(self, texts, max_tokens=None):
        return [np.random.default_rng(len(t)).normal(size=(n, 384)).astype(np.float32)
                for t, n in zip(texts, map(len, self.tokens(texts, max_tokens)), strict=True)]  # fmt: skip

    def tokens(self, texts, max_tokens=None):
        rows = [[0, *t.split(), 1] for t in texts]
        if max_tokens is not None and max(map(len, rows)) > max_tokens:
            raise UserError(f"A prompt has {max(map(len, rows))} tokens, the limit is {max_tokens}.")
        return rows


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setattr(text, "default_encoder", lambda: Encoder())
    monkeypatch.setattr(suite, "_FRECHET_SPLITS", 3)


@pytest.fixture(scope="module")
def given(request, tmp_path_factory):
    """A folder with a run (its checkpoint holds random weights), a teacher exported from it, and held-out cards."""
    folder = tmp_path_factory.mktemp("given")
    config = configs.load([f"--config={request.config.rootpath}/tests/configs/tiny_postcards.py"])
    config.image_size = 32
    model = models.architecture("qwen_image_21")
    params = model.init(models.make_config(model, config.model), jax.random.key(0))
    params["proj_out"]["kernel"] = jax.random.normal(jax.random.key(1), params["proj_out"]["kernel"].shape) * 0.1
    state = TrainState.create(params, optax.sgd(0.1), optax.sgd(0.1))
    state = state.replace(ema=jax.tree.map(lambda x: 0.5 * x, params))
    run = workdir.claim(str(folder / "run"), config)
    (run / "step_table.txt").write_text("step table: random\n")
    writer = run_metrics.MetricsWriter(run)
    writer.write(1, dict(loss=1.0))
    writer.close()
    checkpoints = checkpoint.Checkpoints(run / "checkpoints")
    checkpoints.save(1, state, dict(loader={}), dict(config=workdir.identity(config), table="random"))
    checkpoints.close()
    teacher = export.export(str(run), str(folder / "teacher"), "student")
    scheduler = teacher / "scheduler" / "scheduler_config.json"
    told = json.loads(scheduler.read_text())
    told["flashjax"]["sampling"] |= dict(steps=3, guidance_scale=2.0)
    scheduler.write_text(json.dumps(told))
    for name, size in (("pictures", 32), ("small", 16), ("prompts", None)):
        prepare.prepare(folder / name, split="heldout", count_per_category=4, size=size, seed=0, progress=False)
    prepare.prepare(folder, split="heldout", count_per_category=4, size=32, seed=0, edits=True, progress=False)
    for name in ("own.png", "source.png"):
        Image.new("RGB", (32, 32)).save(folder / name)
    row = dict(prompt="a fox", category="fox", image="own.png")
    for name, own in (("own", row), ("own_edits", row | dict(source="source.png"))):
        (folder / f"{name}.jsonl").write_text("\n".join([json.dumps(own)] * 3))
        prepare_prompts(
            folder, [folder / f"{name}.jsonl"], name=name, size=32, encode=Encoder().encode, encoder_name="a stand-in",
            progress=False,
        )  # fmt: skip
    return folder


def arguments(given, tmp_path, **changes) -> list[str]:
    flags = dict(
        workdir=given / "run", teacher=given / "teacher", data=given / "pictures/heldout.arrayrecord",
        out=tmp_path / "new" / "report.html", keep=tmp_path / "keep", limit=9,
    )  # fmt: skip
    return ["evaluate", *(f"--{name}={value}" for name, value in (flags | changes).items())]


def test_an_evaluation_from_the_command_line(given, tmp_path, capsys):
    assert cli.main(arguments(given, tmp_path)) == 0
    said, folder = capsys.readouterr().out, tmp_path / "new"
    assert sorted(p.suffix for p in folder.iterdir()) == [".csv", ".html", ".json", ".png"]
    table = list(csv.DictReader((folder / "report.csv").open()))
    page, figures = (folder / "report.html").read_text(), json.loads((folder / "report.json").read_text())
    for entry in figures["entries"].values():
        (row,) = (r for r in table if (r["pictures"], r["figure"]) == (entry["label"], "adherence"))
        found = [float(row[name]) for name in ("value", "low", "high")]
        assert found == [entry["adherence"], *entry["adherence_interval"]]
    labels = {name: entry["label"] for name, entry in figures["entries"].items()}
    assert labels == {
        "student4": "student, 2 NFE", "teacher4": "teacher, 2 NFE",
        "teacher4_guided": "teacher, 2 steps guided (4 NFE)", "teacher80": "teacher, 6 NFE",
        "reference": "teacher, 6 NFE, other seeds", "real": "real pictures",
    }  # fmt: skip
    assert all(label in page for label in labels.values())
    assert "A 2-step student of the postcards&#39; teacher" in page
    assert not re.search(r"\b(80|4)[ -](NFE|step)|four", re.sub("2 steps guided.*?NFE", "", page))
    assert figures["counts"]["prompts"] == 9
    assert "Adherence to the prompt: student, 2 NFE" in said
    assert len(list((tmp_path / "keep").iterdir())) == 6  # and the student's second seeds, for its diversity


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(out="x.json"), "x.json has to end in .html; the figures and a picture go beside it"),
        (dict(out="x.png"), "x.png has to end in .html"),
        (dict(workdir="teacher"), "teacher is not the work directory of a run"),
        (dict(data="prompts/heldout.arrayrecord"), "holds prompts only; `flashjax prepare --split heldout`, without -"),
        (dict(data="small/heldout.arrayrecord"), "reads pictures of 32 px, but there are others in"),
        (dict(data="heldout_edits.arrayrecord"), "of another kind; `flashjax prepare --split heldout` makes"),
        (dict(data="own.arrayrecord"), "holds records of another kind; `flashjax prepare --split heldout` makes"),
        (dict(out="a folder.html"), "a folder.html is a folder; give another name."),
        (dict(out="own.png/report.html"), "own.png is a file; give another folder."),
        (dict(out="run/config.html"), "run/config.html has the name of a file of the run's own; give another one"),
        (dict(limit=1), "1 postcard of"),
        (dict(classifier="nowhere"), "There is no readable classifier in nowhere"),
        (dict(teacher="prompts"), "is neither a run's work directory nor an exported model"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_told_before_anything_is_drawn(
    given, tmp_path, capsys, monkeypatch, changes, expected
):
    monkeypatch.setattr(study, "draw_kept", None)
    before = (given / "run" / "config.json").read_bytes()
    (given / "a folder.html").mkdir(exist_ok=True)
    if "out" in changes:
        monkeypatch.setattr(pipeline, "load", None)
    changes = {k: given / v if k in ("workdir", "data", "teacher", "out") else v for k, v in changes.items()}
    assert cli.main(arguments(given, tmp_path, **changes)) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert (given / "run" / "config.json").read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "evaluate-edits"])
def test_a_missing_reader_is_told_before_anything_is_drawn(given, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setattr(pipeline, "load", None)

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    argv = arguments(given, tmp_path)
    if command == "evaluate-edits":
        data = given / "heldout_edits.arrayrecord"
        argv = [command, f"--checkpoint={given / 'run'}", f"--data={data}", f"--out={tmp_path}/edits.json"]
    assert cli.main(argv) == 2
    assert "Reading words needs the package rapidocr-onnxruntime" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (dict(data="pictures/heldout.arrayrecord"), "of another kind; `flashjax prepare --split heldout --edits` m"),
        (dict(data="own_edits.arrayrecord"), "of another kind; `flashjax prepare --split heldout --edits` m"),
        (dict(out="nowhere/edits.json"), "has to end in .json or .html and lie in a folder that exists."),
        (dict(out="a folder.html"), "a folder.html is a folder; give another name."),
        (dict(out="run/config.json"), "run/config.json has the name of a file of the run's own; give another one"),
    ],
    ids=str,
)
def test_edits_that_cannot_be_measured_are_told_before_a_model_is_loaded(
    given, tmp_path, capsys, monkeypatch, changes, expected
):
    monkeypatch.setattr(pipeline, "load", None)
    before = (given / "run" / "config.json").read_bytes()
    (given / "a folder.html").mkdir(exist_ok=True)
    asked = dict(checkpoint="run", data="heldout_edits.arrayrecord", out="edits.json") | changes
    assert cli.main(["evaluate-edits", *(f"--{name}={given / value}" for name, value in asked.items())]) == 2
    assert expected in capsys.readouterr().err
    assert not (given / "edits.json").exists()
    assert (given / "run" / "config.json").read_bytes() == before


def test_edits_from_the_command_line(given, tmp_path, capsys):
    flags = dict(checkpoint=given / "run", data=given / "heldout_edits.arrayrecord", out=tmp_path / "edits.html")
    assert cli.main(["evaluate-edits", *(f"--{name}={value}" for name, value in flags.items()), "--limit=3"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edits.csv", "edits.html", "edits.json", "edits.png"]
    told, said = json.loads((tmp_path / "edits.json").read_text()), capsys.readouterr().out
    assert list(told) == ["nothing done", "exact", f"{given / 'run'}, 2 NFE"]
    assert [row["success"]["value"] for row in told.values()] == [0, 1, 0]  # its weights are random
    assert all(name[-39:] in said for name in told)
    rows = list(csv.DictReader((tmp_path / "edits.csv").open()))
    found = {(row["pictures"], row["figure"]): float(row["value"]) for row in rows}
    assert [found[name, "success"] for name in told] == [0, 1, 0]
    assert {key: found["exact", f"success/{key}"] for key in told["exact"]["success_by_category"]} == (
        told["exact"]["success_by_category"]
    )


def test_the_guidance_of_a_teacher_is_measured_on_any_pictures_with_their_prompts(given, tmp_path):
    assert len(study.load_cards(str(given / "own.arrayrecord"), kind="pictures")) == 3
    for edits in ("own_edits", "heldout_edits"):
        with pytest.raises(UserError, match="holds records of another kind"):
            study.load_cards(str(given / f"{edits}.arrayrecord"), kind="pictures")
    latents = tmp_path / "latents.arrayrecord"
    write_records(latents, [dict(caption="a fox", image=np.zeros((2, 2, 4), np.float16))])
    with pytest.raises(UserError, match="holds pictures as latents; prepare it without --encoder"):
        study.load_cards(str(latents), kind="pictures")


def test_a_caption_over_the_limit_is_told_before_anything_is_drawn(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "draw_kept", None)
    shutil.copytree(given / "teacher", tmp_path / "teacher")
    scheduler = tmp_path / "teacher" / "scheduler" / "scheduler_config.json"
    told = json.loads(scheduler.read_text())
    told["flashjax"]["max_text_tokens"] = 4
    scheduler.write_text(json.dumps(told))
    assert cli.main(arguments(given, tmp_path, teacher=tmp_path / "teacher")) == 2
    assert "tokens, the limit is 4." in capsys.readouterr().err


def test_a_teacher_without_guidance_has_no_guided_set(given):
    student = pipeline.load(str(given / "run"))
    plans = study.make_plans(student, student, 3)
    assert list(plans) == ["student4", "teacher4", "teacher80", "reference"]
    assert plans["reference"].label == "teacher, 2 NFE, other seeds"
    assert plans["reference"].seed == 4


def test_a_teacher_on_few_steps_is_drawn_at_a_students_cost_and_with_its_own_guidance():
    guided = counting_pipeline(steps=40, guidance_scale=2.0)
    found = study.few_steps(guided, steps=4)
    assert [study.nfe(guided, **settings) for settings in found] == [4, 8]
    assert study.few_steps(counting_pipeline(steps=40), steps=4) == [dict(steps=4, guidance_scale=1.0)]


def test_no_report_on_a_folder_without_a_checkpoint(given, tmp_path):
    shutil.copytree(given / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError, match="There are no checkpoints in"):
        study.study(
            str(tmp_path / "run"), str(given / "teacher"), str(given / "pictures/heldout.arrayrecord"),
            str(tmp_path / "x.html"), classifier_path="weights/postcards_classifier", command="",
        )  # fmt: skip


# -- kept pictures ---------------------------------------------------------------------------------------------------


def counting_pipeline(weight: float = 0.0, leaf: str = "w", shape=(1,), model_config: str = "small", **defaults):
    """A pipeline whose pictures show how often it has drawn."""
    calls = []

    def draw(prompts, seeds, encoder, **settings):
        calls.append((prompts, seeds, settings))
        return np.full((len(prompts), 2, 2, 3), len(calls), np.uint8)

    params, defaults = {leaf: np.full(shape, weight, np.float32)}, dict(steps=4, guidance_scale=1.0) | defaults
    return SimpleNamespace(
        defaults=defaults, image_size=2, params=params, model_config=model_config, draw=draw, calls=calls
    )


def test_the_same_request_is_drawn_once(tmp_path):
    pipe = counting_pipeline()
    first = study.draw_kept(pipe, ["a", "b"], [1, 2], ENCODER, tmp_path / "new" / "folder")
    again = study.draw_kept(pipe, ["a", "b"], range(1, 3), ENCODER, tmp_path / "new" / "folder")
    assert len(pipe.calls) == 1
    np.testing.assert_array_equal(first, again)
    assert [p.suffix for p in (tmp_path / "new" / "folder").iterdir()] == [".npy"]


@pytest.mark.parametrize(
    "change",
    [
        dict(prompts=["a", "c"]), dict(seeds=[1, 3]), dict(settings=dict(steps=8)), dict(settings=dict(shift=3.0)),
        dict(pipe=dict(weight=1.0)), dict(pipe=dict(guidance_scale=2.0)), dict(pipe=dict(model_config="large")),
        dict(pipe=dict(leaf="v")), dict(pipe=dict(shape=(1, 1))), dict(encoder=SimpleNamespace(identity="another")),
        dict(version=pipeline.DRAWING_VERSION + 1),
    ],
    ids=str,
)  # fmt: skip
def test_whatever_decides_a_picture_is_in_its_name(tmp_path, monkeypatch, change):
    study.draw_kept(counting_pipeline(), ["a", "b"], [1, 2], ENCODER, tmp_path)
    other = counting_pipeline(**change.get("pipe", {}))
    monkeypatch.setattr(pipeline, "DRAWING_VERSION", change.get("version", pipeline.DRAWING_VERSION))
    study.draw_kept(
        other, change.get("prompts", ["a", "b"]), change.get("seeds", [1, 2]), change.get("encoder", ENCODER), tmp_path,
        **change.get("settings", {}),
    )  # fmt: skip
    assert len(other.calls) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_the_default_spelt_out_is_the_same_request(tmp_path):
    pipe = counting_pipeline()
    study.draw_kept(pipe, ["a"], [1], ENCODER, tmp_path)
    study.draw_kept(pipe, ["a"], [1], ENCODER, tmp_path, steps=4)
    assert len(pipe.calls) == 1


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_damaged_file_is_drawn_again(tmp_path, monkeypatch, content):
    pipe, said = counting_pipeline(), []
    monkeypatch.setattr(study.logging, "warning", lambda form, *rest: said.append(form % rest))
    study.draw_kept(pipe, ["a"], [1], ENCODER, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5] if content is None else content)
    images = study.draw_kept(pipe, ["a"], [1], ENCODER, tmp_path)
    np.testing.assert_array_equal(images, np.full((1, 2, 2, 3), 2, np.uint8))
    np.testing.assert_array_equal(np.load(file), images)
    assert len(said) == 1
    assert f"{file} is damaged" in said[0]
