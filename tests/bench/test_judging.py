"""The whole path against a real server that misbehaves; tests/bench/fake_judge.py keeps the ledger."""

import asyncio
import dataclasses
import json
import time

import numpy as np
import pytest
from asking import make_calls, make_judge, number, run
from fake_judge import FakeJudge, Running, completion
from PIL import Image

from flashjax.bench import endpoint, journal, judging, rubrics
from flashjax.bench.calls import Call, read_picture
from flashjax.bench.secret import Secret

CANARY = "sk-canary-5f2b9c71e04d"
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
            return "slow" if n == 40 else TROUBLE[(n + nth) % len(TROUBLE)]  # which takes the judge's whole timeout
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


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        (400, dict(message="Unrecognized request argument supplied: safety_identifier"), "rejected"),
        (400, dict(code="unknown_parameter", message="Unknown parameter: 'moderation'."), "rejected"),
        (401, dict(message="Invalid key for project safety-eval"), "failed"),
        (401, dict(code="moderation", message="no key"), "failed"),
        (403, dict(message="project moderation-eval has no access"), "failed"),
        (404, dict(message="no model safety-judge"), "failed"),
        (403, dict(code=403, message="m requires moderation on R. Your input was flagged for violence."), "refused"),
        (400, dict(message="triggering Azure OpenAI's content management policy"), "refused"),
        (400, dict(type="content_policy_violation", message="no"), "refused"),
        (400, dict(code="moderation_blocked", message="Rejected by our safety system."), "refused"),
        (400, dict(code="data_inspection_failed", message="inappropriate"), "refused"),
        (422, "stopped by a safety filter", "refused"),
    ],
)  # fmt: skip
def test_a_word_of_safety_makes_no_refusal(tmp_path, picture, status, error, outcome):
    """A refusal stays in the journal for ever; a wrong key or parameter is mended."""
    data = json.dumps(dict(error=error)).encode()
    with Running(FakeJudge(lambda r, n: (status, data))) as server:
        rows, _ = run(make_calls(make_judge(server.url), picture, 1), tmp_path)
    assert [r["outcome"] for r in rows] == [outcome]


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
    [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("nan", None), ("inf", None), ("soon", None), ("", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", None)],
)  # fmt: skip
def test_retry_after(value, seconds):
    assert endpoint.retry_after({"retry-after": value}) == seconds


@pytest.mark.parametrize("wait", [None, 0.0])
def test_a_retry_after_that_is_over_is_no_leave_to_hammer(monkeypatch, wait):
    """A date of a clock that goes wrong: all tries of a call would be gone at once."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(endpoint.asyncio, "sleep", sleep)
    asyncio.run(endpoint.Endpoint(make_judge("http://h/v1"))._pause(endpoint.Try(500, wait, ""), False, 3, 0.0))
    assert slept
    assert 0.5 <= slept[0] / (4 * endpoint._FIRST_PAUSE) <= 1


@pytest.mark.parametrize("wait", [None, 0.0])
def test_a_busy_endpoint_is_left_alone_by_all_calls(monkeypatch, wait):
    """For longer each time, but once for all that were on their way together."""
    now = [1000.0]
    monkeypatch.setattr(endpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(endpoint.random, "uniform", lambda low, high: high)
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 0.5)
    one, pauses, busy = endpoint.Endpoint(make_judge("http://h/v1")), [], endpoint.Try(429, wait, "")
    for _ in range(9):
        sent, now[0] = now[0], now[0] + 0.1
        for _ in range(3):
            assert one._heed(busy)
            asyncio.run(one._pause(busy, True, 0, sent))
        pauses.append(round(one._not_before - now[0], 6))
        now[0] = one._not_before
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def asked_of(tries, **fields):
    """The reply of an endpoint whose tries end so, after one that was answered."""
    told = iter([endpoint.Try(200, None, "", {}), *tries])

    class Scripted(endpoint.Endpoint):
        async def _once(self, key, data):
            return next(told)

    async def admit():
        return True

    async def both():
        one = Scripted(make_judge("http://h/v1", tries=2, **fields))
        await one.ask("a", b"", admit, lambda one: None)
        return await one.ask("b", b"", admit, lambda one: None)

    return asyncio.run(both())


@pytest.mark.parametrize("status", [429, 503, endpoint._UNSENT])
def test_what_is_busy_or_starts_anew_uses_up_no_try(monkeypatch, status):
    monkeypatch.setattr(endpoint, "_FIRST_PAUSE", 1e-4)
    busy = [endpoint.Try(status, None, "away")] * 8
    assert asked_of([*busy, endpoint.Try(200, None, "", {})]).tries == 9
    failed = asked_of([*busy, *[endpoint.Try(500, None, "broken")] * 2])
    assert (failed.kind, failed.tries, failed.trouble, failed.barred) == ("failed", 10, "broken", False)


def test_what_is_busy_for_minutes_stops_its_judge(monkeypatch):
    monkeypatch.setattr(endpoint, "_GRACE", 0.2)
    failed = asked_of([endpoint.Try(429, None, "status 429: no quota")] * 1000, timeout=0.1)
    assert 2 < failed.tries < 50
    assert failed.barred
    assert failed.trouble == (
        "The endpoint http://h/v1 has turned judge j away for 0 minutes (status 429: no quota); start again later."
    )


def test_a_server_that_is_overloaded_for_a_while_loses_no_call(tmp_path, picture):
    begun = []

    def script(request, nth):
        begun.append(time.monotonic())
        return "503" if begun[-1] - begun[0] < 0.5 else "good"

    with Running(FakeJudge(script)) as server:
        rows, _ = run(make_calls(make_judge(server.url, tries=1), picture, 12), tmp_path)
    assert {r["outcome"] for r in rows} == {"scored"}


@pytest.mark.parametrize("form", ["%s", "[%s]"])
def test_a_delay_in_the_body_is_waited_for(tmp_path, picture, form):
    """As Google has it, alone or in a list."""
    info = dict(details=[{"@type": "type.googleapis.com/google.rpc.Help"}, dict(retryDelay="0.3s")])
    data = (form % json.dumps(dict(error=dict(code=429, message="quota") | info))).encode()
    with Running(FakeJudge(lambda r, n: (429, data) if len(server.requests) == 1 else "good")) as server:
        run(make_calls(make_judge(server.url, concurrency=1, tries=1), picture, 2), tmp_path)
        assert server.starts[1] - server.starts[0] > 0.29


@pytest.mark.parametrize(
    ("details", "wait"),
    [([dict(retryDelay="37s")], 37.0), ([dict(retryDelay="1.5s")], 1.5), ([dict(retryDelay="soon")], None),
     ([dict(retryDelay=3)], None), ([7], None), ("37s", None), (None, None)],
)  # fmt: skip
def test_delays_in_bodies(details, wait):
    assert endpoint._delay(dict(details=details)) == wait


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


def test_a_scale_of_its_own_stops_a_judge(tmp_path, picture):
    """Each reply is paid for, and says 8 of 10."""
    with Running(FakeJudge(lambda r, n: "range")) as server:
        rows, _ = run(make_calls(make_judge(server.url, concurrency=1), picture, 60), tmp_path)
        assert sum(server.seen.values()) < 40
    assert {r["outcome"] for r in rows} == {"out_of_range", "not_asked"}
