"""A plan of calls becomes results: every call ends scored or with its reason, and nothing is paid for twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flashjax.bench.calls import Call, Judge, cost
from flashjax.bench.endpoint import Endpoint, Reply, Try
from flashjax.bench.journal import Journal, Row
from flashjax.bench.rubrics import clean, read_reply
from flashjax.errors import UserError
from flashjax.files import write_whole

__all__ = ["Budget", "as_lines", "check_budget", "counts", "dry_run", "judge", "results", "write_rows"]

_GIVE_UP = 8  # calls in a row without a reply: the endpoint is down, or wants something else
_UNREAD = 20  # replies in a row that are none: every further one would be paid for in vain


class Budget:
    """US dollars: what was spent, and what is promised to tries on their way, each at its highest price. No try is made
    without a promise, and one whose answer was lost is booked at all that it was promised, so that the cap holds even
    where an endpoint charges for each of them."""

    def __init__(self, cap: float | None, spent: float = 0.0) -> None:
        self.cap, self.spent = cap, spent
        self._promised, self._flying, self._settled = 0.0, 0, asyncio.Event()

    async def promise(self, dollars: float) -> bool:
        """Whether a try of at most so many dollars fits; if so, they are set aside. Tries on their way mostly cost less
        than was set aside for them, so that their end is waited for before the answer is no."""
        while self.cap is not None and self.spent + self._promised + dollars > self.cap:
            if not self._flying:
                return False
            self._settled.clear()
            await self._settled.wait()
        self._promised += dollars
        self._flying += 1
        return True

    def settle(self, promised: float, paid: float) -> None:
        self._flying -= 1
        self._promised = self._promised - promised if self._flying else 0.0
        self.spent += paid
        self._settled.set()


def dry_run(calls: Sequence[Call], journal_keys: Mapping[str, Row]) -> list[dict[str, Any]]:
    """What a run would ask, a row a judge: calls, those already answered, dollars as expected (None without prices) and
    at most (None also where nothing limits the replies)."""
    rows = []
    for name in dict.fromkeys(call.judge.name for call in calls):
        mine = {call.key: call for call in calls if call.judge.name == name}
        new = [call for key, call in mine.items() if key not in journal_keys]
        priced = all(call.judge.prices for call in new)
        limited = priced and all(call.tokens()[1] for call in new)
        rows.append(
            dict(
                judge=name, calls=len(mine), answered=len(mine) - len(new), to_ask=len(new),
                about=sum(c.about() for c in new) if priced else None,
                most=sum(c.most() for c in new) if limited else None,
            )
        )  # fmt: skip
    return rows


def judge(
    calls: Sequence[Call], journal: Journal, budget: float | None = None, tick: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Asks every call that the journal has no reply to.

    Args:
        calls: of any number of judges; equal ones are asked once.
        budget: US dollars for everything in the journal and everything to come; None for no limit.
        tick: called after every call that was asked.

    Returns:
        key to reason for the calls that were not asked. Those that were are in the journal.

    Raises:
        UserError: a budget without prices. A judge that cannot be asked stops alone; its sentence is the reason of
            its remaining calls.
    """
    check_budget(calls, budget)
    purse = Budget(budget, journal.spent)
    todo = {call.key: call for call in calls if call.key not in journal.replies}
    try:
        return asyncio.run(_judges(list(todo.values()), journal, purse, tick))
    except BaseExceptionGroup as group:
        # The first thing that went wrong, a full disk say, and not the tree of tasks that it ended.
        first = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def check_budget(calls: Sequence[Call], budget: float | None) -> None:
    """Raises UserError where the highest price of some call is not known, so that no cap could hold."""
    if budget is not None and (bare := sorted({c.judge.name for c in calls if not c.judge.prices})):
        raise UserError(f"A budget needs prices, and there are none for judge {', '.join(bare)}; give --prices.")
    if budget is not None and (open_ := sorted({c.judge.name for c in calls if not c.tokens()[1]})):
        raise UserError(f"A budget needs max_tokens in the params of judge {', '.join(open_)}.")


async def _judges(calls: Sequence[Call], journal: Journal, purse: Budget, tick) -> dict[str, str]:
    names = dict.fromkeys(call.judge.name for call in calls)
    jobs = [_one_judge([c for c in calls if c.judge.name == name], journal, purse, tick) for name in names]
    unasked: dict[str, str] = {}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job) for job in jobs]
    for task in tasks:
        unasked |= task.result()
    return unasked


async def _one_judge(calls: Sequence[Call], journal: Journal, purse: Budget, tick) -> dict[str, str]:
    """As many workers as calls may be in flight, which take the next call until all are done or the judge is out."""
    left, unasked, state = iter(calls), {}, {"stopped": "", "silent": 0, "unread": 0}

    async def work(endpoint: Endpoint, group: asyncio.TaskGroup) -> None:
        for call in left:
            if reason := state["stopped"]:
                unasked[call.key] = reason
                continue
            row = await _one_call(call, endpoint, journal, purse, state)
            if isinstance(row, str):
                unasked[call.key] = f"not asked: {row}"
                continue
            journal.finish(row)
            group.create_task(journal.flushed())  # the next call does not wait for the disk
            tick()

    if calls:
        async with Endpoint(calls[0].judge) as endpoint, asyncio.TaskGroup() as group:
            for _ in range(min(len(calls), calls[0].judge.concurrency)):
                group.create_task(work(endpoint, group))
    return unasked


async def _one_call(call: Call, endpoint: Endpoint, journal: Journal, purse: Budget, state: dict) -> Row | str:
    """The row of its reply or failure; or why there is none: its picture is gone, or the budget did not even admit its
    first try."""
    most, admitted = call.most(), True
    try:
        data = json.dumps(call.request()).encode()
    except UserError as error:
        return str(error)  # of this call alone: others on their way are paid for

    async def admit() -> bool:
        nonlocal admitted
        if admitted := await purse.promise(most):
            journal.asked(dict(kind="asked", key=call.key, judge=call.judge.name, most=most))
        return admitted

    reply = await endpoint.ask(call.key, data, admit, lambda one: purse.settle(most, _paid(call, one)))
    if not reply.tries:
        return _used_up(purse)
    if not admitted:
        reply = reply._replace(trouble=f"{reply.trouble}; not asked again: {_used_up(purse)}")
    if reply.barred:
        state["stopped"] = state["stopped"] or reply.trouble  # said once for all
    row = _row(call, reply)
    state["stopped"] = state["stopped"] or _in_vain(call.judge, row, state)
    return row


def _in_vain(judge: Judge, row: Row, state: dict) -> str:
    """Why the judge is not worth another call after this one's ``row``; nothing while it is."""
    state["silent"] = 0 if row["kind"] == "reply" else state["silent"] + 1
    if state["silent"] >= _GIVE_UP:
        return f"judge {judge.name} at {judge.url} gave no reply to {_GIVE_UP} calls in a row: {row['reason']}"
    if row["kind"] == "reply":
        state["unread"] = state["unread"] + 1 if row["outcome"] in ("unparsable", "out_of_range") else 0
    if state["unread"] >= _UNREAD:
        return (
            f"the last {_UNREAD} replies of judge {judge.name} at {judge.url} cannot be read ({row['reason']}); give "
            "it other params (one that thinks first wants more max_tokens), or ask another model"
        )
    return ""


def _used_up(purse: Budget) -> str:
    return f"the budget of {purse.cap:g} US dollars is used up"


def _paid(call: Call, one: Try) -> float:
    """US dollars of one try. What was turned away with a status costs nothing."""
    return _price(call, one.body) if one.body is not None else call.most() * one.unseen


def _price(call: Call, body: Mapping[str, Any]) -> float:
    return cost(call.judge.prices, *_usage(call, body)[0]) if call.judge.prices else 0.0


def _row(call: Call, reply: Reply) -> Row:
    row = dict(key=call.key, judge=call.judge.name, model=call.judge.model, tries=reply.tries)
    row |= dict(seconds=round(reply.seconds, 3), dollars=reply.unseen * call.most())
    if reply.kind == "refused":
        return row | dict(kind="reply", outcome="refused", reason=reply.trouble)
    if reply.body is None:
        return row | dict(kind="failure", outcome=reply.kind, reason=reply.trouble)
    row["dollars"] += _price(call, reply.body)
    return row | dict(kind="reply") | _judgement(call, reply.body)


def _judgement(call: Call, body: Mapping[str, Any]) -> Row:
    """The outcome of a complete reply, with its tokens and which model says that it served it."""
    choice = body["choices"][0]
    texts = [choice["message"].get("content"), choice["message"].get("refusal"), choice.get("finish_reason")]
    outcome = read_reply(call.rubric, *(call.judge.key.hide(t) if isinstance(t, str) else None for t in texts))
    told = outcome._asdict()
    told["outcome"] = told.pop("kind")
    tokens, exact = _usage(call, body)
    served = clean(call.judge.key.hide(str(body.get("model", ""))), 100)
    return told | dict(served=served, tokens=tokens, tokens_counted=exact)


def _usage(call: Call, body: Mapping[str, Any]) -> tuple[list[int], bool]:
    """[input, output] tokens as the endpoint counted them, or else the most that they can be. Some leave what a model
    thinks out of completion_tokens, and count it in total_tokens alone."""
    usage = body.get("usage")
    if isinstance(usage, dict):
        asked, told, total = (usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
        if _is_count(asked) and _is_count(told):
            return [asked, max(told, total - asked) if _is_count(total) else told], True
    return list(call.tokens()), False


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def results(calls: Sequence[Call], journal: Journal, unasked: Mapping[str, str]) -> list[Row]:
    """A row a call, in the plan's order: its subject, what came of it, and what it cost in all runs. None is left
    out."""
    rows = []
    for call in calls:
        found = journal.replies.get(call.key) or journal.failures.get(call.key)
        if call.key in unasked or found is None:
            found = dict(outcome="not_asked", reason=unasked.get(call.key, "not asked: the run was stopped"))
        kept = ("outcome", "value", "reason", "subscores", "failures", "capped", "served", "tries")
        own = dict(judge=call.judge.name, key=call.key, rubric=call.rubric.name, dollars=journal.dollars(call.key))
        own["pictures"] = [picture.digest for picture in call.pictures]
        rows.append({**call.subject, **own, **{name: found[name] for name in kept if name in found}})
    return rows


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Judge to outcome to number."""
    names = dict.fromkeys(row["judge"] for row in rows)
    return {name: dict(Counter(r["outcome"] for r in rows if r["judge"] == name)) for name in names}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    write_whole(path, as_lines(rows))


def as_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    return "".join(lines).encode("utf-8", "surrogatepass")
