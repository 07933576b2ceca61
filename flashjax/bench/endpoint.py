"""One judge's endpoint: pace and retries. It returns a complete reply, or says why there is none."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from flashjax.bench.calls import Judge
from flashjax.bench.rubrics import clean, is_filter

__all__ = ["Endpoint", "Reply", "Try"]

_AGAIN = (408, 409, 425, 429)  # with all from 500 on: the state of the server, not of the question
_UNSENT, _UNSEEN = 0, -1  # in a status's place: the request did not get there; what became of it is unknown
_LOST = (_UNSEEN, 502, 504, 520, 524)  # the model may have answered, and a proxy says that it did not hear it
_BUSY = (429, 503)
_FILTERS = ("content_filter", "content_policy", "moderation", "safety", "data_inspection")  # codes begin so
_FILTERED = (
    "content_filter", "content filter", "content management policy", "content_policy", "content policy",
    "content moderation", "requires moderation", "safety system", "safety filter", "input was flagged",
    "prompt was flagged",
)  # fmt: skip
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds between tries, doubled each time
_GRACE = 300.0  # seconds in which an endpoint that is busy, or is being started anew, uses up no tries
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
    """``status``: of HTTP, or _UNSENT or _UNSEEN. ``wait``: seconds until the endpoint wants to be asked again, if it
    says so. ``trouble``: what was wrong. ``body``: of a complete reply. ``filtered``: by a content filter, before the
    model."""

    status: int
    wait: float | None
    trouble: str
    body: dict[str, Any] | None = None
    filtered: bool = False

    @property
    def unseen(self) -> bool:
        return self.status in _LOST


Admit = Callable[[], Awaitable[bool]]
Settle = Callable[[Try], None]


class Endpoint:
    """Use it with ``async with``; ``ask`` is called by ``judge.concurrency`` tasks at once."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self._grace = judge, max(_GRACE, judge.timeout)
        self._next_start = self._not_before = 0.0
        self._answers, self._heard = False, time.monotonic()  # since then it has been busy, and nothing else
        self._held, self._strikes = 0.0, 0  # when all calls were last made to wait, and how often in a row

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
        """Asks until there is a complete reply, ``judge.tries`` times at most; tries that a busy endpoint turns away do
        not count for some minutes.

        Args:
            key, data: of the call, and the body of its request.
            admit: awaited before every try; where it says no, no further one is made.
            settle: called with every try that was admitted, when it has ended.
        """
        begun, trouble, unseen, made, counted = time.monotonic(), "", 0, 0, 0

        def ended(kind: str, trouble: str, barred: bool = False, body: dict[str, Any] | None = None) -> Reply:
            return Reply(kind, body, trouble, made, time.monotonic() - begun, unseen, barred)

        while counted < self.judge.tries:
            # In this order: what still waits for its turn was not sent, and is not in doubt if the run is killed.
            await self._pace()
            if not await admit():
                return ended("failed", trouble)
            sent, one = time.monotonic(), await self._once(key, data)
            settle(one)
            made, unseen, trouble, busy = made + 1, unseen + one.unseen, one.trouble, self._heed(one)
            if one.body is not None:
                return ended("reply", "", body=one.body)
            if last := self._last(one, busy):
                return ended(*last)
            counted += not (busy and time.monotonic() - begun < self._grace)
            if counted < self.judge.tries:
                await self._pause(one, busy, counted, sent)
        return ended("failed", trouble)

    def _heed(self, one: Try) -> bool:
        """Whether the endpoint turned this try away as it would any other now, which is kept in mind. Where nobody
        listens at an address that answered before, it is being started anew; one that never answered is more likely
        misspelt."""
        self._answers |= one.status != _UNSENT
        busy = bool(one.wait) or one.status in _BUSY or (one.status == _UNSENT and self._answers)
        if not busy or one.wait:  # one that says when to come back is alive
            self._heard, self._strikes = time.monotonic(), 0
        return busy

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

    async def _pause(self, one: Try, busy: bool, counted: int, sent: float) -> None:
        """A busy endpoint is left alone by all calls, for as long as it wants, or else for longer each time; any other
        trouble is this call's, which backs off."""
        if not busy:
            await asyncio.sleep(_backoff(counted))
        elif one.wait:
            self._not_before = max(self._not_before, time.monotonic() + one.wait)
        elif sent >= self._held:  # what was sent before all were made to wait says nothing new
            self._held, self._strikes = time.monotonic(), self._strikes + 1
            self._not_before = max(self._not_before, self._held + _backoff(self._strikes))

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
            return self._turned_away(answer.status, retry_after(answer.headers), content)
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
                return self._turned_away(status, None, content)
            choice = body["choices"][0]
            if is_filter(choice.get("finish_reason")) and choice.get("message") is None:
                choice["message"] = {}  # Gemini's
            if not isinstance(choice["message"], dict):
                raise TypeError("the message is no object")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            return Try(_UNSEEN, None, f"the reply is no chat completion ({type(error).__name__})")
        return Try(200, None, "", body)

    def _turned_away(self, status: int, wait: float | None, content: bytes) -> Try:
        error = _error(content)
        told = " ".join(f"{error.get('code') or ''} {error.get('message') or ''}".split())
        wait = _delay(error) if wait is None else wait
        return Try(status, wait, self._hidden(f"status {status}: {told}"), filtered=_is_filtered(error))

    def _last(self, one: Try, busy: bool) -> tuple[str, str, bool] | None:
        """(kind, trouble, barred) where another try is not worth it."""
        if one.status not in (_UNSENT, _UNSEEN, *_AGAIN) and one.status < 500:
            return self._verdict(one)
        if one.wait is not None and one.wait > _PATIENCE:
            return "failed", self._later(one.wait, one.trouble), True
        if busy and time.monotonic() - self._heard > self._grace:
            told = f"The endpoint {self.judge.url} has turned judge {self.judge.name} away for {self._grace / 60:.0f} "
            return "failed", f"{told}minutes ({one.trouble}); start again later.", True
        return None

    def _verdict(self, one: Try) -> tuple[str, str, bool]:
        """(kind, trouble, barred) of a status that is not worth another try."""
        judge, status, trouble = self.judge, one.status, one.trouble
        # A filter has seen the question, which neither a wrong key nor a wrong address gets to.
        if status == 401 or (status == 403 and not one.filtered):
            return "failed", f"The endpoint {judge.url} refuses the key of judge {judge.name} ({trouble}).", True
        if status in (404, 405) or 300 <= status < 400:
            told = f"The endpoint {judge.url} has no model {judge.model}, or is no OpenAI-compatible API ({trouble}); "
            return "failed", f"{told}mend url and model of judge {judge.name}.", True
        return "refused" if one.filtered else "rejected", trouble, False

    def _later(self, wait: float, trouble: str) -> str:
        """Of a quota of the day, say: a run that stands still for hours tells nobody why."""
        judge = self.judge
        told = f"The endpoint {judge.url} wants judge {judge.name} to come back in {wait / 60:.0f} minutes ({trouble})"
        return f"{told}; start again then."

    def _hidden(self, text: str) -> str:
        return clean(self.judge.key.hide(text), 300)


def _status_within(body: Any) -> int:
    """The status of an error that came under a 200, as of routers that say 200 before the model has answered; or 0."""
    error = body.get("error") if isinstance(body, dict) and not body.get("choices") else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and 400 <= code < 600 else 0


def _error(content: bytes) -> dict[str, Any]:
    """The error that a reply tells; with its text as the message where it tells none."""
    text = content.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return dict(message=text)
    body = body[0] if isinstance(body, list) and body else body  # Gemini's
    error = body.get("error", text) if isinstance(body, dict) else text
    return error if isinstance(error, dict) else dict(message=str(error))


def _is_filtered(error: Mapping[str, Any]) -> bool:
    """Whether an error is a content filter's, by its code or type, or by the phrases that providers have for it: a mere
    "safety" is in names of projects and parameters too."""
    kinds = [str(error.get(name)).lower() for name in ("code", "type")]
    message = str(error.get("message")).lower()
    return any(kind.startswith(_FILTERS) for kind in kinds) or any(phrase in message for phrase in _FILTERED)


def _delay(error: Mapping[str, Any]) -> float | None:
    """Seconds until the next try as Google's RetryInfo has them, "37s"; None without one."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        text = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(text, str) and (wait := _seconds(text.removesuffix("s"))) is not None:
            return wait
    return None


def _backoff(tried: int) -> float:
    """Seconds, with jitter."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tried - 1)) * random.uniform(0.5, 1.0)


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
    if (wait := _seconds(text)) is not None:
        return wait
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):  # the last of a year of twenty digits
        return None


def _seconds(text: str) -> float | None:
    """A number from 0 on, which what lies below is taken for; None for what is no number, or no finite one."""
    try:
        wait = float(text)
    except ValueError:
        return None
    return max(0.0, wait) if math.isfinite(wait) else None
