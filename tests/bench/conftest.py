"""What the tests of judges share."""

import numpy as np
import pytest
from PIL import Image

from flashjax.bench import endpoint
from flashjax.bench.calls import read_picture


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a_0.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return read_picture(path)
