"""The postcards at 64 px: every command that configs/postcards.py:res=64 names, on a network made small."""

import json
from pathlib import Path

import pytest

from flashjax import cli
from flashjax.evaluate import classifier

SMALL = ["--config.model.width=64", "--config.model.layers=1", "--config.model.heads=2", "--config.batch_size=4",
         "--config.model.dtype=float32", "--config.mesh.data=1"]  # fmt: skip


def flashjax(*words: str) -> None:
    assert cli.main(list(words)) == 0


@pytest.mark.long
def test_every_command_of_the_larger_postcards(tmp_path, monkeypatch):
    repository = Path.cwd()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(repository / "configs")
    flashjax("prepare", "--out", "data/teacher_64", "--split", "teacher", "--count", "48", "--size", "64")
    flashjax("prepare", "--out", "data/prompts", "--split", "train", "--count", "8", "--prompts-only")
    flashjax("prepare", "--out", "data/heldout_64", "--split", "heldout", "--count", "3", "--size", "64")
    flashjax("train", "--config=configs/postcards_teacher.py:res=64,steps=2", "--workdir=runs/teacher_64", *SMALL)
    flashjax("export", "--workdir", "runs/teacher_64", "--out", "weights/postcards_teacher_64")
    for name in ("postcards_trajectory", "postcards"):
        short = [] if name == "postcards_trajectory" else ["--config.distill.critic_warmup=1"]
        flashjax("train", f"--config=configs/{name}.py:res=64", f"--workdir=runs/{name}_64",
                 "--config.student_updates=2", *SMALL, *short)  # fmt: skip
    heldout = "data/heldout_64/heldout.arrayrecord"
    classifier.main(["--data", "data/teacher_64/teacher.arrayrecord", "--heldout", heldout,
                     "--out", "weights/postcards_classifier_64", "--steps", "2"])  # fmt: skip
    assert classifier.load("weights/postcards_classifier_64").config.side == 64
    flashjax(
        "evaluate", "--workdir", "runs/postcards_64", "--teacher", "weights/postcards_teacher_64", "--classifier",
        "weights/postcards_classifier_64", "--data", heldout, "--out", "runs/postcards_64/report.html",
    )  # fmt: skip
    figures = json.loads((tmp_path / "runs/postcards_64/report.json").read_text())
    assert figures["counts"]["prompts"] == 9 and figures["entries"]["student4"]["sharpness"] > 0
