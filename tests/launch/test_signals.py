"""What becomes of a run when somebody ends the script that has started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stubs import GCLOUD, ROOT


def default_signals() -> None:
    """A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def wait_for(*paths: Path) -> None:
    until = time.monotonic() + 30
    while not all(path.exists() for path in paths) and time.monotonic() < until:
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_two_starts_is_final_too(bin, tmp_path, number):
    """There is no process then that could hear of it."""
    program = tmp_path / "venv" / "bin" / "flashjax"
    program.write_text(f"#!/bin/sh\necho x >>{tmp_path}/starts\nexit 75\n")
    env = os.environ | dict(FLASHJAX_VENV=str(tmp_path / "venv"), FLASHJAX_PAUSE="1", FLASHJAX_RESTARTS="3")
    script = subprocess.Popen(
        ["bash", str(ROOT / "launch" / "local.sh"), "train"], env=env, stdout=subprocess.PIPE,
        start_new_session=True, preexec_fn=default_signals,
    )  # fmt: skip
    script.stdout.readline()  # that it starts again, before it pauses
    time.sleep(0.2)
    os.killpg(script.pid, number)
    script.communicate(timeout=30)
    assert script.returncode == 75
    assert (tmp_path / "starts").read_text() == "x\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("arguments", [["local"], ["local_multi"], ["worker", "plain"]])
def test_what_ends_the_script_is_passed_on_and_final(bin, tmp_path, arguments, number):
    """As SIGTERM, and to all that run in a terminal, as Ctrl-C and a terminal that closes are."""
    count = 2 if arguments == ["local_multi"] else 1
    (tmp_path / "venv" / "bin" / "flashjax").write_text(
        f'#!/bin/sh\ntrap "echo told >>{tmp_path}/told; exit 75" TERM\necho x >>{tmp_path}/starts\n'
        f"touch {tmp_path}/up.${{FLASHJAX_PROCESS:-0}}\nfor _ in $(seq 300); do sleep 0.1; done\n"
    )
    env = os.environ | dict(FLASHJAX_VENV=str(tmp_path / "venv"), FLASHJAX_PAUSE="0")
    name, *rest = arguments
    script = subprocess.Popen(
        ["bash", str(ROOT / "launch" / f"{name}.sh"), *rest, "train"], env=env, stdout=subprocess.PIPE,
        start_new_session=True, preexec_fn=default_signals,
    )  # fmt: skip
    wait_for(*(tmp_path / f"up.{i}" for i in range(count)))
    if number == signal.SIGTERM:
        script.send_signal(number)
    else:
        os.killpg(script.pid, number)
    output = script.communicate(timeout=30)[0]
    assert script.returncode == 75
    assert b"more" not in output
    assert (tmp_path / "told").read_text() == "told\n" * count
    assert (tmp_path / "starts").read_text() == "x\n" * count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_told_to_stop_leaves_no_installation_behind(bin, tmp_path, number):
    """It died at once with 143, and pip went on, held the machine's lock, and could not be stopped any more."""
    python = tmp_path / "venv" / "bin" / "python"
    install = f"touch {tmp_path}/up; sleep 1; touch {tmp_path}/installed"
    python.write_text(f'#!/bin/sh\n[ "$2" != pip ] || {{ {install}; }}\n')
    python.chmod(0o755)
    (python.parent / "pip").symlink_to(python)
    env = os.environ | dict(FLASHJAX_VENV=str(tmp_path / "venv"), FLASHJAX_EXTRAS="tpu", CALLS=str(tmp_path / "runs"))
    worker = subprocess.Popen(
        ["bash", str(ROOT / "launch" / "worker.sh"), "plain", "train"], env=env, preexec_fn=default_signals
    )
    wait_for(tmp_path / "up")
    worker.send_signal(number)
    assert worker.wait(timeout=30) == 75
    assert (tmp_path / "installed").exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_ends_the_script_ends_its_connections(bin, tmp_path, number, status):
    """gcloud, and the ssh that it has started, of every slice; the machines are not asked for again."""
    (bin / "gcloud").write_text(
        f"""#!/bin/sh
echo "$4" >>{tmp_path}/did
case "$*" in
  *describe*) echo ACTIVE ;;
  *follow*) sleep 60 & echo $$ $! >{tmp_path}/up.$5; wait ;;
esac
"""
    )
    env = os.environ | GCLOUD | dict(PATH=f"{bin}:{os.environ['PATH']}", TMPDIR=str(tmp_path), FLASHJAX_PAUSE="0")
    command = ["bash", str(ROOT / "launch" / "tpu_multislice.sh"), "train"]
    script = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, preexec_fn=default_signals)
    up = [tmp_path / "up.mine-0", tmp_path / "up.mine-1"]
    wait_for(*up)
    script.send_signal(number)
    output = script.communicate(timeout=30)[0]  # comes to an end when nothing holds the pipe any more
    assert script.returncode == status
    assert b"what runs on them goes on." in output and b"tpu_multislice.sh --stop has it save and leave." in output
    assert (tmp_path / "did").read_text().split()[-2:] == ["ssh", "ssh"]


def test_ctrl_c_while_gcloud_asks_for_machines_is_final(bin, tmp_path):
    """gcloud ends with an error then, as it does for a name that is taken."""
    (bin / "gcloud").write_text(
        f"#!{sys.executable}\nimport pathlib, sys, time\npathlib.Path({str(tmp_path)!r}, sys.argv[4]).touch()\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(1)\n"
    )
    env = os.environ | GCLOUD | dict(PATH=f"{bin}:{os.environ['PATH']}", FLASHJAX_PAUSE="0")
    script = subprocess.Popen(
        ["bash", str(ROOT / "launch" / "tpu_queued.sh"), "train"], env=env, stdout=subprocess.PIPE,
        start_new_session=True, preexec_fn=default_signals,
    )  # fmt: skip
    wait_for(tmp_path / "create")
    os.killpg(script.pid, signal.SIGINT)
    script.communicate(timeout=30)
    assert script.returncode == 130
    assert not (tmp_path / "describe").exists()
