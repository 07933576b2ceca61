"""What a run says of itself: speed, times, its best checkpoint, its log."""

import os
import signal
import time
import types

import jax
import numpy as np
import pytest

from flashjax import checkpoint, metrics, pictures, roles, train, workdir
from flashjax import config as configs
from flashjax.errors import UserError
from flashjax.evaluate import watch
from flashjax.parallel import memory, stopping

pytestmark = pytest.mark.usefixtures("fast")


def test_speed_is_seen(given, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(train, "note", lines.append)
    ends, wait, end = [], checkpoint.Checkpoints.wait, train.Watchdog.__exit__
    monkeypatch.setattr(checkpoint.Checkpoints, "wait", lambda self: (ends.append("saved"), wait(self)))
    monkeypatch.setattr(train.Watchdog, "__exit__", lambda *args: (ends.append("unwatched"), end(*args))[1])
    # As if devices had a row whenever a batch is waited for.
    monkeypatch.setattr(stopping.Pace, "busy", lambda self, since: time.monotonic() - since)
    train.train(configs.load([given["dmd"], "--config.profile=5,6"]), str(tmp_path))
    names = ("ms_student", "ms_critic", "ms_data", "ms_saving", "images_per_s_per_device")
    curves = metrics.read(tmp_path)
    assert all(min(curves[name][1]) >= 0 for name in names)
    assert curves["ms_saving"][0] == [3, 7] and max(curves["ms_data"][1]) < 0.1
    (told,) = (line for line in lines if line.startswith("goodput "))
    assert "profiling" in told  # to write a trace may take longer than the rows that it is of
    assert ends == ["saved", "unwatched"]  # a last save that hangs is seen by the watchdog
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(("objective", "mesh"), [("dmd", "fsdp=8"), ("flow_matching", "data=8")])
def test_a_state_too_large_for_its_mesh_is_told_before_anything_is_read(given, tmp_path, monkeypatch, objective, mesh):
    """Of the tiny network, also where a checkpoint of a larger mesh is in the folder: what is kept is the same."""
    argv, asked = [given[objective], f"--config.mesh.{mesh}"], []
    check = memory.check_room
    monkeypatch.setattr(memory, "check_room", lambda kept: (asked.append(kept), check(kept)))
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    monkeypatch.setattr(roles, "load_weights", None)
    with pytest.raises(UserError, match=r"State and teachers take \S+ GiB of every device, and a cpu has .* take more"):
        train.train(configs.load(argv), str(tmp_path))
    needed = sum(map(memory.bytes_on_device, jax.tree.leaves(asked[0])))
    whole = 4 * sum(leaf.size for leaf in jax.tree.leaves(asked[0]))
    # Student, average, critic, two moments each, and the teacher; or the network, its average and two moments.
    assert needed == pytest.approx(whole / (8 if objective == "dmd" else 1), rel=0.1)
    monkeypatch.setattr(memory, "limit", lambda: needed)
    check(asked[0])


def test_all_processes_go_on_from_the_checkpoint_that_process_0_sees(given, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(train.hosts, "of_first", lambda own: (told.append(own), dict(start=8))[1])  # the last step
    monkeypatch.setattr(train, "note", told.append)
    assert train.train(configs.load([given["dmd"]]), str(tmp_path)) == tmp_path
    assert told[-2:] == [dict(start=0), "finished before; there is nothing left to do"]


def test_drawing_and_saving_are_not_the_time_of_a_step(given, tmp_path, monkeypatch):
    """On a clock that only these two move on, by a quarter of an hour each."""
    now, save = [0.0], checkpoint.Checkpoints.save

    def wait(*_):
        now[0] += 1000

    monkeypatch.setattr(metrics, "time", types.SimpleNamespace(monotonic=lambda: now[0], time=lambda: 0.0))
    monkeypatch.setattr(pictures, "make_drawer", lambda *_: lambda *_: wait() or {})
    monkeypatch.setattr(checkpoint.Checkpoints, "save", lambda *args: (wait(), save(*args)))
    settings = ["--config.sample_every=3", "--config.log_every=3"]
    train.train(configs.load([given["flow_matching"], *settings]), str(tmp_path))
    steps, times = metrics.read(tmp_path)["ms_per_step"]
    assert steps == [2, 3, 5, 7]  # a row where something else came next, none of it twice
    assert times == [0, 0, 0, 0]
    assert now[0] == 5000  # drawn after 3, 6 and 8 steps, saved after 4 and 8


def test_a_stop_that_is_heard_of_where_samples_are_due_is_saved(given, tmp_path, monkeypatch):
    """Told in row 2, behind which samples would be drawn, for which there is no time; the next checkpoint is due a row
    later."""
    add, drawn = metrics.MetricsWriter.add, []
    monkeypatch.setattr(pictures, "make_drawer", lambda *_: lambda params, step: drawn.append(step) or {})

    def add_told(self, step, values):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        add(self, step, values)

    monkeypatch.setattr(metrics.MetricsWriter, "add", add_told)
    with pytest.raises(SystemExit) as left:
        train.train(configs.load([given["flow_matching"], "--config.sample_every=3"]), str(tmp_path))
    assert left.value.code == stopping.TRY_AGAIN
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"] and not drawn


def test_what_is_trained_is_saved_before_it_is_drawn(given, tmp_path, monkeypatch):
    """A disk that takes no picture, or too little memory for one, would else cost the rows, at every start anew."""

    def refused(params, step):
        raise OSError("no picture")

    monkeypatch.setattr(pictures, "make_drawer", lambda *_: refused)
    settings = ["--config.sample_every=4", "--config.checkpoint_every=4"]
    with pytest.raises(OSError, match="no picture"):
        train.train(configs.load([given["flow_matching"], *settings]), str(tmp_path))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]


def test_two_processes_do_not_train_in_one_folder(given, tmp_path):
    """By whatever path: the second would delete what the first is saving."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    config = configs.load([given["flow_matching"]])
    with workdir.alone(tmp_path / "run"), pytest.raises(UserError, match="Another process trains in .*link; wait"):
        train.train(config, str(tmp_path / "link"))
    assert not list((tmp_path / "run").iterdir())
    with workdir.alone(tmp_path / "run"):  # the lock is free again
        pass


@pytest.mark.parametrize("setting", ["distill.teachers.base.weights", "init", "autoencoder.weights"])
def test_weights_that_are_not_there_are_told_before_anything_is_read(given, tmp_path, setting):
    """A decoder's would else be looked for when all programs are compiled."""
    config = configs.load([given["dmd"]])
    config.unlock()
    config.update_from_flattened_dict({setting: str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="There are no weights at .*nowhere"):
        train.train(config.lock(), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_best_checkpoint_by_a_figure_stays(given, tmp_path, monkeypatch):
    """Saved after 2, 4, 6 and 8 steps, drawn after 4 and 8, of which the first was the better."""
    worse = {4: 1.0, 8: 2.0}
    monkeypatch.setattr(watch, "load", lambda config: watch.Watched())
    monkeypatch.setattr(watch, "make_watchers", lambda *_: [lambda params, step: {"watch/frechet": worse[step]}])
    settings = ["keep_best=watch/frechet", "sample_every=4", "checkpoint_every=2", "keep_checkpoints=1"]
    argv = [given["flow_matching"], *(f"--config.{setting}" for setting in settings)]
    train.train(configs.load(argv), str(tmp_path))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 8]
    assert metrics.read(tmp_path)["watch/frechet"] == ([3, 7], [1.0, 2.0])


def test_a_digest_is_of_paths_types_and_values():
    tree = dict(a=np.arange(4, dtype=np.float32), b=dict(c=np.float32(1)))
    others = [
        dict(a=tree["a"], b=dict(d=np.float32(1))),
        dict(a=tree["a"].reshape(2, 2), b=tree["b"]),
        dict(a=tree["a"].view(np.int32), b=tree["b"]),
        dict(a=tree["a"] + np.float32(1e-6), b=tree["b"]),
    ]
    assert checkpoint.digest(jax.tree.map(np.copy, tree)) == checkpoint.digest(tree)
    assert len({checkpoint.digest(t) for t in (tree, *others)}) == 5


def test_the_log_is_colored_for_a_terminal_only(monkeypatch):
    lines = []
    monkeypatch.setattr(train.logging, "info", lambda form, line: lines.append(form % line))
    for looking in (True, False):
        monkeypatch.setattr("sys.stderr", types.SimpleNamespace(isatty=lambda looking=looking: looking))
        train.note("x")
    assert lines == ["\033[33mNOTE\033[0m x", "NOTE x"]
