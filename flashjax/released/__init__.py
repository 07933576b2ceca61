"""Released models whole: a diffusers pipeline's folder, from prompts and pictures to pictures.

Source: the families' pipelines in diffusers; tests/released/test_released.py compares with them, noise to pixels.
Families differ by data (``families``, and the rules of the same names in ``models.prompts``). All that can be wrong
with a request is found by ``load`` and ``Released.plan``, before a weight is read.
"""

from flashjax.released.drawing import Plan, Released
from flashjax.released.encoding import Encoder
from flashjax.released.families import FAMILIES, Family, read_picture
from flashjax.released.folder import load, load_encoder, load_picture_encoder

__all__ = [
    "FAMILIES", "Encoder", "Family", "Plan", "Released", "load", "load_encoder", "load_picture_encoder", "read_picture",
]  # fmt: skip
