"""The rows of a run: what their times are of, and files that ended in the middle of a line."""

import itertools
import struct
import types

import jax.numpy as jnp
import numpy as np
import pytest

from flashjax import metrics
from flashjax.errors import UserError


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(metrics, "time", types.SimpleNamespace(monotonic=lambda: now.seconds, time=lambda: 0.0))
    return now


def add(writer, clock, step: int, seconds: float, loss: float = 1.0) -> None:
    clock.seconds += seconds
    writer.add(step, dict(loss=(jnp.float32(loss), jnp.float32(1))))


def test_the_time_of_a_step_is_the_steps_alone(tmp_path, clock):
    writer = metrics.MetricsWriter(tmp_path)
    for step, seconds in enumerate((1, 3)):
        add(writer, clock, step, seconds)
    assert writer.flush(everything=True)["ms_per_step"] == 2000
    clock.seconds += 100  # drawing
    writer.restart_clock()
    add(writer, clock, 2, 5)
    assert writer.flush(everything=True)["ms_per_step"] == 5000
    writer.close()


def events(folder):
    """(step, tag, value) of the scalars in TensorBoard's file: length, its checksum, an event, its checksum."""
    (path,), at = folder.glob("events.out.tfevents.*"), 0
    content = path.read_bytes()
    while at < len(content):
        (length,) = struct.unpack_from("Q", content, at)
        event = metrics.Event.FromString(content[at + 12 : at + 12 + length])
        yield from ((event.step, each.tag, each.simple_value) for each in event.summary.value)
        at += length + 16


def test_rows_are_there_for_both_readers_at_once(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    for step in (3, 6):
        writer.write(step, {"loss": 0.5 * step, "loss/t0.25": 2.0})
    assert metrics.read(tmp_path) == {"loss": ([3, 6], [1.5, 3.0]), "loss/t0.25": ([3, 6], [2.0, 2.0])}
    assert list(events(tmp_path)) == [
        (3, "loss", 1.5), (3, "loss/t0.25", 2.0), (6, "loss", 3.0), (6, "loss/t0.25", 2.0),
    ]  # fmt: skip
    writer.close()


def test_one_that_does_not_write_makes_no_file(tmp_path):
    writer = metrics.MetricsWriter(tmp_path, writes=False)
    writer.write(0, dict(loss=1.0))
    writer.close()
    assert not any(tmp_path.iterdir())


def test_a_disk_that_takes_no_more_events_is_told_and_nobody_waits(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    writer = metrics.MetricsWriter(tmp_path)
    monkeypatch.setattr(metrics.EventsWriter, "flush", full)
    for _ in range(2):
        with pytest.raises(UserError, match=f"metrics cannot be written to {tmp_path}: No space left on device"):
            writer.write(0, {f"loss/{i}": 1.0 for i in range(20)})
    writer.close()


def test_a_half_written_line_is_passed_over_and_not_gone_on_with(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0, "loss": 1.0}\n{"step": 1, "lo\xc3')
    assert metrics.read(tmp_path) == dict(loss=([0], [1.0]))
    writer = metrics.MetricsWriter(tmp_path)
    writer.write(1, dict(loss=2.0))
    writer.close()
    assert metrics.read(tmp_path) == dict(loss=([0, 1], [1.0, 2.0]))
    assert len(path.read_text().splitlines()) == 2


def test_nothing_but_a_half_written_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{")
    assert metrics.read(tmp_path) == {}
    metrics.MetricsWriter(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_whole_lines_stay(tmp_path):
    for step in range(2):
        writer = metrics.MetricsWriter(tmp_path)
        writer.write(step, dict(loss=1.0))
        writer.close()
    assert metrics.read(tmp_path)["loss"][0] == [0, 1]


def test_a_damaged_line_in_between_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"ste\n{"step": 2}\n')
    with pytest.raises(UserError, match=f"Line 2 of {path} is damaged .*; delete it."):
        metrics.read(tmp_path)


def test_a_metric_that_is_not_finite_names_its_step(tmp_path, clock):
    writer = metrics.MetricsWriter(tmp_path)
    for step, loss in zip(itertools.count(3), (1.0, np.nan), strict=False):
        add(writer, clock, step, 1, loss)
    with pytest.raises(FloatingPointError, match="loss is nan at step 4"):
        writer.flush(everything=True)
    writer.close()


def test_what_no_sample_had_a_part_in_is_left_out(tmp_path, clock):
    """As a quarter of the times, which a small batch may miss."""
    writer = metrics.MetricsWriter(tmp_path)
    writer.add(0, {"loss/t0": (0.0, 0.0), "loss/t0.5": (6.0, 2.0)})
    writer.add(1, {"loss/t0": (0.0, 0.0), "loss/t0.5": (3.0, 1.0)})
    means = writer.flush(everything=True)
    writer.close()
    assert means["loss/t0.5"] == 3
    assert "loss/t0" not in means
