"""All services of the compose file as plain processes: its commands, variables and health checks, other addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from gateway_cli.embedded import wait_until_answering
from model_gateway.connection import connect
from model_gateway.fleet import durability_problems
from model_gateway.ledger import is_initialised
from model_gateway.streams import Keys
from tests.deploy.containers import Containers
from tests.deploy.deployment import compose, filled
from tests.postgres_server import PostgresServer
from tests.processes import wait_until

WAIT_SECONDS = 60.0


@pytest.fixture
def containers(tmp_path: Path, binaries: Path) -> Iterator[Containers]:
    """The containers' places, with Redis running in its own."""
    found = Containers(tmp_path, binaries)
    found.start("redis")
    try:
        yield found
    finally:
        found.kill()


@pytest.fixture
async def redis(containers: Containers) -> AsyncIterator[Redis]:
    """A client of that Redis, as the gateway's processes connect."""
    url = containers.service("ledger")["environment"]["REDIS_URL"]
    client = connect(url)

    await wait_until_answering(url, WAIT_SECONDS)
    yield client
    await client.aclose()


async def test_redis_keeps_what_it_acknowledges_and_asks_for_the_password(containers: Containers, redis: Redis):
    assert await durability_problems(redis) == []
    assert (await redis.config_get("appendfsync"))["appendfsync"] == "everysec"
    stranger = Redis(port=containers.ports["redis"])
    with pytest.raises(AuthenticationError):
        await stranger.ping()
    await stranger.aclose()
    command = Path(f"/proc/{containers.running['redis'].pid}/cmdline").read_bytes()
    assert containers.secrets["GATEWAY_REDIS_PASSWORD"].encode() not in command


async def test_the_ledger_of_a_new_redis_is_opened_once_and_that_of_an_emptied_one_stays_closed(
    containers: Containers, redis: Redis
):
    assert containers.run("ledger").returncode == 0
    epoch = await redis.get(Keys().epoch)
    assert epoch
    assert containers.run("ledger").returncode == 0
    assert await redis.get(Keys().epoch) == epoch
    await redis.flushall()
    again = containers.run("ledger")
    assert (again.returncode, await is_initialised(redis, Keys())) == (0, False)
    assert "ledger.lost" in again.stderr
    assert containers.run("ledger", "ledger", "init").returncode == 0
    assert await is_initialised(redis, Keys())


async def test_the_whole_answers_a_request_and_tells_of_it_in_its_insights(
    containers: Containers, redis: Redis, tmp_path: Path
):
    postgres = PostgresServer(tmp_path / "postgres")
    try:
        await postgres.start()
        password = containers.secrets["GATEWAY_POSTGRES_PASSWORD"]
        there = f"postgresql://gateway:{password}@postgres:5432/gateway"
        assert filled(compose()["services"]["insights"]["environment"]["DATABASE_URL"], containers.secrets) == there
        containers.addresses[there] = postgres.url
        await _answers_and_tells(containers)
    finally:
        postgres.close()


async def _answers_and_tells(containers: Containers) -> None:
    assert containers.run("ledger").returncode == 0
    for name in ("worker", "gateway", "insights"):
        containers.start(name)
    for name in ("worker", "gateway", "insights"):
        await wait_until(lambda name=name: containers.healthy(name), within=WAIT_SECONDS, what=name)
    header = {"Authorization": f"Bearer {containers.secrets['ADMIN_TOKEN']}"}
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
    base = f"http://127.0.0.1:{containers.ports['8081']}"
    async with aiohttp.ClientSession(base, headers=header) as http:
        async with http.post("/v1/chat/completions", json=body) as answer:
            assert (answer.status, (await answer.json())["choices"][0]["message"]["content"]) == (200, "Hello")

        async def told() -> bool:
            async with http.get("/insights/stats?hours=1") as answer:
                return answer.status == 200 and '"requests":1' in (await answer.text()).replace(" ", "")

        await wait_until(told, what="the request in the insights")
    assert [await containers.stop(name) for name in ("gateway", "worker", "insights")] == [0, 0, 0]
