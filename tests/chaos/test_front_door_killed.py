"""A front door killed in the middle of its streams: its requests run to their end, are paid once, and leave nothing."""

from __future__ import annotations

import asyncio
import random
import signal

import aiohttp
import pytest

from model_gateway.events import CHARGING
from tests.chaos.paid_provider import price_of
from tests.chaos.scale import SEED, scaled
from tests.invariants import KEYS, check_idle, events_of
from tests.processes import ADMIN_TOKEN, gateway, wait_until
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

LIMIT = 20_000_000_000
STREAMS = scaled(200, 20)
ROUNDS = scaled(10, 1)
REPLIES_TTL_SECONDS = 7200
CONFIG = """
models:
  held: {{provider: openai, api_base: "{base_url}", input_cost: 0.000001234567, output_cost: 0.000001234567,
    max_tokens: 64, max_concurrency: 1000}}
  quick: {{provider: openai, api_base: "{base_url}", input_cost: 0, output_cost: 0, max_tokens: 64}}
worker: {{lease_seconds: 3}}
"""


@pytest.mark.timeout(scaled(600, 120))
async def test_streams_whose_front_door_was_killed_are_settled_once_and_nothing_of_them_stays(
    redis, redis_url, tmp_path, record_property
):
    chance = random.Random(SEED)
    config = CONFIG.format
    async with Upstream() as upstream, gateway(redis, redis_url, tmp_path, config(base_url=upstream.base_url)) as house:
        for name in ("w1", "w2"):
            await house.start_worker(name)
        door = await house.start_api()
        for _ in range(ROUNDS):
            door = await one_round(redis, house, upstream, door, chance)
        events = await events_of(redis)
        ends = {event["request_id"] for event in events if event["event_type"] == "model.request.complete"}
        await check_idle(redis, LIMIT, ends)
        assert len(ends) == upstream.calls == ROUNDS * (STREAMS + 1), "called twice, or not settled as complete"
        settled = sum(event["usd_nano"] or 0 for event in events if event["event_type"] in CHARGING)
        charged = sum(price_of(request.charged) for request in upstream.requests if request.json["model"] == "held")
        assert settled == charged, "what the provider charged is not what was settled"
        record_property("fault", "the front door killed -9 in mid-stream")
        record_property("front doors killed", ROUNDS)
        record_property("streams cut", ROUNDS * STREAMS)
        record_property("provider charged (nano)", charged)
        record_property("settled (nano)", settled)


async def one_round(redis, house, upstream, door, chance):
    """Kill the front door in the middle of its streams; a new one answers before any of them has ended."""
    before, begun = upstream.calls, len(await told(redis, "model.streaming.start"))
    upstream.hold()
    upstream.script["held"] = Behaviour(hold_at=chance.randint(2, 6))  # parts: the first is the head
    asking = [asyncio.create_task(read_until_cut(house.url, number)) for number in range(STREAMS)]
    await upstream.arrived(before + STREAMS)
    started = await wait_until(lambda: told(redis, "model.streaming.start", begun + STREAMS), what="a chunk of each")
    await door.stop(signal.SIGKILL)
    assert await asyncio.gather(*asking) == ["cut"] * STREAMS
    door = await house.start_api()
    assert await ask(house.url, "quick") == 200
    assert await redis.hlen(KEYS.open) == STREAMS, "the streams did not run on"
    upstream.release()
    await wait_until(lambda: at_rest(redis), what="every stream to be settled")
    assert 0 < await redis.ttl(started[-1]["reply_stream"]) <= REPLIES_TTL_SECONDS, "a dead reply stream stays for ever"
    return door


async def told(redis, kind, at_least=0):
    """Events of a kind; none before there are as many."""
    found = [event for event in await events_of(redis) if event["event_type"] == kind]
    return found if len(found) >= at_least else []


async def at_rest(redis):
    return not await redis.hlen(KEYS.open)


async def read_until_cut(url, number):
    """A streaming client; whether its stream came to its end, or was cut."""
    try:
        await ask(url, "held", f"stream {number}", stream=True)
    except (aiohttp.ClientError, OSError):
        return "cut"
    return "ended"


async def ask(url, model, text="hello", *, stream=False):
    body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        await answer.read()
        return answer.status
