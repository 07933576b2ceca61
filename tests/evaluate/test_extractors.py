"""Networks that a user brings: their preprocessing by hand, their features by numpy, and every wrong file in words."""

import hashlib
import importlib.util
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_onnx import network

from flashjax.errors import UserError
from flashjax.evaluate import extractors

TOLD = dict(size=8, fit="crop", resample="bicubic", mean=[0.5, 0.4, 0.3], std=[0.5, 0.25, 0.2], layout="nchw")
RNG = np.random.default_rng(0)


def bring(folder, data: bytes = b"", told=TOLD):
    """(path, sha256) of a network with its preprocessing beside it."""
    data = data or network()
    (folder / "net.onnx").write_bytes(data)
    (folder / "net.json").write_text(json.dumps(told))
    return folder / "net.onnx", hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("batch", ["n", 4])
def test_features_are_those_of_numpy(tmp_path, batch):
    """18 pictures, more than a batch and no multiple of one; the square in the middle is not resized."""
    path, sha256 = bring(tmp_path, network((batch, 3, 8, 8)))
    loaded = extractors.load("onnx", path, sha256.upper())
    pictures = RNG.integers(0, 256, (18, 8, 12, 3), np.uint8)
    squares = np.stack([loaded.preprocessing.square(Image.fromarray(p)) for p in pictures])
    np.testing.assert_array_equal(squares, pictures[:, :, 2:10])
    values = (squares / 255 - TOLD["mean"]) / TOLD["std"]
    blocks = values.reshape(18, 2, 4, 2, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2).reshape(18, 12)
    np.testing.assert_allclose(loaded.features(squares), blocks, atol=1e-6)
    assert (loaded.name, loaded.sha256) == ("onnx", sha256)


def test_a_picture_becomes_a_square():
    ramp = np.repeat(np.repeat(np.arange(24, dtype=np.uint8)[None, :, None] * 10, 8, 0), 3, 2)
    picture = Image.fromarray(ramp)
    crop, squash = (extractors.Preprocessing(8, fit, "box").square(picture)[0, :, 0] for fit in ("crop", "squash"))
    np.testing.assert_array_equal(crop, np.arange(8, 16) * 10)
    np.testing.assert_array_equal(squash, np.arange(1, 24, 3) * 10)  # means of three
    values = extractors.Preprocessing(8, layout="nhwc").values(np.zeros((2, 8, 8, 3), np.uint8))
    assert (values.shape, values.dtype) == ((2, 8, 8, 3), np.float32)


def cubic(size: int, small: int) -> np.ndarray:
    """Weights [small, size] of Keys' kernel with a = -1/2, as wide as it shrinks (antialiasing), each row of sum 1."""
    scale = size / small
    x = np.abs((np.arange(size) + 0.5 - (np.arange(small)[:, None] + 0.5) * scale) / scale)
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    return weights / weights.sum(1, keepdims=True)


def test_inception_sees_what_clean_fid_resizes(tmp_path):
    """Channel by channel as floats, clipped and not rounded; edges of black and white overshoot."""
    preprocessing = extractors.EXTRACTORS["inception"].preprocessing
    assert (preprocessing.size, preprocessing.fit) == (299, "squash")
    pixels = RNG.choice([0, 255, 100], (640, 400, 3)).astype(np.uint8)
    down, across = cubic(640, 299), cubic(400, 299)
    expected = np.einsum("ij,jkc,lk->ilc", down, pixels.astype(float), across, optimize=True).clip(0, 255)
    found = preprocessing.square(Image.fromarray(pixels))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    loaded = extractors.load("onnx", *bring(tmp_path, told=TOLD | dict(fit="squash", resample="bicubic-float")))
    (square,) = squares = loaded.preprocessing.square(Image.fromarray(pixels))[None]
    values = ((square / 255 - TOLD["mean"]) / TOLD["std"]).reshape(2, 4, 2, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(loaded.features(squares)[0], values.ravel(), atol=1e-6)


def test_published_preprocessing_is_that_of_transformers():
    package = Path(importlib.util.find_spec("transformers").origin).parent  # importing it takes seconds
    known = runpy.run_path(str(package / "utils" / "constants.py"))
    clip, dino = (extractors.EXTRACTORS[name].preprocessing for name in ("clip-l14-336", "dinov2-l14"))
    assert [list(clip.mean), list(clip.std)] == [known["OPENAI_CLIP_MEAN"], known["OPENAI_CLIP_STD"]]
    assert [list(dino.mean), list(dino.std)] == [known["IMAGENET_DEFAULT_MEAN"], known["IMAGENET_DEFAULT_STD"]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no network", "is no network that onnxruntime can run"),
        (network(("n", 3, 16, 16)), r"has to take pictures as floats \[N, 3, 8, 8\]; it takes x tensor\(float\)"),
        (network(("n", 12)), "is no network|has to take pictures"),
        (network(outputs=("pooled",)), r"one output of features \[N, D\]; it has pooled"),
        (network(outputs=("features", "features")), "is no network|one output"),
    ],
)
def test_networks_that_do_not_fit(tmp_path, data, reason):
    with pytest.raises(UserError, match=reason):
        extractors.load("onnx", *bring(tmp_path, data))


def test_of_several_outputs_the_features_are_taken(tmp_path):
    loaded = extractors.load("onnx", *bring(tmp_path, network(outputs=("pooled", "features"))))
    assert loaded.features(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 12)


def test_weights_are_known_by_their_content(tmp_path):
    path, sha256 = bring(tmp_path)
    with pytest.raises(UserError, match=f"has the sha256 {sha256} and not 00"):
        extractors.load("onnx", path, "00")
    with pytest.raises(UserError, match=f"Say with --sha256 .* has {sha256}"):
        extractors.load("onnx", path)
    with pytest.raises(UserError, match="no weights at .*none.onnx; bring DINOv2 .* Nothing is fetched"):
        extractors.load("dinov2-l14", tmp_path / "none.onnx")
    with pytest.raises(UserError, match="Bring the weights of clip-l14-336 .* with --weights"):
        extractors.load("clip-l14-336")
    with pytest.raises(UserError, match="has the sha256 .* and not b1df87"):
        extractors.load("postcards", path)
    with pytest.raises(UserError, match="no extractor vgg; there are postcards, "):
        extractors.load("vgg")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(sise=1), "exactly size, fit"),
        (dict(size=0), "size has to be"),
        (dict(fit="pad"), "fit is one of crop, squash"),
        (dict(layout=["nchw"]), "layout is one of"),
        (dict(mean=[0.5]), "mean has to be three numbers"),
        (dict(std=[1, 0, 1]), "no std is 0"),
    ],
)
def test_preprocessing_that_is_none(tmp_path, changes, reason):
    with pytest.raises(UserError, match=reason):
        extractors.load("onnx", *bring(tmp_path, told=TOLD | changes))
    (tmp_path / "net.json").unlink()
    with pytest.raises(UserError, match="lies there, beside its weights"):
        extractors.read_preprocessing(tmp_path / "net.json")
