"""SIGTERM before the first step ends a process at once, later it is a flag; rows are waited for in their order."""

import collections
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashjax.parallel import mesh as meshes
from flashjax.parallel import stopping

# sleep() of the C library holds the main thread outside of Python, as a compilation does.
SCRIPT = """
import os, signal, sys, threading
from flashjax.parallel.stopping import Termination
with Termination() as termination:
    if sys.argv[1] == "held":
        with termination.held():
            os.kill(os.getpid(), signal.SIGTERM)
            print("received", termination.received)
        sys.exit(0)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    if sys.argv[1] == "python":
        threading.Event().wait(30)
    else:
        import ctypes
        while True:
            ctypes.CDLL(None).sleep(30)
"""


@pytest.mark.parametrize(("where", "status"), [("python", 75), ("c", 75), ("held", 0)])
def test_a_signal_at_the_start_and_later(where, status):
    done = subprocess.run([sys.executable, "-c", SCRIPT, where], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert ("nothing to save" in done.stderr) == (status == 75)
    assert where != "held" or "received True" in done.stdout


def test_a_signal_while_the_command_imports(tmp_path):
    """Which takes seconds; its file of settings tells of the signal before they are loaded."""
    config = tmp_path / "config.py"
    config.write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(30)\n")
    words = ["-m", "flashjax.cli", "train", f"--config={config}", f"--workdir={tmp_path}/run"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=25)
    assert done.returncode == stopping.TRY_AGAIN, done.stderr


def test_what_was_before_is_there_again():
    before = signal.getsignal(signal.SIGTERM)
    with stopping.Termination() as termination, termination.held():
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.received
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_stop_is_heard_two_rows_later_and_stays():
    mesh = meshes.make_mesh(dict(data=2, fsdp=2, context=1, tensor=1))
    pace, result = stopping.Pace(mesh), jax.device_put(jnp.float32(np.nan), meshes.replicated(mesh))
    heard = [pace.add(step, time.monotonic(), result, stop=step == 3) for step in range(8)]
    assert heard == [False] * 5 + [True] * 3
    pace.drain()
    assert [step for step, _ in pace.times()] == list(range(8))
    assert pace.times() == []


def test_a_row_is_timed_from_its_dispatch_or_the_end_of_the_row_before(monkeypatch):
    pace, now, finish = of_rows(monkeypatch)
    for step, began in enumerate((0.0, 1.0)):
        pace.add(step, began, step, stop=False)
    finish(0, at=10.0)
    pace.add(2, 10.0, 2, stop=False)
    assert pace.times() == [(0, 10.0)]
    for row, at in ((1, 13.0), (2, 14.0)):
        finish(row, at)
    now[0] = 50.0  # meanwhile a batch was waited for
    pace.drain()
    pace.add(3, 50.0, 3, stop=False)
    finish(3, at=51.0)
    pace.drain()
    assert pace.times() == [(1, 3.0), (2, 1.0), (3, 1.0)]


def test_a_wait_is_hidden_as_long_as_a_row_runs(monkeypatch):
    pace, now, finish = of_rows(monkeypatch)
    assert pace.busy(0.0) == 0
    for step in range(2):
        pace.add(step, 0.0, step, stop=False)
    finish(0, at=2.0)
    now[0] = 5.0
    assert pace.busy(1.0) == 4  # the newest has not ended
    finish(1, at=6.0)
    now[0] = 9.0
    assert (pace.busy(1.0), pace.busy(7.0)) == (5, 0)
    pace.drain()
    assert pace.busy(1.0) == 0


def of_rows(monkeypatch):
    """A Pace whose rows, which are numbers, end when they are told to; the time, in a list; and what tells them."""

    class Answer:
        def __init__(self):
            self.over = threading.Event()

        def block_until_ready(self):
            assert self.over.wait(10)

        def __bool__(self):
            self.block_until_ready()
            return False

    def finish(row, at):
        now[0] = at
        rows[row].over.set()
        next(end for step, _, _, end in pace._asked if step == row).result()  # it has looked at the time

    now, rows = [0.0], collections.defaultdict(Answer)
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    pace = stopping.Pace(meshes.make_mesh(dict(data=1, fsdp=1, context=1, tensor=1)))
    pace._ask = lambda flags, row: rows[row]
    return pace, now, finish
