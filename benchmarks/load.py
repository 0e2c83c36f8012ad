"""The load generator: a job on stdin, a result on stdout. It speaks just enough HTTP/1.1 to cost little."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import uvloop
from yarl import URL

from benchmarks.children import answered

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 20.0
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Job:
    """Chat completions from ``concurrency`` connections, until ``requests`` were sent or ``seconds`` are over."""

    url: str
    token: str
    text: str
    stream: bool
    concurrency: int
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


async def load(job: Job) -> Result:
    """Do a job in a process of its own."""
    return Result(**orjson.loads(await answered("benchmarks.load", orjson.dumps(job))))


async def _run(job: Job) -> Result:
    latencies: list[float] = []
    tickets, started = iter(range(job.requests)), time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(job.concurrency):
            group.create_task(_client(job, tickets, started + job.seconds, latencies))
    seconds = time.monotonic() - started
    cuts = statistics.quantiles(latencies, n=100)
    return Result(len(latencies), seconds, cuts[49] * 1000, cuts[98] * 1000)


async def _client(job: Job, tickets: Iterator[int], deadline: float, latencies: list[float]) -> None:
    url, request = URL(job.url), _request(job)
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(url.host, url.port)
    while time.monotonic() < deadline and next(tickets, None) is not None:
        started = time.monotonic()
        writer.write(request)
        async with asyncio.timeout(_ANSWER_SECONDS):
            body = await _answer(reader)
        if job.stream and _DONE not in body:
            raise RuntimeError(f"a stream that did not end: {body[-200:]!r}")
        latencies.append(time.monotonic() - started)
    writer.close()


def _request(job: Job) -> bytes:
    body = orjson.dumps({"model": "echo", "messages": [{"role": "user", "content": job.text}], "stream": job.stream})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {URL(job.url).authority}\r\nContent-Type: application/json\r\n"
    return f"{head}Authorization: Bearer {job.token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The body of a good answer, with its framing; no line of a body ends in CR LF."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, length, rest = head.partition(b"\r\ncontent-length:")
    body = await (reader.readexactly(int(rest.split(b"\r\n")[0])) if length else reader.readuntil(b"\r\n0\r\n\r\n"))
    if not head.startswith(b"http/1.1 200 "):
        raise RuntimeError(f"{head!r} {body[:500]!r}")
    return body


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(_run(Job(**orjson.loads(sys.stdin.buffer.read()))))).decode())
