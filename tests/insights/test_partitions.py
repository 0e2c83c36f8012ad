"""Rows lie by day, go when their day is past, and are gone at once when somebody is to be forgotten."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway_insights.database import Pool, transaction
from gateway_insights.partitions import drop_old, ensure, forget_principal

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


async def insert(pool: Pool, time: datetime, event_id: str = "1-0", principal: str = "admin") -> None:
    await pool.execute(
        "INSERT INTO model_insights (time, event_id, request_id, principal, model, status, cost_nano, request_text)"
        " VALUES ($1, $2, $2, $3, 'echo', 'done', 5, 'a prompt')",
        time,
        event_id,
        principal,
    )


async def places(pool: Pool) -> dict[str, str]:
    """The partition of each row, by event id."""
    rows = await pool.fetch("SELECT event_id, tableoid::regclass::text AS place FROM model_insights")
    return {row["event_id"]: row["place"] for row in rows}


async def days(pool: Pool) -> list[str]:
    return [row["partition"] for row in await pool.fetch("SELECT partition FROM insights_days ORDER BY day")]


async def test_today_and_the_days_ahead_have_a_partition_however_often_it_is_asked(pool: Pool):
    await ensure(pool, NOW)
    await ensure(pool, NOW)
    assert await days(pool) == ["model_insights_20260310", "model_insights_20260311", "model_insights_20260312"]


async def test_several_processes_may_make_the_same_days_at_once(pool: Pool):
    await asyncio.gather(*(ensure(pool, NOW) for _ in range(4)))
    assert len(await days(pool)) == 3


async def test_a_day_is_a_utc_day_whatever_zone_the_clock_is_in(pool: Pool):
    late_evening = datetime(2026, 3, 10, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    await ensure(pool, late_evening, days_ahead=0)
    assert await days(pool) == ["model_insights_20260311"]


async def test_each_row_lies_in_its_day_from_the_first_to_the_last_microsecond(pool: Pool):
    await ensure(pool, NOW)
    midnight = NOW.replace(hour=0)
    await insert(pool, midnight, "first")
    await insert(pool, midnight + timedelta(days=1) - timedelta(microseconds=1), "last")
    await insert(pool, midnight + timedelta(days=1), "next")
    assert await places(pool) == {
        "first": "model_insights_20260310",
        "last": "model_insights_20260310",
        "next": "model_insights_20260311",
    }


async def test_a_row_of_a_day_without_a_partition_is_kept_and_moves_in_when_the_day_gets_one(pool: Pool):
    await insert(pool, NOW)
    await insert(pool, NOW - timedelta(days=400), "ancient")
    assert set((await places(pool)).values()) == {"model_insights_default"}
    await ensure(pool, NOW)
    assert await places(pool) == {"1-0": "model_insights_20260310", "ancient": "model_insights_default"}


async def test_a_new_partition_has_all_indexes_of_the_table(pool: Pool):
    await ensure(pool, NOW, days_ahead=0)
    found = "SELECT count(*) FROM pg_indexes WHERE tablename = $1"
    wanted = await pool.fetchval(found, "model_insights")
    assert await pool.fetchval(found, "model_insights_20260310") == wanted >= 5


async def test_a_day_is_dropped_when_its_last_row_is_past_retention_and_not_before(pool: Pool):
    await ensure(pool, NOW, days_ahead=0)
    await insert(pool, NOW.replace(hour=23))
    end_of_day = datetime(2026, 3, 11, tzinfo=UTC)
    assert await drop_old(pool, end_of_day + timedelta(days=30) - timedelta(seconds=1), 30) == []
    assert await places(pool)
    assert await drop_old(pool, end_of_day + timedelta(days=30), 30) == ["model_insights_20260310"]
    assert await places(pool) == {}
    assert await days(pool) == []


async def test_rows_without_a_day_of_their_own_go_by_their_time(pool: Pool):
    await insert(pool, NOW - timedelta(days=30, seconds=1), "old")
    await insert(pool, NOW - timedelta(days=30), "just kept")
    await drop_old(pool, NOW, 30)
    assert set(await places(pool)) == {"just kept"}


async def test_an_open_request_past_retention_is_no_longer_waited_for(pool: Pool):
    for name, age in (("old", 31), ("fresh", 1)):
        await pool.execute("INSERT INTO insights_open VALUES ('admin', $1, $2, '1-0')", name, NOW - timedelta(days=age))
    await drop_old(pool, NOW, 30)
    assert [row["request_id"] for row in await pool.fetch("SELECT request_id FROM insights_open")] == ["fresh"]


async def test_roll_ups_outlive_the_rows(pool: Pool):
    await pool.execute("INSERT INTO model_stats_hourly (hour, model, provider) VALUES ($1, 'echo', 'echo')", NOW)
    await drop_old(pool, NOW + timedelta(days=400), 30)
    assert await pool.fetchval("SELECT count(*) FROM model_stats_hourly") == 1


async def test_a_forgotten_principal_leaves_no_row_in_any_partition_and_others_keep_theirs(pool: Pool):
    await ensure(pool, NOW)
    name = "agent-x'; DROP TABLE model_insights; --%_"
    for number, day in enumerate((-500, 0, 1)):
        await insert(pool, NOW + timedelta(days=day), f"{number}-0", name)
        await insert(pool, NOW + timedelta(days=day), f"{number}-1")
    await pool.execute("INSERT INTO insights_open VALUES ($1, 'r', $2, '0-0')", name, NOW)
    assert await forget_principal(pool, name) == 3
    assert set(await places(pool)) == {"0-1", "1-1", "2-1"}
    assert await pool.fetchval("SELECT count(*) FROM insights_open") == 0
    assert await forget_principal(pool, name) == 0


@pytest.mark.parametrize("table", ["model_insights_default", "model_insights_20260301"])
async def test_a_long_query_makes_housekeeping_wait_for_another_time_and_not_forever(pool: Pool, table: str):
    await ensure(pool, datetime(2026, 3, 1, tzinfo=UTC), days_ahead=0)
    async with transaction(pool) as query:
        await query.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        assert await drop_old(pool, NOW, 5, lock_ms=1) == []
        await ensure(pool, NOW, lock_ms=1)
    assert await drop_old(pool, NOW, 5) == ["model_insights_20260301"]
    await ensure(pool, NOW)
    assert len(await days(pool)) == 3
