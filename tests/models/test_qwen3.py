"""The Qwen3 encoder against transformers' model, by the rules of parity.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from encoders import check_names, check_round_trip, draw_tokens, to_the_right, torch_states, valid
from parity import carry_over, check_bfloat16, close, randomise, rounded
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from flashjax import cli, convert
from flashjax.errors import UserError
from flashjax.models import qwen3
from flashjax.models.qwen3 import Config

CONFIGS = {
    "tiny": {},
    "last_but_one": dict(layers=4, features=(3,), theta=1e4),
    "three_layers_side_by_side": dict(layers=5, features=(1, 2, 4), heads=6, kv_heads=3),
    "wide_heads": dict(width=20, head_dim=12, heads=3, kv_heads=1, features=(2,), layers=2),
    "after_the_norm": dict(final_norm=True, eps=1e-2, kv_heads=4),
    "scanned": dict(scan_layers=True, layers=4, features=(2, 4), vocab=33),
}


def torch_config(c: Config) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=c.vocab, hidden_size=c.width, intermediate_size=c.intermediate, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim, rms_norm_eps=c.eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.theta}, tie_word_embeddings=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """name of a config -> (config, transformers' model, the same weights as parameters)."""

    @functools.cache
    def make(name):
        config = Config.tiny(**CONFIGS[name])
        model = randomise(Qwen3ForCausalLM(torch_config(config)))
        return config, model, carry_over("qwen3", model, qwen3.abstract(config), tmp_path_factory.mktemp(name))

    return make


@functools.cache
def jitted(config: Config):
    return jax.jit(qwen3.encoder(config))


def expected(config: Config, model, tokens, lengths, left: bool = True) -> np.ndarray:
    """transformers' states, of a batch padded on the left (the result turned back) or on the right."""
    mask = (np.arange(tokens.shape[1]) < lengths[:, None]).astype(np.int64)
    if left:
        tokens, mask = to_the_right(tokens, lengths), to_the_right(mask, lengths)
    run = functools.partial(model, input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask))
    states = torch_states(model.model, config.features, config.final_norm, run)
    return to_the_right(states, lengths, back=True) if left else states


# -- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_transformers_padded_on_the_left(models, name):
    config, model, params = models(name)
    tokens, lengths = draw_tokens(config.vocab, (9, 1, 6), 9)
    wanted = valid(expected(config, model, tokens, lengths), lengths)
    assert 0.3 < wanted.std() < 5  # else the tolerance would mean nothing
    states = jitted(config)(params, tokens, lengths)
    assert states.dtype == jnp.float32
    close(valid(states, lengths), wanted)


def test_states_of_padding_are_those_of_transformers(models):
    """FLUX.2-klein reads them: the denoiser does not mask padding."""
    config, model, params = models("three_layers_side_by_side")
    tokens, lengths = draw_tokens(config.vocab, (3, 8), 11)
    close(jitted(config)(params, tokens, lengths), expected(config, model, tokens, lengths, left=False))


def test_long_prompts_agree(models):
    """Rotary positions of some hundreds."""
    config, model, params = models("tiny")
    tokens, lengths = draw_tokens(config.vocab, (500, 377), 500)
    wanted = expected(config, model, tokens, lengths, left=False)
    close(valid(jitted(config)(params, tokens, lengths), lengths), valid(wanted, lengths))


def test_a_padded_batch_equals_the_batch_of_one(models):
    config, _, params = models("three_layers_side_by_side")
    tokens, lengths = draw_tokens(config.vocab, (7, 2, 4), 12)
    batched = jitted(config)(params, tokens, lengths)
    for i, n in enumerate(lengths):
        close(batched[i : i + 1, :n], jitted(config)(params, tokens[i : i + 1, :n], lengths[i : i + 1]), 5e-6)


def test_scanned_equals_unrolled(models):
    config, _, params = models("scanned")
    tokens, lengths = draw_tokens(config.vocab, (7, 5), 7)
    unrolled = Config.tiny(**CONFIGS["scanned"] | {"scan_layers": False})
    close(jitted(config)(params, tokens, lengths), jitted(unrolled)(params, tokens, lengths), 5e-6)


def test_bfloat16_stays_near_float32(models):
    """bfloat16 rounds by 2^-9 = 0.2 %; the residual stream of five layers rounds ten times, its branches some more."""
    config, model, params = models("three_layers_side_by_side")
    tokens, lengths = draw_tokens(config.vocab, (9, 9), 9)
    rough = Config.tiny(**CONFIGS["three_layers_side_by_side"], dtype=jnp.bfloat16)
    rough, exact = (jitted(c)(params, tokens, lengths) for c in (rough, config))
    check_bfloat16(rough, exact, expected(config, rounded(model), tokens, lengths), bound=0.02)


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["z_image", "flux2_klein_4b", "flux2_klein_9b"])
def test_released_models_have_transformers_names_and_shapes(preset):
    """Without a weight in memory; what is not needed is dropped, nothing else."""
    config = getattr(Config, preset)()
    with torch.device("meta"):
        model = Qwen3ForCausalLM(torch_config(config))
    parameters = {"z_image": 4.022e9, "flux2_klein_4b": 4.022e9, "flux2_klein_9b": 7.568e9}  # without the head
    assert sum(p.numel() for p in model.model.parameters()) == pytest.approx(parameters[preset], rel=1e-3)
    dropped = check_names("qwen3", model, qwen3.abstract(config))
    rows = {f"model.layers.{layer}" for layer in range(config.depth, 36)}
    assert {".".join(name.split(".")[:3]) for name in dropped} == rows | {"model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize("name", ["tiny", "three_layers_side_by_side", "after_the_norm"])
def test_round_trip_is_bit_exact(models, name, tmp_path):
    config, model, _ = models(name)
    check_round_trip("qwen3", model, qwen3.abstract(config), tmp_path)


def test_a_model_saved_without_its_head_is_read(models, tmp_path):
    config, model, params = models("after_the_norm")
    bare = Qwen3Model(torch_config(config))
    bare.load_state_dict(model.model.state_dict())
    again = carry_over("qwen3", bare, qwen3.abstract(config), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_file_with_too_few_layers_is_refused(models, tmp_path):
    _, model, _ = models("tiny")
    model.save_pretrained(tmp_path)
    with pytest.raises(convert.ConversionError, match=r"blocks/attn/q_proj/kernel: no tensor .* fills layers 3"):
        convert.load("qwen3", tmp_path, qwen3.abstract(Config.tiny(layers=4, features=(4,))))


@pytest.mark.parametrize("features", [(1,), (1, 2)])
def test_a_converted_model_is_read_as_far_as_the_original(models, tmp_path, features):
    """Families read other layers of the same encoder: what was converted whole stands in for all of them."""
    _, model, _ = models("after_the_norm")
    model.save_pretrained(tmp_path / "theirs")
    layers = ["--source", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours"), "--model", "qwen3"]
    assert cli.main(["convert", *layers]) == 0
    target = qwen3.abstract(Config.tiny(**CONFIGS["after_the_norm"] | dict(features=features, final_norm=False)))
    convert.check("qwen3", tmp_path / "ours", target)
    read = (convert.load("qwen3", tmp_path / name, target) for name in ("ours", "theirs"))
    jax.tree.map(np.testing.assert_array_equal, *read)


# -- configuration ---------------------------------------------------------------------------------------------------


def test_config_json_of_both_generations_of_transformers_is_read():
    config = Config.z_image()
    new = torch_config(config).to_dict()
    old = {k: v for k, v in new.items() if k != "rope_parameters"} | {"rope_theta": 1e6, "rope_scaling": None}
    for each in (new, old):
        assert Config.from_transformers(each, features=(35,)) == config
        assert Config.from_transformers(each).features == (36,)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "llama"}, "model_type = 'llama'; a Qwen3 model's has 'qwen3'"),
        ({"attention_bias": True}, "attention_bias = True; only False is built"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'; only 'silu' is built"),
        ({"use_sliding_window": True}, "use_sliding_window = True; only False is built"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "rope_type = 'yarn'; only 'default' is built"),
        ({"rope_parameters": None}, "lacks rope_theta"),
    ],
)
def test_other_models_are_refused_in_words(change, sentence):
    with pytest.raises(UserError, match=sentence):
        Config.from_transformers(torch_config(Config.tiny()).to_dict() | change)


def test_a_missing_size_is_named():
    config = torch_config(Config.tiny()).to_dict()
    del config["vocab_size"]
    with pytest.raises(UserError, match="lacks vocab_size"):
        Config.from_transformers(config)


@pytest.mark.parametrize("features", [(), (0,), (4,), (2, 1), (1, 1)])
def test_impossible_features_are_refused(features):
    with pytest.raises(ValueError, match="layers from 1 to 3, in ascending order"):
        Config.tiny(features=features)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="final_norm goes with the states of the last layer, 3"):
        Config.tiny(features=(2,), final_norm=True)
    with pytest.raises(ValueError, match="kv_heads 3 must divide heads 4"):
        Config.tiny(kv_heads=3)
