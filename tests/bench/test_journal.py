"""What was paid for is kept, and no more is spent than was allowed: budgets, full disks, runs killed at any point."""

import dataclasses
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest
from asking import PRICES, make_calls, make_judge, number, run
from fake_judge import GOOD, FakeJudge, Running, completion

from flashjax.bench import journal
from flashjax.bench.journal import Journal
from flashjax.errors import UserError


def test_a_budget_is_never_passed_and_what_was_paid_is_kept(tmp_path, picture):
    with Running(FakeJudge(latency=0.01)) as server:
        judge = make_judge(server.url, prices=PRICES, concurrency=8)
        calls = make_calls(judge, picture, 60)
        rows, dollars = run(calls, tmp_path, budget=0.1)
        done = [r for r in rows if r["outcome"] == "scored"]
        assert 0 < len(done) < 60
        assert dollars == pytest.approx(len(done) * 0.003)  # 1000 tokens at 2 and 100 at 10 dollars a million
        assert dollars <= 0.1
        assert {r["reason"] for r in rows} - {"The roof <b>leans</b>."} == {
            "not asked: the budget of 0.1 US dollars is used up"
        }
        rows, dollars = run(calls, tmp_path, budget=0.2)
        assert {r["outcome"] for r in rows} == {"scored"}
        assert sum(server.seen.values()) == 60
    with pytest.raises(UserError, match="A budget needs prices"):
        run(make_calls(make_judge("http://a/v1"), picture, 1), tmp_path, budget=1.0)


@pytest.mark.parametrize(
    ("total", "paid"), [(1100, 100), (1700, 700), (900, 100), (None, 100), ("1700", 100), (True, 100), (-5, 100)]
)
def test_what_a_model_thinks_is_paid_for(tmp_path, picture, total, paid):
    """Where it is in the total alone: 1000 tokens of the question and 100 of the reply."""
    body = json.loads(completion(json.dumps(GOOD)))
    body["usage"]["total_tokens"] = total
    with Running(FakeJudge(lambda r, n: (200, json.dumps(body).encode()))) as server:
        _, dollars = run(make_calls(make_judge(server.url, prices=PRICES), picture, 1), tmp_path)
    assert dollars == pytest.approx((1000 * PRICES.input + paid * PRICES.output) / 1e6)


def test_a_reply_without_usage_counts_at_its_highest(tmp_path, picture):
    with Running(FakeJudge(lambda r, n: "fenced")) as server:
        calls = make_calls(make_judge(server.url, prices=PRICES), picture, 1)
        _, dollars = run(calls, tmp_path)
    assert dollars == calls[0].most() > 0.01  # 1024 tokens of output at 10 dollars a million


def test_answers_that_nobody_saw_stay_booked_at_their_highest(tmp_path, picture):
    """The endpoint may have charged for each of them; a refused connection, a 429 or a 500 costs nothing."""
    first = {"0": "slow", "1": "reset", "2": "500", "3": (504, b"")}
    with Running(FakeJudge(lambda r, n: first.get(str(number(r)), "good"))) as server:
        patient = make_judge(server.url, "patient", prices=PRICES, timeout=30.0, tries=2)
        calls = make_calls(patient, picture, 4)
        hasty = make_calls(dataclasses.replace(patient, name="hasty", timeout=0.2), picture, 1)
        rows, dollars = run([*hasty, *calls[1:]], tmp_path)
        assert {r["outcome"] for r in rows} == {"failed"}
        assert dollars == pytest.approx(2 * 3 * calls[0].most())
        first.clear()
        rows, dollars = run(calls, tmp_path)
        assert dollars == pytest.approx(4 * 0.003 + 2 * 3 * calls[0].most())
        assert sum(r["dollars"] for r in rows) == pytest.approx(dollars)
    down = make_calls(make_judge("http://127.0.0.1:9/v1", prices=PRICES, tries=1), picture, 3)
    assert run(down, tmp_path / "down")[1] == 0


@pytest.mark.parametrize("fate", ["cut", "reset", "late"])
def test_the_cap_holds_where_every_lost_answer_is_charged(tmp_path, picture, fate):
    """Two answers in three are lost, or all come too late, over four runs in one folder."""
    script, latency = (lambda r, n: "good" if fate == "late" or n % 3 == 0 else fate), 0.5 * (fate == "late")
    with Running(FakeJudge(script, latency)) as server:
        calls = make_calls(make_judge(server.url, prices=PRICES, timeout=0.2 if latency else 5.0, tries=2), picture, 6)
        most = calls[0].most()
        for _ in range(4):
            rows, booked = run(calls, tmp_path, budget=8.5 * most)
        asked, scored = sum(server.seen.values()), sum(r["outcome"] == "scored" for r in rows)
    assert scored < 6  # the cap was felt
    assert (asked - scored) * most + scored * 0.003 <= booked * (1 + 1e-9)
    assert 7 * most < booked <= 8.5 * most


def test_tries_of_a_killed_run_stay_booked(tmp_path):
    """asked twice and killed; asked once more and answered: two tries may have been charged for and stay in doubt."""
    asked = dict(kind="asked", key="a", judge="j", most=0.5)
    with Journal(tmp_path) as book:
        for _ in range(3):
            book.asked(asked)
        book._append(journal._line(dict(kind="reply", key="a", tries=1, dollars=0.125)))
    with Journal(tmp_path) as book:
        assert (list(book.replies), len(book.doubtful["a"]), book.spent) == (["a"], 2, 1.125)


def test_a_reply_leaves_the_process_before_anything_else_happens(tmp_path):
    """Ctrl-C, or a kill while the disk is slow, must not lose what was paid for."""
    with Journal(tmp_path) as book:
        book.asked(dict(kind="asked", key="a", judge="j", most=0.5))
        book.finish(dict(kind="reply", key="a", tries=1, dollars=0.125))
        again = Journal(tmp_path).read()
    assert (list(again.replies), again.spent) == (["a"], 0.125)


def test_two_runs_in_one_folder(tmp_path):
    with Journal(tmp_path), pytest.raises(UserError, match="Another run is writing to"), Journal(tmp_path):
        pass


def test_half_a_last_line_is_ignored_and_damage_is_told(tmp_path):
    rows = [dict(kind="reply", key=k, tries=1, dollars=0.0) for k in "ab"]
    whole = b"".join(journal._line(r) for r in rows)
    path = tmp_path / "journal.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Journal(tmp_path) as book:
            assert list(book.replies) == ["a", "b"][: whole[:cut].count(b"\n")]
            book.asked(dict(kind="asked", key="c", most=0.0))
        assert [r["key"] for r in journal.read_rows(path)] == [*["a", "b"][: whole[:cut].count(b"\n")], "c"]
    for damage in (b"not json\n", b'{"kind": "reply", "key": "a"}\n', b'{"kind": "asked", "key": "a", "most": "1"}\n'):
        path.write_bytes(damage + whole)
        with pytest.raises(UserError, match=r"Line 1 of .* is damaged"), Journal(tmp_path):
            pass
        assert path.read_bytes() == damage + whole


def test_a_full_disk_is_told_and_tears_no_line(tmp_path, picture, monkeypatch):
    real, left = os.write, [700]

    def write(handle, data):
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= len(data)
        return real(handle, data[: len(data) + min(0, left[0])])

    with Running(FakeJudge()) as server:
        calls = make_calls(make_judge(server.url), picture, 10)
        monkeypatch.setattr(journal.os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            run(calls, tmp_path)
        monkeypatch.setattr(journal.os, "write", real)
        rows, _ = run(calls, tmp_path)
    assert {r["outcome"] for r in rows} == {"scored"}


# A process for each line of its input, forked from one that has imported everything. It says its number when it has the
# journal, and how it ended.
CHILD = """
import os
import sys
from pathlib import Path
import aiohttp
from flashjax.bench import judging, rubrics
from flashjax.bench.calls import Call, Judge, read_picture
from flashjax.bench.journal import Journal
url, picture, folder = sys.argv[1:]
judge = Judge("j", url, "m", concurrency=6, timeout=5.0)
picture = read_picture(picture)
calls = [Call(judge, rubrics.T2I, rubrics.t2i_user(f"prompt {i}"), (picture,), subject=dict(prompt=str(i)))
         for i in range(300)]
for _ in sys.stdin:
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    with Journal(folder) as book:
        print(os.getpid(), flush=True)
        unasked = judging.judge(calls, book)
        judging.write_rows(Path(folder) / "scores.jsonl", judging.results(calls, book, unasked))
    os._exit(0)
"""


def test_killed_at_twenty_points_and_resumed(tmp_path, picture):
    """SIGKILL. A reply in the journal is never asked for again; a call whose reply was lost on the way is asked again
    under its key, which an endpoint that knows Idempotency-Key charges once; no row is lost or doubled."""
    rng, kills = random.Random(7), 0
    with Running(FakeJudge(latency=0.03)) as server:
        argv = [sys.executable, "-c", CHILD, server.url, str(picture.path), str(tmp_path / "out")]
        runs = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while True:
            before = {r["key"] for r in journal.read_rows(tmp_path / "out" / "journal.jsonl") if r["kind"] == "reply"}
            asked = {key: server.seen[key] for key in before}
            print("another", file=runs.stdin, flush=True)
            child = int(runs.stdout.readline())
            if kills < 20:
                # Somewhere between the first call and a few dozen calls later.
                wanted = sum(server.seen.values()) + rng.randrange(0, 12)
                end = time.monotonic() + 30
                while sum(server.seen.values()) < wanted and time.monotonic() < end:
                    time.sleep(0.001)
                time.sleep(rng.random() * 0.04)
                os.kill(child, signal.SIGKILL)
            ended = int(runs.stdout.readline())
            assert {key: server.seen[key] for key in before} == asked  # what is in the journal was not asked again
            if kills == 20:
                break
            assert ended == -signal.SIGKILL
            kills += 1
        runs.communicate(timeout=60)
    assert ended == 0
    replies = [r for r in journal.read_rows(tmp_path / "out" / "journal.jsonl") if r["kind"] == "reply"]
    assert len(replies) == len({r["key"] for r in replies}) == 300
    assert len(server.completed) == 300
    assert set(server.completed.values()) == {1}  # charged once each
    rows = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    assert [r["prompt"] for r in rows] == [str(i) for i in range(300)]
    assert {r["value"] for r in rows} == {3.5}


def test_what_was_never_sent_costs_nothing(tmp_path, picture):
    """A host that takes no connection: its queue of waiting ones is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        place = listener.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(place)
        judge = make_judge(f"http://127.0.0.1:{place[1]}/v1", timeout=0.6, tries=1, prices=PRICES)
        rows, spent = run(make_calls(judge, picture, 2), tmp_path)
        for each in waiting:
            each.close()
    assert {r["outcome"] for r in rows} == {"failed"}
    assert spent == 0
