"""What the insights process takes in: events a second on one core, without and with embedding; bytes per request.

Run as ``python -m benchmarks.insights``. An embedded Redis and an embedded PostgreSQL are filled with a backlog as the
scripts leave it: for each request its entry, its reply and three events. Then the process, on one core of its own
(``taskset``), takes it in, first with ``embedding: off``, then with each local model. Printed: events per second of
wall clock until the cursor is at the end, the same per second of the process' CPU, vectors per second, and what
PostgreSQL's tables and indexes take up per request.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import uvloop
from redis.asyncio import Redis

from benchmarks.bare import TEXT
from benchmarks.children import ROOT, bounded, cpu_us
from gateway_insights.database import Pool
from gateway_insights.database import connect as connect_database
from model_gateway.connection import connect
from model_gateway.insights import GROUP
from model_gateway.streams import Keys
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

KEYS = Keys()
STREAM = KEYS.replies("http-benchmark")
EVENTS_PER_REQUEST = 3
MODELS = ("off", "wordllama", "minilm")
MOST_SECONDS = 900.0
CONFIG = """
models: {{m: {{provider: echo, free: true}}}}
insights: {{embedding: "{embedding}"}}
"""
SIZES = """
    SELECT sum(pg_relation_size(c.oid)) AS rows, sum(coalesce(pg_total_relation_size(reltoastrelid), 0)) AS texts,
           sum(pg_indexes_size(c.oid)) AS indexes
    FROM pg_class c WHERE relkind = 'r' AND relname LIKE 'model_insights%'
"""


async def fill(redis: Redis, requests: int) -> None:
    """A backlog of requests that have ended, whole and streamed ones in turns."""
    chance = random.Random(1)
    for start in range(0, requests, 250):
        pipeline = redis.pipeline(transaction=False)
        for number in range(start, min(start + 250, requests)):
            pipeline.xadd(KEYS.requests, {"id": f"r{number}", "body": _body(number, chance)})
        entries = await pipeline.execute()
        for offset, entry in enumerate(entries):
            await _request(pipeline, start + offset, entry, await _reply(redis, start + offset), chance)
        await pipeline.execute()


def _body(number: int, chance: random.Random) -> bytes:
    words = " ".join(chance.choices(TEXT.split(), k=60))
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": f"Request {number}: {words}"}]})


async def _reply(redis: Redis, number: int) -> tuple[bytes, bytes]:
    """The reply's first and last entry: one of 700 bytes, or eight chunks."""
    message = {"choices": [{"index": 0, "message": {"content": TEXT}, "finish_reason": "stop"}], "x": "s" * 300}
    chunk = {"choices": [{"index": 0, "delta": {"content": TEXT[:32]}}], "x": "s" * 300}
    parts = [("reply", message)] if number % 2 else [("chunk", chunk)] * 8
    pipeline = redis.pipeline(transaction=False)
    for kind, data in parts:
        pipeline.xadd(STREAM, {"id": f"r{number}", "kind": kind, "data": orjson.dumps(data)})
    found: list[bytes] = await pipeline.execute()
    return found[0], found[-1]


async def _request(pipeline: Any, number: int, entry: bytes, reply: tuple[bytes, bytes], chance: random.Random) -> None:
    now = time.time_ns() // 1_000_000
    base = {
        "ts": str(now),
        "request_id": f"r{number}",
        "principal": "admin",
        "model": f"model-{number % 5}",
        "provider": "echo",
        "deployment": f"model-{number % 5}",
        "task": "",
        "price": "input=2500,output=10000,cached=1250",
        "request_entry": entry,
        "reply_stream": STREAM,
    }
    window = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y-%m-%d")
    held = {"attempt": "1", "window": window, "scopes": "gateway", "reserved_nano": "900000"}
    pipeline.xadd(KEYS.events, {"event_type": "model.request.start", **base, **held, "status": "running"})
    pipeline.xadd(KEYS.events, {"event_type": "model.streaming.start", **base, "attempt": "1", "status": "running"})
    end = {
        "usd_nano": str(chance.randrange(10_000, 900_000)),
        "usd": "0.0005",
        "status": "done",
        "input_tokens": "80",
        "output_tokens": "64",
        "cached_tokens": "0",
        "reasoning_tokens": "0",
        "estimated": "0",
        "latency_ms": str(round(chance.lognormvariate(6, 1))),
        "ttft_ms": str(round(chance.lognormvariate(5, 1))),
        "finish_reason": "stop",
        "error_code": "",
        "reply_first": reply[0],
        "reply_last": reply[1],
    }
    pipeline.xadd(KEYS.events, {"event_type": "model.request.complete", **base, **held, **end})


@asynccontextmanager
async def insights(folder: Path, embedding: str, urls: tuple[str, str]) -> AsyncIterator[int]:
    """The process on the last core; its process id."""
    config = folder / "models.yaml"
    config.write_text(CONFIG.format(embedding=embedding))
    core = str((os.cpu_count() or 1) - 1)
    with (folder / "insights.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("taskset", "-c", core, sys.executable, "-m", "gateway_insights"),
            cwd=ROOT,
            stderr=log,
            env={
                "PATH": os.environ["PATH"],
                "GATEWAY_CONFIG": str(config),
                "REDIS_URL": urls[0],
                "DATABASE_URL": urls[1],
                "HMAC_SECRET": secrets.token_hex(32),
            },
        )
    try:
        yield process.pid
    finally:
        process.kill()
        await process.wait()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, seldom enough to cost nothing."""
    while not await condition():  # noqa: ASYNC110 - what is waited for is another process
        await asyncio.sleep(0.05)


async def take_in(pool: Pool, folder: Path, embedding: str, urls: tuple[str, str], requests: int) -> None:
    """Let a process take the backlog in, and embed for a while; print a row, and the last model's room on disk."""
    backlog = requests * EVENTS_PER_REQUEST
    async with insights(folder, embedding, urls) as pid:
        await until(lambda: _is_past(pool, 0))
        first, at = await _events(pool), time.perf_counter()
        cpu = cpu_us(pid)
        await until(lambda: _is_past(pool, backlog - 1))
        seconds, cpu = time.perf_counter() - at, (cpu_us(pid) - cpu) / 1e6
        events = await _events(pool) - first
        vectors = "" if embedding == "off" else f"{await _vectors_a_second(pool):16.0f}"
        print(f"{embedding:12} {events / seconds:16.0f} {events / cpu:16.0f} {vectors:>16}", flush=True)
        if embedding == MODELS[-1]:
            await until(lambda: _is_embedded(pool))


async def _events(pool: Pool) -> int:
    found: int = await pool.fetchval("SELECT events FROM insights_cursor")
    return found


async def _is_past(pool: Pool, events: int) -> bool:
    migrated = await pool.fetchval("SELECT to_regclass('insights_cursor') IS NOT NULL")
    return bool(migrated) and await _events(pool) > events


async def _vectors_a_second(pool: Pool, seconds: float = 8.0) -> float:
    """How many rows get a vector once nothing else is to be done."""
    count = "SELECT count(*) FROM model_insights WHERE embedding IS NOT NULL"
    before = await pool.fetchval(count)
    await asyncio.sleep(seconds)
    return float(await pool.fetchval(count) - before) / seconds


async def _is_embedded(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT count(*) = 0 FROM model_insights WHERE embedding_model IS NULL"))


async def sizes(pool: Pool, requests: int, what: str) -> None:
    """Bytes per request, by part."""
    await pool.execute("VACUUM")
    row = await pool.fetchrow(SIZES)
    parts = {name: int(row[name]) // requests for name in ("rows", "texts", "indexes")}
    print(f"bytes per request, {what}: {sum(parts.values())} {parts}", flush=True)


async def start_anew(redis: Redis, pool: Pool) -> None:
    """Forget what was taken in; the backlog stays."""
    tables = "model_insights, insights_open, insights_settled, model_stats_hourly, model_cost_trends"
    await pool.execute(f"TRUNCATE {tables}; UPDATE insights_cursor SET event_id = '0-0', events = 0")
    await redis.xgroup_setid(KEYS.events, GROUP, "0-0")


async def main(requests: int) -> None:
    """Every row."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        redis_server, postgres = RedisServer(folder / "redis"), PostgresServer(folder / "postgres")
        try:
            await redis_server.start()
            await postgres.start()
            redis, pool = connect(redis_server.url, read_timeout=60.0), await connect_database(postgres.url)
            await fill(redis, requests)
            backlog = requests * EVENTS_PER_REQUEST
            print(f"{requests} requests, {backlog} events; one core for the process")
            print(f"{'embedding':12} {'events/s':>16} {'events/CPU s':>16} {'vectors/s':>16}", flush=True)
            for embedding in MODELS:
                if embedding != "off":
                    await start_anew(redis, pool)
                await take_in(pool, folder, embedding, (redis_server.url, postgres.url), requests)
                if embedding in (MODELS[0], MODELS[-1]):
                    await sizes(pool, requests, f"embedding {embedding}")
            await redis.aclose()
            pool.terminate()
        finally:
            postgres.close()
            redis_server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5_000)
    uvloop.run(bounded(main(parser.parse_args().requests), MOST_SECONDS))
