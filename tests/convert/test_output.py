"""A conversion appears whole or not at all, goes on after an interruption, and can be checked afterwards."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
import toy

from flashjax import cli, convert
from flashjax.convert import arrays, lora, manifest, output, planning, reader, table, writer

SMALL = ("--shard-size", "5e-5")  # 50 kB: four shards


@pytest.fixture
def source(tmp_path):
    return toy.checkpoint(tmp_path / "source")


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def written(monkeypatch, stop_at: str = "", error: BaseException | None = None) -> list[str]:
    return toy.written(monkeypatch, output, "write_weights", stop_at, error)


def test_shards_index_and_manifest_describe_the_weights(source, tmp_path):
    assert toy.run("--source", source, "--out", tmp_path / "out", *SMALL) == 0
    assert toy.run("--source", source, "--out", tmp_path / "single") == 0
    shards = sorted((tmp_path / "out").glob("params-*.safetensors"))
    assert len(shards) == 4
    assert all(file.stat().st_size < 50_000 + 2000 for file in shards)
    found, expected = toy.flat(tmp_path / "out"), toy.flat(source)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    told = manifest.read(tmp_path / "out")
    for name, array in expected.items():
        about = told["tensors"][name]
        assert (about["shape"], about["dtype"]) == (list(array.shape), "float32")
        assert about["sha256"] == hashlib.sha256(array.tobytes()).hexdigest()
        assert (tmp_path / "out" / about["file"]) in shards
    assert told["model"] == "qwen_image_21"
    assert told["parameters"] == sum(array.size for array in expected.values())
    assert told["bytes"] == 4 * told["parameters"]
    # the index is one that others read
    index = json.loads((tmp_path / "out" / "params.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: about["file"] for name, about in told["tensors"].items()}


def test_an_interrupted_conversion_goes_on(source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert toy.run("--source", source, "--out", tmp_path / "whole", *SMALL) == 0
    shards = sorted(file.name for file in (tmp_path / "whole").glob("params-*"))
    with monkeypatch.context() as patch:
        assert written(patch, shards[2], KeyboardInterrupt()) == []
        assert toy.run("--source", source, "--out", out, *SMALL) == 130
    assert not out.exists()
    names = written(monkeypatch)
    assert toy.run("--source", source, "--out", out, *SMALL) == 0
    assert names == shards[2:]
    assert content(out) == content(tmp_path / "whole")
    assert {file.name for file in tmp_path.iterdir()} == {"source", "out", "whole"}


@pytest.mark.parametrize("change", ["weights", "config", "options", "shard", "journal"])
def test_another_conversion_begins_anew(source, tmp_path, monkeypatch, change):
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    options = ["--source", source, "--out", out, *SMALL]
    with monkeypatch.context() as patch:
        written(patch, "params-00003-of-00004.safetensors", KeyboardInterrupt())
        assert toy.run(*options) == 130
    if change == "weights":
        toy.checkpoint(source, seed=1)
    elif change == "config":
        os.utime(source / "config.json", ns=(0, 0))
    elif change == "options":
        options += ["--dtype", "bfloat16"]
    elif change == "shard":  # cut by whatever stopped the machine
        os.truncate(partial / "params-00001-of-00004.safetensors", 100)
    else:  # killed while it noted the second shard
        lines = (partial / ".journal").read_text().splitlines(keepends=True)
        (partial / ".journal").write_text("".join(lines[:2]) + lines[2][:30])
    names = written(monkeypatch)
    assert toy.run(*options) == 0
    skipped = {"shard": "params-00002", "journal": "params-00001"}.get(change)
    assert [name[:12] for name in names] == [
        name for i in range(1, 3 if change == "options" else 5) if (name := f"params-{i:05}") != skipped
    ]
    assert toy.run("--verify", out) == 0
    found, expected = toy.flat(out), toy.flat(source)
    dtype = ml_dtypes.bfloat16 if change == "options" else np.float32
    assert all(np.array_equal(found[name], expected[name].astype(dtype).astype(np.float32)) for name in expected)


def test_a_killed_conversion_leaves_no_result_and_goes_on(source, tmp_path):
    code = f"""
import os, signal, sys
from flashjax import cli
from flashjax.convert import output
write = output.write_weights
def kill(path, *args):
    if path.name.startswith("params-00002"):
        path.with_suffix(".part").write_bytes(b"half")
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    return write(path, *args)
output.write_weights = kill
cli.main(sys.argv[1:])
"""
    options = ["convert", "--source", str(source), "--out", str(tmp_path / "out"), *SMALL]
    environment = dict(os.environ, PYTHONPATH=str(Path(convert.__file__).parents[2]))
    assert subprocess.run([sys.executable, "-c", code, *options], env=environment).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial" / "params-00001-of-00004.safetensors").is_file()
    assert toy.run(*options[1:]) == 0
    assert toy.run("--verify", tmp_path / "out") == 0
    assert not [name for name in content(tmp_path / "out") if name.endswith(".part")]


def test_a_disk_that_fills_up_keeps_what_is_finished(source, tmp_path, monkeypatch, capsys):
    options = ("--source", source, "--out", tmp_path / "out", *SMALL)
    with monkeypatch.context() as patch:
        written(patch, "params-00003-of-00004.safetensors", OSError(errno.ENOSPC, "No space left on device"))
        assert toy.run(*options) == 2
    error = capsys.readouterr().err
    assert "is full; make room" in error and "the 2 files that are finished" in error
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:  # seen before anything is written
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert toy.run(*options) == 2
        assert "GB more, the disk of" in capsys.readouterr().err
    names = written(monkeypatch)
    assert toy.run(*options) == 0
    assert len(names) == 2


def test_a_scale_that_changed_beside_a_lora_begins_anew(source, tmp_path, monkeypatch):
    """PEFT's alpha is in a file of its own: half of the shards with one and half with another would pass --verify."""
    factors = {"proj_out.weight": lora.Factors(np.ones((4, 32), np.float32), np.ones((8, 4), np.float32), 1.0)}
    lora.write(tmp_path / "lora" / "adapter_model.safetensors", factors, "comfyui")
    beside, options = tmp_path / "lora" / "adapter_config.json", ("--source", source, "--out", tmp_path / "out", *SMALL)
    beside.write_text(json.dumps({"lora_alpha": 4}))
    with monkeypatch.context() as patch:
        written(patch, "params-00003-of-00004.safetensors", KeyboardInterrupt())
        assert toy.run(*options, "--lora", tmp_path / "lora") == 130
    beside.write_text(json.dumps({"lora_alpha": 16}))
    names = written(monkeypatch)
    assert toy.run(*options, "--lora", tmp_path / "lora") == 0
    assert len(names) == 4


def test_a_disk_without_room_is_left_as_it_was(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert toy.run("--source", source, "--out", tmp_path / "out") == 2
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def test_two_conversions_do_not_write_one_folder(source, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        written(patch, "params.safetensors", KeyboardInterrupt())
        assert toy.run("--source", source, "--out", tmp_path / "out") == 130
    with (tmp_path / "out.partial" / ".journal").open("a") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        assert toy.run("--source", source, "--out", tmp_path / "out") == 2
    assert "Another conversion is writing" in capsys.readouterr().err


def test_nothing_is_removed_that_no_conversion_wrote(source, tmp_path, capsys):
    precious = tmp_path / "out.replaced" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years")
    assert toy.run("--source", source, "--out", tmp_path / "out") == 2
    assert "is in the way, and no conversion wrote it" in capsys.readouterr().err
    assert precious.read_text() == "years"


def test_a_link_leads_to_the_folder_that_is_written(source, tmp_path, monkeypatch):
    (tmp_path / "large").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large")
    assert toy.run("--source", source, "--out", tmp_path / "out") == 0
    assert toy.run("--source", source, "--out", tmp_path / "out", "--force") == 0
    assert (tmp_path / "out").is_symlink() and (tmp_path / "large" / "manifest.json").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert toy.run("--source", source, "--out", ".") == 0
    assert {file.name for file in tmp_path.iterdir()} == {"source", "out", "large", "here"}


def test_a_manifest_that_cannot_be_read_is_told(source, tmp_path, capsys):
    assert toy.run("--source", source, "--out", tmp_path / "out") == 0
    (tmp_path / "out" / "manifest.json").write_text("{")
    assert toy.run("--source", source, "--out", tmp_path / "out", "--force") == 2
    assert "it is not known what a conversion wrote there; remove the folder" in capsys.readouterr().err


def test_force_replaces_conversions_and_nothing_else(source, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--source", source, "--out", out)
    assert toy.run(*options) == 0
    toy.checkpoint(source, seed=1)
    assert toy.run(*options) == 2
    assert toy.run(*options, "--force") == 0
    assert np.array_equal(toy.flat(out)["img_in/kernel"], toy.flat(source)["img_in/kernel"])
    assert {file.name for file in tmp_path.iterdir()} == {"source", "out"}
    (out / ".journal").write_text("")  # of a conversion that was killed when its folder had its name
    assert toy.run(*options, "--force") == 0
    (out / "thesis.txt").write_text("the only copy")
    assert toy.run(*options, "--force") == 2
    assert "also holds thesis.txt" in capsys.readouterr().err
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "params.safetensors").write_text("")
    assert toy.run("--source", source, "--out", tmp_path / "foreign", "--force") == 2
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "a").write_text("")
    assert toy.run("--source", source, "--out", tmp_path / "new") == 2
    assert "holds files that no conversion wrote" in capsys.readouterr().err
    assert (tmp_path / "new.partial" / "a").exists()


def spoil(file: Path, at: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: spoil(f / "params-00001-of-00004.safetensors"), "blocks/attn/to_v/kernel in .*00001"),
        (lambda f: spoil(f / "config.json", 5), "config.json is not what was converted"),
        (lambda f: (f / "params-00002-of-00004.safetensors").unlink(), "00002-of-00004.safetensors is missing"),
        (lambda f: os.truncate(f / "params-00002-of-00004.safetensors", 50), "00002.* is not what was converted"),
        (lambda f: (f / "manifest.json").unlink(), "There is no .*manifest.json"),
        (lambda f: (f / "manifest.json").write_text("{}"), "no manifest that this version reads"),
        (lambda f: (f / "manifest.json").write_text('{"files": [], "tensors": 1}'), "no manifest that this version"),
    ],
)
def test_verify_names_what_has_changed(source, tmp_path, change, words):
    assert toy.run("--source", source, "--out", tmp_path / "out", *SMALL) == 0
    assert toy.run("--verify", tmp_path / "out") == 0
    change(tmp_path / "out")
    with pytest.raises(convert.ConversionError, match=words):
        manifest.check(tmp_path / "out", lambda _: None)


def test_every_tensor_keeps_its_dtype(source, tmp_path):
    bf16 = toy.tensors(source)["txt_in.in_layer.weight"].astype(ml_dtypes.bfloat16)
    toy.rewrite(source, txt_in__in_layer__weight=bf16)
    assert toy.run("--source", source, "--out", tmp_path / "out") == 0
    found = convert.open_weights(tmp_path / "out")
    kept = found.read("text_in/in_layer/kernel")
    np.testing.assert_array_equal(kept.view(np.uint16), bf16.T.view(np.uint16))
    assert {str(spec.dtype) for spec in found.shapes().values()} == {"float32", "bfloat16"}


@pytest.mark.parametrize("transform", [table.copy, table.transpose])
def test_memory_is_that_of_one_layer_and_some_windows(tmp_path, monkeypatch, transform):
    """A stack of 9 layers of 2 MB each, in windows of 200 kB."""
    monkeypatch.setattr(arrays, "WINDOW", 200_000)
    layer = np.arange(2 * 500_000, dtype=np.uint16).reshape(1000, 1000) & 0x3FFF
    layers = {f"h.{i}.w": layer.view(ml_dtypes.bfloat16) for i in range(9)}
    writer.write_arrays(tmp_path / "w.safetensors", layers)
    opened = convert.open_weights(tmp_path / "w.safetensors")
    rules = table.Table((table.Rule("h.{l}.w", "h/w[{l}]", transform),))
    target = {"h": {"w": reader.Spec((9, 1000, 1000), np.dtype(ml_dtypes.bfloat16))}}
    todo = planning.plan(rules, opened.shapes(), target)
    makers = planning.makers(todo, opened)
    tracemalloc.start()
    writer.write_weights(tmp_path / "out.safetensors", makers, todo.target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # one that is made (and a part of it turned), and those that wait; a copied layer is never whole in memory
    assert peak < (transform is table.transpose) * layer.nbytes + (writer._WAITING + 4) * 200_000
    written = convert.open_weights(tmp_path / "out.safetensors").read("h/w").view(np.uint16)
    np.testing.assert_array_equal(written, np.stack([layer if transform is table.copy else layer.T] * 9))


@pytest.mark.parametrize("fails", ["hash", "write", "sync"])
def test_what_fails_in_a_thread_fails_the_file(tmp_path, monkeypatch, fails):
    class Digest:
        def update(self, data):
            raise RuntimeError("hash")

    def broken(*_):
        raise RuntimeError(fails)

    if fails == "hash":
        monkeypatch.setattr(writer.hashlib, "sha256", Digest)
    elif fails == "write":
        monkeypatch.setattr(writer._Stages, "_write_all", broken)
    else:
        monkeypatch.setattr(writer, "_DIRTY", 1)
        monkeypatch.setattr(writer.os, "fdatasync", broken)
    with pytest.raises(RuntimeError, match=fails):
        writer.write_arrays(tmp_path / "w.safetensors", {f"{i}": np.ones(3) for i in range(9)})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    """What the system says of a write knows no file. (A conversion has a sentence of its own.)"""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._Stages, "_write_all", full)
    with pytest.raises(OSError) as raised:
        writer.write_arrays(tmp_path / "lora.safetensors", {"a": np.ones(3)})
    said = f"{tmp_path / 'lora.safetensors'}: No space left on device; make room and start again."
    assert cli._sentence(raised.value) == said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(), (5,), (7, 300), (300, 7), (3, 2, 130), (1, 70_000), (0, 4), (260, 1100)])
@pytest.mark.parametrize("axes", [False, True])
@pytest.mark.parametrize(
    "dtypes", [("<f4", "<f4"), ("<f4", ml_dtypes.bfloat16), (ml_dtypes.bfloat16, "<f4"), ("u1", "u1")]
)
def test_slabs_are_the_array(monkeypatch, shape, axes, dtypes):
    monkeypatch.setattr(arrays, "WINDOW", 1000)
    array = np.random.default_rng(0).normal(size=shape).__mul__(50).astype(dtypes[0])
    array = np.asarray(array).T if axes else np.asarray(array)
    pieces = list(arrays.slabs(array, np.dtype(dtypes[1])))
    joined = np.concatenate([piece.reshape(-1) for piece in pieces]) if pieces else np.empty(0, dtypes[1])
    np.testing.assert_array_equal(joined, array.astype(dtypes[1]).reshape(-1))
    assert joined.dtype == dtypes[1]


@pytest.mark.parametrize("dtype", [name for name, kind in reader.DTYPES.items() if planning.is_float(kind)])
def test_finite_agrees_with_isfinite(dtype):
    kind = reader.DTYPES[dtype]
    patterns = np.random.default_rng(0).integers(0, 256, (5000, kind.itemsize)).astype(np.uint8)
    values = patterns.reshape(-1).view(kind)
    with np.errstate(invalid="ignore"):
        expected = np.isfinite(values.astype(np.float64))
    assert [arrays.finite(values[i : i + 1]) for i in range(len(values))] == expected.tolist()
    assert not expected.all() or dtype in ("F64", "F32")
    for special in (np.nan, np.inf):
        assert not arrays.finite(np.array([0, special, 1]).astype(kind))
