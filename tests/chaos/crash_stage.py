"""Workers that are killed at a point of a request's life, and others that take over from them."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from model_gateway import GatewayError
from model_gateway.agent_client import GatewayClient
from model_gateway.connection import connect
from model_gateway.events import CHARGING
from tests.chaos.fault_models import KEYS, LIMIT, NANO_PER_TOKEN, SECRETS, Provider, config_of, lonely_agent
from tests.chaos.life_rules import MODELS, NEVER_RUN, Life, rest_of, told_of
from tests.invariants import check_budget, check_idle, events_of
from tests.processes import Gateway, Part, gateway, wait_until
from tests.redis_proxy import Fault, Moment, RedisProxy, cut_after
from tests.redis_server import RedisServer


@dataclass(frozen=True)
class Point:
    """Where a process is killed: at the ``nth`` command of a name, or at a place in the provider's call."""

    scenario: str
    place: str
    nth: int = 1
    moment: Moment | None = None

    def __str__(self) -> str:
        return f"{self.scenario}: {self.place} {self.nth}" + (f", {self.moment.value}" if self.moment else "")


@dataclass
class Killed:
    """A request whose worker was killed.

    Attributes:
        life: its events until then.
        calls: how often the provider had been called for it.
    """

    point: Point
    text: str
    asking: asyncio.Task[str]
    life: Life = field(default_factory=list)
    calls: int = 0


@dataclass
class Stage:
    """Victims reach Redis through a proxy; heirs go straight. Both with leases of their own."""

    redis: Redis
    proxy: RedisProxy
    upstream: Provider
    victims: Gateway
    heirs: Gateway
    agent: GatewayClient
    lonely: GatewayClient
    started: int = 0

    async def victim(self) -> Part:
        """The next worker to be killed."""
        self.started += 1
        self.upstream.hold()
        return await self.victims.start_worker(f"victim-{self.started}")

    async def life(self, request_id: str) -> Life:
        """A request's events until now."""
        found = [event for event in await events_of(self.redis) if event.get("request_id") == request_id]
        return [(event["event_type"].removeprefix("model.request."), int(event.get("attempt") or 0)) for event in found]

    async def ask(self, scenario: str, text: str) -> str:
        """An agent's request under an id that is its text; how its client sees it end."""
        named = {"messages": [{"role": "user", "content": text}], "request_id": text, "timeout": 600.0}
        try:
            if scenario == "forged":
                await self.redis.xadd(KEYS.requests, {"from": "agent-test", "id": text})
            elif scenario == "misdirected":
                await self.redis.xadd(KEYS.ingress("lonely"), {"from": "agent-test", "id": text})
            elif scenario == "isolated":
                await self.lonely.complete(model=MODELS[scenario], **named)
            elif scenario in ("streamed", "cancelled"):
                async for _ in self.agent.stream(model=MODELS[scenario], **named):
                    pass
            else:
                await self.agent.complete(model=MODELS[scenario], **named)
        except GatewayError as error:
            return error.code
        except asyncio.CancelledError:
            return "left"
        return "done"

    async def drive(self, scenario: str, text: str, over: Callable[[], bool]) -> asyncio.Task[str]:
        """Ask, and do the client's and the provider's part until it is over."""
        asking = asyncio.create_task(self.ask(scenario, text))
        if scenario == "streamed":
            await wait_until(lambda: over() or "emit" in self.proxy.names(), what="a chunk")
            self.upstream.release()
        elif scenario == "cancelled":
            await wait_until(lambda: over() or self.upstream.calls_for(text) == 1, what="a call")
            asking.cancel()
            await asyncio.gather(asking)
        await wait_until(over, what=f"{text} is over")
        return asking

    async def kill_at(self, point: Point, number: int) -> Killed:
        """A worker that takes one request and is killed at a point; what it had got done by then."""
        worker, text = await self.victim(), f"{point.scenario}-{number}"
        self.proxy.answered.clear()

        async def kill() -> None:
            await worker.stop(signal.SIGKILL)

        if point.moment is None:
            self.upstream.deeds[point.place] = kill
        else:
            filled = point.moment is not Moment.BEFORE
            self.proxy.arm(Fault(point.place, point.moment, cut_after(kill), point.nth, filled))
        asking = await self.drive(point.scenario, text, lambda: worker.process.returncode is not None)
        self.proxy.disarm()
        return await self.at_death(point, text, asking)

    async def at_death(self, point: Point, text: str, asking: asyncio.Task[str]) -> Killed:
        """What a request's worker had got done, once all that it had sent has arrived."""
        await self.upstream.quiet()
        await self.redis.ping()
        await check_budget(self.redis, LIMIT)
        return Killed(point, text, asking, await self.life(text), self.upstream.calls_for(text))

    async def take_over(self) -> None:
        """One worker takes over all that was left, and stops."""
        self.upstream.release()
        heir = await self.heirs.start_worker("heir")

        async def nothing_left() -> bool:
            [group] = await self.redis.xinfo_groups(KEYS.requests)
            waiting = await self.redis.exists(KEYS.ingress("lonely"))
            return not waiting and group["lag"] == 0 and group["pending"] == 0

        await wait_until(nothing_left, within=60, what="all is taken over")
        assert await heir.stop() == 0

    async def check(self, killed: list[Killed]) -> None:
        """Each request has ended as the rules say; nothing was paid that is not charged, and nothing leaks."""
        for each in killed:
            rest, calls = rest_of(each.point.scenario, each.life, each.calls)
            life = await self.life(each.text)
            assert life == each.life + rest, f"{each.point}: {life}, {len(each.life)} of them before the kill"
            assert self.upstream.calls_for(each.text) == each.calls + calls, str(each.point)
            assert each.calls + calls <= [kind for kind, _ in life].count("start"), f"I5: {each.point}"
            assert await each.asking == told_of(each.point.scenario, life), str(each.point)
        asked = {each.text for each in killed if each.point.scenario not in NEVER_RUN}
        await check_idle(self.redis, LIMIT, asked)
        letters = Counter(fields[b"id"].decode() for _, fields in await self.redis.xrange(KEYS.dead))
        assert letters == Counter(each.text for each in killed if each.point.scenario in NEVER_RUN)
        charges = [event["usd_nano"] for event in await events_of(self.redis) if event["event_type"] in CHARGING]
        assert self.upstream.charged_tokens * NANO_PER_TOKEN <= sum(charges), "I6"


@asynccontextmanager
async def on_stage(folder: Path, victims_lease: int = 60) -> AsyncIterator[Stage]:
    """Victims and heirs over a Redis of their own. Victims with a long lease take over from nobody."""
    server = RedisServer(folder / "redis")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.callback(server.close)
        redis = connect(server.url)
        stack.push_async_callback(redis.aclose)
        upstream = await stack.enter_async_context(Provider())
        proxy = await stack.enter_async_context(RedisProxy(server.url))
        houses = []
        for name, url, lease in (("victims", proxy.url, victims_lease), ("heirs", server.url, 1)):
            (folder / name).mkdir()
            config = config_of(upstream, lease)
            houses.append(await stack.enter_async_context(gateway(redis, url, folder / name, config, **SECRETS)))
        agent = await stack.enter_async_context(houses[1].agent())
        lonely = await stack.enter_async_context(lonely_agent(server.url))
        yield Stage(redis, proxy, upstream, *houses, agent, lonely)
