"""A process that hangs in a collective says nothing, and nobody gets its machines back. The watchdog does both.

Each process leaves a small file in the work directory every few seconds: the last row that it has given to its
devices, and what it is doing. Where no row was finished for too long, every process reads all of them, says who is
behind, prints the stacks of its threads and ends. The clock is watched apart from the files: a work directory that does
not answer may be what all wait for.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flashjax.parallel import hosts

ANSWER = 10  # seconds that the work directory has to answer in, when it is read to say who is behind
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
            for loop in (self._leave_lines, self._watch):
                threading.Thread(target=loop, daemon=True).start()
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
            if time.monotonic() - self._at > self._limit:
                print(f"flashjax: {self._said()}", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                self._let_others_speak()
                hosts.leave(STUCK)
                os._exit(STUCK)

    def _let_others_speak(self) -> None:
        """Process 0's end is the others', and they look at their clocks at other moments: where it left at once, the
        stacks of the one that all wait for were lost."""
        if self._process == 0 and self._processes > 1:
            time.sleep(max(2 * self._period, ANSWER))

    def _said(self) -> str:
        """The report, if the work directory gives what it is made of in time."""
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.append(self.report()), daemon=True)
        reader.start()
        reader.join(ANSWER)
        why = f"{self._folder.parent} does not answer: process {self._process} is at row {self._row} ({self._doing()})"
        return said[0] if said else self._sentence(why)

    def _leave_lines(self) -> None:
        while not self._over.wait(self._period):
            with contextlib.suppress(OSError):  # who cannot write shows the others no sign of life, which is true
                self._tell()

    def _tell(self) -> None:
        file = self._folder / f"{self._process}.json"
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(dict(row=self._row, doing=self._doing(), at=time.time())))
        os.replace(partial, file)

    def report(self) -> str:
        """Who is behind, in a sentence."""
        told = {}
        for process in range(self._processes):
            try:
                told[process] = json.loads((self._folder / f"{process}.json").read_text())
            except (OSError, ValueError):  # not there, or only in part
                told[process] = dict(row=-1, doing="nothing", at=0)
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
        return self._sentence(why)

    def _sentence(self, why: str) -> str:
        return (
            f"no row was finished for {self._limit / 60:g} min (config.watchdog_minutes); {why}. The stacks of process "
            f"{self._process} follow; the run ends with status {STUCK}."
        )


def _list(processes: list[int]) -> str:
    return ", ".join(map(str, processes[:8])) + (", ..." if len(processes) > 8 else "")
