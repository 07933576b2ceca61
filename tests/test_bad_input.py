"""Data, weights, folders, prompts and disks that a command cannot use: one sentence, and nothing is overwritten."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_command import at_the_root  # noqa: F401  a fixture of every test here

from flashjax import cli, train
from flashjax import config as configs
from flashjax.commands import sample


def test_pictures_of_another_size(complaint, command):
    said = complaint(*command("--config.image_size=16", arg="teacher,", data="pictures/train.arrayrecord"))
    assert "has pictures of 8 px; set config.image_size from 16 to 8." in said


def test_pictures_are_missing(complaint, command):
    assert "has no pictures to learn from, which flow matching needs" in complaint(*command(arg="teacher,"))


def test_a_data_set_is_missing(complaint, command, inputs):
    said, there = complaint(*command(data="prompts/trian.arrayrecord")), f"{inputs}/prompts"
    assert said == f"There is no data set at {there}/trian.arrayrecord. Did you mean {there}/train.arrayrecord?"


def test_weights_are_missing(complaint, command, inputs):
    said = complaint(*command(weights="teacher/transfromer"))
    assert said == f"There are no weights at {inputs}/teacher/transfromer. Did you mean {inputs}/teacher/transformer?"


def test_weights_are_truncated(complaint, command, inputs, tmp_path):
    whole = (inputs / "teacher/transformer/diffusion_pytorch_model.safetensors").read_bytes()
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(whole[: len(whole) // 2])
    assert f"{broken} is truncated" in complaint(*command(weights=str(broken)))
    broken.write_bytes(b"PK")
    assert f"{broken} is not a safetensors file" in complaint(*command(weights=str(broken)))


def test_a_data_set_is_truncated(complaint, command, inputs, tmp_path):
    for name in ("train.json", "train.arrayrecord"):
        content = (inputs / "prompts" / name).read_bytes()
        (tmp_path / name).write_bytes(content if name.endswith("json") else content[: len(content) // 2])
    assert "is truncated or of another kind" in complaint(*command(data=str(tmp_path / "train.arrayrecord")))


def test_a_folder_of_another_run(complaint, command, tmp_path):
    (tmp_path / "empty").mkdir()
    lost = f"--config.distill.teachers.base.weights={tmp_path / 'empty'}"  # found out after the folder is claimed
    assert "empty" in complaint(*command(lost))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 0}\n')
    before = (tmp_path / "run" / "config.json").read_text()
    said = complaint(*command("--config.seed=1", lost))
    assert f"The folder {tmp_path}/run belongs to another run: seed is 0 there and 1 here. Use its config" in said
    assert said.endswith("or another --workdir.")
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_a_folder_of_other_files(complaint, command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("x")
    assert "holds files but no run of flashjax; give an empty or a new folder." in complaint(*command())
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_debug_shows_the_traceback(command):
    with pytest.raises(configs.UserError, match="There is no data set"):
        cli.main([*command(data="none"), "--debug"])


def test_a_prompt_that_is_too_long(complaint, inputs, tmp_path):
    out = tmp_path / "a.png"
    said = complaint("sample", f"--checkpoint={inputs / 'teacher'}", f"--out={out}", "--prompt", "a red house " * 20)
    assert "has 62 tokens with [CLS] and [SEP], the limit is 28" in said
    assert not out.exists()


def test_a_prompt_that_is_no_text(complaint, inputs, tmp_path):
    """What the shell hands over where bytes are no UTF-8."""
    out, prompt = tmp_path / "a.png", os.fsdecode(b"a caf\xe9")
    said = complaint("sample", f"--checkpoint={inputs / 'teacher'}", f"--out={out}", "--prompt", "a house", prompt)
    assert said == "The prompt 'a caf\\udce9' is no valid text; write it in UTF-8."
    assert not out.exists()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red house " * 200, "has 602 tokens with [CLS] and [SEP], the limit is 512; shorten it."),
        ("a caf\ud800", "The prompt 'a caf\\ud800' is no valid text; write it in UTF-8."),
    ],
    ids=["long", "no text"],
)
def test_rows_that_cannot_be_encoded(complaint, tmp_path, prompt, expected):
    rows = [dict(prompt=each, category="own") for each in ("a house", prompt)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert expected in complaint("prepare", f"--from={tmp_path / 'own.jsonl'}", f"--out={tmp_path / 'set'}")
    assert list((tmp_path / "set").iterdir()) == []


def test_prompts_of_samples_that_are_too_long_are_told_before_anything_is_compiled(
    complaint, command, inputs, tmp_path, monkeypatch
):
    """Of a set whose own prompts are short, whatever it calls its categories."""
    rows = [dict(prompt=f"a fox {i}", category="text") for i in range(8)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli.main(["prepare", f"--from={tmp_path / 'own.jsonl'}", f"--out={tmp_path / 'set'}"]) == 0
    monkeypatch.setattr(train, "compile_programs", None)
    said = complaint(*command("--config.max_text_tokens=8", data=tmp_path / "set" / "prompts.arrayrecord"))
    assert "that this run draws while it goes on have up to 13 tokens; raise config.max_text_tokens from 8." in said
    assert not (tmp_path / "run").exists()


def test_sampling_that_cannot_be(complaint, inputs, tmp_path):
    def sample(out: str, checkpoint: str = "teacher", steps: int = 1) -> str:
        return complaint(
            "sample", f"--checkpoint={inputs / checkpoint}", f"--out={tmp_path / out}", f"--steps={steps}",
            "--prompt", "a",
        )  # fmt: skip

    (tmp_path / "there.png").write_text("x")
    assert "there.png exists; give a new --out, nothing is overwritten." in sample("there.png")
    assert (tmp_path / "there.png").read_text() == "x"
    assert "There is no folder" in sample("nowhere/a.png")
    (tmp_path / "folder.png").mkdir()
    assert "folder.png exists; give a new --out" in sample("folder.png")
    assert f"There is no folder {tmp_path}/there.png to write" in sample("there.png/a.png")
    assert "has to end in .png" in sample("a.txt")
    assert "is neither a run's work directory nor an exported model" in sample("a.png", checkpoint="prompts")
    assert "A time grid needs at least one step, not 0." in sample("a.png", steps=0)
    argv = ["sample", f"--checkpoint={inputs / 'teacher'}", f"--out={tmp_path / 'a.png'}", "--prompt", "a"]
    assert complaint(*argv, "--negative", "b") == "--negative does nothing with --checkpoint; leave it out."
    assert "--image names 2 pictures for 1 prompts; give one for each, or" in complaint(*argv, "--image", "b", "c")
    there = str(tmp_path / "there.png")
    assert f"The picture {there} cannot be read: cannot identify image file" in complaint(*argv, "--image", there)
    assert "cannot be read: [Errno 2] No such file" in complaint(*argv, "--image", "nowhere.png")


def test_exports_that_cannot_be(complaint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    argv, file = ["export", f"--workdir={tmp_path}"], tmp_path / "out" / "thesis.txt"
    assert "is not an empty folder; give a new one" in complaint(*argv, f"--out={tmp_path / 'out'}")
    assert f"There are no checkpoints in {tmp_path}; give" in complaint(*argv, f"--out={tmp_path / 'new'}")
    assert "is not an empty folder; give a new one" in complaint(*argv, f"--out={file}")
    assert file.read_text() == "x" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_sets_that_cannot_be(complaint, inputs, tmp_path):
    said = complaint("prepare", f"--out={inputs / 'prompts'}", "--count=5", "--prompts-only")
    assert "already holds another set of the split 'train'" in said
    assert "at least one postcard a category" in complaint("prepare", f"--out={tmp_path}", "--count=0")
    said = complaint("prepare", f"--out={tmp_path}", "--count=1", "--categories", "boats")
    assert said == "There is no category 'boats' of postcards; take one of landscape, portrait, text."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from=a.jsonl", "--count=1"], "--count does nothing with --from; leave it out."),
        (["--from=a.jsonl", "--edits", "--split=heldout"], "--split does nothing with --from"),
        (["--from=a.jsonl", "--name=../x"], "--name is '../x'; it has to be the name of a file in --out, without a f"),
        (["--from=a.jsonl", "--name="], "--name is ''; it has to be the name of a file in --out"),
        (["--prompts-only", "--size=64"], "--size is for pictures, and --prompts-only makes none; leave one of them"),
        (["--name=mine"], "--name does nothing without --from; leave it out."),
        (["--skip-limit=0"], "--skip-limit does nothing without --from"),
        (["--source-size=64"], "--source-size does nothing without --from"),
    ],
)
def test_sets_that_are_asked_for_by_halves(complaint, tmp_path, words, said):
    """`--from own.jsonl --count 1` encoded all rows."""
    assert complaint("prepare", f"--out={tmp_path}", *words).startswith(said)


def test_a_set_in_no_folder(complaint, tmp_path, monkeypatch):
    """It was written to where the command ran."""
    monkeypatch.chdir(tmp_path)
    assert complaint("prepare", "--out=", "--count=1").startswith("--out is empty; give the folder of the set")
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_a_python_file(complaint, tmp_path):
    (tmp_path / "a.md").write_text("x")
    for path in ("configs/studies", str(tmp_path / "a.md")):
        assert complaint("study", path, "--list").startswith(f"{path} is no study; give a Python file with a `study`")


def test_a_picture_on_a_full_disk(tmp_path, monkeypatch, capsys):
    """Nothing stays at --out, where the next try would find it and refuse; and it is said what to do."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def begin(image, file, *args, **options):
        Path(file).write_bytes(b"half of it")
        raise full

    monkeypatch.setattr(Image.Image, "save", begin)
    monkeypatch.setattr(sample, "run", lambda args: sample._save(Image.new("RGB", (4, 4)), args.out, {}))
    assert cli.main(["sample", "--checkpoint=a", "--prompt=a", f"--out={tmp_path / 'a.png'}"]) == 2
    assert capsys.readouterr().err == "flashjax sample: No space left on device; make room and start again.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path):
    """The system's own refusal, of a background write; what was saved before is whole, and a second start goes on."""
    code = """
import pathlib, resource, sys
import jax, jax.numpy as jnp, numpy as np
from flashjax import cli, commands
from flashjax.checkpoint import Checkpoints
def run(args):
    commands.quiet()
    saves = Checkpoints(pathlib.Path(sys.argv[1]))
    start = saves.latest() or 0
    for step in (start + 1, start + 2):
        size = 1000 if step == 1 else 500_000
        if step == 2 and start == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        saves.save(step, {"a": jnp.asarray(np.random.default_rng(0).random(size, np.float32))}, {}, {})
    saves.close()
    print(saves.latest())
cli.importlib.import_module("flashjax.commands.table").run = run
sys.exit(cli.main(["table", "--config=x"]))
"""

    def start():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)

    first = start()
    assert first.returncode == 2, first.stderr
    assert first.stderr.splitlines()[-1] == (
        f"flashjax table: A checkpoint could not be written to {tmp_path}: File too large. "
        "The newest complete one is of step 1; mend this and start again with the same arguments."
    )
    assert "Traceback" not in first.stderr
    second = start()
    assert second.returncode == 0, second.stderr
    assert second.stdout.strip() == "3"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
