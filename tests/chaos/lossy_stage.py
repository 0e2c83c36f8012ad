"""A gateway whose processes reach Redis through proxies that lose answers, and what a request did to it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from model_gateway.agent_client import GatewayClient
from model_gateway.connection import connect
from model_gateway.events import CHARGING
from tests.chaos.fault_models import KEYS, LIMIT, NANO_PER_TOKEN, SECRETS, Provider, config_of, lonely_agent, submitted
from tests.invariants import check_idle, events_of
from tests.processes import ADMIN_TOKEN, Gateway, Part, gateway, wait_until
from tests.redis_proxy import RedisProxy
from tests.redis_server import RedisServer


@dataclass
class Stage:
    """A gateway whose three kinds of processes each reach Redis through a proxy; ``house`` looks on without one."""

    house: Gateway
    upstream: Provider
    proxies: dict[str, RedisProxy]
    workers: Gateway
    doors: Gateway
    agent: GatewayClient
    lonely: GatewayClient
    http: aiohttp.ClientSession
    worker: Part
    door: Part

    @property
    def redis(self):
        return self.house.redis

    async def ask(self, model: str, text: str, *, stream: bool = False) -> str:
        """Over HTTP; ``done``, or the error's code."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
        async with self.http.post(f"{self.doors.url}/v1/chat/completions", json=body) as answer:
            if answer.status != 200:
                return (await answer.json())["error"]["code"]
            whole = await answer.text()
        assert not stream or whole.endswith("data: [DONE]\n\n"), whole
        return "done"

    async def letters(self, text: str) -> int:
        """How many dead letters have a text for their id."""
        found = [fields.get(b"id") for _, fields in await self.redis.xrange(KEYS.dead)]
        return found.count(text.encode())

    async def at_rest(self) -> None:
        """Wait until nothing is queued, pending or open, nor in the ingress."""

        async def nothing_left() -> bool:
            [group] = await self.redis.xinfo_groups(KEYS.requests)
            if await self.redis.exists(KEYS.ingress("lonely")):
                return False
            return group["lag"] == 0 and group["pending"] == 0 and await self.redis.hlen(KEYS.open) == 0

        await wait_until(nothing_left, within=30, what="everything has its end")

    async def effect(self, text: str) -> list[tuple[Any, ...]]:
        """What a request did: its events and whether they charge, how often the provider was called, dead letters."""
        request_id = (await submitted(self.redis)).get(text, "none")
        events = [event for event in await events_of(self.redis) if event.get("request_id") == request_id]
        told = ("event_type", "attempt", "status", "error_code")
        found: list[tuple[Any, ...]] = [(*map(event.get, told), bool(event.get("usd_nano"))) for event in events]
        return [*found, ("calls", self.upstream.calls_for(text)), ("letters", await self.letters(text))]

    async def check(self) -> None:
        """The invariants over all that ran until now, and the counters beside them."""
        await check_idle(self.redis, LIMIT, set((await submitted(self.redis)).values()))
        events = await events_of(self.redis)
        settled = sum(event["usd_nano"] or 0 for event in events if event["event_type"] in CHARGING)
        assert self.upstream.charged_tokens * NANO_PER_TOKEN <= settled, "I6"
        counters = {name.decode(): int(value) for name, value in (await self.redis.hgetall(KEYS.counters)).items()}
        ended = sum(value for name, value in counters.items() if name.startswith("requests|"))
        assert ended == len(await submitted(self.redis)), "the metrics count each request once"
        assert counters.get("cost_nano", 0) == settled, "the metrics count each charge once"


@asynccontextmanager
async def on_stage(folder: Path):
    """A gateway whose processes reach a Redis of its own through proxies; closed with all that belongs to it."""
    server = RedisServer(folder / "redis")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.callback(server.close)
        redis = connect(server.url)
        stack.push_async_callback(redis.aclose)
        upstream = await stack.enter_async_context(Provider())
        names = ("worker", "door", "agent")
        proxies = {name: await stack.enter_async_context(RedisProxy(server.url)) for name in names}
        config = config_of(upstream)
        houses = {}
        for name, url in {"direct": server.url, **{name: proxies[name].url for name in names}}.items():
            (folder / name).mkdir()
            houses[name] = await stack.enter_async_context(gateway(redis, url, folder / name, config, **SECRETS))
        worker, door = await asyncio.gather(houses["worker"].start_worker(), houses["door"].start_api())
        agent = await stack.enter_async_context(houses["agent"].agent())
        lonely = await stack.enter_async_context(lonely_agent(proxies["agent"].url))
        bearer = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        http = await stack.enter_async_context(aiohttp.ClientSession(headers=bearer))
        people = (houses["worker"], houses["door"], agent, lonely, http, worker, door)
        yield Stage(houses["direct"], upstream, proxies, *people)
