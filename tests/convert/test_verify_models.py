"""`flashjax convert --verify` for every model that has a table: right conversions pass, swapped weights do not."""

import functools
import itertools
import json
import operator

import jax
import numpy as np
import pytest
import test_flux2
import test_minilm
import test_qwen3
import test_qwen3_vl
import test_qwen25_vl
import test_qwen_image
import test_qwen_image_21
import test_vae_kl
import test_vae_qwen_image
import test_vae_qwen_image_21
import test_z_image
import torch
import toy
from autoencoders import soften
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderKLQwenImage21
from parity import randomise
from transformers import Qwen3ForCausalLM

from flashjax import convert, paths
from flashjax.convert import detect, manifest, oracles, verify
from flashjax.errors import UserError

TESTED = dict(
    flux2=test_flux2, qwen_image=test_qwen_image, qwen_image_21=test_qwen_image_21, z_image=test_z_image,
    qwen3_vl=test_qwen3_vl, qwen25_vl=test_qwen25_vl,
)  # fmt: skip
MAKE = {
    **{name: lambda test=test: randomise(test.torch_model(test.Config.tiny())) for name, test in TESTED.items()},
    "minilm": lambda: test_minilm.bert(test_minilm.minilm.Config.tiny()),
    "qwen3": lambda: randomise(Qwen3ForCausalLM(test_qwen3.torch_config(test_qwen3.Config.tiny()))),
    "vae_kl": lambda: _vae(AutoencoderKLFlux2, test_vae_kl._FLUX2),
    "vae_kl (z_image)": lambda: _vae(AutoencoderKL, test_vae_kl._Z_IMAGE),
    "vae_qwen_image": lambda: _vae(AutoencoderKLQwenImage, test_vae_qwen_image._SMALL),
    "vae_qwen_image_21": lambda: _vae(AutoencoderKLQwenImage21, test_vae_qwen_image_21._SMALL),
}


def _vae(cls, settings):
    return soften(randomise(cls(**settings)))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """name -> folder of a conversion, each made once."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name.split()[0])
        MAKE[name]().save_pretrained(folder / "source")
        assert toy.run("--source", folder / "source", "--out", folder / "out") == 0
        return folder / "out"

    return make


def settings_of(config, part=()):
    """The place of every setting of a config.json."""
    for name, value in config.items():
        yield (*part, name)
        if isinstance(value, dict):
            yield from settings_of(value, (*part, name))


@pytest.mark.parametrize("name", MAKE)
def test_a_setting_without_sense_is_told(converted, name):
    """A sentence, or sizes: every setting of config.json in turn is nothing of its kind."""
    text = (converted(name) / "config.json").read_text()
    told = 0
    for *part, last in settings_of(json.loads(text)):
        for value in (None, 0, -1, 0.5, True, "x", [], [0], ["x"], {}):
            config = json.loads(text)
            functools.reduce(operator.getitem, part, config)[last] = value
            try:
                detect.sizes(name.split()[0], config)
            except UserError as error:
                told += 1
                assert str(error).isprintable()
    assert told > 30


def test_every_model_has_an_oracle():
    assert set(oracles.ORACLES) == set(convert.MODELS) == {name.split()[0] for name in MAKE}


@pytest.mark.parametrize("name", MAKE)
def test_right_weights_agree_and_swapped_ones_do_not(converted, monkeypatch, name):
    """The swap is the table's: PyTorch gets its own names back, so that only the function can tell."""
    folder, model = converted(name), name.split()[0]
    oracle = oracles.ORACLES[model](verify._cut(model, json.loads((folder / "config.json").read_text())))
    monkeypatch.setitem(oracles.ORACLES, model, lambda _: oracle)  # compiled once
    told = verify.verify(folder)
    assert "all layers" in told
    assert float(told.split("PyTorch is ")[1].split()[0]) < 1e-5
    read, export = verify._read, verify.export
    monkeypatch.setattr(verify, "_read", lambda *given: swapped(read(*given)))
    monkeypatch.setattr(verify, "export", lambda table, params: export(table, swapped(params)))
    with pytest.raises(convert.ConversionError, match="so the conversion is not"):
        verify.verify(folder)


def swapped(params):
    """The first two kernels of one shape, exchanged."""
    flat = paths.flatten(params)
    kernels = [name for name in flat if name.endswith("kernel")]
    a, b = next((a, b) for a, b in itertools.combinations(kernels, 2) if flat[a].shape == flat[b].shape)
    return paths.unflatten({**flat, a: flat[b], b: flat[a]})


@pytest.mark.parametrize("name", ["flux2", "qwen3_vl", "qwen25_vl"])
def test_large_models_are_cut(converted, monkeypatch, name):
    monkeypatch.setattr(verify, "LIMIT", 1)
    monkeypatch.setattr(verify, "BLOCKS", 1)
    monkeypatch.setattr(verify, "WORDS", 40)
    told = verify.verify(converted(name))
    for words in {
        "flux2": ["num_layers 1 of 2", "num_single_layers 1 of 2"],
        "qwen3_vl": ["num_hidden_layers 2 of 3", "depth 1 of 3", "vocab_size 40 of 97"],
        "qwen25_vl": ["num_hidden_layers 1 of 2", "depth 2 of 3", "vocab_size 40 of 97"],
    }[name]:
        assert words in told


def test_what_is_compared_of_released_models_is_a_fraction():
    """It is held twice, in float32."""
    denoisers = dict(
        flux2=test_flux2.Config.klein_9b(), qwen_image=test_qwen_image.Config.qwen_image(),
        qwen_image_21=test_qwen_image_21.Config.qwen_image_21(), z_image=test_z_image.Config.z_image(),
    )  # fmt: skip
    encoders = dict(
        qwen3=test_qwen3.torch_config(test_qwen3.Config.flux2_klein_9b()),
        qwen3_vl=test_qwen3_vl.torch_config(test_qwen3_vl.Config.qwen_image_21()),
        qwen25_vl=test_qwen25_vl.torch_config(test_qwen25_vl.Config.qwen_image()),
    )
    released = {name: config.to_diffusers() for name, config in denoisers.items()}
    for model, settings in {**released, **{name: config.to_dict() for name, config in encoders.items()}}.items():
        form = detect.form(model, verify._cut(model, settings))
        assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(form)) < 1.7e9, model


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MAKE)
def test_every_model_comes_back_bit_for_bit(tmp_path, name, dtype, shards):
    """From one file or shards to the same, through the command, and on to PyTorch's names of today: the same bytes, but
    for what the table drops."""
    model, made = name.split()[0], MAKE[name]().to(dtype)
    made.save_pretrained(tmp_path / "source", **(dict(max_shard_size="20KB") if shards else {}))
    options = ("--shard-size", "1e-5") if shards else ()
    assert toy.run("--source", tmp_path / "source", "--out", tmp_path / "out", *options) == 0
    assert all((len(list((tmp_path / name).glob("*.safetensors"))) > 1) == shards for name in ("source", "out"))
    form = detect.form(model, detect.read_config(tmp_path / "out" / "config.json"))
    kind = np.dtype(str(dtype).removeprefix("torch."))
    convert.save(model, convert.load(model, tmp_path / "out", form, kind), tmp_path / "back.safetensors")
    dropped = manifest.read(tmp_path / "out")["dropped"]
    known = ("lm_head.weight", "model.norm.weight", "model.language_model.norm.weight", "bn.num_batches_tracked")
    assert set(dropped) <= set(known)
    source, back = convert.open_weights(tmp_path / "source"), convert.open_weights(tmp_path / "back.safetensors")
    names = {convert.table_of(model).today(name): name for name in set(source) - set(dropped)}
    assert set(back) == set(names)
    for today, before in names.items():
        assert back.shapes()[today] == source.shapes()[before]
        assert back.read(today).tobytes() == source.read(before).tobytes(), today


def test_names_that_pytorch_does_not_have_are_told(converted, monkeypatch):
    export = verify.export

    def renamed(table, params):
        made, specs = export(table, params)
        made["img_in.weigth"] = made.pop("img_in.weight")
        return made, specs

    monkeypatch.setattr(verify, "export", renamed)
    with pytest.raises(convert.ConversionError, match="disagree about img_in.weigth, img_in.weight"):
        verify.verify(converted("qwen_image_21"))
