"""A command that has to fail and the little that it is given: fixtures of the tests of the command line."""

import json
import os

import numpy as np
import pytest

from flashjax import cli, convert, models, pipeline, train
from flashjax import config as configs
from flashjax.data import prepare
from flashjax.models import qwen_image_21

CONFIG = "tests/configs/tiny_postcards.py"


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


@pytest.fixture
def complaint(capsys):
    """Runs a command that has to fail, and returns its sentence."""

    def run(*argv: str) -> str:
        assert cli.main(list(argv)) == 2
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        sentence = said.err[said.err.index(f"flashjax {argv[0]}: ") :]
        return sentence.removeprefix(f"flashjax {argv[0]}: ").strip()

    return run


def model_config():
    return models.make_config(qwen_image_21, configs.load([f"--config={CONFIG}"]).model)


@pytest.fixture(scope="module")
def inputs(request, tmp_path_factory):
    """A folder with prompts, pictures and a random teacher, exported."""
    os.chdir(request.config.rootpath)
    folder = tmp_path_factory.mktemp("inputs")

    def encode(captions):
        return [np.ones((2 + len(c.split()), 384), np.float32) for c in captions]

    for name, size in (("prompts", None), ("pictures", 8)):
        prepare.prepare(
            folder / name, split="train", count_per_category=4, size=size, seed=0, encode=encode, progress=False
        )  # fmt: skip
    tiny, rng = model_config(), np.random.default_rng(0)
    weights = {
        name: np.asarray(rng.normal(0, 0.1, leaf.shape), np.float32)
        for name, leaf in train.optim.paths.flatten(qwen_image_21.abstract(tiny)).items()
    }
    params = train.optim.paths.unflatten(weights)
    for name in ("transformer", "scheduler"):
        (folder / "teacher" / name).mkdir(parents=True)
    convert.save("qwen_image_21", params, folder / "teacher/transformer/diffusion_pytorch_model.safetensors")
    (folder / "teacher/transformer/config.json").write_text(json.dumps(tiny.to_diffusers()))
    described = pipeline.describe(configs.load([f"--config={CONFIG}"]))
    (folder / "teacher/scheduler/scheduler_config.json").write_text(json.dumps(dict(flashjax=described)))
    return folder


@pytest.fixture
def command(inputs, tmp_path):
    """``flashjax train`` in a new folder; settings may be added."""

    def make(*settings: str, arg: str = "", data="prompts/train.arrayrecord", weights="teacher/transformer"):
        given = f"{arg}data={inputs / data},weights={inputs / weights}"
        return ["train", f"--workdir={tmp_path / 'run'}", f"--config={CONFIG}:{given}", *settings]

    return make
