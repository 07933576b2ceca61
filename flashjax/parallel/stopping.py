"""SIGTERM, as clusters send it before they take a machine: all processes save the same step and leave.

A process that is told to stop cannot simply do so: the others would wait for it in their next collective. So a tiny
program runs behind every row of the step table: it asks all processes whether one of them was told. Its answer is
looked at two rows later, when it has long been there, and is the same everywhere. Waiting for it also keeps the host
from running ahead of its devices. A thread waits for each of them as well, and so knows when a row was finished,
whatever the host is doing then.
"""

import collections
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flashjax.errors import TRY_AGAIN

AHEAD = 2  # rows that are dispatched and not finished


class Termination:
    """SIGTERM while the context is open: ends the process with TRY_AGAIN, or, while ``held``, only sets ``received``.

    Not held is the start: there is nothing to save, and compiling may take longer than a cluster waits. Python's own
    handlers wait for the main thread to come back from C++; a byte written to a socket does not."""

    def __init__(self):
        self.received = self._held = False

    def __enter__(self) -> "Termination":
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._handler = signal.signal(signal.SIGTERM, self._receive)
        self._fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        signal.set_wakeup_fd(self._fd)
        signal.signal(signal.SIGTERM, self._handler)
        self._writer.close()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it a signal is left to the caller."""
        self._held = True
        yield

    def _receive(self, *_) -> None:
        self.received = True

    def _listen(self) -> None:
        with self._reader:
            while numbers := self._reader.recv(16):
                if signal.SIGTERM in numbers and not self._held:
                    print("flashjax: told to stop before the first step; nothing to save.", file=sys.stderr, flush=True)
                    os._exit(TRY_AGAIN)


class Pace:
    """Keeps AHEAD rows under way, and tells all processes alike when one of them wants to stop."""

    def __init__(self, mesh: Mesh):
        sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))

        def flags(value: bool) -> jax.Array:
            return jax.make_array_from_callback((mesh.size,), sharding, lambda _: np.array([value]))

        self._flags = {value: flags(value) for value in (False, True)}
        # It takes the row's result so as not to run before the row has.
        self._ask = jax.jit(
            lambda flags, result: flags.any(), keep_unused=True, out_shardings=NamedSharding(mesh, PartitionSpec())
        )
        self._asked: collections.deque = collections.deque()
        self._ends = ThreadPoolExecutor(1, "rows")  # which end one after another
        self._times: list[tuple[int, float]] = []
        self._finished, self._stop = 0.0, False

    def add(self, step: int, began: float, result: jax.Array, stop: bool) -> bool:
        """Takes note of a row that was dispatched at ``began`` (time.monotonic) and whose ``result`` lives on the mesh.
        True where a process wanted to stop, as all know by the rows that were waited for."""
        answer = self._ask(self._flags[bool(stop)], result)
        self._asked.append((step, began, answer, self._ends.submit(_end, answer)))
        if len(self._asked) > AHEAD:
            self._wait()
        return self._stop

    def drain(self) -> bool:
        """Waits for all rows, and tells as ``add`` does. All processes have to do so after the same one."""
        while self._asked:
            self._wait()
        return self._stop

    def times(self) -> list[tuple[int, float]]:
        """(step, seconds) of the rows that were waited for since the last call."""
        times, self._times = self._times, []
        return times

    def busy(self, since: float) -> float:
        """Seconds since ``since`` (time.monotonic) in which the devices had a row, if none was dispatched meanwhile."""
        now = time.monotonic()
        if not self._asked:
            return 0.0
        newest = self._asked[-1][-1]
        return max((newest.result() if newest.done() else now) - since, 0.0)

    def _wait(self) -> None:
        step, began, answer, end = self._asked.popleft()
        self._stop |= bool(answer)  # waits
        self._times.append((step, end.result() - max(began, self._finished)))
        self._finished = end.result()


def _end(answer: jax.Array) -> float:
    """When it was there (time.monotonic)."""
    answer.block_until_ready()
    return time.monotonic()
