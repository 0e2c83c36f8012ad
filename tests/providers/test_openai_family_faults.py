"""What each fault of a server comes to: for OpenAI, for Azure and for a compatible vendor, over both transports."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from gateway_worker.call import object_and_text
from model_gateway.dialects.chat import ChatReader
from model_gateway.errors import GatewayError
from model_gateway.providers import ProviderInterface
from tests.providers.openai_family import HELLO, KEY, TRANSPORTS, collect, failure, row, whole
from tests.upstream import Behaviour, Upstream

BEHIND = [(provider, transport) for provider in ("openai", "azure", "groq") for transport in TRANSPORTS]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture(params=BEHIND, ids=["-".join(pair) for pair in BEHIND])
def behind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A provider's name and a transport."""
    return request.param


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as shared:
        yield shared


@pytest.fixture
async def provider(
    behind: tuple[str, str], upstream: Upstream, session: aiohttp.ClientSession
) -> AsyncIterator[ProviderInterface]:
    made = row(behind[0], upstream, session, transport=behind[1])
    yield made
    await made.close()


@pytest.fixture
async def hasty(
    behind: tuple[str, str], upstream: Upstream, session: aiohttp.ClientSession
) -> AsyncIterator[ProviderInterface]:
    """The same with little time."""
    made = row(behind[0], upstream, session, transport=behind[1], timeout=0.3)
    yield made
    await made.close()


@pytest.fixture(params=[whole, collect], ids=["whole", "stream"])
def call(request: pytest.FixtureRequest) -> Any:
    """One call, whole or streamed."""
    return request.param


WAIT = {"Retry-After": "7"}
STATUSES: list[tuple[int, dict[str, str], str, int, int | None]] = [
    (400, {}, "upstream_rejected", 400, None),
    (401, {}, "upstream_unauthorized", 502, None),
    (403, {}, "upstream_unauthorized", 502, None),
    (404, {}, "upstream_rejected", 400, None),
    (408, {}, "upstream_error", 502, None),
    (429, WAIT, "rate_limit_exceeded", 429, 7),
    (429, {}, "rate_limit_exceeded", 429, None),
    (500, {}, "upstream_error", 502, None),
    (529, WAIT, "upstream_unavailable", 503, 7),
    (529, {}, "upstream_unavailable", 503, None),
]


@pytest.mark.parametrize(("status", "headers", "code", "shown", "wait"), STATUSES)
async def test_an_error_status_costs_nothing_and_has_its_own_code(
    provider: ProviderInterface,
    call: Any,
    upstream: Upstream,
    status: int,
    headers: dict[str, str],
    code: str,
    shown: int,
    wait: int | None,
) -> None:
    body = orjson.dumps({"error": {"message": f"no: {KEY}", "type": "x", "param": "messages", "code": "y"}})
    upstream.next(Behaviour(status=status, headers=headers, body=body))
    error = await failure(call, provider)
    assert (error.code, error.status, error.billed, error.retry_after) == (code, shown, False, wait)
    assert error.param == ("messages" if code == "upstream_rejected" else None)
    assert upstream.calls == 1


@pytest.mark.parametrize("hold_at", [0, 2], ids=["before-the-first-byte", "after-it"])
async def test_a_reply_that_takes_too_long_may_have_been_paid(
    hasty: ProviderInterface, call: Any, upstream: Upstream, hold_at: int
) -> None:
    upstream.next(Behaviour(hold_at=hold_at))
    error = await failure(call, hasty)
    assert (error.code, error.status, error.billed) == ("upstream_timeout", 504, True)
    await asyncio.wait_for(upstream.requests[0].abandoned.wait(), 10)


async def test_a_stream_cut_inside_a_character_gives_what_was_whole_and_no_half(
    provider: ProviderInterface, upstream: Upstream
) -> None:
    first = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\ndata: {"choices":[{"x":"'
    character = "😀".encode()
    body = first + character + b"y" * (len(first) - 1)  # half of the body ends inside the character
    half = body[: len(body) // 2]
    assert first < half < first + character
    upstream.next(Behaviour(body=body, cut_at=2))
    chunks = []
    with pytest.raises(GatewayError) as caught:
        async for chunk in provider.stream(HELLO, "m"):
            chunks.append(chunk)  # noqa: PERF401 - the loop raises
    assert (caught.value.code, caught.value.billed) == ("upstream_truncated", True)
    assert chunks == [b'{"choices":[{"index":0,"delta":{"content":"hi"}}]}']


async def test_a_whole_reply_cut_short_may_have_been_paid(provider: ProviderInterface, upstream: Upstream) -> None:
    upstream.next(Behaviour(cut_at=2))
    error = await failure(whole, provider)
    assert (error.code, error.billed) == ("upstream_truncated", True)


@pytest.mark.parametrize("body", [b'{"choices": [', b"<html>", b"", b"\xff\xfe", b"[1]"])
async def test_a_whole_reply_that_is_no_object_is_no_reply(
    provider: ProviderInterface, upstream: Upstream, body: bytes
) -> None:
    upstream.next(Behaviour(body=body))
    error = await failure(whole, provider)
    assert (error.code, error.status, error.billed) == ("upstream_invalid_response", 502, True)


async def test_a_chunk_that_is_not_json_is_left_to_the_worker_which_refuses_it(
    provider: ProviderInterface, upstream: Upstream
) -> None:
    upstream.next(Behaviour(events=(b'{"choices": [',)))
    (chunk,) = await collect(provider)
    with pytest.raises(GatewayError) as caught:
        object_and_text(chunk)
    assert (caught.value.code, caught.value.billed) == ("upstream_invalid_response", True)


@pytest.mark.parametrize(
    "error", [{"error": {"message": f"too bad, {KEY}"}}, {"error": "bad"}, {"object": "error", "message": "bad"}]
)
async def test_an_error_in_a_200_may_have_been_paid(
    provider: ProviderInterface, call: Any, upstream: Upstream, error: dict[str, Any]
) -> None:
    text = orjson.dumps(error)
    upstream.next(Behaviour(body=text, events=(b'{"choices":[]}', text)))
    found = await failure(call, provider)
    assert (found.code, found.status, found.billed) == ("upstream_error", 502, True)
    assert "bad" in found.message


async def test_where_usage_is_missing_the_text_is_there_to_count(provider: ProviderInterface, call: Any) -> None:
    reader = ChatReader(provider.chat_usage)
    reply = await call(provider, "no-usage")
    if isinstance(reply, bytes):
        reader.reply(orjson.loads(reply))
    else:
        for chunk in reply:
            reader.chunk(orjson.loads(chunk))
        assert reader.complete
    assert (reader.usage, reader.text) == (None, HELLO[0]["content"])


async def test_a_huge_chunk_passes_and_one_beyond_the_bound_is_refused(
    provider: ProviderInterface, upstream: Upstream
) -> None:
    huge = orjson.dumps({"choices": [{"index": 0, "delta": {"content": "x" * 4 * 2**20}}]})
    upstream.next(Behaviour(events=(huge,)), Behaviour(events=(b"x" * (9 * 2**20),)))
    assert await collect(provider) == [huge]
    error = await failure(collect, provider)
    assert (error.code, error.billed) == ("upstream_invalid_response", True)


async def test_an_empty_choice_list_of_a_whole_reply_is_passed_on_and_paid(
    provider: ProviderInterface, upstream: Upstream
) -> None:
    text = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}'
    upstream.next(Behaviour(body=text))
    reply = await whole(provider)
    assert reply == text
    reader = ChatReader(provider.chat_usage)
    reader.reply(orjson.loads(reply))
    assert (reader.finish_reason, reader.text) == ("", "")
    assert reader.usage is not None
    assert reader.usage.input == 3


async def test_a_stream_of_empty_choice_lists_only_never_comes_to_its_end(
    provider: ProviderInterface, upstream: Upstream
) -> None:
    upstream.next(Behaviour(events=(b'{"choices":[]}', b'{"choices":[],"usage":null}')))
    reader = ChatReader(provider.chat_usage)
    for chunk in await collect(provider):
        reader.chunk(orjson.loads(chunk))
    assert not reader.complete


async def test_a_stream_without_any_event_is_no_reply(provider: ProviderInterface, upstream: Upstream) -> None:
    upstream.next(Behaviour(events=()))
    error = await failure(collect, provider)
    assert (error.code, error.billed) == ("upstream_invalid_response", True)
