"""The whole path against a real server that misbehaves; tests/bench/fake_judge.py keeps the ledger."""

import asyncio
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

import numpy as np
import pytest
from fake_judge import FakeJudge, Running, completion
from PIL import Image

from flashjax.bench import endpoint, journal, judging, rubrics
from flashjax.bench.calls import Call, Judge, Prices, read_picture
from flashjax.bench.journal import Journal
from flashjax.bench.secret import Secret
from flashjax.errors import UserError

CANARY = "sk-canary-5f2b9c71e04d"
PRICES = Prices(input=2.0, output=10.0, image_tokens=1000)


def make_judge(url: str, name: str = "j", **fields) -> Judge:
    return Judge(**dict(name=name, url=url, model="m", timeout=2.0, tries=4, concurrency=4) | fields)


def make_calls(judge: Judge, picture, count: int) -> list[Call]:
    return [
        Call(judge, rubrics.T2I, rubrics.t2i_user(f"prompt {i}"), (picture,), subject=dict(prompt=str(i)))
        for i in range(count)
    ]


def run(calls, folder, budget=None):
    with Journal(folder) as book:
        unasked = judging.judge(calls, book, budget)
        return judging.results(calls, book, unasked), book.spent


def number(request) -> int:
    return int(request["messages"][1]["content"][0]["text"].split("prompt ")[1].split()[0])


WITHIN = (200, b'{"error": {"code": 429, "message": "busy"}}')  # of a router that says 200 before the model answers
TROUBLE = ["429", "429-date", "500", "503", "reset", "cut", (522, b""), WITHIN]
FINAL = {
    "good": "scored", "fenced": "scored", "truncated": "unparsable", "schema": "unparsable", "text-score": "unparsable",
    "refusal": "refused", "filter": "refused", "safety": "refused", "prohibited": "refused", "range": "out_of_range",
    "nan": "out_of_range", "huge": "out_of_range", "empty": "unparsable",
}  # fmt: skip


def test_every_call_ends_scored_or_with_its_reason(tmp_path, picture):
    """All troubles in front of all ends; each question is answered once, with one row, in the plan's order."""
    ends, answers = list(FINAL), {}

    def script(request, nth):
        n = number(request)
        if nth <= n % 3:
            return TROUBLE[(n + nth) % len(TROUBLE)]
        answers[n] = answers.get(n, 0) + 1
        return ends[n % len(ends)]

    with Running(FakeJudge(script)) as server:
        judges = [make_judge(server.url, name, model=name) for name in ("one", "two")]
        calls = [c for j in judges for c in make_calls(j, picture, 78)]
        rows, _ = run(calls, tmp_path / "out")
    assert [(r["judge"], r["prompt"]) for r in rows] == [(j.name, str(i)) for j in judges for i in range(78)]
    for row in rows:
        assert row["outcome"] == FINAL[ends[int(row["prompt"]) % len(ends)]], row
        assert (row.get("value") is not None) == (row["outcome"] == "scored")
        assert row["reason"]
    assert set(answers.values()) == {2}  # one a judge
    assert judging.counts(rows)["one"] == judging.counts(rows)["two"]
    assert judging.counts(rows)["one"]["scored"] == 12


def test_what_never_answers_is_a_failure_and_is_asked_again_by_the_next_run(tmp_path, picture):
    broken = {"3": "slow", "5": "500", "7": "reset", "9": (400, b'{"error": {"message": "odd"}}')}
    with Running(FakeJudge(lambda r, nth: broken.get(str(number(r)), "good"))) as server:
        calls = make_calls(make_judge(server.url, timeout=0.2, tries=2), picture, 12)
        rows, _ = run(calls, tmp_path)
        assert {r["prompt"]: r["outcome"] for r in rows if r["outcome"] != "scored"} == {
            "3": "failed", "5": "failed", "7": "failed", "9": "rejected",
        }  # fmt: skip
        reasons = {r["prompt"]: r["reason"] for r in rows}
        assert reasons["3"] == "no answer within 0.2 s"
        assert reasons["5"] == "status 500: busy"
        assert reasons["9"] == "status 400: odd"
        asked = sum(server.seen.values())
        broken.clear()
        rows, _ = run(calls, tmp_path)
        assert {r["outcome"] for r in rows} == {"scored"}
        assert sum(server.seen.values()) == asked + 4


@pytest.mark.parametrize(("status", "code"), [(400, "content_filter"), (403, "moderation")])
def test_a_content_filter_in_front_of_the_model_is_a_refusal(tmp_path, picture, status, code):
    body = f'{{"error": {{"code": "{code}", "message": "flagged"}}}}'.encode()
    with Running(FakeJudge(lambda r, n: (status, body) if number(r) == 0 else "good")) as server:
        rows, _ = run(make_calls(make_judge(server.url, concurrency=1), picture, 2), tmp_path)
    assert [r["outcome"] for r in rows] == ["refused", "scored"]
    assert rows[0]["reason"] == f"status {status}: {code} flagged"


def test_a_picture_that_is_gone_stops_its_own_call_alone(tmp_path, picture):
    """What is on its way is paid for, and is not called back."""
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(tmp_path / "b.png")
    other = read_picture(tmp_path / "b.png")
    (tmp_path / "b.png").unlink()
    with Running(FakeJudge(latency=0.05)) as server:
        judge = make_judge(server.url)
        lost = dataclasses.replace(make_calls(judge, other, 1)[0], user="lost")
        rows, _ = run([*make_calls(judge, picture, 2), lost, *make_calls(judge, picture, 5)[2:]], tmp_path / "out")
    assert [r["outcome"] for r in rows] == ["scored", "scored", "not_asked", "scored", "scored", "scored"]
    assert rows[2]["reason"] == f"not asked: The picture {tmp_path}/b.png cannot be read: No such file or directory."
    assert sum(server.seen.values()) == len(server.completed) == 5


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        ((401, b'{"error": {"message": "Incorrect API key: ' + CANARY.encode() + b'"}}'), "refuses the key of judge j"),
        ((429, b"quota", "Retry-After: 7200\r\n"), "wants judge j to come back in 120 minutes (status 429: quota)"),
        ((404, b"{}"), "has no model m, or is no OpenAI-compatible API"),
        ((400, b'{"error": {"message": "no images"}}'), "gave no reply to 8 calls in a row: status 400: no images"),
    ],
)
def test_an_endpoint_that_no_call_can_please_stops_its_judge_alone(tmp_path, picture, action, sentence):
    with Running(FakeJudge(lambda r, n: action)) as bad, Running(FakeJudge()) as good:
        judges = [make_judge(bad.url, "j", key=Secret(CANARY)), make_judge(good.url, "other", model="n")]
        rows, _ = run([c for j in judges for c in make_calls(j, picture, 60)], tmp_path)
        assert sum(bad.seen.values()) <= 12
    assert {r["outcome"] for r in rows if r["judge"] == "other"} == {"scored"}
    stopped = [r for r in rows if r["outcome"] == "not_asked"]
    assert len(stopped) >= 48
    assert all(sentence in r["reason"] for r in stopped)


def test_a_judge_whose_replies_are_none_is_not_paid_for_all_calls(tmp_path, picture):
    """A thinking model that runs into max_tokens before it answers; a reply that can be read begins the count anew."""
    with Running(FakeJudge(lambda r, n: "good" if len(server.requests) == 5 else "truncated")) as server:
        rows, _ = run(make_calls(make_judge(server.url, concurrency=1), picture, 40), tmp_path)
    outcomes = ["unparsable"] * 4 + ["scored"] + ["unparsable"] * 20 + ["not_asked"] * 15
    assert [r["outcome"] for r in rows] == outcomes
    told = f"the last 20 replies of judge j at {server.url} cannot be read (not JSON; it ran into max_tokens: "
    assert told in rows[-1]["reason"]
    assert "wants more max_tokens" in rows[-1]["reason"]


def test_nobody_listens(tmp_path, picture):
    rows, _ = run(make_calls(make_judge("http://127.0.0.1:9/v1", tries=1), picture, 20), tmp_path)
    assert "the connection failed" in rows[-1]["reason"]


def test_one_call_repeated_is_one_question(tmp_path, picture):
    with Running(FakeJudge()) as server:
        calls = make_calls(make_judge(server.url), picture, 3)
        rows, _ = run(calls + calls, tmp_path)
        run(calls, tmp_path)
    assert sum(server.seen.values()) == 3
    assert len(rows) == 6


def test_the_key_of_the_cache_is_all_that_decides_a_reply(picture, tmp_path):
    other = tmp_path / "b.png"
    Image.fromarray(np.ones((8, 8, 3), np.uint8)).save(other)
    base = Call(make_judge("http://a/v1"), rubrics.T2I, "u", (picture,))
    variants = [
        Call(make_judge("http://b/v1"), rubrics.T2I, "u", (picture,)),
        Call(make_judge("http://a/v1", model="x"), rubrics.T2I, "u", (picture,)),
        Call(make_judge("http://a/v1", params={"max_tokens": 5}), rubrics.T2I, "u", (picture,)),
        Call(make_judge("http://a/v1", reply_format="text"), rubrics.T2I, "u", (picture,)),
        Call(base.judge, rubrics.PAIR, "u", (picture,)),
        Call(base.judge, rubrics.T2I._replace(schema={}), "u", (picture,)),
        Call(base.judge, rubrics.T2I, "v", (picture,)),
        Call(base.judge, rubrics.T2I, "u", (read_picture(other),)),
        Call(base.judge, rubrics.T2I, "u", (picture, picture)),
        Call(base.judge, rubrics.T2I, "u", (picture,), salt="drift 1"),
    ]
    assert len({c.key for c in [base, *variants]}) == 11
    same = Call(make_judge("http://a/v1/", "other name", timeout=9.0), rubrics.T2I, "u", (picture,), subject={"a": 1})
    assert same.key == base.key


def test_two_servers_whose_models_have_one_name_are_two_judges(tmp_path, picture):
    harsh = completion(json.dumps({"score": 1.0, "reasoning": "harsh"}))
    with Running(FakeJudge()) as one, Running(FakeJudge(lambda r, n: (200, harsh))) as two:
        judges = [make_judge(s.url, name, model="default") for s, name in ((one, "one"), (two, "two"))]
        rows, _ = run([c for j in judges for c in make_calls(j, picture, 3)], tmp_path)
    assert [(r["judge"], r["value"]) for r in rows] == [("one", 3.5)] * 3 + [("two", 1.0)] * 3


def test_what_is_sent(tmp_path, picture):
    with Running(FakeJudge()) as server:
        judge = make_judge(server.url, key=Secret(CANARY), params={"max_tokens": 7, "temperature": 0})
        run(make_calls(judge, picture, 1), tmp_path)
    sent, headers = server.requests[0], server.headers[0]
    assert headers["authorization"] == f"bearer {CANARY}"
    assert sent["model"] == "m"
    assert (sent["max_tokens"], sent["temperature"]) == (7, 0)
    assert sent["messages"][0] == {"role": "system", "content": rubrics.T2I.system}
    text, image = sent["messages"][1]["content"]
    assert text["text"] == "The prompt:\n<<<\nprompt 0\n>>>"
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert sent["response_format"]["json_schema"]["schema"]["required"] == ["score", "reasoning"]


def test_concurrency_rate_and_retry_after_hold(tmp_path, picture):
    with Running(FakeJudge(latency=0.02)) as server:
        run(make_calls(make_judge(server.url, concurrency=5), picture, 40), tmp_path / "a")
        assert server.most == 5
    with Running(FakeJudge()) as server:
        run(make_calls(make_judge(server.url, per_minute=3000), picture, 15), tmp_path / "b")
        assert server.starts[-1] - server.starts[0] > 0.9 * 14 * 60 / 3000
    first = []

    def script(request, nth):
        first.append(1)
        return (429, b"{}", "Retry-After: 0.3\r\n") if len(first) == 1 else "good"

    with Running(FakeJudge(script)) as server:
        run(make_calls(make_judge(server.url, concurrency=1), picture, 4), tmp_path / "c")
        assert server.starts[1] - server.starts[0] > 0.29


def test_what_waits_for_its_turn_is_not_in_doubt(tmp_path, picture):
    """A run that is killed books a highest price for each try in doubt: only what was sent can be."""
    written, sent = [], []

    def script(request, nth):
        sent.append(1)
        written.append(sum(r["kind"] == "asked" for r in journal.read_rows(tmp_path / "journal.jsonl")) - len(sent))
        return "good"

    with Running(FakeJudge(script)) as server:
        run(make_calls(make_judge(server.url, per_minute=1200), picture, 4), tmp_path)
    assert written == [0] * 4


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
def test_retry_after(value, seconds):
    assert endpoint.retry_after({"retry-after": value}) == seconds


@pytest.mark.parametrize("wait", [None, 0.0])
def test_a_retry_after_that_is_over_is_no_leave_to_hammer(monkeypatch, wait):
    """A date of a clock that goes wrong: all tries of a call would be gone at once."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(endpoint.asyncio, "sleep", sleep)
    asyncio.run(endpoint.Endpoint(make_judge("http://h/v1"))._pause(3, wait))
    assert slept
    assert 0.5 <= slept[0] / (4 * endpoint._FIRST_PAUSE) <= 1


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


def test_a_limited_rate_loses_no_call(tmp_path, picture):
    """All workers come back when they were told to, and most are sent away again: that is no failure of theirs."""
    tokens, begun = [3], time.monotonic()

    def script(request, nth):
        tokens[0] = min(3, tokens[0] + 30 * (time.monotonic() - tokens[1]) if len(tokens) > 1 else 3)
        tokens[1:] = [time.monotonic()]
        if tokens[0] < 1:
            return "429"
        tokens[0] -= 1
        return "good"

    with Running(FakeJudge(script)) as server:
        rows, _ = run(make_calls(make_judge(server.url, tries=2, concurrency=12, timeout=30.0), picture, 36), tmp_path)
    assert {r["outcome"] for r in rows} == {"scored"}, time.monotonic() - begun


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


def test_a_scale_of_its_own_stops_a_judge(tmp_path, picture):
    """Each reply is paid for, and says 8 of 10."""
    with Running(FakeJudge(lambda r, n: "range")) as server:
        rows, _ = run(make_calls(make_judge(server.url, concurrency=1), picture, 60), tmp_path)
        assert sum(server.seen.values()) < 40
    assert {r["outcome"] for r in rows} == {"out_of_range", "not_asked"}


def test_a_reply_of_backslashes_is_read_at_once():
    begun = time.process_time()
    assert CANARY not in Secret(CANARY).hide("\\" * 400_000 + CANARY)
    assert time.process_time() - begun < 5  # quadratic, it took minutes
