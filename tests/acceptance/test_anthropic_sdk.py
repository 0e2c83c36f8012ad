"""The official Anthropic SDK, unchanged but for its base_url, through the whole gateway: by way of chat, natively."""

from __future__ import annotations

import json

import aiohttp
import anthropic as sdk
import orjson
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic
from pydantic import BaseModel

from model_gateway.signing import verify_reply, verify_stream
from tests.acceptance import conftest
from tests.invariants import check_idle
from tests.processes import ADMIN_TOKEN, HMAC_SECRET
from tests.upstream import Upstream, openai_speech
from tests.upstream_anthropic import anthropic_speech, encoded, error, events, message, usage_of
from tests.upstream_replies import ERROR, Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
CONFIG = conftest.CONFIG.replace(
    "defaults:",
    """  claude:
    {{provider: anthropic, api_base: "{base_url}", api_key_env: UPSTREAM_KEY, engine: claude-x,
      input_cost: 0.000001, output_cost: 0.000002, cached_input_cost: 0.0000001, cache_write_cost: 0.00000125,
      cache_write_1h_cost: 0.000003, max_tokens: 100, timeout: 2}}
defaults:""",
)
LIMIT = 20_000_000_000
MODELS = ["echo", "paid", "claude"]
"""Echo answers itself; ``paid`` is asked in OpenAI's words, ``claude`` in the client's own."""

HELLO = [{"role": "user", "content": "hello there"}]
TOOL = {
    "name": "weather",
    "description": "Today's weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PIXEL = "iVBORw0KGgo="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
CALLS = [
    {"id": f"call_{number}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
    for number, city in enumerate(("Ulm", "Bonn"))
]
USES = [
    {"type": "tool_use", "id": f"call_{number}", "name": "weather", "input": {"city": city}}
    for number, city in enumerate(("Ulm", "Bonn"))
]
THOUGHT = {"type": "thinking", "thinking": "hmm, hello", "signature": "sig"}
ANSWER = {"type": "text", "text": "hello there"}
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


@module_fixture
async def upstream():
    """One server with both vendors' paths."""
    async with Upstream(speech=lambda path: anthropic_speech(path) or openai_speech(path)) as running:
        yield running


@module_fixture
async def anthropic(house):
    """The official client, unchanged but for its address."""
    async with AsyncAnthropic(base_url=house.url, api_key=ADMIN_TOKEN, max_retries=0) as client:
        yield client


def completion(said, finish="stop"):
    """A whole chat completion as the upstream would send it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **said}, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


def chunks(*deltas, finish="stop"):
    """A chat completion's chunks as the upstream would send them."""
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    parts = [{"id": "c", "choices": [choice], "usage": None} for choice in choices]
    return tuple(json.dumps(part).encode() for part in [*parts, {"id": "c", "choices": [], "usage": USAGE}])


def scripted(model, blocks, finish, *deltas):
    """A behaviour that says some blocks as ``model``'s upstream does, whole or streamed; deltas are their chunks."""
    if model == "claude":
        usage = usage_of(5, 7)
        reason = {"stop": "end_turn", "tool_calls": "tool_use"}[finish]
        return (
            Behaviour(body=json.dumps(message(blocks, reason, usage)).encode()),
            Behaviour(events=encoded(events(blocks, reason, usage))),
        )
    said = {name: value for delta in deltas for name, value in delta.items() if name != "tool_calls"}
    calls = {"tool_calls": CALLS} if finish == "tool_calls" else {}
    return (
        Behaviour(body=completion({**said, **calls}, finish)),
        Behaviour(events=chunks(*deltas, finish=finish)),
    )


def plain(reply):
    return [block.model_dump(exclude_none=True) for block in reply.content]


async def final_of(client, **fields):
    """What the SDK's own helper puts together out of a stream."""
    async with client.messages.stream(**{"max_tokens": 50, "messages": HELLO, **fields}) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_message()


async def raw_events(http, **fields):
    """A stream's events as they come over the wire: names and data; the body that asked, and the headers."""
    body = orjson.dumps({"max_tokens": 50, "messages": HELLO, "stream": True, **fields})
    # A stream that failed closes its connection: none is kept for the next request.
    async with http.post("/v1/messages", data=body, headers={"Connection": "close"}) as answer:
        assert answer.status == 200
        found = []
        for event in (await answer.read()).split(b"\n\n")[:-1]:
            lines = dict(line.split(b": ", 1) for line in event.split(b"\n"))
            found.append((lines[b"event"].decode(), lines[b"data"]))
        return found, body, answer.headers


# -- messages


@pytest.mark.parametrize("model", MODELS)
async def test_a_message_works(anthropic, house, journal, model):
    reply = await anthropic.messages.create(model=model, max_tokens=50, messages=HELLO)
    assert (reply.type, reply.role, reply.stop_reason) == ("message", "assistant", "end_turn")
    assert plain(reply) == [ANSWER]
    [event] = await journal.ended()
    assert (event["input_tokens"], event["output_tokens"]) == (reply.usage.input_tokens, reply.usage.output_tokens)
    assert event["usd_nano"] == event["input_tokens"] * 1000 + event["output_tokens"] * 2000 > 0
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("model", MODELS)
async def test_a_streamed_message_is_put_together_by_the_sdk(anthropic, house, journal, model):
    kinds = []
    async with anthropic.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
        async for event in stream:
            kinds.append(event.type)  # noqa: PERF401 - the stream is asked for its message inside
        final = await stream.get_final_message()
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert (plain(final), final.stop_reason) == ([ANSWER], "end_turn")
    [event] = await journal.ended()
    assert (event["input_tokens"], event["output_tokens"]) == (final.usage.input_tokens, final.usage.output_tokens)
    assert event["usd_nano"] == event["input_tokens"] * 1000 + event["output_tokens"] * 2000 > 0
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("model", MODELS)
async def test_a_task_or_a_bound_is_kept(anthropic, model):
    reply = await anthropic.messages.create(model=model, max_tokens=1, messages=HELLO)
    final = await final_of(anthropic, model=model, max_tokens=1)
    assert reply.stop_reason == final.stop_reason == "max_tokens"
    assert reply.usage.output_tokens == final.usage.output_tokens == 1


async def test_a_conversation_is_asked_in_the_providers_own_words(anthropic, journal):
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE]},
        {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "let me see"}, *USES]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_0", "content": "sun"},
                {"type": "tool_result", "tool_use_id": "call_1", "content": [IMAGE], "is_error": True},
                {"type": "text", "text": "so?"},
            ],
        },
    ]
    fields = {
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "tools": [TOOL],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "metadata": {"user_id": "u1"},
    }
    asking = {"max_tokens": 50, "messages": turns, **fields, "extra_body": {"temperature": 0.5}}
    await anthropic.messages.create(model="paid", **asking)
    await anthropic.messages.create(model="claude", **asking)
    by_chat, native = (request.json for request in journal.calls)
    url = {"url": f"data:image/png;base64,{PIXEL}"}
    assert by_chat == {
        "model": "paid",
        "max_tokens": 50,
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": url}]},
            {"role": "assistant", "content": "let me see", "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "call_0", "content": "sun"},
            {"role": "tool", "tool_call_id": "call_1", "content": "Error: "},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Attached to the result of call_1:"},
                    {"type": "image_url", "image_url": url},
                    {"type": "text", "text": "so?"},
                ],
            },
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Today's weather.",
                    "parameters": TOOL["input_schema"],
                },
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "reasoning_effort": "low",
        "temperature": 0.5,
        "user": "u1",
    }
    assert native == {"model": "claude-x", "max_tokens": 50, "messages": turns, "temperature": 0.5, **fields}


@pytest.mark.parametrize("model", ["paid", "claude"])
async def test_parallel_tools_work_whole_and_streamed(anthropic, upstream, model):
    first, second = ({"index": number, **call} for number, call in enumerate(CALLS))
    pieces = [
        {"index": number, "function": {"arguments": part}}
        for number, call in enumerate(CALLS)
        for part in (call["function"]["arguments"][:5], call["function"]["arguments"][5:])
    ]
    heads = [{**call, "function": {"name": "weather", "arguments": ""}} for call in (first, second)]
    crosswise = [heads[0], heads[1], pieces[0], pieces[2], pieces[1], pieces[3]]
    text = {"type": "text", "text": "let me see"}
    deltas = [{"content": "let me see"}, *({"tool_calls": [piece]} for piece in crosswise)]
    whole, streamed = scripted(model, [text, *USES], "tool_calls", *deltas)
    upstream.next(whole, streamed)
    reply = await anthropic.messages.create(model=model, max_tokens=50, messages=HELLO, tools=[TOOL])
    final = await final_of(anthropic, model=model, tools=[TOOL])
    for found in (reply, final):
        assert (plain(found), found.stop_reason) == ([text, *USES], "tool_use")
    assert final.usage.output_tokens == 7


@pytest.mark.parametrize("model", ["paid", "claude"])
async def test_thinking_is_read_whole_and_streamed(anthropic, upstream, model):
    signature = "sig" if model == "claude" else ""
    thought = {**THOUGHT, "signature": signature}
    deltas = [{"reasoning_content": "hmm, hello"}, {"content": "hello there"}]
    upstream.next(*scripted(model, [thought, ANSWER], "stop", *deltas))
    asking = {"model": model, "thinking": {"type": "enabled", "budget_tokens": 2000}}
    reply = await anthropic.messages.create(max_tokens=50, messages=HELLO, **asking)
    final = await final_of(anthropic, **asking)
    assert plain(reply) == plain(final) == [thought, ANSWER]


class Answer(BaseModel):
    number: int


@pytest.mark.parametrize("model", ["paid", "claude"])
async def test_structured_output_works_whole_and_streamed(anthropic, upstream, journal, model):
    upstream.next(Behaviour(text='{"number": 42}'), Behaviour(text='{"number": 42}'))
    reply = await anthropic.messages.parse(model=model, max_tokens=50, messages=HELLO, output_format=Answer)
    final = await final_of(anthropic, model=model, output_format=Answer)
    assert reply.parsed_output == final.parsed_output == Answer(number=42)
    asked = journal.calls[0].json
    schema = (
        asked["output_config"]["format"]["schema"]
        if model == "claude"
        else asked["response_format"]["json_schema"]["schema"]
    )
    assert schema["properties"].keys() == {"number"}


# -- what the vendor's own clients see is the vendor's, but for the signature


async def test_a_whole_reply_of_the_vendor_is_untouched_but_for_the_signature(http, upstream):
    text = json.dumps(message([ANSWER], "end_turn", usage_of(5, 3), new_member=[1.0, None]), indent=1).encode()
    upstream.next(Behaviour(body=text))
    body = orjson.dumps({"model": "claude", "max_tokens": 50, "messages": HELLO})
    async with http.post("/v1/messages", data=body) as answer:
        raw, request_id = await answer.read(), answer.headers["x-request-id"]
    assert raw.startswith(text[:-1])
    assert verify_reply(raw, HMAC_SECRET, request_id=request_id, request_body=body)


async def test_a_stream_of_the_vendor_is_untouched_but_for_the_signatures_and_pings(http, upstream):
    sequence = events([THOUGHT, ANSWER, *USES], "tool_use", usage_of(5, 9))
    upstream.next(Behaviour(events=encoded(sequence)))
    found, body, headers = await raw_events(http, model="claude")
    sent = [event for event in sequence if event["type"] != "ping"]
    assert len(sent) < len(sequence)
    assert [name for name, _ in found] == [event["type"] for event in sent]
    for (_, data), event in zip(found, sent, strict=True):
        assert data.startswith(encoded([event])[0][:-1])
    data = [data for _, data in found]
    assert verify_stream(data, HMAC_SECRET, request_id=headers["x-request-id"], request_body=body)


@pytest.mark.parametrize("model", ["echo", "paid"])
async def test_a_stream_by_way_of_chat_has_the_vendors_events_and_is_signed(http, model):
    found, body, headers = await raw_events(http, model=model)
    names = [name for name, _ in found]
    assert names[:2] == ["message_start", "content_block_start"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    data = [data for _, data in found]
    assert verify_stream(data, HMAC_SECRET, request_id=headers["x-request-id"], request_body=body)
    assert not verify_stream(data[:-1], HMAC_SECRET)


@pytest.mark.parametrize("model", ["echo", "paid"])
async def test_a_whole_reply_by_way_of_chat_is_signed(http, model):
    body = orjson.dumps({"model": model, "max_tokens": 50, "messages": HELLO})
    async with http.post("/v1/messages", data=body) as answer:
        raw, request_id = await answer.read(), answer.headers["x-request-id"]
    assert verify_reply(raw, HMAC_SECRET, request_id=request_id, request_body=body)


@pytest.mark.parametrize("stream", [False, True])
async def test_cached_tokens_are_paid_at_their_own_prices(anthropic, upstream, journal, stream):
    usage = usage_of(
        5,
        7,
        cache_read_input_tokens=1000,
        cache_creation_input_tokens=300,
        cache_creation={"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    )
    whole, streamed = message([ANSWER], "end_turn", usage), events([ANSWER], "end_turn", usage)
    upstream.next(Behaviour(events=encoded(streamed)) if stream else Behaviour(body=json.dumps(whole).encode()))
    if stream:
        await final_of(anthropic, model="claude")
    else:
        await anthropic.messages.create(model="claude", max_tokens=50, messages=HELLO)
    [event] = await journal.ended()
    assert event["usd_nano"] == 5 * 1000 + 1000 * 100 + 200 * 1250 + 100 * 3000 + 7 * 2000
    assert (event["input_tokens"], event["cached_tokens"]) == (1305, 1000)


# -- counting


@pytest.mark.parametrize("model", MODELS)
async def test_tokens_are_counted_for_nothing(anthropic, house, journal, model):
    counted = await anthropic.messages.count_tokens(model=model, messages=HELLO, system="be brief", tools=[TOOL])
    assert counted.input_tokens >= 5
    assert [request.path for request in journal.calls] == (["/v1/messages/count_tokens"] if model == "claude" else [])
    [event] = await journal.ended()
    assert (event["event_type"], event["usd_nano"]) == ("model.request.complete", 0)
    await check_idle(house.redis, LIMIT)


async def test_more_text_counts_more(anthropic):
    one, two = [
        (await anthropic.messages.count_tokens(model="paid", messages=HELLO * times)).input_tokens for times in (1, 2)
    ]
    assert two > one


# -- errors


@pytest.mark.parametrize(
    ("fields", "raised", "kind", "code"),
    [
        ({"model": "nope"}, sdk.NotFoundError, "not_found_error", "model_not_found"),
        ({"messages": []}, sdk.BadRequestError, "invalid_request_error", "invalid_value"),
        ({"max_tokens": 101}, sdk.BadRequestError, "invalid_request_error", "invalid_value"),
        ({"stop_sequences": "END"}, sdk.BadRequestError, "invalid_request_error", "invalid_type"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            sdk.BadRequestError,
            "invalid_request_error",
            "unsupported_parameter",
        ),
        ({"speed": "fast"}, sdk.BadRequestError, "invalid_request_error", "unsupported_parameter"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_bad_requests_raise_the_sdks_own_errors_and_reach_nobody(
    anthropic, journal, stream, fields, raised, kind, code
):
    asking = {"model": "claude", "max_tokens": 50, "messages": HELLO, "stream": stream, **fields}
    with pytest.raises(raised) as caught:
        await anthropic.messages.create(**asking)
    assert (caught.value.type, caught.value.error_code) == (kind, code)
    assert caught.value.body["error"]["details"]["param"].startswith(next(iter(fields)))
    assert journal.calls == []
    assert await journal.events() == []


async def test_what_a_chat_cannot_say_is_refused_by_the_provider_that_is_asked_so_and_costs_nothing(
    anthropic, house, journal
):
    asking = {"max_tokens": 50, "messages": HELLO, "extra_body": {"top_k": 4}}
    with pytest.raises(sdk.BadRequestError) as caught:
        await anthropic.messages.create(model="paid", **asking)
    assert (caught.value.error_code, caught.value.body["error"]["details"]["param"]) == (
        "unsupported_parameter",
        "top_k",
    )
    [event] = await journal.ended()
    assert (event["event_type"], event["usd_nano"]) == ("model.request.failed", 0)
    assert journal.calls == []
    await anthropic.messages.create(model="claude", **asking)
    assert journal.calls[0].json["top_k"] == 4
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_field_that_the_asked_provider_refuses_has_the_name_that_this_client_gave_it(
    anthropic, upstream, stream
):
    upstream.next(Behaviour(status=400, body=b'{"error": {"message": "no", "param": "tools[0].function.parameters"}}'))
    with pytest.raises(sdk.BadRequestError) as caught:
        await anthropic.messages.create(model="paid", max_tokens=50, messages=HELLO, tools=[TOOL], stream=stream)
    assert caught.value.body["error"]["details"]["param"] == "tools[0].input_schema"


@pytest.mark.parametrize("model", ["paid", "claude"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "raised", "kind"),
    [
        (400, sdk.BadRequestError, "invalid_request_error"),
        (401, sdk.InternalServerError, "api_error"),
        (429, sdk.RateLimitError, "rate_limit_error"),
        (500, sdk.InternalServerError, "api_error"),
        (529, sdk.ServiceUnavailableError, "overloaded_error"),
    ],
)
async def test_the_providers_refusals_raise_the_sdks_own_errors(
    anthropic, house, upstream, model, stream, status, raised, kind
):
    body = error("overloaded_error", "no") if model == "claude" else ERROR
    upstream.next(Behaviour(status=status, body=body))
    with pytest.raises(raised) as caught:
        await anthropic.messages.create(model=model, max_tokens=50, messages=HELLO, stream=stream)
    assert caught.value.type == kind
    assert conftest.PROVIDER_KEY not in str(caught.value.body)
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("model", ["paid", "claude"])
async def test_a_stream_that_is_cut_raises_the_sdks_own_error(anthropic, house, upstream, model):
    upstream.next(Behaviour(cut_at=6))
    seen = []
    with pytest.raises(sdk.APIStatusError) as caught:
        async for event in await anthropic.messages.create(model=model, max_tokens=50, messages=HELLO, stream=True):
            seen.append(event.type)  # noqa: PERF401 - the loop raises
    assert (caught.value.type, caught.value.error_code) == ("api_error", "upstream_truncated")
    assert seen[0] == "message_start"
    assert "message_stop" not in seen
    await check_idle(house.redis, LIMIT)


@pytest.mark.parametrize("model", ["paid", "claude"])
async def test_a_stream_that_is_cut_ends_with_a_signed_error_event(http, upstream, model):
    upstream.next(Behaviour(cut_at=6))
    found, body, headers = await raw_events(http, model=model)
    name, data = found[-1]
    assert (name, orjson.loads(data)["error"]["details"]["error_code"]) == ("error", "upstream_truncated")
    signed = [data for _, data in found]
    assert verify_stream(signed, HMAC_SECRET, request_id=headers["x-request-id"], request_body=body)


async def test_a_client_that_leaves_a_stream_pays_for_what_was_said(anthropic, house, upstream, journal):
    usage = usage_of(5, 9)
    upstream.next(Behaviour(events=encoded(events([ANSWER], "end_turn", usage)), hold_at=6))
    async with anthropic.messages.stream(model="claude", max_tokens=50, messages=HELLO) as stream:
        async for event in stream:
            if event.type == "text":
                break
    [event] = await journal.ended()
    assert (event["event_type"], event["estimated"]) == ("model.request.cancelled", True)
    assert 0 < event["output_tokens"] < 9
    assert event["input_tokens"] > 0
    await check_idle(house.redis, LIMIT)


# -- who may come in


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": ADMIN_TOKEN},
        {"Authorization": f"Bearer {ADMIN_TOKEN}"},
        {"x-api-key": ADMIN_TOKEN, "Authorization": "Bearer wrong"},
    ],
)
async def test_a_key_may_come_as_either_header(house, headers):
    async with aiohttp.ClientSession(house.url, headers=headers) as session:
        body = {"model": "echo", "max_tokens": 50, "messages": HELLO}
        async with session.post("/v1/messages", json=body) as answer:
            assert (answer.status, (await answer.json())["content"]) == (200, [ANSWER])


@pytest.mark.parametrize("how", ["api_key", "auth_token"])
async def test_a_wrong_key_is_an_authentication_error(house, how):
    async with AsyncAnthropic(base_url=house.url, max_retries=0, **{how: "wrong"}) as client:
        for ask in (client.messages.create, client.messages.count_tokens):
            bound = {"max_tokens": 50} if ask == client.messages.create else {}
            with pytest.raises(sdk.AuthenticationError) as caught:
                await ask(model="echo", messages=HELLO, **bound)
            assert (caught.value.type, caught.value.error_code) == ("authentication_error", "invalid_api_key")
