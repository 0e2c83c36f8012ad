"""A Redis that comes back older than it was: what the worker knows is charged again, and the loss is told."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from model_gateway import GatewayError
from model_gateway.clock import Clock
from model_gateway.connection import connect
from model_gateway.fleet import live_workers
from model_gateway.ledger import budget_stats
from model_gateway.replay import read_ledger
from model_gateway.scripts import Scripts
from model_gateway.settings import Budget
from tests.invariants import KEYS, check_budget, check_idle, events_of
from tests.processes import gateway, wait_until
from tests.redis_server import RedisServer, own_redis
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

LIMIT = 20_000_000_000
CONFIG = """
models: {{paid: {{provider: openai, api_base: "{base_url}", input_cost: 0.000001, output_cost: 0.000002}}}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 2}}
"""


@pytest.fixture
async def server(tmp_path):
    """Its file is written before each answer, so that its size says what is in it."""
    async with own_redis(tmp_path / "redis", "always") as running:
        yield running


@pytest.fixture
async def redis(server):
    client = connect(server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def upstream():
    async with Upstream() as running:
        yield running


@pytest.fixture
async def house(server, redis, tmp_path, upstream):
    """A gateway whose worker is still to be started."""
    config = CONFIG.format(base_url=upstream.base_url)
    async with gateway(redis, server.url, tmp_path, config) as running:
        yield running


@pytest.fixture
async def agent(house):
    async with house.agent() as client:
        yield client


def size_of(server: RedisServer) -> int:
    """How much its file holds by now."""
    return server.journal.stat().st_size


async def cut_back(server: RedisServer, size: int) -> None:
    """Kill the server, cut the end of its append-only file off, and start it again."""
    server.stop(signal.SIGKILL)
    server.cut_journal(size)
    await server.start()


async def ask(agent, *names):
    for name in names:
        await agent.complete(model="paid", messages=[{"role": "user", "content": name}], request_id=name)


async def told(redis, kind):
    return [event for event in await events_of(redis) if event["event_type"] == kind]


async def heard(redis):
    """The worker knows of all that was settled: an answer that it still waits for would be asked for again."""
    newest = (await events_of(redis))[-1]["ts"]

    async def says_so():
        return all(state.at_ms > newest and not state.in_use for state in await live_workers(redis, KEYS))

    await wait_until(says_so)


async def test_charges_that_redis_lost_are_charged_again_and_the_gap_is_listed(server, redis, house, agent):
    await house.start_worker()
    await ask(agent, "kept")
    size = size_of(server)
    await ask(agent, "lost-1", "lost-2")
    before = await read_ledger(redis, KEYS)
    await heard(redis)
    await cut_back(server, size)
    (gap,) = await wait_until(lambda: told(redis, "model.ledger.gap"))
    assert await read_ledger(redis, KEYS) == before
    restored = await told(redis, "model.request.restored")
    assert {event["request_id"] for event in restored} == {"lost-1", "lost-2"}
    assert (gap["missing"], gap["restored"]) == (4, 2)
    assert gap["usd_nano"] == sum(event["usd_nano"] for event in restored)
    await ask(agent, "later")
    await check_idle(redis, LIMIT, {"kept", "later"})
    assert len(await told(redis, "model.ledger.restarted")) == 1


async def test_what_is_still_reserved_is_charged_once_by_whoever_takes_it_over(server, redis, house, agent, upstream):
    upstream.next(Behaviour(hold_at=0))
    await house.start_worker()
    asking = asyncio.create_task(ask(agent, "half-lost"))
    await wait_until(lambda: upstream.calls)
    size = size_of(server)
    upstream.release()
    await asking
    await heard(redis)
    await cut_back(server, size)
    await wait_until(lambda: told(redis, "model.request.unknown"))
    ends = await wait_until(lambda: told(redis, "model.request.complete"))
    assert Counter(event["request_id"] for event in ends) == {"half-lost": 1}
    assert await told(redis, "model.request.restored") == []
    await check_idle(redis, LIMIT, {"half-lost"})


async def test_a_restart_that_lost_nothing_is_told_and_charges_nothing(server, redis, house, agent):
    await house.start_worker()
    await ask(agent, "one", "two")
    server.stop()
    await server.start()
    await wait_until(lambda: told(redis, "model.ledger.restarted"))
    await ask(agent, "three")
    assert await told(redis, "model.ledger.gap") == []
    await check_idle(redis, LIMIT, {"one", "two", "three"})


async def test_a_request_that_redis_lost_before_any_worker_saw_it_is_submitted_again(
    server, redis, house, agent, upstream
):
    size = size_of(server)
    asking = asyncio.create_task(ask(agent, "lost-in-the-queue"))
    await wait_until(lambda: redis.xlen(KEYS.requests))
    await cut_back(server, size)
    await house.start_worker()
    await asking
    await check_idle(redis, LIMIT, {"lost-in-the-queue"})
    assert upstream.calls == 1


async def test_a_stream_that_redis_lost_midway_is_not_begun_again(server, redis, house, agent, upstream):
    await house.start_worker()
    size = size_of(server)
    upstream.next(Behaviour(hold_at=2))
    chunks = agent.stream(model="paid", messages=[{"role": "user", "content": "hi"}], request_id="midway")
    await anext(chunks)
    await cut_back(server, size)
    upstream.release()
    with pytest.raises(GatewayError) as lost:
        async for _ in chunks:
            pass
    assert lost.value.code == "outcome_unknown"
    await wait_until(lambda: told(redis, "model.request.failed"))
    assert upstream.calls == 1
    assert [event["error_code"] for event in await told(redis, "model.request.unknown")] == ["record_missing"]


async def test_what_was_charged_again_is_not_charged_again_by_the_next_restart(server, redis, house, agent):
    await house.start_worker()
    await ask(agent, "kept")
    size = size_of(server)
    await ask(agent, "lost-1", "lost-2")
    before = await read_ledger(redis, KEYS)
    await heard(redis)
    await cut_back(server, size)
    await wait_until(lambda: told(redis, "model.ledger.gap"))
    server.stop()
    await server.start()
    await wait_until(lambda: restarts(redis, 2))
    await ask(agent, "later")
    assert len(await told(redis, "model.ledger.gap")) == 1
    assert len(await told(redis, "model.request.restored")) == 2
    assert sum((await read_ledger(redis, KEYS)).values()) > sum(before.values())
    await check_idle(redis, LIMIT, {"kept", "later"})


async def test_a_call_whose_admission_was_lost_and_whose_request_is_run_again_is_charged_too(
    server, redis, house, agent, upstream
):
    await house.start_worker()
    await ask(agent, "kept")
    size = size_of(server)
    upstream.next(Behaviour(hold_at=0), Behaviour(hold_at=0))
    asking = asyncio.create_task(ask(agent, "run-twice"))
    await wait_until(lambda: upstream.calls == 2)
    await cut_back(server, size)
    await wait_until(lambda: upstream.calls == 3, what="the request to be submitted and run again")
    upstream.release()
    await asking
    await wait_until(lambda: told(redis, "model.request.restored"))
    charges = [event.get("usd_nano") or 0 for event in await events_of(redis) if event.get("request_id") == "run-twice"]
    (whole,) = [event["usd_nano"] for event in await told(redis, "model.request.complete")][1:]
    assert sum(charges) >= 2 * whole
    await check_idle(redis, LIMIT, {"kept", "run-twice"})


async def test_a_hard_limit_that_was_passed_unknowingly_is_told_as_an_overrun(server, redis, house, agent):
    worker = await house.start_worker()
    size = size_of(server)
    await ask(agent, "lost")
    spent = sum((await read_ledger(redis, KEYS)).values())
    await heard(redis)
    worker.send(signal.SIGSTOP)
    await cut_back(server, size)
    window = (await budget_stats(Scripts(redis, Clock()), KEYS, Budget()))["date"]
    await redis.hset(KEYS.ledger, f"gateway|{window}|settled", LIMIT)
    worker.send(signal.SIGCONT)
    (overrun,) = await wait_until(lambda: told(redis, "model.budget.overrun"))
    assert overrun["usd_nano"] == spent
    await check_budget(redis, LIMIT)


async def restarts(redis, count):
    return len(await told(redis, "model.ledger.restarted")) == count
