"""Liveness and readiness, and a Redis that goes away and comes back."""

from __future__ import annotations

import asyncio

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from model_gateway.streams import Keys
from tests.api.stream_worker import ADMIN_TOKEN, KEYS, StreamWorker
from tests.processes import wait_until

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


async def status(api, path: str) -> int:
    """The status of an open route, without a token."""
    async with api.session.get(api.url(path)) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_health_is_open_and_good_while_redis_and_a_worker_are_there(api, path):
    assert await status(api, path) == 200


async def test_without_a_worker_the_process_lives_but_is_not_ready(start, redis):
    async with start() as api:
        answer = await api.call("GET", "/health/ready")
        assert await status(api, "/health/live") == 200
    assert answer.status == 503
    assert answer.json["status"] == "unavailable"
    assert "no worker is alive" in answer.json["problems"]
    assert "Retry-After" in answer.headers


async def test_a_lost_ledger_is_a_warning(api, redis):
    await redis.delete(Keys().epoch)
    await api.door.fleet.refresh()
    answer = await api.call("GET", "/health/ready")
    assert answer.status == 200
    assert "the ledger is lost" in answer.json["warnings"][0]


@pytest.mark.parametrize(("name", "bad"), [("appendonly", "no"), ("maxmemory-policy", "allkeys-lru")])
async def test_a_redis_that_may_forget_is_not_ready_unless_that_is_accepted(start, own_redis, own_client, name, bad):
    await own_client.config_set(name, bad)
    await StreamWorker(own_client).serve("echo")
    url = own_redis.url
    async with start(redis_url=url) as api, start(redis_url=url, unverified_durability=True) as accepting:
        answer = await api.call("GET", "/health/ready")
        assert answer.status == 503
        assert name in answer.json["problems"][0]
        assert await status(accepting, "/health/ready") == 200


async def test_without_redis_requests_get_503_and_when_to_try_again_until_it_is_back(start, own_redis, own_client):
    async with start(redis_url=own_redis.url) as api:
        own_redis.stop()
        asking = [api.call("POST", "/proxy/echo", json=HELLO), api.call("GET", "/budget/stats")]
        for answer in await asyncio.gather(*asking):
            assert answer.status == 503
            assert answer.error["code"] == "redis_unavailable"
            assert answer.headers["Retry-After"] == "1"
        await wait_until(lambda: is_status(api, "/health/ready", 503))
        assert await status(api, "/health/live") == 200
        assert "gateway_redis_up 0.0" in (await api.call("GET", "/metrics")).body.decode()

        await own_redis.start()
        worker = StreamWorker(own_client)
        await worker.serve("echo")
        await wait_until(lambda: is_status(api, "/health/ready", 200))
        asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
        await (await worker.take()).reply()
        assert (await asking).status == 200


async def is_status(api, path: str, wanted: int) -> bool:
    return await status(api, path) == wanted


async def test_a_request_that_waits_while_redis_restarts_gets_its_reply(start, own_redis, own_client):
    worker = StreamWorker(own_client)
    await worker.serve("echo")
    async with start(redis_url=own_redis.url) as api:
        asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
        taken = await worker.take()
        own_redis.stop()
        await own_redis.start()
        data = await taken.reply()
        answer = await asking
    assert answer.status == 200
    assert answer.body == data


async def test_the_front_door_starts_without_redis_and_is_ready_once_it_is_there(start, own_redis, own_client):
    own_redis.stop()
    async with start(redis_url=own_redis.url) as api:
        assert await status(api, "/health/live") == 200
        assert await status(api, "/health/ready") == 503
        assert (await api.call("POST", "/proxy/echo", json=HELLO)).status == 503
        await own_redis.start()
        worker = StreamWorker(own_client)
        await worker.serve("echo")
        await wait_until(lambda: is_status(api, "/health/ready", 200))
        asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
        await (await worker.take()).reply()
        assert (await asking).status == 200


async def test_the_sdk_raises_its_own_exception_while_redis_is_away(start, own_redis):
    async with start(redis_url=own_redis.url) as api:
        own_redis.stop()
        async with AsyncOpenAI(base_url=api.url("/v1"), api_key=ADMIN_TOKEN, max_retries=0) as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model="echo", **HELLO)
        assert caught.value.code == "redis_unavailable"


async def test_a_full_queue_refuses_with_503_and_when_to_try_again(start, worker):
    config = "models: {echo: {provider: echo, free: true}}\nqueue: {max_depth: 1}"
    async with start(config) as api:
        asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=HELLO))
        taken = await worker.take()
        answer = await api.call("POST", "/proxy/echo", json=HELLO)
        assert answer.status == 503
        assert answer.error["code"] == "queue_full"
        assert answer.headers["Retry-After"] == "1"
        await taken.reply()
        assert (await asking).status == 200


@pytest.mark.parametrize("heartbeat", ["{", "[1]", '{"name": 1}'])
async def test_a_heartbeat_that_can_not_be_read_hides_no_other(api, redis, heartbeat):
    await redis.hset(KEYS.workers, "broken", heartbeat)
    await api.door.fleet.refresh()
    answer = await api.call("GET", "/health/ready")
    assert (answer.status, answer.json["workers"]) == (200, 1)


async def test_a_heartbeat_of_a_newer_version_counts(api, redis):
    [state] = (await redis.hgetall(KEYS.workers)).values()
    newer = orjson.loads(state) | {"name": "newer", "a_field_of_tomorrow": {}}
    await redis.hset(KEYS.workers, "newer", orjson.dumps(newer))
    await api.door.fleet.refresh()
    assert (await api.call("GET", "/health/ready")).json["workers"] == 2
