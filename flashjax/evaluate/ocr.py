"""Reading the word of a sign with a text recogniser that has never seen a postcard (PP-OCRv4 through RapidOCR).

A picture of 32 px is far smaller than what a recogniser expects, so the line of text is cut out by the extent of its
ink and enlarged. Recognition alone is enough then: on held-out real signs it reads as well as with the detector
before it, several times faster. Misreadings of signs that people can read are mostly 0 for O and 1 for I.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from flashjax.errors import UserError

__all__ = ["edit_distance", "letters", "read", "spelling", "word_hits"]

_SCALE = 6
# Borders of signs are narrower than this share of the side, words stay farther from the edge.
_RIM = 0.0625
_MARGIN = 2
# A pixel is ink if it differs from the paper by this share of the largest difference in the picture.
_INK_SHARE = 0.35
_MIN_CONTRAST = 24
_THREADS = 2


@functools.cache
def _engine():
    try:
        module = importlib.import_module("rapidocr_onnxruntime")
    except ImportError as error:
        raise UserError(
            "Reading words needs the package rapidocr-onnxruntime, which is not installed; install it with "
            "`pip install 'flashjax[postcards]'`, or evaluate with ocr=False."
        ) from error
    return module.RapidOCR(intra_op_num_threads=_THREADS, inter_op_num_threads=1)


def letters(text: str) -> str:
    """The text in upper case with everything but A to Z left out."""
    return re.sub("[^A-Z]", "", text.upper())


def read(images: np.ndarray) -> list[str]:
    """The text on every picture.

    Args:
        images: uint8 [N, H, W, 3], one line of text each, dark on light or light on dark.

    Returns:
        N strings as the recogniser gives them; "" where there is no ink or nothing is recognised.

    Raises:
        UserError: the pictures are of another dtype or shape, or the recogniser is not installed.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise UserError(
            f"Words are read from pictures uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}; convert them."
        )
    lines = [_line(image) for image in images]
    found = [i for i, line in enumerate(lines) if line is not None]
    texts = [""] * len(lines)
    if found:
        answers, _ = _engine().text_rec([lines[i] for i in found])
        for i, (text, _) in zip(found, answers, strict=True):
            texts[i] = text
    return texts


def _line(image: np.ndarray) -> np.ndarray | None:
    """The ink's bounding box with a margin, enlarged, as BGR; None for a blank picture."""
    rim = max(1, round(_RIM * image.shape[0]))
    inside = image[rim:-rim, rim:-rim]
    paper = np.median(inside.reshape(-1, 3), axis=0)
    difference = np.abs(inside - paper).max(-1)
    if difference.max() < _MIN_CONTRAST:
        return None
    ink = difference > _INK_SHARE * difference.max()
    (top, bottom), (left, right) = _extent(ink.any(1)), _extent(ink.any(0))
    cut = Image.fromarray(inside[top:bottom, left:right])
    large = cut.resize((cut.width * _SCALE, cut.height * _SCALE), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(large)[..., ::-1])


def _extent(has_ink: np.ndarray) -> tuple[int, int]:
    positions = np.flatnonzero(has_ink)
    return max(positions[0] - _MARGIN, 0), min(positions[-1] + 1 + _MARGIN, len(has_ink))


def spelling(images: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """How well each picture spells its word: float64 [N] in [0, 1], 1 less the edit distance of the letters read, as a
    share of the longer of both (1 - NED); case is ignored. 1 is an exact match.

    Raises:
        UserError: the numbers of pictures and words differ; or see `read`.
    """
    if len(images) != len(words):
        raise UserError(f"{len(images)} pictures came with {len(words)} words; give one for each.")
    pairs = [(letters(a), letters(b)) for a, b in zip(read(images), words, strict=True)]
    return np.array([1 - edit_distance(a, b) / max(len(a), len(b), 1) for a, b in pairs], np.float64)


def word_hits(images: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """Whether each picture shows its word: bool [N], exact match of the letters; raises as `spelling`."""
    return spelling(images, words) == 1


def edit_distance(a: str, b: str) -> int:
    """Letters to insert, delete or replace to make ``b`` of ``a`` (Levenshtein, 1965)."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (letter != other))
    return row[-1]
