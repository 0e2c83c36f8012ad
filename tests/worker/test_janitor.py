"""Retention: old entries go, needed ones stay, and past the byte budget new work is refused."""

from __future__ import annotations

import pytest

from gateway_worker.janitor import Janitor
from model_gateway import GatewayError
from model_gateway.client import StreamClient
from model_gateway.clock import Clock, SetClock
from model_gateway.scripts import Scripts
from model_gateway.settings import Retention, Span
from model_gateway.streams import GROUP, Keys

KEYS = Keys()
DAY = 86_400_000
SMALL = Retention(requests=Span(seconds=3600, bytes=50_000), events=Span(seconds=3 * 86_400, bytes=50_000))


@pytest.fixture
async def janitor(redis):
    scripts = Scripts(redis, Clock())
    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
    yield Janitor(redis, scripts, KEYS, SMALL, clock=Clock(), name="test")
    await scripts.close()


async def fill(redis, stream, count, at_ms=None):
    for number in range(count):
        await redis.xadd(stream, {"body": "x" * 100}, id="*" if at_ms is None else f"{at_ms}-{number + 1}")


async def test_old_entries_go_but_never_the_unread_or_the_unacknowledged(redis, janitor):
    old = Clock().now_ms() - DAY
    await fill(redis, KEYS.requests, 10, old)
    taken = await redis.xreadgroup(GROUP, "a", {KEYS.requests: ">"}, count=6)
    entries = [entry for entry, _ in taken[0][1]]
    await redis.xack(KEYS.requests, GROUP, *entries[:4])
    await janitor.sweep()
    assert [entry for entry, _ in await redis.xrange(KEYS.requests)] == [*entries[4:], *_ids(old, 7, 10)]


def _ids(at_ms, first, last):
    return [f"{at_ms}-{number}".encode() for number in range(first, last + 1)]


async def test_past_its_bytes_a_stream_loses_its_oldest_finished_entries(redis, janitor):
    await fill(redis, KEYS.requests, 3_000)
    taken = await redis.xreadgroup(GROUP, "a", {KEYS.requests: ">"}, count=3_000)
    await redis.xack(KEYS.requests, GROUP, *[entry for entry, _ in taken[0][1]])
    await janitor.sweep()
    assert await redis.xlen(KEYS.requests) < 3_000
    assert not await redis.exists(KEYS.full)


async def test_when_what_is_needed_is_past_its_bytes_new_work_is_refused_until_it_is_done(redis, redis_url, janitor):
    await fill(redis, KEYS.requests, 3_000)
    await janitor.sweep()
    client = StreamClient(redis_url, sender="agent-test", secret="s" * 40)
    await client.start()
    with pytest.raises(GatewayError) as caught:
        await client.submit(principal="agent-test", model="echo", body=b"{}")
    assert (caught.value.code, caught.value.status) == ("storage_full", 503)
    assert caught.value.retry_after
    taken = await redis.xreadgroup(GROUP, "a", {KEYS.requests: ">"}, count=3_000)
    await redis.xack(KEYS.requests, GROUP, *[entry for entry, _ in taken[0][1]])
    await janitor.sweep()
    await client.submit(principal="agent-test", model="echo", body=b"{}")
    await client.close()


async def test_the_open_windows_events_are_never_trimmed(redis, janitor):
    await fill(redis, KEYS.events, 100, Clock().now_ms() - 10 * DAY)
    await fill(redis, KEYS.events, 3_000)
    await janitor.sweep()
    assert await redis.xlen(KEYS.events) == 3_000


async def test_balances_of_windows_whose_events_are_gone_are_forgotten(redis):
    scripts = Scripts(redis, Clock())
    await redis.hset(KEYS.ledger, mapping={"gateway|2026-01-01|settled": 5, "gateway|2026-11-23|settled": 7})
    now = SetClock(1_795_435_200_000)
    await Janitor(redis, scripts, KEYS, Retention(), clock=now, name="test").sweep()
    assert await redis.hkeys(KEYS.ledger) == [b"gateway|2026-11-23|settled"]


async def test_a_consumer_with_pending_entries_is_never_deleted(redis, janitor):
    await fill(redis, KEYS.requests, 1)
    await redis.xreadgroup(GROUP, "busy", {KEYS.requests: ">"})
    await redis.xgroup_createconsumer(KEYS.requests, GROUP, "idle")
    await janitor.sweep()
    names = [consumer["name"] for consumer in await redis.xinfo_consumers(KEYS.requests, GROUP)]
    assert sorted(names) == [b"busy", b"idle"]


async def test_past_their_bytes_reply_streams_lose_what_is_old_before_anybody_is_refused(redis):
    replies = Retention(replies=Span(seconds=7200, bytes=60_000))
    scripts = Scripts(redis, Clock())
    await fill(redis, KEYS.replies("http-a"), 1_000, Clock().now_ms() - 600_000)
    await fill(redis, KEYS.replies("http-b"), 100)
    await Janitor(redis, scripts, KEYS, replies, clock=Clock(), name="test").sweep()
    assert await redis.xlen(KEYS.replies("http-a")) < 1_000
    assert await redis.xlen(KEYS.replies("http-b")) == 100
    assert not await redis.exists(KEYS.full)


async def test_a_stream_of_large_bodies_is_trimmed_too(redis, janitor):
    for _ in range(40):
        await redis.xadd(KEYS.requests, {"body": b"x" * 2**20})
    taken = await redis.xreadgroup(GROUP, "a", {KEYS.requests: ">"}, count=40)
    await redis.xack(KEYS.requests, GROUP, *[entry for entry, _ in taken[0][1]])
    await janitor.sweep()
    assert await redis.xlen(KEYS.requests) <= 1


async def test_insights_that_are_too_far_behind_lose_events_rather_than_hold_up_requests(redis, janitor):
    await fill(redis, KEYS.events, 3_000, Clock().now_ms() - 4 * DAY)
    await redis.xgroup_create(KEYS.events, "insights", id="0")
    await janitor.sweep()
    assert await redis.xlen(KEYS.events) < 3_000
    assert not await redis.exists(KEYS.full)


async def test_within_their_bytes_events_wait_for_insights(redis, janitor):
    await fill(redis, KEYS.events, 50, Clock().now_ms() - 4 * DAY)
    await redis.xgroup_create(KEYS.events, "insights", id="0")
    await janitor.sweep()
    assert await redis.xlen(KEYS.events) == 50


async def test_insights_that_are_switched_off_keep_no_event(redis, janitor):
    await fill(redis, KEYS.events, 50, Clock().now_ms() - 4 * DAY)
    await redis.xgroup_create(KEYS.events, "insights", id="0")
    janitor._insights = False
    await janitor.sweep()
    assert await redis.xinfo_groups(KEYS.events) == []
    assert await redis.xlen(KEYS.events) == 0
