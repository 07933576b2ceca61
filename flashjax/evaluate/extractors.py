"""Networks whose features distributions are compared in: one table, weights known by their sha256, nothing fetched.

The postcards' classifier is always there. All others are ONNX files that the user exports, with one input of pictures
and one output of features [N, D], in one file (weights in files beside it would not be covered by the sha256). A name
of the table brings the preprocessing under which figures in those features are published; "onnx" is any other network,
with its preprocessing in a JSON file beside it: weights.onnx and weights.json, {"size": 224, "fit": "crop",
"resample": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "layout": "nchw"}.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from flashjax.errors import UserError
from flashjax.files import read_object

__all__ = ["EXTRACTORS", "Extractor", "Loaded", "Preprocessing", "load", "read_preprocessing"]

_BATCH = 16
_RESAMPLES = dict(
    bicubic=Image.Resampling.BICUBIC, bilinear=Image.Resampling.BILINEAR, box=Image.Resampling.BOX,
    lanczos=Image.Resampling.LANCZOS,
)  # fmt: skip
_FLOAT = "bicubic-float"  # clean-fid's: no rounding to 8 bits in between

# pictures [N, size, size, 3], as Preprocessing.square makes them, to features [N, D]
Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to what a network takes.

    Attributes:
        size: of the square input, in pixels.
        fit: "crop" takes the largest square in the middle, "squash" the whole picture, whatever its shape.
        resample: how it is resized, always with antialiasing: bicubic, bilinear, box or lanczos to whole values, or
            bicubic-float, each channel in float32 and clipped to 0..255.
        mean, std: of each channel, of values in 0..1.
        layout: "nchw" or "nhwc", of the input.
    """

    size: int
    fit: str = "crop"
    resample: str = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: str = "nchw"

    def square(self, image: Image.Image) -> np.ndarray:
        """The picture as [size, size, 3] of values in 0..255, uint8, or float32 of bicubic-float."""
        if self.fit == "crop":
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        image, size = image.convert("RGB"), (self.size, self.size)
        if self.resample == _FLOAT:
            small = [band.convert("F").resize(size, Image.Resampling.BICUBIC) for band in image.split()]
            return np.stack(small, -1).clip(0, 255)
        return np.asarray(image.resize(size, _RESAMPLES[self.resample]))

    def values(self, squares: np.ndarray) -> np.ndarray:
        """Squares [N, size, size, 3] as float32 in the network's range and layout."""
        x = (squares.astype(np.float32) / 255 - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.layout == "nchw" else x)


@dataclass(frozen=True)
class Extractor:
    """A row of the table.

    Attributes:
        name: as --extractor takes it.
        about: what it is, and whose preprocessing this is.
        loader: from the weights' bytes, their path and the preprocessing to a function from squares to features.
        preprocessing: None if a file beside the weights says it.
        sha256: of the known weights; "" where no one file is published, so that the user says which one it is.
        weights: where known weights lie; "" if the user brings them.
    """

    name: str
    about: str
    loader: Callable[[bytes, Path, Preprocessing], Features]
    preprocessing: Preprocessing | None
    sha256: str = ""
    weights: str = ""


@dataclass(frozen=True)
class Loaded:
    """An extractor with its weights. ``features``: pictures [N, size, size, 3], as ``preprocessing.square`` makes them,
    to float [N, D]."""

    name: str
    sha256: str
    preprocessing: Preprocessing
    features: Features


def _postcards(data: bytes, path: Path, preprocessing: Preprocessing) -> Features:
    from flashjax.evaluate import classifier

    loaded = classifier.load(path.parent)
    return lambda squares: classifier.features(loaded, squares)


def _onnx(data: bytes, path: Path, preprocessing: Preprocessing) -> Features:
    """From the bytes whose sha256 was compared, so that nothing else is run."""
    session = _session(data, path)
    name, batch, dtype = _input(session, path, preprocessing)
    output = _output(session, path)

    def features(squares: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(squares), batch):
            part = squares[start : start + batch]
            full = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
            (answer,) = session.run([output], {name: preprocessing.values(full).astype(dtype)})
            if len(answer) != batch or not np.isfinite(answer).all():
                raise UserError(
                    f"{path} gives features {list(answer.shape)} of {batch} pictures, or some that are not finite."
                )
            found.append(answer.reshape(batch, -1)[: len(part)])
        return np.concatenate(found)

    return features


def _session(data: bytes, path: Path):
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(
            f"{path} is run by the package onnxruntime, which is not installed; install it with "
            "`pip install 'flashjax[judge]'`."
        ) from error
    errors = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Threads that wait busily take the cores from those that compute.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    told = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NoSuchFile)
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (*told, errors.NotImplemented, errors.RuntimeException) as error:
        raise UserError(
            f"{path} is no network that onnxruntime can run ({str(error)[:200]}). It has to be one ONNX file with its "
            "weights inside."
        ) from error


def _input(session, path: Path, preprocessing: Preprocessing) -> tuple[str, int, type]:
    """(name, pictures at a time, type) of the input for pictures; a fixed number of them is kept."""
    inputs, side = session.get_inputs(), preprocessing.size
    shape = inputs[0].shape if len(inputs) == 1 else []
    wanted = [3, side, side] if preprocessing.layout == "nchw" else [side, side, 3]
    fits = len(shape) == 4 and all(n == w or not isinstance(n, int) for n, w in zip(shape[1:], wanted, strict=True))
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    if not fits or inputs[0].type not in types:
        found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
        raise UserError(f"{path} has to take pictures as floats [N, {', '.join(map(str, wanted))}]; it takes {found}.")
    return inputs[0].name, shape[0] if isinstance(shape[0], int) else _BATCH, types[inputs[0].type]


def _output(session, path: Path) -> str:
    """The name of the one output [N, D]; [N, D, 1, 1], as pooling leaves it, is one too."""
    outputs = session.get_outputs()
    flat = [o.name for o in outputs if len(o.shape) == 2 or (len(o.shape) == 4 and o.shape[2:] == [1, 1])]
    if len(flat) != 1:
        found = ", ".join(f"{o.name} {o.shape}" for o in outputs)
        raise UserError(f"{path} has to have one output of features [N, D]; it has {found}. Export it with one.")
    return flat[0]


_IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CLIP = dict(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711))
_HALVES = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

_REPOSITORY = Path(__file__).parents[2]  # whatever folder the command is given in

EXTRACTORS = {
    extractor.name: extractor
    for extractor in (
        Extractor(
            "postcards", "the classifier of postcards, which sees 32 px", _postcards,
            Preprocessing(32, "squash", "box"),
            weights=str(_REPOSITORY / "weights" / "postcards_classifier" / "model.safetensors"),
            sha256="b1df87a3d57ad4645b0a2b146bcf366bd622179225f6f110f750a6e54bf0cde6",
        ),
        Extractor(
            "clip-l14-336", "CLIP ViT-L/14 at 336 px, projected; the square in the middle, as in CMMD's reference code",
            _onnx, Preprocessing(336, "crop", "bicubic", **_CLIP),
        ),
        Extractor(
            "dinov2-l14", "DINOv2 ViT-L/14 at 224 px, class token; the whole picture, as in dgm-eval", _onnx,
            Preprocessing(224, "squash", "bicubic", **_IMAGENET),
        ),
        Extractor(
            "inception", "Inception v3 of FID, pool 3; the whole picture resized as in clean-fid", _onnx,
            Preprocessing(299, "squash", _FLOAT, **_HALVES),
        ),
        Extractor("onnx", "any network, with its preprocessing in a JSON file beside it", _onnx, None),
    )
}  # fmt: skip


def load(name: str, weights: str | Path | None = None, sha256: str = "") -> Loaded:
    """An extractor of the table with its weights.

    Args:
        name: of ``EXTRACTORS``.
        weights: the file; None where the table knows where it lies.
        sha256: of the file, where the table knows none.

    Raises:
        UserError: an unknown name, no file, a sha256 that is not the one stated, no network, other inputs or outputs.
    """
    if name not in EXTRACTORS:
        raise UserError(f"There is no extractor {name}; there are {', '.join(EXTRACTORS)}.")
    row = EXTRACTORS[name]
    if not (weights or row.weights):
        raise UserError(f"Bring the weights of {name} ({row.about}) as an ONNX file with --weights; none are fetched.")
    path = Path(weights or row.weights)
    wanted = (row.sha256 or sha256).lower()
    if not path.is_file():
        known = f"the file whose sha256 is {wanted}" if wanted else f"{row.about}, exported as one ONNX file"
        raise UserError(f"There are no weights at {path}; bring {known}. Nothing is fetched.")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if not wanted:
        raise UserError(
            f"Say with --sha256 which weights of {name} these figures are of; {path} has {found}, to be compared with "
            "what its source says."
        )
    if found != wanted:
        raise UserError(f"{path} has the sha256 {found} and not {wanted}; figures from it would compare with nothing.")
    preprocessing = row.preprocessing or read_preprocessing(path.with_suffix(".json"))
    return Loaded(name, found, preprocessing, row.loader(data, path, preprocessing))


def read_preprocessing(path: Path) -> Preprocessing:
    """What a JSON file says. Raises UserError that names the field."""
    told = read_object(
        path,
        "the preprocessing of an extractor lies there, beside its weights: "
        '{"size": 224, "fit": "crop", "resample": "bicubic", "mean": [...], "std": [...], "layout": "nchw"}',
    )
    names = [field.name for field in dataclasses.fields(Preprocessing)]
    if sorted(told) != sorted(names):
        raise UserError(f"{path} has to be an object of exactly {', '.join(names)}.")
    if type(told["size"]) is not int or not 1 <= told["size"] <= 4096:
        raise UserError(f"{path}: size has to be a whole number of pixels from 1 to 4096.")
    for name, kinds in (("fit", ("crop", "squash")), ("resample", (*_RESAMPLES, _FLOAT)), ("layout", ("nchw", "nhwc"))):
        if told[name] not in kinds:
            raise UserError(f"{path}: {name} is one of {', '.join(kinds)}.")
    for name in ("mean", "std"):
        three = isinstance(told[name], list) and len(told[name]) == 3
        if not three or any(type(v) not in (int, float) for v in told[name]) or (name == "std" and 0 in told[name]):
            raise UserError(f"{path}: {name} has to be three numbers, one a channel, of values in 0..1; no std is 0.")
    return Preprocessing(**told | {name: tuple(told[name]) for name in ("mean", "std")})
