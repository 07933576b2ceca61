"""Words are read from real rendered signs, and nothing is read from blank ones."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from flashjax.data.postcards import lettering
from flashjax.errors import UserError
from flashjax.evaluate import ocr, texts

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
    assert [ocr.letters(line.text) for (line,) in ocr.read(images)] == words
    assert ocr.spelling(images, [word.lower() for word in words]).tolist() == [1.0] * 5
    wrong = ["HELLO", "PIZZAS", "NO", "SHARK", "NEWS"]
    assert ocr.word_hits(images, wrong).tolist() == [True, False, False, True, True]
    np.testing.assert_allclose(ocr.spelling(images, wrong), [1, 5 / 6, 1 / 2, 1, 1], rtol=1e-15)


def test_blank_pictures_and_noise_below_the_contrast_give_nothing():
    noise = np.random.default_rng(0).integers(120, 130, (1, 32, 32, 3), np.uint8)
    blank = np.full((1, 32, 32, 3), 200, np.uint8)
    assert ocr.read(np.concatenate([noise, blank])) == [(), ()]


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


def test_lines_of_a_whole_picture_come_with_their_boxes():
    """Two lines on a picture too large for a postcard, one of them light on dark; red and blue are not swapped."""
    pytest.importorskip("rapidocr_onnxruntime")
    picture = Image.new("RGB", (200, 100), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=24)
    draw.text((10, 8), "Fresh Bread", "black", font)
    draw.rectangle((60, 55, 199, 99), (0, 0, 90))
    draw.text((80, 60), "7:30 AM", "yellow", font)
    ((first, second),) = ocr.read([np.asarray(picture)])
    assert texts.fold(first.text) == "freshbread"
    assert texts.fold(second.text) == "7:30am"
    left, top, right, bottom = second.box
    assert 60 < left < 90
    assert 50 < top < bottom < 100
    assert 150 < right < 200


def test_the_alphabet_says_what_can_be_read():
    pytest.importorskip("rapidocr_onnxruntime")
    assert set("az09永%茉") <= ocr.alphabet()
    assert "\u0436" not in ocr.alphabet()  # Cyrillic
