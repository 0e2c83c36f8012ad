"""The Gemini API and Vertex AI over TCP: both transports, every fault, whole and streamed."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google import genai
from google.auth import jwt
from google.auth.credentials import AnonymousCredentials
from google.genai import types

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderSettings
from model_gateway.providers.google import GoogleProvider, VertexProvider
from model_gateway.providers.google.provider import GeminiFamily
from model_gateway.providers.google.vertex import endpoint
from model_gateway.settings import ConfigError
from tests.providers.authority import Authority, running_authority
from tests.providers.openai_family import everything_said
from tests.upstream import Behaviour, Upstream
from tests.upstream_google import JSON, encoded, error, google_speech, reply, usage_of

KEY = "AIza-planted-0123456789abcdefghijklmnopqrstuvwxyz"
MODEL = "gemini-3.5-flash"
HELLO = [{"role": "user", "content": "hello there, gateway 😀"}]
PLACE = "projects/p-1/locations/global"
KINDS = {"google": GoogleProvider, "vertex": VertexProvider}
PATHS = {"google": f"/v1/models/{MODEL}", "vertex": f"/v1/{PLACE}/publishers/google/models/{MODEL}"}
HEADERS = {"google": ("x-goog-api-key", KEY), "vertex": ("authorization", f"Bearer {KEY}")}
Make = Callable[..., GeminiFamily]
Call = Callable[[GeminiFamily], Awaitable[Any]]


def settings_of(kind: str, upstream: Upstream, **more: Any) -> ProviderSettings:
    options = {"project": "p-1"} if kind == "vertex" else {}
    given = {"name": "gem", "provider": kind, "api_base": upstream.base_url, "api_key": KEY, "timeout": 20.0}
    return ProviderSettings(**given | more | {"options": options | more.get("options", {})})


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(speech=google_speech) as running:
        yield running


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    async with running_authority() as running:
        yield running


@pytest.fixture(params=["google over http", "google over sdk", "vertex over http"])
def way(request: pytest.FixtureRequest) -> Any:
    return request.param.split(" over ")


@pytest.fixture
def kind(way: list[str]) -> str:
    return way[0]


@pytest.fixture
def transport(way: list[str]) -> str:
    return way[1]


@pytest.fixture
async def make(kind: str, transport: str, upstream: Upstream) -> AsyncIterator[Make]:
    """Makes providers of one kind and one transport that call the upstream, or ``api_base``."""
    made = []
    async with aiohttp.ClientSession() as session:

        def provider(**settings: Any) -> GeminiFamily:
            given = {"transport": transport, "http": session} | settings
            made.append(KINDS[kind](settings_of(kind, upstream, **given)))
            return made[-1]

        yield provider
        for one in made:
            await one.close()


async def whole(provider: GeminiFamily) -> JSON:
    return await provider.complete(HELLO, MODEL, max_tokens=50)


async def stream(provider: GeminiFamily) -> list[JSON]:
    return [chunk async for chunk in provider.stream(HELLO, MODEL, max_tokens=50)]


async def embed(provider: GeminiFamily) -> JSON:
    return await provider.embed(["a", "b"], "gemini-embedding-001", dimensions=3)


@pytest.fixture(params=[whole, stream])
def call(request: pytest.FixtureRequest) -> Any:
    """One call, whole or streamed."""
    return request.param


async def failure(call: Call, provider: GeminiFamily) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await call(provider)
    assert KEY not in everything_said(caught.value)
    return caught.value


def read(answer: JSON | list[JSON]) -> ChatReader:
    """A reader that has read a whole answer, or its chunks."""
    reader = ChatReader()
    if isinstance(answer, dict):
        reader.reply(answer)
    else:
        for chunk in answer:
            reader.chunk(chunk)
    return reader


# what goes out


@pytest.mark.parametrize("kind", ["google", "vertex"])
async def test_both_transports_send_the_same_request_and_read_the_same_reply(kind: str, upstream: Upstream) -> None:
    fields = {
        "temperature": 0.5,
        "max_tokens": 9,
        "n": 2,
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x_y": {"aB": None}}}}
        ],
    }
    replies = []
    async with aiohttp.ClientSession() as session:
        for transport in ("http", "sdk"):
            provider = KINDS[kind](settings_of(kind, upstream, transport=transport, http=session))
            said = [await provider.complete(HELLO, MODEL, **fields)]
            said += [chunk async for chunk in provider.stream(HELLO, MODEL, **fields)]
            said.append(await embed(provider))
            said.append(await provider.embed(["a"], "gemini-embedding-001"))
            said.append(await provider.embed(["a", "b"], "text-embedding-005", dimensions=3))
            replies.append([{**one, "created": 0} for one in said])
            await provider.close()

    over_http, over_sdk = list(upstream.requests)[:5], list(upstream.requests)[5:]
    name, value = HEADERS[kind]
    for one, other in zip(over_http, over_sdk, strict=True):
        assert one.path == other.path
        assert one.json == other.json
        for header in (name, "content-type", "accept-encoding"):
            assert one.headers[header] == other.headers[header]
        assert one.headers[name] == value
        assert len({"x-goog-api-key", "authorization"} & (one.headers.keys() | other.headers.keys())) == 1
        assert KEY not in one.path
    assert [one.path for one in over_http[:2]] == [
        f"{PATHS[kind]}:generateContent",
        f"{PATHS[kind]}:streamGenerateContent?alt=sse",
    ]
    assert replies[0] == replies[1]


async def test_the_vendor_s_typed_call_sends_what_the_mapper_makes(upstream: Upstream) -> None:
    fields = {
        "max_completion_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": "END",
        "seed": 7,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "reasoning_effort": "high",
        "service_tier": "flex",
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    }
    extra = {"google": {"thought_signature": "c2ln"}}
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}, "extra_content": extra}
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    link = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}, image, link]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
    ]
    harassment = {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}
    provider = GoogleProvider(settings_of("google", upstream, options={"safety_settings": [harassment]}))
    ours = read(await provider.complete(messages, MODEL, **fields))
    await provider.close()

    declared = types.FunctionDeclaration(name="f", description="d", parameters_json_schema={"type": "object"})
    config = types.GenerateContentConfig(
        system_instruction=types.Content(parts=[types.Part(text="be brief")]),
        max_output_tokens=99,
        temperature=0.5,
        top_p=0.9,
        stop_sequences=["END"],
        seed=7,
        candidate_count=2,
        response_logprobs=True,
        logprobs=3,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        thinking_config=types.ThinkingConfig(thinking_level="HIGH", include_thoughts=True),
        service_tier="flex",
        tools=[types.Tool(function_declarations=[declared])],
        tool_config=types.ToolConfig(
            function_calling_config=types.FunctionCallingConfig(mode="ANY", allowed_function_names=["f"])
        ),
        response_mime_type="application/json",
        response_json_schema={"type": "object"},
        safety_settings=[types.SafetySetting(**harassment)],
    )
    contents = [
        types.Content(
            role="user",
            parts=[
                types.Part(text="hello"),
                types.Part(inline_data=types.Blob(data=b"\x89PNG", mime_type="image/png")),
                types.Part(file_data=types.FileData(file_uri="https://example.com/a.png", mime_type="image/png")),
            ],
        ),
        types.Content(
            role="model",
            parts=[
                types.Part(function_call=types.FunctionCall(id="1", name="f", args={"a": 1}), thought_signature=b"sig")
            ],
        ),
        types.Content(
            role="user",
            parts=[
                types.Part(function_response=types.FunctionResponse(id="1", name="f", response={"output": "one"})),
            ],
        ),
    ]
    async with typed_client(upstream) as client:
        theirs = await client.models.generate_content(model=MODEL, contents=contents, config=config)

    assert upstream.requests[0].json == in_camel_case(upstream.requests[1].json)
    assert upstream.requests[0].path == upstream.requests[1].path
    assert ours.text == theirs.text


def in_camel_case(value: Any) -> Any:
    """What the SDK sends in snake case, which the API takes for the same."""
    if isinstance(value, list):
        return [in_camel_case(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {re.sub("_([a-z])", lambda found: found[1].upper(), key): in_camel_case(one) for key, one in value.items()}


@asynccontextmanager
async def typed_client(upstream: Upstream) -> AsyncIterator[Any]:
    root = upstream.base_url.removesuffix("/v1")
    async with httpx2.AsyncClient() as http:
        options = types.HttpOptions(base_url=root, api_version="v1", httpx_async_client=http)
        client = genai.Client(api_key=KEY, vertexai=False, http_options=options)
        yield client.aio
        client.close()


async def test_the_vendor_s_typed_client_reads_the_scripted_events_as_we_do(upstream: Upstream) -> None:
    sequence = (
        reply([{"text": "so", "thought": True}], None, usage_of(3, 0, 1)),
        reply([{"text": "hel"}], None, usage_of(3, 1, 1)),
        reply(
            [{"text": "lo"}, {"functionCall": {"id": "1", "name": "f", "args": {"a": 1}}}], "STOP", usage_of(3, 2, 1)
        ),
    )
    upstream.next(Behaviour(events=encoded(*sequence)), Behaviour(events=encoded(*sequence)))
    provider = GoogleProvider(settings_of("google", upstream))
    chunks = await stream(provider)
    await provider.close()
    async with typed_client(upstream) as client:
        said = [one async for one in await client.models.generate_content_stream(model=MODEL, contents="hello")]

    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "hello"
    assert [one.candidates[0].content.parts[0].text for one in said] == ["so", "hel", "lo"]
    [ours] = [call for delta in deltas for call in delta.get("tool_calls", ())]
    [theirs] = said[-1].function_calls
    assert (ours["id"], ours["function"]["name"]) == (theirs.id, theirs.name)
    assert json.loads(ours["function"]["arguments"]) == theirs.args
    usage, told = read(chunks).usage, said[-1].usage_metadata
    assert usage is not None
    assert (usage.input, usage.reasoning) == (told.prompt_token_count, told.thoughts_token_count) == (3, 1)
    assert usage.output == told.candidates_token_count + told.thoughts_token_count == 3


async def test_a_base_may_end_in_its_version_or_not(make: Make, kind: str, upstream: Upstream) -> None:
    root = upstream.base_url.removesuffix("/v1")
    for base in (root, f"{root}/", f"{root}/v1", f"{root}/v1/"):
        await whole(make(api_base=base))
    await whole(make(api_base=root, options={"api_version": "v1alpha"}))
    usual = "v1beta1" if kind == "vertex" else "v1beta"
    assert [request.path.split("/")[1] for request in upstream.requests] == [usual, usual, "v1", "v1", "v1alpha"]


async def test_nothing_goes_out_of_the_environment_to_a_server_without_a_key(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://no-such-host.invalid")
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", "http://no-such-host.invalid")
    await whole(make(api_key=""))
    sent = upstream.requests[0]
    assert KEY not in f"{sent.headers}{sent.path}"
    assert not {"x-goog-api-key", "authorization"} & sent.headers.keys()


async def test_the_connection_is_used_again(make: Make, upstream: Upstream) -> None:
    provider = make()
    for one in (whole, stream, embed):
        await one(provider)
    upstream.next(Behaviour(status=429, body=error(429, "RESOURCE_EXHAUSTED", "slow down")))
    await failure(whole, provider)
    await stream(provider)
    assert upstream.connections == 1


async def test_what_can_t_be_said_is_refused_before_anything_is_sent(make: Make, upstream: Upstream) -> None:
    provider = make()
    with pytest.raises(GatewayError) as caught:
        await provider.complete(HELLO, MODEL, logit_bias={"1": 1})
    with pytest.raises(GatewayError):
        await anext(provider.stream(HELLO, MODEL, logit_bias={"1": 1}))
    assert (caught.value.code, caught.value.param, caught.value.billed) == (
        "unsupported_parameter",
        "logit_bias",
        False,
    )
    await make(drop_params=True).complete(HELLO, MODEL, logit_bias={"1": 1})
    assert upstream.calls == 1


async def test_vertex_is_asked_for_no_service_tier_which_it_would_not_read_there(upstream: Upstream) -> None:
    provider = VertexProvider(settings_of("vertex", upstream))
    with pytest.raises(GatewayError) as caught:
        await provider.complete(HELLO, MODEL, service_tier="flex")
    await provider.close()
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "service_tier")
    assert (caught.value.billed, upstream.calls) == (False, 0)


async def test_a_model_of_another_collection_is_asked_there(upstream: Upstream) -> None:
    google, vertex = GoogleProvider(settings_of("google", upstream)), VertexProvider(settings_of("vertex", upstream))
    for provider, name in (
        (google, "tunedModels/mine"),
        (vertex, "meta/llama-4"),
        (vertex, "endpoints/77"),
        (vertex, "projects/q/locations/us/endpoints/8"),
    ):
        await provider.complete(HELLO, name)
    await google.close()
    await vertex.close()
    assert [request.path.removeprefix("/v1/").partition(":")[0] for request in upstream.requests] == [
        "tunedModels/mine",
        f"{PLACE}/publishers/meta/models/llama-4",
        f"{PLACE}/endpoints/77",
        "projects/q/locations/us/endpoints/8",
    ]


# what comes back


async def test_an_answer_tells_its_text_its_end_and_its_tokens(make: Make, call: Call) -> None:
    reader = read(await call(make()))
    assert reader.text == HELLO[0]["content"]
    assert reader.finish_reason == "stop"
    assert reader.usage is not None
    assert (reader.usage.input, reader.usage.output) == (7, 6)


async def test_embeddings_come_back_in_order(make: Make) -> None:
    found = await embed(make())
    assert [item["embedding"] for item in found["data"]] == [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    assert found["usage"] == {"prompt_tokens": 8, "total_tokens": 8}


async def test_missing_usage_is_left_to_the_gateway_s_own_count(make: Make, call: Call, upstream: Upstream) -> None:
    upstream.next(Behaviour(usage=False))
    reader = read(await call(make()))
    assert (reader.usage, reader.finish_reason, reader.text) == (None, "stop", HELLO[0]["content"])


async def test_a_blocked_prompt_is_an_empty_answer(make: Make, call: Call, upstream: Upstream) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage_of(7)}
    upstream.next(Behaviour(body=orjson.dumps(blocked), events=encoded(blocked)))
    reader = read(await call(make()))
    assert (reader.text, reader.finish_reason) == ("", "content_filter")
    assert reader.usage is not None
    assert reader.usage.input == 7


# failures


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (400, "upstream_rejected", 400),
        (401, "upstream_unauthorized", 502),
        (403, "upstream_unauthorized", 502),
        (404, "upstream_rejected", 400),
        (408, "upstream_error", 502),
        (429, "rate_limit_exceeded", 429),
        (500, "upstream_error", 502),
        (503, "upstream_unavailable", 503),
        (504, "upstream_timeout", 504),
        (529, "upstream_unavailable", 503),
    ],
)
async def test_an_error_status_costs_nothing_and_has_its_own_code(
    make: Make, call: Call, upstream: Upstream, status: int, code: str, shown: int
) -> None:
    body = error(status, "SOME_STATUS", f"no: {KEY}")
    upstream.next(Behaviour(status=status, headers={"Retry-After": "7"}, body=body))
    failed = await failure(call, make())

    assert (failed.code, failed.status, failed.billed) == (code, shown, False)
    assert ("no: [api key]" in failed.message) == (code == "upstream_rejected")
    assert failed.retry_after == (7 if shown in (429, 503) else None)
    assert upstream.calls == 1


@pytest.mark.parametrize("reason", ["API_KEY_INVALID", "API_KEY_EXPIRED"])
async def test_a_bad_key_is_the_operator_s_though_its_status_is_400(
    make: Make, call: Call, upstream: Upstream, reason: str
) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
    upstream.next(Behaviour(status=400, body=error(400, "INVALID_ARGUMENT", f"bad: {KEY}", info)))
    failed = await failure(call, make())
    assert (failed.code, failed.status, failed.billed) == ("upstream_unauthorized", 502, False)
    assert "api_key_env" in failed.message


@pytest.mark.parametrize(
    ("headers", "delay", "wait"),
    [
        ({}, "34.074824224s", 35),
        ({"Retry-After": "7"}, "34s", 7),
        ({}, "999999999s", 86_400),
        ({}, "soon", None),
        ({}, 5, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_delay_in_the_body_counts_where_no_header_tells_one(
    make: Make, upstream: Upstream, status: int, headers: dict[str, str], delay: Any, wait: int | None
) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    body = b"[" + error(status, "RESOURCE_EXHAUSTED", "slow down", {"reason": "x"}, info) + b"]"
    upstream.next(Behaviour(status=status, headers=headers, body=body))
    failed = await failure(stream, make())
    assert (failed.retry_after, failed.billed) == (wait, False)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b'{"error":5}', b'{"error":{"details":[5]}}'])
async def test_an_error_status_without_a_readable_reason_still_counts(
    make: Make, call: Call, upstream: Upstream, body: bytes
) -> None:
    upstream.next(Behaviour(status=429, body=body))
    failed = await failure(call, make())
    assert (failed.code, failed.retry_after, failed.billed) == ("rate_limit_exceeded", None, False)


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (503, "upstream_unavailable", True),
        (429, "rate_limit_exceeded", False),
        (500, "upstream_error", True),
        (504, "upstream_timeout", True),
        (400, "upstream_rejected", True),
        (403, "upstream_unauthorized", False),
        ("odd", "upstream_error", True),
    ],
)
async def test_an_error_inside_a_200_may_have_been_paid_and_has_its_status_s_code(
    make: Make, call: Call, upstream: Upstream, number: Any, code: str, told: bool
) -> None:
    body = error(number, "SOME_STATUS", f"too bad, {KEY}")
    upstream.next(Behaviour(body=body, events=(*encoded(reply([{"text": "hel"}], None)), body)))
    failed = await failure(call, make())
    assert (failed.code, failed.billed) == (code, True)
    assert ("too bad, [api key]" in failed.message) == told


async def test_an_error_in_mid_stream_delivers_what_came_before(make: Make, upstream: Upstream) -> None:
    upstream.next(
        Behaviour(events=(*encoded(reply([{"text": "hel"}], "STOP")), error(503, "UNAVAILABLE", "Overloaded")))
    )
    chunks = []
    with pytest.raises(GatewayError, match="Overloaded"):
        async for chunk in make().stream(HELLO, MODEL):
            chunks.append(chunk)  # noqa: PERF401 - the loop raises
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["hel"]
    assert not read(chunks).complete


async def test_a_refused_connection_costs_nothing(make: Make, call: Call) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        failed = await failure(call, make(api_base=f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert (failed.code, failed.status, failed.billed) == ("upstream_unavailable", 503, False)


async def test_a_handshake_that_hangs_costs_nothing(make: Make, upstream: Upstream) -> None:
    failed = await failure(whole, make(api_base=upstream.base_url.replace("http:", "https:"), timeout=4))
    assert (failed.code, failed.billed, upstream.calls) == ("upstream_unavailable", False, 0)


@pytest.mark.parametrize("held", [0, 1, 2], ids=["before the status", "after the status", "after the first bytes"])
async def test_a_reply_that_takes_too_long_may_have_been_paid(
    make: Make, call: Call, upstream: Upstream, held: int
) -> None:
    upstream.next(Behaviour(hold_at=held))
    failed = await failure(call, make(timeout=0.3))
    assert (failed.code, failed.status, failed.billed) == ("upstream_timeout", 504, True)
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


@pytest.mark.parametrize("cut", [0, 1, 2], ids=["before the status", "after the status", "after the first bytes"])
async def test_a_cut_may_have_been_paid_and_is_not_tried_again(
    make: Make, call: Call, upstream: Upstream, cut: int
) -> None:
    upstream.next(Behaviour(cut_at=cut))
    failed = await failure(call, make())
    assert (failed.code, failed.billed, upstream.calls) == ("upstream_truncated", True, 1)


def cut_in_a_character(reason: str | None = None) -> bytes:
    """A stream's start over the wire, that ends within the four bytes of a face."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    for event in encoded(reply([{"text": "so "}], reason), reply([{"text": "😀"}], "STOP")):
        data = b"data: " + event + b"\r\n\r\n"
        head += b"%x\r\n%b\r\n" % (len(data), data)
    return head[: head.rindex("😀".encode()) + 2]


@pytest.mark.parametrize("reason", [None, "STOP"])
async def test_a_stream_cut_within_a_character_is_cut_and_never_looks_finished(
    make: Make, upstream: Upstream, reason: str | None
) -> None:
    upstream.next(Behaviour(raw=cut_in_a_character(reason), cut_at=1))
    chunks = []
    with pytest.raises(GatewayError) as caught:
        async for chunk in make().stream(HELLO, MODEL):
            chunks.append(chunk)  # noqa: PERF401 - the loop raises
    assert (caught.value.code, caught.value.billed) == ("upstream_truncated", True)
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None]


async def test_a_character_that_comes_in_two_parts_is_whole(make: Make, upstream: Upstream) -> None:
    head = cut_in_a_character().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    events = b"data: " + encoded(reply([{"text": "😀"}]))[0] + b"\r\n\r\n"
    at = events.index("😀".encode()) + 2
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (events[:at], events[at:]))
    upstream.next(Behaviour(raw=head + parts + b"0\r\n\r\n"))
    assert read(await stream(make())).text == "😀"


@pytest.mark.parametrize(
    "events",
    [
        encoded(reply([{"text": "hello"}], None, usage_of(3, 2))),
        encoded({"candidates": []}, {"usageMetadata": usage_of(3)}),
        encoded(reply([{"text": "a"}], "STOP"), {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]}),
    ],
    ids=["no finish reason", "empty candidates", "one of two without an end"],
)
async def test_a_stream_that_ends_before_its_candidates_was_cut(
    make: Make, upstream: Upstream, events: tuple[bytes, ...]
) -> None:
    upstream.next(Behaviour(events=events))
    failed = await failure(stream, make())
    assert (failed.code, failed.billed) == ("upstream_truncated", True)


async def test_a_stream_without_an_event_is_no_answer(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(events=()))
    failed = await failure(stream, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b'{"candidates":'])
async def test_what_is_no_json_object_is_no_reply(make: Make, call: Call, upstream: Upstream, body: bytes) -> None:
    upstream.next(Behaviour(body=body))
    failed = await failure(call, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize("body", [b"{}", b'{"candidates":[]}', b'{"candidates":[{"content":{"parts":[{"new":1}]}}]}'])
async def test_what_has_no_candidate_is_no_answer(make: Make, upstream: Upstream, body: bytes) -> None:
    upstream.next(Behaviour(body=body))
    failed = await failure(whole, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize("event", [b"<html>", b"[]", b'{"candidates":', b'{"candidates":[{"content":{"parts":[5]}}]}'])
async def test_an_event_that_makes_no_sense_ends_the_stream(make: Make, upstream: Upstream, event: bytes) -> None:
    upstream.next(Behaviour(events=(*encoded(reply([{"text": "a"}])), event)))
    failed = await failure(stream, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


async def test_a_reply_beyond_the_bound_is_refused(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_gateway.providers.http.MAX_REPLY_BYTES", 1000)
    upstream.next(Behaviour(text="x" * 2000))
    assert (await failure(lambda one: one.complete(HELLO, MODEL), make())).code == "upstream_invalid_response"


async def test_an_endless_event_is_refused(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(events=(b"x" * (9 * 2**20),)))
    failed = await failure(stream, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


async def test_a_huge_event_within_the_bound_is_delivered(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(events=encoded(reply([{"text": "x" * (4 * 2**20)}]))))
    assert len(read(await stream(make())).text) == 4 * 2**20


async def test_embeddings_fail_as_calls_do(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(status=429, body=error(429, "RESOURCE_EXHAUSTED", "slow down")), Behaviour(body=b"{}"))
    provider = make()
    assert (await failure(embed, provider)).code == "rate_limit_exceeded"
    assert (await failure(embed, provider)).code == "upstream_invalid_response"


# leaving early


async def test_closing_the_generator_cuts_the_call_at_once(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(hold_at=2))
    chunks = make().stream(HELLO, MODEL)
    assert await anext(chunks)
    await chunks.aclose()
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


async def test_cancelling_the_task_cuts_the_call_at_once(make: Make, call: Call, upstream: Upstream) -> None:
    upstream.next(Behaviour(hold_at=0))
    task = asyncio.ensure_future(call(make()))
    await upstream.arrived()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


# Vertex AI's accounts


@pytest.fixture(scope="session")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def text_of(key: rsa.RSAPrivateKey) -> str:
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain).decode()


@pytest.fixture
def account_file(tmp_path: Path, private_key: rsa.RSAPrivateKey, authority: Authority) -> Path:
    """A service account's file, whose tokens the scripted authority gives."""
    members = {
        "type": "service_account",
        "project_id": "file-project",
        "private_key_id": "key-1",
        "private_key": text_of(private_key),
        "client_email": "gateway@file-project.iam.gserviceaccount.com",
        "token_uri": f"{authority.url}/token",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps(members))
    return path


def vertex_of(upstream: Upstream, path: Path, **more: Any) -> VertexProvider:
    return VertexProvider(settings_of("vertex", upstream, **{"api_key": str(path), "environment": {}} | more))


@pytest.mark.parametrize("transport", ["http", "sdk"])
async def test_a_service_account_s_key_signs_for_a_token_that_goes_out_as_a_bearer(
    transport: str, upstream: Upstream, authority: Authority, account_file: Path, private_key: rsa.RSAPrivateKey
) -> None:
    provider = vertex_of(upstream, account_file, transport=transport)
    await whole(provider)
    await stream(provider)
    await provider.close()

    [(path, form)] = authority.forms
    assert path == "/token"
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    public = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims = jwt.decode(form["assertion"], certs=public, audience=f"{authority.url}/token")
    assert claims["iss"] == "gateway@file-project.iam.gserviceaccount.com"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert claims["exp"] - claims["iat"] == 3600
    assert [request.headers["authorization"] for request in upstream.requests] == ["Bearer token-1"] * 2


async def test_a_user_s_file_is_exchanged_too(upstream: Upstream, authority: Authority, tmp_path: Path) -> None:
    secrets = {"client_id": "c", "client_secret": "s", "refresh_token": "r"}
    path = tmp_path / "user.json"
    path.write_text(json.dumps({"type": "authorized_user", **secrets, "token_uri": f"{authority.url}/token"}))
    provider = vertex_of(upstream, path)
    await whole(provider)
    await provider.close()
    assert authority.forms == [("/token", {"grant_type": "refresh_token", **secrets})]


async def test_a_token_that_was_refused_is_fetched_anew_and_never_told(
    upstream: Upstream, authority: Authority, account_file: Path
) -> None:
    upstream.next(
        Behaviour(status=401, body=error(401, "UNAUTHENTICATED", "bad token-1")),
        Behaviour(status=400, body=error(400, "INVALID_ARGUMENT", "bad token-2")),
    )
    provider = vertex_of(upstream, account_file)
    first, second = await failure(whole, provider), await failure(whole, provider)
    await provider.close()
    assert (first.code, first.billed) == ("upstream_unauthorized", False)
    assert "bad [access token]" in second.message
    assert len(authority.forms) == 2


@pytest.mark.parametrize("call", [whole, stream, embed])
async def test_without_a_token_nothing_is_sent_and_nothing_is_owed(
    upstream: Upstream, authority: Authority, account_file: Path, private_key: rsa.RSAPrivateKey, call: Call
) -> None:
    authority.answers = [(400, {"error": "invalid_grant", "error_description": text_of(private_key)})]
    provider = vertex_of(upstream, account_file)
    failed = await failure(call, provider)
    await provider.close()
    assert (failed.code, failed.billed, upstream.calls) == ("upstream_unauthorized", False, 0)
    assert "invalid_grant" in failed.message
    assert "PRIVATE KEY" not in everything_said(failed)


async def test_project_and_location_are_the_option_s_or_the_environment_s_or_the_file_s(
    upstream: Upstream, account_file: Path
) -> None:
    environment = {"GOOGLE_CLOUD_PROJECT": "env-project", "GOOGLE_CLOUD_LOCATION": "europe-west4"}
    rows = [
        {"options": {"project": "p-2", "location": "us-central1"}, "environment": environment},
        {"options": {"project": None}, "environment": environment},
        {"options": {"project": None}},
    ]
    for row in rows:
        provider = vertex_of(upstream, account_file, **row)
        await whole(provider)
        await provider.close()
    assert [request.path.partition("/publishers")[0] for request in upstream.requests] == [
        "/v1/projects/p-2/locations/us-central1",
        "/v1/projects/env-project/locations/europe-west4",
        "/v1/projects/file-project/locations/global",
    ]


@pytest.mark.parametrize(
    ("location", "server"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("us-central1", "https://us-central1-aiplatform.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_each_location_has_its_server_as_in_the_sdk(location: str, server: str) -> None:
    assert endpoint(location) == server
    client = genai.Client(vertexai=True, project="p", location=location, credentials=AnonymousCredentials())
    assert client._api_client._http_options.base_url == f"{server}/"
    client.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "can't be read"),
        ("{", "not JSON"),
        ("[]", "none of service_account, authorized_user"),
        ('{"type":"external_account"}', "none of service_account, authorized_user"),
        ('{"type":"service_account"}', "no private key"),
        ('{"type":"service_account","private_key":"secret-text","client_email":"a"}', "no private key"),
        ('{"type":"authorized_user","client_secret":"secret-text"}', "lacks one of"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused_at_the_start(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "account.json"
    if text is not None:
        path.write_text(text)
    settings = ProviderSettings("gem", api_key=str(path), options={"project": "p"})
    with pytest.raises(ConfigError, match=told) as caught:
        VertexProvider(settings)
    assert "secret-text" not in everything_said(caught.value)


@pytest.mark.parametrize(
    "options",
    [{}, {"project": "a/b"}, {"project": "p", "location": "eu/../x"}, {"project": "p", "region": "eu"}],
    ids=str,
)
def test_a_place_that_can_not_be_is_refused_at_the_start(options: JSON) -> None:
    with pytest.raises(ConfigError, match=r"models\.gem\.options\."):
        VertexProvider(ProviderSettings("gem", api_key="token", options=options))


# the settings


@pytest.mark.parametrize(
    "options",
    [{"unknown": 1}, {"api_version": "beta"}, {"thinking": "much"}, {"safety_settings": "none"}, {"project": "p"}],
    ids=str,
)
def test_options_that_can_not_work_are_refused_at_the_start(options: JSON) -> None:
    with pytest.raises(ConfigError, match=r"models\.gem\.options\."):
        GoogleProvider(ProviderSettings("gem", options=options))


@pytest.mark.parametrize("kind", ["google", "vertex"])
async def test_it_brings_its_own_session_where_none_is_given(upstream: Upstream, kind: str) -> None:
    provider = KINDS[kind](settings_of(kind, upstream))
    assert await whole(provider)
    await provider.close()


def test_they_are_found_by_their_names_and_need_their_vendor_s_keys() -> None:
    assert ProviderFactory.find("google") is GoogleProvider
    assert ProviderFactory.find("vertex") is VertexProvider
    assert GoogleProvider.key_variables("google") == ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    assert VertexProvider.key_variables("vertex") == ("VERTEX_ACCESS_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS")


def test_the_vendor_s_server_and_version_are_asked_where_the_row_names_none() -> None:
    google = GoogleProvider()
    vertex = VertexProvider(ProviderSettings(api_key="token", options={"project": "p", "location": "us-central1"}))
    assert google._transport._base == "https://generativelanguage.googleapis.com/v1beta"  # type: ignore[attr-defined]
    assert vertex._transport._base == "https://us-central1-aiplatform.googleapis.com/v1beta1"  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:open_binary is deprecated:DeprecationWarning")
def test_tokens_are_counted_here() -> None:
    assert GoogleProvider().count_tokens("hello world", MODEL) == 2


def test_the_sdk_is_loaded_only_for_its_own_transport() -> None:
    script = (
        "import sys; from model_gateway.providers.google import GoogleProvider; GoogleProvider()\n"
        "assert not {'google.genai', 'google.auth', 'httpx2', 'bpe_openai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
