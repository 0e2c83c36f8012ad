"""Workers and Redis are killed while an isolated agent's requests are moved: each of them has one end."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from model_gateway import GatewayError
from model_gateway.agent_client import GatewayClient
from tests.chaos.scale import SEED, scaled
from tests.invariants import check_idle
from tests.isolation.house import LIMIT, House, open_house, user
from tests.upstream_replies import Behaviour

REQUESTS = scaled(2_000, 60)
AT_ONCE = 20


async def ask(client: GatewayClient, request_id: str) -> str:
    """One request, sent again for as long as it is not taken; how it ended."""
    while True:
        try:
            await client.complete(model="paid", messages=[user(request_id)], request_id=request_id)
        except GatewayError as error:
            if error.code not in ("queue_full", "redis_unavailable"):
                return error.code
        else:
            return "done"


async def trouble(house: House, chance: random.Random, asked: list[asyncio.Task[str]]) -> Counter[str]:
    """Kill a worker or Redis, each time something more has been answered."""
    killed: Counter[str] = Counter()
    strikes = ["w1", "redis", "w2"] * scaled(10, 1)
    for number, victim in enumerate(strikes, start=1):
        goal = len(asked) * number // (len(strikes) + 1) + chance.randrange(3)
        while sum(task.done() for task in asked) < goal:
            await asyncio.wait([task for task in asked if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        killed[victim] += 1
        if victim == "redis":
            house.server.stop(signal.SIGKILL)
            await house.server.start()
        else:
            await house.parts[victim].stop(signal.SIGKILL)
            house.parts[victim] = await house.house.start_worker(victim)
    return killed


@pytest.mark.timeout(scaled(600, 120))
async def test_each_request_of_an_isolated_agent_ends_once_whatever_is_killed(tmp_path: Path, record_property):
    print(f"seed {SEED}")
    async with open_house(tmp_path, "per_minute: 100000", appendfsync="always", lease=1) as house:
        house.upstream.script["paid"] = Behaviour(delay=0.02)
        await house.start("w1", "w2")
        ids = [f"request-{number}" for number in range(REQUESTS)]
        async with house.client("hostile") as client:
            room = asyncio.Semaphore(AT_ONCE)

            async def in_turn(request_id: str) -> str:
                async with room:
                    return await ask(client, request_id)

            asked = [asyncio.create_task(in_turn(request_id)) for request_id in ids]
            killed = await trouble(house, random.Random(SEED), asked)
            told = Counter(await asyncio.gather(*asked))
        await house.at_rest()
        await check_idle(house.redis, LIMIT, set(ids))
        asked_of_it = Counter(request.json["messages"][0]["content"] for request in house.upstream.requests)
        unknown = Counter(event["request_id"] for event in await house.events("model.request.unknown"))
    record_property("fault", "kill -9 of workers and of Redis while an ingress is emptied")
    for name, value in (("requests", REQUESTS), ("killed", dict(killed)), ("told", dict(told))):
        record_property(name, value)
    assert set(told) <= {"done", "outcome_unknown"}
    assert {name for name, calls in asked_of_it.items() if calls > 1 + unknown[name]} == set(), "a call nobody paid for"
