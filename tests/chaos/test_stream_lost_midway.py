"""Streams whose first chunks Redis has lost, and their worker with it: clients are told, and see no other beginning."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import orjson
import pytest

from model_gateway import GatewayError
from model_gateway.connection import connect
from tests.invariants import KEYS, check_idle, events_of
from tests.processes import ADMIN_TOKEN, gateway, wait_until
from tests.redis_server import own_redis
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

LIMIT = 20_000_000_000
CONFIG = """
models: {{paid: {{provider: openai, api_base: "{base_url}", input_cost: 0.000001, output_cost: 0.000002}}}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 1}}
"""
ASKED = {"model": "paid", "messages": [{"role": "user", "content": "a question of some words"}]}


@pytest.fixture
async def server(tmp_path):
    async with own_redis(tmp_path / "redis", "always") as found:  # so that the file holds all that was answered
        yield found


@pytest.fixture
async def redis(server):
    client = connect(server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def upstream():
    async with Upstream() as found:
        found.next(Behaviour(hold_at=3), Behaviour(hold_at=3))
        yield found


@pytest.fixture
async def house(server, redis, upstream, tmp_path):
    async with gateway(redis, server.url, tmp_path, CONFIG.format(base_url=upstream.base_url)) as found:
        found.worker, _ = await asyncio.gather(found.start_worker("w1"), found.start_api())
        yield found


async def by_http(house):
    """The error's code at the end of a stream over HTTP."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{house.url}/v1/chat/completions", json={**ASKED, "stream": True}) as answer,
    ):
        payload = await answer.read()
    events = [line[6:] for line in payload.splitlines() if line.startswith(b"data: ")]
    indices = [orjson.loads(event)["x_index"] for event in events[:-1]]
    assert indices == list(range(len(indices)))
    return orjson.loads(events[-1])["error"]["code"]


async def by_agent(house):
    """The error's code at the end of an agent's stream."""
    async with house.agent() as agent:
        with pytest.raises(GatewayError) as ended:
            async for number, chunk in counted(agent.stream(**ASKED, request_id="midway")):
                assert chunk["x_index"] == number
    return ended.value.code


async def counted(chunks):
    number = 0
    async for chunk in chunks:
        yield number, chunk
        number += 1


def both(house):
    """A client of each kind, under way."""
    return asyncio.gather(by_http(house), by_agent(house))


async def cut_to(server, size):
    """Kill the server, cut the end of its append-only file off, and start it again."""
    server.stop(signal.SIGKILL)
    with server.journal.open("r+b") as file:
        file.truncate(size)
    await server.start()


async def streaming(redis):
    return [event["event_type"] for event in await events_of(redis)].count("model.streaming.start") == 2


async def submitted(redis):
    return await redis.xlen(KEYS.requests) == 2


async def test_clients_hear_that_their_streams_were_begun_again(server, redis, upstream, house):
    house.worker.send(signal.SIGSTOP)
    asking = both(house)
    await wait_until(lambda: submitted(redis))
    size = server.journal.stat().st_size
    house.worker.send(signal.SIGCONT)
    await wait_until(lambda: streaming(redis))
    await house.worker.stop(signal.SIGKILL)
    await cut_to(server, size)
    await house.start_worker("w2")
    assert await asking == ["outcome_unknown"] * 2
    await wait_until(lambda: at_rest(redis))
    await check_idle(redis, LIMIT)
    assert upstream.calls == 4


async def test_clients_hear_that_their_streams_are_gone(server, redis, house):
    size = server.journal.stat().st_size
    asking = both(house)
    await wait_until(lambda: streaming(redis))
    await house.worker.stop(signal.SIGKILL)
    await cut_to(server, size)
    assert await asking == ["outcome_unknown"] * 2
    assert await redis.xlen(KEYS.requests) == 0


async def at_rest(redis):
    return not (await redis.xpending(KEYS.requests, "workers"))["pending"]
