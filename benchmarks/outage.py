"""PostgreSQL away under load: are requests slower or lost, does the backlog drain, is the sum right?

Run as ``python -m benchmarks.outage --seconds 300``. A worker and the insights process over embedded servers; an agent
sends so many requests a second, whole ones and streams in turns, before PostgreSQL is stopped, while it is away, and
after it has been started again. Printed: latencies of each part, how long the backlog took, and every sum.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import quantiles

import uvloop

from benchmarks.children import bounded
from gateway_insights.database import connect as connect_database
from model_gateway.agent_client import GatewayClient
from model_gateway.connection import connect
from model_gateway.insights import find
from model_gateway.streams import Keys
from tests.insights.sums import check_sums, taken_in
from tests.postgres_server import PostgresServer
from tests.processes import Gateway, gateway, wait_until
from tests.redis_server import RedisServer

KEYS = Keys()
BEFORE_SECONDS = 20.0
MARGIN_SECONDS = 240.0
CONFIG = """
models:
  echo: {provider: echo, input_cost: 0.000001234567, output_cost: 0.000002, max_tokens: 100, options: {delay_ms: 20}}
agents: {test: {secret_env: AGENT_TEST_SECRET}}
budget: {daily_limit_usd: 1000}
insights: {embedding: "off"}
"""


async def load(agent: GatewayClient, what: str, seconds: float, rate: float) -> None:
    """Send requests at a rate, whatever becomes of them; print how long they took. One that fails ends it all."""

    async def one(number: int) -> float:
        started = time.perf_counter()
        messages = [{"role": "user", "content": f"{what} {number}"}]
        if number % 2:
            await agent.complete(model="echo", messages=messages)
        else:
            assert [chunk async for chunk in agent.stream(model="echo", messages=messages)]
        return (time.perf_counter() - started) * 1000

    tasks = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        tasks.append(asyncio.create_task(one(len(tasks))))
        await asyncio.sleep(1 / rate)
    took = await asyncio.gather(*tasks)
    cuts = quantiles(took, n=100)
    print(f"{what:8} {len(took):8} {cuts[49]:10.1f} {cuts[94]:10.1f} {cuts[98]:10.1f}", flush=True)


async def outage(house: Gateway, postgres: PostgresServer, seconds: float, rate: float) -> None:
    """Before, while and after."""
    async with house.agent() as agent:
        print(f"{'postgres':8} {'answered':>8} {'p50 ms':>10} {'p95 ms':>10} {'p99 ms':>10}", flush=True)
        await load(agent, "there", BEFORE_SECONDS, rate)
        postgres.stop()
        await load(agent, "away", seconds, rate)
        await postgres.start()
        started = time.perf_counter()
        after = asyncio.create_task(load(agent, "back", BEFORE_SECONDS, rate))
        pool = await connect_database(postgres.url)
        backlog = await house.redis.xlen(KEYS.events) - await pool.fetchval("SELECT events FROM insights_cursor")
        await wait_until(lambda: taken_in(pool, house.redis), within=MARGIN_SECONDS)
        print(f"{backlog} events were waiting and were in after {time.perf_counter() - started:.1f} s", flush=True)
        await after
        await wait_until(lambda: taken_in(pool, house.redis), within=MARGIN_SECONDS)
        print(f"every sum is {await check_sums(pool, house.redis)} nano-dollars")
        pool.terminate()


async def main(seconds: float, rate: float) -> None:
    """Start everything, and have the outage."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        redis_server, postgres = RedisServer(folder / "redis"), PostgresServer(folder / "postgres")
        try:
            await redis_server.start()
            await postgres.start()
            redis = connect(redis_server.url)
            async with gateway(redis, redis_server.url, folder, CONFIG, DATABASE_URL=postgres.url) as house:
                await house.start_worker()
                await house.start_insights()
                await wait_until(lambda: _well(house))
                await outage(house, postgres, seconds, rate)
            await redis.aclose()
        finally:
            postgres.close()
            redis_server.close()


async def _well(house: Gateway) -> bool:
    state = await find(house.redis, KEYS)
    return state is not None and not state.problem


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long PostgreSQL is away")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    given = parser.parse_args()
    uvloop.run(bounded(main(given.seconds, given.rate), given.seconds + 2 * BEFORE_SECONDS + 2 * MARGIN_SECONDS))
