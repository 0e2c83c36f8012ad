"""Requests that kill whichever worker calls for them: given up after the set number of attempts, and others go on."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict

import orjson
import pytest

from model_gateway.connection import connect
from model_gateway.events import TERMINAL
from tests.chaos.asking import ask_agent, ask_http
from tests.chaos.scale import scaled
from tests.invariants import KEYS, check_budget, check_idle, events_of
from tests.processes import gateway, wait_until
from tests.redis_server import RedisServer
from tests.upstream import Recorded, Upstream
from tests.upstream_replies import Behaviour, text_of

LIMIT = 20_000_000_000
ATTEMPTS = scaled(3, 2)
KINDS = [("http", True), ("http", False), ("agent", True), ("agent", False)][: scaled(4, 1)]
BYSTANDERS_AT_ONCE = 4
CONFIG = """
models:
  paid: {{provider: openai, api_base: "{url}", input_cost: 0.000001, output_cost: 0.000001, max_tokens: 100}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}}}
worker: {{lease_seconds: 1}}
redelivery: {{max_attempts: {attempts}}}
"""


class Provider(Upstream):
    """On a poisonous text it has the worker that called killed, before it says anything."""

    def __init__(self):
        super().__init__()
        self.house = None
        self.workers = {}
        self.kills = 0

    async def _record(self, request: Recorded) -> Behaviour:
        behaviour = await super()._record(request)
        if text_of(request.json["messages"][-1]).startswith("poison"):
            await self._kill_who_calls()
        return behaviour

    async def _kill_who_calls(self):
        for owner in await self.house.redis.hkeys(KEYS.open):
            principal, _, request_id = owner.decode().partition(":")
            record = await self.house.redis.hgetall(KEYS.record(principal, request_id))
            if (await text_at(self.house.redis, record[b"entry"])).startswith("poison"):
                name = record[b"consumer"].decode()
                await self.workers[name].stop(signal.SIGKILL)
                self.kills += 1
                self.workers[name] = await self.house.start_worker(name)

    def calls_for(self, text):
        return sum(text_of(request.json["messages"][-1]) == text for request in self.requests)


async def text_at(redis, entry):
    [[_, fields]] = await redis.xrange(KEYS.requests, min=entry, max=entry)
    return orjson.loads(fields[b"body"])["messages"][-1]["content"]


@pytest.mark.timeout(scaled(300, 120))
async def test_a_poison_request_is_dead_lettered_after_its_attempts_and_others_go_on(tmp_path, record_property):
    server = RedisServer(tmp_path / "redis")
    await server.start()
    redis = connect(server.url)
    try:
        async with Provider() as upstream:
            config = CONFIG.format(url=upstream.base_url, attempts=ATTEMPTS)
            async with gateway(redis, server.url, tmp_path, config) as house:
                await the_test(house, upstream, record_property)
    finally:
        await redis.aclose()
        server.close()


async def the_test(house, upstream, record_property):
    upstream.house = house
    upstream.workers = {name: await house.start_worker(name) for name in ("w1", "w2")}
    await house.start_api()
    async with house.agent() as agent:
        over = asyncio.Event()
        others = [asyncio.create_task(bystander(house, agent, number, over)) for number in range(BYSTANDERS_AT_ONCE)]
        texts = [f"poison by {door}, {'streamed' if stream else 'whole'}" for door, stream in KINDS]
        for text, (door, stream) in zip(texts, KINDS, strict=True):
            told = await (
                ask_http(house.url, "paid", text, stream=stream)
                if door == "http"
                else ask_agent(agent, "paid", text, stream=stream)
            )
            assert told == (502, "outcome_unknown", False), text
            await check_budget(house.redis, LIMIT)
        over.set()
        told = dict(pair for pairs in await asyncio.gather(*others) for pair in pairs)
    await check(house.redis, upstream, texts, told)
    record_property("fault", "poison requests, each of whose attempts kills its worker")
    record_property("poison requests", len(texts))
    record_property("workers killed", upstream.kills)
    record_property("others done", f"{list(told.values()).count('done')} of {len(told)}")


async def bystander(house, agent, number, over):
    """Asks one request after the other, by HTTP or as an agent, until it is over; what each came to."""
    told = []
    while not over.is_set():
        text = f"bystander {number}, {len(told)}"
        answer = await (ask_http(house.url, "paid", text) if number % 2 else ask_agent(agent, "paid", text))
        told.append((text, answer))
        await asyncio.sleep(0.02)
    return told


async def check(redis, upstream, texts, told):
    events = await events_of(redis)
    asked = {fields[b"id"].decode(): orjson.loads(fields[b"body"]) for _, fields in await redis.xrange(KEYS.requests)}
    await wait_until(lambda: nothing_left(redis))
    await check_idle(redis, LIMIT, set(asked))
    by_text = defaultdict(list)
    for event in events:
        if event.get("request_id") in asked:
            by_text[asked[event["request_id"]]["messages"][-1]["content"]].append(event)
    letters = [orjson.loads(fields[b"body"])["messages"][-1]["content"] for _, fields in await redis.xrange(KEYS.dead)]
    lost_with = {
        text: [event for event in found if event["event_type"] == "model.request.unknown"]
        for text, found in by_text.items()
    }
    for text in texts:
        assert upstream.calls_for(text) == len(lost_with[text]) == ATTEMPTS
        assert all(event["usd_nano"] == event["reserved_nano"] > 0 for event in lost_with[text])
        [end] = [event for event in by_text[text] if event["event_type"] in TERMINAL]
        assert (end["event_type"], end["error_code"], end["usd_nano"]) == ("model.request.failed", "outcome_unknown", 0)
    # Who was in the same worker at each of its deaths shares the poison's fate; nobody else is touched.
    doomed = {text for text, lost in lost_with.items() if len(lost) == ATTEMPTS}
    assert Counter(letters) == Counter(doomed)
    assert {text for text, answer in told.items() if answer != "done"} == doomed - set(texts)


async def nothing_left(redis):
    [group] = await redis.xinfo_groups(KEYS.requests)
    return group["lag"] == 0 and group["pending"] == 0
