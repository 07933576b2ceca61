"""An OpenAI-compatible endpoint on loopback that misbehaves on schedule, and keeps a ledger. Also run as a process:
``python fake_judge.py LATENCY_MS``, for the benchmark."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
import time
from collections import Counter

GOOD = {"score": 3.5, "reasoning": "The roof <b>leans</b>."}


def completion(content, finish="stop", refusal=None, usage=True) -> bytes:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    body = {"model": "fake-1", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    if usage:
        body["usage"] = {"prompt_tokens": 1000, "completion_tokens": 100}
    return json.dumps(body).encode()


class FakeJudge:
    """``script(request, nth)`` gives what to do with the nth request of a question: a name of ``ACTIONS`` or bytes.

    Attributes:
        seen: idempotency key to how often it was asked.
        completed: idempotency key to how often a complete 200 was handed over; ``charged``: counted once a key, as
            endpoints do that know the header.
    """

    def __init__(self, script=lambda request, nth: "good", latency: float = 0.0) -> None:
        self.script, self.latency = script, latency
        self.seen, self.completed, self.memory = Counter(), Counter(), {}
        self.requests, self.starts, self.headers = [], [], []
        self.flying = self.most = 0
        self.busy = 0.0
        self._changed = time.monotonic()

    def _fly(self, change: int) -> None:
        now = time.monotonic()
        self.busy += self.flying * (now - self._changed)
        self.flying, self._changed = self.flying + change, now
        self.most = max(self.most, self.flying)

    async def serve(self, reader, writer) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self._fly(1)
                try:
                    alive = await self._answer(headers, body, writer)
                finally:
                    self._fly(-1)
                if not alive:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, headers, body, writer) -> bool:
        key = headers.get("idempotency-key", hashlib.sha256(body).hexdigest())
        self.seen[key] += 1
        self.starts.append(time.monotonic())
        if self.script is None:  # the benchmark: nothing but waiting
            await asyncio.sleep(self.latency)
            return await send(writer, 200, completion(json.dumps(GOOD)))
        request = json.loads(body)
        self.requests.append(request)
        self.headers.append(headers)
        action = self.script(request, self.seen[key])
        await asyncio.sleep(self.latency)
        if key in self.memory:  # charged before; repeated from memory
            return await send(writer, 200, self.memory[key])
        return await self._act(action, key, writer)

    async def _act(self, action, key, writer) -> bool:
        errors = {"429": 429, "429-date": 429, "500": 500, "503": 503}
        if action in errors:
            wait = {"429": "Retry-After: 0.05\r\n", "429-date": "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n"}
            return await send(writer, errors[action], b'{"error": {"message": "busy"}}', wait.get(action, ""))
        if action == "reset":
            writer.transport.abort()
            return False
        if action == "slow":
            await asyncio.sleep(30)
            return False
        if action == "cut":  # announces more than it sends
            data = completion(json.dumps(GOOD))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[: len(data) // 2])
            await writer.drain()
            return False
        if isinstance(action, tuple):
            return await send(writer, *action)
        data = REPLIES[action]
        self.completed[key] += 1
        self.memory[key] = data
        return await send(writer, 200, data)


async def send(writer, status: int, data: bytes, headers: str = "") -> bool:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return True


REPLIES = {
    "good": completion(json.dumps(GOOD)),
    "fenced": completion("```json\n" + json.dumps(GOOD) + "\n```", usage=False),
    "truncated": completion('{"score": 3.', finish="length"),
    "schema": completion(json.dumps({"rating": "good"})),
    "text-score": completion(json.dumps({"score": "4", "reasoning": ""})),
    "refusal": completion(None, refusal="I cannot look at this."),
    "filter": completion(None, finish="content_filter"),
    "safety": completion(None, finish="SAFETY"),
    "prohibited": b'{"choices": [{"finish_reason": "content_filter: PROHIBITED_CONTENT", "index": 0}]}',
    "range": completion(json.dumps({"score": 9.0, "reasoning": "wow"})),
    "nan": completion('{"score": NaN, "reasoning": ""}'),
    "huge": completion('{"score": 1' + "0" * 400 + ', "reasoning": ""}'),
    "empty": completion(""),
}


class Running:
    """The server in a thread, on a free port of loopback."""

    def __init__(self, judge: FakeJudge) -> None:
        self.judge, self._ready = judge, threading.Event()

    def __enter__(self) -> FakeJudge:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        self._ready.wait(10)
        return self.judge

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self.judge.serve, "127.0.0.1", 0, limit=1 << 22)
        self.judge.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)


async def alone(latency: float) -> None:
    """For the benchmark: prints its port, then at the end of input the mean number of calls that it held."""
    judge = FakeJudge(None, latency)
    server = await asyncio.start_server(judge.serve, "127.0.0.1", 0, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # From the first call to the last reply: what a client is busy with before is not the judge's time.
    seconds = judge._changed - judge.starts[0]
    print(json.dumps(dict(mean=judge.busy / seconds, seconds=seconds, most=judge.most)), flush=True)


if __name__ == "__main__":
    asyncio.run(alone(float(sys.argv[1]) / 1000))
