"""One judge's endpoint: pace and retries. It returns a complete reply, or says why there is none."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from flashjax.bench.calls import Judge
from flashjax.bench.rubrics import clean, is_filter

__all__ = ["Endpoint", "Reply", "Try"]

_AGAIN = (408, 409, 425, 429)  # with all from 500 on: the state of the server, not of the question
_UNSENT, _UNSEEN = 0, -1  # in a status's place: the request did not get there; what became of it is unknown
_LOST = (_UNSEEN, 502, 504, 520, 524)  # the model may have answered, and a proxy says that it did not hear it
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds between tries, doubled each time
_CONNECT = 30.0  # seconds until a connection stands, name and encryption included
_PATIENCE = 600.0  # the longest Retry-After that is waited for
_LARGEST = 4 << 20  # bytes of a reply


class Reply(NamedTuple):
    """What an endpoint said. ``body`` is the JSON of a complete reply, or None, and then ``trouble`` says why; ``kind``
    is "reply", "refused" (by a filter, before the model), "rejected" (the request is wrong) or "failed" (no answer).
    ``tries`` were made, 0 if not one was admitted; ``unseen`` of them reached the endpoint and nobody saw their end, so
    that each may be charged for. ``barred``: no other call of this judge would fare better, and ``trouble`` is the
    sentence that says so."""

    kind: str
    body: dict[str, Any] | None
    trouble: str
    tries: int
    seconds: float
    unseen: int = 0
    barred: bool = False


class Try(NamedTuple):
    """``status``: of HTTP, or _UNSENT or _UNSEEN. ``wait``: Retry-After in seconds. ``trouble``: what was wrong.
    ``body``: of a complete reply."""

    status: int
    wait: float | None
    trouble: str
    body: dict[str, Any] | None = None

    @property
    def unseen(self) -> bool:
        return self.status in _LOST


Admit = Callable[[], Awaitable[bool]]
Settle = Callable[[Try], None]


class Endpoint:
    """Use it with ``async with``; ``ask`` is called by ``judge.concurrency`` tasks at once."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._next_start = self._not_before = 0.0

    async def __aenter__(self) -> Endpoint:
        import aiohttp

        self._http, self._url = aiohttp, f"{self.judge.address}/chat/completions"
        # No cookies, no proxies from the environment: a key goes to the named host or nowhere.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.judge.concurrency), cookie_jar=aiohttp.DummyCookieJar(),
            # Shorter than the call's own timeout, which cannot tell that nothing was sent.
            timeout=aiohttp.ClientTimeout(total=None, connect=min(_CONNECT, self.judge.timeout / 2)),
        )  # fmt: skip
        return self

    async def __aexit__(self, *_) -> None:
        await self._session.close()

    async def ask(self, key: str, data: bytes, admit: Admit, settle: Settle) -> Reply:
        """Asks until there is a complete reply, ``judge.tries`` times at most.

        Args:
            key, data: of the call, and the body of its request.
            admit: awaited before every try; where it says no, no further one is made.
            settle: called with every try that was admitted, when it has ended.
        """
        begun, trouble, unseen, made, excused = time.monotonic(), "", 0, 0, 0
        while made - excused < self.judge.tries:
            # In this order: what still waits for its turn was not sent, and is not in doubt if the run is killed.
            await self._pace()
            if not await admit():
                return Reply("failed", None, trouble, made, time.monotonic() - begun, unseen)
            one = await self._once(key, data)
            settle(one)
            made += 1
            trouble, unseen = one.trouble, unseen + one.unseen
            if one.body is not None:
                return Reply("reply", one.body, "", made, time.monotonic() - begun, unseen)
            if one.status not in (_UNSENT, _UNSEEN, *_AGAIN) and one.status < 500:
                kind, trouble, barred = self._verdict(one.status, trouble)
                return Reply(kind, None, trouble, made, time.monotonic() - begun, unseen, barred)
            if one.wait is not None and one.wait > _PATIENCE:
                trouble = self._later(one.wait, trouble)
                return Reply("failed", None, trouble, made, time.monotonic() - begun, unseen, True)
            # One that says when to come back is alive, and most of those in flight come back at once.
            excused += bool(one.wait) and time.monotonic() - begun < self.judge.timeout
            if made - excused < self.judge.tries:
                await self._pause(made - excused, one.wait)
        return Reply("failed", None, trouble, made, time.monotonic() - begun, unseen)

    async def _pace(self) -> None:
        """Waits for this call's turn: the rate limit, and a pause that the endpoint asked for."""
        while True:
            now = time.monotonic()
            at = max(self._next_start, self._not_before)
            if at <= now:
                break
            await asyncio.sleep(at - now)
        if self.judge.per_minute:
            self._next_start = time.monotonic() + 60 / self.judge.per_minute

    async def _pause(self, tried: int, wait: float | None) -> None:
        """Retry-After holds for all calls to this endpoint; without it, or where it is over, this call backs off, with
        jitter."""
        if wait:
            self._not_before = max(self._not_before, time.monotonic() + wait)
            return
        await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tried - 1)) * random.uniform(0.5, 1.0))

    async def _once(self, key: str, data: bytes) -> Try:
        try:
            # A server that sends a byte now and then would never run into the timeouts of single reads.
            async with asyncio.timeout(self.judge.timeout), self._posted(key, data) as answer:
                content = await _read(answer)
        except (self._http.ClientConnectorError, self._http.ConnectionTimeoutError, self._http.InvalidURL) as error:
            return Try(_UNSENT, None, self._hidden(f"the connection failed ({type(error).__name__}: {error})"))
        except TimeoutError:
            return Try(_UNSEEN, None, f"no answer within {self.judge.timeout:g} s")
        except (self._http.ClientError, ConnectionError) as error:
            return Try(_UNSEEN, None, self._hidden(f"the connection broke ({type(error).__name__}: {error})"))
        if answer.status != 200:
            return Try(answer.status, retry_after(answer.headers), self._complaint(answer.status, content))
        return self._complete(content)

    def _posted(self, key: str, data: bytes):
        # Endpoints that know Idempotency-Key answer a repeated question from their memory and charge once.
        headers = {"Idempotency-Key": key, "Content-Type": "application/json", "User-Agent": "flashjax"}
        if self.judge.key:
            headers["Authorization"] = self.judge.key.bearer()
        return self._session.post(self._url, data=data, headers=headers, allow_redirects=False)

    def _complete(self, content: bytes) -> Try:
        """A 200 that is no chat completion came from a proxy or a broken server, and nobody has scored anything."""
        if len(content) > _LARGEST:
            return Try(_UNSEEN, None, f"the reply has more than {_LARGEST >> 20} MiB")
        try:
            body = json.loads(content)
            if status := _status_within(body):
                return Try(status, None, self._complaint(status, content))
            choice = body["choices"][0]
            if is_filter(choice.get("finish_reason")) and choice.get("message") is None:
                choice["message"] = {}  # Gemini's
            if not isinstance(choice["message"], dict):
                raise TypeError("the message is no object")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            return Try(_UNSEEN, None, f"the reply is no chat completion ({type(error).__name__})")
        return Try(200, None, "", body)

    def _verdict(self, status: int, trouble: str) -> tuple[str, str, bool]:
        """(kind, trouble, barred) of a reply, from a status that is not worth another try."""
        judge = self.judge
        if any(word in trouble.lower() for word in ("content_filter", "content_policy", "safety", "moderation")):
            return "refused", trouble, False
        if status in (401, 403):
            return "failed", f"The endpoint {judge.url} refuses the key of judge {judge.name} ({trouble}).", True
        if status in (404, 405) or 300 <= status < 400:
            told = f"The endpoint {judge.url} has no model {judge.model}, or is no OpenAI-compatible API ({trouble}); "
            return "failed", f"{told}mend url and model of judge {judge.name}.", True
        return "rejected", trouble, False

    def _later(self, wait: float, trouble: str) -> str:
        """Of a quota of the day, say: a run that stands still for hours tells nobody why."""
        judge = self.judge
        told = f"The endpoint {judge.url} wants judge {judge.name} to come back in {wait / 60:.0f} minutes ({trouble})"
        return f"{told}; start again then."

    def _complaint(self, status: int, content: bytes) -> str:
        try:
            error = json.loads(content)["error"]
            told = f"{error.get('code') or ''} {error.get('message') or ''}" if isinstance(error, dict) else str(error)
        except (ValueError, KeyError, TypeError, RecursionError):
            told = content.decode("utf-8", "replace")
        return self._hidden(f"status {status}: {' '.join(told.split())}")

    def _hidden(self, text: str) -> str:
        return clean(self.judge.key.hide(text), 300)


def _status_within(body: Any) -> int:
    """The status of an error that came under a 200, as of routers that say 200 before the model has answered; or 0."""
    error = body.get("error") if isinstance(body, dict) and not body.get("choices") else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and 400 <= code < 600 else 0


async def _read(answer) -> bytes:
    """The body, or so much of it that it is seen to be too large."""
    parts, size = [], 0
    async for part in answer.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            break
    return b"".join(parts)


def retry_after(headers) -> float | None:
    """Seconds of a Retry-After header: a number or a date; None without one or with nonsense."""
    text = headers.get("retry-after", "").strip()
    try:
        wait = float(text)
    except ValueError:
        try:
            wait = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait) if wait == wait and abs(wait) != float("inf") else None
