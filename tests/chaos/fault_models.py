"""The models that the tests of lost answers and crash points ask, and the provider behind them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from redis.asyncio import Redis

from model_gateway.agent_client import GatewayClient
from model_gateway.streams import Keys
from tests.processes import wait_until
from tests.upstream import Recorded, Upstream, model_of
from tests.upstream_replies import ERROR, Behaviour, text_of

KEYS = Keys()
LIMIT = 20_000_000_000
NANO_PER_TOKEN = 1_000
_PAID = 'provider: openai, api_base: "{base_url}", input_cost: 0.000001, output_cost: 0.000001, max_tokens: 100'
_CONFIG = """
models:
  paid: {{{paid}}}
  flaky: {{{paid}}}
  held: {{{paid}}}
  held-midway: {{{paid}}}
  dear: {{provider: openai, api_base: "{base_url}", input_cost: 1, output_cost: 1, max_tokens: 100}}
agents: {{test: {{secret_env: AGENT_TEST_SECRET}}, lonely: {{secret_env: AGENT_LONELY_SECRET, isolated: true}}}}
worker: {{lease_seconds: {lease}}}
routing: {{backoff_seconds: 0.02, retry_budget: 1, breaker: {{min_calls: 10000}}}}
"""


LONELY_SECRET = "lonely-agent-secret-" + "l" * 32
SECRETS = {"AGENT_LONELY_SECRET": LONELY_SECRET}


def lonely_agent(redis_url: str) -> GatewayClient:
    """The client of the isolated agent."""
    return GatewayClient(redis_url, agent="lonely", secret=LONELY_SECRET, isolated=True)


def config_of(upstream: Upstream, lease_seconds: int = 1) -> str:
    """A config whose models are all served by one provider."""
    paid = _PAID.format(base_url=upstream.base_url)
    return _CONFIG.format(paid=paid, base_url=upstream.base_url, lease=lease_seconds)


async def submitted(redis: Redis) -> dict[str, str]:
    """Ids on the request stream, by the text that they ask; each stands there once. Forged entries have no body."""
    found = [fields for _, fields in await redis.xrange(KEYS.requests) if fields.get(b"body")]
    assert len({fields[b"id"] for fields in found}) == len(found), "an id stands on the request stream twice"
    ids = {orjson.loads(each[b"body"])["messages"][-1]["content"]: each[b"id"].decode() for each in found}
    assert len(ids) == len(found), "a request was submitted twice"
    return ids


class Provider(Upstream):
    """The first call of each request for ``flaky`` fails; ``held`` and ``held-midway`` wait to be released.

    Attributes:
        deeds: what is to be done, once, at a place in a call: ``received``, ``half sent`` or ``complete``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deeds: dict[str, Callable[[], Awaitable[object]]] = {}

    def calls_for(self, text: str) -> int:
        """How often a text was asked."""
        return sum(text_of(request.json["messages"][-1]) == text for request in self.requests)

    async def quiet(self) -> None:
        """Wait until no connection is left: whoever called is dead, and what it had sent has been read."""
        await wait_until(lambda: not self._tasks, what="the provider's connections are gone")

    async def _record(self, request: Recorded) -> Behaviour:
        behaviour = await super()._record(request)
        await self._at("received")
        if model_of(request) == "flaky" and self.calls_for(text_of(request.json["messages"][-1])) == 1:
            return Behaviour(status=500, body=ERROR)
        return behaviour

    async def _let_go(self, *args: Any) -> bool:
        await self._at("half sent")
        return await super()._let_go(*args)

    async def _speak(self, *args: Any) -> bool:
        goes_on = await super()._speak(*args)
        await self._at("complete")
        return goes_on

    async def _at(self, place: str) -> None:
        if place in self.deeds:
            await self.deeds.pop(place)()
