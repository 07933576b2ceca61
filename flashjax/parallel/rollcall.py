"""The hosts of a run meet before JAX starts: who is missing and who differs is said in a sentence, on every host.

``jax.distributed.initialize`` cannot say either: without its coordinator, or with one host too few, it ends the process
from C++ with a stack trace, and hosts with different programs meet in a collective that never ends. So process 0
listens on the coordinator's port first, hears every other process once, and answers all of them alike.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flashjax.errors import UserError

NAMES = ("FLASHJAX_COORDINATOR", "FLASHJAX_PROCESSES", "FLASHJAX_PROCESS")
ABSENT = 77  # status of a process that waited for others in vain: a cluster that still looks for machines may try again
LONGEST = 1 << 20  # bytes of a message: a configuration is a few thousand


class Absent(UserError):
    """Processes did not come in time."""

    status = ABSENT


class Place(NamedTuple):
    """Where this process stands in the run: the coordinator's (host, port), how many processes, which one."""

    coordinator: tuple[str, int]
    processes: int
    process: int


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that the FLASHJAX_* variables describe; None for a run of one process: without them, or where they say
    no more than that it is one."""
    given = {name: environment.get(name, "") for name in NAMES}
    if not any(given.values()) or (given[NAMES[1]] == "1" and not given[NAMES[0]]):
        return None
    missing = [name for name in NAMES if not given[name]]
    if missing:
        raise UserError(f"{missing[0]} is not set; a run of several processes needs {', '.join(NAMES)}.")
    host, _, port = given[NAMES[0]].rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise UserError(f"{NAMES[0]} is {given[NAMES[0]]!r}; it has to be HOST:PORT.")
    if not all(given[name].isdigit() for name in NAMES[1:]) or int(given[NAMES[2]]) >= int(given[NAMES[1]]):
        raise UserError(
            f"{NAMES[1]} is {given[NAMES[1]]!r} and {NAMES[2]} {given[NAMES[2]]!r}; they have to be a number of "
            "processes and one of 0, 1, ... below it."
        )
    return Place((host.strip("[]"), int(port)), int(given[NAMES[1]]), int(given[NAMES[2]]))


def code_version() -> dict[str, str]:
    """What decides the compiled programs beside the configuration: a hash of flashjax's sources, and the versions of
    the packages that compile and update."""
    root, h = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        h.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")
    return {"flashjax's code": h.hexdigest()[:16]} | {name: importlib.metadata.version(name) for name in packages}


def meet(where: Place, facts: Mapping[str, str], seconds: float) -> None:
    """Returns when all processes have come and have the same ``facts``.

    Raises UserError, the same on every process that has come: for processes that did not come within ``seconds``, that
    claim the same number, or whose facts differ from process 0's. Where process 0 is missing, the others say so. Of
    processes that did not come it is `Absent`."""
    deadline = time.monotonic() + seconds
    facts = {**facts, "FLASHJAX_PROCESSES": str(where.processes)}
    error = _listen(where, facts, deadline) if where.process == 0 else _report(where, facts, deadline)
    if error:
        raise error


def _listen(where: Place, facts: Mapping[str, str], deadline: float) -> UserError | None:
    """Process 0: hears the others, and tells them what is wrong, or nothing."""
    began, heard, error = time.monotonic(), {0: dict(facts)}, None
    with contextlib.ExitStack() as opened:
        server, answered = opened.enter_context(_server(where.coordinator[1])), []
        while len(heard) < where.processes and not error and time.monotonic() < deadline:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = opened.enter_context(server.accept()[0])
                message = _read(connection, seconds=2)
                process, theirs = int(message["process"]), dict(message["facts"])
            except (OSError, ValueError, TypeError, KeyError):
                continue  # the deadline, or a stranger: open ports get scanned
            answered.append(connection)
            if process in heard:
                error = UserError(
                    f"Two processes say that they are number {process}; give each its own FLASHJAX_PROCESS."
                )
            heard[process] = theirs
        error = error or _verdict(where, heard, time.monotonic() - began)
        for connection in answered:
            with contextlib.suppress(OSError):  # one that has gone meanwhile is missed later
                answer = dict(error=str(error or ""), absent=isinstance(error, Absent))
                connection.sendall(json.dumps(answer).encode() + b"\n")
    return error


def _server(port: int) -> socket.socket:
    """Listens by IPv4 and, where the system has it, IPv6: the coordinator's name may stand for an address of either."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"Process 0 cannot listen on port {port} ({error.strerror}); give another port in FLASHJAX_COORDINATOR."
        ) from error


def _verdict(where: Place, heard: dict[int, dict[str, str]], waited: float) -> UserError | None:
    """What is wrong with the processes that were heard."""
    ours = heard[0]
    for process, theirs in sorted(heard.items()):
        names = [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]
        if names:
            told = "; ".join(f"{n} is {theirs.get(n)} there and {ours.get(n)} on 0" for n in names[:3])
            more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
            return UserError(
                f"Process {process} differs from process 0: {told}{more}. Start all processes with the same code, "
                "packages, configuration and arguments."
            )
    missing = sorted(set(range(where.processes)) - set(heard))
    if missing:
        named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        return Absent(
            f"{len(missing)} of {where.processes} processes ({named}) did not come to port {where.coordinator[1]} of "
            f"process 0 within {waited:.0f} s; look at their logs, or wait longer with FLASHJAX_WAIT."
        )
    return None


def _report(where: Place, facts: Mapping[str, str], deadline: float) -> UserError | None:
    """Every other process: tells process 0 its facts and returns the answer."""
    host, port = where.coordinator
    message = json.dumps(dict(process=where.process, facts=dict(facts))).encode() + b"\n"
    reason, began = "nobody answers", time.monotonic()
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=2) as connection:
                connection.sendall(message)
                # It answers when all have come, or at its own deadline, which may have begun later than ours.
                answer = _read(connection, seconds=2 * (deadline - began) + 5)
                kind = Absent if answer.get("absent") else UserError
                return kind(answer["error"]) if answer["error"] else None
        except (OSError, ValueError, KeyError) as error:  # not there yet, or not known by this name yet
            reason = getattr(error, "strerror", None) or reason
            time.sleep(0.2)
    return Absent(
        f"Process {where.process} finds no process 0 at {host}:{port} ({reason}) within "
        f"{time.monotonic() - began:.0f} s; start it, correct FLASHJAX_COORDINATOR, or wait longer with FLASHJAX_WAIT."
    )


def _read(connection: socket.socket, seconds: float) -> dict:
    """One line of JSON, an object. Raises OSError or ValueError."""
    data, deadline = b"", time.monotonic() + seconds
    while not data.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        piece = connection.recv(1 << 16)
        data += piece
        if not piece or len(data) > LONGEST:
            raise ValueError("no message")
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("no message of ours")
    return message


LONGEST_WAIT = 7 * 24 * 3600  # sockets take no wait that is much longer


def seconds_to_wait(environment: Mapping[str, str] = os.environ) -> float:
    """FLASHJAX_WAIT: for how long processes wait for each other at the start."""
    text = environment.get("FLASHJAX_WAIT", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise UserError(f"FLASHJAX_WAIT is {text!r}; it has to be a number of seconds, {LONGEST_WAIT} at most.")
    return seconds
