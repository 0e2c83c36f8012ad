"""Redis goes away and comes back: what runs is finished, what comes meanwhile is refused, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal

import pytest

from model_gateway import GatewayError
from model_gateway.connection import connect
from tests.invariants import check_idle
from tests.processes import gateway, wait_until
from tests.redis_server import own_redis
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

LIMIT = 20_000_000_000
HELLO = [{"role": "user", "content": "hello"}]
CONFIG = """
models:
  paid:
    {{provider: openai, api_base: "{base_url}", input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100,
      timeout: 30}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 2}}
"""


@pytest.fixture
async def server(tmp_path):
    """A Redis of the test's own that keeps everything it acknowledged."""
    async with own_redis(tmp_path / "redis", "always") as running:
        yield running


@pytest.fixture
async def upstream():
    async with Upstream() as running:
        yield running


@pytest.fixture
async def house(server, tmp_path, upstream):
    redis = connect(server.url)
    async with gateway(redis, server.url, tmp_path, CONFIG.format(base_url=upstream.base_url)) as running:
        await running.start_worker()
        yield running
    await redis.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_runs_while_redis_is_killed_and_restarted_is_settled_once(house, server, upstream, stream):
    upstream.next(Behaviour(hold_at=0))
    async with house.agent() as agent:
        asking = asyncio.create_task(_ask(agent, stream))
        await upstream.arrived(1)
        server.stop(signal.SIGKILL)
        upstream.release()
        await server.start()
        assert await asking == "hello"
        assert upstream.calls == 1
    await check_idle(house.redis, LIMIT)


async def _ask(agent, stream):
    if not stream:
        reply = await agent.complete(model="paid", messages=HELLO)
        return reply["choices"][0]["message"]["content"]
    chunks = [chunk async for chunk in agent.stream(model="paid", messages=HELLO)]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def test_while_redis_is_away_a_request_is_refused_and_afterwards_it_is_served(house, server):
    async with house.agent() as agent:
        server.stop(signal.SIGKILL)
        with pytest.raises(GatewayError) as caught:
            await agent.complete(model="paid", messages=HELLO)
        assert (caught.value.code, caught.value.status) == ("redis_unavailable", 503)
        assert caught.value.retry_after
        await server.start()
        assert await agent.complete(model="paid", messages=HELLO)
    await check_idle(house.redis, LIMIT)


async def test_a_redis_that_comes_back_empty_admits_nothing_until_the_operator_says_so(house, server):
    async with house.agent() as agent:
        assert await agent.complete(model="paid", messages=HELLO)
        await house.redis.flushall()
        with pytest.raises(GatewayError) as caught:
            await agent.complete(model="paid", messages=HELLO)
        assert (caught.value.code, caught.value.status) == ("ledger_lost", 503)
        await house.redis.set("gw:epoch", "accepted")
        assert await agent.complete(model="paid", messages=HELLO)


async def test_a_worker_that_starts_before_redis_serves_once_redis_is_there(house, server):
    server.stop()
    early = await house._start("early", "gateway_worker", GATEWAY_WORKER_NAME="early")
    await wait_until(lambda: "redis_away" in early.log.read_text())
    await server.start()
    await wait_until(lambda: "worker.connected" in early.log.read_text())
    assert await early.stop() == 0
