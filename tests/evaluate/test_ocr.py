"""Words are read from real rendered signs, and nothing is read from blank ones."""

import functools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from flashjax.data.postcards import lettering
from flashjax.errors import UserError
from flashjax.evaluate import ocr

_SIGNS = (
    ("HELLO", "black", "white", "center", "none", "plain"),
    ("PIZZA", "white", "navy", "top", "border", "bold"),
    ("GO", "red", "white", "bottom", "border", "serif"),
    ("SHARK", "yellow", "black", "center", "none", "serif"),
    ("NEWS", "blue", "light green", "top", "border", "plain"),
)


def _sign(values):
    return lettering.render(dict(zip(lettering.ATTRIBUTES, values, strict=True)), 32, 3)


def test_words_of_real_signs_are_read():
    pytest.importorskip("rapidocr_onnxruntime")
    images = np.stack([_sign(values) for values in _SIGNS])
    words = [values[0] for values in _SIGNS]
    assert [ocr.letters(text) for text in ocr.read(images)] == words
    assert ocr.spelling(images, [word.lower() for word in words]).tolist() == [1.0] * 5
    wrong = ["HELLO", "PIZZAS", "NO", "SHARK", "NEWS"]
    assert ocr.word_hits(images, wrong).tolist() == [True, False, False, True, True]
    np.testing.assert_allclose(ocr.spelling(images, wrong), [1, 5 / 6, 1 / 2, 1, 1], rtol=1e-15)


def test_blank_pictures_and_noise_below_the_contrast_give_nothing():
    noise = np.random.default_rng(0).integers(120, 130, (1, 32, 32, 3), np.uint8)
    blank = np.full((1, 32, 32, 3), 200, np.uint8)
    assert ocr.read(np.concatenate([noise, blank])) == ["", ""]


def test_letters_alone_count():
    assert ocr.letters(" i-c e! ") == "ICE"
    assert ocr.letters("42") == ""


def test_mistakes_are_told():
    blank = np.full((1, 32, 32, 3), 200, np.uint8)
    with pytest.raises(UserError, match="uint8"):
        ocr.read(blank / 255)
    with pytest.raises(UserError, match="1 pictures came with 2 words"):
        ocr.word_hits(blank, ["A", "B"])
    assert ocr.spelling(blank[:0], []).shape == (0,)
    assert ocr.spelling(blank, ["AB"]).tolist() == [0.0]


@functools.cache
def by_definition(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(by_definition(a[1:], b) + 1, by_definition(a, b[1:]) + 1, by_definition(a[1:], b[1:]) + (a[0] != b[0]))


@hypothesis.given(st.text("ABC", max_size=7), st.text("ABC", max_size=7))
@hypothesis.settings(max_examples=200)
def test_the_edit_distance_is_that_of_its_definition(a, b):
    assert ocr.edit_distance(a, b) == by_definition(a, b)
