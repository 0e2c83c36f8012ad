"""Anthropic over TCP: both transports, every fault, whole and streamed, native and by way of chat."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from anthropic import AsyncAnthropic

from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderSettings
from model_gateway.providers.anthropic import AnthropicProvider
from model_gateway.providers.anthropic.request import message_body
from model_gateway.providers.anthropic.terms import Terms
from model_gateway.settings import ConfigError
from tests.upstream import Behaviour, Upstream
from tests.upstream_anthropic import JSON, anthropic_speech, encoded, error, events, message, usage_of

KEY = "sk-ant-planted-0123456789abcdefghijklmnopqrstuvwxyz"
HELLO = [{"role": "user", "content": "hello there, gateway 😀"}]
NATIVE = {"model": "claude-x", "max_tokens": 50, "messages": HELLO}
TEXT = {"type": "text", "text": "hello"}
Make = Callable[..., AnthropicProvider]
Call = Callable[[AnthropicProvider], Awaitable[Any]]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(speech=anthropic_speech) as running:
        yield running


@pytest.fixture(params=["http", "sdk"])
async def make(request: pytest.FixtureRequest, upstream: Upstream) -> AsyncIterator[Make]:
    """Makes providers of one transport that call the upstream, or ``api_base``."""
    made = []
    async with aiohttp.ClientSession() as session:

        def provider(**settings: Any) -> AnthropicProvider:
            given = {"name": "claude", "api_base": upstream.base_url, "api_key": KEY, "timeout": 20.0, "http": session}
            made.append(AnthropicProvider(ProviderSettings(**given | {"transport": request.param} | settings)))
            return made[-1]

        yield provider
        for one in made:
            await one.close()


async def whole(provider: AnthropicProvider) -> JSON:
    return await provider.complete(HELLO, "claude-x", max_tokens=50)


async def stream(provider: AnthropicProvider) -> list[JSON]:
    return [chunk async for chunk in provider.stream(HELLO, "claude-x", max_tokens=50)]


async def native(provider: AnthropicProvider) -> bytes:
    return await provider.native("messages", NATIVE)


async def native_stream(provider: AnthropicProvider) -> list[bytes]:
    return [event async for event in provider.native_stream("messages", {**NATIVE, "stream": True})]


@pytest.fixture(params=[whole, stream, native, native_stream])
def call(request: pytest.FixtureRequest) -> Any:
    """One call: by way of chat or in the vendor's own words, whole or streamed."""
    return request.param


def everything_said(error: BaseException) -> str:
    """All that a log could print of an error, its causes included."""
    said, seen = "", error
    while seen is not None:
        said += f"{seen}{seen!r}{vars(seen)}{seen.args}"
        seen = seen.__cause__ or seen.__context__
    return said


async def failure(call: Call, provider: AnthropicProvider) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await call(provider)
    assert KEY not in everything_said(caught.value)
    return caught.value


def is_stream(call: Call) -> bool:
    return call in (stream, native_stream)


# what goes out


async def test_both_transports_send_the_same_request_and_read_the_same_reply(upstream: Upstream) -> None:
    options = {"beta": ["a-2025-01-01", "b-2026-01-01"]}
    fields = {
        "temperature": 0.5,
        "max_tokens": 9,
        "user": "ä",
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    replies = []
    async with aiohttp.ClientSession() as session:
        for transport in ("http", "sdk"):
            settings = ProviderSettings(
                api_base=upstream.base_url, api_key=KEY, transport=transport, http=session, options=options
            )
            provider = AnthropicProvider(settings)
            chunks = [chunk async for chunk in provider.stream(HELLO, "claude-x", **fields)]
            said = [await provider.complete(HELLO, "claude-x", **fields), *chunks]
            told = [await native(provider), *await native_stream(provider)]
            told.append(await provider.native("count_tokens", NATIVE))
            replies.append((told, [{**one, "created": 0} for one in said]))
            await provider.close()

    over_http, over_sdk = list(upstream.requests)[:5], list(upstream.requests)[5:]
    for one, other in zip(over_http, over_sdk, strict=True):
        assert one.path == other.path
        assert one.json == other.json
        for name in ("x-api-key", "anthropic-version", "anthropic-beta", "content-type", "accept-encoding"):
            assert one.headers[name] == other.headers[name]
        assert "authorization" not in one.headers | other.headers
    assert [one.path for one in over_http] == ["/v1/messages"] * 4 + ["/v1/messages/count_tokens"]
    assert over_http[0].headers["x-api-key"] == KEY
    assert over_http[0].headers["anthropic-version"] == "2023-06-01"
    assert over_http[0].headers["anthropic-beta"] == "a-2025-01-01,b-2026-01-01"
    assert replies[0] == replies[1]


async def test_the_vendor_s_typed_call_sends_what_the_mapper_makes(upstream: Upstream) -> None:
    fields = {
        "max_completion_tokens": 99,
        "stop": "END",
        "user": "u1",
        "reasoning_effort": "high",
        "service_tier": "default",
        "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    }
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    thought = {"type": "thinking", "thinking": "so", "signature": "c2ln"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    pdf = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}}
    messages = [
        {"role": "developer", "content": "be brief", "cache_control": {"type": "ephemeral"}},
        {"role": "user", "content": [{"type": "text", "text": "hello"}, image, pdf]},
        {"role": "assistant", "content": "well", "tool_calls": calls, "thinking_blocks": [thought]},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    ]
    provider = AnthropicProvider(ProviderSettings(api_base=upstream.base_url, api_key=KEY))
    await provider.complete(messages, "claude-x", **fields)
    await provider.close()
    async with AsyncAnthropic(api_key=KEY, base_url=upstream.base_url.removesuffix("/v1"), max_retries=0) as client:
        reply = await client.messages.create(**message_body(messages, "claude-x", fields, Terms()))

    ours, theirs = upstream.requests
    assert ours.json == theirs.json
    assert reply.stop_reason == "end_turn"


async def test_the_vendor_s_typed_client_reads_the_scripted_events_as_we_do(upstream: Upstream) -> None:
    sequence = events([TEXT], "end_turn", usage_of(3, 2))
    upstream.next(Behaviour(events=encoded(sequence)), Behaviour(events=encoded(sequence)))
    provider = AnthropicProvider(ProviderSettings(api_base=upstream.base_url, api_key=KEY))
    reader = ChatReader()
    for chunk in await stream(provider):
        reader.chunk(chunk)
    await provider.close()
    root = upstream.base_url.removesuffix("/v1")
    async with (
        AsyncAnthropic(api_key=KEY, base_url=root, max_retries=0) as client,
        client.messages.stream(model="claude-x", max_tokens=50, messages=HELLO) as said,
    ):
        final = await said.get_final_message()
    assert reader.text == final.content[0].text == "hello"
    assert reader.usage is not None
    assert (reader.usage.input, reader.usage.output) == (final.usage.input_tokens, final.usage.output_tokens) == (3, 2)


async def test_a_client_s_own_body_goes_out_as_it_is_and_the_vendor_s_reply_comes_back_byte_for_byte(
    make: Make, upstream: Upstream
) -> None:
    text = b'{ "type":"message" , "id" : "\\u0041", "new": [1.0e2] }\n'
    upstream.next(Behaviour(body=text), Behaviour(body=b'{"input_tokens":1 }'))
    provider, sent = make(), {**NATIVE, "temperature": 0.1, "anything": {"ä": None}}
    assert await provider.native("messages", sent) == text
    assert await provider.native("count_tokens", sent) == b'{"input_tokens":1 }'
    assert [request.json for request in upstream.requests] == [sent, sent]


async def test_a_client_s_own_events_come_back_byte_for_byte_to_the_last(make: Make, upstream: Upstream) -> None:
    sent = (b'{ "type":"a_new_event" }', '{"type":"x","error":null,"t":"ä😀"}'.encode(), b'{"type": "message_stop"}')
    upstream.next(Behaviour(events=(*sent, b'{"type":"late"}')))
    assert tuple(await native_stream(make())) == sent


@pytest.mark.parametrize("operation", ["responses", "embeddings"])
async def test_it_speaks_nothing_else(make: Make, operation: str) -> None:
    with pytest.raises(GatewayError, match="does not offer") as caught:
        await make().native(operation, {})
    assert (caught.value.code, caught.value.billed) == ("unsupported_operation", False)


async def test_a_base_may_end_in_its_version_or_not(make: Make, upstream: Upstream) -> None:
    root = upstream.base_url.removesuffix("/v1")
    for base in (root, f"{root}/", f"{root}/v1", f"{root}/v1/"):
        await whole(make(api_base=base))
    assert {request.path for request in upstream.requests} == {"/v1/messages"}


async def test_a_server_without_a_key_is_sent_no_credentials_and_nothing_out_of_the_environment(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Planted: {KEY}")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://no-such-host.invalid")
    await whole(make(api_key=""))
    headers = upstream.requests[0].headers
    assert KEY not in str(headers)
    assert not {"x-api-key", "authorization"} & headers.keys()


async def test_the_connection_is_used_again(make: Make, upstream: Upstream) -> None:
    provider = make()
    for one in (whole, stream, native, native_stream):
        await one(provider)
    upstream.next(Behaviour(status=429, body=error("rate_limit_error", "slow down")))
    await failure(whole, provider)
    await stream(provider)
    assert upstream.connections == 1


async def test_what_can_t_be_said_is_refused_before_anything_is_sent(make: Make, upstream: Upstream) -> None:
    provider = make()
    with pytest.raises(GatewayError) as caught:
        await provider.complete(HELLO, "claude-x", seed=1)
    with pytest.raises(GatewayError):
        await anext(provider.stream(HELLO, "claude-x", seed=1))
    assert (caught.value.code, caught.value.param, caught.value.billed) == ("unsupported_parameter", "seed", False)
    await make(drop_params=True).complete(HELLO, "claude-x", seed=1)
    assert upstream.calls == 1
    assert "seed" not in upstream.requests[0].json


# what comes back


async def test_a_stream_ends_at_message_stop_though_the_server_does_not(make: Make, upstream: Upstream) -> None:
    sequence = encoded(events([TEXT], "end_turn", usage_of(3, 2)))
    upstream.next(Behaviour(events=sequence, hold_at=len(sequence) + 1))
    chunks = await stream(make())
    assert chunks[-1]["usage"]["total_tokens"] == 5


async def test_a_text_that_says_message_stop_is_no_end(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(text='"message_stop"' + "message_stop"))
    said = "".join(choice["delta"].get("content", "") for chunk in await stream(make()) for choice in chunk["choices"])
    assert said == '"message_stop"message_stop'


@pytest.mark.parametrize("one", [whole, stream])
async def test_missing_usage_is_left_to_the_gateway_s_own_count(make: Make, upstream: Upstream, one: Call) -> None:
    upstream.next(Behaviour(usage=False))
    reply = await one(make())
    reader = ChatReader()
    for part in reply if isinstance(reply, list) else ():
        reader.chunk(part)
    if isinstance(reply, dict):
        reader.reply(reply)
    assert (reader.usage, reader.finish_reason, reader.text) == (None, "stop", HELLO[0]["content"])


async def test_no_content_is_an_answer_without_text(make: Make, upstream: Upstream) -> None:
    upstream.next(
        Behaviour(body=orjson.dumps(message([], "end_turn", usage_of(3, 1)))),
        Behaviour(events=encoded(events([], "end_turn", usage_of(3, 1)))),
    )
    provider = make()
    reply, chunks = await whole(provider), await stream(provider)
    assert (reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]) == ("", "stop")
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, "stop"]


# failures


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (400, "upstream_rejected", 400),
        (401, "upstream_unauthorized", 502),
        (402, "upstream_unauthorized", 502),
        (403, "upstream_unauthorized", 502),
        (404, "upstream_rejected", 400),
        (408, "upstream_error", 502),
        (413, "upstream_rejected", 413),
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
    upstream.next(Behaviour(status=status, headers={"Retry-After": "7"}, body=error("some_error", f"no: {KEY}")))
    failed = await failure(call, make())

    assert (failed.code, failed.status, failed.billed) == (code, shown, False)
    assert ("no: [api key]" in failed.message) == (code == "upstream_rejected")
    assert failed.retry_after == (7 if shown in (429, 503) else None)
    assert upstream.calls == 1


async def test_a_rate_limit_without_retry_after_names_no_time(make: Make, call: Call, upstream: Upstream) -> None:
    upstream.next(Behaviour(status=429, body=error("rate_limit_error", "slow down")))
    failed = await failure(call, make())
    assert (failed.code, failed.retry_after, failed.billed) == ("rate_limit_exceeded", None, False)


async def test_the_rate_that_is_left_is_learned(make: Make, call: Call, upstream: Upstream) -> None:
    headers = {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "30s"}
    upstream.next(Behaviour(headers=headers))
    provider = make()
    await call(provider)
    assert 20 < provider.limits.take() <= 30


@pytest.mark.parametrize(
    ("kind", "code", "told"),
    [
        ("overloaded_error", "upstream_unavailable", True),
        ("rate_limit_error", "rate_limit_exceeded", False),
        ("timeout_error", "upstream_timeout", True),
        ("api_error", "upstream_error", True),
        ("a_new_error", "upstream_error", True),
        ("invalid_request_error", "upstream_rejected", True),
        ("authentication_error", "upstream_unauthorized", False),
        ("billing_error", "upstream_unauthorized", False),
    ],
)
async def test_an_error_inside_a_200_may_have_been_paid_and_has_its_kind_s_code(
    make: Make, call: Call, upstream: Upstream, kind: str, code: str, told: bool
) -> None:
    body = error(kind, f"too bad, {KEY}")
    upstream.next(Behaviour(body=body, events=(*encoded(events([TEXT])[:4]), body)))
    failed = await failure(call, make())
    assert (failed.code, failed.billed) == (code, True)
    assert ("too bad, [api key]" in failed.message) == told


async def test_an_error_in_mid_stream_delivers_what_came_before(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(events=(*encoded(events([TEXT])[:4]), error("overloaded_error", "Overloaded"))))
    chunks = []
    with pytest.raises(GatewayError, match="Overloaded"):
        async for chunk in make().stream(HELLO, "claude-x"):
            chunks.append(chunk)  # noqa: PERF401 - the loop raises
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["", "hell"]


async def test_a_refused_connection_costs_nothing(make: Make, call: Call) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        failed = await failure(call, make(api_base=f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert (failed.code, failed.status, failed.billed) == ("upstream_unavailable", 503, False)


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


def cut_in_a_character() -> bytes:
    """A stream's start over the wire, that ends within the four bytes of a face."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    for event in encoded(events([{"type": "text", "text": "😀"}])[:4]):
        data = b"data: " + event + b"\n\n"
        head += b"%x\r\n%b\r\n" % (len(data), data)
    return head[: head.rindex("😀".encode()) + 2]


@pytest.mark.parametrize("one", [stream, native_stream])
async def test_a_stream_cut_within_a_character_is_cut(make: Make, upstream: Upstream, one: Call) -> None:
    upstream.next(Behaviour(raw=cut_in_a_character(), cut_at=1))
    failed = await failure(one, make())
    assert (failed.code, failed.billed) == ("upstream_truncated", True)


async def test_a_character_that_comes_in_two_parts_is_whole(make: Make, upstream: Upstream) -> None:
    first = cut_in_a_character()
    whole_stream = b"".join(b"data: " + event + b"\n\n" for event in encoded(events([{"type": "text", "text": "😀"}])))
    at = whole_stream.index("😀".encode()) + 2
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (whole_stream[:at], whole_stream[at:]))
    upstream.next(Behaviour(raw=first[: first.index(b"\r\n\r\n") + 4] + parts + b"0\r\n\r\n"))
    said = [choice["delta"].get("content") for chunk in await stream(make()) for choice in chunk["choices"]]
    assert said == ["", "😀", None]


@pytest.mark.parametrize("one", [stream, native_stream])
@pytest.mark.parametrize("behaviour", [Behaviour(done=False), Behaviour(finish=False, done=False)])
async def test_a_stream_that_ends_without_message_stop_was_cut(
    make: Make, upstream: Upstream, one: Call, behaviour: Behaviour
) -> None:
    upstream.next(behaviour)
    failed = await failure(one, make())
    assert (failed.code, failed.billed) == ("upstream_truncated", True)


async def test_a_stream_without_a_stop_reason_has_no_finish(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(finish=False))
    reader = ChatReader()
    for chunk in await stream(make()):
        reader.chunk(chunk)
    assert not reader.complete


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b'{"type":'])
async def test_what_is_no_json_object_is_no_reply(make: Make, call: Call, upstream: Upstream, body: bytes) -> None:
    upstream.next(Behaviour(body=body))
    failed = await failure(call, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize("body", [b"{}", b'{"type":"message"}', b'{"type":"message","content":[{"type":"new"}]}'])
async def test_what_is_no_message_is_no_answer(make: Make, upstream: Upstream, body: bytes) -> None:
    upstream.next(Behaviour(body=body))
    failed = await failure(whole, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize("event", [b"<html>", b"[]", b'{"type":', b'{"type":"content_block_delta","index":7}'])
async def test_an_event_that_makes_no_sense_ends_the_stream(make: Make, upstream: Upstream, event: bytes) -> None:
    upstream.next(Behaviour(events=(*encoded(events([TEXT])[:3]), event)))
    failed = await failure(stream, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize("one", [stream, native_stream])
async def test_an_endless_event_is_refused(make: Make, upstream: Upstream, one: Call) -> None:
    upstream.next(Behaviour(events=(b"x" * (9 * 2**20),)))
    failed = await failure(one, make())
    assert (failed.code, failed.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize("one", [stream, native_stream])
async def test_a_huge_event_within_the_bound_is_delivered(make: Make, upstream: Upstream, one: Call) -> None:
    sequence = events([TEXT])
    sequence[3]["delta"]["text"] = "x" * (4 * 2**20)
    upstream.next(Behaviour(events=encoded(sequence)))
    assert any(len(str(part)) > 4 * 2**20 for part in await one(make()))


# leaving early


async def test_closing_the_generator_cuts_the_call_at_once(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(hold_at=2))
    chunks = make().stream(HELLO, "claude-x")
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


# the settings


@pytest.mark.parametrize(
    "options",
    [
        {"unknown": 1},
        {"beta": "a"},
        {"beta": ["a,b"]},
        {"beta": ["a\n"]},
        {"beta": [1]},
        {"version": "2024-01-01"},
        {"thinking": "much"},
    ],
    ids=str,
)
def test_options_that_can_not_work_are_refused_at_the_start(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"models\.claude\.options\."):
        AnthropicProvider(ProviderSettings("claude", options=options))


async def test_the_version_is_the_row_s(make: Make, upstream: Upstream) -> None:
    provider = make(options={"version": "2026-10-21"})
    await native(provider)
    assert upstream.requests[0].headers["anthropic-version"] == "2026-10-21"
    with pytest.raises(GatewayError, match="taken out of the Messages API"):
        await provider.complete(HELLO, "claude-x", temperature=0.2)


async def test_models_before_adaptive_thinking_get_a_budget_where_the_row_says_so(
    make: Make, upstream: Upstream
) -> None:
    await make(options={"thinking": "budget"}).complete(HELLO, "c", reasoning_effort="low", max_tokens=4000)
    await make().complete(HELLO, "c", reasoning_effort="low", max_tokens=4000)
    assert [request.json["thinking"]["type"] for request in upstream.requests] == ["enabled", "adaptive"]


async def test_it_brings_its_own_session_where_none_is_given(upstream: Upstream) -> None:
    provider = AnthropicProvider(ProviderSettings(api_base=upstream.base_url))
    assert await whole(provider)
    await provider.close()


def test_it_is_found_by_its_name_and_needs_its_vendor_s_key() -> None:
    assert ProviderFactory.find("anthropic") is AnthropicProvider
    assert AnthropicProvider.key_variables("anthropic") == ("ANTHROPIC_API_KEY",)


@pytest.mark.filterwarnings("ignore:open_binary is deprecated:DeprecationWarning")
def test_tokens_are_counted_with_a_margin() -> None:
    assert AnthropicProvider().count_tokens("hello world", "claude-x") == 3
    assert AnthropicProvider().count_tokens("", "claude-x") == 0


def test_the_sdk_is_loaded_only_for_its_own_transport() -> None:
    script = (
        "import sys; from model_gateway.providers.anthropic import AnthropicProvider; AnthropicProvider()\n"
        "assert not {'anthropic', 'httpx2', 'bpe_openai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
