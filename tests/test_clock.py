"""Every second of a run is counted once, and rows are told apart by their phase."""

import types

import numpy as np
import pytest

from flashjax import clock as clocks
from flashjax.distill import schedule


@pytest.fixture
def now(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(clocks, "time", types.SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_every_second_is_counted_once(now):
    clock = clocks.Clock()
    now.seconds += 5
    clock.turn("steps")
    for _ in range(3):
        with clock.during("data"):
            now.seconds += 1
        now.seconds += 4
    with clock.during("saving"):
        now.seconds += 3
    assert clock.doing == "steps"
    assert clock.goodput() == "goodput 52% of 23 s; besides steps: starting 5 s, data 3 s, saving 3 s"
    assert sum(clock.seconds.values()) == now.seconds


def test_rows_by_phase(now):
    clock = clocks.Clock()
    now.seconds += 100
    clock.turn("steps")
    phases = np.array([schedule.CRITIC, schedule.CRITIC, schedule.STUDENT, schedule.CRITIC])
    speed = clocks.Speed(clock, phases, images=8)
    assert speed.since([]) == {}
    with clock.during("data"):
        now.seconds += 2
    now.seconds += 8
    with clock.during("drawing"):
        now.seconds += 50
    found = speed.since([(0, 1.0), (1, 2.0), (2, 5.0)])
    assert found == dict(ms_critic=1500, ms_student=5000, ms_data=pytest.approx(2000 / 3), images_per_s_per_device=2.4)
    now.seconds += 1
    assert speed.since([(3, 1.0)]) == dict(ms_critic=1000, ms_data=0, images_per_s_per_device=8)
    # Waiting for data counts against the chips' peak.
    speed = clocks.Speed(clock, phases, images=8, at_peak=lambda step: step + 0.5)
    with clock.during("data"):
        now.seconds += 1
    now.seconds += 7
    assert speed.since([(1, 2.0), (2, 5.0)])["mfu"] == 4 / 8


def test_a_run_that_is_resumed_inside_of_the_profiled_rows_traces_the_rest(monkeypatch, tmp_path):
    traced = []
    monkeypatch.setattr(clocks.jax.profiler, "start_trace", traced.append)
    monkeypatch.setattr(clocks.jax.profiler, "stop_trace", lambda: traced.append("end"))
    for rows, expected in ((range(9), [3, 5]), (range(4, 9), [4, 5]), (range(6, 9), [])):
        profile, found = clocks.Profile((3, 5), tmp_path), []
        for step in rows:
            if profile.begins(step):
                profile.start()
                found.append(step)
            if profile.ends(step):
                profile.stop()
                found.append(step)
        assert found == expected
    assert not clocks.Profile((0, 0), tmp_path).begins(0)
    assert traced == [str(tmp_path), "end"] * 2


def test_a_second_that_is_waited_while_a_row_runs_is_counted_once(now):
    """Rows of 1 s and a batch every 1.1 s: there is a row every 1.1 s, and 0.1 s without one."""
    clock = clocks.Clock()
    clock.turn("steps")
    speed = clocks.Speed(clock, np.full(10, schedule.STUDENT), images=11, at_peak=lambda step: 0.55)
    for _ in range(10):
        with clock.during("data"):
            now.seconds += 1.1
        clock.hidden(1.0)
    found = speed.since([(step, 1.0) for step in range(10)])
    expected = dict(ms_student=1000, ms_data=100, images_per_s_per_device=10, mfu=0.5)
    assert found == pytest.approx(expected)
    assert clock.goodput() == "goodput 91% of 11 s; besides steps: data 1 s, starting 0 s"
