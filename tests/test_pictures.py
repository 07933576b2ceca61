"""Sheets of pictures, and the noise that every picture starts from."""

import numpy as np
import pytest

from flashjax import pictures
from flashjax.errors import UserError


def test_contact_sheet_places_pictures_in_rows():
    red, blue = (np.full((4, 6, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(pictures.contact_sheet([[red, blue], [blue]], scale=2))
    assert sheet.shape == (2 + 2 * (8 + 2), 2 + 2 * (12 + 2), 3)
    assert (sheet[2:10, 2:14] == (255, 0, 0)).all()
    assert (sheet[2:10, 16:28] == (0, 0, 255)).all()
    assert (sheet[12:20, 2:14] == (0, 0, 255)).all()
    labelled = pictures.contact_sheet([[red], [blue]], labels=["one", "the second"])
    assert labelled.size[0] > pictures.contact_sheet([[red], [blue]]).size[0]


def test_contact_sheet_of_nothing_or_of_unequal_pictures_says_so():
    with pytest.raises(UserError, match="none"):
        pictures.contact_sheet([])
    with pytest.raises(UserError, match="one size"):
        pictures.contact_sheet([[np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]])


def test_noise_belongs_to_its_seed():
    many = pictures.noise([3, 1, 2], 16)
    np.testing.assert_array_equal(many[1], pictures.noise([1], 16)[0])
    assert many.shape == (3, 4, 4, 48)
    assert abs(float(pictures.noise(list(range(50)), 32).std()) - 1) < 0.01
