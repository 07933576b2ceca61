"""A run that goes on when the connection that started it does not: detached.sh and worker.sh, on this machine."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
from stubs import ROOT

PLACE = dict(FLASHJAX_COORDINATOR="a:1", FLASHJAX_PROCESSES="1", FLASHJAX_PROCESS="0")
# Prints, waits until the test says how it ends, or is told to stop.
FLASHJAX = """#!/bin/sh
trap 'echo told; exit 75' TERM
echo "begun $@"
while [ ! -e "$HOME/end" ]; do sleep 0.05; done
echo ended
exit "$(cat "$HOME/end")"
"""


@pytest.fixture
def machine(bash, tmp_path):
    """detached.sh in a home of its own."""
    program = tmp_path / "venv" / "bin" / "flashjax"
    program.write_text(FLASHJAX)

    def run(*args: str) -> subprocess.CompletedProcess:
        return bash("detached", *args, HOME=str(tmp_path), **PLACE)

    yield run
    (tmp_path / "end").write_text("0")


def end(tmp_path, status: int) -> None:
    (tmp_path / "end.new").write_text(str(status))
    (tmp_path / "end.new").rename(tmp_path / "end")


def wait_for(path, words: str) -> None:
    until = time.monotonic() + 30
    while not (path.exists() and words in path.read_text()) and time.monotonic() < until:
        time.sleep(0.05)


def test_the_run_outlives_what_started_it_and_is_followed_to_its_end(machine, tmp_path):
    started = machine("start", "plain", "train", "--workdir=a b")
    assert started.returncode == 0, started.stderr  # and has come back, though the run goes on
    wait_for(tmp_path / "flashjax_run" / "log", "begun")
    command = ["bash", str(ROOT / "launch" / "detached.sh"), "follow"]
    env = os.environ | dict(HOME=str(tmp_path))
    follower = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    broken = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert "begun train --workdir=a b" in [broken.stdout.readline().strip() for _ in range(2)]
    os.killpg(broken.pid, signal.SIGKILL)  # SIGHUP is ignored by all that is under nohup, the tests too
    broken.communicate(timeout=30)
    end(tmp_path, 7)
    assert "ended" in follower.communicate(timeout=30)[0]
    assert follower.returncode == 7
    again = machine("follow")  # too late, and as often as one likes
    assert again.returncode == 7 and "ended" in again.stdout


def test_the_same_run_is_started_once_and_another_refused(machine, tmp_path):
    """gcloud repeats a command whose connection broke."""
    machine("start", "plain", "train")
    again, other = machine("start", "plain", "train"), machine("start", "plain", "train", "--workdir=x")
    assert (again.returncode, again.stdout) == (0, "[flashjax] the run is on this machine already\n")
    assert other.returncode == 2
    assert "Another run is on this machine (flashjax train); stop it first." in other.stderr
    end(tmp_path, 0)
    assert machine("follow").returncode == 0
    (tmp_path / "end").unlink()
    assert machine("start", "plain", "train", "--workdir=x").returncode == 0  # the first has ended
    wait_for(tmp_path / "flashjax_run" / "log", "begun")
    assert "begun train --workdir=x" in (tmp_path / "flashjax_run" / "log").read_text()


def test_a_run_is_told_to_save_and_leave(machine, tmp_path):
    machine("start", "plain", "train")
    wait_for(tmp_path / "flashjax_run" / "log", "begun")
    assert machine("stop").returncode == 0
    done = machine("follow")
    assert done.returncode == 75 and "told" in done.stdout
    assert machine("stop").stdout == "[flashjax] nothing runs on this machine\n"


def test_code_is_not_unpacked_under_a_run(machine, tmp_path):
    """As gcloud.sh does it: tar waits for nobody."""
    unpack = ["flock", "--nonblock", "--conflict-exit-code", "3", str(tmp_path / "flashjax_run" / "lock"), "true"]
    machine("start", "plain", "train")
    assert subprocess.run(unpack).returncode == 3
    end(tmp_path, 0)
    machine("follow")
    assert subprocess.run(unpack).returncode == 0


def test_a_run_that_was_killed_has_no_status(machine, tmp_path):
    assert "No run has been started on this machine." in machine("follow").stderr
    assert machine("stop").returncode == 0
    machine("start", "plain", "train")
    wait_for(tmp_path / "flashjax_run" / "log", "begun")
    sessions = subprocess.run(["ps", "-eo", "sess=,pid="], capture_output=True, text=True, check=True).stdout
    own = os.getsid(int((tmp_path / "flashjax_run" / "pid").read_text()))
    for line in sessions.splitlines():
        session, pid = map(int, line.split())
        if session == own:
            with contextlib.suppress(ProcessLookupError):  # one that was asleep for a moment
                os.kill(pid, signal.SIGKILL)
    done = machine("follow")
    assert done.returncode == 2 and "The run has left no status: it was killed" in done.stderr
    assert machine("start", "plain", "train").returncode == 0


@pytest.mark.parametrize("words", [["start"], ["start", "tpu"], ["begin"]])
def test_what_is_not_understood(machine, tmp_path, words):
    assert machine(*words).returncode == 2
    assert not (tmp_path / "flashjax_run").exists()
