"""OpenAI's own API: what goes in and out unchanged, embeddings and responses, and the SDK as the oracle."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from openai import AsyncOpenAI

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.money import Usage
from model_gateway.providers import ProviderInterface, ProviderSettings
from model_gateway.providers.openai import OpenAIProvider
from model_gateway.settings import ConfigError
from tests.providers.openai_family import HELLO, KEY, TRANSPORTS, collect, row, whole
from tests.upstream import Behaviour, Recorded, Upstream

RESPONSE = {"model": "gpt-x", "input": "hello there, gateway 😀", "max_output_tokens": 100}
Make = Callable[..., ProviderInterface]

EVERYTHING: dict[str, Any] = {
    "n": 2,
    "logprobs": True,
    "top_logprobs": 3,
    "seed": 7,
    "stop": ["\n", "END"],
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "temperature": 0.3,
    "top_p": 0.9,
    "logit_bias": {"50256": -100},
    "max_completion_tokens": 64,
    "reasoning_effort": "high",
    "verbosity": "low",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object", "properties": {}}},
    },
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "parallel_tool_calls": False,
    "prompt_cache_key": "tenant-1",
    "prompt_cache_retention": "24h",
    "safety_identifier": "user-1",
    "metadata": {"ä": "😀"},
    "store": False,
    "user": "someone",
    "service_tier": "flex",
    "a_field_of_tomorrow": {"x": [1, None]},
}

CONVERSATION: list[dict[str, Any]] = [
    {"role": "developer", "content": "be brief", "name": "boss"},
    {"role": "system", "content": [{"type": "text", "text": "in English"}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
            {"id": "call_2", "type": "function", "function": {"name": "look", "arguments": '{"at":2}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
    {"role": "tool", "tool_call_id": "call_2", "content": "a dog"},
]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
async def make(request: pytest.FixtureRequest, upstream: Upstream) -> AsyncIterator[Make]:
    """Makes providers of one transport whose server speaks as OpenAI does."""
    made = []
    async with aiohttp.ClientSession() as session:

        def provider(**settings: Any) -> ProviderInterface:
            given = {"transport": request.param, "options": {"responses": True}}
            made.append(row("openai", upstream, session, **given | settings))
            return made[-1]

        yield provider
        for one in made:
            await one.close()


# chat, in and out


async def test_every_field_goes_out_as_the_client_sent_it(make: Make, upstream: Upstream) -> None:
    provider = make()
    await provider.complete(CONVERSATION, "gpt-x", **EVERYTHING)
    stream = provider.stream(CONVERSATION, "gpt-x", **EVERYTHING)
    assert [chunk async for chunk in stream]
    sent, streamed = (request.json for request in upstream.requests)
    assert sent == {"model": "gpt-x", "messages": CONVERSATION, **EVERYTHING}
    assert streamed == {**sent, "stream": True, "stream_options": {"include_usage": True}}


async def test_usage_details_come_out_as_the_server_sent_them(make: Make, upstream: Upstream) -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 200, "audio_tokens": 50},
        "completion_tokens_details": {"reasoning_tokens": 300, "audio_tokens": 20, "accepted_prediction_tokens": 0},
    }
    reply = orjson.dumps({"choices": [], "service_tier": "flex", "usage": usage})
    upstream.next(Behaviour(body=reply), Behaviour(events=(reply,)))
    provider = make()
    text, chunks = await whole(provider), await collect(provider)
    assert (text, chunks) == (reply, [reply])
    expected = Usage(
        input=1000,
        output=500,
        cached=600,
        cache_write=200,
        audio_input=50,
        reasoning=300,
        audio_output=20,
        tier="flex",
    )
    assert provider.chat_usage(orjson.loads(text)) == expected


async def test_streamed_tool_calls_logprobs_and_refusals_come_out_as_sent(make: Make, upstream: Upstream) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    deltas: list[dict[str, Any]] = [
        {"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}, "finish_reason": None},
        {
            "index": 0,
            "delta": {"tool_calls": [{"index": 1, "function": {"arguments": '{"at"'}}]},
            "finish_reason": None,
        },
        {"index": 1, "delta": {"refusal": "no"}, "logprobs": {"content": [{"token": "n", "logprob": -0.1}]}},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls"},
        {"index": 1, "delta": {}, "finish_reason": "content_filter"},
    ]
    events = tuple(orjson.dumps({"id": "1", "choices": [choice]}) for choice in deltas)
    upstream.next(Behaviour(events=events))
    provider = make()
    chunks = await collect(provider)
    assert tuple(chunks) == events
    reader = ChatReader(provider.chat_usage)
    for chunk in chunks:
        reader.chunk(orjson.loads(chunk))
    assert (reader.complete, reader.finish_reason, reader.text) == (True, "tool_calls", 'look{"at"no')


# embeddings


async def test_embeddings_go_out_and_come_back_unchanged(make: Make, upstream: Upstream) -> None:
    text = await make().embed(["one", "two"], "emb-x", dimensions=4, encoding_format="base64", user="u", tomorrow=1)
    sent = upstream.requests[0]
    assert sent.path == "/v1/embeddings"
    assert sent.json == {
        "model": "emb-x",
        "input": ["one", "two"],
        "dimensions": 4,
        "encoding_format": "base64",
        "user": "u",
        "tomorrow": 1,
    }
    reply = orjson.loads(text)
    assert [item["index"] for item in reply["data"]] == [0, 1]
    assert reply["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


async def test_tokens_are_embedded_as_numbers(make: Make, upstream: Upstream) -> None:
    await make().embed([[1, 2, 3]], "emb-x")
    assert upstream.requests[0].json["input"] == [[1, 2, 3]]


@pytest.mark.parametrize(("status", "code"), [(400, "upstream_rejected"), (429, "rate_limit_exceeded")])
async def test_embeddings_that_are_refused_cost_nothing(make: Make, upstream: Upstream, status: int, code: str) -> None:
    upstream.next(Behaviour(status=status, body=b'{"error":{"message":"no"}}'))
    with pytest.raises(GatewayError) as caught:
        await make().embed(["one"], "emb-x")
    assert (caught.value.code, caught.value.billed) == (code, False)


# responses


async def test_a_response_goes_out_and_comes_back_unchanged(make: Make, upstream: Upstream) -> None:
    body = {**RESPONSE, "store": False, "tomorrow": {"x": None}}
    reply = orjson.loads(await make().native("responses", body))
    assert (upstream.requests[0].path, upstream.requests[0].json) == ("/v1/responses", body)
    assert (reply["object"], reply["status"]) == ("response", "completed")
    assert reply["output"][0]["content"][0]["text"] == RESPONSE["input"]
    assert reply["usage"]["output_tokens"] > 0


async def test_a_responses_events_come_as_sent_and_end_without_done(make: Make, upstream: Upstream) -> None:
    stream = make().native_stream("responses", {**RESPONSE, "stream": True})
    events = [orjson.loads(event) async for event in stream]
    kinds = [event["type"] for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert said == RESPONSE["input"]
    assert upstream.requests[0].json == {**RESPONSE, "stream": True}


async def test_an_error_event_of_a_response_is_an_error(make: Make, upstream: Upstream) -> None:
    created = b'{"type":"response.created","response":{"error":null}}'
    error = orjson.dumps({"type": "error", "code": "server_error", "message": f"too bad, {KEY}"})
    upstream.next(Behaviour(events=(created, error, b"{}")))
    events = []
    with pytest.raises(GatewayError, match=r"too bad, \[api key\]"):
        async for event in make().native_stream("responses", {**RESPONSE, "stream": True}):
            events.append(event)  # noqa: PERF401 - the loop raises
    assert events == [created]


async def test_a_response_that_failed_is_told_by_its_last_event(make: Make, upstream: Upstream) -> None:
    failed = b'{"type":"response.failed","response":{"status":"failed","error":{"code":"x","message":"y"}}}'
    upstream.next(Behaviour(events=(failed,)))
    stream = make().native_stream("responses", {**RESPONSE, "stream": True})
    assert [event async for event in stream] == [failed]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("status", "code"), [(400, "upstream_rejected"), (500, "upstream_error")])
async def test_a_response_that_is_refused_costs_nothing(
    make: Make, upstream: Upstream, status: int, code: str, streamed: bool
) -> None:
    upstream.next(Behaviour(status=status, body=b'{"error":{"message":"no"}}'))
    with pytest.raises(GatewayError) as caught:
        await _respond(make(), streamed)
    assert (caught.value.code, caught.value.billed) == (code, False)


async def test_a_response_that_is_cut_may_have_been_paid(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(cut_at=4))
    with pytest.raises(GatewayError) as caught:
        await _respond(make(), True)
    assert (caught.value.code, caught.value.billed) == ("upstream_truncated", True)


async def test_leaving_a_response_cuts_the_call_at_once(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(hold_at=2))
    events = make().native_stream("responses", {**RESPONSE, "stream": True})
    assert await anext(events)
    await events.aclose()
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


@pytest.mark.parametrize(
    ("settings", "spoken"),
    [
        ({}, True),
        ({"provider": "openai"}, True),
        ({"provider": "openai", "api_base": "https://api.openai.com/v1/"}, True),
        ({"provider": "openai", "api_base": "http://localhost/v1"}, False),
        ({"provider": "openai", "api_base": "http://localhost/v1", "options": {"responses": True}}, True),
        ({"provider": "openai", "options": {"responses": False}}, False),
    ],
)
def test_responses_are_spoken_where_openai_itself_answers_or_the_row_says_so(
    settings: dict[str, Any], spoken: bool
) -> None:
    assert OpenAIProvider(ProviderSettings(**settings)).speaks == (frozenset({"responses"}) if spoken else frozenset())


async def test_a_server_without_responses_is_not_asked_for_one(make: Make, upstream: Upstream) -> None:
    provider = make(options={})
    with pytest.raises(GatewayError) as caught:
        await provider.native("responses", RESPONSE)
    assert (caught.value.code, caught.value.billed, upstream.calls) == ("unsupported_operation", False, 0)


def test_an_option_that_is_no_truth_value_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"models\.gpt\.options\.responses: expected true or false"):
        OpenAIProvider(ProviderSettings(name="gpt", options={"responses": "yes"}))


# the SDK as the oracle


async def _respond(provider: ProviderInterface, streamed: bool) -> list[Any]:
    if not streamed:
        return [await provider.native("responses", RESPONSE)]
    return [event async for event in provider.native_stream("responses", {**RESPONSE, "stream": True})]


async def _talk(provider: ProviderInterface) -> list[Any]:
    """One call of each kind, and all that came back."""
    told = [await whole(provider, seed=7), *await collect(provider, seed=7)]
    told += [await provider.embed(["one"], "emb-x", dimensions=4), *await _respond(provider, False)]
    return told + await _respond(provider, True)


def _seen(request: Recorded) -> tuple[Any, ...]:
    names = ("authorization", "api-key", "content-type", "accept-encoding")
    return (request.path, request.json, *(request.headers.get(name) for name in names))


async def test_both_transports_send_and_read_the_same(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://elsewhere.invalid")
    told = []
    async with aiohttp.ClientSession() as session:
        for transport in TRANSPORTS:
            provider = row("openai", upstream, session, transport=transport, options={"responses": True})
            told.append(await _talk(provider))
            await provider.close()
    half = len(upstream.requests) // 2
    requests = list(upstream.requests)
    assert half == 5
    assert [_seen(request) for request in requests[:half]] == [_seen(request) for request in requests[half:]]
    assert told[0] == told[1]
    assert all("elsewhere" not in str(request.headers) for request in requests)


async def test_the_sdks_typed_methods_send_what_we_send(upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        await _talk(row("openai", upstream, session, options={"responses": True}))
    client = AsyncOpenAI(base_url=upstream.base_url, api_key=KEY, max_retries=0)
    await client.chat.completions.create(model="gpt-x", messages=HELLO, seed=7)
    options = {"include_usage": True}
    await client.chat.completions.create(model="gpt-x", messages=HELLO, seed=7, stream=True, stream_options=options)
    await client.embeddings.create(model="emb-x", input=["one"], dimensions=4, encoding_format="float")
    await client.responses.create(**RESPONSE)
    await client.responses.create(**RESPONSE, stream=True)
    await client.close()

    ours, theirs = list(upstream.requests)[:5], list(upstream.requests)[5:]
    for our, their in zip(ours, theirs, strict=True):
        their.json.pop("encoding_format", None)  # the method sets it by itself
        assert (our.path, our.json) == (their.path, their.json)
        assert our.headers["authorization"] == their.headers["authorization"]


async def test_the_sdks_typed_objects_read_our_replies(make: Make, upstream: Upstream) -> None:
    from openai.types import CreateEmbeddingResponse  # noqa: PLC0415
    from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: PLC0415
    from openai.types.responses import Response  # noqa: PLC0415

    provider = make()
    assert ChatCompletion.model_validate_json(await whole(provider)).choices[0].message.content
    assert ChatCompletionChunk.model_validate_json((await collect(provider))[-1]).usage
    assert CreateEmbeddingResponse.model_validate_json(await provider.embed(["one"], "emb-x")).data
    assert Response.model_validate_json((await _respond(provider, False))[0]).output_text == RESPONSE["input"]
