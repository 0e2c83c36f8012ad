"""Workers frozen past their lease at points of a request's life: who took over ends it, and they change nothing."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway_worker import transitions
from model_gateway import GatewayError
from model_gateway.agent_client import GatewayClient
from model_gateway.connection import connect
from model_gateway.events import CHARGING
from tests.chaos.scale import FULL, scaled
from tests.invariants import KEYS, check_budget, check_idle, events_of
from tests.processes import Gateway, Part, gateway, wait_until
from tests.redis_proxy import Fault, Moment, RedisProxy
from tests.redis_server import RedisServer
from tests.upstream import Recorded, Upstream
from tests.upstream_replies import Behaviour, text_of

LIMIT = 20_000_000_000
NANO_PER_TOKEN = 1_000
CONFIG = """
models:
  paid:
    {{provider: openai, api_base: "{url}", input_cost: 0.000001, output_cost: 0.000001, max_tokens: 100, timeout: 60}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: {lease}, slots: {slots}}}
"""
SLEEPERS_LEASE = 6  # long enough for no sleeper to take over from another before it is frozen itself
WORDS = "words to be cut into chunks on their way back"


@dataclass(frozen=True)
class Point:
    """Where a worker is frozen: at a script, as it is sent or answered; without one, while the provider is silent.

    Attributes:
        ends: how the request ends once another worker has it.
        attempts: how many have started by then.
        early: it is woken while the other one's provider is silent.
    """

    script: str = ""
    moment: Moment | None = None
    stream: bool = False
    ends: str = "done"
    attempts: int = 2
    early: bool = False


POINTS = {
    "before-admission": Point("admit", Moment.BEFORE, attempts=1),
    "between-admission-and-call": Point("admit", Moment.EXECUTED),
    "in-a-whole-call": Point(),
    "in-a-stream-chunks-seen": Point(stream=True, ends="outcome_unknown", attempts=1),
    "before-its-first-chunk-is-written": Point("emit", Moment.BEFORE, stream=True),
    "before-it-settles": Point("settle", Moment.BEFORE),
    "after-it-settled": Point("settle", Moment.EXECUTED, attempts=1),
    "before-its-first-chunk-and-woken-early": Point("emit", Moment.BEFORE, stream=True, early=True),
    "before-it-settles-and-woken-early": Point("settle", Moment.BEFORE, early=True),
}
"""By the request's id, which its text begins with."""

SHORT = ("before-its-first-chunk-and-woken-early", "before-it-settles-and-woken-early")


class Provider(Upstream):
    """Is silent in the calls of a text in which it must be: for ever in those of a worker that is frozen meanwhile."""

    async def _record(self, request: Recorded) -> Behaviour:
        await super()._record(request)
        name = text_of(request.json["messages"][-1]).partition(":")[0]
        silent = 2 if POINTS[name].early else 0 if POINTS[name].script else 1
        if len(self.calls_for(name)) == silent:
            return Behaviour(hold_at=0 if POINTS[name].early or not POINTS[name].stream else 4)
        return Behaviour()

    def calls_for(self, name: str) -> list[Recorded]:
        return [each for each in self.requests if text_of(each.json["messages"][-1]).startswith(f"{name}:")]


@dataclass
class Sleeper:
    """A worker that was frozen with one request in its hands.

    Attributes:
        asking: its client.
        woken: what it had sent before it was frozen may arrive.
    """

    name: str
    point: Point
    part: Part
    asking: asyncio.Task[str]
    woken: asyncio.Event


@dataclass
class Stage:
    """Sleepers reach Redis through a proxy each; the heir goes straight. Both with leases of their own."""

    sleepers: Gateway
    heirs: Gateway
    upstream: Provider
    agent: GatewayClient
    stack: AsyncExitStack
    redis_url: str

    @property
    def redis(self):
        return self.heirs.redis

    async def put_to_sleep(self, name: str) -> Sleeper:
        """A worker that takes one request and is frozen at a point of it."""
        point, woken, chunks = POINTS[name], asyncio.Event(), []
        proxy = await self.stack.enter_async_context(RedisProxy(self.redis_url))
        self.sleepers.variables["REDIS_URL"] = proxy.url
        part = await self.sleepers.start_worker(name)

        async def freeze(*_) -> None:
            part.send(signal.SIGSTOP)
            if point.moment is Moment.BEFORE:
                await woken.wait()

        if point.moment is not None:
            fault = proxy.arm(Fault(point.script, point.moment, freeze))
            asking = asyncio.create_task(self.ask(name, chunks))
            await asyncio.wait_for(fault.struck.wait(), 20)
        else:
            asking = asyncio.create_task(self.ask(name, chunks))
            await wait_until(lambda: chunks if point.stream else self.upstream.calls_for(name), what=name)
            await freeze()
        return Sleeper(name, point, part, asking, woken)

    async def ask(self, name: str, chunks: list[str]) -> str:
        """An agent's request; how it ends."""
        text = f"{name}: {WORDS}"
        asked = {"model": "paid", "messages": [{"role": "user", "content": text}], "request_id": name}
        try:
            if POINTS[name].stream:
                async for chunk in self.agent.stream(**asked):
                    chunks += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
            else:
                chunks.append((await self.agent.complete(**asked))["choices"][0]["message"]["content"])
        except GatewayError as error:
            return error.code
        assert "".join(chunks) == text
        return "done"

    async def written(self):
        """All that the woken ones may not change: streams, the ledger, the records."""
        streams = (KEYS.events, KEYS.requests, KEYS.replies("agent-test"), KEYS.dead)
        hashes = [KEYS.ledger, KEYS.counters, KEYS.spend, KEYS.open]
        hashes += [KEYS.record("agent-test", name) for name in POINTS]
        return [await self.redis.xrange(each) for each in streams] + [await self.redis.hgetall(each) for each in hashes]


@asynccontextmanager
async def on_stage(folder):
    server = RedisServer(folder / "redis")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.callback(server.close)
        redis = connect(server.url)
        stack.push_async_callback(redis.aclose)
        for script in (transitions._ADMIT, transitions._EMIT, transitions._SETTLE):
            await redis.script_load(
                script.text
            )  # so that what was sent before the freeze is carried out, not asked for
        upstream = await stack.enter_async_context(Provider())
        houses = []
        for name, lease, slots in (("sleepers", SLEEPERS_LEASE, 1), ("heirs", 1, 100)):
            (folder / name).mkdir()
            config = CONFIG.format(url=upstream.base_url, lease=lease, slots=slots)
            houses.append(await stack.enter_async_context(gateway(redis, server.url, folder / name, config)))
        agent = await stack.enter_async_context(houses[1].agent())
        yield Stage(*houses, upstream, agent, stack, server.url)


@pytest.mark.timeout(scaled(300, 120))
async def test_a_worker_frozen_past_its_lease_changes_nothing_when_it_wakes(tmp_path, record_property):
    names = [name for name in POINTS if FULL or name in SHORT]
    async with on_stage(tmp_path) as stage:
        sleepers = [await stage.put_to_sleep(name) for name in names]
        await stage.heirs.start_worker("heir")
        late = [each for each in sleepers if not each.point.early]
        told = await asyncio.gather(*(each.asking for each in late))
        await wait_until(lambda: taken_over(stage, sleepers), what="the other has taken over all of it")
        await check_budget(stage.redis, LIMIT)
        written = await stage.written()
        await wake(stage, sleepers)
        assert await stage.written() == written, "a stale token wrote something"
        stage.upstream.release()
        told += await asyncio.gather(*(each.asking for each in sleepers if each.point.early))
        assert told == [each.point.ends for each in sorted(sleepers, key=lambda each: each.point.early)]
        await wait_until(lambda: pending(stage.redis, 0))
        await check_idle(stage.redis, LIMIT, set(names))
        await check_calls(stage)
        record_property("fault", "workers frozen past their lease and woken")
        record_property("points", len(names))
        record_property("attempts", sum(POINTS[name].attempts for name in names))
        record_property("provider called", stage.upstream.calls)


async def taken_over(stage, sleepers):
    """Whether all is over, but for what the other one's provider is silent about."""
    early = [each.name for each in sleepers if each.point.early]
    called = all(len(stage.upstream.calls_for(name)) == 2 for name in early)
    return called and await pending(stage.redis, len(early))


async def pending(redis, count):
    [group] = await redis.xinfo_groups(KEYS.requests)
    return group["lag"] == 0 and group["pending"] == count


async def wake(stage, sleepers):
    """Let them go on, and stop: what they still do they have done when they are gone."""
    for sleeper in sleepers:
        sleeper.woken.set()
        sleeper.part.send(signal.SIGCONT)
    for sleeper in sleepers:
        if not sleeper.point.script:  # the provider never answers: the call must be dropped
            await asyncio.wait_for(stage.upstream.calls_for(sleeper.name)[0].abandoned.wait(), 20)
    assert [await sleeper.part.stop() for sleeper in sleepers] == [0] * len(sleepers)


async def check_calls(stage):
    """I5 and I6: no attempt called twice, and whatever was called is charged."""
    events = await events_of(stage.redis)
    starts = Counter(event["request_id"] for event in events if event["event_type"] == "model.request.start")
    for name, attempts in starts.items():
        assert attempts == POINTS[name].attempts, name
        assert len(stage.upstream.calls_for(name)) <= attempts, f"I5: {name}"
    settled = sum(event["usd_nano"] or 0 for event in events if event["event_type"] in CHARGING)
    assert stage.upstream.charged_tokens * NANO_PER_TOKEN <= settled, "I6"
