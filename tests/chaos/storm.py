"""A gateway to be stormed: each part in a process of its own, over a Redis of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from redis.asyncio import Redis

from gateway_cli.embedded import AppendFsync
from model_gateway.agent_client import GatewayClient
from model_gateway.connection import connect
from model_gateway.money import nano_from_usd
from tests.chaos.paid_provider import NANO_PER_TOKEN, RunningProvider, paid_provider
from tests.chaos.scale import SEED, scaled
from tests.chaos.trouble import WORKERS
from tests.processes import Gateway, Part, gateway
from tests.redis_server import RedisServer

LIMIT = Decimal(20)
LEASE_SECONDS = scaled(3, 1)
_CONFIG = """
models:
  paid: {{provider: openai, api_base: "{base_url}", input_cost: {price}, output_cost: {price}, max_tokens: 64}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: {lease}}}
budget: {{daily_limit_usd: {limit}}}
"""


@dataclass(slots=True)
class Site:
    """What stands in the storm.

    Attributes:
        redis: a client that the test asks with.
        parts: the workers by name, and the front door as ``api``.
    """

    server: RedisServer
    redis: Redis
    provider: RunningProvider
    house: Gateway
    agent: GatewayClient
    parts: dict[str, Part]
    limit_nano: int


@asynccontextmanager
async def site(folder: Path, appendfsync: AppendFsync, *, limit: Decimal = LIMIT) -> AsyncIterator[Site]:
    """Redis, a paid provider, three workers, a front door and an agent's client, all of them up."""
    server = RedisServer(folder / "redis", appendfsync, ("auto-aof-rewrite-percentage 0",))
    try:
        await server.start()
        redis = connect(server.url)
        try:
            async with (
                paid_provider(SEED) as provider,
                gateway(redis, server.url, folder, _config(provider, limit)) as house,
            ):
                *workers, door = await asyncio.gather(*map(house.start_worker, WORKERS), house.start_api())
                parts = {**dict(zip(WORKERS, workers, strict=True)), "api": door}
                async with house.agent() as agent:
                    yield Site(server, redis, provider, house, agent, parts, nano_from_usd(limit))
        finally:
            await redis.aclose()
    finally:
        server.close()


def _config(provider: RunningProvider, limit: Decimal) -> str:
    price = f"{NANO_PER_TOKEN / 10**9:f}"
    return _CONFIG.format(base_url=provider.base_url, price=price, limit=limit, lease=LEASE_SECONDS)
