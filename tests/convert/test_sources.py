"""Every kind of source is read, and every kind of bad input is one sentence that names file and tensor."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import toy

from flashjax import convert
from flashjax.convert import detect

INDEX = "diffusion_pytorch_model.safetensors.index.json"
SINGLE = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(("shards", "index"), [(3, True), (3, False), (1, False)])
@pytest.mark.parametrize("pipeline", [False, True])
def test_every_kind_of_source_gives_the_same_folder(tmp_path, shards, index, pipeline):
    inner = tmp_path / "source" / "transformer" if pipeline else tmp_path / "source"
    toy.checkpoint(inner, shards, index)
    assert toy.run("--source", tmp_path / "source", "--out", tmp_path / "out") == 0  # the model is found
    expected = toy.flat(toy.checkpoint(tmp_path / "plain"))
    found = toy.flat(tmp_path / "out")
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_single_file_takes_the_config_beside_it_or_a_given_one(tmp_path, capsys):
    source = toy.checkpoint(tmp_path / "source")
    assert toy.run("--source", source / SINGLE, "--out", tmp_path / "beside") == 0
    (source / "config.json").rename(tmp_path / "sizes.json")
    assert toy.run("--source", source / SINGLE, "--out", tmp_path / "none") == 2
    assert "There is no" in capsys.readouterr().err
    given = ("--config", tmp_path / "sizes.json")
    assert toy.run("--source", source / SINGLE, *given, "--out", tmp_path / "given") == 0
    assert (tmp_path / "given" / "config.json").is_file()


def test_the_model_of_a_pipelines_part_is_chosen_by_name(tmp_path):
    toy.checkpoint(tmp_path / "transformer")
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    assert detect.component(tmp_path, None).name == "transformer"
    assert detect.component(tmp_path, "minilm").name == "text_encoder"


def test_every_table_names_its_classes_and_every_class_has_one_table():
    names = [name for module in convert.MODELS.values() for name in module.CLASSES]
    assert len(names) == len(set(names))
    assert all(module.CLASSES for module in convert.MODELS.values())


def damage(header_of):
    """Rewrite the header of a file."""

    def change(folder):
        file = folder / SINGLE
        data = file.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        text = json.dumps(header_of(header)).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return change


def with_offsets(name, move):
    def change(header):
        header[name]["data_offsets"] = [n + move for n in header[name]["data_offsets"]]
        return header

    return damage(change)


def config(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def index(change_map):
    def change(folder):
        file = folder / INDEX
        weight_map = json.loads(file.read_text())["weight_map"]
        change_map(weight_map)
        file.write_text(json.dumps({"weight_map": weight_map}))

    return change


def shard(number):
    return f"diffusion_pytorch_model-{number:05}-of-00003.safetensors"


def nonfinite(value, dtype=np.float32):
    def change(folder):
        array = toy.tensors(folder)["txt_in.in_layer.weight"].astype(dtype)
        array[-1, -1] = value
        toy.rewrite(folder, txt_in__in_layer__weight=array)

    return change


def cut(folder):
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:-5])


BAD = {
    "missing shard": (3, lambda f: (f / shard(2)).unlink(), (INDEX, f"{shard(2)} is not in the folder")),
    "shard without a place in the index": (
        3, lambda f: (f / shard(1).replace("00001", "00004")).write_bytes((f / shard(1)).read_bytes()),
        ("00004-of-00003", "is not in the index"),
    ),
    "tensor without a place in the index": (
        3, index(lambda m: m.pop("proj_out.weight")), ("does not know proj_out.weight", "00003"),
    ),
    "index beyond its shards": (3, index(lambda m: m.update(more=shard(1))), ("places more in", shard(1))),
    "index out of the folder": (
        3, index(lambda m: m.update({"img_in.weight": "../other.safetensors"})), ("img_in.weight outside", "../other"),
    ),
    "absolute index": (3, index(lambda m: m.update({"img_in.weight": "/etc/passwd"})), ("outside", "/etc/passwd")),
    "index is a list": (3, lambda f: (f / INDEX).write_text('{"weight_map": ["a"]}'), (INDEX, "no readable")),
    "index is endlessly nested": (3, lambda f: (f / INDEX).write_text("[" * 100_000), (INDEX, "no readable")),
    "two shards too few": (
        3, lambda f: [(f / name).unlink() for name in (INDEX, shard(1), shard(3))], ("3 shards", "1, 3 is not there"),
    ),
    "one tensor in two shards": (
        3, lambda f: ((f / INDEX).unlink(), (f / shard(2)).write_bytes((f / shard(1)).read_bytes())),
        (shard(1), shard(2), "both hold"),
    ),
    "cut": (1, cut, (SINGLE, "is truncated: txt_in.text_norm.weight", "fetch it again")),
    "more after the end": (1, lambda f: (f / SINGLE).open("ab").write(b"x"), (SINGLE, "1 bytes after its last")),
    "huge header": (
        1, lambda f: (f / SINGLE).write_bytes(struct.pack("<Q", 10**9) + b"{}" * 9), (SINGLE, "not a safetensors"),
    ),
    "pointer of Git LFS": (
        1, lambda f: (f / SINGLE).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        (SINGLE, "is the pointer of Git LFS", "git lfs pull"),
    ),
    "link to nothing": (
        1, lambda f: ((f / SINGLE).unlink(), (f / SINGLE).symlink_to("../blobs/0")),
        (f"{SINGLE} in", "link to a file that is not there"),
    ),
    "overlap": (1, with_offsets("proj_out.weight", -4), (SINGLE, "proj_out.weight overlaps")),
    "gap": (1, with_offsets("img_in.weight", 4), (SINGLE, "img_in.weight leaves a gap")),
    "extra tensor": (
        1, lambda f: toy.rewrite(f, odd=np.zeros(2, np.float32)), (SINGLE, "odd: the table has no row"),
    ),
    "missing tensor": (
        1, lambda f: toy.rewrite(f, proj_out__weight=None), (SINGLE, "proj_out/kernel: no tensor of the file fills"),
    ),
    "wrong shape": (
        1, lambda f: toy.rewrite(f, img_in__weight=np.ones((3, 8), "<f4")), (SINGLE, "img_in.weight: its shape"),
    ),
    "NaN": (1, nonfinite(np.nan), (SINGLE, "txt_in.in_layer.weight in", "NaN or infinite")),
    "-inf": (1, nonfinite(-np.inf), (SINGLE, "txt_in.in_layer.weight in", "NaN or infinite")),
    "bf16 NaN": (1, nonfinite(np.nan, ml_dtypes.bfloat16), ("txt_in.in_layer.weight in", "NaN or infinite")),
    "unknown architecture": (1, config(_class_name="UNet2DConditionModel"), ("config.json", "'UNet2DConditionModel'")),
    "layers without end": (
        1, config(num_layers=10**400), ("num_layers = 10000", "a whole number from 1 to 10000000"),
    ),
    "an epsilon without end": (1, config(eps=10**400), ("eps = 10000", "a number between 0 and 1e+30")),
    "a base that is infinite": (1, config(axes_dims_rope=[4, 6, np.inf]), ("axes_dims_rope = [4, 6, inf]", "numbers")),
    "variant": (1, config(patch_size=2), ("source/config.json has patch_size = 2",)),
    "pickle": (
        1, lambda f: (f / SINGLE).rename(f / "diffusion_pytorch_model.bin"), (".bin is a pickle", "--allow-pickle"),
    ),
    "no weights": (1, lambda f: (f / SINGLE).unlink(), ("holds no .safetensors file",)),
    "no config": (1, lambda f: (f / "config.json").unlink(), ("config.json",)),
    "broken config": (1, lambda f: (f / "config.json").write_text("{"), ("config.json is not valid JSON",)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_and_leaves_nothing(tmp_path, capsys, name):
    shards, spoil, words = BAD[name]
    spoil(toy.checkpoint(tmp_path / "source", shards))
    assert toy.run("--source", tmp_path / "source", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error
    assert error.count("\n") <= 2  # one sentence, and for weights that do not fit, the list of misfits
    assert [file.name for file in tmp_path.iterdir()] == ["source"]


def test_layers_that_are_missing_are_not_all_listed(tmp_path, capsys):
    """Of 300,000 the sentence had 20 MB."""
    config(num_layers=300_000)(toy.checkpoint(tmp_path / "source"))
    assert toy.run("--source", tmp_path / "source", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "no tensor of the file fills layers 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 299988 more." in error
    assert len(error) < 3000


def test_nonfinite_weights_pass_when_they_are_allowed(tmp_path):
    nonfinite(np.nan)(toy.checkpoint(tmp_path / "source"))
    assert toy.run("--source", tmp_path / "source", "--out", tmp_path / "out", "--allow-nonfinite") == 0
    assert sum(np.isnan(array).sum() for array in toy.flat(tmp_path / "out").values()) == 1


def test_what_is_too_large_for_the_new_dtype_is_told(tmp_path, capsys):
    nonfinite(3.4e38)(toy.checkpoint(tmp_path / "source"))
    options = ("--source", tmp_path / "source", "--out", tmp_path / "out", "--dtype", "bfloat16")
    assert toy.run(*options) == 2
    assert "or too large for bfloat16" in capsys.readouterr().err


def test_a_converted_folder_is_no_source(tmp_path, capsys):
    assert toy.run("--source", toy.checkpoint(tmp_path / "source"), "--out", tmp_path / "out") == 0
    assert toy.run("--source", tmp_path / "out", "--out", tmp_path / "again") == 2
    assert "is converted already" in capsys.readouterr().err


def test_a_shard_alone_is_told(tmp_path, capsys):
    """Of a conversion as of a source, whose folder is then the one to give."""
    toy.checkpoint(tmp_path / "source", 3)
    given = ("--out", tmp_path / "out", "--shard-size", "1e-4")
    assert toy.run("--source", tmp_path / "source" / shard(2), *given) == 2
    said = capsys.readouterr().err
    assert f"{shard(2)} is shard 2 of 3 alone; give the folder of all of them: --source {tmp_path / 'source'}\n" in said
    assert [file.name for file in tmp_path.iterdir()] == ["source"]
    assert toy.run("--source", tmp_path / "source", *given) == 0
    part = sorted((tmp_path / "out").glob("*-of-*"))[0]
    assert toy.run("--source", part, "--out", tmp_path / "again") == 2
    assert f"{tmp_path / 'out'} is converted already" in capsys.readouterr().err


def test_a_wrong_model_is_told(tmp_path, capsys):
    toy.checkpoint(tmp_path / "source")
    assert toy.run("--model", "minilm", "--source", tmp_path / "source", "--out", tmp_path / "out") == 2
    assert "is of a QwenImage21Transformer2DModel, which is --model qwen_image_21" in capsys.readouterr().err
