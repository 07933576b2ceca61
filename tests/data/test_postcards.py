"""The postcards: determinism, held-out rules, exact edits, captions."""

import importlib
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from flashjax.data import postcards
from flashjax.data.postcards import HELDOUT_WORDS, TRAINING_WORDS, lettering, portrait
from flashjax.errors import UserError

CATEGORIES = tuple(postcards.CATEGORIES)
DRAWS = 3000


def cards(category, split, count, seed=0):
    return [postcards.make(category, split, i, seed) for i in range(count)]


@pytest.mark.parametrize("category", CATEGORIES)
def test_same_arguments_same_card_and_pixels(category):
    for i in range(10):
        first, again = (postcards.make(category, "train", i, 5) for _ in range(2))
        assert first == again
        picture = postcards.render(first, 32)
        assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, postcards.render(again, 32))


@pytest.mark.parametrize("category", CATEGORIES)
def test_seed_varies_what_is_left_open(category):
    module, card = postcards.CATEGORIES[category], postcards.make(category, "train", 0, 0)
    pictures = {module.render(card.spec, 32, seed).tobytes() for seed in range(8)}
    assert len(pictures) == 8
    assert postcards.make(category, "train", 0, 1) != card


def test_at_least_ten_thousand_descriptions():
    for category in ("landscape", "portrait"):
        values = postcards.CATEGORIES[category].ATTRIBUTES.values()
        assert all(len(set(v)) == len(v) for v in values)
        assert math.prod(map(len, values)) >= 10_000
    attributes = lettering.ATTRIBUTES
    pairs = itertools.product(attributes["ink"], attributes["paper"])
    readable = sum(lettering.readable(*pair) for pair in pairs)
    others = [len(attributes[k]) for k in ("position", "border", "font")]
    assert len(TRAINING_WORDS) * readable * math.prod(others) >= 10_000


def test_words():
    words = TRAINING_WORDS + HELDOUT_WORDS
    assert (len(TRAINING_WORDS), len(HELDOUT_WORDS), len(set(words))) == (36, 6, 42)
    assert all(2 <= len(w) <= 5 and w.isalpha() and w.isupper() for w in words)


@pytest.mark.parametrize("split", ["train", "teacher"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_training_never_shows_or_says_what_is_held_out(category, split):
    counts = np.zeros(7)
    for card in cards(category, split, DRAWS):
        assert not postcards.is_heldout(category, card.spec)
        assert not postcards.is_heldout(category, card.named)
        assert not postcards.is_heldout(category, card.edit_spec)
        assert not any(w in card.caption.split('"') for w in HELDOUT_WORDS)
        assert not any(f'"{w}"' in card.instruction for w in HELDOUT_WORDS)
        counts[len(card.named.keys() - {"word"})] += 1
    shares = [0.15, 0.25, 0.25, 0.20, 0.10, 0.05, 0.0] if split == "train" else [1 / 7] * 7
    if split == "teacher" and category == "text":  # a sign has five attributes besides its word
        shares = [1 / 7] * 5 + [2 / 7, 0]
    np.testing.assert_allclose(counts / DRAWS, shares, atol=0.04)


@pytest.mark.parametrize("category", CATEGORIES)
def test_heldout_split_is_held_out_twice_and_uses_training_words(category):
    for card in cards(category, "heldout", 200):
        assert card.named and card.named.items() <= card.spec.items()
        assert postcards.is_heldout(category, card.spec)
        assert postcards.is_heldout(category, card.named)
        if category == "text":
            assert card.named["word"] in TRAINING_WORDS
            assert f'"{card.named["word"]}"' in card.caption


def test_heldout_words_split():
    seen = {card.named["word"] for card in cards("text", "heldout_words", 100)}
    assert seen == set(HELDOUT_WORDS)


def test_heldout_is_a_stable_tenth():
    assert not postcards.is_heldout("landscape", {})
    assert postcards.is_heldout("text", {"word": HELDOUT_WORDS[0]})
    rng = np.random.default_rng(0)
    specs = [postcards.CATEGORIES["portrait"].sample(rng) for _ in range(2000)]
    assert 0.07 < np.mean([postcards.is_heldout("portrait", s) for s in specs]) < 0.13
    for spec in specs[:50]:
        shuffled = dict(reversed(spec.items()))
        heldout = postcards.is_heldout("portrait", spec)
        assert heldout == postcards.is_heldout("portrait", shuffled)


def test_the_split_never_moves():
    """If this fails, training may see what older evaluations hold out."""
    found = {
        category: [
            value
            for attribute, values in module.ATTRIBUTES.items()
            for value in values
            if postcards.is_heldout(category, {attribute: value})
        ]
        for category, module in postcards.CATEGORIES.items()
    }
    assert found == {
        "landscape": ["green hills", "white"],
        "portrait": ["dreadlocks", "blonde", "smiling", "surprised", "gray"],
        "text": ["TPU", "ZOO", "SALE", "LOVE", "GOLD", *HELDOUT_WORDS, "black"],
    }


@pytest.mark.parametrize("category", CATEGORIES)
def test_captions_depend_on_the_named_attributes_alone(category):
    """Changing an attribute that is not named never changes the caption."""
    module, rng = postcards.CATEGORIES[category], np.random.default_rng(3)
    for card in cards(category, "train", 400):
        other = module.sample(rng) | card.named
        if category == "landscape":  # 'the sun' or 'the moon' follows the sky
            other["sky"] = card.spec["sky"]
        said = [
            module.caption(spec, tuple(card.named), np.random.default_rng(1))
            for spec in (card.spec, other)
        ]
        assert said[0] == said[1]


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_named_value_is_told(category):
    """Two values of a named attribute never give the same caption."""
    module, rng = postcards.CATEGORIES[category], np.random.default_rng(4)
    for attribute, values in module.ATTRIBUTES.items():
        spec, others = module.sample(rng), list(module.ATTRIBUTES)
        for named in ((attribute,), (attribute, *others[:2]), tuple(others)):
            named = tuple(dict.fromkeys(named))
            for style in range(6):
                captions = {
                    module.caption({**spec, attribute: v}, named, np.random.default_rng(style))
                    for v in values
                }
                assert len(captions) == len(values)


@pytest.mark.parametrize("category", CATEGORIES)
def test_captions_are_short_and_varied(category):
    made = [c for c in cards(category, "train", 1000) if len(c.named) <= 5]
    assert max(len(c.caption.replace(",", " ,").split()) for c in made) <= 24
    module, card = postcards.CATEGORIES[category], next(c for c in made if len(c.named) == 3)
    phrasings = {
        module.caption(card.spec, tuple(card.named), np.random.default_rng(i)) for i in range(60)
    }
    assert len(phrasings) >= 4


@pytest.mark.parametrize("category", CATEGORIES)
def test_edits_change_one_attribute_and_spare_the_rest_of_the_picture(category):
    module, size = postcards.CATEGORIES[category], 32
    for card in cards(category, "train", 150, seed=2):
        different = [k for k in card.spec if card.spec[k] != card.edit_spec[k]]
        assert different == [card.changed] and card.instruction
        before, after = postcards.render(card, size), postcards.render_edit(card, size)
        assert (before != after).any(), card
        if card.changed in module.EDIT_BOX:
            left, top, right, bottom = (round(v * size) for v in module.EDIT_BOX[card.changed])
            changed = (before != after).any(axis=2)
            changed[top:bottom, left:right] = False
            assert not changed.any(), (card.changed, card.spec, card.edit_spec)


def test_border_edit_leaves_the_inside_alone():
    rng = np.random.default_rng(0)
    for seed in range(20):
        spec = lettering.sample(rng) | {"border": "none"}
        plain = lettering.render(spec, 32, seed)
        framed = lettering.render(spec | {"border": "border"}, 32, seed)
        np.testing.assert_array_equal(plain[5:-5, 5:-5], framed[5:-5, 5:-5])


def test_word_edit_leaves_the_rest_alone():
    rng = np.random.default_rng(1)
    for seed in range(20):
        spec = lettering.sample(rng) | {"position": "top", "word": "TEA"}
        before = lettering.render(spec, 32, seed)
        after = lettering.render(spec | {"word": "HOUSE"}, 32, seed)
        np.testing.assert_array_equal(before[18:], after[18:])
        assert (before[:18] != after[:18]).any()


def test_letters_are_large_and_inside_the_picture():
    for word in TRAINING_WORDS + HELDOUT_WORDS:
        for font in lettering.ATTRIBUTES["font"]:
            for place in lettering.ATTRIBUTES["position"]:
                spec = {"word": word, "ink": "black", "paper": "white", "font": font}
                picture = lettering.render(spec | {"position": place, "border": "none"}, 32, 0)
                rows, columns = ((picture.mean(axis=2) < 128).any(axis=a) for a in (1, 0))
                assert rows.sum() >= 9
                assert not (rows[[0, 1, -1, -2]].any() or columns[[0, -1]].any())


def test_sampled_signs_are_readable():
    rng = np.random.default_rng(0)
    for _ in range(500):
        spec = lettering.sample(rng)
        assert lettering.readable(spec["ink"], spec["paper"])
        edited, _, _ = lettering.edit(spec, rng)
        assert lettering.readable(edited["ink"], edited["paper"])


@pytest.mark.parametrize(
    ("category", "split", "words"),
    [("sea", "train", "no category"), ("text", "test", "no split"),
     ("portrait", "heldout_words", "Only the category 'text'")],
)  # fmt: skip
def test_bad_arguments_get_a_sentence(category, split, words):
    with pytest.raises(ValueError, match=words):
        postcards.make(category, split, 0, 0)


def test_packages_that_are_not_installed_are_named(monkeypatch):
    for package in ("python_avatars", "resvg_py", "font_caladea"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"python_avatars, which is not installed; .*flashjax\[postcards\]"):
        importlib.reload(portrait)
    lettering._font.cache_clear()
    with pytest.raises(UserError, match=r"'serif' font .* font-caladea, .*flashjax\[postcards\]"):
        lettering._font("serif")


def test_training_and_sampling_need_no_package_of_the_postcards():
    """As a process: here they are imported already."""
    extras = ("python_avatars", "resvg_py", "font_caladea", "font_source_sans_pro", "jinja2", "rapidocr_onnxruntime")
    code = f"import sys; sys.modules |= dict.fromkeys({extras}); import flashjax.train, flashjax.export"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
