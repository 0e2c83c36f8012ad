import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import orjson
import pytest

from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderFactory, ProviderSettings, upstream_errors
from model_gateway.providers.openai import OpenAIProvider
from model_gateway.settings import ConfigError
from tests.upstream import Behaviour, Upstream

KEY = "sk-planted-0123456789abcdefghijklmnopqrstuvwxyz"
HELLO = [{"role": "user", "content": "hello there, gateway 😀"}]
Make = Callable[..., OpenAIProvider]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture(params=["http", "sdk"])
async def make(request: pytest.FixtureRequest, upstream: Upstream) -> AsyncIterator[Make]:
    """Makes providers of one transport that call the upstream, or ``api_base``."""
    made = []
    async with aiohttp.ClientSession() as session:

        def provider(**settings: Any) -> OpenAIProvider:
            given = {"name": "gpt", "api_base": upstream.base_url, "api_key": KEY, "timeout": 20.0, "http": session}
            made.append(OpenAIProvider(ProviderSettings(**given | {"transport": request.param} | settings)))
            return made[-1]

        yield provider
        for one in made:
            await one.close()


async def collect(provider: OpenAIProvider, model: str = "gpt-x", **fields: Any) -> list[bytes]:
    return [chunk async for chunk in provider.stream(HELLO, model, **fields)]


async def whole(provider: OpenAIProvider, model: str = "gpt-x", **fields: Any) -> bytes:
    return await provider.complete(HELLO, model, **fields)


def everything_said(error: BaseException) -> str:
    """All that a log could print of an error, its causes included."""
    said, seen = "", error
    while seen is not None:
        said += f"{seen}{seen!r}{vars(seen)}{seen.args}"
        seen = seen.__cause__ or seen.__context__
    return said


@pytest.fixture(params=[whole, collect], ids=["whole", "stream"])
def call(request: pytest.FixtureRequest) -> Any:
    """One call, whole or streamed."""
    return request.param


async def failure(call: Any, provider: OpenAIProvider, model: str = "gpt-x") -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await call(provider, model)
    assert KEY not in everything_said(caught.value)
    return caught.value


# what goes out


async def test_both_transports_send_the_same_request(upstream: Upstream) -> None:
    fields = {"temperature": 0.5, "n": 2, "metadata": {"ä": None}, "self": 1, "stream_options": {"x": True}}
    async with aiohttp.ClientSession() as session:
        for transport in ("http", "sdk"):
            settings = ProviderSettings(
                name="gpt", api_base=upstream.base_url, api_key=KEY, transport=transport, http=session
            )
            provider = OpenAIProvider(settings)
            await whole(provider, **fields)
            await collect(provider, **fields)
            await provider.close()

    over_http, over_sdk = list(upstream.requests)[:2], list(upstream.requests)[2:]
    for one, other in zip(over_http, over_sdk, strict=True):
        assert one.path == other.path == "/v1/chat/completions"
        assert one.json == other.json
        for name in ("authorization", "content-type", "accept-encoding"):
            assert one.headers[name] == other.headers[name]
    assert over_http[0].json == {"model": "gpt-x", "messages": HELLO, **fields}


async def test_a_stream_always_asks_for_usage(make: Make, upstream: Upstream) -> None:
    await collect(make(), stream=False, stream_options={"include_usage": False, "include_obfuscation": False})
    sent = upstream.requests[0].json
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True, "include_obfuscation": False}


async def test_a_server_without_a_key_is_sent_no_credentials(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    await whole(make(api_key=""))
    assert KEY not in str(upstream.requests[0].headers)
    assert "authorization" not in upstream.requests[0].headers


async def test_the_connection_is_used_again(make: Make, upstream: Upstream) -> None:
    provider = make()
    for _ in range(3):
        await whole(provider)
        await collect(provider)
        await failure(whole, provider, "rejected")
    assert upstream.connections == 1


@pytest.mark.parametrize(
    ("api_base", "chosen", "field"),
    [
        ("", "", "max_completion_tokens"),
        ("http://localhost/v1", "", "max_tokens"),
        ("", "max_tokens", "max_tokens"),
        ("http://localhost/v1", "max_completion_tokens", "max_completion_tokens"),
    ],
)
def test_an_output_bound_goes_into_the_field_the_server_knows(api_base: str, chosen: str, field: str) -> None:
    provider = OpenAIProvider(ProviderSettings(api_base=api_base, max_tokens_field=chosen))
    assert provider.max_tokens_field == field


# what comes back


async def test_a_whole_reply_is_passed_on_byte_for_byte(make: Make, upstream: Upstream) -> None:
    text = b'{ "id" : "\\u0041", "choices":[], "signature": "theirs", "x":1.0e2 }\n'
    upstream.next(Behaviour(body=text))
    assert await whole(make()) == text


async def test_chunks_are_passed_on_byte_for_byte(make: Make, upstream: Upstream) -> None:
    events = (b'{ "id":"1" , "x":1.0 }', '{"id":"ä😀"}'.encode(), b'{"error":null}', b'{"text":"\\"error\\""}')
    upstream.next(Behaviour(events=events))
    assert tuple(await collect(make())) == events


async def test_a_chunk_over_several_lines_stays_one_chunk(make: Make) -> None:
    chunks = await collect(make(), "newlines")
    assert all(b"\n" in chunk for chunk in chunks)
    assert orjson.loads(chunks[-1])["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("model", ["gpt-x", "no-usage", "no-finish", "foreign-members"])
async def test_what_a_reply_lacks_or_adds_is_left_to_the_gateway(make: Make, model: str) -> None:
    chunks = [orjson.loads(chunk) for chunk in await collect(make(), model)]
    said = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert said == HELLO[0]["content"]
    assert any(chunk["usage"] for chunk in chunks) == (model != "no-usage")
    assert orjson.loads(await whole(make(), model))["choices"][0]["message"]["content"] == said


async def test_a_stream_ends_at_done_though_the_server_does_not(make: Make, upstream: Upstream) -> None:
    events = (b"1", b"2", b"[DONE]", b"3")
    for part in range(3, 7):
        upstream.next(Behaviour(events=events, hold_at=part + 1))
        assert await collect(make()) == [b"1", b"2"]
    assert upstream.calls == 4


async def test_a_cut_after_done_does_no_harm(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(events=(b"1",), cut_at=3))
    assert await collect(make()) == [b"1"]


# failures


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (400, "upstream_rejected", 400),
        (404, "upstream_rejected", 400),
        (405, "upstream_rejected", 400),
        (409, "upstream_rejected", 409),
        (413, "upstream_rejected", 413),
        (422, "upstream_rejected", 422),
        (401, "upstream_unauthorized", 502),
        (402, "upstream_unauthorized", 502),
        (403, "upstream_unauthorized", 502),
        (408, "upstream_error", 502),
        (429, "rate_limit_exceeded", 429),
        (500, "upstream_error", 502),
        (502, "upstream_error", 502),
        (503, "upstream_unavailable", 503),
        (504, "upstream_timeout", 504),
        (529, "upstream_unavailable", 503),
        (599, "upstream_error", 502),
    ],
)
async def test_an_error_status_costs_nothing_and_has_its_own_code(
    make: Make, call: Any, upstream: Upstream, status: int, code: str, shown: int
) -> None:
    body = orjson.dumps({"error": {"message": f"no: {KEY}", "param": f"messages {KEY}"}})
    upstream.next(Behaviour(status=status, headers={"Retry-After": "7"}, body=body))
    error = await failure(call, make())

    assert (error.code, error.status, error.billed) == (code, shown, False)
    assert ("no: [api key]" in error.message) == (code == "upstream_rejected")
    assert error.param == ("messages [api key]" if code == "upstream_rejected" else None)
    assert error.retry_after == (7 if shown in (429, 503) else None)
    assert upstream.calls == 1


async def test_a_refused_key_names_the_deployment_and_not_the_key(make: Make, call: Any, upstream: Upstream) -> None:
    upstream.next(Behaviour(status=401, body=b'{"error":{"message":"Incorrect API key: sk-plan****wxyz"}}'))
    error = await failure(call, make(name="my-row"))
    assert "my-row" in error.message
    assert "api_key_env" in error.message
    assert "sk-" not in error.message


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"x"', b'{"error":[1]}', b'{"error":{"message":5,"param":{}}}']
)
async def test_a_rejection_without_a_readable_reason_still_says_so(
    make: Make, call: Any, upstream: Upstream, body: bytes
) -> None:
    upstream.next(Behaviour(status=400, body=body))
    error = await failure(call, make())
    assert error.message == "the provider of 'gpt' rejected the request (HTTP 400)"


@pytest.mark.parametrize("body", [b'{"error":"why"}', b'{"message":"why"}', b'{"detail":"why"}'])
async def test_a_reason_is_found_where_compatible_servers_put_it(make: Make, upstream: Upstream, body: bytes) -> None:
    upstream.next(Behaviour(status=400, body=body))
    assert (await failure(whole, make())).message.endswith(": why")


async def test_a_redirect_is_not_followed(make: Make, call: Any, upstream: Upstream) -> None:
    upstream.next(Behaviour(status=307, headers={"Location": f"{upstream.base_url}/chat/completions"}, body=b""))
    error = await failure(call, make())
    assert (error.code, error.billed, upstream.calls) == ("upstream_error", True, 1)


async def test_a_refused_connection_costs_nothing(make: Make, call: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(call, make(api_base=f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
    assert (error.code, error.status, error.billed) == ("upstream_unavailable", 503, False)


async def test_an_unknown_host_costs_nothing(make: Make, call: Any) -> None:
    error = await failure(call, make(api_base="http://no-such-host.invalid/v1"))
    assert (error.code, error.billed) == ("upstream_unavailable", False)


async def test_a_handshake_that_hangs_costs_nothing(make: Make, call: Any, upstream: Upstream) -> None:
    error = await failure(call, make(api_base=upstream.base_url.replace("http:", "https:"), timeout=4))
    assert (error.code, error.billed, upstream.calls) == ("upstream_unavailable", False, 0)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("cut-before-status", "upstream_truncated"),
        ("cut-midway", "upstream_truncated"),
        ("not-http", "upstream_truncated"),
        ("error-object", "upstream_error"),
        ("garbage", "upstream_invalid_response"),
        ("empty-body", "upstream_invalid_response"),
        ("not-an-object", "upstream_invalid_response"),
    ],
)
async def test_a_broken_reply_may_have_been_paid_and_is_not_tried_again(
    make: Make, call: Any, upstream: Upstream, model: str, code: str
) -> None:
    error = await failure(call, make(), model)
    assert (error.code, error.status, error.billed) == (code, 502, True)
    assert upstream.calls == 1


async def test_a_connection_that_was_used_before_is_not_tried_again_either(
    make: Make, call: Any, upstream: Upstream
) -> None:
    provider = make()
    await whole(provider)
    error = await failure(call, provider, "cut-before-status")
    assert (error.code, error.billed) == ("upstream_truncated", True)
    assert (upstream.calls, upstream.connections) == (2, 1)


async def test_a_stream_that_breaks_delivers_what_came_before(make: Make) -> None:
    chunks = []
    with pytest.raises(GatewayError, match="before its reply was whole"):
        async for chunk in make().stream(HELLO, "cut-midway"):
            chunks.append(chunk)  # noqa: PERF401 - the loop raises
    assert len(chunks) == 1


async def test_an_error_in_mid_stream_delivers_what_came_before(make: Make, upstream: Upstream) -> None:
    error = orjson.dumps({"error": {"message": f"too bad, {KEY}"}})
    upstream.next(Behaviour(events=(b'{"id":"1"}', error, b'{"id":"2"}')))
    chunks = []
    with pytest.raises(GatewayError, match=r"too bad, \[api key\]"):
        async for chunk in make().stream(HELLO, "gpt-x"):
            chunks.append(chunk)  # noqa: PERF401 - the loop raises
    assert chunks == [b'{"id":"1"}']


@pytest.mark.parametrize("model", ["held", "held-midway"])
async def test_a_reply_that_takes_too_long_may_have_been_paid(
    make: Make, call: Any, upstream: Upstream, model: str
) -> None:
    error = await failure(call, make(timeout=0.3), model)
    assert (error.code, error.status, error.billed) == ("upstream_timeout", 504, True)
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


async def test_an_error_status_counts_though_its_body_is_cut(make: Make, call: Any, upstream: Upstream) -> None:
    upstream.next(Behaviour(status=500, body=b'{"error":{}}', cut_at=2))
    error = await failure(call, make())
    assert (error.code, error.billed) == ("upstream_error", False)


async def test_an_error_status_counts_though_its_body_never_ends(make: Make, call: Any, upstream: Upstream) -> None:
    upstream.next(Behaviour(status=429, body=b'{"error":{}}', hold_at=2))
    error = await failure(call, make(timeout=0.4))
    assert (error.code, error.billed) == ("rate_limit_exceeded", False)


async def test_a_reply_beyond_the_bound_is_refused(
    make: Make, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_gateway.providers.http.MAX_REPLY_BYTES", 1000)
    upstream.next(Behaviour(body=b'{"x":"' + b"x" * 2000 + b'"}'))
    assert (await failure(whole, make())).code == "upstream_invalid_response"


async def test_an_endless_event_is_refused(make: Make, upstream: Upstream) -> None:
    upstream.next(Behaviour(events=(b"x" * (9 * 2**20),)))
    error = await failure(collect, make())
    assert (error.code, error.billed) == ("upstream_invalid_response", True)


# leaving early


async def test_closing_the_generator_cuts_the_call_at_once(make: Make, upstream: Upstream) -> None:
    chunks = make().stream(HELLO, "held-midway")
    assert await anext(chunks)
    await chunks.aclose()
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


async def test_cancelling_the_task_cuts_the_call_at_once(make: Make, call: Any, upstream: Upstream) -> None:
    task = asyncio.create_task(call(make(), "held"))
    await upstream.arrived()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


# the table and the settings


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.2"}, 1),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "999999999"}, 86_400),
        ({"retry-after": "inf"}, 86_400),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 2),
        ({"retry-after": "Thu, 01 Jan 1970 00:20:00 GMT"}, 200),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 -0000"}, 0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400),
    ],
)
def test_retry_after_is_read_in_every_form_and_bounded(headers: dict[str, str], seconds: int | None) -> None:
    assert upstream_errors.retry_after(headers, now=1000) == seconds


def test_settings_that_can_not_work_are_refused_at_the_start() -> None:
    settings = ProviderSettings("gpt", api_base="http://", api_key=f"{KEY}\n", options={"x": 1})
    with pytest.raises(ConfigError) as caught:
        OpenAIProvider(settings)
    assert len(caught.value.problems) == 3
    assert KEY not in str(caught.value)


async def test_it_brings_its_own_session_where_none_is_given(upstream: Upstream) -> None:
    provider = OpenAIProvider(ProviderSettings(api_base=upstream.base_url))
    assert await whole(provider)
    await provider.close()


def test_it_is_found_by_its_name() -> None:
    assert ProviderFactory.find("openai") is OpenAIProvider


@pytest.mark.filterwarnings("ignore:open_binary is deprecated:DeprecationWarning")
def test_tokens_are_counted_by_the_models_encoding() -> None:
    assert OpenAIProvider().count_tokens("hello world", "gpt-4o") == 2


def test_the_sdk_is_loaded_only_for_its_own_transport() -> None:
    script = (
        "import sys; from model_gateway.providers.openai import OpenAIProvider; OpenAIProvider()\n"
        "assert not {'openai', 'httpx2', 'bpe_openai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
