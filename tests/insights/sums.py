"""What must hold once every event is in: PostgreSQL, the events and the ledger tell the same, to the nano-dollar."""

from __future__ import annotations

from collections import Counter
from typing import Any

from redis.asyncio import Redis

from gateway_insights.database import Pool
from model_gateway.events import CHARGING, TERMINAL
from model_gateway.insights import GROUP
from model_gateway.replay import read_ledger
from model_gateway.streams import Keys
from tests.invariants import events_of

KEYS = Keys()


async def taken_in(pool: Pool, redis: Redis) -> bool:
    """Whether the cursor stands at the newest event, and the consumer group too."""
    newest = await redis.xrevrange(KEYS.events, count=1)
    groups = {group["name"]: group for group in await redis.xinfo_groups(KEYS.events)}
    group = groups.get(GROUP.encode(), {"last-delivered-id": b""})
    at = await pool.fetchval("SELECT event_id FROM insights_cursor")
    return bool(at == newest[0][0].decode() == group["last-delivered-id"].decode())


async def check_sums(pool: Pool, redis: Redis) -> int:
    """Compare all of it; the sum of the charges in nano-dollars."""
    events = await events_of(redis)
    charges = [event for event in events if event["event_type"] in CHARGING]
    ended = [event for event in events if event["event_type"] in TERMINAL]
    charged = sum(event["usd_nano"] for event in charges)
    assert await pool.fetchval("SELECT events FROM insights_cursor") == len(events)
    assert await _sum(pool, "model_insights") == charged
    assert await _sum(pool, "model_stats_hourly") == charged
    assert await _sum(pool, "model_cost_trends") == charged
    assert await _settled(pool) == await _ledger(redis)
    await _check_rows(pool, charges, len(ended))
    return charged


async def _check_rows(pool: Pool, charges: list[dict[str, Any]], ended: int) -> None:
    """One row for each request, with what all of its attempts cost."""
    cost: Counter[tuple[str, str]] = Counter()
    for event in charges:
        cost[event["principal"], event["request_id"]] += event["usd_nano"]
    rows = await pool.fetch("SELECT principal, request_id, cost_nano, status FROM model_insights")
    assert {(row["principal"], row["request_id"]): row["cost_nano"] for row in rows} == dict(cost)
    assert len(rows) == len(cost) == ended
    assert "unknown" not in {row["status"] for row in rows}
    assert await pool.fetchval("SELECT count(*) FROM insights_open") == 0
    assert await pool.fetchval("SELECT sum(requests) FROM model_stats_hourly") == ended
    assert await pool.fetchval("SELECT sum(requests) FROM model_cost_trends") == ended


async def _sum(pool: Pool, table: str) -> int:
    return int(await pool.fetchval(f"SELECT coalesce(sum(cost_nano), 0) FROM {table}"))


async def _settled(pool: Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT * FROM insights_settled WHERE settled_nano <> 0")
    return {f"{row['scope']}|{row['window_day']}|settled": row["settled_nano"] for row in rows}


async def _ledger(redis: Redis) -> dict[str, int]:
    ledger = await read_ledger(redis, KEYS)
    return {name: value for name, value in ledger.items() if name.endswith("|settled")}
