"""Events into a real PostgreSQL: each once, whoever reads it how often."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager

import pytest

from gateway_insights.batch import fold
from gateway_insights.consumer import Consumer
from gateway_insights.database import connect
from gateway_insights.redaction import Redaction
from gateway_insights.texts import Texts
from gateway_insights.writes import CursorMovedError, cursor, write
from gateway_worker.janitor import Janitor
from model_gateway.clock import SetClock
from model_gateway.connection import connect as connect_redis
from model_gateway.insights import GROUP
from model_gateway.scripts import Scripts
from model_gateway.settings import Insights, Retention
from model_gateway.tasks import background
from tests.insights.event_maker import KEYS, TUESDAY, EventMaker, ask
from tests.insights.sums import check_sums, taken_in
from tests.processes import wait_until
from tests.redis_server import RedisServer


def consumer_of(redis, pool, batch=37):
    return Consumer(redis, pool, KEYS, Texts(redis, KEYS, Insights(), Redaction(), "key"), batch=batch)


@asynccontextmanager
async def consuming(redis, pool, batch=37):
    consumer = consumer_of(redis, pool, batch)
    async with background(consumer.run(), "consumer"):
        yield consumer


async def all_in(pool, redis):
    await wait_until(lambda: taken_in(pool, redis), what="every event taken in")


async def test_rows_rollups_and_budget_tell_what_the_events_and_the_ledger_tell(redis, pool):
    maker = EventMaker(redis)
    await maker.requests(300)
    async with consuming(redis, pool):
        await all_in(pool, redis)
        await maker.requests(100)
        await all_in(pool, redis)
    assert await check_sums(pool, redis) > 0


@pytest.mark.parametrize("batch", [1, 2, 1000])
async def test_how_events_are_cut_into_batches_changes_nothing(redis, pool, batch):
    await EventMaker(redis).requests(60)
    async with consuming(redis, pool, batch):
        await all_in(pool, redis)
    await check_sums(pool, redis)


async def test_a_reset_budget_is_reset_here_too(redis, pool):
    maker = EventMaker(redis)
    await maker.requests(20)
    async with consuming(redis, pool, 7):
        await all_in(pool, redis)
        await maker.reset("2025-06-15")
        await maker.requests(20)
        await all_in(pool, redis)
    await check_sums(pool, redis)


async def test_a_batch_that_was_written_is_not_written_again(redis, pool):
    await EventMaker(redis).requests(10)
    entries = await redis.xrange(KEYS.events)
    async with pool.acquire() as connection:
        await write(connection, "0-0", fold(entries))
        for after in ("0-0", entries[0][0].decode()):
            with pytest.raises(CursorMovedError):
                await write(connection, after, fold(entries))
    await check_sums(pool, redis)


async def test_two_that_write_the_same_batch_at_once_write_it_once(redis, pool):
    await EventMaker(redis).requests(50)
    entries = await redis.xrange(KEYS.events)

    async def one():
        async with pool.acquire() as connection:
            await write(connection, "0-0", fold(entries))

    results = await asyncio.gather(*(one() for _ in range(4)), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [CursorMovedError] * 3
    await check_sums(pool, redis)


async def test_a_batch_that_fails_in_its_midst_leaves_nothing(redis, pool):
    await EventMaker(redis).requests(10)
    batch = fold(await redis.xrange(KEYS.events))
    batch.days[next(iter(batch.days))].cost_nano = 2**70
    async with pool.acquire() as connection:
        with pytest.raises(Exception, match="out of int64 range"):
            await write(connection, "0-0", batch)
        assert await cursor(connection) == "0-0"
    for table in ("model_insights", "model_stats_hourly", "model_cost_trends", "insights_settled", "insights_open"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_two_consumers_take_turns_and_each_event_counts_once(redis, pool, database_url):
    other = await connect(database_url)
    maker = EventMaker(redis)
    try:
        async with consuming(redis, pool, 20) as first, consuming(redis, other, 20) as second:
            for _ in range(3):
                await maker.requests(60)
                await all_in(pool, redis)
                # Whoever is in charge loses its connection, and the lock with it.
                await pool.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                )
            await maker.requests(60)
            await all_in(pool, redis)
            assert not (first.leading.is_set() and second.leading.is_set())
        await check_sums(pool, redis)
    finally:
        await other.close()


async def test_the_group_is_made_again_where_redis_lost_it(redis, pool):
    maker = EventMaker(redis)
    await maker.requests(5)
    async with consuming(redis, pool):
        await all_in(pool, redis)
        await redis.xgroup_destroy(KEYS.events, GROUP)
        await maker.requests(5)
        await all_in(pool, redis)
    await check_sums(pool, redis)


async def test_a_redis_that_was_killed_and_comes_back_is_read_on(pool, tmp_path):
    server = RedisServer(tmp_path / "own-redis", "always")
    await server.start()
    redis = connect_redis(server.url)
    maker = EventMaker(redis)
    try:
        async with consuming(redis, pool) as consumer:
            await maker.requests(40)
            await all_in(pool, redis)
            server.stop(signal.SIGKILL)
            await wait_until(lambda: "Redis" in consumer.problem, what="the problem to be told")
            await server.start()
            await maker.requests(40)
            await all_in(pool, redis)
            await wait_until(lambda: not consumer.problem, what="the problem to be over")
        await check_sums(pool, redis)
    finally:
        await redis.aclose()
        server.close()


async def test_the_janitor_trims_no_event_that_is_not_taken_in(redis, pool):
    maker = EventMaker(redis)
    await maker.requests(10)
    async with consuming(redis, pool):
        await all_in(pool, redis)
    await maker.requests(10)
    late = SetClock(10**13)
    await Janitor(redis, Scripts(redis, late), KEYS, Retention(), clock=late, name="j").sweep()
    async with consuming(redis, pool):
        await all_in(pool, redis)
    assert await pool.fetchval("SELECT sum(requests) FROM model_stats_hourly") == 20
    assert await pool.fetchval("SELECT count(*) FROM model_insights") == 20


async def test_entries_of_strangers_and_hostile_texts_hold_nothing_up(redis, pool):
    await redis.xadd(KEYS.events, {"event_type": "model.request.complete", "usd_nano": "x"})
    await redis.xadd(KEYS.events, {b"\xff": b"\xfe"})
    hostile = "'; DROP TABLE model_insights; --\0\\ %_ \U0001f600"
    await ask(redis, {"messages": [{"role": "user", "content": hostile}]}, {}, hostile, finish_reason=hostile)
    async with consuming(redis, pool):
        await all_in(pool, redis)
    row = await pool.fetchrow("SELECT request_id, request_text, finish_reason FROM model_insights")
    assert set(row) == {hostile.replace("\0", "\ufffd")}


async def test_a_request_that_ends_in_a_later_batch_completes_its_row_and_keeps_its_place(redis, pool):
    base = {"request_id": "r", "principal": "admin", "model": "m", "window": "2025-06-15", "scopes": "gateway"}
    unknown = {"event_type": "model.request.unknown", "ts": TUESDAY, "usd_nano": "100", **base}
    first = await redis.xadd(KEYS.events, unknown)
    async with consuming(redis, pool):
        await all_in(pool, redis)
        assert await pool.fetchval("SELECT status FROM model_insights") == "unknown"
        await redis.xadd(KEYS.events, {**unknown, "usd_nano": "11"})
        await all_in(pool, redis)
        end = {"event_type": "model.request.failed", "ts": TUESDAY + 5000, "error_code": "outcome_unknown"}
        await redis.xadd(KEYS.events, {**base, **end, "usd_nano": "0"})
        await all_in(pool, redis)
    (row,) = await pool.fetch("SELECT event_id, cost_nano, status, error_code FROM model_insights")
    assert tuple(row) == (first.decode(), 111, "failed", "outcome_unknown")
    assert await pool.fetchval("SELECT count(*) FROM insights_open") == 0


async def test_a_charge_made_again_does_not_end_a_request_that_is_still_running(redis, pool):
    """The same id, lost and run again: its first attempt was charged, then the lost one, then it ended."""
    maker = EventMaker(redis)
    await maker.charge("model.request.unknown", "twice", 300)
    await maker.restored("1-1", "twice", 500)
    await maker.charge("model.request.complete", "twice", 70)
    async with consuming(redis, pool):
        await all_in(pool, redis)
    rows = await pool.fetch(
        "SELECT cost_nano, status FROM model_insights WHERE request_id = 'twice' ORDER BY cost_nano"
    )
    assert [tuple(row) for row in rows] == [(370, "done"), (500, "unknown")]
    assert await pool.fetchval("SELECT count(*) FROM insights_open") == 0


async def test_a_charge_made_again_after_redis_lost_it_counts_once(redis, pool):
    maker = EventMaker(redis)
    await maker.requests(3)
    async with consuming(redis, pool):
        await all_in(pool, redis)
        before = await check_sums(pool, redis)
        taken = await pool.fetchval("SELECT max(event_id) FROM model_insights WHERE status = 'done'")
        await maker.restored(taken, "r1", 1_000)
        await maker.restored("1-1", "never-taken-in", 500)
        await all_in(pool, redis)
    assert await pool.fetchval("SELECT sum(settled_nano) FROM insights_settled") == before + 500
    assert await pool.fetchval("SELECT cost_nano FROM model_insights WHERE request_id = 'never-taken-in'") == 500
    assert await pool.fetchval("SELECT count(*) FROM insights_open") == 0
