"""What was asked and what came back, in a file that survives a crash at any point.

One JSON object a line, appended. A line is whole or it is ignored: the last line of a killed process may be half a
line. An ``asked`` row is written before every try of a call, a ``reply`` or ``failure`` row as soon as the last one has
ended, and flushed to the disk before the run ends. Money is never forgotten: a try whose end is in no row may have been
paid for, and so may one whose answer was lost; both stay booked at their highest price when the call is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flashjax.errors import UserError

__all__ = ["Journal"]

Row = dict[str, Any]


class Journal:
    """The replies in ``folder``/journal.jsonl by their key. One process at a time; use it with ``with``.

    Attributes:
        replies: key to the row of its reply; final, as replies are paid for.
        failures: key to the row of the last run that got no reply; asked again by the next one.
        doubtful: key to the rows of its tries that were on their way when a run was killed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / "journal.jsonl"
        self.replies: dict[str, Row] = {}
        self.failures: dict[str, Row] = {}
        self.doubtful: dict[str, list[Row]] = {}
        self._ended: dict[str, float] = {}  # key to the US dollars of all its replies and failures
        self._waiting: list[asyncio.Future] = []
        self._writer: asyncio.Task | None = None

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path.with_name("lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(
                f"Another run is writing to {self.path.parent}; wait for it, or give another folder."
            ) from None
        with contextlib.ExitStack() as locked:
            locked.callback(os.close, self._lock)  # which gives the lock back, if the file is damaged
            self.read()
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            # Half a line of a killed process is cut off, so that the next line begins a line.
            os.ftruncate(self._file, whole_length(self.path))
            os.lseek(self._file, 0, os.SEEK_END)
            locked.pop_all()
        return self

    def read(self) -> Journal:
        """Takes in what the file has, without the lock: for those that only look."""
        for row in read_rows(self.path):
            self._take(row)
        return self

    def __exit__(self, *_) -> None:
        os.close(self._file)
        os.close(self._lock)  # gives the lock back

    def _take(self, row: Row) -> None:
        key = row["key"]
        if row["kind"] == "asked":
            self.doubtful.setdefault(key, []).append(row)
            return
        # It tells the end of its own run's tries, which are the last ones.
        tries = self.doubtful.pop(key, [])
        if before := tries[: max(0, len(tries) - row["tries"])]:
            self.doubtful[key] = before
        self.failures.pop(key, None)
        {"reply": self.replies, "failure": self.failures}[row["kind"]][key] = row
        self._ended[key] = self._ended.get(key, 0.0) + row["dollars"]

    def dollars(self, key: str) -> float:
        """US dollars that a call has cost in all runs, each try whose end nobody saw at its highest price."""
        return self._ended.get(key, 0.0) + sum(row["most"] for row in self.doubtful.get(key, ()))

    @property
    def spent(self) -> float:
        """US dollars of all calls."""
        return sum(self.dollars(key) for key in {**self._ended, **self.doubtful})

    def asked(self, row: Row) -> None:
        """Notes a try before it is made. It outlives the process; only a power failure can lose it."""
        self._append(_line(row))
        self._take(row)

    def finish(self, row: Row) -> None:
        """Notes a reply or a failure. It leaves the process at once: neither Ctrl-C nor a kill loses it then."""
        self._append(_line(row))
        self._take(row)

    async def flushed(self) -> None:
        """Returns when all that was noted is on the disk. Many that wait share one flush."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._flush())
        await asyncio.shield(done)

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(os.fsync, self._file)
            except OSError as error:
                for done in batch:
                    done.set_exception(OSError(error.errno, error.strerror, str(self.path)))
                continue
            for done in batch:
                done.set_result(None)

    def _append(self, data: bytes) -> None:
        start = os.lseek(self._file, 0, os.SEEK_CUR)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            # A full disk took half a line; the next line must not be glued to it.
            os.ftruncate(self._file, start)
            os.lseek(self._file, start, os.SEEK_SET)
            raise OSError(error.errno, error.strerror, str(self.path)) from error


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass") + b"\n"


def whole_length(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    data = path.read_bytes()
    return data.rfind(b"\n") + 1


def read_rows(path: Path) -> Iterator[Row]:
    """All whole lines. Raises UserError for a line in the middle that is not a row: that is damage, not a crash."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            numbers = [row["most"]] if row["kind"] == "asked" else [row["tries"], row["dollars"]]
            known = row["kind"] in ("asked", "reply", "failure") and isinstance(row["key"], str)
            if not known or any(type(n) not in (int, float) for n in numbers):
                raise ValueError("not a row")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"Line {number} of {path} is damaged ({error}); restore the file, or move that line elsewhere. "
                "Nothing was changed."
            ) from error
        yield row
