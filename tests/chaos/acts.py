"""What may happen in a gateway's life, each act once: every act asks one text, and knows when it is through."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from model_gateway import GatewayError
from model_gateway.agent_client import GatewayClient
from model_gateway.envelope import Envelope, new_request_id
from model_gateway.streams import GROUP
from tests.chaos.fault_models import KEYS
from tests.chaos.lossy_stage import Stage
from tests.invariants import events_of
from tests.processes import AGENT_SECRET, wait_until

Act = Callable[[Stage, str], Awaitable[str]]


async def whole(stage: Stage, text: str) -> str:
    return await stage.ask("paid", text)


async def streamed(stage: Stage, text: str) -> str:
    return await stage.ask("paid", text, stream=True)


async def retried(stage: Stage, text: str) -> str:
    return await stage.ask("flaky", text)


async def over_budget(stage: Stage, text: str) -> str:
    return await stage.ask("dear", text)


async def by_agent(stage: Stage, text: str) -> str:
    return await _ask_under_an_id(stage.agent, text)


async def by_isolated_agent(stage: Stage, text: str) -> str:
    return await _ask_under_an_id(stage.lonely, text)


async def _ask_under_an_id(agent: GatewayClient, text: str) -> str:
    """Ask again if Redis seems away: the id is answered, and paid once."""
    messages, told = [{"role": "user", "content": text}], "redis_unavailable"
    for _ in range(3):
        try:
            await agent.complete(model="paid", messages=messages, request_id=f"agent-{text}", timeout=20)
        except GatewayError as error:
            told = error.code
        else:
            return "done"
    return told


async def cancelled_by_isolated_agent(stage: Stage, text: str) -> str:
    async def listen() -> None:
        async for _ in stage.lonely.stream(model="held", messages=[{"role": "user", "content": text}]):
            pass

    asking = asyncio.create_task(listen())
    await wait_until(lambda: asking.done() or stage.upstream.calls_for(text), within=20, what="a call")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return "left"


async def forged_by_isolated_agent(stage: Stage, text: str) -> str:
    await stage.redis.xadd(KEYS.ingress("lonely"), {"from": "agent-test", "id": text})
    await wait_until(lambda: stage.letters(text), what="a dead letter")
    return "put aside"


async def repeated(stage: Stage, text: str) -> str:
    """An agent that asks again although it was answered."""
    await by_agent(stage, text)
    return await by_agent(stage, text)


async def refused(stage: Stage, text: str) -> str:
    """What only the worker finds out: there is no such model."""
    with pytest.raises(GatewayError) as caught:
        await stage.agent.complete(model="none", messages=[{"role": "user", "content": text}], timeout=20)
    return caught.value.code


async def cancelled(stage: Stage, text: str) -> str:
    """A client that leaves while the provider is silent, after the lease was renewed."""
    before = len(stage.proxies["worker"].answered)
    asking = asyncio.create_task(stage.ask("held", text, stream=True))

    def renewed() -> bool:
        names = [command.name for command in stage.proxies["worker"].answered[before:]]
        return "renew" in names and stage.upstream.calls_for(text) == 1

    await wait_until(lambda: asking.done() or renewed(), within=20)
    if asking.done():  # it was told of trouble before
        return await asking
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return "left"


async def bad_envelope(stage: Stage, text: str) -> str:
    forged = {"v": "1", "from": "agent-test", "principal": "agent-test", "id": text, "op": "chat", "model": "paid"}
    await stage.redis.xadd(KEYS.requests, forged | {"ts": "1", "body": "", "sig": "0" * 64})
    await wait_until(lambda: stage.letters(text), what="a dead letter")
    return "put aside"


async def reclaimed(stage: Stage, text: str) -> str:
    """An entry that a worker took and died with: it is taken over after its lease."""
    body = b'{"model":"paid","messages":[{"role":"user","content":"%b"}]}' % text.encode()
    now = int((await stage.redis.time())[0]) * 1000
    envelope = Envelope("agent-test", "agent-test", new_request_id(now), "chat", "paid", now, body)
    async with stage.redis.pipeline(transaction=True) as both:  # so that no live worker comes first
        both.xadd(KEYS.requests, envelope.fields(AGENT_SECRET))
        both.xreadgroup(GROUP, "ghost", {KEYS.requests: ">"}, count=1)
        await both.execute()
    await wait_until(lambda: _ended(stage, envelope.request_id), within=20, what="it is taken over")
    return "done"


async def _ended(stage: Stage, request_id: str) -> bool:
    return await stage.redis.hget(KEYS.record("agent-test", request_id), "state") == b"done"


async def connected_anew(stage: Stage, text: str) -> str:
    """Every connection was cut and the scripts are forgotten."""
    await stage.redis.script_flush()
    await asyncio.gather(*(proxy.cut_all() for proxy in stage.proxies.values()))
    return await stage.ask("paid", text)


async def operated(stage: Stage, text: str) -> str:
    """What an operator looks at, and a reset, which is one however often it was sent."""
    kinds = Counter(event["event_type"] for event in await events_of(stage.redis))
    told = "done"
    for method, path in (("GET", "/budget/stats"), ("POST", "/budget/reset"), ("GET", "/metrics")):
        async with stage.http.request(method, stage.doors.url + path) as answer:
            if answer.status != 200:
                told = (await answer.json())["error"]["code"]
    resets = Counter(event["event_type"] for event in await events_of(stage.redis)) - kinds
    assert resets["model.budget.reset"] == 1 or (told != "done" and not resets)
    return told


async def restarted(stage: Stage, text: str) -> str:
    """A worker that stops, and one that starts and sweeps, as it is the janitor's time."""
    await stage.worker.stop(signal.SIGTERM)
    await stage.redis.delete(KEYS.epoch + ":janitor")
    before = len(stage.proxies["worker"].answered)
    stage.worker = await stage.workers.start_worker("w1")

    def swept() -> bool:
        names = [command.name for command in stage.proxies["worker"].answered[before:]]
        return "forget_consumers" in names or "skipped" in stage.worker.log.read_text()

    await wait_until(swept, what="the janitor was there")
    return await stage.ask("paid", text)


async def door_restarted(stage: Stage, text: str) -> str:
    """A front door that stops, and one that starts."""
    await stage.door.stop(signal.SIGTERM)
    stage.door = await stage.doors.start_api()
    return await stage.ask("paid", text)


ACTS: dict[str, Act] = {
    act.__name__: act
    for act in (
        *(whole, streamed, retried, over_budget, by_agent, repeated, refused, cancelled, bad_envelope, reclaimed),
        *(by_isolated_agent, cancelled_by_isolated_agent, forged_by_isolated_agent),
        *(connected_anew, restarted, door_restarted, operated),
    )
}
