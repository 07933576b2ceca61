"""Who is behind, by what the processes have left in the work directory; a stuck run ends, one that goes on does not."""

import json
import os
import subprocess
import sys
import threading
import time
import types

import pytest

from flashjax.parallel import watchdog


def report(folder, *told: tuple[int, str, float]) -> str:
    folder.mkdir(exist_ok=True)
    for i, (row, doing, ago) in enumerate(told):
        (folder / f"{i}.json").write_text(json.dumps(dict(row=row, doing=doing, at=time.time() - ago)))
    return watchdog.Watchdog(folder, 1, len(told), 10, lambda: "steps").report()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([(42, "steps", 1), (40, "data", 1), (42, "steps", 1)], "process 1 is at row 40 (data), others at 42: they"),
        ([(7, "steps", 1), (7, "steps", 1)], "all are at row 7 (steps): a device, or the network between them"),
        ([(7, "steps", 1), (9, "steps", 1), (5, "saving", 900)], "process 2 shows no sign of life"),
    ],
)
def test_who_is_behind(tmp_path, told, words):
    said = report(tmp_path / "hosts", *told)
    assert "no row was finished for 10 min (config.watchdog_minutes)" in said
    assert words in said
    assert said.endswith("The stacks of process 1 follow; the run ends with status 76.")


def test_one_that_never_came(tmp_path):
    report(tmp_path, (3, "steps", 1), (3, "steps", 1))
    assert "process 2 shows no sign of life" in watchdog.Watchdog(tmp_path, 0, 3, 10, lambda: "steps").report()


def test_a_work_directory_that_does_not_answer_keeps_no_watchdog_from_its_end(tmp_path, monkeypatch, capsys):
    """Neither writing its line nor reading the others' ever comes back, as on a network's disk that is gone."""
    ended = threading.Event()
    monkeypatch.setattr(watchdog, "ANSWER", 0.1)
    monkeypatch.setattr(watchdog.Watchdog, "_tell", lambda self: ended.wait(20))
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda *_, **__: None)
    monkeypatch.setattr(watchdog.hosts, "leave", lambda code: (ended.set(), dog.__exit__()))
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: None)
    (tmp_path / "hosts").mkdir()
    os.mkfifo(tmp_path / "hosts" / "0.json")  # whose reader waits for a writer
    with watchdog.Watchdog(tmp_path / "hosts", 0, 1, 0.2 / 60, lambda: "saving") as dog:
        dog.dispatched(7)
        assert ended.wait(10)
    assert f"{tmp_path} does not answer: process 0 is at row 7 (saving). The stacks" in capsys.readouterr().err
    os.close(os.open(tmp_path / "hosts" / "0.json", os.O_RDWR | os.O_NONBLOCK))


def test_a_line_that_cannot_be_written_or_read_is_no_sign_of_life(tmp_path, monkeypatch):
    tries = []

    def full(self):
        tries.append(self)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watchdog.Watchdog, "_tell", full)
    with watchdog.Watchdog(tmp_path / "hosts", 1, 2, 1 / 60, lambda: "steps") as dog:
        while len(tries) < 2:  # it tries again
            time.sleep(0.02)
        (tmp_path / "hosts" / "0.json").write_text("")
        assert "process 0, 1 shows no sign of life" in dog.report()


SCRIPT = """
import sys, time
from flashjax.parallel.watchdog import Watchdog
from pathlib import Path
beats, silence = int(sys.argv[2]), float(sys.argv[3])
def waits_for_something():
    time.sleep(silence)
with Watchdog(Path(sys.argv[1]), 0, 1, 0.5 / 60, lambda: "data") as dog:
    for row in range(beats):
        dog.dispatched(row)
        dog.beat()
        time.sleep(0.1)
    waits_for_something()
time.sleep(0.8)
"""


@pytest.mark.parametrize(("beats", "silence", "status"), [(10, 0, 0), (3, 60, watchdog.STUCK)])
def test_a_stuck_process_ends_and_shows_its_stacks(tmp_path, beats, silence, status):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "hosts"), str(beats), str(silence)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == status, done.stderr
    assert ("waits_for_something" in done.stderr) == (status != 0)
    if status:
        assert "all are at row 2 (data)" in done.stderr


@pytest.mark.parametrize(("process", "processes", "waits"), [(0, 2, [20.0]), (1, 2, []), (0, 1, [])])
def test_process_0_lets_the_others_speak(tmp_path, monkeypatch, process, processes, waits):
    """Its end is theirs, and they may see the silence up to a period (10 s) after it did."""
    done = []
    clock = types.SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=done.append)
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback", lambda *_, **__: done.append("stacks"))
    monkeypatch.setattr(watchdog.hosts, "leave", lambda code: done.append("left"))
    monkeypatch.setattr(watchdog.os, "_exit", lambda code: dog.__exit__())
    dog = watchdog.Watchdog(tmp_path / "hosts", process, processes, 10, lambda: "data")
    monkeypatch.setattr(dog._over, "wait", lambda seconds: dog._over.is_set())
    monkeypatch.setattr(dog, "_at", time.monotonic() - 601)
    dog._watch()
    assert done == ["stacks", *waits, "left"]


def test_without_minutes_nothing_is_written(tmp_path):
    with watchdog.Watchdog(tmp_path / "hosts", 0, 1, 0, lambda: "data") as dog:
        dog.beat()
    assert not (tmp_path / "hosts").exists()
