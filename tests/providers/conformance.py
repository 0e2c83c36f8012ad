"""How the built-in providers are put into the conformance suite's scenarios: by the scripted upstream."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from model_gateway.providers import ProviderFactory, ProviderInterface, ProviderSettings
from model_gateway.testing import CALLS, KEY, ProviderConformance, Scenario
from tests import upstream_anthropic as anthropic
from tests import upstream_google as google
from tests.upstream import Upstream, openai_speech
from tests.upstream_replies import Behaviour

ERROR = json.dumps({"error": {"type": "no_such_type", "message": f"it does not like the key {KEY}"}}).encode()
BEHAVIOURS: Mapping[Scenario, Behaviour] = {
    Scenario.TEXT: Behaviour(),
    Scenario.NO_USAGE: Behaviour(usage=False),
    Scenario.REJECTED: Behaviour(status=400, body=ERROR),
    Scenario.UNAUTHORIZED: Behaviour(status=401, body=ERROR),
    Scenario.RATE_LIMITED: Behaviour(status=429, body=ERROR, headers={"Retry-After": "7"}),
    Scenario.BROKEN: Behaviour(status=500, body=ERROR),
    Scenario.HANGING: Behaviour(hold_at=0),
    Scenario.HANGING_MIDWAY: Behaviour(hold_at=2),
    Scenario.CUT_MIDWAY: Behaviour(cut_at=2),
    Scenario.GARBAGE: Behaviour(body=b"<html>not what you asked for</html>"),
}


AT_ONCE = frozenset({Scenario.HANGING, Scenario.HANGING_MIDWAY})
"""What only the first call meets."""

OPENAI = {"id": "chatcmpl-1", "created": 1_735_689_600, "model": "model-x"}
OPENAI_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 8,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


class OverTheWire(ProviderConformance):
    """A provider whose server is the scripted upstream.

    Attributes:
        provider: its name in a row.
        base: what follows the server's root in the row's ``api_base``.
        transport, options: of the row.
        speech: what the server says on a path.
        tools: how it calls tools.
    """

    provider: ClassVar[str]
    base: ClassVar[str] = ""
    transport: ClassVar[str] = "http"
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    speech: ClassVar[Any]
    tools: ClassVar[Behaviour]
    upstream: Upstream

    @asynccontextmanager
    async def serve(self, scenario: Scenario, settings: ProviderSettings) -> AsyncIterator[ProviderInterface]:
        async with Upstream(speech=type(self).speech) as self.upstream:
            behaviour = self.tools if scenario is Scenario.TOOLS else BEHAVIOURS.get(scenario, Behaviour())
            self.upstream.next(*[behaviour] * (1 if scenario in AT_ONCE else 2))
            with nobody() as unused:
                port = unused if scenario is Scenario.UNREACHABLE else self.upstream.port
                yield self.led_to(f"http://127.0.0.1:{port}{self.base}", settings)

    def led_to(self, base: str, settings: ProviderSettings) -> ProviderInterface:
        """The provider of a row with this ``api_base``."""
        own = {"provider": self.provider, "transport": self.transport, "options": self.options}
        return ProviderFactory.find(self.provider)(replace(settings, api_base=base, **own))

    def requests(self) -> list[Mapping[str, Any]]:
        return [request.json for request in self.upstream.requests]


@contextmanager
def nobody() -> Iterator[int]:
    """A port that is taken, and on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def openai_tools() -> Behaviour:
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(CALLS)
    ]
    reply = {"role": "assistant", "content": None, "tool_calls": calls}
    choice = {"index": 0, "message": reply, "finish_reason": "tool_calls"}
    whole = {**OPENAI, "object": "chat.completion", "choices": [choice], "usage": OPENAI_USAGE}
    chunks = [openai_chunk({"role": "assistant", "content": None})]
    chunks += [openai_chunk({"tool_calls": [piece]}) for call in enumerate(calls) for piece in openai_pieces(*call)]
    chunks += [openai_chunk({}, "tool_calls"), {**openai_chunk({}), "choices": [], "usage": OPENAI_USAGE}]
    return Behaviour(body=json.dumps(whole).encode(), events=tuple(json.dumps(chunk).encode() for chunk in chunks))


def openai_pieces(index: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    arguments = call["function"]["arguments"]
    yield {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
    for start in range(0, len(arguments), 5):
        yield {"index": index, "function": {"arguments": arguments[start : start + 5]}}


def openai_chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**OPENAI, "object": "chat.completion.chunk", "choices": [choice], "usage": None}


def anthropic_tools() -> Behaviour:
    blocks = [
        {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(CALLS)
    ]
    usage = anthropic.usage_of(9, 8, cache_read_input_tokens=4, cache_creation_input_tokens=2)
    return Behaviour(
        body=json.dumps(anthropic.message(blocks, "tool_use", usage)).encode(),
        events=anthropic.encoded(anthropic.events(blocks, "tool_use", usage)),
    )


def google_tools() -> Behaviour:
    calls = [{"functionCall": {"name": name, "args": arguments}} for name, arguments in CALLS]
    usage = google.usage_of(9, 5, 3, cachedContentTokenCount=4)
    events = (google.reply(calls[:1], None, usage), google.reply(calls[1:], "STOP", usage))
    return Behaviour(body=json.dumps(google.reply(calls, "STOP", usage)).encode(), events=google.encoded(*events))


class OfTheOpenAIFamily(OverTheWire):
    base = "/v1"
    speech = openai_speech
    tools = openai_tools()
    passes_unknown_fields = True
