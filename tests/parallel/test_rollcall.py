"""Processes meet before JAX starts: who is missing, who differs, and where to look, in one sentence on every one."""

import os
import socket
import threading
import time

import pytest

from flashjax.errors import UserError
from flashjax.parallel import rollcall

statuses: set[int] = set()  # of all errors of a test
FACTS = {"config.seed": "0", "the step table": "abc"}


@pytest.fixture
def port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def meet(port: int, *who: tuple[int, dict], processes: int, seconds: float = 0.7, host="localhost") -> list[str]:
    """What each process is told: empty, or its error."""
    told = [""] * len(who)
    statuses.clear()

    def come(i: int, process: int, facts: dict) -> None:
        where = rollcall.Place((host, port), processes, process)
        try:
            rollcall.meet(where, facts, seconds)
        except UserError as error:
            told[i] = str(error)
            statuses.add(error.status)

    threads = [threading.Thread(target=come, args=(i, *args)) for i, args in enumerate(who)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return told


def test_all_come_and_agree(port):
    assert meet(port, *[(i, FACTS) for i in range(4)], processes=4, seconds=10) == [""] * 4


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif("not has_ipv6()"))])
def test_the_coordinators_address_may_be_of_either_kind(port, host):
    assert meet(port, (0, FACTS), (1, FACTS), processes=2, seconds=5, host=host) == ["", ""]


def test_a_system_without_ipv6_meets_by_ipv4(port, monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    assert meet(port, (0, FACTS), (1, FACTS), processes=2, seconds=5, host="127.0.0.1") == ["", ""]


def test_process_0_may_come_last(port):
    told = []
    late = threading.Timer(0.5, lambda: told.extend(meet(port, (0, FACTS), processes=2, seconds=10)))
    late.start()
    assert meet(port, (1, FACTS), processes=2, seconds=10) == [""]
    late.join()
    assert told == [""]


def test_one_that_differs_is_named_to_all(port):
    told = meet(port, (0, FACTS), (1, FACTS), (2, FACTS | {"config.seed": "1"}), processes=3, seconds=10)
    assert len(set(told)) == 1
    assert "Process 2 differs from process 0: config.seed is 1 there and 0 on 0. Start all processes" in told[0]
    assert statuses == {2}


def test_another_number_of_processes_is_a_difference(port):
    where = [rollcall.Place(("localhost", port), count, i) for i, count in enumerate((2, 3))]
    told = []

    def come() -> None:
        with pytest.raises(UserError) as caught:
            rollcall.meet(where[1], FACTS, 10)
        told.append(str(caught.value))

    other = threading.Thread(target=come)
    other.start()
    with pytest.raises(UserError, match="FLASHJAX_PROCESSES is 3 there and 2 on 0"):
        rollcall.meet(where[0], FACTS, 10)
    other.join(20)
    assert "FLASHJAX_PROCESSES is 3 there" in told[0]


def test_who_did_not_come_is_named_to_all(port):
    told = meet(port, (0, FACTS), (2, FACTS), processes=5)
    assert len(set(told)) == 1
    assert f"3 of 5 processes (1, 3, 4) did not come to port {port} of process 0 within" in told[0]
    assert statuses == {rollcall.ABSENT}  # a cluster that lost a machine may still be looking for another


def test_one_number_twice(port):
    told = meet(port, (0, FACTS), (1, FACTS), (1, FACTS), processes=3, seconds=3)
    assert all("Two processes say that they are number 1" in text for text in told)


@pytest.mark.parametrize("host", ["localhost", "no.such.host.invalid"])
def test_no_coordinator_is_told_within_seconds(port, host):
    began = time.monotonic()
    with pytest.raises(rollcall.Absent, match=rf"Process 1 finds no process 0 at {host}:{port} \(.+\) within \d s;"):
        rollcall.meet(rollcall.Place((host, port), 2, 1), FACTS, 0.5)
    assert time.monotonic() - began < 5


def test_a_port_that_is_taken(port):
    with socket.create_server(("", port)), pytest.raises(UserError, match=f"cannot listen on port {port}"):
        rollcall.meet(rollcall.Place(("localhost", port), 2, 0), FACTS, 1)


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n\n", b"[]\n", b'{"process": "x", "facts": {}}\n', b"", b'{"a']
)
def test_a_stranger_is_not_counted(port, said):
    def call():
        for _ in range(50):
            try:
                with socket.create_connection(("localhost", port)) as connection:
                    connection.sendall(said)
                return
            except OSError:
                time.sleep(0.02)

    stranger = threading.Thread(target=call)
    stranger.start()
    assert meet(port, (0, FACTS), (1, FACTS), processes=2, seconds=10) == ["", ""]
    stranger.join()


def test_the_place_is_read_from_the_environment():
    names = dict(FLASHJAX_COORDINATOR="tpu-0:8476", FLASHJAX_PROCESSES="8", FLASHJAX_PROCESS="7")
    assert rollcall.place(names) == rollcall.Place(("tpu-0", 8476), 8, 7)
    assert rollcall.place(names | dict(FLASHJAX_COORDINATOR="[::1]:80")).coordinator == ("::1", 80)
    assert rollcall.place({}) is None
    for changed, words in (
        (dict(FLASHJAX_PROCESS=""), "FLASHJAX_PROCESS is not set; a run of several processes needs FLASHJAX_COORD"),
        (dict(FLASHJAX_PROCESS="8"), "FLASHJAX_PROCESSES is '8' and FLASHJAX_PROCESS '8'; they have to be"),
        (dict(FLASHJAX_PROCESSES="many"), "FLASHJAX_PROCESSES is 'many'"),
        (dict(FLASHJAX_COORDINATOR="tpu-0"), "FLASHJAX_COORDINATOR is 'tpu-0'; it has to be HOST:PORT"),
        (dict(FLASHJAX_COORDINATOR="tpu-0:99999"), "it has to be HOST:PORT"),
    ):
        with pytest.raises(UserError, match=words):
            rollcall.place(names | changed)
    assert rollcall.seconds_to_wait({}) == 60
    assert rollcall.place(dict(FLASHJAX_PROCESSES="1")) is None
    for text in ("long", "inf", "nan", "-1", "1e300"):
        with pytest.raises(UserError, match=f"FLASHJAX_WAIT is '{text}'; it has to be a number of seconds, 604800 at"):
            rollcall.seconds_to_wait(dict(FLASHJAX_WAIT=text))


def test_the_code_version_is_of_the_sources(tmp_path, monkeypatch):
    (tmp_path / "parallel").mkdir()
    monkeypatch.setattr(rollcall, "__file__", os.fspath(tmp_path / "parallel" / "rollcall.py"))
    hashes = []
    for name, text in (("a.py", "x"), ("a.py", "y"), ("b.py", "y")):
        (tmp_path / name).write_text(text)
        hashes.append(rollcall.code_version()["flashjax's code"])
    assert len(set(hashes)) == 3
    assert "jaxlib" in rollcall.code_version()
