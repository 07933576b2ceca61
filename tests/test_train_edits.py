"""Runs whose rows are edits and prompts in turn."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_training import STEPS, curves, encode, everything

from flashjax import config as configs
from flashjax import pictures, pipeline, train
from flashjax.data.manifest import read_manifest
from flashjax.data.prompts import prepare_prompts
from flashjax.distill import schedule
from flashjax.errors import UserError
from flashjax.models import text

pytestmark = pytest.mark.usefixtures("fast")
MAKE_EDIT_DRAWER = pictures.make_edit_drawer  # which "fast" takes away


@pytest.mark.parametrize("objective", ["edits", "edit_teacher", "edit_trajectory"])
def test_edits_and_prompts_take_turns(uninterrupted, objective):
    """Half of the rows of each phase are edits; they are logged apart, and every program is of one task."""
    folder, compiled, used = uninterrupted(objective)
    rows = [p for p in used if schedule.PHASES[p.phase] not in ("begin", "advance")]
    for phase in {p.phase for p in rows}:
        tasks = [p.task for p in rows if p.phase == phase]
        assert abs(tasks.count(1) - tasks.count(0)) <= 1
    assert {p.task for p in compiled} == {0, 1}
    names = dict(edits="student_loss", edit_teacher="loss", edit_trajectory="trajectory_loss")
    found = curves(folder)
    assert {f"{task}/{names[objective]}" for task in ("t2i", "edit")} <= set(found)
    shares = {name: values for name, (_, values) in found.items() if name.startswith("data/edits/")}
    assert len(shares) == 3
    assert sum(values[0] for values in shares.values()) == pytest.approx(1)
    if objective != "edit_teacher":
        assert set(found["edit/share/base"][1]) == {1.0}


# A trajectory's is a run more, through the same loop and loader.
@pytest.mark.parametrize("objective", ["edits", pytest.param("edit_trajectory", marks=pytest.mark.long)])
def test_edits_resume_bit_for_bit(given, uninterrupted, tmp_path, objective):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted(objective)[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    train.train(configs.load([given[objective]]), str(folder))
    a, b = everything(uninterrupted(objective)[0], STEPS), everything(folder, STEPS)
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []


@pytest.mark.long  # a run of programs of its own; tests/models has the networks with several references
def test_several_pictures_each_count(given, tmp_path, monkeypatch):
    """A run of edits with two pictures, the second smaller: it trains, and its drawings depend on both."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(tmp_path / f"{name}.png")
    pairs = [(x, y) for x in "abcd" for y in "cd"]
    rows = [dict(prompt=f"{x} into {y}", category="text", source=[f"{x}.png", f"{y}.png"]) for x, y in pairs]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = prepare_prompts(
        tmp_path, [tmp_path / "rows.jsonl"], name="two", size=8, source_size=4, encode=encode,
        encoder_name=read_manifest(configs.load([given["edits"]]).sources.edits.path)["encoder"], progress=False,
    )  # fmt: skip
    config = configs.load([given["edits"]])
    with config.unlocked():
        config.sources.more = config.sources.edits.copy_and_resolve_references()
        config.sources.edits.path, config.edit_share = str(path), 1.0
    with pytest.raises(UserError, match="edits have 2 pictures of 4 px each, of more 1 of 8 px"):
        train.train(config, str(tmp_path / "refused"))
    with config.unlocked():
        del config.sources.more
    monkeypatch.setattr(pictures, "make_edit_drawer", MAKE_EDIT_DRAWER)
    train.train(config, str(tmp_path / "run"))
    assert len(list((tmp_path / "run/samples").glob("*_edits.png"))) == 1
    drift = {name: values for name, (_, values) in curves(tmp_path / "run").items() if name.startswith("samples/")}
    assert drift.keys() == {f"samples/edit_{name}" for name in ("saturation", "contrast", "spread")}
    assert drift["samples/edit_spread"][0] > 0  # two seeds of every edit
    pipe, stand_in = pipeline.load(str(tmp_path / "run")), text.default_encoder()
    large, small = (rng.integers(0, 255, (2, n, n, 3)).astype(np.uint8) for n in (8, 4))
    drawn = pipe.draw(["a into b"] * 2, [1, 1], stand_in, images=[large, small])
    for other in ([255 - large, small], [large, 255 - small]):
        assert (pipe.draw(["a into b"] * 2, [1, 1], stand_in, images=other) != drawn).any()


def test_a_run_that_edits_draws_edits(uninterrupted):
    pipe = pipeline.load(str(uninterrupted("edits")[0]))
    sources = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    stand_in, said = text.default_encoder(), ["make it red"] * 3
    drawn = pipe.draw(said, [1, 1, 1], stand_in, images=sources)
    assert drawn.shape == (3, 8, 8, 3)
    assert (drawn[0] != drawn[1]).any()  # same words, same noise, another picture to edit
    again = pipe.draw(said, [1, 1, 1], stand_in, images=sources, batch=2)
    assert np.abs(drawn.astype(int) - again).max() <= 1
    # With guidance the picture stays on the side that guidance leads away from.
    assert pipe.draw(said, [1, 1, 1], stand_in, images=sources, guidance_scale=3.0).shape == drawn.shape
