"""A process that hangs in a collective says nothing, and nobody gets its machines back. The watchdog does both.

Each process leaves a small file in the work directory every few seconds: the last row that it has given to its
devices, and what it is doing. Where no row was finished for too long, every process reads all of them, says who is
behind, prints the stacks of its threads and ends.
"""

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flashjax.parallel import hosts

STUCK = 76  # the run was ended as no row of it was finished any more; starting again may help


class Watchdog:
    """Ends the process with STUCK where ``beat`` was not called for ``minutes`` while the context is open; 0: never."""

    def __init__(self, folder: Path, process: int, processes: int, minutes: float, doing: Callable[[], str]):
        self._folder, self._process, self._processes, self._limit = folder, process, processes, minutes * 60
        self._doing, self._period = doing, min(minutes * 60 / 10, 10)
        self._row, self._at, self._over = -1, time.monotonic(), threading.Event()

    def __enter__(self) -> "Watchdog":
        self._at = time.monotonic()
        if self._limit:
            self._folder.mkdir(exist_ok=True)
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()

    def dispatched(self, row: int) -> None:
        """Row ``row`` was given to the devices. Told before one waits for rows before it: a process that waits for
        another stands a row ahead of it, where else both would seem to be at the same."""
        self._row = row

    def beat(self) -> None:
        """The rows that one waits for were finished."""
        self._at = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(self._period):
            self._tell()
            if time.monotonic() - self._at > self._limit:
                print(f"flashjax: {self.report()}", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                hosts.leave(STUCK)
                os._exit(STUCK)

    def _tell(self) -> None:
        file = self._folder / f"{self._process}.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(dict(row=self._row, doing=self._doing(), at=time.time())))
        os.replace(partial, file)

    def report(self) -> str:
        """Who is behind, in a sentence."""
        told = {}
        for process in range(self._processes):
            file = self._folder / f"{process}.json"
            told[process] = json.loads(file.read_text()) if file.exists() else dict(row=-1, doing="nothing", at=0)
        silent = [p for p, t in told.items() if time.time() - t["at"] > self._limit / 2]
        least, most = (pick(t["row"] for t in told.values()) for pick in (min, max))
        behind = [p for p, t in told.items() if t["row"] == least]
        if silent:
            why = f"process {_list(silent)} shows no sign of life"
        elif least < most:
            doing = ", ".join(sorted({told[p]["doing"] for p in behind}))
            why = f"process {_list(behind)} is at row {least} ({doing}), others at {most}: they wait for it"
        else:
            doing = ", ".join(sorted({t["doing"] for t in told.values()}))
            why = f"all are at row {least} ({doing}): a device, or the network between them, does not answer"
        return (
            f"no row was finished for {self._limit / 60:g} min (config.watchdog_minutes); {why}. The stacks of process "
            f"{self._process} follow; the run ends with status {STUCK}."
        )


def _list(processes: list[int]) -> str:
    return ", ".join(map(str, processes[:8])) + (", ..." if len(processes) > 8 else "")
