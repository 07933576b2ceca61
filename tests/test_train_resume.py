"""Interrupted and resumed is bit for bit uninterrupted; eight devices are one device."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_training import STEPS, STOP, assert_same_runs, everything, stop_at

from flashjax import checkpoint, metrics, models, pipeline, roles, settings, train, weights
from flashjax import config as configs
from flashjax import export as exports
from flashjax.data import mixture
from flashjax.distill import schedule
from flashjax.errors import UserError
from flashjax.models import qwen_image_21, text
from flashjax.parallel import hosts

pytestmark = pytest.mark.usefixtures("fast")


def test_what_a_checkpoint_holds(uninterrupted):
    folder, _, _ = uninterrupted("dmd")
    names = everything(folder, STEPS)
    parts = [f"['{role}']['{part}']" for role in ("student", "critic") for part in ("params", "opt_state")]
    for part in [*parts, "['ema']"]:
        assert any(name.startswith(part) for name in names), part
    assert names["['step']"] == STEPS
    assert "loader" in str(names["data"])


def test_a_student_begins_as_the_average_of_a_run(given, uninterrupted, tmp_path):
    first = uninterrupted("trajectory")[0]
    train.train(configs.load([given["dmd"], f"--config.init={first}", "--config.student_updates=1"]), str(tmp_path))
    begun, ended = everything(first, STEPS), everything(tmp_path, 4)  # two rows of warm-up, a student row, a critic row
    moved = [name for name in begun if name.startswith("['ema']")]
    assert moved
    for name in moved:
        # The average keeps 0.9 of where it began; an optimizer's first step is about its rate, 1e-3, at most.
        np.testing.assert_allclose(ended[name], begun[name], atol=3e-4)
    meta = json.loads(str(ended["meta"]))["sha256"]
    assert meta[str(first)] == checkpoint.digest(checkpoint.restore_params(first / "checkpoints")[0])
    config = configs.load([given["dmd"], "--config.model.layers=2"])
    deeper = qwen_image_21.abstract(models.make_config(qwen_image_21, config.model))
    with pytest.raises(UserError, match=f"The run {first} trained a network of other sizes than config.model has"):
        weights.load_weights(config, deeper, str(first))


def test_an_earlier_checkpoint_is_had_by_its_step(uninterrupted, tmp_path):
    folder = uninterrupted("dmd")[0]
    first = min(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
    out = exports.export(str(folder), str(tmp_path / "early"), step=first)
    assert json.loads((out / "card.json").read_text())["step"] == first
    expected = everything(folder, first)
    for path, leaf in jax.tree_util.tree_leaves_with_path(pipeline.load(str(folder), step=first).params):
        np.testing.assert_array_equal(leaf, expected["['ema']" + jax.tree_util.keystr(path)])
    with pytest.raises(UserError, match=rf"no checkpoint of step {STEPS + 1}; it has {first}, .*{STEPS}\."):
        pipeline.load(str(folder), step=STEPS + 1)


def test_an_export_is_half_as_large_where_it_is_asked_for(uninterrupted, tmp_path):
    folder = uninterrupted("dmd")[0]
    made = [exports.export(str(folder), str(tmp_path / f"{dtype}"), dtype=dtype) for dtype in (None, "bfloat16")]
    whole, half = (load_file(out / "transformer" / "diffusion_pytorch_model.safetensors") for out in made)
    assert {leaf.dtype for leaf in whole.values()} == {np.dtype(np.float32)} and whole.keys() == half.keys()
    for name, leaf in half.items():
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, whole[name].astype(jnp.bfloat16), err_msg=name)


def test_an_exported_run_is_the_run(uninterrupted, tmp_path):
    """Straight from the checkpoint and by way of an export: the same parameters, and the same picture."""
    folder, stand_in = uninterrupted("dmd")[0], text.default_encoder()
    state, drawn = everything(folder, STEPS), {}
    for which, role in (("ema", "['ema']"), ("student", "['student']['params']")):
        out = exports.export(str(folder), str(tmp_path / which), which)
        for pipe in (pipeline.load(str(folder), which), pipeline.load(str(out))):
            leaves = jax.tree_util.tree_leaves_with_path(pipe.params)
            assert len(leaves) == sum(name.startswith(role) for name in state)
            for path, leaf in leaves:
                np.testing.assert_array_equal(leaf, state[role + jax.tree_util.keystr(path)])
            assert pipe.defaults == dict(steps=2, shift=1.0, guidance_scale=1.0, mode="euler")
            drawn.setdefault(which, []).append(pipe.draw(["a lake"], [3], stand_in))
        assert json.loads((out / "card.json").read_text())["weights"] == which
        np.testing.assert_array_equal(*drawn[which])
    assert (state["['ema']['img_in']['kernel']"] != state["['student']['params']['img_in']['kernel']"]).any()
    with pytest.raises(UserError, match=r"trained all parameters \(config.lora.rank is 0\); export it without --lora"):
        exports.export_lora(str(folder), str(tmp_path / "lora"), "diffusers")


def test_ctrl_c_and_resume(given, uninterrupted, tmp_path):
    folder = uninterrupted("flow_matching")[0]

    def interrupt():
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        for name in ("add", "__init__"):
            patch.setattr(metrics.MetricsWriter, name, getattr(metrics.MetricsWriter, name))
        stop_at(STOP, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.train(configs.load([given["flow_matching"]]), str(tmp_path))
    assert not (tmp_path / "checkpoints" / str(STEPS)).exists()
    train.train(configs.load([given["flow_matching"]]), str(tmp_path))
    assert_same_runs(folder, tmp_path)


def test_a_save_in_flight_is_awaited_however_a_run_ends(given, tmp_path, monkeypatch):
    """A loss that is not finite right after the first save."""
    closed, add = [], metrics.MetricsWriter.add

    def add_nan(self, step, values):
        factor = np.nan if step == 4 else 1
        add(self, step, {name: (total * factor, count) for name, (total, count) in values.items()})

    monkeypatch.setattr(metrics.MetricsWriter, "add", add_nan)
    for kind in (checkpoint.Checkpoints, metrics.MetricsWriter):
        close = kind.close
        monkeypatch.setattr(kind, "close", lambda self, close=close: (closed.append(type(self)), close(self)))
    with pytest.raises(FloatingPointError, match="at step 4; nothing was saved since"):
        train.train(configs.load([given["flow_matching"]]), str(tmp_path))
    assert closed == [metrics.MetricsWriter, checkpoint.Checkpoints]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]


def test_parameters_that_are_not_finite_are_never_saved(given, tmp_path, monkeypatch):
    """The last update before a checkpoint overflows: no loss has shown it yet."""
    run_row = train.run_row

    def overflow(programs, table, step, state, *rest):
        state, found = run_row(programs, table, step, state, *rest)
        return (state.replace(ema=jax.tree.map(lambda x: x * np.inf, state.ema)) if step == 7 else state), found

    monkeypatch.setattr(train, "run_row", overflow)
    with pytest.raises(FloatingPointError, match=r"ema.* are not finite after step 8, which was not saved"):
        train.train(configs.load([given["flow_matching"]]), str(tmp_path))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]


@pytest.mark.parametrize("changed", ["data", "weights"])
def test_other_content_under_the_same_path_does_not_go_on(given, uninterrupted, tmp_path, monkeypatch, changed):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted("dmd")[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    if changed == "data":
        read = mixture.read_manifest
        monkeypatch.setattr(mixture, "read_manifest", lambda path: read(path) | dict(sha256="0" * 64))
    else:
        load = roles.load_weights
        monkeypatch.setattr(roles, "load_weights", lambda *args: jax.tree.map(lambda x: x + np.float32(1), load(*args)))
    config, before = configs.load([given["dmd"]]), everything(folder, 4)
    path = config.sources.cards.path if changed == "data" else config.distill.teachers.base.weights
    with pytest.raises(UserError, match=rf"The checkpoint in .* (sha256|data).{path} is '\w+' there and '\w+' here"):
        train.train(config, str(folder))
    assert [name for name, x in everything(folder, 4).items() if x.tobytes() != before[name].tobytes()] == []


def test_a_mixture_changes_on_purpose_only(given, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted("dmd")[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    config = configs.load([given["dmd"], "--config.sources.cards.weight=2.0"])
    with pytest.raises(UserError, match="sources.cards.weight is 1.0 there and 2.0 here"):
        train.train(config, str(folder))
    other = configs.load([given["dmd"], "--config.student_optim.lr=0.5"])
    with pytest.raises(UserError, match="student_optim.lr is 0.001 there and 0.5 here"):
        train.train(other, str(folder), change_mixture=True)
    with config.unlocked(), config.ignore_type():
        config.sources.cards.weight = {"portrait": 1.0, "text": 2.0}
    train.train(config, str(folder), change_mixture=True)
    trained = (folder / "config.json").read_bytes()
    now, before = (folder / "step_table.txt").read_text().split("Before row 4 it was this:")
    assert "cards         text           66.67%" in now and "cards         text           33.33%" in before
    with config.unlocked():
        config.sources.cards.weight = {"portrit": 1.0}
    with pytest.raises(UserError, match="did you mean 'portrait'"):
        train.train(config, str(folder), change_mixture=True)
    assert (folder / "config.json").read_bytes() == trained  # what cannot be changed to binds nobody
    assert json.loads((folder / "config.json").read_text())["sources"]["cards"]["weight"] == dict(portrait=1, text=2)
    read = metrics.read(folder)
    for category, share in dict(portrait=1 / 3, text=2 / 3).items():
        assert read[f"data/cards/{category}"][1][-1] == pytest.approx(share, abs=1 / 8)  # a sample of a batch
    with pytest.raises(UserError, match="is finished; its mixture cannot be changed any more"):
        train.train(configs.load([given["dmd"]]), str(folder), change_mixture=True)
    assert (folder / "config.json").read_bytes() == trained


@pytest.mark.long  # a run of programs of its own; tests/models/test_held.py has the numbers
def test_teachers_in_the_hosts_memory_are_the_same_run(given, uninterrupted, tmp_path):
    train.train(configs.load([given["dmd"], "--config.teacher_memory=pinned_host"]), str(tmp_path))
    assert_same_runs(uninterrupted("dmd")[0], tmp_path)


@pytest.mark.long  # a run of programs of its own; tests/models/test_held.py has the numbers
def test_a_run_of_int8_teachers_is_another_run_and_nearly_the_same(given, uninterrupted, tmp_path):
    train.train(configs.load([given["dmd"], "--config.teacher_dtype=int8"]), str(tmp_path))
    start = "['ema']"
    names = [n.removeprefix(start) for n in everything(uninterrupted("dmd")[0], STEPS) if n.startswith(start)]
    found, exact, begun = (
        np.concatenate([everything(folder, step)[f"['ema']{name}"].ravel() for name in names])
        for folder, step in ((tmp_path, STEPS), (uninterrupted("dmd")[0], STEPS), (uninterrupted("dmd")[0], 4))
    )
    moves = found - begun, exact - begun
    cosine = moves[0] @ moves[1] / np.linalg.norm(moves[0]) / np.linalg.norm(moves[1])
    assert 0.9 < cosine < 1
    with pytest.raises(UserError, match="teacher_dtype is 'int8' there"):
        train.train(configs.load([given["dmd"]]), str(tmp_path))


def test_sigkill_and_resume(given, uninterrupted, tmp_path):
    folder = uninterrupted("dmd")[0]
    code = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import conftest, tiny_training
from flashjax import config, train
tiny_training.without_the_encoder()
tiny_training.stop_at(tiny_training.STOP, lambda: os.kill(os.getpid(), signal.SIGKILL))
train.train(config.load([sys.argv[2]]), sys.argv[3])
"""
    argv = [os.path.dirname(__file__), given["dmd"], str(tmp_path)]
    # The flags are part of the cache's key, and conftest would add its own a second time.
    env = os.environ | dict(XLA_FLAGS="")
    killed = subprocess.run([sys.executable, "-c", code, *argv], env=env, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "checkpoints" / str(STEPS)).exists()
    train.train(configs.load([given["dmd"]]), str(tmp_path))
    assert_same_runs(folder, tmp_path)


def test_a_finished_run_started_again_compiles_nothing(given, uninterrupted, monkeypatch):
    folder = uninterrupted("dmd")[0]
    before = everything(folder, STEPS)
    monkeypatch.setattr(train, "compile_programs", None)
    assert train.train(configs.load([given["dmd"]]), str(folder)) == folder
    assert [name for name, x in everything(folder, STEPS).items() if x.tobytes() != before[name].tobytes()] == []


def test_data_that_one_process_cannot_use_is_told_to_all(given, tmp_path, monkeypatch):
    """Manifests may be of a disk of each process's own. Nobody waits then for one that has left."""

    def refuse(*_):
        raise UserError("text states of another width")

    told = []
    monkeypatch.setattr(hosts, "_tell", lambda error: told.append(error) or "")
    monkeypatch.setattr(settings, "check_latents", refuse)
    with pytest.raises(UserError, match="another width"):
        train.train(configs.load([given["dmd"]]), str(tmp_path))
    assert told[-1] == "text states of another width"


def test_a_run_that_found_no_data_or_weights_binds_nobody(given, uninterrupted, tmp_path):
    folder, run, empty = uninterrupted("flow_matching")[0], tmp_path / "run", tmp_path / "empty"
    for setting, sentence in (("sources.cards.path", "There is no data set"), ("init", "There are no weights")):
        with pytest.raises(UserError, match=f"{sentence} at nowhere"):
            train.train(configs.load([given["flow_matching"], f"--config.{setting}=nowhere"]), str(run))
        assert not run.exists()
    empty.mkdir()
    with pytest.raises(UserError, match="empty"):  # which is found out after the folder is claimed
        train.train(configs.load([given["flow_matching"], f"--config.init={empty}"]), str(run))
    assert (run / "checkpoints").is_dir()
    train.train(configs.load([given["flow_matching"]]), str(run))
    assert_same_runs(folder, run)


def test_a_damaged_checkpoint_is_named(given, uninterrupted, tmp_path):
    """Files of the newest checkpoint are cut short, as a full disk or a bad copy leaves them."""
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted("flow_matching")[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    for file in (folder / "checkpoints" / "4" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 100:
            os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read .* Delete this folder"):
        train.train(configs.load([given["flow_matching"]]), str(folder))
    with pytest.raises(UserError, match=r"checkpoints/4 cannot be read"):
        checkpoint.restore_params(folder / "checkpoints")


@pytest.mark.parametrize("objective", ["dmd", "flow_matching", "trajectory"])
def test_the_programs_are_those_of_the_table(uninterrupted, objective):
    _, compiled, used = uninterrupted(objective)
    assert sum(schedule.PHASES[p.phase] not in ("begin", "advance") for p in used) == STEPS
    assert compiled == list(dict.fromkeys(used))
    assert len(compiled) == dict(dmd=4, flow_matching=1, trajectory=3)[objective]


@pytest.mark.long  # runs of programs of their own; tests/parallel has the meshes
@pytest.mark.parametrize(("first", "then"), [("fsdp=8", "data=1"), ("data=1", "fsdp=8")])
def test_a_run_goes_on_on_another_mesh(given, uninterrupted, tmp_path, first, then):
    """Saved by one mesh at step 4, finished by the other; only the order of sums differs from the uninterrupted run.

    Adam divides by a gradient's own size, so an element whose sum cancels to a hundredth of its tensor's shows the
    rounding a hundred times larger: one of 60,000 by 1.06e-6 on one kind of processor, which ended a bound of 1e-6 on
    every element. The root mean square of each tensor, 2e-8 there, is what tells; an update's size is 1e-3.
    """
    whole = uninterrupted("dmd")[0]
    mesh = {name: [f"--config.mesh.{name}"] for name in ("data=1", "fsdp=8")}
    if first == "data=1":
        shutil.copytree(whole, tmp_path / "run")
    else:
        train.train(configs.load([given["dmd"], *mesh[first]]), str(tmp_path / "run"))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(STEPS))
    train.train(configs.load([given["dmd"], *mesh[then]]), str(tmp_path / "run"))
    expected, found = everything(whole, STEPS), everything(tmp_path / "run", STEPS)
    assert expected["data"] == found["data"]
    apart = {name: np.abs(x - found[name]) for name, x in expected.items() if x.dtype == np.float32}
    rms = {name: np.sqrt(np.mean(np.square(x))) for name, x in apart.items()}
    assert max(rms.values()) < 1e-7, max(rms.items(), key=lambda item: item[1])
    assert max(x.max() for x in apart.values()) < 1e-5


@pytest.mark.long  # tests/parallel has the mesh of all axes
def test_eight_devices_are_one(given, uninterrupted, tmp_path):
    one = everything(uninterrupted("dmd")[0], STEPS)
    train.train(configs.load([given["dmd"], "--config.mesh.data=8"]), str(tmp_path))
    eight = everything(tmp_path, STEPS)
    worst = {
        name: float(np.abs(one[name] - eight[name]).max())
        for name in one
        if one[name].dtype == np.float32 and "opt_state" not in name
    }
    assert max(worst.values()) < 1e-5, max(worst.items(), key=lambda item: item[1])
