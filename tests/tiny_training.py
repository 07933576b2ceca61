"""What tests of whole runs share: a miniature run of every objective (configs/tiny_postcards.py), uninterrupted, and
ways to look at what it left. The fixtures come to the tests by conftest.py."""

import json
import os
import time
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from flashjax import checkpoint, convert, metrics, models, paths, pictures, train
from flashjax import config as configs
from flashjax.data import prepare
from flashjax.models import qwen_image_21, text

STEPS = 8  # checkpoints at 4 and 8
STOP = 6  # between them


def encode(captions, max_tokens=None):
    """A stand-in for the text encoder: every caption has its own states."""
    return [np.random.default_rng(len(c)).normal(size=(2 + len(c.split()), 384)).astype(np.float32) for c in captions]


def tokens(captions, max_tokens=None):
    return [[0, *caption.split(), 1] for caption in captions]


def without_the_encoder():
    """The true encoder takes seconds to compile, and these tests are about the loop."""
    stub = types.SimpleNamespace(encode=encode, tokens=tokens)
    text.default_encoder = lambda: stub
    pictures.make_drawer = pictures.make_edit_drawer = lambda *_: lambda params, step: {}


def stop_at(step: int, stop) -> None:
    """Calls ``stop`` in the loop, as soon as the first checkpoint is complete on disk."""
    add, init = metrics.MetricsWriter.add, metrics.MetricsWriter.__init__

    def remember(self, folder, **options):
        init(self, folder, **options)
        self.checkpoint = folder / "checkpoints" / "4"

    def add_or_stop(self, now, values):
        while now == step and not self.checkpoint.exists():
            time.sleep(0.05)
        if now == step:
            stop()
        add(self, now, values)

    metrics.MetricsWriter.__init__, metrics.MetricsWriter.add = remember, add_or_stop


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """--config for both objectives, with a data set and a random teacher."""
    folder = tmp_path_factory.mktemp("given")
    asked = dict(split="train", count_per_category=9, size=8, seed=0, encode=encode, progress=False)
    data, edits = prepare.prepare(folder, **asked), prepare.prepare(folder, **asked, edits=True)
    file = f"{os.path.dirname(__file__)}/configs/tiny_postcards.py"
    tiny = models.make_config(qwen_image_21, configs.load([f"--config={file}"]).model)
    rng, flat = np.random.default_rng(0), paths.flatten(qwen_image_21.abstract(tiny))
    params = paths.unflatten({name: rng.normal(0, 0.1, x.shape).astype(np.float32) for name, x in flat.items()})
    convert.save("qwen_image_21", params, folder / "teacher.safetensors")
    return {
        "dmd": f"--config={file}:data={data},weights={folder}/teacher.safetensors",
        "flow_matching": f"--config={file}:teacher,data={data}",
        "trajectory": f"--config={file}:trajectory,data={data},weights={folder}/teacher.safetensors",
        "edits": f"--config={file}:data={data},edits={edits},weights={folder}/teacher.safetensors",
        "edit_teacher": f"--config={file}:teacher,data={data},edits={edits}",
        "edit_trajectory": f"--config={file}:trajectory,data={data},edits={edits},weights={folder}/teacher.safetensors",
    }


@pytest.fixture
def fast(monkeypatch):
    for where, name in ((text, "default_encoder"), (pictures, "make_drawer"), (pictures, "make_edit_drawer")):
        monkeypatch.setattr(where, name, getattr(where, name))
    for name in ("add", "__init__"):
        monkeypatch.setattr(metrics.MetricsWriter, name, getattr(metrics.MetricsWriter, name))
    without_the_encoder()


@pytest.fixture(scope="module")
def uninterrupted(given, tmp_path_factory):
    """(work directory, programs compiled, programs run) of a whole run of each objective."""
    made = {}

    def run(objective: str):
        if objective in made:
            return made[objective]
        folder, compiled, used = tmp_path_factory.mktemp(objective), [], []
        compile_programs = train.compile_programs

        def recorded(table, *rest):
            programs = compile_programs(table, *rest)
            compiled.extend(programs)
            assert list(programs) == table.programs()
            return {p: lambda *a, p=p: (used.append(p), programs[p](*a))[1] for p in programs}

        train.compile_programs = recorded
        try:
            train.train(configs.load([given[objective]]), str(folder))
        finally:
            train.compile_programs = compile_programs
        made[objective] = folder, compiled, used
        return made[objective]

    return run


def everything(folder, step: int) -> dict[str, np.ndarray]:
    """All that the checkpoint holds, by path."""
    manager = ocp.CheckpointManager(folder / "checkpoints", item_handlers=checkpoint._handlers())
    args = dict(state=ocp.args.StandardRestore(), data=ocp.args.JsonRestore(), meta=ocp.args.JsonRestore())
    found = manager.restore(step, args=ocp.args.Composite(**args))
    manager.close()
    leaves = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(found.state)}
    return leaves | {name: np.array(json.dumps(found[name], sort_keys=True)) for name in ("data", "meta")}


def curves(folder) -> dict:
    return {name: curve for name, curve in metrics.read(folder).items() if not name.startswith(("ms_", "images_per_s"))}


def assert_same_runs(first, second):
    a, b = everything(first, STEPS), everything(second, STEPS)
    assert a.keys() == b.keys()
    differing = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert differing == []
    assert curves(first) == curves(second)
    assert max(next(iter(curves(first).values()))[0]) == STEPS - 1
