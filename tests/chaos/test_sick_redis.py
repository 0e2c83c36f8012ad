"""A Redis that is full, empty or takes no writes: clear errors, no paid call without a record, and recovery."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys

import aiohttp
import pytest

from model_gateway.connection import connect
from model_gateway.events import CHARGING, TERMINAL
from tests.chaos.asking import ask_agent, ask_http
from tests.chaos.scale import scaled
from tests.invariants import KEYS, check_budget, check_idle, check_money, check_rest, events_of
from tests.processes import free_port, gateway, wait_until
from tests.redis_server import own_redis
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

LIMIT = 20_000_000_000
NANO_PER_TOKEN = 1_000
SAID = "one two three four five six seven eight"
CONFIG = """
models:
  held: {{{paid}}}
  midway: {{{paid}}}
  quick: {{{paid}}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 2}}
"""
PAID = 'provider: openai, api_base: "{}", input_cost: 0.000001, output_cost: 0.000001, max_tokens: 100, timeout: 60'


@pytest.fixture
async def server(tmp_path):
    async with own_redis(tmp_path / "redis", "always") as running:
        yield running


@pytest.fixture
async def upstream():
    async with Upstream() as running:
        running.script = {"held": Behaviour(hold_at=0, text=SAID), "midway": Behaviour(hold_at=4, text=SAID)}
        yield running


@pytest.fixture
async def house(server, tmp_path, upstream):
    """A worker, a front door and an agent, each of whom must get over it without being started again."""
    redis = connect(server.url)
    config = CONFIG.format(paid=PAID.format(upstream.base_url))
    async with gateway(redis, server.url, tmp_path, config) as running:
        running.worker = await running.start_worker()
        running.door = await running.start_api()
        async with running.agent() as running.client:
            yield running
    await redis.aclose()


class Asking:
    """Requests that are under way, whole and streamed, by HTTP and by an agent."""

    def __init__(self, house, upstream):
        self.house, self.upstream = house, upstream
        self.tasks = []

    async def begin(self):
        """Four of them, each with a call that is held; two in the middle of a stream that its client has seen."""
        kinds = [("held", False), ("midway", True)]
        asking = [ask_http(self.house.url, model, stream=stream) for model, stream in kinds]
        asking += [ask_agent(self.house.client, model, stream=stream) for model, stream in kinds]
        self.tasks = [asyncio.create_task(each) for each in asking]
        await self.upstream.arrived(4)
        await wait_until(lambda: _seen(self.house.redis, 2), what="the streams' first chunks")

    async def leave(self):
        """Nobody waits for them any more."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def told(self):
        """How each of them ended for its client."""
        return await asyncio.gather(*self.tasks)


async def _seen(redis, count):
    return len([1 for event in await events_of(redis) if event["event_type"] == "model.streaming.start"]) == count


async def asked_each_way(house, model="quick"):
    """How a request ends, whole and streamed, by HTTP and by an agent."""
    ways = [
        ask(who, model, stream=stream)
        for ask, who in ((ask_http, house.url), (ask_agent, house.client))
        for stream in (False, True)
    ]
    return await asyncio.gather(*ways)


async def readiness(house):
    async with aiohttp.ClientSession() as session, session.get(f"{house.url}/health/ready") as answer:
        return answer.status, await answer.text()


async def ready_again(house):
    return (await readiness(house))[0] == 200


async def warned(house, word):
    return word in (await readiness(house))[1]


async def not_ready(house, word):
    """Whether readiness says what is wrong, and nothing that is not."""
    status, text = await readiness(house)
    return status == 503 and word in text and "no worker" not in text


async def accepted(redis):
    return {fields[b"id"].decode() for _, fields in await redis.xrange(KEYS.requests)}


async def check_paid(house, upstream):
    """I6, and that each call of the provider has a start on record."""
    events = await events_of(house.redis)
    starts = [event for event in events if event["event_type"] == "model.request.start"]
    settled = sum(event["usd_nano"] or 0 for event in events if event["event_type"] in CHARGING)
    assert upstream.calls == len(starts), "a call without a record"
    assert upstream.charged_tokens * NANO_PER_TOKEN <= settled, "I6"


async def test_at_maxmemory_what_runs_is_settled_and_what_comes_is_refused(house, upstream, record_property):
    under_way = Asking(house, upstream)
    await under_way.begin()
    await house.redis.config_set("maxmemory", "1mb")
    assert await asked_each_way(house) == [(503, "storage_full", True)] * 4
    await wait_until(lambda: not_ready(house, "maxmemory"), what="readiness says so")
    assert upstream.calls == 4
    await check_budget(house.redis, LIMIT)
    upstream.release()
    assert await under_way.told() == ["done"] * 4
    await check_idle(house.redis, LIMIT, await accepted(house.redis))
    await house.redis.config_set("maxmemory", "0")
    assert await asked_each_way(house) == ["done"] * 4
    await wait_until(lambda: ready_again(house))
    await check_idle(house.redis, LIMIT, await accepted(house.redis))
    await check_paid(house, upstream)
    record_property("fault", "Redis at maxmemory")
    record_property("in flight and settled", 4)
    record_property("refused with storage_full", 4)


async def test_what_was_queued_when_redis_became_full_is_refused_and_not_called(house, upstream):
    """It was accepted, so it has its end; admission needs memory, so nobody is called."""
    house.worker.send(signal.SIGSTOP)
    both = (ask_http(house.url, "quick"), ask_agent(house.client, "quick"))
    asking = [asyncio.create_task(each) for each in both]
    await wait_until(lambda: _length(house.redis, KEYS.requests, 2))
    await house.redis.config_set("maxmemory", "1mb")
    house.worker.send(signal.SIGCONT)
    assert await asyncio.gather(*asking) == [(503, "storage_full", True)] * 2
    assert upstream.calls == 0
    await check_idle(house.redis, LIMIT, await accepted(house.redis))


async def _length(redis, stream, count):
    return await redis.xlen(stream) == count


async def read_only(redis, server):
    await redis.execute_command("REPLICAOF", "127.0.0.1", free_port())


async def writable(redis, server):
    await redis.execute_command("REPLICAOF", "NO", "ONE")


async def without_replicas(redis, server):
    await redis.config_set("min-replicas-to-write", 1)


async def with_replicas(redis, server):
    await redis.config_set("min-replicas-to-write", 0)


async def unable_to_save(redis, server):
    """Its snapshots fail, as something lies where they go; with save points it then takes no writes."""
    (server.server.directory / "dump.rdb" / "in the way").mkdir(parents=True)
    await redis.config_set("save", "3600 1")
    await redis.bgsave()
    await wait_until(lambda: _snapshot(redis, "err"), what="the snapshot fails")


async def able_to_save(redis, server):
    shutil.rmtree(server.server.directory / "dump.rdb")
    await redis.bgsave()
    await wait_until(lambda: _snapshot(redis, "ok"), what="the snapshot is there")


async def _snapshot(redis, status):
    return (await redis.info("persistence"))["rdb_last_bgsave_status"] == status


ILLNESSES = {
    "read-only": (read_only, writable, "read only replica"),
    "without its replicas": (without_replicas, with_replicas, "NOREPLICAS"),
    "unable to save": (unable_to_save, able_to_save, "MISCONF"),
}


@pytest.mark.parametrize("illness", list(ILLNESSES)[: scaled(len(ILLNESSES), 2)])
async def test_while_redis_takes_no_writes_nobody_new_is_called_and_afterwards_all_goes_on(
    house, server, upstream, illness, record_property
):
    fall_ill, recover, word = ILLNESSES[illness]
    under_way = Asking(house, upstream)
    await under_way.begin()
    await fall_ill(house.redis, server)
    assert await asked_each_way(house) == [(503, "redis_unavailable", True)] * 4
    await wait_until(lambda: not_ready(house, word), what="readiness says so")
    upstream.release()
    assert not any(task.done() for task in under_way.tasks), "an end without a record"
    await recover(house.redis, server)
    assert await under_way.told() == ["done"] * 4
    assert upstream.calls == 4
    assert await asked_each_way(house) == ["done"] * 4
    await wait_until(lambda: ready_again(house))
    await check_idle(house.redis, LIMIT, await accepted(house.redis))
    await check_paid(house, upstream)
    record_property("fault", f"Redis {illness}")
    record_property("in flight and settled", 4)
    record_property("refused with redis_unavailable", 4)


async def start_empty(server):
    """Killed, and started again without its data."""
    server.stop(signal.SIGKILL)
    shutil.rmtree(server.server.directory / "appendonlydir")
    await server.start()


async def test_what_runs_while_redis_is_emptied_is_charged_though_whoever_asked_is_gone(
    house, server, upstream, record_property
):
    under_way = Asking(house, upstream)
    await under_way.begin()
    await house.door.stop(signal.SIGKILL)
    await under_way.leave()
    await start_empty(server)
    upstream.release()
    await wait_until(lambda: charged(house.redis, upstream), what="what the provider was paid is on record")
    await house.start_api()
    await check_closed_until_init(house, upstream)
    record_property("fault", "Redis restarted empty, and whoever asked is gone")
    record_property("in flight and charged", 4)
    record_property("refused with ledger_lost", 4)


async def test_what_runs_while_redis_is_emptied_is_charged_though_it_is_asked_again(
    house, server, upstream, record_property
):
    under_way = Asking(house, upstream)
    await under_way.begin()
    await start_empty(server)
    await wait_until(lambda: refused_again(house), what="the whole ones are submitted again, and refused")
    upstream.release()
    assert [code for _, code, _ in await under_way.told()] == ["ledger_lost", "outcome_unknown"] * 2
    await wait_until(lambda: charged(house.redis, upstream), what="what the provider was paid is on record")
    await check_closed_until_init(house, upstream)
    record_property("fault", "Redis restarted empty, and what ran is asked again")
    record_property("in flight and charged", 4)
    record_property("refused with ledger_lost", 6)


async def check_closed_until_init(house, upstream):
    """Nothing is admitted before the operator says so, and then everything is."""
    assert await asked_each_way(house) == [(503, "ledger_lost", True)] * 4
    await wait_until(lambda: warned(house, "ledger init"), what="readiness says so")
    assert upstream.calls == 4
    await ledger_init(house)
    assert await asked_each_way(house) == ["done"] * 4
    await check_budget(house.redis, LIMIT)
    await check_money(house.redis, await events_of(house.redis))
    await check_rest(house.redis)  # not the replies: the chunks that Redis lost leave a gap before a stream's end


async def refused_again(house):
    return len([1 for event in await events_of(house.redis) if event["event_type"] in TERMINAL]) == 2


async def charged(redis, upstream):
    """Whether each of the four is charged, with no less than the provider was paid."""
    charges = [event for event in await events_of(redis) if event["event_type"] in CHARGING and event["usd_nano"]]
    paid = {event["request_id"]: event["usd_nano"] for event in charges}
    return len(paid) == 4 and sum(paid.values()) >= upstream.charged_tokens * NANO_PER_TOKEN


async def ledger_init(house):
    """What the operator does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway_cli", "ledger", "init"),
        env=house.variables,
        cwd=house.folder,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
