"""LoRAs as adapters: the same change as in PyTorch's spellings, to the bit and back, and files that others load."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
import toy
from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin

from flashjax import convert
from flashjax.convert import adapters, lora, writer
from flashjax.models import qwen_image_21

TABLE = convert.table_of("qwen_image_21")
WEIGHTS = adapters.pytorch_specs(TABLE, toy.ABSTRACT)
RANKS = {  # weight: rank; one layer of a stack is left out, two have different ranks, one weight is not stacked
    "transformer_blocks.0.attn.to_q.weight": 2,
    "transformer_blocks.1.attn.to_out.0.weight": 2,
    "transformer_blocks.0.img_mlp.proj.weight": 1,
    "transformer_blocks.1.img_mlp.proj.weight": 3,
    "img_in.weight": 2,
}


def draw(scales=(0.5,), dtype=ml_dtypes.bfloat16):
    rng = np.random.default_rng(3)
    made = {}
    for i, (name, rank) in enumerate(RANKS.items()):
        out, width = WEIGHTS[name].shape
        a, b = (rng.normal(size=shape).astype(dtype).astype(np.float32) for shape in ((rank, width), (out, rank)))
        made[name] = lora.Factors(a, b, scales[i % len(scales)])
    return made


def same(found, expected, exact=True):
    assert found.keys() == expected.keys()
    for name, (a, b, scale) in expected.items():
        if exact:
            assert found[name].scale == scale
            np.testing.assert_array_equal(found[name].a, a)
            np.testing.assert_array_equal(found[name].b, b)
        product = found[name].scale * found[name].b @ found[name].a
        np.testing.assert_allclose(product, scale * b @ a, rtol=1e-5, atol=1e-6)


def kept(tmp_path, given, spelling, status=0):
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "config.json").write_text(json.dumps(toy.CONFIG.to_diffusers()))  # no weights: none are needed
    out = tmp_path / f"to_{spelling}"
    assert toy.run("--source", source, "--out", out, "--lora", given, "--keep-lora", spelling) == status
    return out / adapters.FILES[spelling]


@pytest.mark.parametrize("spelling", ["comfyui", "kohya"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_an_adapter_and_back_is_the_same_file(tmp_path, spelling, dtype):
    factors, given = draw(dtype=dtype), tmp_path / "given.safetensors"
    lora.write(given, factors, "comfyui", dtype, TABLE.comfyui)
    if spelling == "kohya":
        reader, names = convert.open_weights(given), {}
        for name in reader:
            module, _, end = name.partition(".lora_")
            module, end = (module.removesuffix(".alpha"), "alpha") if not end else (module, "lora_" + end)
            end = end.replace("lora_A", "lora_down").replace("lora_B", "lora_up")
            names[f"lora_unet_{module.replace('.', '_')}.{end}"] = reader.read(name)
        given = tmp_path / "kohya.safetensors"
        writer.write_arrays(given, names)
    adapter = kept(tmp_path, given, "flashjax")
    back = kept(tmp_path, adapter, "comfyui")
    same(lora.read(back, WEIGHTS), factors)
    if spelling == "comfyui":
        assert back.read_bytes() == given.read_bytes()
    header = convert.open_weights(adapter)
    assert {k: header.metadata[k] for k in ("model", "rank", "alpha")} == {
        "model": "qwen_image_21", "rank": "3", "alpha": "1.5",
    }  # fmt: skip
    layers, width, out = toy.ABSTRACT["blocks"]["attn"]["to_q"]["kernel"].shape
    assert header.shapes()["blocks/attn/to_q/kernel/a"] == ((layers, width, 3), np.dtype(dtype))
    assert header.shapes()["blocks/attn/to_q/kernel/b"] == ((layers, 3, out), np.dtype(dtype))


def test_scales_that_differ_are_taken_up(tmp_path):
    factors = draw(scales=(0.5, 0.5, 2.0))
    adapter = adapters.from_pytorch(factors, TABLE, toy.ABSTRACT)
    assert adapter.alpha / adapter.rank == 0.5
    same(adapters.to_pytorch(adapter, TABLE), factors, exact=False)


def test_layers_that_are_switched_off_stay_off():
    """Their alpha is 0, which no factor of another layer can take up."""
    factors = draw(scales=(0.0, 0.0, 2.0))
    adapter = adapters.from_pytorch(factors, TABLE, toy.ABSTRACT)
    assert adapter.alpha / adapter.rank == 2.0
    same(adapters.to_pytorch(adapter, TABLE), factors, exact=False)


def test_kernels_change_as_pytorchs_weights_do(tmp_path):
    """W + (alpha / rank) a b on the tree, against B A merged by the command, from either file."""
    source, given = toy.checkpoint(tmp_path / "checkpoint"), tmp_path / "lora.safetensors"
    lora.write(given, draw(), "comfyui", np.float32)
    file = kept(tmp_path, given, "flashjax")
    adapter = adapters.read(file, "qwen_image_21", toy.ABSTRACT)
    expected = toy.flat(source)
    for path, pair in adapter.factors.items():
        expected[path] = expected[path] + adapter.alpha / adapter.rank * (pair["a"] @ pair["b"])
    for name in (given, file):
        out = tmp_path / name.stem
        assert toy.run("--source", source, "--out", out, "--lora", name) == 0
        found = toy.flat(out)
        for path in expected:
            np.testing.assert_allclose(found[path], expected[path], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_diffusers_loads_an_exported_adapter(tmp_path, scale):
    factors = draw(scales=(scale,))
    adapters.write(tmp_path / "a.safetensors", adapters.from_pytorch(factors, TABLE, toy.ABSTRACT), "qwen_image_21")
    for spelling in ("diffusers", "comfyui"):
        file = kept(tmp_path, tmp_path / "a.safetensors", spelling)
        where = {"weight_name": file.name} if spelling == "comfyui" else {}
        state, metadata = QwenImageLoraLoaderMixin.lora_state_dict(file.parent, return_lora_metadata=True, **where)
        assert len(state) == 2 * len(factors)
        for weight, (a, b, own) in factors.items():
            module = f"transformer.{weight.removesuffix('.weight')}"
            theirs = [state[f"{module}.lora_{side}.weight"].numpy() for side in "AB"]
            np.testing.assert_allclose(theirs[1] @ theirs[0], own * b @ a, rtol=1e-5, atol=1e-6)
        assert (metadata is not None) == (spelling == "diffusers")


def test_a_new_lora_without_effect_keeps_its_ranks():
    """B begins as zero in training: such ranks are no filling."""
    width, out = toy.ABSTRACT["img_in"]["kernel"].shape
    pair = {"a": np.ones((width, 2), np.float32), "b": np.zeros((2, out), np.float32)}
    found = adapters.to_pytorch(adapters.Adapter({"img_in/kernel": pair}, 2, 2.0), TABLE)
    assert {name: len(each.a) for name, each in found.items()} == {"img_in.weight": 2}


BAD = {
    "another model": ({}, {"model": "flux2"}, "an adapter of flux2"),
    "no rank": ({}, {"rank": "none"}, "tells no rank and alpha"),
    "another rank": ({}, {"rank": "4"}, "fits no layer of the model at rank 4"),
    "unknown": ({"x/kernel/a": np.ones((4, 3), np.float32)}, {}, "x/kernel/a"),
    "half": ({"img_in/kernel/b": None}, {}, "img_in/kernel lacks"),
    "NaN": ({"img_in/kernel/b": np.nan}, {}, "img_in/kernel/b in .* NaN"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_adapter_that_does_not_fit_is_told(tmp_path, capsys, name):
    arrays, about, words = BAD[name]
    file = tmp_path / "a.safetensors"
    adapters.write(file, adapters.from_pytorch(draw(), TABLE, toy.ABSTRACT), "qwen_image_21")
    reader = convert.open_weights(file)
    found = {name: reader.read(name) for name in reader}
    for key, value in arrays.items():
        found[key] = found[key] * np.float32(value) if isinstance(value, float) else value
    writer.write_arrays(file, {k: v for k, v in found.items() if v is not None}, reader.metadata | about)
    kept(tmp_path, file, "comfyui", status=2)
    assert not list(tmp_path.glob("to_comfyui"))
    assert len((error := capsys.readouterr().err).splitlines()) == 1
    assert re.search(words, error)


def test_keep_lora_takes_one_lora_without_a_scale(tmp_path, capsys):
    lora.write(tmp_path / "a.safetensors", draw(), "comfyui")
    kept(tmp_path, f"{tmp_path / 'a.safetensors'}:0.5", "flashjax", status=2)
    assert "takes one --lora, without a scale" in capsys.readouterr().err


def test_what_keep_lora_cannot_do_is_not_advised(tmp_path, capsys):
    """--force, and --allow-pickle for a LoRA: each was refused by the next sentence."""
    lora.write(tmp_path / "a.safetensors", draw(), "comfyui")
    (tmp_path / "to_comfyui").mkdir()
    (tmp_path / "to_comfyui" / "thesis.txt").touch()
    kept(tmp_path, tmp_path / "a.safetensors", "comfyui", status=2)
    assert "is not empty; choose another --out." in capsys.readouterr().err
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "adapter_model.bin").touch()
    kept(tmp_path, tmp_path / "peft", "flashjax", status=2)
    assert "adapter_model.bin is a pickle, and --allow-pickle is for --source alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--keep-lora", "diffusers", "--dtype", "bfloat16"), "--dtype does nothing with --keep-lora"),
        (("--keep-lora", "diffusers", "--mesh", "fsdp=2"), "--mesh does nothing with --keep-lora"),
        (("--keep-lora", "diffusers", "--force"), "--force does nothing with --keep-lora"),
    ],
)
def test_options_that_would_be_passed_over_are_told(tmp_path, capsys, options, words):
    assert toy.run("--source", tmp_path, "--lora", tmp_path, "--out", tmp_path / "out", *options) == 2
    assert words in capsys.readouterr().err
    assert toy.run("--verify", tmp_path, "--source", tmp_path) == 2
    assert "--source does nothing with --verify" in capsys.readouterr().err


def test_a_weight_that_is_no_linear_layer_is_told():
    norm = "txt_in.text_norm.weight"
    factors = {norm: lora.Factors(np.ones((1, 3)), np.ones((3, 1)), 1.0)}
    with pytest.raises(convert.ConversionError, match=norm):
        adapters.from_pytorch(factors, TABLE, toy.ABSTRACT)


def test_specs_of_a_model_are_those_of_its_checkpoint(tmp_path):
    assert convert.open_weights(toy.checkpoint(tmp_path / "c")).shapes() == WEIGHTS
    assert len(adapters.pytorch_specs(TABLE, qwen_image_21.abstract(qwen_image_21.Config.qwen_image_21()))) == 297
