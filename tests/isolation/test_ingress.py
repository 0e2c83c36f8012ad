"""The scripts that empty an ingress, one by one: whoever calls them, and however often, each has its effect once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway_worker.ingress import Ingress, Waiting
from model_gateway import GatewayError
from model_gateway.clock import Clock
from model_gateway.connection import connect
from model_gateway.envelope import Envelope
from model_gateway.replies import ReplyReader
from model_gateway.scripts import Scripts
from model_gateway.settings import GatewayConfig, parse_config
from model_gateway.streams import GROUP
from tests.isolation.house import HOSTILE_SECRET, INGRESS, KEYS, SENDER, envelope
from tests.processes import wait_until
from tests.redis_server import RedisServer

Maker = Callable[..., Ingress]


def config(bounds: str) -> GatewayConfig:
    return parse_config(
        f"""
models: {{echo: {{provider: echo, free: true}}}}
agents: {{hostile: {{secret_env: A_SECRET, isolated: true, {bounds}}}}}
limits: {{body_bytes: 10000}}
queue: {{max_depth: 5}}
"""
    )


@pytest.fixture
async def ingress_of(redis: Redis) -> AsyncIterator[Maker]:
    """Makes the ingress as one worker sees it."""
    scripts = Scripts(redis, Clock())

    def ingress(reader: str = "w1", bounds: str = "per_minute: 100") -> Ingress:
        return Ingress(scripts, KEYS, config(bounds), "hostile", reader)

    await redis.xgroup_create(KEYS.requests, GROUP, id="0", mkstream=True)
    yield ingress
    await scripts.close()


async def publish(redis: Redis, made: Envelope) -> Waiting:
    """An entry of the ingress, as a look at it gives it back."""
    fields = made.fields(HOSTILE_SECRET)
    entry = await redis.xadd(INGRESS, fields)
    pairs = ((name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in fields.items())
    return Waiting(entry.decode(), tuple(pairs))


async def test_an_entry_is_moved_once_however_many_move_it_at_once(redis: Redis, ingress_of: Maker):
    made = envelope()
    waiting = await publish(redis, made)
    moving = (ingress_of(f"w{number}").forward(waiting, made) for number in range(20))
    results = Counter(result for result, _ in await asyncio.gather(*moving))
    assert results == {"moved": 1, "gone": 19}
    [(_, fields)] = await redis.xrange(KEYS.requests)
    assert tuple(fields.items()) == waiting.pairs
    assert await redis.hget(KEYS.record(SENDER, made.request_id), "state") == b"queued"
    assert not await redis.exists(INGRESS)


async def test_what_is_moved_is_what_was_verified_and_not_what_took_its_place(redis: Redis, ingress_of: Maker):
    made = envelope()
    waiting = await publish(redis, made)
    await redis.delete(INGRESS)
    await redis.xadd(INGRESS, {"from": "agent-test"}, id=waiting.entry)
    assert await ingress_of().forward(waiting, made) == ("moved", 0)
    [(_, fields)] = await redis.xrange(KEYS.requests)
    assert fields[b"from"] == SENDER.encode()


async def test_an_entry_that_is_gone_is_neither_moved_nor_answered(redis: Redis, ingress_of: Maker):
    made = envelope()
    waiting = await publish(redis, made)
    await redis.xadd(INGRESS, {"a": "1"}, maxlen=0, approximate=False)
    ingress = ingress_of()
    assert await ingress.forward(waiting, made) == ("gone", 0)
    assert await ingress.turn_away(waiting, "a reason", None) == "gone"
    assert await ingress.cancel(waiting, made) == "gone"
    assert await redis.xlen(KEYS.requests) == await redis.xlen(KEYS.dead) == 0


async def test_one_worker_at_a_time_reads_an_ingress_and_another_one_when_that_one_is_silent(
    redis: Redis, ingress_of: Maker
):
    await publish(redis, envelope())
    first, second = ingress_of("w1"), ingress_of("w2")
    assert (await first.look()).kind == "found"
    assert (await second.look()).kind == "taken"
    assert (await first.look()).kind == "found"

    async def turn_passes() -> bool:
        return (await second.look()).kind == "found"

    await wait_until(turn_passes, what="the turn of the other worker")
    await redis.delete(INGRESS)
    assert (await second.look()).kind == "empty"
    await publish(redis, envelope())
    assert (await first.look()).kind == "found", "the turn is given back with the last entry"


async def test_past_its_bytes_an_ingress_loses_its_older_entries_unread(redis: Redis, ingress_of: Maker):
    for _ in range(8):
        newest = await publish(redis, envelope(body=b"x" * 9_000))
    look = await ingress_of().look()
    assert 0 < look.dropped < 8
    assert look.waiting
    assert await redis.memory_usage(INGRESS, samples=0) <= 2 * (10_000 + 4_096)
    [(last, _)] = await redis.xrevrange(INGRESS, count=1)
    assert last.decode() == newest.entry


async def test_what_one_look_brings_is_bounded_in_bytes_and_in_entries(redis: Redis, ingress_of: Maker):
    for _ in range(3):
        await publish(redis, envelope(body=b"x" * 7_000))
    assert len((await ingress_of().look()).waiting) == 2
    await redis.delete(INGRESS)
    for _ in range(40):
        await publish(redis, envelope(body=b"{}"))
    assert len((await ingress_of().look()).waiting) == 16


async def test_an_agent_that_has_had_its_minutes_share_waits_for_the_next_minute(redis: Redis, ingress_of: Maker):
    await early_in_a_minute(redis)
    ingress = ingress_of(bounds="per_minute: 3")
    for _ in range(5):
        await publish(redis, envelope())
    look = await ingress.look()
    assert len(look.waiting) == 3
    for waiting in look.waiting:
        await ingress.turn_away(waiting, "", None)
    assert (await ingress.look()).kind == "paced"
    assert await redis.xlen(INGRESS) == 2
    await redis.hset(KEYS.ingress_state("hostile"), "minute", "0")
    assert len((await ingress.look()).waiting) == 2


async def test_rubbish_leaves_few_dead_letters_in_a_minute_and_short_ones(redis: Redis, ingress_of: Maker):
    await early_in_a_minute(redis)
    ingress = ingress_of()
    for _ in range(30):
        waiting = await publish(redis, envelope(body=b"x" * 9_000))
        assert await ingress.turn_away(waiting, "rubbish", None) == "turned_away"
    letters = await redis.xrange(KEYS.dead)
    assert len(letters) == 10
    assert max(sum(len(value) for value in fields.values()) for _, fields in letters) < 5_000


async def test_without_room_an_entry_stays_where_it_is(redis: Redis, ingress_of: Maker):
    made = envelope()
    waiting = await publish(redis, made)
    ingress = ingress_of(bounds="max_unfinished: 1")
    await redis.set(KEYS.full, "1")
    assert await ingress.forward(waiting, made) == ("full", 0)
    await redis.delete(KEYS.full)
    for _ in range(5):
        await redis.xadd(KEYS.requests, {"somebody": "else's"})
    assert await ingress.forward(waiting, made) == ("busy", 5)
    await redis.xtrim(KEYS.requests, maxlen=0, approximate=False)
    await redis.xgroup_setid(KEYS.requests, GROUP, "$")
    await redis.hset(KEYS.record(SENDER, "running"), "state", "running")
    await redis.sadd(KEYS.unfinished("hostile"), "running")
    assert await ingress.forward(waiting, made) == ("many", 1)
    assert await redis.xlen(INGRESS) == 1
    await redis.hset(KEYS.record(SENDER, "running"), "state", "done")
    assert await ingress.forward(waiting, made) == ("moved", 0)
    assert await redis.smembers(KEYS.unfinished("hostile")) == {made.request_id.encode()}


async def test_at_maxmemory_nothing_is_moved_and_the_ingress_can_still_be_emptied(tmp_path: Path):
    server = RedisServer(tmp_path / "redis")
    try:
        await server.start()
        async with connect(server.url) as redis:
            scripts = Scripts(redis, Clock())
            ingress = Ingress(scripts, KEYS, config("per_minute: 100"), "hostile", "w1")
            made = envelope()
            waiting = await publish(redis, made)
            await redis.config_set("maxmemory", "1")
            with pytest.raises(GatewayError) as caught:
                await ingress.forward(waiting, made)
            assert caught.value.code == "storage_full"
            assert len((await ingress.look()).waiting) == 1
            assert await ingress.turn_away(waiting, "", None) == "turned_away"
            await scripts.close()
    finally:
        server.close()


async def test_a_stream_that_was_begun_before_is_handed_out_from_its_start_and_whole(redis: Redis):
    stream, found = KEYS.replies(SENDER), []
    reader = ReplyReader(redis, stream, on_return=lambda: None, from_the_start=True)
    first = await redis.xadd(stream, chunk(0))
    await redis.xadd(stream, chunk(1))
    await reader.start()
    queue = reader.expect("mine")
    try:
        await redis.xadd(stream, chunk(2))
        await redis.xadd(stream, {"id": "mine", "kind": "duplicate", "first": first, "last": "", "data": "{}"})
        await redis.xadd(stream, chunk(3))
        while len(found) < 4:
            found.append((await asyncio.wait_for(queue.get(), 20)).index)
    finally:
        await reader.close()
    assert found == [0, 1, 2, 3]


def chunk(index: int) -> dict[str, str]:
    return {"id": "mine", "kind": "chunk", "index": str(index), "end": "0", "data": "{}"}


async def early_in_a_minute(redis: Redis) -> None:
    """Not in its last seconds: the count begins anew with each."""

    async def early() -> bool:
        seconds, _ = await redis.time()
        return seconds % 60 < 55

    await wait_until(early, what="the next minute")
