"""A whole gateway in real processes, a scripted upstream behind it, the official SDK in front of it."""

from __future__ import annotations

import aiohttp
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from model_gateway.connection import connect
from model_gateway.events import TERMINAL
from tests.invariants import events_of
from tests.processes import ADMIN_TOKEN, gateway, wait_until
from tests.redis_server import RedisServer
from tests.upstream import Upstream

module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
PROVIDER_KEY = "sk-canary-provider-key-0123456789"
CONFIG = """
models:
  echo: {{provider: echo, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 100}}
  paid:
    {{provider: openai, api_base: "{base_url}", api_key_env: UPSTREAM_KEY, input_cost: 0.000001,
      output_cost: 0.000002, max_tokens: 100, timeout: 2}}
  nowhere: {{provider: openai, api_base: "http://127.0.0.1:9", input_cost: 0.000001, output_cost: 0.000002}}
defaults: {{demo: echo}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 1}}
routing: {{retries: 0, breaker: {{enabled: false}}}}
"""


# One gateway for all tests of a module: they share its loop, and look only at what they caused themselves.


@module_fixture
async def upstream():
    async with Upstream() as running:
        yield running


@module_fixture
async def house(request, tmp_path_factory, upstream):
    """One worker and one front door, over a Redis of their own; a module may have its own ``CONFIG``."""
    folder = tmp_path_factory.mktemp("house")
    server = RedisServer(folder / "redis")
    await server.start()
    redis = connect(server.url)
    config = getattr(request.module, "CONFIG", CONFIG).format(base_url=upstream.base_url)
    try:
        async with gateway(redis, server.url, folder, config, UPSTREAM_KEY=PROVIDER_KEY) as running:
            await running.start_worker()
            await running.start_api()
            yield running
    finally:
        await redis.aclose()
        server.close()


@pytest.fixture
def redis(house):
    return house.redis


@module_fixture
async def openai(house):
    """The official client, unchanged but for its address."""
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=ADMIN_TOKEN, max_retries=0) as client:
        yield client


@module_fixture
async def http(house):
    """A plain HTTP client with the admin's token."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with aiohttp.ClientSession(house.url, headers=headers) as session:
        yield session


class Journal:
    """The events that this test causes, and the calls that reach the upstream."""

    def __init__(self, redis, upstream, after):
        self._redis = redis
        self._upstream = upstream
        self._after = after
        self._calls = upstream.calls

    async def events(self):
        return await events_of(self._redis, after=self._after)

    async def ended(self):
        """The terminal event, once it is there."""
        return await wait_until(self._terminal)

    async def _terminal(self):
        return [event for event in await self.events() if event["event_type"] in TERMINAL]

    @property
    def calls(self):
        return list(self._upstream.requests)[self._calls :]


@pytest_asyncio.fixture(loop_scope="module")
async def journal(house, upstream):
    newest = await house.redis.xrevrange("agent.events", count=1)
    yield Journal(house.redis, upstream, newest[0][0].decode() if newest else "0-0")
    upstream._next.clear()
