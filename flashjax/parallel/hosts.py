"""A run on several hosts: its start, which rows of a batch a host reads, and errors of one host told by all.

The launch scripts put FLASHJAX_COORDINATOR, FLASHJAX_PROCESSES and FLASHJAX_PROCESS into the environment, whatever the
cluster calls them (docs/launch.md); without them a run is one process, and everything here does nothing.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from flashjax.errors import UserError
from flashjax.parallel import rollcall

PIECE = 4096  # bytes: texts are gathered in multiples of it, so that one program does for nearly all


def start(facts: Mapping[str, str]) -> None:
    """Meets the other processes and starts JAX with them. ``facts`` is what all have to agree on, beside the code.
    Has to come before anything touches a device. Raises UserError, on every process (rollcall.meet)."""
    where = rollcall.place(os.environ)
    if where is None or where.processes == 1 or jax.distributed.is_initialized():
        return
    rollcall.meet(where, {**rollcall.code_version(), **facts}, rollcall.seconds_to_wait())
    # Ours (stopping.py) also serves a run of one process; JAX's would take SIGTERM away from it.
    jax.config.update("jax_enable_preemption_service", False)
    host, port = where.coordinator
    jax.distributed.initialize(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}", where.processes, where.process,
        cluster_detection_method="deactivate", initialization_timeout=60,
    )  # fmt: skip


def first() -> bool:
    """Whether this is process 0: the one that writes logs, metrics and pictures."""
    return jax.process_index() == 0


def rows_of(sharding: Sharding, batch_size: int) -> np.ndarray:
    """The rows of a batch, int64 [n], that live on this process's devices, ascending: what it has to read."""
    slices = [index[0] for index in sharding.addressable_devices_indices_map((batch_size,)).values()]
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in slices]))


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Where the block fails on one process, by an error that a person can mend, all leave it with one; without this the
    others would wait for that process in their next collective. The block itself must not hold any."""
    try:
        yield
    except (ValueError, OSError) as error:
        _tell(str(error))
        raise
    told = _tell("")
    if told:
        raise UserError(told)


def check_same(facts: Mapping[str, str]) -> None:
    """Raises UserError, on every process, where one has other ``facts``: the contents of data and weights, which each
    may have read from a disk of its own."""
    for process, theirs in enumerate(map(json.loads, _all_texts(json.dumps(facts)))):
        names = [name for name in sorted(facts | theirs) if facts.get(name) != theirs.get(name)]
        if names:
            read, ours = ({name: of.get(name) for name in names[:3]} for of in (theirs, facts))
            more = f" (and {len(names) - 3} more that differ)" if len(names) > 3 else ""
            raise UserError(f"Process {process} has read {read}, process {jax.process_index()} {ours}{more}.")


def _tell(error: str) -> str:
    """Every process's error goes to all; returns the first one's, with the process's number."""
    texts = _all_texts(error)
    return next((f"Process {i} cannot start: {text}" for i, text in enumerate(texts) if text), "")


def _all_texts(text: str) -> list[str]:
    """The texts of all processes; all have to call it. Lengths go first, as what is gathered is as long everywhere."""
    if jax.process_count() == 1:
        return [text]
    mine = text.encode()
    lengths = multihost_utils.process_allgather(np.array([len(mine)], np.int32))[:, 0]
    room = PIECE * max(-(-int(lengths.max()) // PIECE), 1)
    rows = multihost_utils.process_allgather(np.frombuffer(mine.ljust(room, b"\0"), np.uint8))
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def of_first(values: dict) -> dict:
    """What process 0 gives, which JSON can say, on every process; all have to call it."""
    return json.loads(_all_texts(json.dumps(values))[0])


def leave(code: int) -> None:
    """Ends a process of several with ``code``; a run of one process goes on. JAX's own end waits minutes for the others
    and then aborts; process 0 goes last, as its end ends the others."""
    if not jax.distributed.is_initialized():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if first():
        time.sleep(2)
    os._exit(code)
