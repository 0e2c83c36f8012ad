"""A provider that accepts calls and never answers: those who ask another one do not notice."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from benchmarks.arrivals import Job, arrive
from benchmarks.hung_upstream import CONFIG as STEADY_CONFIG
from benchmarks.hung_upstream import measure
from model_gateway.fleet import live_workers
from model_gateway.streams import Keys
from tests.chaos.scale import FULL
from tests.chaos.test_overload import refusals
from tests.invariants import check_idle
from tests.processes import ADMIN_TOKEN, gateway, wait_until
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

CONFIG = """
models:
  good: {{provider: openai, api_base: "{base}", api_key_env: SOME_KEY, free: true}}
  bad: {{provider: openai, api_base: "{base}", api_key_env: SOME_KEY, free: true, timeout: 120, queue_timeout: 120}}
insights: {{enabled: false}}
"""
CALLS_AT_ONCE = 256
"""The default ``max_concurrency``."""
FLOOD = 5 * CALLS_AT_ONCE
"""More than ``overload.max_waiting``, none of which waits for a worker."""
ASKED = 40


async def test_a_hung_provider_asked_for_more_than_it_takes_keeps_nobody_else_waiting(
    redis, redis_url, tmp_path, record_property
):
    """All of ``bad``'s calls that may run at once do, four times as many wait, and each still does at the end."""
    async with Upstream() as upstream:
        upstream.script["bad"] = Behaviour(hold_at=0)
        config = CONFIG.format(base=upstream.base_url)
        async with gateway(redis, redis_url, tmp_path, config, SOME_KEY="sk-test") as house:
            await house.start_worker()
            await house.start_api()
            flood = Job(house.url, ADMIN_TOKEN, "bad", "hello", [(FLOOD / 3, 3.0)], 100.0, connections=FLOOD)
            flooding = asyncio.create_task(arrive(flood))
            await upstream.arrived(CALLS_AT_ONCE)
            await wait_until(lambda: parked(redis, FLOOD - CALLS_AT_ONCE), what="the rest of the flood to wait")
            steady = Job(house.url, ADMIN_TOKEN, "good", "hello", [(ASKED, 1.0)], 60.0, connections=ASKED)
            assert (await arrive(steady)).ended == ["ok"] * ASKED
            assert not flooding.done()
            assert upstream.calls == CALLS_AT_ONCE + ASKED
            upstream.release()
            assert (await flooding).ended == ["ok"] * FLOOD
            assert await refusals(house) == 0
            await check_idle(redis, 0)
    record_property("fault", f"a provider hangs and gets {FLOOD} calls, {CALLS_AT_ONCE} at once")
    record_property("answered beside it", ASKED)


async def parked(redis: Redis, requests: int) -> bool:
    """Whether so many wait for a busy deployment."""
    return sum(state.parked for state in await live_workers(redis, Keys())) == requests


@pytest.mark.skipif(not FULL, reason="measures time: only in the long form, alone on the machine")
@pytest.mark.timeout(900)
async def test_a_hung_provider_makes_others_no_slower(redis, redis_url, tmp_path, record_property):
    async with Upstream() as upstream:
        config = STEADY_CONFIG.format(base=upstream.base_url)
        async with gateway(redis, redis_url, tmp_path, config, SOME_KEY="sk-test") as house:
            await house.start_worker("w1")
            await house.start_worker("w2")
            await house.start_api()
            ratio = await measure(house.url, upstream, 60.0)
    record_property("fault", "one of two providers hangs for 60 s")
    record_property("p99 of the other", f"x {ratio:.2f}")
    assert ratio <= 1.2
