"""The official OpenAI SDK, unchanged but for its base_url, through the whole gateway."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import openai as sdk
import pytest
from pydantic import BaseModel

from tests.invariants import check_idle
from tests.processes import ADMIN_TOKEN
from tests.upstream_replies import Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 20_000_000_000
HELLO = [{"role": "user", "content": "hello there"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}


def completion(message, finish="stop"):
    """A whole reply as the upstream would send it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "paid", "choices": [choice], "usage": usage}
    ).encode()


async def test_chat_works(openai, house):
    reply = await openai.chat.completions.create(model="paid", messages=HELLO)
    assert reply.choices[0].message.content == "hello there"
    assert reply.usage.total_tokens > 0
    await check_idle(house.redis, LIMIT)


async def test_a_task_stands_for_its_model(openai):
    reply = await openai.chat.completions.create(model="demo", messages=HELLO)
    assert reply.model == "echo"


async def test_streaming_works_and_usage_comes_only_when_asked_for(openai, house):
    chunks = [chunk async for chunk in await openai.chat.completions.create(model="paid", messages=HELLO, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello there"
    assert not [chunk for chunk in chunks if "usage" in chunk.model_fields_set]
    asked = await openai.chat.completions.create(
        model="paid", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    last = [chunk async for chunk in asked][-1]
    assert (last.choices, last.usage.completion_tokens) == ([], 3)
    await check_idle(house.redis, LIMIT)


async def test_tools_pass_both_ways(openai, upstream, journal):
    upstream.next(Behaviour(body=completion({"tool_calls": [CALL]}, "tool_calls")))
    reply = await openai.chat.completions.create(model="paid", messages=HELLO, tools=TOOLS)
    assert reply.choices[0].message.tool_calls[0].function.name == "weather"
    assert journal.calls[0].json["tools"] == TOOLS
    result = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    result.append({"role": "tool", "tool_call_id": "call_1", "content": "sun"})
    await openai.chat.completions.create(model="paid", messages=result, tools=TOOLS)
    assert journal.calls[1].json["messages"] == result


class Answer(BaseModel):
    number: int


async def test_structured_output_works(openai, upstream, journal):
    upstream.next(Behaviour(body=completion({"content": '{"number": 42}'})))
    reply = await openai.chat.completions.parse(model="paid", messages=HELLO, response_format=Answer)
    assert reply.choices[0].message.parsed == Answer(number=42)
    assert journal.calls[0].json["response_format"]["type"] == "json_schema"


async def test_unknown_fields_reach_the_provider_untouched(openai, upstream, journal):
    await openai.chat.completions.create(model="paid", messages=HELLO, extra_body={"new_knob": {"a": [1, None]}})
    assert journal.calls[0].json["new_knob"] == {"a": [1, None]}


async def test_an_unset_output_bound_is_sent_and_a_set_one_is_kept(openai, upstream, journal):
    await openai.chat.completions.create(model="paid", messages=HELLO)
    await openai.chat.completions.create(model="paid", messages=HELLO, max_completion_tokens=7)
    assert journal.calls[0].json["max_tokens"] == 100
    assert journal.calls[1].json["max_completion_tokens"] == 7
    assert "max_tokens" not in journal.calls[1].json


async def test_models_are_listed(openai):
    assert {model.id async for model in openai.models.list()} == {"echo", "paid", "nowhere"}
    assert (await openai.models.retrieve("paid")).id == "paid"


@pytest.mark.parametrize(
    ("request_fields", "error", "code"),
    [
        ({"model": "nope"}, sdk.NotFoundError, "model_not_found"),
        ({"messages": []}, sdk.BadRequestError, "invalid_value"),
        ({"max_tokens": 101}, sdk.BadRequestError, "invalid_value"),
        ({"max_tokens": -1}, sdk.BadRequestError, "invalid_value"),
        ({"temperature": "hot"}, sdk.BadRequestError, "invalid_type"),
        ({"service_tier": "priority"}, sdk.BadRequestError, "unsupported_parameter"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_requests_raise_the_sdks_own_errors_and_reach_nobody(
    openai, journal, stream, request_fields, error, code
):
    fields = {"model": "paid", "messages": HELLO, "stream": stream, **request_fields}
    with pytest.raises(error) as caught:
        await openai.chat.completions.create(**fields)
    assert caught.value.code == code
    assert caught.value.param == next(iter(request_fields))
    assert journal.calls == []
    assert await journal.events() == []


async def test_a_wrong_key_is_an_authentication_error(house):
    async with sdk.AsyncOpenAI(base_url=f"{house.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(sdk.AuthenticationError):
            await client.chat.completions.create(model="echo", messages=HELLO)


async def test_a_thousand_connections_at_once_are_served_with_the_default_bounds(house):
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    together = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(house.url, headers=headers, connector=together) as session:

        async def ask(number):
            body = {"model": "echo", "messages": HELLO, "stream": bool(number % 2)}
            async with session.post("/v1/chat/completions", json=body) as answer:
                return answer.status, (await answer.read())[-14:] == b"data: [DONE]\n\n"

        answers = await asyncio.gather(*(ask(number) for number in range(1_000)))
    assert answers == [(200, False), (200, True)] * 500
    await check_idle(house.redis, LIMIT)
