from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from model_gateway_parrot import ParrotProvider
from model_gateway_parrot.reply import BadReplyError, ReplyMapper
from model_gateway_parrot.request import squawk_body
from parrot_server import answer

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderSettings
from model_gateway.testing import TOOLS, ProviderConformance, Scenario, ScriptedServer

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


class TestConformance(ProviderConformance):
    @asynccontextmanager
    async def serve(self, scenario: Scenario, settings: ProviderSettings) -> AsyncIterator[ParrotProvider]:
        async with ScriptedServer(scenario, answer) as self.server:
            yield ParrotProvider(replace(settings, api_base=self.server.url))

    def requests(self) -> list[Mapping[str, Any]]:
        return self.server.requests


def test_it_is_found_by_its_entry_point() -> None:
    assert ProviderFactory.find("parrot") is ParrotProvider


def test_a_request_is_said_in_the_vendors_words() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Rain"}, {"type": "text", "text": "?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "no", "tool_call_id": "t1"},
    ]
    fields = {"max_tokens": 50, "temperature": 0.5, "stop": "END", "tools": TOOLS[1:], "n": 1, "seed": None}
    assert squawk_body(messages, "polly-2", fields, drop=False) == {
        "parrot": "polly-2",
        "script": [
            {"who": "trainer", "says": "Be brief."},
            {"who": "visitor", "says": "Rain?"},
            {"who": "parrot", "says": "", "tricks": [{"id": "t1", "name": "weather", "with": {"city": "Zürich"}}]},
            {"who": "trick", "says": "no", "trick": "t1"},
        ],
        "breath": 50,
        "mood": 25,
        "hush": ["END"],
        "tricks": [
            {"name": "clock", "about": "Tells the clock.", "takes": TOOLS[1]["function"]["parameters"]},
        ],
    }


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        (HELLO, {"seed": 1}, "seed"),
        (HELLO, {"n": 2}, "n"),
        (HELLO, {"response_format": {"type": "json_object"}}, "response_format"),
        (HELLO, {"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        (HELLO, {"tools": [{"type": "custom"}]}, "tools[0].type"),
        (HELLO, {"tools": [{"type": "function", "function": {"strict": True}}]}, "tools[0].function.strict"),
        ([{**HELLO[0], "name": "Ann"}], {}, "messages[0].name"),
        ([{"role": "function", "content": ""}], {}, "messages[0].role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, "messages[0].content[0].type"),
    ],
)
def test_what_a_parrot_can_not_do_is_refused_by_its_name(
    messages: list[dict[str, Any]], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(GatewayError) as caught:
        squawk_body(messages, "polly-2", fields, drop=False)
    assert (caught.value.code, caught.value.param, caught.value.billed) == ("unsupported_parameter", param, False)


@pytest.mark.parametrize("event", [{}, {"says": "hi"}, {"squawk": 1, "parrot": "p"}, {"trick": 0, "id": "t"}])
def test_an_event_that_makes_no_sense_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(BadReplyError):
        list(ReplyMapper(1).chunks(event))
