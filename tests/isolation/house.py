"""Real processes around an isolated agent that means no good, and bystanders who must not notice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from gateway_cli.acl import acl_line
from gateway_cli.embedded import AppendFsync, password_sha256
from model_gateway.agent_client import GatewayClient
from model_gateway.clock import Clock
from model_gateway.connection import connect
from model_gateway.envelope import Envelope, new_request_id
from model_gateway.settings import Agent
from model_gateway.streams import Keys
from tests.invariants import check_idle, events_of
from tests.processes import ADMIN_TOKEN, AGENT_SECRET, Gateway, Part, gateway, wait_until
from tests.redis_server import RedisServer
from tests.upstream import Upstream
from tests.upstream_replies import Behaviour

KEYS = Keys()
LIMIT = 20_000_000_000
PASSWORD = "a-password-of-the-tests-" + "p" * 16
HOSTILE_SECRET = "test-hostile-secret-" + "s" * 32
SENDER = "agent-hostile"
INGRESS = KEYS.ingress("hostile")
REPLIES = KEYS.replies(SENDER)
BODY_BYTES = 1_048_576
MODEL = "input_cost: 0.000001, output_cost: 0.000001, max_tokens: 100"
CONFIG = """
models:
  paid: {{provider: openai, api_base: "{url}", {model}}}
  midway: {{provider: openai, api_base: "{url}", {model}}}
  unanswered: {{provider: openai, api_base: "{url}", {model}}}
agents:
  test: {{secret_env: AGENT_TEST_SECRET}}
  hostile: {{secret_env: AGENT_HOSTILE_SECRET, isolated: true, {bounds}}}
  quiet: {{secret_env: AGENT_QUIET_SECRET, isolated: true}}
limits: {{body_bytes: {body_bytes}}}
worker: {{lease_seconds: {lease}}}
"""
QUIET_SECRET = "test-quiet-secret-" + "q" * 32
USERS = {
    "test": Agent(secret_env="A"),
    "hostile": Agent(secret_env="B", isolated=True),
    "quiet": Agent(secret_env="C", isolated=True),
}


@dataclass(slots=True)
class House:
    """The processes, the provider behind them, and the hostile agent's own connection.

    Attributes:
        redis: as the gateway, which may do everything.
        hostile: as the isolated agent, which may do little.
        parts: the processes that were started, by name.
    """

    server: RedisServer
    redis: Redis
    upstream: Upstream
    house: Gateway
    hostile: Redis
    parts: dict[str, Part] = field(default_factory=dict)
    attempts_before: int = 0

    async def start(self, *workers: str) -> None:
        """Workers and a front door."""
        for name in workers:
            self.parts[name] = await self.house.start_worker(name)
        self.parts["api"] = await self.house.start_api()

    def url_of(self, agent: str) -> str:
        """Where an agent reaches Redis, as its own user."""
        return self.server.url.replace(f":{self.server.server.password}", f"agent-{agent}:{PASSWORD}")

    def client(self, agent: str) -> GatewayClient:
        """An agent's client, connected as its own Redis user."""
        secret = {"test": AGENT_SECRET, "hostile": HOSTILE_SECRET, "quiet": QUIET_SECRET}[agent]
        return GatewayClient(self.url_of(agent), agent=agent, secret=secret, isolated=agent != "test")

    async def publish(self, fields: Any) -> bytes:
        """What the hostile agent puts on its ingress."""
        return await self.hostile.xadd(INGRESS, fields)

    async def emptied(self) -> None:
        """Wait until nothing stands in the ingress."""

        async def empty() -> bool:
            return not await self.redis.exists(INGRESS)

        await wait_until(empty, what="an empty ingress")

    async def replies_to(self, request_id: str) -> list[dict[bytes, bytes]]:
        """What the hostile agent finds among its replies."""
        found = await self.hostile.xrange(REPLIES)
        return [fields for _, fields in found if fields[b"id"] == request_id.encode()]

    async def ended(self, request_id: str) -> dict[bytes, bytes]:
        """Wait for the end of a request of the hostile agent; its last reply."""

        async def end() -> dict[bytes, bytes] | None:
            found = await self.replies_to(request_id)
            return next((fields for fields in found if fields[b"end"] == b"1"), None)

        return await wait_until(end, what=f"the end of {request_id}")

    async def dead_letters(self) -> list[dict[bytes, bytes]]:
        """What was put aside."""
        return [fields for _, fields in await self.redis.xrange(KEYS.dead)]

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """Every event of one kind."""
        return [event for event in await events_of(self.redis) if event["event_type"] == kind]

    async def attempts(self) -> int:
        """How often something was reserved, which comes before each call."""
        return len(await self.events("model.request.start"))

    @asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Others' requests run while the block attacks, and to their end; nobody was called for anybody else."""
        calls, self.attempts_before = self.upstream.calls, await self.attempts()
        self.upstream.hold()
        async with aiohttp.ClientSession() as http, self.client("test") as trusted:
            running = [
                asyncio.create_task(asked)
                for asked in (
                    self._over_http(http, "unanswered"),
                    self._over_http(http, "midway", stream=True),
                    _streamed(trusted),
                )
            ]
            await asyncio.wait_for(self.upstream.arrived(calls + 3), 20)
            try:
                yield
                assert await self._over_http(http, "paid") == "hello"
                reply = await trusted.complete(model="paid", messages=[user("hello")])
                assert reply["choices"][0]["message"]["content"] == "hello"
            finally:
                self.upstream.release()
                said = await asyncio.gather(*running)
            assert said == ["hello", "hello there", "hello there"]
        await self.at_rest()
        reserved = await self.attempts() - self.attempts_before
        assert self.upstream.calls - calls == reserved, "a call that nobody reserved for"

    async def runs_of_hostile(self) -> int:
        """How often somebody was called for the hostile agent since ``undisturbed`` began last."""
        starts = (await self.events("model.request.start"))[self.attempts_before :]
        return len([event for event in starts if event["principal"] == SENDER])

    async def still_serves_hostile(self) -> None:
        """What it has done to itself is over."""
        async with self.client("hostile") as client:
            await client.complete(model="paid", messages=[user("hello again")])
        await self.at_rest()

    async def forget_the_minute(self) -> None:
        """Let dead letters be written again: there are few in a minute."""
        await self.redis.delete(KEYS.ingress_state("hostile"))

    def times_asked(self, body: bytes) -> int:
        """How often the provider was asked what a body asks."""
        wanted = json.loads(body)["messages"]
        return sum(request.json["messages"] == wanted for request in self.upstream.requests)

    def peaks_kb(self) -> list[int]:
        """The most memory that each process has had."""
        statuses = [Path(f"/proc/{part.process.pid}/status").read_text() for part in self.parts.values()]
        return [int(status.partition("VmHWM:")[2].split()[0]) for status in statuses]

    async def at_rest(self) -> None:
        """Wait until nothing runs, and check that everything adds up."""

        async def resting() -> bool:
            pending = await self.redis.xpending(KEYS.requests, "workers")
            return not pending["pending"] and not await self.redis.hlen(KEYS.open)

        await self.emptied()
        await wait_until(resting, what="rest")
        await check_idle(self.redis, LIMIT)

    async def _over_http(self, http: aiohttp.ClientSession, model: str, *, stream: bool = False) -> str:
        text = "hello there" if stream else "hello"
        body = {"model": model, "messages": [user(text)], "stream": stream, "max_tokens": 20}
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with http.post(f"{self.house.url}/v1/chat/completions", json=body, headers=headers) as answer:
            said = await answer.text()
            assert answer.status == 200, said
        if not stream:
            return str(json.loads(said)["choices"][0]["message"]["content"])
        events = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        return "".join(delta(json.loads(event)) for event in events[:-1])


async def _streamed(client: GatewayClient) -> str:
    chunks = client.stream(model="midway", messages=[user("hello there")], max_tokens=20)
    return "".join([delta(chunk) async for chunk in chunks])


def delta(chunk: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


def user(text: str) -> dict[str, str]:
    """One message."""
    return {"role": "user", "content": text}


def envelope(**changes: Any) -> Envelope:
    """A good envelope of the hostile agent, but for ``changes``."""
    now = Clock().now_ms()
    body = json.dumps({"messages": [user("paid for")], "max_tokens": 20}).encode()
    whole = {
        "sender": SENDER,
        "principal": SENDER,
        "request_id": new_request_id(now),
        "operation": "chat",
        "model": "paid",
        "ts_ms": now,
        "body": body,
    }
    return Envelope(**{**whole, **changes})


def signed(**changes: Any) -> dict[str, str | bytes]:
    """Its fields, signed with the hostile agent's own secret."""
    return envelope(**changes).fields(HOSTILE_SECRET)


@asynccontextmanager
async def open_house(
    folder: Path, bounds: str = "per_minute: 100000", *, appendfsync: AppendFsync = "everysec", lease: int = 30
) -> AsyncIterator[House]:
    """Redis with its users, a provider, and a gateway without processes yet."""
    lines = tuple(acl_line(name, row, KEYS, password_sha256(PASSWORD)) for name, row in USERS.items())
    server = RedisServer(folder / "redis", appendfsync, lines)
    try:
        await server.start()
        async with Upstream() as upstream, connect(server.url) as redis:
            upstream.script = {"midway": Behaviour(hold_at=2), "unanswered": Behaviour(hold_at=0)}
            config = CONFIG.format(
                url=upstream.base_url, model=MODEL, bounds=bounds, body_bytes=BODY_BYTES, lease=lease
            )
            secrets = {"AGENT_HOSTILE_SECRET": HOSTILE_SECRET, "AGENT_QUIET_SECRET": QUIET_SECRET}
            async with gateway(redis, server.url, folder, config, OPENAI_API_KEY="key", **secrets) as processes:
                house = House(server, redis, upstream, processes, connect(server.url))
                async with connect(house.url_of("hostile"), read_timeout=30) as hostile:
                    house.hostile = hostile
                    yield house
    finally:
        server.close()
