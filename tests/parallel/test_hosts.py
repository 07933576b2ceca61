"""Two processes of two devices: what a pod does, on one machine, through the launch script."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import stand_ins

from flashjax import checkpoint, metrics, pictures, train, weights
from flashjax import config as configs
from flashjax.errors import UserError
from flashjax.models import text
from flashjax.parallel import hosts, rollcall, stopping

STEPS = 8
# Process $WHO gets SIGTERM in its own loop, at row 2.
AT_ROW_2 = """
from flashjax import metrics
add = metrics.MetricsWriter.add
def told(self, step, values):
    add(self, step, values)
    if step == 2 and os.environ.get("FLASHJAX_PROCESS", "0") == os.environ["WHO"]:
        os.kill(os.getpid(), signal.SIGTERM)
metrics.MetricsWriter.add = told
"""


def everything(folder: Path, step: int) -> dict[str, np.ndarray]:
    """All that a checkpoint holds, by path; on one device what devices of several processes wrote."""
    manager = ocp.CheckpointManager(folder / "checkpoints", item_handlers=checkpoint._handlers())
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    args = dict(state=ocp.args.StandardRestore(fallback_sharding=here), data=ocp.args.JsonRestore())
    found = manager.restore(step, args=ocp.args.Composite(**args))
    manager.close()
    leaves = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(found.state)}
    return leaves | {"data": np.array(json.dumps(found.data, sort_keys=True))}


def saved(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def uninterrupted(setting, tmp_path_factory):
    """The whole run in one process with four devices."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "default_encoder", None)
        patch.setattr(pictures, "make_drawer", None)
        stand_ins.replace()
        train.train(configs.load([setting.config, "--config.mesh.data=4"]), str(folder))
    return folder


@pytest.fixture
def on_all(monkeypatch):
    """Calls a function of `hosts` with a value of each process, and returns what each is told: they meet where they
    gather, as arrays of one shape."""
    here, gathered = threading.local(), {}

    def allgather(array):
        here.rounds += 1
        gathered[here.rounds, here.process] = array
        meeting.wait()
        return np.stack([gathered[here.rounds, process] for process in range(meeting.parties)])

    def call(function, process, value):
        here.process, here.rounds = process, 0
        try:
            return function(value)
        except UserError as error:
            return str(error)

    def calls(function, *values):
        nonlocal meeting
        meeting = threading.Barrier(len(values), timeout=10)
        monkeypatch.setattr(jax, "process_count", lambda: len(values))
        with ThreadPoolExecutor(len(values)) as pool:
            return list(pool.map(partial(call, function), range(len(values)), values))

    meeting = None
    monkeypatch.setattr(jax, "process_index", lambda: here.process)
    monkeypatch.setattr(hosts.multihost_utils, "process_allgather", allgather)
    return calls


READ = {f"/shared/sets/{i:03}/of_a_long_name/manifest.json": f"{i:016x}" for i in range(100)}


def test_many_sources_and_weights_are_compared_whole(on_all):
    hosts.check_same(READ)
    assert on_all(hosts.check_same, READ, READ, READ) == [None] * 3
    last = list(READ)[-1]
    told = on_all(hosts.check_same, READ, READ | {last: "other"})
    assert told[0] == f"Process 1 has read {{'{last}': 'other'}}, process 0 {{'{last}': '{READ[last]}'}}."
    assert told[1].startswith(f"Process 0 has read {{'{last}': '{READ[last]}'}}, process 1 {{'{last}': 'other'}}")
    told = on_all(hosts.check_same, READ, {})[0]
    assert told.endswith(" (and 97 more that differ).") and len(told) < 1000


def test_process_0_tells_all_that_it_has(on_all):
    assert hosts.of_first(READ) == READ
    assert on_all(hosts.of_first, READ, {}) == [READ] * 2
    assert on_all(hosts.of_first, {}, READ) == [{}] * 2
    assert on_all(hosts._all_texts, "é\0" * 3000, "") == [["é\0" * 3000, ""]] * 2
    assert on_all(hosts._all_texts, "", "") == [["", ""]] * 2


@pytest.mark.long
@pytest.mark.parametrize("who", ["0", "1"])
def test_sigterm_to_either_then_one_process_goes_on(launch, uninterrupted, tmp_path, who):
    told = launch(
        "local_multi.sh", "--config.mesh.data=4", f"--workdir={tmp_path}", FIRST=AT_ROW_2, WHO=who,
        FLASHJAX_RESTARTS="0",
    )  # fmt: skip
    output = told.communicate(timeout=200)[0]
    assert told.returncode == stopping.TRY_AGAIN, output
    step = saved(tmp_path)[-1]  # of both alike: each process has written its part of it
    assert 2 < step <= 2 + stopping.AHEAD + 1
    assert output.count(f"told to stop: step {step} is saved in {tmp_path}") == 1
    resumed = launch("local.sh", "--config.mesh.data=4", f"--workdir={tmp_path}", FLASHJAX_DEVICES="4")
    output = resumed.communicate(timeout=200)[0]
    assert resumed.returncode == 0, output
    assert f"resumed from step {step}" in output
    expected, found = everything(uninterrupted, STEPS), everything(tmp_path, STEPS)
    assert found.keys() == expected.keys()
    assert found["data"] == expected["data"]
    # Gloo and XLA's own reduction may add four devices' gradients in another order.
    for name in found:
        if found[name].dtype == np.float32:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6, rtol=1e-5, err_msg=name)
    # The losses of every row are of the same samples.
    ours, theirs = metrics.read(tmp_path), metrics.read(uninterrupted)
    for name in ("critic_loss", "student_loss"):
        assert dict(zip(*ours[name], strict=True)).keys() >= {STEPS - 1}
        last = dict(zip(*ours[name], strict=True))[STEPS - 1], dict(zip(*theirs[name], strict=True))[STEPS - 1]
        np.testing.assert_allclose(*last, rtol=1e-4)


@pytest.mark.long
def test_one_process_then_two_on_another_mesh(launch, uninterrupted, tmp_path):
    """From the middle of the run of one process; the folder of compiled programs is a setting of no run's identity."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    shutil.copytree(uninterrupted, run)
    shutil.rmtree(run / "checkpoints" / str(STEPS))
    mesh = ("--config.mesh.data=1", "--config.mesh.fsdp=4", f"--config.compile_cache={cache}")
    told = launch("local_multi.sh", *mesh, f"--workdir={run}", FLASHJAX_RESTARTS="0")
    output = told.communicate(timeout=200)[0]
    assert told.returncode == 0, output
    assert "resumed from step 4" in output and "'fsdp': 4" in output
    expected, found = everything(uninterrupted, STEPS), everything(run, STEPS)
    assert found.keys() == expected.keys() and found["data"] == expected["data"]
    for name in found:
        if found[name].dtype == np.float32:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6, rtol=1e-5, err_msg=name)
    assert any(cache.iterdir())


CRASH = """
from flashjax import train
run_row = train.run_row
def crashing(programs, table, step, *rest):
    if step == 2 and os.environ.get("FLASHJAX_PROCESS", "0") == os.environ["WHO"]:
        raise RuntimeError("nobody foresaw this")
    return run_row(programs, table, step, *rest)
train.run_row = crashing
"""


@pytest.mark.long
@pytest.mark.parametrize("who", ["0", "1"])
def test_a_crash_of_one_process_ends_all_of_them_at_once(launch, tmp_path, who):
    """Both waited 300 s for each other at JAX's barrier and then aborted, with a status that has runs started again."""
    told = launch("local_multi.sh", "--config.mesh.data=4", f"--workdir={tmp_path}", FIRST=CRASH, WHO=who)
    output = told.communicate(timeout=200)[0]
    assert told.returncode == 1, output
    assert output.count("RuntimeError: nobody foresaw this") == 1 and "started again" not in output


def test_weights_that_one_host_cannot_read_are_told_on_all(on_all, monkeypatch):
    """The others waited for it until their heartbeats ended, which looks like a lost host."""

    def load(config, form, path):
        if path == "torn":
            raise UserError("torn is truncated.")
        return form

    monkeypatch.setattr(weights, "_load_whole", load)
    monkeypatch.setattr(weights, "_load_factors", lambda config, base, path: load(config, None, path))
    for read in (weights.load_weights, weights.load_specialist):
        told = on_all(partial(read, None, {}), "whole", "torn", "whole")
        assert told == ["Process 1 cannot start: torn is truncated.", "torn is truncated.", *told[:1]]
        assert on_all(partial(read, None, {}), "whole", "whole") == [{}, {}]


def test_all_have_to_have_the_same_code(monkeypatch):
    """Process 0 is told the hash of a process's sources, and its packages, beside its configuration."""
    given = dict(FLASHJAX_COORDINATOR="localhost:9", FLASHJAX_PROCESSES="2", FLASHJAX_PROCESS="1", FLASHJAX_WAIT="0.1")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    met = []
    monkeypatch.setattr(rollcall, "meet", lambda where, facts, seconds: met.append((where.process, facts, seconds)))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    hosts.start({"config.seed": "0"})
    assert met == [(1, rollcall.code_version() | {"config.seed": "0"}, 0.1)]
    assert {"flashjax's code", "jax", "jaxlib"} <= met[0][1].keys()


def test_processes_that_differ_are_told_so_by_all_before_jax_starts(launch, tmp_path):
    """A setting of one process, as a forgotten edit on one machine makes it."""
    other = """
from flashjax import config
load = config.load
def edited(argv):
    return load([*argv, "--config.student_optim.lr=0.5"] if os.environ["FLASHJAX_PROCESS"] == "1" else argv)
config.load = edited
"""
    run = launch("local_multi.sh", "--config.mesh.data=4", f"--workdir={tmp_path / 'run'}", FIRST=other)
    output = run.communicate(timeout=200)[0]
    assert run.returncode == 2, output
    sentence = "Process 1 differs from process 0: config.student_optim.lr is 0.5 there and 0.001 on 0."
    assert output.count(f"flashjax train: {sentence}") == 2
    assert "Traceback" not in output and "Check failure" not in output
    assert not (tmp_path / "run").exists()


def test_an_error_of_one_process_is_told_by_all(launch, tmp_path):
    """Its disk lacks the data set; the other would wait for it for ever."""
    gone = """
from flashjax import workdir
existing = workdir.existing
def missing(path, what):
    return existing("/nowhere" if what == "data set" and os.environ["FLASHJAX_PROCESS"] == "1" else path, what)
workdir.existing = missing
"""
    run = launch("local_multi.sh", "--config.mesh.data=4", f"--workdir={tmp_path}", FIRST=gone)
    output = run.communicate(timeout=200)[0]
    assert run.returncode == 2, output
    assert output.count("flashjax train: There is no data set at /nowhere.") == 1
    assert output.count("flashjax train: Process 1 cannot start: There is no data set at /nowhere.") == 1
    assert "Check failure" not in output


@pytest.mark.long
def test_a_stuck_process_is_named_and_the_run_goes_on_without_it_stuck(launch, tmp_path):
    """Process 1 waits for ever for its data, once; started again, the run comes to its end."""
    stuck = f"""
from flashjax import train
row, rows = train.run_row, []
def late(*args):
    rows.append(args)
    if len(rows) == 3 and os.environ["FLASHJAX_PROCESS"] == "1" and not os.path.exists({str(tmp_path / "once")!r}):
        open({str(tmp_path / "once")!r}, "w").close()
        time.sleep(1000)
    return row(*args)
train.run_row = late
"""
    run = launch(
        "local_multi.sh", "--config.mesh.data=4", f"--workdir={tmp_path / 'run'}", "--config.watchdog_minutes=0.5",
        FIRST=stuck, FLASHJAX_RESTARTS="1",
    )  # fmt: skip
    output = run.communicate(timeout=400)[0]
    assert run.returncode == 0, output
    assert "process 1 is at row 1 (steps), others at" in output, output
    assert "ended with status 76; start 1 of 1 more" in output
    assert "in late" in output  # the stack of what it waits in
    assert saved(tmp_path / "run") == [4, STEPS]


@pytest.mark.long
def test_two_processes_draw(launch, tmp_path):
    """With the true drawer: its own noise and prompts with parameters that live on all devices."""
    run = launch("local_multi.sh", "--config.mesh.data=4", "--config.sample_every=8", f"--workdir={tmp_path}", DRAW="1")
    output = run.communicate(timeout=400)[0]
    assert run.returncode == 0, output
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step_000008.png"]
