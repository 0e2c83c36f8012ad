"""The official OpenAI SDK's responses, unchanged but for its base_url: by way of chat, and natively."""

from __future__ import annotations

import json
from contextlib import contextmanager

import openai as sdk
import orjson
import pytest
from pydantic import BaseModel

from model_gateway.signing import verify_reply, verify_stream
from tests.acceptance import conftest
from tests.invariants import check_idle
from tests.processes import HMAC_SECRET
from tests.upstream_replies import Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = conftest.CONFIG.replace(
    "defaults:",
    """  native:
    {{provider: openai, api_base: "{base_url}", api_key_env: UPSTREAM_KEY, input_cost: 0.000001,
      output_cost: 0.000002, max_tokens: 100, timeout: 2, options: {{responses: true}}}}
defaults:""",
)
LIMIT = 20_000_000_000
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "tells the weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "completion_tokens_details": {"reasoning_tokens": 4},
}


def completion(message, finish="stop"):
    """A whole reply as the upstream would send it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def chunks(*deltas, finish="stop"):
    """A stream's events as the upstream would send them."""
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    parts = [{"id": "c", "choices": [choice], "usage": None} for choice in choices]
    return tuple(json.dumps(part).encode() for part in [*parts, {"id": "c", "choices": [], "usage": USAGE}])


async def events_of(client, **fields):
    return [event async for event in await client.responses.create(stream=True, **fields)]


# whole


@pytest.mark.parametrize("model", ["echo", "paid", "native"])
async def test_a_response_works(openai, house, journal, model):
    reply = await openai.responses.create(model=model, input="hello there", instructions="be brief")
    assert (reply.output_text, reply.status, reply.object) == ("hello there", "completed", "response")
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 0
    assert reply.instructions == "be brief"
    [event] = await journal.ended()
    assert (event["input_tokens"], event["output_tokens"]) == (reply.usage.input_tokens, reply.usage.output_tokens)
    assert event["usd_nano"] == event["input_tokens"] * 1000 + event["output_tokens"] * 2000
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("model", ["echo", "paid", "native"])
async def test_a_whole_response_is_signed(http, model):
    sent = orjson.dumps({"model": model, "input": "hello there"})
    async with http.post("/v1/responses", data=sent) as answer:
        text = await answer.read()
        assert answer.status == 200, text
        assert verify_reply(text, HMAC_SECRET, request_id=answer.headers["x-request-id"], request_body=sent)


async def test_the_way_by_chat_says_the_whole_request(openai, journal):
    await openai.responses.create(
        model="paid",
        instructions="be brief",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "hello there"}]}],
        tools=[TOOL],
        tool_choice="auto",
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low"},
        temperature=0.5,
        metadata={"trace": "1"},
        max_output_tokens=50,
        store=False,
    )
    assert journal.calls[0].path == "/v1/chat/completions"
    function = {name: TOOL[name] for name in ("name", "description", "parameters", "strict")}
    assert journal.calls[0].json == {
        "model": "paid",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "auto",
        "reasoning_effort": "low",
        "verbosity": "low",
        "temperature": 0.5,
        "max_tokens": 50,
    }


async def test_a_provider_that_has_responses_gets_the_body_itself_and_is_told_to_store_nothing(openai, journal):
    reply = await openai.responses.create(model="native", input="hello there", truncation="auto")
    assert journal.calls[0].path == "/v1/responses"
    assert journal.calls[0].json == {
        "model": "native",
        "input": "hello there",
        "truncation": "auto",
        "max_output_tokens": 100,
        "store": False,
    }
    assert reply.id == "resp_upstream"


async def test_a_bound_that_cuts_the_answer_makes_it_incomplete(openai):
    for model in ("echo", "paid", "native"):
        reply = await openai.responses.create(model=model, input="hello there", max_output_tokens=1)
        assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert (reply.output_text, reply.usage.output_tokens) == ("hell", 1)


async def test_tools_pass_both_ways(openai, upstream, journal):
    first = [{"role": "user", "content": "weather in Ulm?"}]
    upstream.next(Behaviour(body=completion({"content": "let me see", "tool_calls": [CALL]}, "tool_calls")))
    reply = await openai.responses.create(model="paid", input=first, tools=[TOOL])
    call = reply.output[1]
    assert (call.type, call.call_id, call.name, call.arguments) == (
        "function_call",
        "call_1",
        "weather",
        '{"city":"Ulm"}',
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    await openai.responses.create(model="paid", input=[*first, *reply.output, result], tools=[TOOL])
    assert journal.calls[1].json["messages"] == [
        *first,
        {"role": "assistant", "content": "let me see", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    ]


class Answer(BaseModel):
    number: int


async def test_structured_output_works(openai, upstream, journal):
    upstream.next(Behaviour(body=completion({"content": '{"number": 42}'})))
    reply = await openai.responses.parse(model="paid", input="a number", text_format=Answer)
    assert reply.output_parsed == Answer(number=42)
    asked = journal.calls[0].json["response_format"]
    assert (asked["type"], asked["json_schema"]["name"], asked["json_schema"]["strict"]) == (
        "json_schema",
        "Answer",
        True,
    )


async def test_reasoning_is_told_and_comes_back(openai, upstream, journal):
    upstream.next(Behaviour(body=completion({"reasoning_content": "hm", "tool_calls": [CALL]}, "tool_calls")))
    include = ["reasoning.encrypted_content"]
    reply = await openai.responses.create(model="paid", input="x", reasoning={"effort": "high"}, include=include)
    thought = reply.output[0]
    assert (thought.type, thought.summary[0].text) == ("reasoning", "hm")
    assert reply.usage.output_tokens_details.reasoning_tokens == 4
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    await openai.responses.create(model="paid", input=[*reply.output, result], include=include)
    assert journal.calls[1].json["messages"][0] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [CALL],
    }


# streamed


@pytest.mark.parametrize("model", ["echo", "paid", "native"])
async def test_a_stream_has_its_events_in_order(openai, house, model):
    events = await events_of(openai, model=model, input="hello there")
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * len(deltas),
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(event.delta for event in deltas) == "hello there"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.usage.output_tokens == 3
    assert events[-1].response.output_text == "hello there"
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("model", ["echo", "paid", "native"])
async def test_the_sdks_own_stream_adds_up(openai, model):
    async with openai.responses.stream(model=model, input="hello there") as stream:
        said = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert said[-1] == final.output_text == "hello there"


@pytest.mark.parametrize("model", ["echo", "paid", "native"])
async def test_a_stream_is_signed_over_every_event_and_each_has_its_name(http, model):
    sent = orjson.dumps({"model": model, "input": "hello there", "stream": True})
    async with http.post("/v1/responses", data=sent) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        lines = (await answer.read()).splitlines()
    names = [line.removeprefix(b"event: ").decode() for line in lines if line.startswith(b"event: ")]
    data = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    assert names == [orjson.loads(event)["type"] for event in data]
    assert names[-1] == "response.completed"
    assert verify_stream(data, HMAC_SECRET, request_id=answer.headers["x-request-id"], request_body=sent)
    assert not verify_stream(data[:-1], HMAC_SECRET)


async def test_tools_and_reasoning_are_streamed(openai, upstream):
    begin = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    other = {"index": 1, "id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city"'}}
    more = [
        {"index": 0, "function": {"arguments": '{"city":"Ulm"}'}},
        {"index": 1, "function": {"arguments": ':"Bonn"}'}},
    ]
    deltas = [{"reasoning_content": "hm"}, *({"tool_calls": [call]} for call in (begin, other, *more))]
    upstream.next(Behaviour(events=chunks(*deltas, finish="tool_calls")))
    async with openai.responses.stream(model="paid", input="weather?", tools=[TOOL]) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    thought, *calls = final.output
    assert thought.summary[0].text == "hm"
    assert [(call.call_id, call.parsed_arguments) for call in calls] == [
        ("call_1", {"city": "Ulm"}),
        ("call_2", {"city": "Bonn"}),
    ]


async def test_structured_output_is_streamed(openai, upstream):
    upstream.next(Behaviour(text='{"number": 42}'))
    async with openai.responses.stream(model="paid", input="a number", text_format=Answer) as stream:
        parsed = [event.parsed async for event in stream if event.type == "response.output_text.done"]
        final = await stream.get_final_response()
    assert parsed == [final.output_parsed] == [Answer(number=42)]


@pytest.mark.parametrize("model", ["echo", "paid", "native"])
async def test_a_stream_that_is_cut_by_its_bound_ends_incomplete(openai, model):
    last = (await events_of(openai, model=model, input="hello there", max_output_tokens=1))[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"


# errors

CUT = Behaviour(hold_at=6, cut_at=6)
"""Cut in the middle, once the client has seen the beginning and lets it go on."""

CLOSED = {"Connection": "close"}
"""The gateway closes a connection whose stream broke: no other test is to be the one that finds out."""


@contextmanager
def cutting(upstream):
    try:
        yield
    finally:
        upstream.hold()


@pytest.mark.parametrize("model", ["paid", "native"])
async def test_a_stream_that_is_cut_raises_the_sdks_own_error(openai, house, upstream, model):
    upstream.next(CUT)
    seen = []
    with cutting(upstream), pytest.raises(sdk.APIError) as caught:
        async for event in await openai.responses.create(
            model=model, input="hello there", stream=True, extra_headers=CLOSED
        ):
            seen.append(event.type)
            upstream.release()
    assert caught.value.code == "upstream_truncated"
    assert "response.created" in seen
    assert not {"response.completed", "response.incomplete", "response.failed"} & set(seen)
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("model", ["paid", "native"])
async def test_a_stream_that_is_cut_ends_with_a_signed_error_event(http, upstream, model):
    upstream.next(CUT)
    sent = orjson.dumps({"model": model, "input": "hello there", "stream": True})
    lines = []
    with cutting(upstream):
        async with http.post("/v1/responses", data=sent, headers=CLOSED) as answer:
            assert answer.status == 200
            async for line in answer.content:
                lines.append(line.strip())
                upstream.release()
    data = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    last = orjson.loads(data[-1])
    assert b"event: error" in lines
    assert (last["type"], last["code"], last["param"]) == ("error", "upstream_truncated", None)
    assert verify_stream(data, HMAC_SECRET, request_id=answer.headers["x-request-id"], request_body=sent)


async def test_a_response_that_failed_at_the_provider_is_passed_on(openai, house, upstream, journal):
    failed = {"id": "r", "object": "response", "status": "failed", "error": {"code": "server_error", "message": "x"}}
    opened = {"id": "r", "object": "response", "status": "in_progress", "error": None}
    parts = [
        {"type": "response.created", "sequence_number": 0, "response": opened},
        {"type": "response.failed", "sequence_number": 1, "response": failed},
    ]
    upstream.next(Behaviour(events=tuple(json.dumps(part).encode() for part in parts)))
    events = await events_of(openai, model="native", input="hello there")
    assert [event.type for event in events] == ["response.created", "response.failed"]
    [event] = await journal.ended()
    assert (event["event_type"], event["finish_reason"]) == ("model.request.complete", "failed")
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize(
    ("request_fields", "code", "param"),
    [
        ({"previous_response_id": "resp_1"}, "unsupported_parameter", "previous_response_id"),
        ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"prompt": {"id": "pmpt_1"}}, "unsupported_parameter", "prompt"),
        ({"store": True}, "unsupported_parameter", "store"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "unsupported_parameter", "input[0]"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
        ({"service_tier": "priority"}, "unsupported_parameter", "service_tier"),
        ({"truncation": "auto"}, "unsupported_parameter", "truncation"),
        ({"max_output_tokens": 101}, "invalid_value", "max_output_tokens"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_can_not_be_served_raises_the_sdks_own_error_and_reaches_nobody(
    openai, house, journal, stream, request_fields, code, param
):
    with pytest.raises(sdk.BadRequestError) as caught:
        await openai.responses.create(**{"model": "paid", "input": "x", "stream": stream, **request_fields})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert journal.calls == []
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["paid", "native"])
async def test_what_the_provider_rejects_raises_the_sdks_own_error(openai, house, upstream, model, stream):
    upstream.next(Behaviour(status=400, body=b'{"error":{"message":"no such thing","param":"input"}}'))
    with pytest.raises(sdk.BadRequestError, match="no such thing") as caught:
        await openai.responses.create(model=model, input="x", stream=stream)
    assert (caught.value.code, caught.value.param) == ("upstream_rejected", "input")
    await check_idle(house.redis, LIMIT)
