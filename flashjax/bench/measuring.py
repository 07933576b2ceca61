"""Pictures of a bench to figures, one picture in memory at a time: features, light and colour, texts, edits."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from flashjax.bench.calls import Picture
from flashjax.bench.plan import Pictures
from flashjax.bench.prompts import Prompt
from flashjax.errors import UserError
from flashjax.evaluate import distributions, metrics, ocr
from flashjax.evaluate.extractors import Loaded
from flashjax.evaluate.texts import Line, fold, located, spelled
from flashjax.upright import upright

__all__ = ["Measured", "Readings", "boxes", "measure", "outside_error", "readable_texts", "source_difference"]

_CHUNK = 64  # pictures whose squares are held for the extractors
_PATCH, _SMALL_PATCH, _PATCHES = 64, 16, 16  # of the high-frequency statistic; small ones for pictures under 64 px
_SHAPES = 1.02  # by how much the shapes of an edit and its source may differ to be laid over each other

_HIGHER, _WIDER = 1.0, 0.5  # by which shares of its height and width a line's box grows on each side

Box = Sequence[float]  # left, top, right, bottom as shares of the width and height
Reader = Callable[[Picture, np.ndarray], tuple[Line, ...]]


@dataclass(frozen=True)
class Measured:
    """What was measured of one system, picture by picture.

    Attributes:
        prompts, seeds: of the pictures, N each.
        values: metric to float64 [N], NaN where a picture has none.
        features: extractor to float [N, D].
        sizes: (width, height) of the pictures.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    sizes: tuple[tuple[int, int], ...]


def measure(
    prompts: Sequence[Prompt], pictures: Pictures, extractors: Sequence[Loaded], sources: Pictures,
    read: Reader | None, texts: Mapping[str, Sequence[str]], progress: Callable[[int], object] = lambda n: None,
) -> Measured:  # fmt: skip
    """Everything that one system's pictures say by themselves.

    Args:
        read: gives the lines on a picture; None to read none.
        texts: prompt's id to what has to be read on its pictures.
        sources: of edits, prompt's id to seed to picture; an edit without one is not compared with it.
        progress: called with 1 after every picture.

    Raises:
        UserError: a picture is too small.
    """
    shots = [(p, seed, pictures[p.id][seed]) for p in prompts for seed in sorted(pictures[p.id])]
    rows, sizes = [], []
    held: dict[str, list[np.ndarray]] = {e.name: [] for e in extractors}
    found: dict[str, list[np.ndarray]] = {e.name: [] for e in extractors}
    for i, (p, _, picture) in enumerate(shots, 1):
        with Image.open(picture.path) as opened:
            image = upright(opened)
        pixels = np.asarray(image)
        row = _values(pixels) | _edit(p, image, sources, read)
        if read and texts.get(p.id):
            row |= _texts(texts[p.id], read(picture, pixels))
        rows.append(row)
        sizes.append(image.size)
        for e in extractors:
            held[e.name].append(e.preprocessing.square(image))
            if i % _CHUNK == 0 or i == len(shots):
                found[e.name].append(e.features(np.stack(held[e.name])))
                held[e.name] = []
        progress(1)
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: np.array([row.get(name, math.nan) for row in rows], np.float64) for name in names}
    features = {name: np.concatenate(parts) for name, parts in found.items()}
    return Measured(tuple(p.id for p, _, _ in shots), tuple(s for _, s, _ in shots), values, features, tuple(sizes))


def _values(pixels: np.ndarray) -> dict[str, float]:
    one, side = pixels[None], min(pixels.shape[:2])
    if side < _SMALL_PATCH:
        raise UserError(f"Pictures have to be of {_SMALL_PATCH} px or more, not {list(pixels.shape[:2])}.")
    return dict(
        saturation=float(metrics.saturation(one)[0]),
        contrast=float(metrics.contrast(one)[0]),
        high_frequency=distributions.high_frequency(one, _PATCH if side >= _PATCH else _SMALL_PATCH, _PATCHES),
    )


def _texts(wanted: Sequence[str], lines: Sequence[Line]) -> dict[str, float]:
    found = spelled(wanted, lines)
    right, every = sum(f.right for f in found), sum(f.words for f in found)
    return dict(word_accuracy=right / every, text_distance=float(np.mean([f.distance for f in found])))


def readable_texts(prompts: Sequence[Prompt], alphabet: frozenset[str]) -> tuple[dict[str, list[str]], int]:
    """Prompt's id to its texts that can be read, and how many cannot, for letters that the reader does not know or
    because nothing in them is compared: they say nothing of the pictures."""
    kept = {p.id: [t for t in p.texts if fold(t) and set(fold(t)) <= alphabet] for p in prompts}
    return {name: texts for name, texts in kept.items() if texts}, sum(len(p.texts) - len(kept[p.id]) for p in prompts)


def _edit(prompt: Prompt, image: Image.Image, sources: Pictures, read: Reader | None) -> dict[str, float]:
    shots = sources.get(prompt.id)
    if not shots:
        return {}
    picture = shots[min(shots)]
    with Image.open(picture.path) as opened:
        source = upright(opened)
    ratio = image.width * source.height / (image.height * source.width)
    if not 1 / _SHAPES <= ratio <= _SHAPES:
        return dict(other_shape=1.0)
    fitted = source.resize(image.size, Image.Resampling.LANCZOS)
    pixels, before = np.asarray(image), np.asarray(fitted)
    told = dict(other_shape=0.0, source_difference=source_difference(pixels, before))
    if prompt.region:
        return told | dict(outside_error=outside_error(pixels, before, [prompt.region]))
    if not (prompt.changed_texts and read):
        return told
    may_change = boxes(prompt.changed_texts, read(picture, np.asarray(source)), source.size)
    error = dict(outside_error=outside_error(pixels, before, may_change)) if may_change else {}
    return told | error | dict(texts_lost=float(not may_change))


def boxes(texts: Sequence[str], lines: Sequence[Line], size: tuple[int, int]) -> list[Box]:
    """Where texts stand in a picture, with room around them: new ones may be longer, or on a line more. None of them
    where one text is not found: what was changed there would count as an error.

    Args:
        lines: what was read in the picture, of ``size`` (width, height) pixels.
    """
    found = [located(text, lines) for text in texts]
    return [_grown(line.box, size) for own in found for line in own] if all(found) else []


def _grown(box: Box, size: tuple[int, int]) -> Box:
    left, top, right, bottom = box
    wide, high = _WIDER * (right - left), _HIGHER * (bottom - top)
    (width, height) = size
    return (
        max(left - wide, 0) / width, max(top - high, 0) / height,
        min(right + wide, width) / width, min(bottom + high, height) / height,
    )  # fmt: skip


def source_difference(image: np.ndarray, source: np.ndarray) -> float:
    """Mean |image - source| over the whole picture, in 0..1: how much an edit changed, wanted or not; no error.

    Args:
        image, source: uint8 [H, W, 3].
    """
    return float(np.abs(image.astype(float) - source).mean() / 255)


def outside_error(image: np.ndarray, source: np.ndarray, may_change: Sequence[Box]) -> float:
    """Mean |image - source| outside of the boxes that an edit may change, in 0..1; NaN if nothing is outside.

    Args:
        image, source: uint8 [H, W, 3].
        may_change: left, top, right, bottom as shares of the width and height; pixels that one touches are inside.
    """
    height, width = image.shape[:2]
    outside = np.ones((height, width), bool)
    for left, top, right, bottom in may_change:
        rows = slice(math.floor(top * height), math.ceil(bottom * height))
        outside[rows, math.floor(left * width) : math.ceil(right * width)] = False
    if not outside.any():
        return math.nan
    return float(np.abs(image.astype(float) - source)[outside].mean() / 255)


class Readings:
    """Reads pictures and keeps what was read in ``folder``/readings.jsonl, by reader and content, so that a stopped
    run reads nothing twice. One process at a time; use it with ``with``."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path, self.reader = Path(folder) / "readings.jsonl", ocr.reader()
        self._known: dict[str, tuple[Line, ...]] = {}

    def __enter__(self) -> Readings:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"Another run is writing {self.path}; wait for it, or give another folder.") from None
        for reader, digest, lines in self._rows():
            if reader == self.reader:
                self._known[digest] = tuple(Line(text, tuple(box)) for text, box in lines)
        return self

    def _rows(self) -> Iterator[tuple]:
        self._file.seek(0)
        data = self._file.read()
        # Half a line of a killed process is cut off, so that the next line begins a line.
        self._file.truncate(data.rfind(b"\n") + 1)
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                row = json.loads(line)
                yield row["reader"], row["digest"], row["lines"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"Line {number} of {self.path} is damaged ({error}); delete the file.") from error

    def __exit__(self, *_) -> None:
        self._file.close()  # gives the lock back

    def __call__(self, picture: Picture, pixels: np.ndarray) -> tuple[Line, ...]:
        """The lines on a picture, uint8 [H, W, 3]."""
        if picture.digest not in self._known:
            (lines,) = ocr.read([pixels])
            row = dict(reader=self.reader, digest=picture.digest, lines=[[line.text, line.box] for line in lines])
            self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            self._file.flush()
            self._known[picture.digest] = lines
        return self._known[picture.digest]
