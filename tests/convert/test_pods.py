"""An Orbax checkpoint that was written in pieces: the same numbers on eight devices, each from its own chunks."""

import json
import math

import jax
import ml_dtypes
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from flashjax import convert, paths
from flashjax.convert import manifest, output, pods
from flashjax.convert.reader import Spec
from flashjax.parallel import sharding

ORBAX = ("--to", "orbax", "--mesh", "fsdp=8")


@pytest.fixture
def source(tmp_path):
    return toy.checkpoint(tmp_path / "source")


def target(dtype=np.float32):
    """The model's parameters, divided over eight devices as they are in training."""
    mesh = jax.make_mesh((8, 1), ("fsdp", "tensor"))
    form = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), toy.ABSTRACT)
    return sharding.with_shapes(form, mesh)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_eight_devices_read_what_safetensors_hold(tmp_path, dtype):
    source = toy.checkpoint(tmp_path / "source", shards=2, dtype=dtype)
    assert toy.run("--source", source, "--out", tmp_path / "flat") == 0
    assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 0
    assert {file.name for file in (tmp_path / "pod").iterdir()} == {"config.json", "manifest.json", "params"}
    expected = paths.flatten(convert.load_flax(tmp_path / "flat", toy.ABSTRACT, dtype))
    found = paths.flatten(pods.load(tmp_path / "pod", target(dtype)))
    assert found.keys() == expected.keys()
    for path, array in found.items():
        assert array.dtype == dtype
        np.testing.assert_array_equal(np.asarray(array).view("u1"), expected[path].view("u1"))
    whole = paths.flatten(convert.load("qwen_image_21", tmp_path / "pod", toy.ABSTRACT, dtype))
    assert all(np.array_equal(whole[path].view("u1"), expected[path].view("u1")) for path in expected)
    divided = found["blocks/attn/to_q/kernel"]
    assert divided.addressable_shards[0].data.size * 8 == divided.size
    told = {name: manifest.read(tmp_path / name)["tensors"] for name in ("flat", "pod")}
    assert {n: t["sha256"] for n, t in told["flat"].items()} == {n: t["sha256"] for n, t in told["pod"].items()}


def test_a_chunk_is_one_layers_share_of_a_device(source, tmp_path):
    assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 0
    for path, leaf in paths.flatten(target()).items():
        stored = json.loads((tmp_path / "pod" / "params" / path.replace("/", ".") / ".zarray").read_text())
        share = leaf.sharding.shard_shape(leaf.shape)
        assert stored["chunks"] == ([1, *share[1:]] if path.startswith("blocks") else list(share))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=4))
@settings(max_examples=200)
def test_regions_are_the_array_in_the_order_of_memory(axes):
    shape, part = [size * count for size, count in axes], tuple(size for size, _ in axes)
    array = np.arange(math.prod(shape)).reshape(shape)
    found = [array[region] for region in pods.regions(array.shape, part)]
    np.testing.assert_array_equal(np.concatenate([piece.reshape(-1) for piece in found]), array.reshape(-1))
    for region in pods.regions(array.shape, part):  # whole chunks: nothing is read again to be written
        for at, size, whole in zip(region, part, shape, strict=True):
            assert at.start % size == 0 and (at.stop % size == 0 or at.stop == whole)


def test_a_layer_is_written_before_the_next_one_is_read(tmp_path):
    log, layer = [], np.ones((16, 4), np.float32)

    def pieces():
        for i in range(3):
            log.append(f"layer {i}")
            yield from np.split(layer, 4)

    specs = {"w": Spec((3, 16, 4), np.dtype(np.float32))}
    parts = pods.chunks(specs, frozenset(["w"]), {"fsdp": 2}, ruled=False)
    assert parts == {"w": (1, 8, 4)}
    pods.write(tmp_path / "w", specs["w"], parts["w"], pieces(), log.append)
    assert log == [entry for i in range(3) for entry in (f"layer {i}", layer.nbytes // 2, layer.nbytes // 2)]


def test_verify_sees_a_changed_and_a_missing_chunk(source, tmp_path, capsys):
    out = tmp_path / "pod"
    assert toy.run("--source", source, "--out", out, *ORBAX) == 0
    assert toy.run("--verify", out) == 0
    chunk = next(iter(sorted((out / "params" / "img_in.kernel").glob("[0-9]*"))))
    data = bytearray(chunk.read_bytes())
    data[3] ^= 1
    chunk.write_bytes(data)
    assert toy.run("--verify", out) == 2
    assert "img_in/kernel" in capsys.readouterr().err
    chunk.unlink()
    assert toy.run("--verify", out) == 2
    for load in (lambda: pods.load(out, target()), lambda: convert.load("qwen_image_21", out, toy.ABSTRACT)):
        with pytest.raises(convert.ConversionError, match="pod/params is not whole, [0-9]* bytes of"):
            load()  # would read zeros


def test_what_does_not_fit_leaves_nothing(source, tmp_path, capsys):
    weights = toy.tensors(source)["txt_in.in_layer.weight"]
    toy.rewrite(source, txt_in__in_layer__weight=weights * np.nan)
    assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 2
    assert "txt_in.in_layer.weight" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def test_a_full_disk_is_told(source, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise ValueError("RESOURCE_EXHAUSTED: ... [os_error_code='28']")
        yield

    monkeypatch.setattr(pods, "_filled", full)
    assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 2
    assert "is full; make room" in capsys.readouterr().err
    assert not (tmp_path / "pod").exists()
    monkeypatch.undo()
    assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 0


def written(monkeypatch, stop_at: str = "", error: BaseException | None = None) -> list[str]:
    return toy.written(monkeypatch, pods, "write", stop_at, error)


def chunks(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.glob("params/*/*")}


def test_an_interrupted_conversion_goes_on_behind_the_last_parameter(source, tmp_path, monkeypatch):
    out = tmp_path / "pod"
    every = written(monkeypatch)
    assert toy.run("--source", source, "--out", tmp_path / "whole", *ORBAX) == 0
    monkeypatch.undo()
    assert written(monkeypatch, every[3], KeyboardInterrupt()) == []
    assert toy.run("--source", source, "--out", out, *ORBAX) == 130
    monkeypatch.undo()
    cut = tmp_path / "pod.partial" / "params" / every[1]  # by whatever stopped the machine
    next(file for file in cut.iterdir() if file.name[0] != ".").unlink()
    names = written(monkeypatch)
    assert toy.run("--source", source, "--out", out, *ORBAX) == 0
    assert names == [every[1], *every[3:]]
    assert chunks(out) == chunks(tmp_path / "whole")
    assert {file.name for file in tmp_path.iterdir()} == {"source", "pod", "whole"}


@pytest.mark.parametrize("stage", ["half", "finish", "commit"])
def test_a_conversion_that_is_stopped_at_its_end_writes_no_parameter_again(source, tmp_path, monkeypatch, stage):
    finish = pods.finish

    def stop(*args):
        if stage == "half":  # of Orbax's own files
            (args[0] / "_METADATA").write_text("{")
        elif stage == "finish":
            finish(*args)
        raise KeyboardInterrupt

    at = (output.Partial, "commit") if stage == "commit" else (pods, "finish")
    with monkeypatch.context() as patch:
        patch.setattr(*at, stop)
        assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 130
    assert written(monkeypatch) == []
    assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 0
    assert {file.name for file in (tmp_path / "pod").iterdir()} == {"config.json", "manifest.json", "params"}
    assert toy.run("--verify", tmp_path / "pod") == 0


def test_another_model_is_told(source, tmp_path):
    assert toy.run("--source", source, "--out", tmp_path / "pod", *ORBAX) == 0
    wanted = target()
    wanted["img_in"]["kernel"] = jax.ShapeDtypeStruct((3, 3), np.float32)
    with pytest.raises(convert.ConversionError, match="img_in/kernel"):
        pods.load(tmp_path / "pod", wanted)
    with pytest.raises(convert.ConversionError, match="no Orbax checkpoint"):
        pods.load(source, wanted)


def test_a_mesh_that_does_not_divide_leaves_nothing(source, tmp_path, capsys):
    assert toy.run("--source", source, "--out", tmp_path / "out", "--to", "orbax", "--mesh", "fsdp=7") == 2
    assert "does not divide over 7 devices" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "options", [("--to", "orbax"), ("--mesh", "fsdp=8"), ("--to", "orbax", "--mesh", "8"), (*ORBAX, "--shard-size=1")]
)
def test_a_mesh_belongs_to_orbax(source, tmp_path, options):
    try:
        status = toy.run("--source", source, "--out", tmp_path / "pod", *options)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert not (tmp_path / "pod").exists()
