"""Events as the scripts write them, with the ledger that they make: many at once, and of every kind."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import orjson
from redis.asyncio import Redis

from model_gateway.money import Price, Usage, usd_text
from model_gateway.streams import Keys

KEYS = Keys()
DAY = 86_400_000
TUESDAY = 1_750_000_000_000 // DAY * DAY
"""Midnight of a day in 2025."""

PRICE = "input=1234.567,output=4321.1"
STREAM = KEYS.replies("http-test")


class EventMaker:
    """Writes requests' events to Redis, and what they cost to the ledger, in one transaction each."""

    def __init__(self, redis: Redis, seed: int = 7, start: int = TUESDAY) -> None:
        """``start``: when the first of them happens, in milliseconds; each is nine seconds later."""
        self._redis = redis
        self._start = start
        self._chance = random.Random(seed)
        self.made = 0

    async def requests(self, count: int) -> None:
        """So many requests more, ending in every way."""
        while count > 0:
            part = min(count, 100)
            pipeline = self._redis.pipeline(transaction=True)
            for _ in range(part):
                self._request(pipeline)
            await pipeline.execute()
            count -= part

    async def reset(self, window: str) -> None:
        """Reset the budget of a day."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hdel(KEYS.ledger, f"gateway|{window}|settled")
        self.event(pipeline, "model.budget.reset", scope="gateway", window=window, principal="admin", usd_nano="1")
        await pipeline.execute()

    async def restored(self, lost_event: str, request_id: str, cost: int) -> None:
        """Charge again what an event told of that was lost."""
        lost = {"error_code": "ledger_gap", "lost_event": lost_event}
        await self.charge("model.request.restored", request_id, cost, **lost)

    async def charge(self, kind: str, request_id: str, cost: int, **more: str) -> None:
        """One event that charges, and its charge."""
        window = datetime.fromtimestamp(self._start / 1000, UTC).strftime("%Y-%m-%d")
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hincrby(KEYS.ledger, f"gateway|{window}|settled", cost)
        request = {"request_id": request_id, "principal": "admin", "model": "m1", "provider": "echo", "attempt": "1"}
        charge = {"window": window, "scopes": "gateway", "usd_nano": str(cost), "ts": str(self._start)}
        self.event(pipeline, kind, **request, **charge, **more)
        await pipeline.execute()

    def _request(self, pipeline: Any) -> None:
        chance, number = self._chance, self.made
        self.made += 1
        ts = self._start + number * 9_000
        window = datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d")
        base = {
            "ts": str(ts),
            "request_id": f"r{number}",
            "principal": chance.choice(("admin", "agent-a")),
            "model": chance.choice(("m1", "m2")),
            "provider": "echo",
            "deployment": "m1",
            "price": PRICE,
        }
        held = {"window": window, "scopes": "gateway", "reserved_nano": "1000003"}
        attempt = 1
        self.event(pipeline, "model.request.start", **base, **held, attempt="1", status="running")
        if chance.random() < 0.3:
            lost = {"usd_nano": "1000003", "estimated": "1", "error_code": "worker_lost", "status": "unknown"}
            self.event(pipeline, "model.request.unknown", **base, **held, **lost, attempt="1")
            pipeline.hincrby(KEYS.ledger, f"gateway|{window}|settled", 1000003)
            self.event(pipeline, "model.request.start", **base, **held, attempt="2", status="running")
            attempt = 2
        self._end(pipeline, {**base, **held, "attempt": str(attempt)})

    def _end(self, pipeline: Any, fields: dict[str, str]) -> None:
        chance = self._chance
        kind, status = chance.choice((("complete", "done"), ("failed", "failed"), ("cancelled", "cancelled")))
        usage = Usage(input=chance.randrange(1, 5000), output=chance.randrange(1, 900), cached=chance.randrange(2))
        cost = Price.parse(PRICE).cost(usage) if kind != "failed" else 0
        tokens = {f"{name}_tokens": str(count) for name, count in usage.counts().items() if count}
        self.event(
            pipeline,
            f"model.request.{kind}",
            **fields,
            **(tokens if cost else {}),
            usd_nano=str(cost),
            usd=usd_text(cost),
            status=status,
            estimated="0",
            latency_ms=str(chance.randrange(1, 9000)),
            ttft_ms=str(chance.randrange(1, 900)),
        )
        pipeline.hincrby(KEYS.ledger, f"gateway|{fields['window']}|settled", cost)

    def event(self, pipeline: Any, kind: str, **fields: str) -> None:
        """One event."""
        pipeline.xadd(KEYS.events, {"event_type": kind, **fields})


async def ask(redis: Redis, body: dict[str, Any], reply: dict[str, Any], request_id: str = "r1", **fields: str) -> str:
    """A request with its reply in the streams, and its terminal event; the event's id."""
    entry = await redis.xadd(KEYS.requests, {"body": orjson.dumps(body), "id": request_id})
    answer = await redis.xadd(STREAM, {"id": request_id, "kind": "reply", "data": orjson.dumps(reply)})
    found = await redis.xadd(
        KEYS.events,
        {
            "event_type": "model.request.complete",
            "ts": str(TUESDAY),
            "request_id": request_id,
            "principal": "admin",
            "model": "m1",
            "window": "2025-06-15",
            "scopes": "gateway",
            "usd_nano": "5",
            "latency_ms": "3",
            "request_entry": entry,
            "reply_stream": STREAM,
            "reply_first": answer,
            "reply_last": answer,
            **fields,
        },
    )
    return found.decode()
