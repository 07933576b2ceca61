"""Reading pictures with a text recogniser that has never seen them (PP-OCRv4 through RapidOCR).

A picture of up to 64 px is a postcard: far smaller than what a recogniser expects, so its one line of text is cut out
by the extent of its ink and enlarged. Recognition alone is enough then: on held-out real signs it reads as well as with
the detector before it, several times faster. Misreadings of signs that people can read are mostly 0 for O and 1 for I.
In larger pictures the detector finds the lines first. Vertical lines are read badly, and letters outside of `alphabet`
(most with accents) not at all.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from flashjax.errors import UserError
from flashjax.evaluate.texts import Line, edit_distance, fold

__all__ = ["alphabet", "letters", "read", "reader", "spelling", "word_hits"]

_POSTCARD = 64
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
    reader()
    module = importlib.import_module("rapidocr_onnxruntime")
    return module.RapidOCR(intra_op_num_threads=_THREADS, inter_op_num_threads=1)


def reader() -> str:
    """What reads, with its version, whose figures compare with those of no other. Raises UserError where it is not
    installed, or cannot be loaded, as without the libraries of its OpenCV."""
    try:
        version = importlib.metadata.version("rapidocr-onnxruntime")
        importlib.import_module("rapidocr_onnxruntime")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "Reading words needs the package rapidocr-onnxruntime, which is not installed; install it with "
            "`pip install 'flashjax[postcards]'` (for Python 3.11 and 3.12), or leave words out where a command has "
            "--no-ocr."
        ) from error
    except ImportError as error:
        raise UserError(
            f"The reader of words, rapidocr-onnxruntime, cannot be loaded: {error}. Install what is missing "
            "(Debian: apt install libgl1 libglib2.0-0)."
        ) from error
    return f"rapidocr-onnxruntime {version}"


@functools.cache
def alphabet() -> frozenset[str]:
    """The characters, folded as they are compared, that the recogniser can read."""
    return frozenset("".join(map(fold, _engine().text_rec.postprocess_op.character)))


def letters(text: str) -> str:
    """The text in upper case with everything but A to Z left out."""
    return re.sub("[^A-Z]", "", text.upper())


def read(images: Sequence[np.ndarray]) -> list[tuple[Line, ...]]:
    """The lines of text on every picture.

    Args:
        images: uint8 [H, W, 3] each, of any sizes; of up to 64 px with one line at most, dark on light or light on
            dark.

    Returns:
        For each picture its lines as the recogniser gives them; none where there is no ink or nothing is recognised.

    Raises:
        UserError: the pictures are of another dtype or shape, or the recogniser is not installed.
    """
    images = [np.asarray(image) for image in images]
    for image in images:
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise UserError(
                f"Words are read from pictures uint8 [H, W, 3], not {image.dtype} {list(image.shape)}; convert them."
            )
    small = [i for i, image in enumerate(images) if max(image.shape[:2]) <= _POSTCARD]
    found = dict(zip(small, _read_postcards([images[i] for i in small]), strict=True))
    return [found[i] if i in found else _read_whole(image) for i, image in enumerate(images)]


def _read_whole(image: np.ndarray) -> tuple[Line, ...]:
    found, _ = _engine()(np.ascontiguousarray(image[..., ::-1]))
    return tuple(Line(text, _upright(corners)) for corners, text, _ in found or ())


def _upright(corners: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    x, y = zip(*corners, strict=True)
    return float(min(x)), float(min(y)), float(max(x)), float(max(y))


def _read_postcards(images: Sequence[np.ndarray]) -> list[tuple[Line, ...]]:
    lines = [_line(image) for image in images]
    found = [i for i, line in enumerate(lines) if line is not None]
    texts = [()] * len(lines)
    if found:
        answers, _ = _engine().text_rec([lines[i] for i in found])
        for i, (text, _) in zip(found, answers, strict=True):
            height, width = images[i].shape[:2]
            texts[i] = (Line(text, (0, 0, width, height)),) if text else ()
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
    """How well each postcard spells its word and nothing beside it: float64 [N] in [0, 1], 1 less the edit distance of
    all letters read, as a share of the longer of both (1 - NED); case is ignored. 1 is an exact match.

    Raises:
        UserError: the numbers of pictures and words differ; or see `read`.
    """
    if len(images) != len(words):
        raise UserError(f"{len(images)} pictures came with {len(words)} words; give one for each.")
    seen = (letters("".join(line.text for line in lines)) for lines in read(images))
    pairs = [(a, letters(b)) for a, b in zip(seen, words, strict=True)]
    return np.array([1 - edit_distance(a, b) / max(len(a), len(b), 1) for a, b in pairs], np.float64)


def word_hits(images: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """Whether each picture shows its word: bool [N], exact match of the letters; raises as `spelling`."""
    return spelling(images, words) == 1
