"""Overload: what can't be done in time is refused at once, what is accepted is done, and all is well again after it."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import aiohttp
import pytest

from benchmarks.arrivals import Job, arrive
from benchmarks.overload import Found, find_peak, overload
from model_gateway.money import nano_from_usd
from tests.chaos.scale import FULL, scaled
from tests.invariants import check_budget, check_idle, events_of
from tests.processes import ADMIN_TOKEN, Gateway, gateway, wait_until
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

LIMIT_USD = Decimal(1000)
CONFIG = """
models:
  paid: {{provider: openai, input_cost: 0.000001, output_cost: 0.000002, max_tokens: 50, timeout: 60,
          api_base: "{base}", api_key_env: SOME_KEY, queue_timeout: 60}}
budget: {{daily_limit_usd: {limit}}}
overload: {{max_waiting: 64}}
worker: {{slots: 8}}
insights: {{enabled: false}}
"""
PEAK_CONFIG = """
models:
  echo: {provider: echo, input_cost: 0.000001, output_cost: 0.000002, options: {delay_ms: 50}}
budget: {daily_limit_usd: 1000000}
insights: {enabled: false}
"""


async def check_alive(house: Gateway) -> None:
    """Whoever looks after the gateway is answered."""
    async with aiohttp.ClientSession() as session:
        for path in ("/health/live", "/health/ready", "/metrics"):
            async with session.get(house.url + path) as answer:
                assert answer.status == 200, path


async def refusals(house: Gateway) -> int:
    """How many requests the front door says that it has turned away."""
    async with aiohttp.ClientSession() as session, session.get(f"{house.url}/metrics") as answer:
        text = await answer.text()
    [line] = [line for line in text.splitlines() if line.startswith("gateway_http_overloaded_total ")]
    return int(float(line.split()[1]))


async def test_what_is_refused_never_reaches_the_stream_and_what_is_accepted_is_answered(
    redis, redis_url, tmp_path, record_property
):
    """Workers stand still, so that the queue is sure to fill up; then they go on."""
    limit, count = nano_from_usd(LIMIT_USD), scaled(5_000, 500)
    async with Upstream() as upstream:
        upstream.script["paid"] = Behaviour(hold_at=0)
        config = CONFIG.format(base=upstream.base_url, limit=LIMIT_USD)
        async with gateway(redis, redis_url, tmp_path, config, SOME_KEY="sk-test") as house:
            await house.start_worker()
            await house.start_api()
            flood = Job(house.url, ADMIN_TOKEN, "paid", "hello", [(250.0, count / 250)], 60.0, connections=300)
            flooding = asyncio.create_task(arrive(flood))
            await wait_until(lambda: refusals(house), what="a refusal")
            await check_alive(house)
            await check_budget(redis, limit)
            upstream.script["paid"] = Behaviour()
            upstream.release()
            ended = Counter((await flooding).ended)
            accepted = {event["request_id"] for event in await events_of(redis) if "request_id" in event}
            assert ended["ok"] == len(accepted) == upstream.calls
            assert ended["ok"] + ended["refused"] == count
            assert ended["refused"] == await refusals(house) > 0
            await check_idle(redis, limit, accepted)
            await check_alive(house)
    record_property("fault", "more requests than slots and queue hold, while the provider stands still")
    record_property("accepted and answered", ended["ok"])
    record_property("refused", ended["refused"])


@pytest.mark.skipif(not FULL, reason="measures time: only in the long form, alone on the machine")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("factor", "least"), [(2.0, 0.9), (5.0, 0.65)])
async def test_goodput_stays_near_the_peak(redis, redis_url, tmp_path, record_property, factor, least):
    """80 % are aimed at for the second; with the load on the same two cores it is 73 to 107 % (docs/guarantees.md)."""
    async with gateway(redis, redis_url, tmp_path, PEAK_CONFIG) as house:
        pids = {name: (await house.start_worker(name)).process.pid for name in ("w1", "w2")}
        pids["front door"] = (await house.start_api()).process.pid
        found: Found = await overload(house.url, pids, await find_peak(house.url, pids), factor, 60.0)
    record_property("fault", f"{factor:g} x the peak for 60 s")
    for name, value in found.figures().items():
        record_property(name, value)
    assert found.late == 0
    assert found.broken == 0
    assert found.share >= least
    assert found.refused_under_50_ms >= 0.98
    assert found.recovery_seconds <= 5
