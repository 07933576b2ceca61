"""LoRA files of three spellings say the same change, and diffusers reads what is written as flashjax does."""

import importlib
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import test_qwen3
import torch
import toy
from diffusers.loaders import lora_conversion_utils as theirs
from diffusers.loaders.lora_pipeline import QwenImageLoraLoaderMixin
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

from flashjax import cli, convert
from flashjax.convert import adapters, detect, lora, writer
from flashjax.models import qwen3

RANKS = {  # weight: rank
    "transformer_blocks.0.attn.to_q.weight": 2,
    "transformer_blocks.1.attn.to_out.0.weight": 2,
    "transformer_blocks.1.img_mlp.proj.weight": 3,
}


@pytest.fixture
def source(tmp_path):
    return toy.checkpoint(tmp_path / "source")


@pytest.fixture
def weights(source):
    return convert.open_weights(source).shapes()


def draw(weights, scale=0.5):
    rng = np.random.default_rng(3)
    made = {}
    for name, rank in RANKS.items():
        out, width = weights[name].shape
        made[name] = lora.Factors(
            rng.normal(size=(rank, width)).astype(np.float32), rng.normal(size=(out, rank)).astype(np.float32), scale
        )
    return made


def product(factors):
    a, b, scale = factors
    return scale * b @ a


def keys(factors, form, down="lora_A.weight", up="lora_B.weight", alpha=True):
    out = {}
    for name, (a, b, scale) in factors.items():
        module = form(name.removesuffix(".weight"))
        out |= {f"{module}.{down}": a, f"{module}.{up}": b}
        if alpha:
            out[f"{module}.alpha"] = np.float32(scale * len(a))
    return out


def kohya(module):
    return "lora_unet_" + module.replace(".", "_")


# name -> (how a module is named, names of A and B)
SPELLINGS = {
    "diffusers": (lambda m: "transformer." + m, "lora_A.weight", "lora_B.weight"),
    "peft": (lambda m: "base_model.model." + m, "lora_A.weight", "lora_B.weight"),
    "an adapter's name": (lambda m: "transformer." + m, "lora_A.default.weight", "lora_B.default.weight"),
    "bare": (lambda m: m, "lora_A.weight", "lora_B.weight"),
    "kohya": (kohya, "lora_down.weight", "lora_up.weight"),
    "comfyui": (lambda m: "diffusion_model." + m, "lora_A.weight", "lora_B.weight"),
    "comfyui, up and down": (lambda m: "diffusion_model." + m, "lora_up.weight", "lora_down.weight"),
    "old diffusers": (lambda m: "transformer." + m, "lora.down.weight", "lora.up.weight"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_says_the_same(weights, tmp_path, name):
    form, a, b = SPELLINGS[name]
    if "up and down" in name:
        a, b = b, a
    factors = draw(weights)
    writer.write_arrays(tmp_path / "lora.safetensors", keys(factors, form, a, b))
    found = lora.read(tmp_path / "lora.safetensors", weights)
    assert found.keys() == factors.keys()
    for weight in factors:
        np.testing.assert_array_equal(product(found[weight]), product(factors[weight]))


@pytest.mark.parametrize("where", ["header", "beside", "folder", "nowhere", "rslora"])
def test_alpha_comes_from_the_configuration_where_no_tensor_tells_it(weights, tmp_path, where):
    factors = draw(weights, scale=1.0)
    config = {"lora_alpha": 6, "alpha_pattern": {"img_mlp.proj": 12}, "use_rslora": where == "rslora"}
    metadata = {}
    if where == "header":
        metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in config.items()})}
    elif where != "nowhere":
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    arrays = keys(factors, lambda m: "base_model.model." + m, alpha=False)
    writer.write_arrays(tmp_path / "adapter_model.safetensors", arrays, metadata)
    found = lora.read(tmp_path if where == "folder" else tmp_path / "adapter_model.safetensors", weights)
    scales = [found[name].scale for name in RANKS]
    expected = {"nowhere": [1, 1, 1], "rslora": [6 / 2**0.5, 6 / 2**0.5, 12 / 3**0.5]}.get(where, [3, 3, 4])
    assert scales == pytest.approx(expected, rel=1e-12)


def test_a_pattern_of_alphas_is_a_regular_expression_of_which_the_first_counts(weights, tmp_path):
    """As in PEFT; it names the end of a module's path, from a dot on."""
    factors = draw(weights, scale=1.0)
    patterns = {r"attn[.]to_.": 10, ".*": 20, "to_q": 30}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "alpha_pattern": patterns}))
    arrays = keys(factors, lambda m: "base_model.model." + m, alpha=False)
    writer.write_arrays(tmp_path / "adapter_model.safetensors", arrays)
    found = lora.read(tmp_path, weights)
    assert [found[name].scale for name in RANKS] == pytest.approx([10 / 2, 20 / 2, 20 / 3])


def as_torch(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", ["kohya", "comfyui"])
def test_the_scale_is_the_one_of_diffusers(weights, tmp_path, name):
    form, a, b = SPELLINGS[name]
    arrays = keys(draw(weights), form, a, b)
    writer.write_arrays(tmp_path / "lora.safetensors", arrays)
    found = lora.read(tmp_path / "lora.safetensors", weights)
    read = theirs._convert_non_diffusers_qwen_lora_to_diffusers(as_torch(arrays))
    for weight in RANKS:
        a, b = (read[f"transformer.{weight.removesuffix('.weight')}.lora_{p}.weight"].numpy() for p in "AB")
        np.testing.assert_allclose(product(found[weight]), b @ a, rtol=1e-5, atol=1e-6)


def of_gate_up(arrays):
    """Nobody's: ComfyUI joins gate and value of Qwen-Image-2.1 in this order, diffusers reads no such file."""
    out = {}
    for name, array in arrays.items():
        parts = torch.chunk(array, 2) if "lora_B" in name else (array, array)
        for layer, part in zip(("gate_layer", "proj"), parts, strict=True):
            out["transformer." + name.removeprefix("diffusion_model.").replace("gate_up", layer)] = part
    return out


# model, names of A and B, how a layer is named, which layers, and what reads them
NATIVE = {
    "flux2": ("flux2", *SPELLINGS["comfyui"], "", theirs._convert_non_diffusers_flux2_lora_to_diffusers),
    "flux2 kohya": ("flux2", *SPELLINGS["kohya"], "_blocks", theirs._convert_kohya_flux2_lora_to_diffusers),
    "z_image kohya": ("z_image", *SPELLINGS["kohya"], "att", theirs._convert_non_diffusers_z_image_lora_to_diffusers),
    "qwen_image_21": ("qwen_image_21", *SPELLINGS["comfyui"], "", of_gate_up),
}


@pytest.mark.parametrize("name", NATIVE)
def test_the_authors_names_are_read_as_diffusers_reads_them(tmp_path, name):
    """Queries, keys and values in one layer, among others."""
    model, form, down, up, some, read = NATIVE[name]
    table, module = convert.table_of(model), importlib.import_module(f"flashjax.models.{model}")
    weights = adapters.pytorch_specs(table, module.abstract(module.Config.tiny()))
    rng, arrays, layers = np.random.default_rng(0), {}, lora._layers(weights, table.native)
    own = [layer for layer in layers if f"{layer}.weight" not in weights and some in layer]
    for layer in own:
        shapes = [weights[weight].shape for weight in layers[layer]]
        arrays[f"{form(layer)}.{down}"] = rng.normal(size=(2, shapes[0][1])).astype(np.float32)
        arrays[f"{form(layer)}.{up}"] = rng.normal(size=(sum(shape[0] for shape in shapes), 2)).astype(np.float32)
        if "kohya" in name:
            arrays[f"{form(layer)}.alpha"] = np.float32(1)
    writer.write_arrays(tmp_path / "lora.safetensors", arrays)
    found = lora.read(tmp_path / "lora.safetensors", weights, table.native)
    expected = read(as_torch(arrays))
    assert len(found) > len(own) and len(expected) == 2 * len(found)
    for weight, factors in found.items():
        a, b = (expected[f"transformer.{weight.removesuffix('.weight')}.lora_{p}.weight"].numpy() for p in "AB")
        np.testing.assert_allclose(product(factors), b @ a, rtol=1e-5, atol=1e-6)
    fitting = detect.fitting(lora.modules(convert.open_weights(tmp_path / "lora.safetensors")))
    assert fitting == ([] if "kohya" in name else [model])


def test_what_diffusers_writes_for_kohya_is_read(weights, tmp_path):
    factors = draw(weights, scale=1.0)
    peft = as_torch(keys(factors, lambda m: "unet." + m, alpha=False))
    safetensors.torch.save_file(convert_state_dict_to_kohya(peft), tmp_path / "kohya.safetensors")
    found = lora.read(tmp_path / "kohya.safetensors", weights)
    for weight in RANKS:
        np.testing.assert_array_equal(product(found[weight]), product(factors[weight]))


@pytest.mark.parametrize("spelling", ["diffusers", "comfyui"])
def test_diffusers_reads_what_is_written(weights, tmp_path, spelling):
    factors = draw(weights)
    lora.write(tmp_path / "lora.safetensors", factors, spelling, np.float32)
    state, metadata = QwenImageLoraLoaderMixin.lora_state_dict(tmp_path / "lora.safetensors", return_lora_metadata=True)
    modules = {weight.removesuffix(".weight"): weight for weight in factors}
    assert set(state) == {f"transformer.{module}.lora_{p}.weight" for module in modules for p in "AB"}
    for module, weight in modules.items():
        a, b = (state[f"transformer.{module}.lora_{p}.weight"].numpy() for p in "AB")
        np.testing.assert_allclose(b @ a, product(factors[weight]), rtol=1e-5, atol=1e-6)
        if spelling == "diffusers":  # PEFT scales by alpha / rank of the configuration: 1
            rank = metadata["transformer.rank_pattern"].get(module, metadata["transformer.r"])
            assert rank == RANKS[weight]
            assert metadata["transformer.alpha_pattern"].get(module, metadata["transformer.lora_alpha"]) == rank
    if spelling == "diffusers":
        assert set(metadata["transformer.target_modules"]) == set(modules)
    found = lora.read(tmp_path / "lora.safetensors", weights)
    for weight in factors:
        np.testing.assert_allclose(product(found[weight]), product(factors[weight]), rtol=1e-6)


def test_names_are_those_that_other_tools_look_for(weights, tmp_path):
    """Golden names: a change here breaks every file that people share."""
    first = {name: factors for name, factors in draw(weights).items() if "to_q" in name}
    for spelling, names in {
        "diffusers": ["transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
                      "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"],
        "comfyui": ["diffusion_model.transformer_blocks.0.attn.to_q.alpha",
                    "diffusion_model.transformer_blocks.0.attn.to_q.lora_A.weight",
                    "diffusion_model.transformer_blocks.0.attn.to_q.lora_B.weight"],
    }.items():  # fmt: skip
        lora.write(tmp_path / "lora.safetensors", first, spelling)
        found = convert.open_weights(tmp_path / "lora.safetensors")
        assert sorted(found) == names
        assert found.shapes()[names[-1]].dtype == ml_dtypes.bfloat16


# As comfy/lora.py maps them to its own layers. It joins gate and value of Qwen-Image-2.1, and has FLUX.2's layers under
# the authors' names: there it finds PyTorch's without anything in front, and not behind diffusion_model.
COMFYUI = {
    "qwen_image_21": "transformer_blocks.0.img_mlp.proj",
    "qwen_image": "diffusion_model.transformer_blocks.0.img_mlp.net.2",
    "z_image": "diffusion_model.layers.0.attention.to_out.0",
    "flux2": "single_transformer_blocks.0.attn.to_qkv_mlp_proj",
}


@pytest.mark.parametrize("model", COMFYUI)
def test_comfyui_finds_every_familys_layers(tmp_path, model):
    config = importlib.import_module(f"flashjax.models.{model}").Config.tiny().to_diffusers()
    (tmp_path / "config.json").write_text(json.dumps(config))
    layer = COMFYUI[model].removeprefix("diffusion_model.")
    out, width = adapters.pytorch_specs(convert.table_of(model), detect.form(model, config))[f"{layer}.weight"].shape
    one = lora.Factors(np.ones((2, width), np.float32), np.ones((out, 2), np.float32), 0.5)
    lora.write(tmp_path / "a.safetensors", {f"{layer}.weight": one}, "diffusers", np.float32)
    given = ("--lora", tmp_path / "a.safetensors", "--keep-lora", "comfyui")
    assert toy.run("--source", tmp_path, "--out", tmp_path / "out", *given) == 0
    reader = convert.open_weights(tmp_path / "out" / "lora.safetensors")
    assert set(reader) == {f"{COMFYUI[model]}.{end}" for end in ("alpha", "lora_A.weight", "lora_B.weight")}
    assert lora.spelling(reader) == "ComfyUI"


def test_a_written_lora_works_in_peft(source, weights, tmp_path):
    pytest.importorskip("peft")
    from diffusers import QwenImage21Transformer2DModel

    model = QwenImage21Transformer2DModel.from_pretrained(source)
    before = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    factors = draw(weights)
    lora.write(tmp_path / "lora.safetensors", factors, "diffusers", np.float32)
    state, metadata = QwenImageLoraLoaderMixin.lora_state_dict(tmp_path / "lora.safetensors", return_lora_metadata=True)
    model.load_lora_adapter(state, metadata=metadata, prefix="transformer")
    model.fuse_lora()
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            plain = name.replace(".base_layer", "")
            change = product(factors[plain]) if plain in factors else 0
            np.testing.assert_allclose(weight.detach().numpy(), before[plain] + change, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_the_command_merges_on_the_fly(tmp_path, monkeypatch, dtype):
    source = toy.checkpoint(tmp_path / "source", dtype=dtype)
    weights = convert.open_weights(source).shapes()
    factors = draw(weights)
    lora.write(tmp_path / "a.safetensors", factors, "comfyui", np.float32)
    lora.write(tmp_path / "b.safetensors", factors, "diffusers", np.float32)
    monkeypatch.setattr(lora, "WINDOW", 300)  # several slabs a weight
    given = ("--lora", f"{tmp_path / 'a.safetensors'}:0.5", "--lora", tmp_path / "b.safetensors")
    assert toy.run("--source", source, "--out", tmp_path / "out", *given) == 0
    base = toy.tensors(source)
    changed = {n: a.astype(np.float32) + (1.5 * product(factors[n]) if n in factors else 0) for n, a in base.items()}
    toy.rewrite(source, **{name.replace(".", "__"): array.astype(dtype) for name, array in changed.items()})
    found, expected = toy.flat(tmp_path / "out"), toy.flat(source)
    for name in expected:  # float32: two orders of a sum of 3; bfloat16: those, where they decide a rounding
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-2 if dtype != np.float32 else 1e-5, atol=1e-5)
    untouched = [n for n in expected if not n.startswith("blocks")]
    assert all(np.array_equal(found[name], expected[name]) for name in untouched)
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert about["loras"] == [{"file": "a.safetensors", "scale": 0.5}, {"file": "b.safetensors", "scale": 1.0}]


@pytest.mark.parametrize("older", ["weights", "lora", "both"])
def test_names_of_older_files_are_the_same_layers(tmp_path, older):
    """An encoder that was saved without its head has no "model." in front, and neither has a LoRA of it."""
    form = qwen3.abstract(qwen3.Config.tiny())
    written = adapters.pytorch_specs(convert.table_of("qwen3"), form)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=spec.shape).astype(np.float32) for name, spec in written.items()}
    layer = "layers.1.self_attn.q_proj"
    out, width = arrays[f"model.{layer}.weight"].shape
    a, b = rng.normal(size=(2, width)).astype(np.float32), rng.normal(size=(out, 2)).astype(np.float32)
    settings = test_qwen3.torch_config(qwen3.Config.tiny()).to_dict() | dict(architectures=["Qwen3Model"])
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(settings))
    front = "" if older in ("weights", "both") else "model."
    file = source / "model.safetensors"
    writer.write_arrays(file, {front + name.removeprefix("model."): array for name, array in arrays.items()})
    module = f"base_model.model.model.{layer}" if older == "weights" else f"base_model.model.{layer}"
    lora_file = tmp_path / "lora.safetensors"
    writer.write_arrays(lora_file, {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b})
    assert toy.run("--source", source, "--lora", lora_file, "--out", tmp_path / "out") == 0
    found = convert.open_weights(tmp_path / "out").read("blocks/attn/q_proj/kernel")[1]
    np.testing.assert_allclose(found, (arrays[f"model.{layer}.weight"] + b @ a).T, rtol=1e-5, atol=1e-5)


def test_a_strength_that_leaves_the_dtype_is_told_of_the_lora(source, weights, tmp_path, capsys):
    """The weights are not damaged, and nothing is written."""
    lora.write(tmp_path / "a.safetensors", draw(weights), "comfyui", np.float32)
    for options in ((), ("--allow-nonfinite",)):
        given = ("--lora", f"{tmp_path / 'a.safetensors'}:1e38", *options)
        assert toy.run("--source", source, "--out", tmp_path / "out", *given) == 2
        said = capsys.readouterr().err
        assert "becomes too large for float32 with the LoRA" in said and "damaged" not in said
        assert not (tmp_path / "out").exists()


def without(arrays, end):
    return {name: array for name, array in arrays.items() if not name.endswith(end)}


BAD = {
    "another model": (
        lambda arrays: {name.replace("attn.to_q", "attn1.to_q"): array for name, array in arrays.items()},
        ("LoRA of another model: 1 of its 3 parts", "transformer_blocks.0.attn1.to_q.lora_A.weight"),
    ),
    "another size": (
        lambda arrays: {name: array[:, :5] if "proj.lora_A" in name else array for name, array in arrays.items()},
        ("LoRA of another model: 1 of its 3", "transformer_blocks.1.img_mlp.proj.lora_A.weight"),
    ),
    "ranks that differ": (
        lambda arrays: {name: array[:1] if "to_q.lora_A" in name else array for name, array in arrays.items()},
        ("no factors of one rank", "to_q.lora_A"),
    ),
    "no rank": (
        lambda arrays: {n: a[:0] if "lora_A" in n else a[:, :0] for n, a in arrays.items()}, ("no factors", "lora_A"),
    ),
    "no B": (lambda arrays: without(arrays, "to_q.lora_B.weight"), ("is incomplete", "attn.to_q")),
    "DoRA": (
        lambda arrays: arrays | {"transformer.transformer_blocks.0.attn.to_q.dora_scale": np.ones(1)},
        ("no plain LoRA", "to_q.dora_scale"),
    ),
    "NaN": (lambda arrays: {n: a * np.float32(np.nan) for n, a in arrays.items()}, ("NaN or infinite", "LoRA")),
    "no LoRA": (lambda arrays: {"x.weight": np.ones(3)}, ("no plain LoRA", "x.weight")),
    "alpha is NaN": (lambda arrays: with_alpha(arrays, np.float32(np.nan)), ("to_q.alpha in", "not one finite number")),
    "no alpha in alpha": (lambda arrays: with_alpha(arrays, np.ones(0)), ("to_q.alpha in", "not one finite number")),
    "two alphas": (lambda arrays: with_alpha(arrays, np.ones(2)), ("to_q.alpha in", "not one finite number")),
    "whole numbers": (lambda arrays: {n: a.astype(int) for n, a in arrays.items()}, ("no factors of", "to_q.lora_A")),
}  # fmt: skip


BESIDE = {
    "kohya": (kohya, "lora_te_", "lora_down.weight", "lora_up.weight"),
    "kohya, of several encoders": (kohya, "lora_te1_", "lora_down.weight", "lora_up.weight"),
    "diffusers": (lambda m: "transformer." + m, "text_encoder.", "lora_A.weight", "lora_B.weight"),
    "peft": (lambda m: "base_model.model." + m, "base_model.model.text_encoder_2.", "lora_A.weight", "lora_B.weight"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_lora_of_a_text_encoder_is_told(source, weights, tmp_path, capsys, name):
    """Too, or alone: it is none of another model."""
    form, front, down, up = BESIDE[name]
    denoiser = keys(draw(weights), form, down, up)
    pair = {"x_q_proj.weight": lora.Factors(np.ones((2, 5), np.float32), np.ones((5, 2), np.float32), 1.0)}
    encoder = keys(pair, lambda module: front + module, down, up)
    file = tmp_path / "lora.safetensors"
    for arrays, words, use in (
        (denoiser | encoder, ("too: 1 of its 4 parts", "save the others"), "save the other targets"),
        (encoder, ("alone: 1 of its 1 parts", "leave it out."), "none"),
    ):
        writer.write_arrays(file, arrays)
        assert toy.run("--source", source, "--out", tmp_path / "out", "--lora", file) == 2
        error = capsys.readouterr().err
        for word in (f"{file} is a LoRA of a text encoder {words[0]}", f"({front}x_q_proj), which is not", words[1]):
            assert word in error
        assert error.count("\n") == 1 and not (tmp_path / "out").exists()
        assert cli.main(["inspect", str(file)]) == 0
        told = capsys.readouterr().out
        assert "targets are a text encoder's, which is not merged here" in told and f"use          {use}" in told
    assert "fits" not in told  # there are no others that could


def with_alpha(arrays, alpha):
    return arrays | {"transformer.transformer_blocks.0.attn.to_q.alpha": alpha}


ODD = [b"{", b"[]", b"\xff{}", b'{"lora_alpha": NaN}', b'{"lora_alpha": "4"}', b'{"alpha_pattern": {"to_q": "x"}}']
ODD += [b'{"lora_alpha": 1%s}' % (b"0" * 400)]  # JSON's whole numbers have no end, floats do
ODD += [b'{"alpha_pattern": {"to_[q": 1}}']


@pytest.mark.parametrize("text", ODD)
def test_a_configuration_without_sense_is_told(weights, tmp_path, text):
    arrays = keys(draw(weights), lambda m: "base_model.model." + m, alpha=False)
    writer.write_arrays(tmp_path / "adapter_model.safetensors", arrays)
    (tmp_path / "adapter_config.json").write_bytes(text)
    with pytest.raises(convert.ConversionError, match="The LoRA configuration of .*adapter_model.safetensors is no"):
        lora.read(tmp_path / "adapter_model.safetensors", weights)


@pytest.mark.parametrize("name", BAD)
def test_a_lora_that_does_not_fit_is_told(source, weights, tmp_path, capsys, name):
    change, words = BAD[name]
    arrays = change(keys(draw(weights), lambda m: "transformer." + m, alpha=False))
    writer.write_arrays(tmp_path / "lora.safetensors", arrays)
    assert toy.run("--source", source, "--out", tmp_path / "out", "--lora", tmp_path / "lora.safetensors") == 2
    error = capsys.readouterr().err
    for word in (*words, "lora.safetensors"):
        assert word in error
    if words[0].startswith(("no plain", "is incomplete", "no factors")) and name != "no LoRA":
        assert cli.main(["inspect", str(tmp_path / "lora.safetensors")]) == 0  # it advises nothing that is refused
        assert "use          none: " in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lora.safetensors", "source"]
