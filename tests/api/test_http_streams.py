"""Streamed replies: server-sent events that the official SDK reads, plain HTTP errors before the first of them."""

from __future__ import annotations

import asyncio

import openai
import orjson
import pytest

from model_gateway.errors import GatewayError
from model_gateway.signing import verify_reply, verify_stream
from tests.api.stream_worker import ADMIN_TOKEN, HMAC_SECRET
from tests.processes import wait_until

ASK = {"model": "echo", "messages": [{"role": "user", "content": "hello"}], "stream": True}


def data_of(body: bytes) -> list[bytes]:
    """The ``data`` of each event."""
    return [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]


async def test_the_official_sdk_reads_a_stream(sdk, worker):
    asking = asyncio.create_task(sdk.chat.completions.create(**ASK))
    taken = await worker.take()
    for text in ("one ", "two ", "three"):
        await taken.chunk(text, final=text == "three")
    async with await asking as stream:
        said = [chunk.choices[0].delta.content async for chunk in stream]
    assert said == ["one ", "two ", "three"]


async def test_chunks_arrive_as_they_are_written(sdk, worker):
    asking = asyncio.create_task(sdk.chat.completions.create(**ASK))
    taken = await worker.take()
    await taken.chunk("first")
    async with await asking as stream:
        chunks = aiter(stream)
        assert (await anext(chunks)).choices[0].delta.content == "first"
        await taken.chunk("last", final=True)
        assert (await anext(chunks)).choices[0].delta.content == "last"
        assert [chunk async for chunk in chunks] == []


async def test_a_stream_is_untouched_numbered_and_ends_with_done(api, worker):
    body = orjson.dumps(ASK)
    asking = asyncio.create_task(api.call("POST", "/v1/chat/completions", data=body))
    taken = await worker.take()
    sent = [await taken.chunk("a"), await taken.chunk("b"), await taken.chunk("c", final=True)]
    answer = await asking
    request_id = taken.envelope.request_id
    events = [b"id: %b:%d\ndata: %b\n\n" % (request_id.encode(), number, data) for number, data in enumerate(sent)]
    assert answer.body == b"".join(events) + b"data: [DONE]\n\n"
    assert verify_stream(sent, HMAC_SECRET, request_id=request_id, request_body=body)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["x-request-id"] == request_id


async def test_a_refused_stream_is_a_plain_http_error(api, worker):
    asking = asyncio.create_task(api.call("POST", "/v1/chat/completions", json=ASK))
    data = await (await worker.take()).error(GatewayError("budget_exceeded", "spent", retry_after=60))
    answer = await asking
    assert answer.status == 429
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.body == data
    assert verify_reply(data, HMAC_SECRET)


async def test_the_sdk_raises_its_own_exception_for_a_refused_stream(sdk, worker):
    asking = asyncio.create_task(sdk.chat.completions.create(**ASK))
    await (await worker.take()).error(GatewayError("model_overloaded", "busy"))
    with pytest.raises(openai.RateLimitError):
        await asking


async def test_an_error_in_mid_stream_is_an_event_and_no_clean_end(api, worker):
    asking = asyncio.create_task(api.call("POST", "/v1/chat/completions", json=ASK))
    taken = await worker.take()
    first = await taken.chunk("half a")
    error = await taken.error(GatewayError("upstream_truncated", "cut off"))
    answer = await asking
    assert answer.status == 200
    assert data_of(answer.body) == [first, error]


async def test_after_an_error_in_mid_stream_the_connection_serves_the_next_request(api, worker):
    """The stream's end is whole, so a client may already have sent it when the connection would be closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.ports.http)
    try:
        writer.write(_raw("POST /v1/chat/completions", orjson.dumps(ASK)))
        taken = await worker.take()
        await taken.chunk("half a")
        await taken.error(GatewayError("upstream_truncated", "cut off"))
        assert b"upstream_truncated" in await reader.readuntil(b"0\r\n\r\n")
        writer.write(_raw("GET /health/live", b""))
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    finally:
        writer.close()


def _raw(asked: str, body: bytes) -> bytes:
    lines = f"{asked} HTTP/1.1", "Host: x", f"Authorization: Bearer {ADMIN_TOKEN}", f"Content-Length: {len(body)}"
    return "\r\n".join((*lines, "", "")).encode() + body


async def test_the_sdk_raises_for_an_error_in_mid_stream(sdk, worker):
    asking = asyncio.create_task(sdk.chat.completions.create(**ASK))
    taken = await worker.take()
    await taken.chunk("half a")
    await taken.error(GatewayError("upstream_truncated", "cut off"))
    with pytest.raises(openai.APIError) as caught:
        async with await asking as stream:
            async for _ in stream:
                pass
    assert caught.value.code == "upstream_truncated"


async def test_a_silent_stream_is_kept_alive_by_comments(start, worker):
    async with start(silence_seconds=0.05) as api, await api.open(ASK) as response:
        taken = await worker.take()
        comments = [await response.content.readuntil(b"\n\n") for _ in range(2)]
        last = await taken.chunk("at last", final=True)
        rest = await response.content.read()
    assert comments == [b": keep-alive\n\n"] * 2
    assert data_of(rest) == [last, b"[DONE]"]


async def test_an_error_after_a_comment_is_an_event(start, worker):
    async with start(silence_seconds=0.05) as api, await api.open(ASK) as response:
        taken = await worker.take()
        await response.content.readuntil(b"\n\n")
        error = await taken.error(GatewayError("upstream_error", "it broke"))
        assert data_of(await response.content.read()) == [error]


async def test_a_client_that_leaves_cancels_its_stream(api, worker):
    opening = asyncio.create_task(api.open(ASK))
    taken = await worker.take()
    await taken.chunk("first")
    (await opening).close()
    assert await wait_until(worker.cancelled) == [taken.envelope.request_id]


async def test_a_client_that_leaves_before_the_first_chunk_cancels_its_stream(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=ASK))
    taken = await worker.take()
    asking.cancel()
    assert await wait_until(worker.cancelled) == [taken.envelope.request_id]
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_client_that_leaves_while_its_stream_is_submitted_cancels_it(api, worker, redis):
    await redis.client_pause(20_000, all=False)
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=ASK))

    async def submitting() -> bool:
        return any(client["cmd"] == "evalsha" and "b" in client["flags"] for client in await redis.client_list())

    await wait_until(submitting)
    asking.cancel()
    await wait_until(lambda: api.door.traffic.connections == 0)
    await redis.client_unpause()
    taken = await worker.take()
    assert await wait_until(worker.cancelled) == [taken.envelope.request_id]
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_stream_that_came_to_its_end_is_not_cancelled(api, worker):
    asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=ASK))
    await (await worker.take()).chunk("all", final=True)
    await asking
    await api.door.cancellations.close()
    assert await worker.cancelled() == []


SHORT = """
models: {echo: {provider: echo, free: true, timeout: 0.2, queue_timeout: 0.1}}
worker: {lease_seconds: 0.1}
routing: {retries: 0}
"""


async def test_a_stream_that_never_begins_ends_in_a_plain_time_out(start, worker):
    async with start(SHORT) as api:
        answer = await api.call("POST", "/proxy/echo", json=ASK)
    assert answer.status == 504
    assert answer.error["code"] == "request_timeout"
    assert len(await worker.cancelled()) == 1


async def test_a_stream_that_never_ends_is_broken_off_with_an_error(start, worker):
    async with start(SHORT) as api:
        asking = asyncio.create_task(api.call("POST", "/proxy/echo", json=ASK))
        first = await (await worker.take()).chunk("and then")
        got = data_of((await asking).body)
    assert got[0] == first
    assert orjson.loads(got[1])["error"]["code"] == "request_timeout"
    assert len(got) == 2
    assert len(await worker.cancelled()) == 1


async def test_a_client_that_does_not_read_can_not_hold_a_stream_for_ever(start, worker):
    async with start(SHORT) as api:
        opening = asyncio.create_task(api.open(ASK))
        taken = await worker.take()
        for _ in range(64):
            await taken.chunk("x" * 200_000)
        response = await opening
        await wait_until(worker.cancelled)
        await wait_until(lambda: api.door.traffic.connections == 0)
        response.close()
