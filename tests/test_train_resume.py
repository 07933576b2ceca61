"""Interrupted and resumed is bit for bit uninterrupted; eight devices are one device."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from flashjax import checkpoint, convert, metrics, models, paths, pictures, pipeline, train
from flashjax import config as configs
from flashjax import export as exports
from flashjax.data import mixture, prepare
from flashjax.distill import schedule
from flashjax.errors import UserError
from flashjax.evaluate import watch
from flashjax.models import qwen_image_21, text

STEPS = 8  # checkpoints at 4 and 8
STOP = 6  # between them


def encode(captions, max_tokens=None):
    """A stand-in for the text encoder: every caption has its own states."""
    return [np.random.default_rng(len(c)).normal(size=(2 + len(c.split()), 384)).astype(np.float32) for c in captions]


def without_the_encoder():
    """The true encoder takes seconds to compile, and these tests are about the loop."""
    stub = types.SimpleNamespace(encode=encode)
    text.load_text_encoder = lambda source: stub
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


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Compiling is nearly all that these runs cost, and most are of the same programs; the quickstart does so too."""
    folder = tmp_path_factory.mktemp("cache")
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(folder))
    compilation_cache.reset_cache()  # else what was decided at the process's first compilation stays
    yield folder
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


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


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for where, name in ((text, "load_text_encoder"), (pictures, "make_drawer"), (pictures, "make_edit_drawer")):
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
        train.load_weights(config, deeper, str(first))


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


def test_an_exported_run_is_the_run(uninterrupted, tmp_path):
    """Straight from the checkpoint and by way of an export: the same parameters, and the same picture."""
    folder, stand_in = uninterrupted("dmd")[0], text.load_text_encoder(None)
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


def test_speed_is_seen(given, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(train, "note", lines.append)
    train.train(configs.load([given["dmd"], "--config.profile=5,6"]), str(tmp_path))
    names = ("ms_student", "ms_critic", "ms_data", "ms_saving", "images_per_s_per_device")
    curves = metrics.read(tmp_path)
    assert all(min(curves[name][1]) >= 0 for name in names)
    assert curves["ms_saving"][0] == [3, 7]
    assert any(line.startswith("goodput ") for line in lines)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_drawing_and_saving_are_not_the_time_of_a_step(given, tmp_path, monkeypatch):
    """On a clock that only these two move on, by a quarter of an hour each."""
    now, save = [0.0], checkpoint.Checkpoints.save

    def wait(*_):
        now[0] += 1000

    monkeypatch.setattr(metrics, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(pictures, "make_drawer", lambda *_: lambda *_: wait() or {})
    monkeypatch.setattr(checkpoint.Checkpoints, "save", lambda *args: (wait(), save(*args)))
    settings = ["--config.sample_every=3", "--config.log_every=3"]
    train.train(configs.load([given["flow_matching"], *settings]), str(tmp_path))
    steps, times = metrics.read(tmp_path)["ms_per_step"]
    assert steps == [2, 3, 5, 7]  # a row where something else came next, none of it twice
    assert times == [0, 0, 0, 0]
    assert now[0] == 5000  # drawn after 3, 6 and 8 steps, saved after 4 and 8


def test_the_best_checkpoint_by_a_figure_stays(given, tmp_path, monkeypatch):
    """Saved after 2, 4, 6 and 8 steps, drawn after 4 and 8, of which the first was the better."""
    monkeypatch.setattr(watch, "load", lambda config: "something")
    worse = {4: 1.0, 8: 2.0}
    monkeypatch.setattr(watch, "make_watcher", lambda *_: lambda params, step: {"watch/frechet": worse[step]})
    settings = ["keep_best=watch/frechet", "sample_every=4", "checkpoint_every=2", "keep_checkpoints=1"]
    argv = [given["flow_matching"], *(f"--config.{setting}" for setting in settings)]
    train.train(configs.load(argv), str(tmp_path))
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [4, 8]
    assert metrics.read(tmp_path)["watch/frechet"] == ([3, 7], [1.0, 2.0])


@pytest.mark.parametrize("changed", ["data", "weights"])
def test_other_content_under_the_same_path_does_not_go_on(given, uninterrupted, tmp_path, monkeypatch, changed):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted("dmd")[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    if changed == "data":
        read = mixture.read_manifest
        monkeypatch.setattr(mixture, "read_manifest", lambda path: read(path) | dict(sha256="0" * 64))
    else:
        load = train.load_weights
        monkeypatch.setattr(train, "load_weights", lambda *args: jax.tree.map(lambda x: x + np.float32(1), load(*args)))
    config, before = configs.load([given["dmd"]]), everything(folder, 4)
    path = config.sources.cards.path if changed == "data" else config.distill.teachers.base.weights
    with pytest.raises(UserError, match=rf"The checkpoint in .* (sha256|data).{path} is '\w+' there and '\w+' here"):
        train.train(config, str(folder))
    assert [name for name, x in everything(folder, 4).items() if x.tobytes() != before[name].tobytes()] == []


@pytest.mark.parametrize("objective", ["edits", "edit_teacher", "edit_trajectory"])
def test_edits_and_prompts_take_turns(uninterrupted, objective):
    """Half of the rows of each phase are edits; they are logged apart, and every program is of one task."""
    folder, compiled, used = uninterrupted(objective)
    rows = [p for p in used if schedule.PHASES[p.phase] not in ("begin", "advance")]
    for phase in {p.phase for p in rows}:
        tasks = [p.task for p in rows if p.phase == phase]
        assert abs(tasks.count(1) - tasks.count(0)) <= 1
    assert {p.task for p in compiled} == {0, 1}
    names = dict(edits="student_loss", edit_teacher="loss", edit_trajectory="trajectory_loss")
    found = curves(folder)
    assert {f"{task}/{names[objective]}" for task in ("t2i", "edit")} <= set(found)
    shares = {name: values for name, (_, values) in found.items() if name.startswith("data/edits/")}
    assert len(shares) == 3
    assert sum(values[0] for values in shares.values()) == pytest.approx(1)
    if objective != "edit_teacher":
        assert set(found["edit/share/base"][1]) == {1.0}


def test_edits_resume_bit_for_bit(given, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted("edits")[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    train.train(configs.load([given["edits"]]), str(folder))
    a, b = everything(uninterrupted("edits")[0], STEPS), everything(folder, STEPS)
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []


def test_a_run_that_edits_draws_edits(uninterrupted):
    pipe = pipeline.load(str(uninterrupted("edits")[0]))
    sources = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    stand_in, said = text.load_text_encoder(None), ["make it red"] * 3
    drawn = pipe.draw(said, [1, 1, 1], stand_in, images=sources)
    assert drawn.shape == (3, 8, 8, 3)
    assert (drawn[0] != drawn[1]).any()  # same words, same noise, another picture to edit
    again = pipe.draw(said, [1, 1, 1], stand_in, images=sources, batch=2)
    assert np.abs(drawn.astype(int) - again).max() <= 1
    # With guidance the picture stays on the side that guidance leads away from.
    assert pipe.draw(said, [1, 1, 1], stand_in, images=sources, guidance_scale=3.0).shape == drawn.shape


def test_a_mixture_changes_on_purpose_only(given, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted("dmd")[0], folder)
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    config = configs.load([given["dmd"], "--config.sources.cards.weight=2.0"])
    with pytest.raises(UserError, match="sources.cards.weight is 1.0 there and 2.0 here"):
        train.train(config, str(folder))
    train.train(config, str(folder), change_mixture=True)
    assert json.loads((folder / "config.json").read_text())["sources"]["cards"]["weight"] == 2.0
    other = configs.load([given["dmd"], "--config.student_optim.lr=0.5"])
    with pytest.raises(UserError, match="student_optim.lr is 0.001 there and 0.5 here"):
        train.train(other, str(folder), change_mixture=True)


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


def test_sigkill_and_resume(given, uninterrupted, cache, tmp_path):
    folder = uninterrupted("dmd")[0]
    code = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import conftest, test_train_resume as here
here.without_the_encoder()
here.stop_at(here.STOP, lambda: os.kill(os.getpid(), signal.SIGKILL))
here.train.train(here.configs.load([sys.argv[2]]), sys.argv[3])
"""
    argv = [os.path.dirname(__file__), given["dmd"], str(tmp_path)]
    # The flags are part of the cache's key, and conftest would add its own a second time.
    env = os.environ | dict(JAX_COMPILATION_CACHE_DIR=str(cache), XLA_FLAGS="")
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


def test_a_run_that_found_no_data_binds_nobody(given, uninterrupted, tmp_path):
    folder = uninterrupted("flow_matching")[0]
    with pytest.raises(UserError, match="There is no data set"):
        train.train(configs.load([given["flow_matching"], "--config.sources.cards.path=nowhere"]), str(tmp_path))
    assert (tmp_path / "checkpoints").is_dir()
    train.train(configs.load([given["flow_matching"]]), str(tmp_path))
    assert_same_runs(folder, tmp_path)


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


@pytest.mark.parametrize(("first", "then"), [("data=1", "fsdp=8"), ("fsdp=8", "data=1")])
def test_a_run_goes_on_on_another_mesh(given, uninterrupted, tmp_path, first, then):
    """Saved by one mesh at step 4, finished by the other; only the order of sums differs from the uninterrupted run."""
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
    worst = {name: np.abs(x - found[name]).max() for name, x in expected.items() if x.dtype == np.float32}
    assert max(worst.values()) < 1e-6, max(worst.items(), key=lambda item: item[1])


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
