"""An open-loop load generator: a job on stdin, what became of each request on stdout.

Requests arrive at a fixed rate whatever becomes of those before them, and each one's time runs from when it was due: a
server that is slow can't slow the load down, so no wait is left out. Connections are kept alive; a client that waited
``deadline_seconds`` leaves.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson
import uvloop
from yarl import URL

from benchmarks.children import answered
from model_gateway.process import collect_garbage_seldom

OK, REFUSED, LATE, BROKEN = "ok", "refused", "late", "broken"
_TICK_SECONDS = 0.001
_AT_ONCE = 100
_SETTING_UP_SECONDS = 2.0
_RETRY = (b"429", b"503")


@dataclass(frozen=True, slots=True)
class Job:
    """Chat completions of one model: ``phases`` are rates a second and how many seconds each lasts."""

    url: str
    token: str
    model: str
    text: str
    phases: list[tuple[float, float]]
    deadline_seconds: float = 5.0
    connections: int = 3_000


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Every request, in the order in which it was due.

    Attributes:
        started: the monotonic clock, which all processes share, when the first was due.
        at: seconds from then on.
        took_ms: until its answer; until its client left, where none came.
        ended: ``ok`` (200 in time), ``refused`` (429 or 503, with Retry-After), ``late``, ``broken`` (no answer), or
            any other answer's status.
        seconds: how long the job took; more than its phases' sum where the generator itself was too slow.
    """

    started: float
    at: list[float]
    took_ms: list[float]
    ended: list[str]
    seconds: float


async def arrive(job: Job) -> Arrivals:
    """Do a job in a process of its own."""
    return Arrivals(**orjson.loads(await answered("benchmarks.arrivals", orjson.dumps(job))))


class _Request:
    """One request: when it was due, and what became of it."""

    __slots__ = ("connection", "due", "ended", "took")

    def __init__(self, due: float) -> None:
        self.due = due
        self.ended = ""
        self.took = 0.0
        self.connection: _Connection | None = None

    def end(self, how: str, now: float) -> None:
        if not self.ended:
            self.ended, self.took = how, now - self.due


class _Connection(asyncio.Protocol):
    """One keep-alive connection; it speaks just enough HTTP/1.1 to cost little."""

    def __init__(self, clients: _Clients) -> None:
        self._clients = clients
        self._request: _Request | None = None
        self._answer = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, request: _Request, message: bytes) -> None:
        self._request, request.connection = request, self
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        self._answer = self._answer + data if self._answer else data
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._answer[:end].lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or b"0")
        if len(self._answer) >= end + 4 + length:
            self._answer = b""
            self._over(_meaning(head))
            if b"\r\nconnection: close" not in head:
                self._clients.free(self)

    def leave(self) -> None:
        """The client waited long enough."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over(BROKEN)
        self._clients.lost(self)

    def _over(self, how: str) -> None:
        if self._request is not None:
            self._request.end(how, asyncio.get_running_loop().time())
            self._request = None


def _meaning(head: bytes) -> str:
    status = head[9:12]
    if status == b"200":
        return OK
    return REFUSED if status in _RETRY and b"\r\nretry-after:" in head else status.decode()


class _Clients:
    """Connections, all opened beforehand, and the requests that wait for one."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._url = URL(job.url)
        self._message = _message(job)
        self._idle: list[_Connection] = []
        self._waiting: list[_Request] = []
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        for _ in range(0, self._job.connections, _AT_ONCE):
            await asyncio.gather(*(self._connect() for _ in range(_AT_ONCE)))

    def send(self, request: _Request) -> None:
        if self._idle:
            self._idle.pop().ask(request, self._message)
        else:
            self._waiting.append(request)

    def free(self, connection: _Connection) -> None:
        """Whoever came last asks next: those who came long ago are about to leave."""
        while self._waiting:
            request = self._waiting.pop()
            if not request.ended:
                connection.ask(request, self._message)
                return
        self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """Another in its place."""
        if connection in self._idle:
            self._idle.remove(connection)
        task = asyncio.get_running_loop().create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), self._url.host, self._url.port)
        self.free(connection)


def _message(job: Job) -> bytes:
    body = orjson.dumps({"model": job.model, "messages": [{"role": "user", "content": job.text}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {URL(job.url).authority}\r\nContent-Type: application/json\r\n"
    return f"{head}Authorization: Bearer {job.token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _due(job: Job, started: float) -> Iterator[float]:
    for rate, seconds in job.phases:
        count = int(rate * seconds)
        yield from (started + number / rate for number in range(count))
        started += seconds


async def _run(job: Job) -> Arrivals:
    loop, clients = asyncio.get_running_loop(), _Clients(job)
    await clients.open()
    started = loop.time() + _SETTING_UP_SECONDS
    requests = [_Request(due) for due in _due(job, started)]
    unsent, unanswered = iter(requests), deque(requests)
    collect_garbage_seldom()  # else it looks through all of them, again and again
    next_one = next(unsent, None)
    while unanswered:
        now = loop.time()
        while next_one is not None and next_one.due <= now:
            clients.send(next_one)
            next_one = next(unsent, None)
        while unanswered and (unanswered[0].ended or unanswered[0].due + job.deadline_seconds <= now):
            _give_up(unanswered.popleft(), now)
        await asyncio.sleep(_TICK_SECONDS)
    return Arrivals(
        started=started,
        at=[round(request.due - started, 4) for request in requests],
        took_ms=[round(request.took * 1000, 2) for request in requests],
        ended=[request.ended for request in requests],
        seconds=loop.time() - started,
    )


def _give_up(request: _Request, now: float) -> None:
    if not request.ended:
        request.end(LATE, now)
        if request.connection is not None:
            request.connection.leave()


if __name__ == "__main__":
    print(orjson.dumps(asdict(uvloop.run(_run(Job(**orjson.loads(sys.stdin.buffer.read())))))).decode())
