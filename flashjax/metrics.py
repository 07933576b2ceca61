"""Metrics of a run: (sum, count) pairs gathered on the device, fetched late, written as JSON lines and TensorBoard
events."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from flashjax.errors import UserError


@contextlib.contextmanager
def _as_if_missing(module: str) -> Iterator[None]:
    hidden = module not in sys.modules
    if hidden:
        sys.modules[module] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules[module]


with _as_if_missing("torch"):  # which tensorboardX imports where it can: seconds, for nothing that is used here
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import scalar


class MetricsWriter:
    """Collects the metrics of steps and writes their means.

    ``add`` only keeps references to device arrays, so the loop never waits; ``flush`` fetches all but the newest
    step's, which the device may still be computing.
    """

    def __init__(self, folder: Path, writes: bool = True):
        """Of several processes all have to flush, and find what is not finite, but only one ``writes``."""
        path, self._folder = Path(folder) / "metrics.jsonl" if writes else Path(os.devnull), folder
        if writes:
            _end_with_a_line(path)
        self._file = path.open("a", encoding="utf-8")
        # Not SummaryWriter: behind its queue is a thread, which dies of a full disk, and then the queue waits for ever.
        self._board = EventsWriter(str(Path(folder) / "events")) if writes else None
        self._pending: list[tuple[int, dict]] = []
        self._last = time.monotonic()

    def add(self, step: int, metrics: dict) -> None:
        self._pending.append((step, metrics))

    def flush(self, everything: bool = False, also: dict[str, float] | None = None) -> dict[str, float]:
        """Writes and returns the means since the last flush, ``ms_per_step``, and what is given in ``also``. Raises
        FloatingPointError naming the step in which a metric stopped being finite: a NaN is never averaged away."""
        ready = self._pending if everything else self._pending[:-1]
        self._pending = self._pending[len(ready) :]
        if not ready:
            return {}
        totals: dict[str, list[float]] = {}
        for step, metrics in jax.device_get(ready):
            for name, (value, count) in metrics.items():
                if not math.isfinite(value):
                    raise FloatingPointError(f"{name} is {float(value)} at step {step}; nothing was saved since.")
                total = totals.setdefault(name, [0.0, 0.0])
                total[0], total[1] = total[0] + float(value), total[1] + float(count)
        now = time.monotonic()
        means = {name: value / count for name, (value, count) in totals.items() if count}
        means["ms_per_step"] = (now - self._last) / len(ready) * 1e3
        means |= also or {}
        self._last = now
        self.write(ready[-1][0], means)
        return means

    def restart_clock(self) -> None:
        """What was done since the last flush (of everything) is left out of ``ms_per_step``."""
        self._last = time.monotonic()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of scalars at ``step``. Raises UserError where it cannot be written."""
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            if self._board is not None:
                told = Summary(value=[scalar(name, value).value[0] for name, value in values.items()])
                self._board.write_event(Event(step=step, wall_time=time.time(), summary=told))
                self._board.flush()
        except OSError as error:
            raise UserError(f"The metrics cannot be written to {self._folder}: {error.strerror}.") from error

    def close(self) -> None:
        for file in filter(None, (self._file, self._board)):
            with contextlib.suppress(OSError):  # only what write has failed at, and told, is still in the buffer
                file.close()


def read(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The curves of a run: name -> (steps, values). After a resume the last line of a step counts. A last line that is
    being written, or that a killed run left, is passed over; one elsewhere raises UserError."""
    path, rows = Path(folder) / "metrics.jsonl", {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise UserError(f"Line {number} of {path} is damaged ({error.msg}); delete it.") from error
        rows.setdefault(row.pop("step"), {}).update(row)
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for step in sorted(rows):
        for name, value in rows[step].items():
            steps, values = curves.setdefault(name, ([], []))
            steps.append(step)
            values.append(value)
    return curves


def _end_with_a_line(path: Path) -> None:
    """Cuts a half-written last line off, as a full disk or a kill leaves it: the next row must not go on with it."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
