"""What the guarantees cost in time: each script beside the plain command in whose place it stands, and each sync.

Run as ``python -m benchmarks.guarantees``. One caller, one command at a time, on a Redis of its own on loopback: the
figures are round trips, so that a PING is the floor. Rounds alternate; medians are printed.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from redis.asyncio import Redis

from benchmarks.bare import TEXT
from benchmarks.children import bounded
from benchmarks.gateway import gateway, measure
from gateway_worker.reconciliation import REMEMBERED, REMEMBERED_SECONDS, Witnesses
from gateway_worker.records import Admission, Entry, Outcome, Subject
from gateway_worker.transitions import Transitions
from model_gateway.clock import Clock
from model_gateway.connection import connect
from model_gateway.envelope import Envelope
from model_gateway.ledger import initialise
from model_gateway.money import Usage
from model_gateway.scripts import Scripts, load_script
from model_gateway.settings import parse_config
from model_gateway.signing import ChunkChain, Keyring, seal_reply
from model_gateway.streams import GROUP, Keys
from tests.redis_server import RedisServer

ROUNDS = 7
CALLS = 300
CHUNKS = 19
MOST_SECONDS = 300.0
SECRET = "b" * 64
KEYS = Keys()
CONFIG = """
models: {echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002}}
budget: {daily_limit_usd: 1000000}
"""
REPLY = b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"content":"%b"}}]}' % (b"a" * 264)
SUBMIT = load_script("model_gateway", "submit", "model_gateway:prelude")

REFUSAL = Entry("error", b"{}", status=429)
OUTCOME = Outcome("done", [Entry("reply", REPLY, index=1)], cost=500_000, usage=Usage(input=100, output=200))


class Requests:
    """Requests that are taken through their life, one step at a time."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.scripts = Scripts(redis, Clock())
        self.transitions = Transitions(self.scripts, KEYS, parse_config(CONFIG), "a")
        self.number = 0

    def envelope(self) -> Envelope:
        """The next request."""
        self.number += 1
        body = b'{"model":"echo","messages":[{"role":"user","content":"%b"}]}' % TEXT.encode()
        return Envelope("http-b", "admin", f"r{self.number}", "chat", "echo", Clock().now_ms(), body)

    async def submit(self) -> None:
        """Put the next one on the stream, by the script."""
        envelope = self.envelope()
        fields = [part for pair in envelope.fields(SECRET).items() for part in pair]
        names = [KEYS.requests, KEYS.record("admin", envelope.request_id), KEYS.full]
        args = {"group": GROUP, "max_depth": "10000", "ttl_ms": "600000"}
        await self.scripts.call(SUBMIT, names, args, *fields)


def base(envelope: Envelope) -> list[str]:
    """The fields of each of a request's events."""
    return [
        *("request_id", envelope.request_id, "principal", "admin", "model", "echo", "provider", "echo"),
        *("deployment", "echo", "task", "", "price", "input=1000,output=2000", "request_entry", "1-1"),
        *("reply_stream", "model.replies.http-b"),
    ]


class Timer:
    """Microseconds of each kind of step."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    async def __call__(self, name: str, step: Awaitable[Any]) -> Any:
        """Take one step."""
        started = time.perf_counter()
        answer = await step
        self.spent.setdefault(name, []).append((time.perf_counter() - started) * 1e6)
        return answer


async def life(requests: Requests, timer: Timer) -> None:
    """One streamed request, each step timed beside the plain commands in whose place it stands."""
    redis, transitions = requests.redis, requests.transitions
    plain: Any = requests.envelope().fields(SECRET)
    await timer("PING", redis.ping())
    await timer("XADD of an envelope", redis.xadd("plain", plain))
    await timer("submit", requests.submit())
    subject = await _take(redis)
    admission = await timer("admit", transitions.admit(subject, 1_000_000, REFUSAL, old=False))
    await timer("XADD of a chunk", redis.xadd("plain", {"id": "x", "data": REPLY}))
    await timer("emit of a chunk", transitions.emit(subject, 1, [Entry("chunk", REPLY, end=False)], "s" * 64))
    await timer("XADD and XACK", _reply_plainly(redis))
    await timer("settle", transitions.settle(subject, admission, 1_000_000, OUTCOME))


async def _take(redis: Redis) -> Subject:
    found: Any = await redis.xreadgroup(GROUP, "a", {KEYS.requests: ">"}, count=1)
    [[_, [[entry, fields]]]] = found
    envelope = Envelope("http-b", "admin", fields[b"id"].decode(), "chat", "echo", 0, fields[b"body"])
    return Subject(entry.decode(), envelope, "echo", secrets.token_hex(16), base(envelope), "echo")


async def _reply_plainly(redis: Redis) -> None:
    pipeline = redis.pipeline(transaction=False)
    pipeline.xadd("plain", {"id": "x", "data": REPLY})
    pipeline.xack("plain", "g", "1-1")
    await pipeline.execute()


@asynccontextmanager
async def requests_on(folder: Path, appendfsync: Any) -> AsyncIterator[Requests]:
    """A Redis of its own with a ledger."""
    server = RedisServer(folder / appendfsync, appendfsync)
    await server.start()
    redis = connect(server.url)
    try:
        await initialise(redis, KEYS)
        await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
        await redis.xgroup_create("plain", "g", id="$", mkstream=True)
        yield Requests(redis)
    finally:
        await redis.aclose()
        server.close()


async def steps(folder: Path) -> None:
    """The table of scripts, under both settings of ``appendfsync``, in turns."""
    timers = {"everysec": Timer(), "always": Timer()}
    async with requests_on(folder, "everysec") as lazy, requests_on(folder, "always") as strict:
        for _ in range(ROUNDS):
            for name, requests in (("everysec", lazy), ("always", strict)):
                for _ in range(CALLS // ROUNDS):
                    await life(requests, timers[name])
    print(f"\n{'round trip, us (median)':26}  everysec  always")
    for name, spent in timers["everysec"].spent.items():
        print(f"  {name:24}  {median(spent):8.0f}  {median(timers['always'].spent[name]):6.0f}")


def signing() -> None:
    """The table of signatures."""
    keyring, digest = Keyring((SECRET,)), "0" * 64
    whole = _each(lambda: seal_reply(REPLY, keyring, "r", digest))

    def stream() -> None:
        chain = ChunkChain(keyring, "r", digest)
        for number in range(CHUNKS):
            chain.seal(REPLY, final=number == CHUNKS - 1)

    print(f"\nsigning, us: a whole reply {whole:.0f}, a chunk of {len(REPLY)} bytes {_each(stream) / CHUNKS:.0f}")


def remembering() -> None:
    """What a worker keeps of each request to hold against a Redis that comes back older."""
    tracemalloc.start()
    witnesses, before = Witnesses(time.monotonic, "gateway"), tracemalloc.get_traced_memory()[0]
    for number in range(REMEMBERED // 2):
        envelope = Envelope("http-b", "admin", f"req_{number:026}", "chat", "echo", 0, b"")
        subject = Subject(f"{number}-0", envelope, "echo", secrets.token_hex(16), base(envelope), "echo")
        admission = Admission("admitted", 1, "2026-11-24", event=f"{number}-1")
        witnesses.add(subject, admission, admission.event)
        witnesses.add(subject, admission, f"{number}-2", str(number))
    kept = (tracemalloc.get_traced_memory()[0] - before) / (REMEMBERED // 2)
    tracemalloc.stop()
    print(f"\nremembered of a request: {kept:.0f} bytes, for {REMEMBERED_SECONDS:g} s")


def _each(call: Callable[[], Any]) -> float:
    """Microseconds of one call; the best of some rounds."""
    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append((time.perf_counter() - started) / CALLS * 1e6)
    return min(found)


async def whole_gateway(folder: Path) -> None:
    """The gateway over HTTP under both settings."""
    print(f"\n{'gateway over HTTP':18} kind      p50 ms at 1  p50 ms at 64  p99 ms at 64  req/s at 64")
    for setting in ("everysec", "always"):
        place = folder / f"gateway-{setting}"
        place.mkdir()
        async with gateway(place, GATEWAY_APPENDFSYNC=setting) as target:
            for stream in (False, True):
                await measure(target, stream=stream, concurrency=64, seconds=1.0)
                alone = await measure(target, stream=stream, concurrency=1, seconds=2.0)
                busy = await measure(target, stream=stream, concurrency=64, seconds=3.0)
                found, kind = busy.result, "streamed" if stream else "whole"
                print(
                    f"  {setting:16} {kind:9} {alone.result.p50_ms:11.2f}  {found.p50_ms:12.1f}  {found.p99_ms:12.1f}"
                    f"  {found.requests / found.seconds:11.0f}"
                )


async def main() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        await steps(folder)
        signing()
        remembering()
        await whole_gateway(folder)


if __name__ == "__main__":
    asyncio.run(bounded(main(), MOST_SECONDS))
