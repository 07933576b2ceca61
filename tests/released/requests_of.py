"""Sizes, references and pipelines that the tests of released models ask with."""

import dataclasses

import numpy as np
from PIL import Image

SIZE = dict(height=64, width=96)
SIDE = 80  # square root of the area of references: not 1024


def pictures(count: int, mode: str = "RGB") -> list[Image.Image]:
    """Of different sizes, with edges that resizing has to treat alike."""
    rng, sizes = np.random.default_rng(0), [(70, 100), (110, 64)]
    channels = len(mode)
    arrays = [np.kron(rng.integers(0, 256, (h // 7 + 1, w // 7 + 1, channels)), np.ones((7, 7, 1))) for h, w in sizes]
    return [
        Image.fromarray(array[:h, :w].astype(np.uint8), mode)
        for array, (h, w) in zip(arrays[:count], sizes, strict=False)
    ]


def small(ours, vision: int = SIDE):
    """With small references."""
    about, rules = dataclasses.replace(ours.family, area=SIDE**2), ours.encoder.rules
    encoder = dataclasses.replace(ours.encoder, rules=dataclasses.replace(rules, area=vision**2))
    return dataclasses.replace(ours, family=about, encoder=encoder)
