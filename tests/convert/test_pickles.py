"""Pickles are read only where that is asked for, and by a process that can do nothing else."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy

from flashjax.convert import unpickle


class Evil:
    """Unpickled, this would leave a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def source(tmp_path):
    return toy.checkpoint(tmp_path / "source")


def pickled(folder, files=1, zipped=True):
    """Replace the safetensors of a folder by pickles."""
    state = {name: torch.tensor(array) for name, array in toy.tensors(folder).items()}
    state["img_in.weight"] = state["img_in.weight"].T.contiguous().T  # PyTorch saves strides as they are
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    weight_map = {}
    for i in range(files):
        file = "diffusion_pytorch_model" + (f"-{i + 1:05}-of-{files:05}" if files > 1 else "") + ".bin"
        part = dict(list(state.items())[i::files])
        torch.save(part, folder / file, _use_new_zipfile_serialization=zipped)
        weight_map |= dict.fromkeys(part, file)
    if files > 1:
        (folder / "diffusion_pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(("files", "zipped"), [(1, True), (1, False), (2, True)])
def test_pickles_are_converted_where_that_is_allowed(source, tmp_path, capsys, files, zipped):
    expected = toy.flat(source)
    pickled(source, files, zipped)
    options = ("--source", source, "--out", tmp_path / "out")
    assert toy.run(*options) == 2
    assert "is a pickle, which is a program" in capsys.readouterr().err
    assert toy.run(*options, "--allow-pickle") == 0
    found = toy.flat(tmp_path / "out")
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "source"]


def test_what_does_not_fit_is_told_of_the_pickles(source, tmp_path, capsys):
    """Not of the safetensors that stood in for them, which are gone."""
    toy.rewrite(source, proj_out__weight=None)
    pickled(source)
    assert toy.run("--source", source, "--out", tmp_path / "out", "--allow-pickle") == 2
    assert f"The weights in {source} do not fit the model" in capsys.readouterr().err


def test_bfloat16_of_a_pickle_stays(source, tmp_path):
    state = {name: torch.tensor(array).bfloat16() for name, array in toy.tensors(source).items()}
    (source / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({"state_dict": state}, source / "model.pt")
    assert toy.run("--source", source / "model.pt", "--out", tmp_path / "out", "--allow-pickle") == 0
    expected = state["proj_out.weight"].T.float().numpy()
    np.testing.assert_array_equal(toy.flat(tmp_path / "out")["proj_out/kernel"], expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda tmp: {"a": Evil(tmp / "evil")}, "could not be read as weights: .*UnpicklingError"),
        (lambda _: [1, 2], "holds no named tensors"),
        (lambda _: {"step": 3}, "'step' is no tensor"),
    ],
)
def test_what_holds_more_than_tensors_is_refused(source, tmp_path, capsys, content, words):
    (source / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(content(tmp_path), source / "model.bin")
    assert toy.run("--source", source, "--out", tmp_path / "out", "--allow-pickle") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error)
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "attempt",
    [
        "open(folder + '/other', 'w')",
        "os.open(folder + '/other', os.O_CREAT | os.O_WRONLY)",
        "os.system('touch ' + folder + '/other')",
        "subprocess.Popen(['touch', folder + '/other'])",
        "socket.socket().connect(('127.0.0.1', 9))",
        "os.remove(folder + '/precious')",
        "os.rename(folder + '/precious', folder + '/other')",
        "os.fork()",
        "os.kill(os.getppid(), 0)",
    ],
)
def test_the_process_can_only_write_its_target(tmp_path, attempt):
    """What a pickle could do that got around weights_only."""
    (tmp_path / "precious").write_text("x")
    code = f"""
import os, socket, subprocess, sys
sys.path.insert(0, {os.path.dirname(unpickle.__file__)!r})
import unpickle
folder = {str(tmp_path)!r}
unpickle.restrict(folder + "/target")
open(folder + "/target", "wb").write(b"weights")
{attempt}
"""
    ended = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert "PermissionError: the file tried to" in ended.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["precious", "target"]


def test_a_missing_part_and_a_choice_are_told(source, tmp_path, capsys):
    pickled(source, 2)
    options = ("--source", source, "--out", tmp_path / "out", "--allow-pickle")
    (source / "diffusion_pytorch_model-00002-of-00002.bin").unlink()
    assert toy.run(*options) == 2
    assert "00002-of-00002.bin', which is not in the folder" in capsys.readouterr().err
    (source / "a.bin.index.json").write_text("{}")
    assert toy.run(*options) == 2
    assert "holds several indexes (a.bin.index.json, diffusion_pytorch_model.bin.index.json)" in capsys.readouterr().err
    (source / "a.bin.index.json").unlink()
    (source / "diffusion_pytorch_model.bin.index.json").unlink()
    (source / "optimizer.bin").write_bytes(b"")
    assert toy.run(*options) == 2
    assert "holds several pickles" in capsys.readouterr().err


def test_the_folder_of_unpickled_weights_is_nobody_elses(source, tmp_path, monkeypatch, capsys):
    pickled(source)
    options, folder = ("--source", source, "--out", tmp_path / "out", "--allow-pickle"), tmp_path / "out.unpickled"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    assert toy.run(*options) == 2
    assert "is in the way, and no conversion made it" in capsys.readouterr().err
    (folder / "thesis.txt").rename(folder / ".lock")
    with (folder / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert toy.run(*options) == 2
    assert "Another conversion is writing" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert toy.run(*options) == 2
        assert "GB beside the result while they are converted" in capsys.readouterr().err
    (folder / "left.safetensors").parent.mkdir()
    (folder / ".lock").touch()
    (folder / "left.safetensors").write_text("half")  # of a run that was killed
    assert toy.run(*options) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"source", "out"}


def test_a_lora_is_no_pickle(source, tmp_path, capsys):
    torch.save({}, tmp_path / "lora.pt")
    assert toy.run("--source", source, "--out", tmp_path / "out", "--allow-pickle", "--lora", tmp_path / "lora.pt") == 2
    assert "--allow-pickle is for --source alone" in capsys.readouterr().err
