"""SIGTERM under load, again and again: what was accepted is finished, in time, by whoever had it."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from collections import Counter

import aiohttp
import orjson
import pytest

from model_gateway.connection import connect
from model_gateway.events import TERMINAL
from tests.chaos.scale import SEED, scaled
from tests.invariants import KEYS, check_budget, check_idle, events_of
from tests.processes import ADMIN_TOKEN, gateway, wait_until
from tests.redis_server import RedisServer
from tests.upstream import Recorded, Upstream
from tests.upstream_replies import ERROR, Behaviour, text_of

LIMIT = 20_000_000_000
SIGTERMS = scaled(50, 2)
DOOR_EVERY = 4  # each so-many-th SIGTERM is a front door's
CLIENTS = scaled(24, 8)
DRAIN_SECONDS = 15
SLOWEST = 0.4
WORDS = "some words to be cut into chunks on their way back"
CONFIG = """
models:
  paid: {{provider: openai, api_base: "{url}", input_cost: 0.000001, output_cost: 0.000001, max_tokens: 100}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 2, drain_seconds: {drain}}}
routing: {{backoff_seconds: 0.1, retry_budget: 1, breaker: {{enabled: false}}}}
"""


class Provider(Upstream):
    """Takes its time, by a seeded measure; every fifth text fails at its first call and is to be tried again."""

    def __init__(self):
        super().__init__()
        self.texts = Counter()

    async def _record(self, request: Recorded) -> Behaviour:
        await super()._record(request)
        text = text_of(request.json["messages"][-1])
        self.texts[text] += 1
        chance = random.Random(f"{SEED} {text}")
        if chance.random() < 0.2 and self.texts[text] == 1:
            return Behaviour(status=500, body=ERROR)
        return Behaviour(delay=chance.uniform(0, SLOWEST))


class Doors:
    """Front doors that come and go, each at a port of its own."""

    def __init__(self, house):
        self.house = house
        self.open = {}

    async def start(self):
        part = await self.house.start_api()
        self.open[part] = self.house.url

    def take(self):
        """The oldest; nobody is sent there any more."""
        part = next(iter(self.open))
        del self.open[part]
        return part

    def any(self, number):
        urls = list(self.open.values())
        return urls[number % len(urls)]


class Load:
    """Clients that ask one request after the other, until it is over.

    Attributes:
        done: requests that were answered in full.
        turned_away: tries that found a front door shut.
    """

    def __init__(self, doors, agent):
        self.doors, self.agent = doors, agent
        self.over = asyncio.Event()
        self.done = Counter()
        self.turned_away = 0

    async def run(self):
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(session, number))

    async def _client(self, session, number):
        for turn in itertools.count():
            if self.over.is_set():
                return
            text, stream = f"client {number}, {turn}: {WORDS}", turn % 2 == 0
            asked = {"model": "paid", "messages": [{"role": "user", "content": text}]}
            if number % 2:
                said = await self._by_agent(asked, stream=stream)
            else:
                said = await self._by_http(session, {**asked, "stream": stream}, number + turn)
            assert said == text
            self.done[text] += 1

    async def _by_agent(self, asked, *, stream):
        if not stream:
            return (await self.agent.complete(**asked))["choices"][0]["message"]["content"]
        return "".join([delta(chunk) async for chunk in self.agent.stream(**asked)])

    async def _by_http(self, session, body, number):
        """Where no connection comes about another door is tried, as a load balancer does."""
        while True:
            try:
                async with session.post(f"{self.doors.any(number)}/v1/chat/completions", json=body) as answer:
                    text = await answer.read()
                    assert answer.status == 200, text
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                self.turned_away += 1
                continue
            if not body["stream"]:
                return orjson.loads(text)["choices"][0]["message"]["content"]
            events = [line[6:] for line in text.splitlines() if line.startswith(b"data: ")]
            assert events[-1] == b"[DONE]", events[-1]
            return "".join(delta(orjson.loads(event)) for event in events[:-1])


def delta(chunk):
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


@pytest.mark.timeout(scaled(900, 120))
async def test_no_accepted_request_fails_while_processes_are_stopped_and_replaced(tmp_path, record_property):
    server = RedisServer(tmp_path / "redis")
    await server.start()
    redis = connect(server.url)
    try:
        async with Provider() as upstream:
            config = CONFIG.format(url=upstream.base_url, drain=DRAIN_SECONDS)
            async with gateway(redis, server.url, tmp_path, config) as house, house.agent() as agent:
                doors = Doors(house)
                workers = {name: await house.start_worker(name) for name in ("w1", "w2")}
                await doors.start()
                await doors.start()
                load = Load(doors, agent)
                loading = asyncio.create_task(load.run())
                slowest = await stop_in_turns(house, workers, doors, loading)
                load.over.set()
                await loading
                await check(redis, load)
                record_property("fault", "SIGTERM under load")
                record_property("SIGTERMs", SIGTERMS)
                record_property("requests", len(load.done))
                record_property("failed", 0)
                record_property("tried another front door", load.turned_away)
                record_property("longest drain", f"{slowest:.1f} s")
    finally:
        await redis.aclose()
        server.close()


async def stop_in_turns(house, workers, doors, loading):
    """SIGTERM to one process after the other, each replaced before the next; how long the slowest took."""
    chance, slowest, clock = random.Random(SEED), 0.0, asyncio.get_running_loop().time
    for number in range(1, SIGTERMS + 1):
        await asyncio.sleep(chance.uniform(0, SLOWEST))  # in any phase of the requests
        assert not loading.done(), loading.exception()
        is_door = number % DOOR_EVERY == 0
        name = f"w{1 + number % 2}"
        part, before = doors.take() if is_door else workers[name], clock()
        assert await part.stop(signal.SIGTERM, within=DRAIN_SECONDS) == 0, part.log.read_text()[-2000:]
        slowest = max(slowest, clock() - before)
        if is_door:
            await doors.start()
        else:
            workers[name] = await house.start_worker(name)
        await check_budget(house.redis, LIMIT)
    return slowest


async def check(redis, load):
    """Each request was accepted once, ended once, well, and nobody had to take it over."""
    await wait_until(lambda: nothing_left(redis))
    entries = [fields for _, fields in await redis.xrange(KEYS.requests)]
    asked = Counter(orjson.loads(fields[b"body"])["messages"][-1]["content"] for fields in entries)
    assert asked == load.done, "an accepted request had no answer"
    await check_idle(redis, LIMIT, {fields[b"id"].decode() for fields in entries})
    events = await events_of(redis)
    assert {event["event_type"] for event in events if event["event_type"] in TERMINAL} == {"model.request.complete"}
    assert [event for event in events if event["event_type"] == "model.request.unknown"] == []
    assert [event for event in events if event["event_type"] == "model.request.retry"], "no request of several attempts"


async def nothing_left(redis):
    [group] = await redis.xinfo_groups(KEYS.requests)
    return group["lag"] == 0 and group["pending"] == 0
