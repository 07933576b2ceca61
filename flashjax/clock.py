"""Where the time of a run goes: the wall clock by what was done, rows by their phase, a profile of some rows."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from flashjax.distill.schedule import PHASES


class Clock:
    """The wall time of a process by what it was doing, exactly one thing at a time: "starting", "compiling", "data"
    (devices without a row wait for the next batch), "steps", "profiling", "drawing", "saving"."""

    def __init__(self):
        self.doing, self._since = "starting", time.monotonic()
        self.seconds: collections.Counter[str] = collections.Counter()

    def turn(self, doing: str) -> None:
        now = time.monotonic()
        self.seconds[self.doing] += now - self._since
        self.doing, self._since = doing, now

    @contextlib.contextmanager
    def during(self, doing: str) -> Iterator[None]:
        before = self.doing
        self.turn(doing)
        yield
        self.turn(before)

    def hidden(self, seconds: float) -> None:
        """Of the last wait for a batch so much was in the shadow of rows: it was time of steps."""
        self.seconds["data"] -= seconds
        self.seconds["steps"] += seconds

    def goodput(self) -> str:
        """The share of the wall time that went into steps, and where the rest went, in a line."""
        self.turn(self.doing)
        total = sum(self.seconds.values())
        rest = ", ".join(f"{name} {s:.0f} s" for name, s in self.seconds.most_common() if name != "steps")
        return f"goodput {self.seconds['steps'] / max(total, 1e-9):.0%} of {total:.0f} s; besides steps: {rest}"


class Speed:
    """What a row of metrics says of speed, since the one before."""

    def __init__(self, clock: Clock, phases: np.ndarray, images: float, at_peak: Callable[[int], float] | None = None):
        """``phases`` of the rows of the step table; ``images`` of a batch a device; ``at_peak``: seconds of a row at
        the devices' peak, None where that is not known."""
        self._clock, self._phases, self._images, self._at_peak = clock, phases, images, at_peak
        self._counted = clock.seconds.copy()

    def since(self, times: Sequence[tuple[int, float]]) -> dict[str, float]:
        """``ms_PHASE`` a row of each phase, ``ms_data`` that devices waited for a row's batch,
        ``images_per_s_per_device`` of the clock's steps and data, and ``mfu`` of them where a row's time at the peak is
        known; from the (step, seconds) of rows that were finished."""
        if not times:
            return {}
        by_phase: dict[str, list[float]] = {}
        for step, seconds in times:
            by_phase.setdefault(f"ms_{PHASES[self._phases[step]]}", []).append(seconds * 1e3)
        self._clock.turn(self._clock.doing)
        before, self._counted = self._counted, self._clock.seconds.copy()
        waited, stepped = (self._counted[doing] - before[doing] for doing in ("data", "steps"))
        total = waited + stepped
        means = {name: float(np.mean(values)) for name, values in by_phase.items()}
        rate = self._images * len(times) / max(total, 1e-9)
        if self._at_peak:
            means["mfu"] = sum(self._at_peak(step) for step, _ in times) / max(total, 1e-9)
        return means | dict(ms_data=waited / len(times) * 1e3, images_per_s_per_device=rate)


class Profile:
    """A trace of the rows ``first`` to ``last``, for xprof or TensorBoard, in ``folder``; (0, 0) is none.

    All processes trace: one alone would leave the others waiting."""

    def __init__(self, window: Sequence[int], folder: Path):
        (self._first, self._last), self._folder, self._running = window, folder, False

    def begins(self, step: int) -> bool:
        """At the first row of the window that the process has, which may have been resumed inside it."""
        return not self._running and self._last > 0 and self._first <= step <= self._last

    def ends(self, step: int) -> bool:
        return self._running and step == self._last

    def start(self) -> None:
        jax.profiler.start_trace(str(self._folder))
        self._running = True

    def stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
        self._running = False
