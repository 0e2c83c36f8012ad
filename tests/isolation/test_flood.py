"""A flood: an isolated agent takes its own share and nobody else's, of the queue, of Redis and of the workers' time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from model_gateway import GatewayError
from tests.isolation.house import BODY_BYTES, HOSTILE_SECRET, INGRESS, House, envelope, open_house, user
from tests.processes import wait_until

PER_MINUTE, SHARE = 200, 4
BOUNDS = f"per_minute: {PER_MINUTE}, max_unfinished: {SHARE}"
HELLO = [user("hello")]


async def flood(house: House) -> None:
    """Requests that are signed and never answered, and rubbish, as fast as Redis takes them."""
    for _ in range(20):
        pipeline = house.hostile.pipeline(transaction=False)
        for _ in range(50):
            pipeline.xadd(INGRESS, envelope(model="unanswered").fields(HOSTILE_SECRET))
            for _ in range(20):
                pipeline.xadd(INGRESS, {"rubbish": "x" * 100})
        await pipeline.execute()


async def test_a_flood_of_requests_and_rubbish_starves_nobody(tmp_path: Path):
    async with open_house(tmp_path, BOUNDS) as house:
        await house.start("w1", "w2")
        async with house.undisturbed(), house.client("quiet") as quiet:
            flooding = asyncio.create_task(flood(house))
            for _ in range(10):
                reply = await quiet.complete(model="paid", messages=HELLO)
                assert reply["choices"][0]["message"]["content"] == "hello"
            await flooding
            assert await house.runs_of_hostile() <= SHARE
            assert len(await house.dead_letters()) <= 2 * 12, "ten a minute, and what overflowed"
            assert len(await house.hostile.xrange("model.replies.agent-hostile")) <= 2 * PER_MINUTE

            async def within_its_bytes() -> bool:
                return (await house.redis.memory_usage(INGRESS, samples=0) or 0) <= 2 * (BODY_BYTES + 4_096)

            await wait_until(within_its_bytes, what="an ingress within its bytes")
            assert await house.redis.exists(INGRESS), "more than its minute's share was taken off"
            await house.hostile.xadd(INGRESS, {"a": "1"}, maxlen=0, approximate=False)


async def test_more_than_its_share_is_refused_until_something_of_it_is_over(tmp_path: Path):
    async with open_house(tmp_path, BOUNDS) as house:
        await house.start("w1")
        house.upstream.hold()
        async with house.client("hostile") as client:
            asked = (client.complete(model="unanswered", messages=HELLO) for _ in range(SHARE))
            running = [asyncio.create_task(each) for each in asked]
            await asyncio.wait_for(house.upstream.arrived(SHARE), 20)
            with pytest.raises(GatewayError) as caught:
                await client.complete(model="paid", messages=HELLO)
            assert (caught.value.code, caught.value.retry_after) == ("queue_full", 1)
            house.upstream.release()
            await asyncio.gather(*running)
            await client.complete(model="paid", messages=HELLO)
        await house.at_rest()
