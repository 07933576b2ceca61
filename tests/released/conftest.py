"""Tiny pipelines of released models, in both libraries."""

import functools
import shutil

import pytest
import tiny_pipelines

from flashjax import released


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """family and sizes of its denoiser -> (diffusers' pipeline, ours, the folder of both)."""

    @functools.cache
    def make(family, **sizes):
        folder = tmp_path_factory.mktemp(family)
        theirs = tiny_pipelines.make(family, folder, **sizes)
        return theirs, released.load(folder, keep=True), folder

    return make


@pytest.fixture
def light(pairs, monkeypatch, tmp_path):
    """A copy of Qwen-Image-2.1's folder. Its encoder's 36 layers stand for themselves."""
    return shutil.copytree(pairs("qwen_image_21")[2], tmp_path / "model")
